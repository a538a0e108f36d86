"""One decoder per transfer syntax, at full or reduced resolution.

docs/explanation/decoding.md says which codec was chosen for which syntax, and what was measured.

A wavelet codec that leaves out r resolution levels gives every 2**r-th sample of a smoothed picture, and sample k lies
on pixel k * 2**r; a scaled DCT gives the means of blocks. ``Sampling`` says which, because the difference is worth
half a small pixel: averaged without it, the smaller picture is off by up to 0.9% of range, with it by 0.15%.

Shape suffixes: H rows, W columns, S samples. "Part 5" is PS3.5 of the DICOM standard.
"""

from __future__ import annotations

import io
import itertools
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

# By name, because imagecodecs loads each codec when it is first asked for: not under the memory limit of one image.
from imagecodecs import htj2k_decode, jpeg2k_decode, jpeg8_decode, jpegls_decode, jpegxl_decode, packbits_decode
from PIL import Jpeg2KImagePlugin, JpegImagePlugin
from pydicom import uid as uids

from sarc_ray.errors import ImageError, Reason
from sarc_ray.imaging import codestream
from sarc_ray.imaging.codestream import StreamFacts

IntArray = npt.NDArray[np.integer[Any]]
Buffer = bytes | memoryview

# Further halving gains nothing measurable, and few codestreams have more levels.
MAX_REDUCTION = 5
_MAX_DCT_REDUCTION = 3
# The reversible wavelet overshoots at steps and corners by less than this share of the step (0.28 was the most that
# was found, after any number of levels); what is beyond it shows bits that are no pixel.
_OVERSHOOT = 0.35


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """How a header says that one frame is stored (Part 3 C.7.6.3.1, Part 5 section 8); all values are checked.

    Args:
        rows: H.
        columns: W.
        samples: per pixel: 1 or 3.
        photometric: Photometric Interpretation.
        planar: true where native samples come plane by plane.
        bits_allocated: 1, 8, 16 or 32.
        bits_stored: at most ``bits_allocated``.
        high_bit: at least ``bits_stored`` - 1.
        signed: Pixel Representation.
        big_endian: byte order of native pixels.
        words: true where native pixels are 16-bit words (OW).
    """

    rows: int
    columns: int
    samples: int
    photometric: str
    planar: bool
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    big_endian: bool
    words: bool

    @property
    def stored_range(self) -> tuple[int, int]:
        """Smallest and largest value that Bits Stored can hold."""
        half = 1 << (self.bits_stored - 1)
        return (-half, half - 1) if self.signed else (0, 2 * half - 1)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of one allocated sample, in this machine's byte order."""
        return np.dtype(f"{'i' if self.signed else 'u'}{max(self.bits_allocated // 8, 1)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """Where the samples of a decoded picture lie: sample k covers full-size pixels first + k * step and step more.

    Args:
        step_px: full-size pixels per sample.
        first_px: full-size coordinate of the left (upper) edge of sample 0; negative where it is centred on pixel 0.
    """

    step_px: int
    first_px: float


FULL = Sampling(step_px=1, first_px=0.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Decoded:
    """Stored values of one frame, shape (H, W), or (H, W, S) for colour, and where in the full picture they lie."""

    pixels: IntArray
    sampling: Sampling


Decoder = Callable[[Buffer, Layout, int], Decoded]


def decode_frame(transfer_syntax: str, frame: Buffer, layout: Layout, reduction: int = 0) -> Decoded:
    """Decode one frame.

    Args:
        transfer_syntax: UID.
        frame: native pixels, or one encoded frame.
        layout: from the header.
        reduction: halvings that the caller can bear; syntaxes without resolution levels, codestreams with fewer of
            them, and pixels for which halving would not be exact come out larger, up to full size.

    Returns:
        Stored values: bits outside Bits Stored are gone.

    Raises:
        ImageError: UNSUPPORTED_SYNTAX, UNSUPPORTED_PIXELS or DECODE_FAILED.
        Exception: of any type, from codecs on damaged data.
    """
    decoder = find_decoder(transfer_syntax)
    return decoder(frame, layout, max(0, min(reduction, MAX_REDUCTION)))


def find_decoder(transfer_syntax: str) -> Decoder:
    """The decoder of a transfer syntax.

    Raises:
        ImageError: UNSUPPORTED_SYNTAX, saying what the syntax is.
    """
    if transfer_syntax not in DECODERS:
        name = uids.UID(transfer_syntax).name
        raise ImageError(Reason.UNSUPPORTED_SYNTAX, f"found {transfer_syntax} ({name}); decoders: {len(DECODERS)}")
    return DECODERS[transfer_syntax]


def _native(frame: Buffer, layout: Layout, reduction: int) -> Decoded:
    """Uncompressed pixels: a view of the file's bytes where they are stored as this machine stores them."""
    count = layout.rows * layout.columns * layout.samples
    if layout.bits_allocated == 1:  # Part 5 8.1.1: packed, the first pixel in the lowest bit
        packed = _at_least(np.frombuffer(frame, np.uint8), -(-count // 8))
        return _whole(np.unpackbits(packed.astype(np.uint8), count=count, bitorder="little"), layout)
    dtype = layout.dtype.newbyteorder(">" if layout.big_endian else "<")
    if layout.bits_allocated == 8 and layout.big_endian and layout.words:
        # Part 5 A.3 and 8.1.2: two 8-bit pixels share a word, and big endian swaps the word.
        samples: IntArray = np.frombuffer(frame, ">u2", len(frame) // 2).astype("<u2").view(dtype)
    else:
        samples = np.frombuffer(frame, dtype, len(frame) // dtype.itemsize)
    if layout.photometric == "YBR_FULL_422" and layout.samples == 3 and len(samples) < count:
        samples = _unfold_422(_at_least(samples, count // 3 * 2)[: count // 3 * 2])
    return _whole(_at_least(samples, count)[:count].astype(layout.dtype, copy=False), layout)


def _unfold_422(samples: IntArray) -> IntArray:
    """Two luminances and their common chrominances (Part 3 C.7.6.3.1.2) to three samples per pixel."""
    pairs = samples.reshape(-1, 4)
    return np.stack([pairs[:, [0, 2, 3]], pairs[:, [1, 2, 3]]], axis=1).reshape(-1)


def _at_least(values: IntArray, count: int) -> IntArray:
    if len(values) < count:
        raise ImageError(Reason.DECODE_FAILED, f"{len(values)} of {count} samples")
    return values


def _whole(samples: IntArray, layout: Layout) -> Decoded:
    """Full-size pixels from native samples in their order."""
    if layout.samples == 1:
        pixels: IntArray = samples.reshape(layout.rows, layout.columns)
    elif layout.planar:  # Part 3 C.7.6.3.1.3
        planes: IntArray = samples.reshape(layout.samples, layout.rows, layout.columns)
        pixels = np.moveaxis(planes, 0, -1)
    else:
        pixels = samples.reshape(layout.rows, layout.columns, layout.samples)
    return Decoded(pixels=only_stored_bits(pixels, layout), sampling=FULL)


def only_stored_bits(pixels: IntArray, layout: Layout) -> IntArray:
    """Remove what lies outside Bits Stored: overlays and junk (Part 5 8.1.1); a view where nothing does."""
    low, high = layout.stored_range
    if layout.bits_allocated == 1 or layout.bits_stored == layout.bits_allocated:
        return pixels
    if layout.high_bit == layout.bits_stored - 1 and low <= pixels.min() and pixels.max() <= high:
        return pixels
    # Shifting back right extends the sign of signed types.
    left, right = layout.bits_allocated - 1 - layout.high_bit, layout.bits_allocated - layout.bits_stored
    return (pixels << left) >> right


def _rle(frame: Buffer, layout: Layout, reduction: int) -> Decoded:
    """RLE (Part 5 annex G): a segment of PackBits per byte of a sample, most significant first.

    The segment table is checked here, because decoders of whole frames trust it, and end the process where it lies;
    imagecodecs' PackBits stays within its buffers on any bytes.
    """
    n_bytes, count = layout.bits_allocated // 8, layout.rows * layout.columns
    n_segments, *offsets = struct.unpack("<16L", frame[:64])
    if not n_bytes or n_segments != n_bytes * layout.samples or n_segments > 15:
        raise ImageError(Reason.DECODE_FAILED, f"{n_segments} RLE segments")
    bounds = [*offsets[:n_segments], len(frame)]
    if bounds[0] < 64 or any(begin >= end for begin, end in itertools.pairwise(bounds)):
        raise ImageError(Reason.DECODE_FAILED, "RLE segments out of order or bounds")
    planes = np.empty((layout.samples, count, n_bytes), dtype=np.uint8)
    # Some writers pad a segment with more than one byte; what is beyond the pixels is left out.
    plane = bytearray(count + 4096)
    for index in range(n_segments):
        sample, byte = divmod(index, n_bytes)
        # A no-op at the end makes a literal run of the padding byte 0, which would else lack its value.
        segment = bytes(frame[bounds[index] : bounds[index + 1]]) + b"\x80"
        decoded = packbits_decode(segment, out=plane)
        if len(decoded) < count:
            raise ImageError(Reason.DECODE_FAILED, f"{len(decoded)} of {count} bytes in an RLE segment")
        planes[sample, :, n_bytes - 1 - byte] = np.frombuffer(decoded, np.uint8, count)
    samples = planes.view(layout.dtype.newbyteorder("<")).reshape(layout.samples, layout.rows, layout.columns)
    pixels = samples[0] if layout.samples == 1 else np.moveaxis(samples, 0, -1)
    return Decoded(pixels=only_stored_bits(pixels.astype(layout.dtype, copy=False), layout), sampling=FULL)


def _jpeg(frame: Buffer, layout: Layout, reduction: int) -> Decoded:
    """JPEG and JPEG-LS. The codestream's own process decides, for archives mix up its transfer syntaxes."""
    facts = codestream.read_jpeg(frame)
    _check_size(facts, layout)
    if facts.jpeg_ls:
        return _decoded(jpegls_decode(_as_bytes(frame)), facts, layout, lossless=True)
    if facts.lossless_jpeg:
        return _decoded(_libjpeg(frame), facts, layout, lossless=True)
    if facts.bits == 8 and facts.components == 1 and not layout.signed:
        return _scaled_jpeg(frame, facts, layout, min(reduction, _MAX_DCT_REDUCTION))
    return _decoded(_libjpeg(frame), facts, layout, lossless=False)


def _as_bytes(frame: Buffer) -> bytes:
    """The buffer itself: imagecodecs' decoders take views, which its stubs leave out."""
    return cast("bytes", frame)


def _libjpeg(frame: Buffer) -> IntArray:
    """All samples as they are coded: telling colour from grey needs them unconverted."""
    pixels: IntArray = jpeg8_decode(_as_bytes(frame), colorspace="UNKNOWN", outcolorspace="UNKNOWN")
    return pixels


def _scaled_jpeg(frame: Buffer, facts: StreamFacts, layout: Layout, reduction: int) -> Decoded:
    """8-bit grey JPEG; libjpeg-turbo halves it while it transforms."""
    image = JpegImagePlugin.JpegImageFile(io.BytesIO(frame))
    step = 1 << reduction
    image.draft("L", (facts.columns // step, facts.rows // step))
    pixels_HW = np.asarray(image)
    if pixels_HW.shape != (-(-facts.rows // step), -(-facts.columns // step)):
        raise ImageError(Reason.DECODE_FAILED, f"decoded to {pixels_HW.shape}")
    return _decoded(pixels_HW, facts, layout, lossless=False, sampling=Sampling(step_px=step, first_px=0.0))


def _jpeg2000(frame: Buffer, layout: Layout, reduction: int) -> Decoded:
    """JPEG 2000 and HTJ2K (Part 5 A.4.4), with as few resolution levels as the caller can bear."""
    facts = codestream.read_jpeg2000(frame)
    _check_size(facts, layout)
    reduction = min(reduction, facts.levels)
    # Bit patterns under another sign, or left of Bits Stored, are no numbers and cannot be averaged; nor can colour be
    # told from grey by fewer pixels.
    exact_only = facts.signed != layout.signed or layout.high_bit != layout.bits_stored - 1 or facts.components > 1
    if reduction and not exact_only:
        small = _reduced_wavelets(frame, facts, layout, reduction)
        if small is not None:
            return small
    return _decoded(_full_wavelets(frame, facts), facts, layout, lossless=facts.reversible)


def _full_wavelets(frame: Buffer, facts: StreamFacts) -> IntArray:
    # OpenJPH gives half a picture where the codestream breaks off, but the tile-parts were walked.
    pixels: IntArray = (htj2k_decode if facts.high_throughput else jpeg2k_decode)(_as_bytes(frame))
    return pixels


def _reduced_wavelets(frame: Buffer, facts: StreamFacts, layout: Layout, reduction: int) -> Decoded | None:
    """The picture halved; None where it must be decoded in full."""
    try:
        # OpenJPH does not clamp, and its 16-bit output wraps around; with room above the pixels that can be undone.
        roomy = min(facts.bits, layout.bits_stored) <= 14 and facts.bits > 8
        if facts.high_throughput and roomy:
            pixels_HW: IntArray = htj2k_decode(_as_bytes(frame), skipres=reduction).view(np.int16)
        else:
            pixels_HW = _openjpeg(frame, facts, reduction)
    except (OSError, RuntimeError, ValueError):  # A tile-part may have fewer levels than the main header says.
        return None
    step = 1 << reduction
    if pixels_HW.shape != (-(-facts.rows // step), -(-facts.columns // step)):
        return None
    low, high = layout.stored_range
    room = (high - low) * _OVERSHOOT
    may_hold_junk = facts.reversible and facts.bits > layout.bits_stored
    if may_hold_junk and (pixels_HW.min() < low - room or pixels_HW.max() > high + room):
        return None  # Bits above High Bit are set: they must go before pixels are averaged.
    # Sample k lies on pixel k * 2**r (ISO 15444-1 F.3: low-pass coefficients sit on even positions).
    sampling = Sampling(step_px=step, first_px=0.5 - step / 2)
    return Decoded(pixels=np.clip(pixels_HW, low, high).astype(layout.dtype), sampling=sampling)


def _openjpeg(frame: Buffer, facts: StreamFacts, reduction: int) -> IntArray:
    """By Pillow, the one binding that lets resolution levels out; it clamps, and fills 8 or 16 bits from the left."""
    if facts.bits > 16:
        raise ValueError("more than 16 bits")
    image = Jpeg2KImagePlugin.Jpeg2KImageFile(io.BytesIO(frame))
    image.reduce = reduction
    # Pillow rounds the smaller sides to the nearest, where the standard rounds up (ISO 15444-1 B.5), and then refuses
    # what OpenJPEG gives it; of sides that are multiples it takes the right ones.
    step = 1 << reduction
    image._size = (-(-facts.columns // step) * step, -(-facts.rows // step) * step)
    pixels_HW = np.asarray(image).astype(np.int32)
    pixels_HW >>= pixels_HW.dtype.type((8 if facts.bits <= 8 else 16) - facts.bits)
    return pixels_HW - (1 << (facts.bits - 1)) if facts.signed else pixels_HW


def _jpeg_xl(frame: Buffer, layout: Layout, reduction: int) -> Decoded:
    """JPEG XL (Part 5 A.4). Its decoder offers no smaller picture."""
    facts = codestream.read_jpeg_xl(frame)
    if (facts.rows, facts.columns) != (layout.rows, layout.columns):
        raise ImageError(Reason.DECODE_FAILED, f"codestream of {(facts.rows, facts.columns)}, header says otherwise")
    pixels: IntArray = jpegxl_decode(_as_bytes(frame), numthreads=1)
    if not np.issubdtype(pixels.dtype, np.integer):
        raise ImageError(Reason.UNSUPPORTED_PIXELS, f"JPEG XL of {pixels.dtype}")
    return _decoded(pixels, facts, layout, lossless=True)


def _check_size(facts: StreamFacts, layout: Layout) -> None:
    found, stated = (facts.rows, facts.columns), (layout.rows, layout.columns)
    if found != stated:
        raise ImageError(Reason.DECODE_FAILED, f"codestream of {found}, header of {stated}")
    if facts.bits > 8 * layout.dtype.itemsize:
        raise ImageError(Reason.DECODE_FAILED, f"codestream of {facts.bits} bits, {layout.bits_allocated} allocated")
    if facts.components > layout.samples:  # JPEG 2000 allows 16384, and decoders make room for all of them
        raise ImageError(Reason.DECODE_FAILED, f"codestream of {facts.components} samples, header of {layout.samples}")


def _decoded(
    pixels: IntArray, facts: StreamFacts, layout: Layout, *, lossless: bool, sampling: Sampling = FULL
) -> Decoded:
    """Bring a codec's samples to the header's type and range."""
    if pixels.shape[2:] not in ((), (layout.samples,)):
        raise ImageError(Reason.DECODE_FAILED, f"{pixels.shape[2:]} samples, header says {layout.samples}")
    low, high = layout.stored_range
    if facts.signed == layout.signed and low <= pixels.min() and pixels.max() <= high:
        return Decoded(pixels=pixels.astype(layout.dtype, copy=False), sampling=sampling)
    bits = facts.bits or 8 * pixels.dtype.itemsize
    if facts.signed != layout.signed:
        # JPEG and JPEG-LS know no sign, and JPEG 2000 may say another than the header (Part 5 8.2.4): the bits are
        # taken for two's complement of the codestream's own width.
        spare = max(8 * layout.dtype.itemsize - bits, 0)
        pixels = (pixels.astype(layout.dtype) << spare) >> spare
    if lossless and bits > layout.bits_stored:
        return Decoded(pixels=only_stored_bits(pixels.astype(layout.dtype), layout), sampling=sampling)
    # A lossy codec may overshoot the stored range.
    return Decoded(pixels=np.clip(pixels, low, high).astype(layout.dtype), sampling=sampling)


# These hold pixels in the data set itself; all others in fragments (Part 5 A.4).
NATIVE = (
    uids.ImplicitVRLittleEndian,
    uids.ExplicitVRLittleEndian,
    uids.DeflatedExplicitVRLittleEndian,
    uids.ExplicitVRBigEndian,
)
_JPEG = (
    uids.JPEGBaseline8Bit,
    uids.JPEGExtended12Bit,
    uids.JPEGLossless,
    uids.JPEGLosslessSV1,
    uids.JPEGLSLossless,
    uids.JPEGLSNearLossless,
)
_JPEG_2000 = (uids.JPEG2000Lossless, uids.JPEG2000, uids.HTJ2KLossless, uids.HTJ2KLosslessRPCL, uids.HTJ2K)
_JPEG_XL = ("1.2.840.10008.1.2.4.110", "1.2.840.10008.1.2.4.111", "1.2.840.10008.1.2.4.112")
# Part 5 annex A. Not here, and so refused: the retired JPEG processes (1.2.840.10008.1.2.4.52 to .56, .58 to .66),
# multi-component JPEG 2000 (.92, .93), JPIP (.94, .95, .204, .205), MPEG and HEVC video (.100 to .108), SMPTE video
# (1.2.840.10008.1.2.7.1 to .3), XML (1.2.840.10008.1.2.6.2), deflated frames (1.2.840.10008.1.2.8.1).
DECODERS: dict[str, Decoder] = {
    **{str(syntax): _native for syntax in NATIVE},
    "1.2.840.10008.1.2.1.98": _native,  # Encapsulated Uncompressed Explicit VR Little Endian
    str(uids.RLELossless): _rle,
    **{str(syntax): _jpeg for syntax in _JPEG},
    **{str(syntax): _jpeg2000 for syntax in _JPEG_2000},
    **{str(syntax): _jpeg_xl for syntax in _JPEG_XL},
}

"""Synthetic DICOM bytes, and the one table of pixel references (no patient data).

``REFERENCES`` lists every kind of file that the reader meets, each with the outcome that is right and, where the
pixels must come out exactly, the stored values.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import imagecodecs
import numpy as np
from pydicom import uid as uids
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filewriter import dcmwrite
from pydicom.sequence import Sequence

from sarc_ray.errors import Reason

PROGRESSIVE_JPEG_RETIRED = uids.UID("1.2.840.10008.1.2.4.55")
SECRET_NAME = "Doe^Jane"
SECRET_ID = "MRN-4711"


def picture(rows: int = 120, columns: int = 100, bits: int = 12) -> np.ndarray:
    """A frontal chest in three strokes: dark field, bright body, dark lungs; asymmetric, smooth, noise-free."""
    y = np.linspace(-1, 1, rows)[:, None]
    x = np.linspace(-1, 1, columns)[None, :]
    body = 1 / (1 + np.exp(20 * (np.hypot(x * 1.2, y * 0.8) - 0.9)))
    lungs = np.exp(-(((x + 0.4) / 0.2) ** 2) - (y / 0.4) ** 2) + 0.8 * np.exp(
        -(((x - 0.4) / 0.2) ** 2) - (y / 0.4) ** 2
    )
    grey = 0.05 + 0.85 * body * (1 - 0.8 * lungs)
    return np.round(grey * (2**bits - 1)).astype(np.uint16 if bits > 8 else np.uint8)


def make_dicom(
    pixels: np.ndarray | None = None,
    *,
    syntax: uids.UID = uids.ExplicitVRLittleEndian,
    frames: list[bytes] | None = None,
    omit: tuple[str, ...] = (),
    bits_stored: int = 12,
    **tags: Any,
) -> bytes:
    """A DICOM Part 10 file.

    Args:
        pixels: stored values, shape (H, W); ``picture()`` if None.
        syntax: transfer syntax.
        frames: encoded frames, for encapsulated syntaxes.
        omit: keywords to leave out.
        bits_stored: Bits Stored; High Bit follows unless it is given.
        tags: further tags by keyword, over the defaults.
    """
    pixels = picture() if pixels is None else pixels
    dataset = _base_dataset(pixels, bits_stored)
    if frames is not None:
        dataset.PixelData = encapsulate(frames)
        dataset["PixelData"].VR = "OB"
    else:
        big = syntax == uids.ExplicitVRBigEndian
        dataset.PixelData = pixels.astype(pixels.dtype.newbyteorder(">" if big else "<")).tobytes()
        dataset["PixelData"].VR = "OW" if pixels.dtype.itemsize == 2 else "OB"
    for keyword, value in tags.items():
        setattr(dataset, keyword, value)
    for keyword in omit:
        delattr(dataset, keyword)
    return to_bytes(dataset, syntax)


def to_bytes(dataset: Dataset, syntax: uids.UID) -> bytes:
    """Write a data set as a Part 10 file."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = uids.DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = uids.UID("1.2.826.0.1.3680043.8.498.1")
    meta.TransferSyntaxUID = syntax
    dataset.file_meta = meta
    sink = io.BytesIO()
    dcmwrite(sink, dataset, enforce_file_format=True)
    return sink.getvalue()


def _base_dataset(pixels: np.ndarray, bits_stored: int) -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID = uids.DigitalXRayImageStorageForPresentation
    dataset.SOPInstanceUID = uids.UID("1.2.826.0.1.3680043.8.498.1")
    dataset.PatientName = SECRET_NAME
    dataset.PatientID = SECRET_ID
    dataset.PatientSex = "F"
    dataset.PatientAge = "062Y"
    dataset.StudyDate = "20200305"
    dataset.Modality = "DX"
    dataset.BodyPartExamined = "CHEST"
    dataset.ViewPosition = "PA"
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.BitsAllocated = pixels.dtype.itemsize * 8
    dataset.BitsStored = min(bits_stored, dataset.BitsAllocated)
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(np.issubdtype(pixels.dtype, np.signedinteger))
    return dataset


def lut_item(entries: np.ndarray, first: int, bits: int) -> Sequence:
    """A LUT sequence of one item with 16-bit words."""
    item = Dataset()
    item.add_new("LUTDescriptor", "US" if first >= 0 else "SS", [len(entries) % 2**16, first, bits])
    item.add_new("LUTData", "OW", entries.astype("<u2").tobytes())
    return Sequence([item])


def jpeg2000(pixels: np.ndarray | None = None, **tags: Any) -> bytes:
    pixels = picture() if pixels is None else pixels
    frame = imagecodecs.jpeg2k_encode(pixels, codecformat="j2k", reversible=True, level=0, bitspersample=12)
    return make_dicom(pixels, syntax=uids.JPEG2000Lossless, frames=[frame], **tags)


def htj2k() -> bytes:
    pixels = picture()
    frame = imagecodecs.htj2k_encode(pixels, reversible=True)
    return make_dicom(pixels, syntax=uids.HTJ2KLossless, frames=[frame], bits_stored=16)


def jpeg_ls() -> bytes:
    return make_dicom(syntax=uids.JPEGLSLossless, frames=[imagecodecs.jpegls_encode(picture())], bits_stored=16)


def jpeg_lossless() -> bytes:
    frame = imagecodecs.jpeg8_encode(picture(), lossless=True, predictor=1, bitspersample=12)
    return make_dicom(syntax=uids.JPEGLosslessSV1, frames=[frame])


def jpeg_lossy_12_bits() -> bytes:
    frame = imagecodecs.jpeg8_encode(picture(), level=95, bitspersample=12)
    return make_dicom(syntax=uids.JPEGExtended12Bit, frames=[frame])


def jpeg_baseline() -> bytes:
    pixels = picture(bits=8)
    return make_dicom(pixels, syntax=uids.JPEGBaseline8Bit, frames=[imagecodecs.jpeg8_encode(pixels, level=95)])


def rle() -> bytes:
    pixels = picture()
    frame = _rle_frame(pixels)
    return make_dicom(pixels, syntax=uids.RLELossless, frames=[frame])


def _rle_frame(pixels: np.ndarray) -> bytes:
    """RLE of 16-bit pixels as literal runs only (Part 5 annex G): two segments, high bytes first."""
    segments = []
    for plane in (pixels >> 8, pixels & 0xFF):
        rows = [row.astype(np.uint8).tobytes() for row in plane]
        segment = b"".join(bytes([len(row) - 1]) + row for row in rows)  # rows of up to 128 pixels
        segments.append(segment + b"\0" * (len(segment) % 2))
    header = struct.pack("<16L", 2, 64, 64 + len(segments[0]), *[0] * 13)
    return header + b"".join(segments)


def colour() -> bytes:
    rgb = np.stack([picture(bits=8)] * 3, axis=-1)
    return make_dicom(rgb, SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0)


def multi_frame() -> bytes:
    pixels = picture()
    return make_dicom(pixels, PixelData=np.stack([pixels, pixels]).tobytes(), NumberOfFrames=2)


def junk_above_high_bit() -> bytes:
    junk = np.arange(picture().size, dtype=np.uint16).reshape(picture().shape) % 16
    return make_dicom(picture() | (junk << 12))


def left_aligned_bits() -> bytes:
    return make_dicom((picture() << 4) | 5, HighBit=15)


def signed_with_junk() -> bytes:
    """Signed 12-bit values whose upper four bits are zero instead of the sign."""
    signed = picture().astype(np.int16) - 2048
    return make_dicom((signed.view(np.uint16) & 0x0FFF).view(np.int16))


def deflated_bomb(n_mib: int) -> bytes:
    """A small deflated data set that inflates to ``n_mib`` mebibytes of zeros."""
    whole = make_dicom(syntax=uids.DeflatedExplicitVRLittleEndian)
    start = 144 + struct.unpack("<L", whole[140:144])[0]
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    block = b"\0" * 2**20
    body = b"".join(packer.compress(block) for _ in range(n_mib)) + packer.flush()
    return whole[:start] + body


def nested_sequences(depth: int = 20_000) -> bytes:
    """Sequences in sequences, each of undefined length: a parser that recurses runs out of stack."""
    whole = make_dicom(omit=("PixelData",))
    sequence = struct.pack("<2H2sHL", 0x0040, 0xA730, b"SQ", 0, 0xFFFFFFFF)
    item = struct.pack("<2HL", 0xFFFE, 0xE000, 0xFFFFFFFF)
    return whole + (sequence + item) * depth


def claims_gigabytes() -> bytes:
    return make_dicom(Rows=65535, Columns=65535, PixelData=b"\0" * 64)


def codestream_claims_gigabytes() -> bytes:
    """A header of 120 x 100 over a JPEG 2000 codestream that says 60000 x 60000."""
    frame = bytearray(imagecodecs.jpeg2k_encode(picture(), codecformat="j2k", reversible=True, level=0))
    frame[8:16] = struct.pack(">2L", 60_000, 60_000)
    return make_dicom(syntax=uids.JPEG2000Lossless, frames=[bytes(frame)])


def zip_file() -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr("image.dcm", make_dicom())
    return sink.getvalue()


@dataclass(frozen=True, kw_only=True)
class PixelReference:
    """One kind of file.

    Args:
        name: for test identifiers.
        make: gives the bytes.
        reason: the outcome that is right for the whole way.
        stored: stored values that must come out; None where there are none.
        tolerance: largest difference allowed, for lossy syntaxes.
        inverted: whether low values are shown bright.
    """

    name: str
    make: Callable[[], bytes]
    reason: Reason = Reason.NONE
    stored: Callable[[], np.ndarray] | None = None
    tolerance: int = 0
    inverted: bool = False


def _good(name: str, make: Callable[[], bytes], **facts: Any) -> PixelReference:
    return PixelReference(name=name, make=make, **{"stored": picture, **facts})


def _bad(name: str, make: Callable[[], bytes], reason: Reason) -> PixelReference:
    return PixelReference(name=name, make=make, reason=reason)


def _signed() -> np.ndarray:
    return picture().astype(np.int16) - 2048


REFERENCES: tuple[PixelReference, ...] = (
    _good("explicit_le", make_dicom),
    _good("implicit_le", lambda: make_dicom(syntax=uids.ImplicitVRLittleEndian)),
    _good("explicit_be", lambda: make_dicom(syntax=uids.ExplicitVRBigEndian)),
    _good("deflated", lambda: make_dicom(syntax=uids.DeflatedExplicitVRLittleEndian)),
    _good("eight_bits", lambda: make_dicom(picture(bits=8)), stored=lambda: picture(bits=8)),
    _good("rle", rle),
    _good("jpeg2000", jpeg2000),
    _good("htj2k", htj2k),
    _good("jpeg_ls", jpeg_ls),
    _good("jpeg_lossless", jpeg_lossless),
    _good("jpeg_lossy_12_bits", jpeg_lossy_12_bits, tolerance=60),
    _good("jpeg_baseline", jpeg_baseline, stored=lambda: picture(bits=8), tolerance=6),
    _good("signed", lambda: make_dicom(_signed()), stored=_signed),
    _good("signed_with_junk", signed_with_junk, stored=_signed),
    _good("junk_above_high_bit", junk_above_high_bit),
    _good("left_aligned_bits", left_aligned_bits),
    _good("monochrome1", lambda: make_dicom(PhotometricInterpretation="MONOCHROME1"), inverted=True),
    _good("inverse_lut_shape", lambda: make_dicom(PresentationLUTShape="INVERSE"), inverted=True),
    _good(
        "monochrome1_and_inverse",
        lambda: make_dicom(PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="INVERSE"),
        inverted=True,
    ),
    _good(
        "modality_lut",
        lambda: make_dicom(ModalityLUTSequence=lut_item(np.arange(4096)[::-1] * 3, 0, 16)),
        stored=lambda: (4095 - picture()) * 3,
    ),
    _good("missing_bits", lambda: make_dicom(omit=("HighBit", "SamplesPerPixel"))),
    _good("secondary_capture", lambda: make_dicom(SOPClassUID=uids.SecondaryCaptureImageStorage, Modality="CR")),
    _good("bare_header", lambda: make_dicom(omit=("Modality", "BodyPartExamined", "ViewPosition", "PatientAge"))),
    _bad("zero_bytes", lambda: b"", Reason.NOT_DICOM),
    _bad("text", lambda: b"404 not found " * 100, Reason.NOT_DICOM),
    _bad("zip", zip_file, Reason.NOT_DICOM),
    _bad("no_pixel_data", lambda: make_dicom(omit=("PixelData",)), Reason.NO_PIXELS),
    _bad("empty_pixel_data", lambda: make_dicom(PixelData=b""), Reason.NO_PIXELS),
    _bad("truncated", lambda: make_dicom()[:-5000], Reason.DECODE_FAILED),
    _bad("truncated_jpeg2000", lambda: jpeg2000()[:-1500], Reason.DECODE_FAILED),
    _bad("cut_before_the_pixels", lambda: make_dicom()[:400], Reason.NO_PIXELS),
    _bad(
        "truncated_deflate", lambda: make_dicom(syntax=uids.DeflatedExplicitVRLittleEndian)[:500], Reason.DECODE_FAILED
    ),
    _bad("nested_sequences", nested_sequences, Reason.DECODE_FAILED),
    _bad("claims_gigabytes", claims_gigabytes, Reason.IMAGE_TOO_LARGE),
    _bad("codestream_claims_gigabytes", codestream_claims_gigabytes, Reason.DECODE_FAILED),
    _bad("no_rows", lambda: make_dicom(omit=("Rows",)), Reason.DECODE_FAILED),
    _bad("bits_contradict", lambda: make_dicom(BitsStored=17), Reason.DECODE_FAILED),
    _bad(
        "retired_syntax",
        lambda: make_dicom(syntax=PROGRESSIVE_JPEG_RETIRED, frames=[b"\xff\xd8"]),
        Reason.UNSUPPORTED_SYNTAX,
    ),
    _bad("colour", colour, Reason.UNSUPPORTED_PIXELS),
    _bad("palette", lambda: make_dicom(PhotometricInterpretation="PALETTE COLOR"), Reason.UNSUPPORTED_PIXELS),
    _bad("no_photometric", lambda: make_dicom(omit=("PhotometricInterpretation",)), Reason.UNSUPPORTED_PIXELS),
    _bad("multi_frame", multi_frame, Reason.UNSUPPORTED_PIXELS),
    _bad("blank", lambda: make_dicom(np.full((64, 64), 700, dtype=np.uint16)), Reason.BLANK_IMAGE),
    _bad("lateral", lambda: make_dicom(ViewPosition="LL"), Reason.LATERAL_VIEW),
    _bad("computed_tomography", lambda: make_dicom(Modality="CT"), Reason.NOT_CHEST),
    _bad("hand", lambda: make_dicom(BodyPartExamined="HAND"), Reason.NOT_CHEST),
    _bad("dog", lambda: make_dicom(BodyPartExamined="THORAX", PatientSpeciesDescription="Canine"), Reason.NOT_CHEST),
)

"""From the bytes of a DICOM object to its stored pixels and the few header facts that are needed.

Only the tags in ``TAGS`` are ever read; names, identifiers and dates of birth do not leave this module (a date
of birth only serves to compute an age in whole years). Sizes are checked before any memory is asked for, because
a file of 1 kB can claim gigabytes of pixels.

Shape suffixes: H rows, W columns. "Part 3" and so on are parts of the DICOM standard, PS3.3 and so on.
"""

from __future__ import annotations

import contextlib
import io
import logging
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
import pydicom
from pydicom import uid as uids
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.errors import InvalidDicomError
from pydicom.pixels.decoders.base import get_decoder

from sarc_ray.errors import ImageError, Reason
from sarc_ray.imaging.header import HeaderFacts, read_header, tag_integer, tag_number, tag_text, transfer_syntax
from sarc_ray.imaging.voi import Voi, modality_table, read_voi

# The only tags that are read. pydicom adds Specific Character Set by itself.
TAGS = (
    "SOPClassUID", "StudyDate", "AcquisitionDate", "Modality", "Manufacturer", "ManufacturerModelName",
    "PatientBirthDate", "PatientSex", "PatientAge", "PatientSize", "PatientWeight", "PatientSpeciesDescription",
    "BodyPartExamined", "ViewPosition", "ViewCodeSequence", "PatientPosition", "PatientOrientation",
    "StudyDescription", "SeriesDescription", "ProtocolName", "PerformedProcedureStepDescription",
    "SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames", "Rows", "Columns", "BitsAllocated", "BitsStored",
    "HighBit", "PixelRepresentation", "RescaleIntercept", "RescaleSlope", "ModalityLUTSequence", "WindowCenter",
    "WindowWidth", "VOILUTFunction", "VOILUTSequence", "PresentationLUTShape", "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths", "PixelData",
)  # fmt: skip

# A large flat-panel detector has 4300 x 4300 pixels of two bytes: 37 MB. The largest film, 14 x 17 inches, scanned at
# 50 micrometres has 7112 x 8636: 123 MB.
MAX_SIDE_PX = 16_384
MAX_PIXEL_BYTES = 128 * 2**20
MAX_OBJECT_BYTES = 160 * 2**20


@dataclass(frozen=True, kw_only=True, slots=True)
class Radiograph:
    """A decoded radiograph, before anything that depends on the size of the result.

    Args:
        pixels_HW: stored values, bits outside Bits Stored removed, Modality LUT Sequence applied.
        slope: Rescale Slope, 1 where absent. Rescaling commutes with area averaging, so it can wait.
        intercept: Rescale Intercept, 0 where absent.
        voi: the header's VOI LUT or window, on rescaled values; None where absent or unusable.
        inverted: true where low values are meant to be shown bright (MONOCHROME1 or an INVERSE presentation LUT).
        header: the facts.
    """

    pixels_HW: npt.NDArray[np.integer[Any]]
    slope: float
    intercept: float
    voi: Voi | None
    inverted: bool
    header: HeaderFacts


Decoder = Callable[[Dataset], npt.NDArray[np.integer[Any]]]


def read_radiograph(data: bytes) -> Radiograph:
    """Read a radiograph from the bytes of a DICOM Part 10 file.

    Raises:
        ImageError: with the reason: not DICOM, unsupported syntax, no pixels, unsupported pixels, too large, or
            damaged.
    """
    with quiet_pydicom():
        dataset = open_dataset(data)
        return decode(dataset, read_header(dataset))


@contextlib.contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Silence pydicom's warnings and log: odd headers are everyday matters, and its messages can quote them."""
    logger = logging.getLogger("pydicom")
    level = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            logger.setLevel(level)


def open_dataset(data: bytes) -> Dataset:
    """Parse the tags of ``TAGS``; the pixels stay encoded.

    Raises:
        ImageError: NOT_DICOM, IMAGE_TOO_LARGE, or DECODE_FAILED where the file breaks off or its structure is wrong.
    """
    if len(data) > MAX_OBJECT_BYTES:
        raise ImageError(Reason.IMAGE_TOO_LARGE, f"{len(data)} bytes; allowed: {MAX_OBJECT_BYTES}")
    _check_deflated(data)
    try:
        dataset = pydicom.dcmread(io.BytesIO(data), force=False, specific_tags=list(TAGS))
    except InvalidDicomError as error:
        raise ImageError(Reason.NOT_DICOM, "no DICM prefix") from error
    except MemoryError:
        raise
    except Exception as error:  # Damaged files make pydicom raise nearly every type, RecursionError among them.
        raise ImageError(Reason.DECODE_FAILED, f"header: {type(error).__name__}") from error
    # pydicom hands back an empty data set where the file ends in the middle of an element.
    if not len(dataset):
        raise ImageError(Reason.DECODE_FAILED, "the file breaks off")
    return dataset


def _check_deflated(data: bytes) -> None:
    """Refuse a deflated data set that would inflate without bounds; pydicom inflates it whole."""
    start = deflated_start(data)
    if start is None:
        return
    limit = MAX_OBJECT_BYTES
    try:
        inflated = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data[start:], limit + 1)
    except zlib.error as error:
        raise ImageError(Reason.DECODE_FAILED, "deflated data set is damaged") from error
    if len(inflated) > limit:
        raise ImageError(Reason.IMAGE_TOO_LARGE, f"inflates to more than {limit} bytes")


def deflated_start(data: bytes) -> int | None:
    """Where the deflated data set of a file begins (Part 5 A.5); None where it is not deflated.

    Args:
        data: the file, or its beginning.

    Raises:
        ImageError: DECODE_FAILED where the file does not say where it begins.
    """
    if data[128:132] != b"DICM" or uids.DeflatedExplicitVRLittleEndian.encode() not in data[132:2048]:
        return None
    if data[132:140] != b"\x02\x00\x00\x00UL\x04\x00":
        raise ImageError(Reason.DECODE_FAILED, "deflated, without a File Meta Information Group Length")
    return 144 + int(struct.unpack("<L", data[140:144])[0])


def decode(dataset: Dataset, header: HeaderFacts) -> Radiograph:
    """Decode the pixels of an opened data set.

    Raises:
        ImageError: NO_PIXELS, UNSUPPORTED_PIXELS, UNSUPPORTED_SYNTAX, IMAGE_TOO_LARGE or DECODE_FAILED.
    """
    try:
        _check_pixels(dataset, header)
        pixels_HW = _decoder(header.transfer_syntax)(dataset)
        if pixels_HW.shape != (header.rows, header.columns):
            raise ImageError(Reason.DECODE_FAILED, f"decoded to {pixels_HW.shape}")
        table = modality_table(dataset)
        if table is not None:
            pixels_HW = table.apply(pixels_HW)
        voi = read_voi(dataset)
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # Damaged values and streams make pydicom and the codecs raise nearly every type.
        raise ImageError(Reason.DECODE_FAILED, f"pixels: {type(error).__name__}") from error
    # Part 3 C.11.1: a Modality LUT Sequence and Rescale Slope exclude each other; the LUT is what was stored.
    slope, intercept = (1.0, 0.0) if table is not None else _rescale(dataset)
    # Part 3 C.8.11.3: INVERSE goes with MONOCHROME1, so either of them says it, and both do not cancel out.
    inverted = header.photometric == "MONOCHROME1" or tag_text(dataset, "PresentationLUTShape") == "INVERSE"
    return Radiograph(pixels_HW=pixels_HW, slope=slope, intercept=intercept, voi=voi, inverted=inverted, header=header)


def _decoder(transfer_syntax: str) -> Decoder:
    if transfer_syntax not in DECODERS:
        raise ImageError(Reason.UNSUPPORTED_SYNTAX, f"found {transfer_syntax}")
    return DECODERS[transfer_syntax]


def _check_pixels(dataset: Dataset, header: HeaderFacts) -> None:
    if not dataset.get("PixelData"):
        raise ImageError(Reason.NO_PIXELS)
    check_layout(dataset, header)


def check_layout(dataset: Dataset, header: HeaderFacts) -> None:
    """All checks of the pixels that a header allows, PixelData itself unread; fills in what other tags can tell.

    Raises:
        ImageError: UNSUPPORTED_PIXELS, UNSUPPORTED_SYNTAX, IMAGE_TOO_LARGE or DECODE_FAILED.
    """
    frames = max(tag_integer(dataset, "NumberOfFrames", 1), 1)
    allocated = tag_integer(dataset, "BitsAllocated", 0)
    n_bytes = (
        header.rows * header.columns * frames * max(tag_integer(dataset, "SamplesPerPixel", 1), 1) * allocated // 8
    )
    if max(header.rows, header.columns) > MAX_SIDE_PX or n_bytes > MAX_PIXEL_BYTES:
        raise ImageError(
            Reason.IMAGE_TOO_LARGE,
            f"{header.rows} x {header.columns} x {frames} frames, {n_bytes} bytes; "
            f"allowed: {MAX_SIDE_PX} a side, {MAX_PIXEL_BYTES} bytes",
        )
    if header.photometric not in ("MONOCHROME1", "MONOCHROME2") or tag_integer(dataset, "SamplesPerPixel", 1) != 1:
        raise ImageError(Reason.UNSUPPORTED_PIXELS, f"photometric interpretation {header.photometric}")
    if frames > 1:
        raise ImageError(Reason.UNSUPPORTED_PIXELS, f"{frames} frames")
    if min(header.rows, header.columns) < 1:
        raise ImageError(Reason.DECODE_FAILED, "Rows or Columns are missing")
    if allocated not in (8, 16):
        raise ImageError(Reason.UNSUPPORTED_PIXELS, f"Bits Allocated {allocated}; allowed: 8, 16")
    _complete_bits(dataset, allocated)
    _decoder(header.transfer_syntax)


def _complete_bits(dataset: Dataset, allocated: int) -> None:
    stored = tag_integer(dataset, "BitsStored", allocated)
    high_bit = tag_integer(dataset, "HighBit", stored - 1)
    if not 1 <= stored <= allocated or not stored - 1 <= high_bit < allocated:
        raise ImageError(Reason.DECODE_FAILED, f"Bits Stored {stored}, High Bit {high_bit} of {allocated}")
    dataset.SamplesPerPixel = 1
    dataset.NumberOfFrames = 1
    dataset.BitsStored = stored
    dataset.HighBit = high_bit
    dataset.PixelRepresentation = tag_integer(dataset, "PixelRepresentation", 0) & 1
    if getattr(dataset.file_meta, "TransferSyntaxUID", None) is None:
        dataset.file_meta.TransferSyntaxUID = uids.UID(transfer_syntax(dataset))


def _decode_stored(dataset: Dataset) -> npt.NDArray[np.integer[Any]]:
    """Uncompressed and RLE pixels: whatever lies outside Bits Stored is junk or an overlay (Part 5 8.1.1)."""
    syntax = dataset.file_meta.TransferSyntaxUID
    # pydicom takes the highest stored bit to be Bits Stored - 1, so its own correction stays off. Its own RLE decoder
    # is slow but sound: on damaged segments pylibjpeg-rle panics past Exception, and imagecodecs' ends the process.
    plugin = "pydicom" if syntax == uids.RLELossless else ""
    pixels_HW, _ = get_decoder(syntax).as_array(
        dataset,
        index=0,
        raw=True,
        decoding_plugin=plugin,
        correct_unused_bits=False,  # type: ignore[arg-type]
    )
    left = dataset.BitsAllocated - 1 - dataset.HighBit
    right = dataset.BitsAllocated - dataset.BitsStored
    pixels_HW = pixels_HW.astype(pixels_HW.dtype.newbyteorder("="), copy=False)
    # Shifting back right extends the sign of signed types.
    return (pixels_HW << left) >> right if left or right else pixels_HW


def _decode_codestream(dataset: Dataset) -> npt.NDArray[np.integer[Any]]:
    """JPEG lossless, JPEG-LS and JPEG 2000 by pydicom's plugins, full size."""
    _checked_frame(dataset)
    pixels_HW, _ = get_decoder(dataset.file_meta.TransferSyntaxUID).as_array(dataset, index=0, raw=True)
    return pixels_HW


def _decode_lossy_jpeg(dataset: Dataset) -> npt.NDArray[np.integer[Any]]:
    """JPEG of 8 or 12 bits by libjpeg-turbo; pydicom's plugins differ among each other and refuse some of 12 bits."""
    pixels_HW: npt.NDArray[np.integer[Any]] = imagecodecs.jpeg8_decode(_checked_frame(dataset))
    return pixels_HW


def _checked_frame(dataset: Dataset) -> bytes:
    """The first encoded frame; codecs allocate what its codestream claims, whatever the header says."""
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    size = _j2k_size(frame) if dataset.file_meta.TransferSyntaxUID in _J2K else _jpeg_size(frame)
    if size != (dataset.Rows, dataset.Columns):
        raise ImageError(Reason.DECODE_FAILED, f"codestream of {size}, header of {(dataset.Rows, dataset.Columns)}")
    return frame


def _j2k_size(frame: bytes) -> tuple[int, int] | None:
    """Rows and columns from the SIZ segment that follows the start of a JPEG 2000 codestream (ISO 15444-1 A.5.1)."""
    start = frame.find(b"\xff\x4f\xff\x51")
    if start < 0 or len(frame) < start + 24:
        return None
    x_end, y_end, x_start, y_start = struct.unpack(">4L", frame[start + 8 : start + 24])
    return y_end - y_start, x_end - x_start


def _jpeg_size(frame: bytes) -> tuple[int, int] | None:
    """Rows and columns from the frame header (SOF) of a JPEG or JPEG-LS codestream (ISO 10918-1 B.2.2)."""
    position = 2
    while position + 9 <= len(frame) and frame[position] == 0xFF:
        marker = frame[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        is_frame_header = 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)
        if is_frame_header or marker == 0xF7:
            rows, columns = struct.unpack(">2H", frame[position + 5 : position + 9])
            return rows, columns
        position += 2 + int.from_bytes(frame[position + 2 : position + 4], "big")
    return None


_J2K = (
    uids.JPEG2000Lossless,
    uids.JPEG2000,
    uids.HTJ2KLossless,
    uids.HTJ2KLosslessRPCL,
    uids.HTJ2K,
)
# One decoder per transfer syntax; the retired 1.2.840.10008.1.2.4.53 and .55 have none.
DECODERS: dict[str, Decoder] = {
    str(uids.ImplicitVRLittleEndian): _decode_stored,
    str(uids.ExplicitVRLittleEndian): _decode_stored,
    str(uids.DeflatedExplicitVRLittleEndian): _decode_stored,
    str(uids.ExplicitVRBigEndian): _decode_stored,
    str(uids.RLELossless): _decode_stored,
    str(uids.JPEGBaseline8Bit): _decode_lossy_jpeg,
    str(uids.JPEGExtended12Bit): _decode_lossy_jpeg,
    str(uids.JPEGLossless): _decode_codestream,
    str(uids.JPEGLosslessSV1): _decode_codestream,
    str(uids.JPEGLSLossless): _decode_codestream,
    str(uids.JPEGLSNearLossless): _decode_codestream,
    **{str(syntax): _decode_codestream for syntax in _J2K},
}


def _rescale(dataset: Dataset) -> tuple[float, float]:
    slope, intercept = tag_number(dataset, "RescaleSlope"), tag_number(dataset, "RescaleIntercept")
    # Part 3 C.11.1: both or none; a slope of zero would erase the picture.
    return (slope, intercept) if slope and intercept is not None else (1.0, 0.0)

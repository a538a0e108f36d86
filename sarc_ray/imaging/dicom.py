"""From the bytes of a DICOM object to its stored pixels and the few header facts that are needed.

Only the tags in ``TAGS`` are ever read; names, identifiers and dates of birth do not leave this module (a date
of birth only serves to compute an age in whole years). Sizes are checked before any memory is asked for, because
a file of 1 kB can claim gigabytes of pixels.

Shape suffixes: H rows, W columns. "Part 3" and so on are parts of the DICOM standard, PS3.3 and so on.
"""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom import uid as uids
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.tag import Tag

from sarc_ray.errors import ImageError, Reason
from sarc_ray.imaging import frames, grey
from sarc_ray.imaging.codecs import MAX_REDUCTION, NATIVE, Decoded, Layout, Sampling, decode_frame
from sarc_ray.imaging.header import HeaderFacts, read_header, tag_number, tag_text
from sarc_ray.imaging.layout import PALETTE, count_frames
from sarc_ray.imaging.layout import check_layout as check_layout
from sarc_ray.imaging.quiet import quiet_pydicom as quiet_pydicom
from sarc_ray.imaging.voi import MAGNITUDE_MAX, Voi, modality_table, read_voi

# The only tags that are read. pydicom adds Specific Character Set by itself.
TAGS = (
    "SOPClassUID", "StudyDate", "AcquisitionDate", "Modality", "Manufacturer", "ManufacturerModelName",
    "PatientBirthDate", "PatientSex", "PatientAge", "PatientSize", "PatientWeight", "PatientSpeciesDescription",
    "BodyPartExamined", "AnatomicRegionSequence", "ViewPosition", "ViewCodeSequence", "PatientPosition",
    "PatientOrientation", "StudyDescription", "SeriesDescription", "ProtocolName", "PerformedProcedureStepDescription",
    "SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames", "Rows", "Columns", "BitsAllocated", "BitsStored",
    "HighBit", "PixelRepresentation", "RescaleIntercept", "RescaleSlope", "ModalityLUTSequence", "WindowCenter",
    "WindowWidth", "VOILUTFunction", "VOILUTSequence", "PresentationLUTShape", "PresentationIntentType",
    "PixelIntensityRelationship", "PixelIntensityRelationshipSign", "PixelPaddingValue", "PixelPaddingRangeLimit",
    "PlanarConfiguration", "RedPaletteColorLookupTableDescriptor", "RedPaletteColorLookupTableData",
    "GreenPaletteColorLookupTableDescriptor", "GreenPaletteColorLookupTableData",
    "BluePaletteColorLookupTableDescriptor", "BluePaletteColorLookupTableData", "FrameTime", "FrameTimeVector",
    "CineRate", "RecommendedDisplayFrameRate", "ExtendedOffsetTable", "ExtendedOffsetTableLengths", "PixelData",
)  # fmt: skip

MAX_OBJECT_BYTES = 160 * 2**20
# Pictures are reduced no further than to this multiple of the size that is asked for.
REDUCED_MIN = 1.2
_PIXEL_DATA = Tag("PixelData")
# Overlay Bit Position of the sixteen groups 6000 to 601E (Part 3 C.9.2).
_OVERLAY_BIT_TAGS = tuple(Tag(0x6000 + 2 * number, 0x0102) for number in range(16))
_TAGS_READ = [*(Tag(keyword) for keyword in TAGS), *_OVERLAY_BIT_TAGS]


@dataclass(frozen=True, kw_only=True, slots=True)
class Radiograph:
    """A decoded radiograph, before anything that depends on the size of the result.

    Args:
        pixels_HW: stored values, bits outside Bits Stored removed, Modality LUT Sequence or grey palette applied.
        sampling: where the samples of a reduced picture lie in the full one.
        padded_HW: true where there is padding and no picture (Part 3 C.7.5.1.1.2); None where there is none.
        slope: Rescale Slope, 1 where absent. Rescaling commutes with area averaging, so it can wait.
        intercept: Rescale Intercept, 0 where absent.
        voi: the header's VOI LUT or window, on rescaled values; None where absent or unusable.
        inverted: true where low values are meant to be shown bright (MONOCHROME1 or an INVERSE presentation LUT).
        no_intensity: the stored value that stands for no X-ray intensity, where values are proportional to intensity
            and nothing says how to show them; None where they can be shown as they are.
        header: the facts.
    """

    pixels_HW: npt.NDArray[np.integer[Any]]
    sampling: Sampling
    padded_HW: npt.NDArray[np.bool_] | None
    slope: float
    intercept: float
    voi: Voi | None
    inverted: bool
    no_intensity: int | None
    header: HeaderFacts


def read_radiograph(data: bytes) -> Radiograph:
    """Read a radiograph from the bytes of a DICOM Part 10 file.

    Raises:
        ImageError: with the reason: not DICOM, unsupported syntax, no pixels, unsupported pixels, too large, or
            damaged.
    """
    with quiet_pydicom():
        dataset = open_dataset(data)
        return decode(dataset, read_header(dataset))


def open_dataset(data: bytes) -> Dataset:
    """Parse the tags of ``TAGS``; Pixel Data, still encoded, is a view of the object's bytes.

    Raises:
        ImageError: NOT_DICOM, IMAGE_TOO_LARGE, or DECODE_FAILED where the file breaks off or its structure is wrong.
    """
    if len(data) > MAX_OBJECT_BYTES:
        raise ImageError(Reason.IMAGE_TOO_LARGE, f"{len(data)} bytes; allowed: {MAX_OBJECT_BYTES}")
    data, deflated = _inflated(data)
    stream = io.BytesIO(data)
    try:
        dataset = pydicom.dcmread(stream, force=is_bare(data), specific_tags=_TAGS_READ, stop_before_pixels=True)
    except InvalidDicomError as error:
        raise ImageError(Reason.NOT_DICOM, "no DICM prefix") from error
    except MemoryError:
        raise
    except Exception as error:  # Damaged files make pydicom raise nearly every type, RecursionError among them.
        raise ImageError(Reason.DECODE_FAILED, f"header: {type(error).__name__}") from error
    # pydicom hands back an empty data set where the file ends in the middle of an element.
    if not len(dataset):
        raise ImageError(Reason.DECODE_FAILED, "the file breaks off")
    if deflated:
        dataset.file_meta.TransferSyntaxUID = uids.DeflatedExplicitVRLittleEndian
    _attach_pixels(dataset, memoryview(data), stream.tell())
    return dataset


def is_bare(data: bytes) -> bool:
    """Whether a file begins with its data set or its meta information, without preamble and prefix (Part 10 7.1).

    So files were written before there was a Part 10, and are still by programs that store what the network brought.
    A deflated one is not read so: pydicom would inflate it without a limit.

    Args:
        data: the file, or its beginning.
    """
    if len(data) < 8 or data[128:132] == b"DICM" or uids.DeflatedExplicitVRLittleEndian.encode() in data[:2048]:
        return False
    group, element = struct.unpack("<2H", data[:4])
    # The first elements are the meta information's length, or group 8's length, character set, image type or class.
    return bool((group, element) == (0x0002, 0x0000) or (group == 0x0008 and element <= 0x0018))


def _attach_pixels(dataset: Dataset, data: memoryview, position: int) -> None:
    """Put a view of Pixel Data into the data set (Part 5 7.1.2, 7.1.3): pydicom would copy it, and convert it."""
    implicit, little = dataset.original_encoding
    head = bytes(data[position : position + 12])
    order = "<" if little else ">"
    if len(head) < 8 or struct.unpack(f"{order}2H", head[:4]) != (_PIXEL_DATA.group, _PIXEL_DATA.element):
        return
    vr, start = ("OW", 8) if implicit else (head[4:6].decode("ascii", "replace"), 12)
    length = int.from_bytes(head[start - 4 : start], "little" if little else "big")
    undefined = length == 0xFFFFFFFF
    value: Any = data[position + start :] if undefined else data[position + start :][:length]
    place = position + start
    dataset[_PIXEL_DATA] = RawDataElement(_PIXEL_DATA, vr, length, value, place, bool(implicit), bool(little))


def _inflated(data: bytes) -> tuple[bytes, bool]:
    """The file with its deflated data set (Part 5 A.5) inflated, under a limit, and whether it was deflated."""
    start = deflated_start(data)
    if start is None:
        return data, False
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        inflated = inflater.decompress(memoryview(data)[start:], MAX_OBJECT_BYTES + 1)
    except zlib.error as error:
        raise ImageError(Reason.DECODE_FAILED, "deflated data set is damaged") from error
    if len(inflated) > MAX_OBJECT_BYTES:
        raise ImageError(Reason.IMAGE_TOO_LARGE, f"inflates to more than {MAX_OBJECT_BYTES} bytes")
    if not inflater.eof:
        raise ImageError(Reason.DECODE_FAILED, "the deflated data set breaks off")
    # What is inflated is in explicit little endian; the meta information must say so, at its old length.
    deflated, plain = (str(u).encode() for u in (uids.DeflatedExplicitVRLittleEndian, uids.ExplicitVRLittleEndian))
    return data[:start].replace(deflated, plain.ljust(len(deflated), b"\0")) + inflated, True


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


def decode(dataset: Dataset, header: HeaderFacts, *, min_side_px: int | None = None) -> Radiograph:
    """Decode the pixels of an opened data set.

    Args:
        dataset: from ``open_dataset``.
        header: its facts.
        min_side_px: the side that the picture will be resized to. Syntaxes with resolution levels are then decoded at
            the largest reduction that leaves both sides ``REDUCED_MIN`` times as large. None: full size.

    Raises:
        ImageError: NO_PIXELS, UNSUPPORTED_PIXELS, UNSUPPORTED_SYNTAX, IMAGE_TOO_LARGE or DECODE_FAILED.
    """
    value = _pixel_value(dataset)
    try:
        layout = check_layout(dataset, header)
        padding = grey.padding_range(dataset, layout)
        table = modality_table(dataset)
        # Tables, palettes and the comparison with a padding value hold for single pixels, not for means of them; colour
        # is told from grey pixel by pixel.
        pixelwise = table is not None or padding is not None or layout.photometric == PALETTE or layout.samples > 1
        # Old files keep overlays in the pixels' own high bits; position 0 stands for a plane of its own (Part 3 C.9.2).
        pixelwise |= any(dataset[tag].value for tag in _OVERLAY_BIT_TAGS if tag in dataset)
        decoded = _decoded(dataset, value, layout, header, 0 if pixelwise else _reduction(header, min_side_px))
        pixels_HW = decoded.pixels
        if pixels_HW.ndim == 3:
            pixels_HW = grey.grey_of_colour(pixels_HW, layout)
        padded_HW = grey.padded(pixels_HW, padding)
        if layout.photometric == PALETTE:
            pixels_HW = grey.through_palette(pixels_HW, dataset)
        elif table is not None:
            # Part 3 C.11.1: before all else, and before resizing too, for a table does not commute with means.
            pixels_HW = table.apply(pixels_HW)
        # Part 3 C.7.6.3.1.2: what a palette gives is meant to be shown as it is.
        voi = None if layout.photometric == PALETTE else read_voi(dataset)
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # Damaged values and streams make pydicom and the codecs raise nearly every type.
        raise ImageError(Reason.DECODE_FAILED, f"pixels: {type(error).__name__}") from error
    # Part 3 C.11.1: a Modality LUT Sequence and Rescale Slope exclude each other; the LUT is what was stored.
    slope, intercept = (1.0, 0.0) if table is not None or layout.photometric == PALETTE else _rescale(dataset, layout)
    return Radiograph(
        pixels_HW=pixels_HW,
        sampling=decoded.sampling,
        padded_HW=padded_HW,
        slope=slope,
        intercept=intercept,
        voi=voi,
        inverted=_is_inverted(dataset, header),
        no_intensity=_no_intensity(dataset, layout) if table is None and voi is None else None,
        header=header,
    )


def _pixel_value(dataset: Dataset) -> memoryview:
    element = dataset.get_item(_PIXEL_DATA) if _PIXEL_DATA in dataset else None
    if element is None or not element.value:
        raise ImageError(Reason.NO_PIXELS)
    return memoryview(element.value)


def _decoded(dataset: Dataset, value: memoryview, layout: Layout, header: HeaderFacts, reduction: int) -> Decoded:
    """The first frame's stored values."""
    if header.transfer_syntax in NATIVE:
        return decode_frame(header.transfer_syntax, value, layout, reduction)
    table = dataset.get("ExtendedOffsetTable")
    offsets = np.frombuffer(table, "<u8").tolist() if isinstance(table, bytes) else None
    frame = frames.first_frame(value, count_frames(dataset), offsets)
    return decode_frame(header.transfer_syntax, frame, layout, reduction)


def _reduction(header: HeaderFacts, min_side_px: int | None) -> int:
    """How often a picture may be halved."""
    if min_side_px is None:
        return 0
    side_px = min(header.rows, header.columns)
    fitting = (n for n in range(MAX_REDUCTION, 0, -1) if -(-side_px >> n) >= REDUCED_MIN * min_side_px)
    return next(fitting, 0)


def _is_inverted(dataset: Dataset, header: HeaderFacts) -> bool:
    """Whether low values are meant to be shown bright."""
    # Part 3 C.7.6.3.1.2: MONOCHROME1 shows the lowest value white. C.8.11.3: INVERSE goes with MONOCHROME1, so either
    # of them says it, and both do not cancel out. IDENTITY beside MONOCHROME1 contradicts it; the pixels are judged
    # later.
    return header.photometric == "MONOCHROME1" or tag_text(dataset, "PresentationLUTShape") == "INVERSE"


def _no_intensity(dataset: Dataset, layout: Layout) -> int | None:
    """Whether pixels need a logarithm to be seen, and where intensity is nought then.

    Part 3 C.8.11.3.1.2: Pixel Intensity Relationship describes the pixels and is no transformation for display, so it
    changes nothing in an object made FOR PRESENTATION, nor where a VOI says how to show it. A raw detector picture
    (FOR PROCESSING, LIN) has no such transformation; what is seen in it is attenuation, the logarithm of intensity.
    """
    raw = tag_text(dataset, "PresentationIntentType") == "FOR PROCESSING"
    if not raw or tag_text(dataset, "PixelIntensityRelationship") != "LIN":
        return None
    # Pixel Intensity Relationship Sign -1: higher values mean less intensity.
    return layout.stored_range[1] if tag_number(dataset, "PixelIntensityRelationshipSign") == -1 else 0


def _rescale(dataset: Dataset, layout: Layout) -> tuple[float, float]:
    slope, intercept = tag_number(dataset, "RescaleSlope"), tag_number(dataset, "RescaleIntercept")
    # Part 3 C.11.1: both or none; a slope of zero would erase the picture.
    if not slope or intercept is None:
        return 1.0, 0.0
    # So would damaged numbers, such as an intercept of 1e30: they count as absent where single precision cannot tell
    # 4096 greys apart after them.
    ends = [value * slope + intercept for value in layout.stored_range]
    largest, step = max(abs(end) for end in ends), abs(ends[1] - ends[0]) / 2 ** min(layout.bits_stored, 12)
    usable = largest < MAGNITUDE_MAX and step > 1.0 / MAGNITUDE_MAX and step >= np.spacing(np.float32(largest))
    return (slope, intercept) if usable else (1.0, 0.0)

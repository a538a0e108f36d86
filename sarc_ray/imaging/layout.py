"""How a header says that its pixels are stored, checked before anything is decoded or allocated.

"Part 3" and "Part 5" are PS3.3 and PS3.5 of the DICOM standard.
"""

from __future__ import annotations

from pydicom.dataset import Dataset

from sarc_ray.errors import ImageError, Reason
from sarc_ray.imaging.codecs import Layout, find_decoder
from sarc_ray.imaging.header import HeaderFacts, tag_integer, tag_value

# A large flat-panel detector has 4300 x 4300 pixels of two bytes: 37 MB. The largest film, 14 x 17 inches, scanned at
# 50 micrometres has 7112 x 8636: 123 MB.
MAX_SIDE_PX = 16_384
MAX_PIXEL_BYTES = 128 * 2**20

GREY = ("MONOCHROME1", "MONOCHROME2")
PALETTE = "PALETTE COLOR"
# Part 3 C.7.6.3.1.2. Not here: the retired HSV, ARGB and CMYK, and the forms of video (YBR_PARTIAL_420).
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT", "XYB")
_BITS_ALLOCATED = (1, 8, 16, 32)
# Part 3 C.7.3.1.1.1 and what archives write for it.
RADIOGRAPHY = ("CR", "DX", "DR", "RG")
# Part 3 C.7.6.5, C.7.6.6: these make frames a film in time.
_CINE_TAGS = ("FrameTime", "FrameTimeVector", "CineRate", "RecommendedDisplayFrameRate")


def check_layout(dataset: Dataset, header: HeaderFacts) -> Layout:
    """All checks of the pixels that a header allows, Pixel Data itself unread.

    Raises:
        ImageError: IMAGE_TOO_LARGE, UNSUPPORTED_PIXELS, DECODE_FAILED or UNSUPPORTED_SYNTAX.
    """
    samples = max(tag_integer(dataset, "SamplesPerPixel", 1), 1)
    allocated = tag_integer(dataset, "BitsAllocated", 0)
    _check_bytes(header, count_frames(dataset), samples * allocated)
    _check_kind(header.photometric, samples)
    _check_frames(dataset, header)
    if min(header.rows, header.columns) < 1:
        raise ImageError(Reason.DECODE_FAILED, "Rows or Columns are missing")
    if allocated not in _BITS_ALLOCATED:
        raise ImageError(Reason.UNSUPPORTED_PIXELS, f"Bits Allocated {allocated}; allowed: {_BITS_ALLOCATED}")
    stored = tag_integer(dataset, "BitsStored", allocated)
    # Part 5 8.1.1: High Bit is at least Bits Stored - 1, and pixels may be left-aligned in old files.
    high_bit = tag_integer(dataset, "HighBit", stored - 1)
    if not 1 <= stored <= allocated or not stored - 1 <= high_bit < allocated:
        raise ImageError(Reason.DECODE_FAILED, f"Bits Stored {stored}, High Bit {high_bit} of {allocated}")
    find_decoder(header.transfer_syntax)
    return Layout(
        rows=header.rows,
        columns=header.columns,
        samples=samples,
        photometric=str(header.photometric),
        planar=tag_integer(dataset, "PlanarConfiguration", 0) == 1,
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=high_bit,
        signed=bool(tag_integer(dataset, "PixelRepresentation", 0) & 1),
        big_endian=dataset.original_encoding[1] is False,
        words=_in_words(dataset),
    )


def count_frames(dataset: Dataset) -> int:
    """Number of Frames; 1 where it is absent."""
    return max(tag_integer(dataset, "NumberOfFrames", 1), 1)


def _check_bytes(header: HeaderFacts, n_frames: int, bits_per_pixel: int) -> None:
    n_bytes = header.rows * header.columns * n_frames * bits_per_pixel // 8
    if max(header.rows, header.columns) > MAX_SIDE_PX or n_bytes > MAX_PIXEL_BYTES:
        raise ImageError(
            Reason.IMAGE_TOO_LARGE,
            f"{header.rows} x {header.columns} x {n_frames} frames, {n_bytes} bytes; "
            f"allowed: {MAX_SIDE_PX} a side, {MAX_PIXEL_BYTES} bytes",
        )


def _check_kind(photometric: str | None, samples: int) -> None:
    """Photometric Interpretation and Samples per Pixel must fit (Part 3 C.7.6.3.1.1, C.7.6.3.1.2)."""
    grey = photometric in GREY and samples in (1, 3)  # three equal samples under a grey name do occur
    if not grey and not (photometric == PALETTE and samples == 1) and not (photometric in _COLOUR and samples == 3):
        raise ImageError(
            Reason.UNSUPPORTED_PIXELS, f"photometric interpretation {photometric} with {samples} samples per pixel"
        )


def _check_frames(dataset: Dataset, header: HeaderFacts) -> None:
    """Of several frames the first is read where the object says that it is a radiograph, and no film in time."""
    n_frames = count_frames(dataset)
    if n_frames == 1:
        return
    cine = any(tag_value(dataset, keyword) is not None for keyword in _CINE_TAGS)
    if header.modality not in RADIOGRAPHY or cine:
        raise ImageError(
            Reason.UNSUPPORTED_PIXELS,
            f"{n_frames} frames, modality {header.modality}, {'with' if cine else 'without'} a frame rate; "
            f"allowed: modality {', '.join(RADIOGRAPHY)} without a frame rate",
        )


def _in_words(dataset: Dataset) -> bool:
    element = dataset.get_item("PixelData") if "PixelData" in dataset else None
    return element is not None and element.VR == "OW"

"""Stored samples to grey stored values: colour that is grey in truth, grey palettes, and padding.

Shape suffixes: H rows, W columns, S samples. "Part 3" is PS3.3 of the DICOM standard.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from sarc_ray.errors import ImageError, Reason
from sarc_ray.imaging.codecs import Layout
from sarc_ray.imaging.header import tag_value
from sarc_ray.imaging.voi import LookupTable, read_table

IntArray = npt.NDArray[np.integer[Any]]

# Channels of a grey picture differ by rounding, and after lossy coding by a little more: this share of the range.
_GREY_TOLERANCE = 1.0 / 64.0
_PALETTE_NAMES = ("Red", "Green", "Blue")
# A header whose padding leaves less than this share of the picture has it wrong.
_UNPADDED_MIN = 0.02


def grey_of_colour(pixels_HWS: IntArray, layout: Layout) -> IntArray:
    """The luminance of a secondary capture that stores grey as colour; true colour is refused.

    Decoders leave the samples as they are coded, and archives mix up the names of colour spaces: so either all three
    channels are equal (RGB; YBR_RCT and YBR_ICT once decoded), or both chrominances are nought (YBR_FULL,
    YBR_FULL_422), Part 3 C.7.6.3.1.2.

    Raises:
        ImageError: UNSUPPORTED_PIXELS.
    """
    _, high = layout.stored_range
    tolerance = max(high * _GREY_TOLERANCE, 1.0)
    first, second, third = (pixels_HWS[..., channel].astype(np.int64) for channel in range(3))
    equal = max(np.abs(first - second).max(), np.abs(first - third).max()) <= tolerance
    middle = (high + 1) // 2
    if equal or max(np.abs(second - middle).max(), np.abs(third - middle).max()) <= tolerance:
        return pixels_HWS[..., 0]
    raise ImageError(Reason.UNSUPPORTED_PIXELS, f"{layout.photometric} in colour; allowed: grey")


def through_palette(indices_HW: IntArray, dataset: Dataset) -> IntArray:
    """Grey values of palette indices (Part 3 C.7.6.3.1.5, C.7.9); a palette that colours pixels is refused.

    Raises:
        ImageError: UNSUPPORTED_PIXELS.
    """
    tables = [_palette(dataset, name) for name in _PALETTE_NAMES]
    red_HW, green_HW, blue_HW = (table.apply(indices_HW).astype(np.int64) for table in tables)
    tolerance = max((2 ** tables[0].bits - 1) * _GREY_TOLERANCE, 1.0)
    if max(np.abs(red_HW - green_HW).max(), np.abs(red_HW - blue_HW).max()) > tolerance:
        raise ImageError(Reason.UNSUPPORTED_PIXELS, "a palette of colours; allowed: grey")
    return red_HW.astype(np.uint16)


def _palette(dataset: Dataset, name: str) -> LookupTable:
    keyword = f"{name}PaletteColorLookupTable"
    table = read_table(dataset, f"{keyword}Descriptor", f"{keyword}Data")
    if table is None:  # segmented palettes (Part 3 C.7.9.2) among them, which no radiograph has
        raise ImageError(Reason.UNSUPPORTED_PIXELS, "PALETTE COLOR without a plain palette")
    return table


def padding_range(dataset: Dataset, layout: Layout) -> tuple[int, int] | None:
    """Stored values that stand for "no pixel", both ends included (Part 3 C.7.5.1.1.2); None where none is declared."""
    value = _stored_value(dataset, "PixelPaddingValue", layout)
    if value is None:
        return None
    limit = _stored_value(dataset, "PixelPaddingRangeLimit", layout)
    other = value if limit is None else limit
    return min(value, other), max(value, other)


def _stored_value(dataset: Dataset, keyword: str, layout: Layout) -> int | None:
    """A value of the pixels' own type, whichever of the two types the header wrote it in."""
    value = tag_value(dataset, keyword)
    if isinstance(value, bytes):  # ambiguous in implicit VR
        value = int.from_bytes(value[:2], "little")
    if not isinstance(value, int):
        return None
    bits = max(layout.bits_allocated, 8)
    value %= 1 << bits
    return value - (1 << bits) if layout.signed and value >= 1 << (bits - 1) else value


def padded(pixels_HW: IntArray, padding: tuple[int, int] | None) -> npt.NDArray[np.bool_] | None:
    """Where a picture is padding; None where it is not, or where padding would be nearly all of it."""
    if padding is None:
        return None
    found_HW = (pixels_HW >= padding[0]) & (pixels_HW <= padding[1])
    share = float(found_HW.mean())
    return found_HW if 0.0 < share <= 1.0 - _UNPADDED_MIN else None

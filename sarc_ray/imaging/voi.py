"""Grey-value transformations of a header: Modality LUT, VOI LUT and windows (Part 3 C.11.1, C.11.2).

Written anew rather than taken from pydicom.pixels.processing, whose ``apply_voi`` wraps inputs above 255 where the
LUT has 8-bit entries, and which works on full pictures in float64: here a window is applied to the small picture.

Shape suffixes: H rows, W columns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

FloatArray = npt.NDArray[np.float32]

# Numbers of a header beyond this one, or closer to nought than its inverse, are damaged: no picture has them, and
# single precision ends at 3e38.
MAGNITUDE_MAX = 1e30


@dataclass(frozen=True, kw_only=True, slots=True)
class VoiWindow:
    """A window in exact form: LINEAR's offsets of Part 3 C.11.2.1.2 are already taken off."""

    center: float
    width: float
    sigmoid: bool

    def apply(self, values_HW: FloatArray) -> FloatArray:
        """Map values to 0..1; shape (H, W)."""
        if self.sigmoid:  # Part 3 C.11.2.1.3.1; the bound keeps exp() finite.
            exponent = np.clip(-4.0 * (values_HW - self.center) / self.width, -60.0, 60.0)
            return (1.0 / (1.0 + np.exp(exponent))).astype(np.float32)
        return np.clip((values_HW - self.center) / self.width + 0.5, 0.0, 1.0).astype(np.float32)


@dataclass(frozen=True, kw_only=True, slots=True)
class VoiCurve:
    """A lookup table from ``first`` on; values between and beyond its entries are interpolated and clamped."""

    first: int
    entries: npt.NDArray[np.float64]

    def apply(self, values_HW: FloatArray) -> FloatArray:
        """Map values to 0..1 of the table's own range; shape (H, W)."""
        low, high = self.entries.min(), self.entries.max()
        inputs = self.first + np.arange(len(self.entries))
        mapped = np.interp(values_HW, inputs, (self.entries - low) / max(high - low, 1.0))
        return mapped.astype(np.float32)


@dataclass(frozen=True, kw_only=True, slots=True)
class LookupTable:
    """A table on stored values: a Modality LUT (Part 3 C.11.1.1) or one colour of a palette (C.7.6.3.1.5).

    Args:
        first: the stored value of the first entry.
        entries: shape (N,).
        bits: per entry, as the descriptor says.
    """

    first: int
    entries: npt.NDArray[np.uint16]
    bits: int

    def apply(self, pixels_HW: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.integer[Any]]:
        """Look every pixel up; values before the first and after the last entry take that entry. Shape (H, W)."""
        index_HW = np.clip(pixels_HW.astype(np.int64) - self.first, 0, len(self.entries) - 1)
        return self.entries[index_HW]


Voi = VoiWindow | VoiCurve


def modality_table(dataset: Dataset) -> LookupTable | None:
    """The data set's Modality LUT, or None."""
    # In the item itself Pixel Representation is absent.
    return _sequence_table(dataset, "ModalityLUTSequence", signed=dataset.get("PixelRepresentation") == 1)


def read_voi(dataset: Dataset) -> Voi | None:
    """The data set's first VOI LUT, else its first window; None where there is none that can be used.

    A LUT wins over a window, and the first of several windows over the others (Part 3 C.11.2.1.2 leaves the choice to
    the viewer). A window that no picture can be shown with (no width, values that are not numbers) counts as absent.
    """
    table = _sequence_table(dataset, "VOILUTSequence", signed=_voi_input_signed(dataset))
    if table is not None and len(table.entries) > 1:
        return VoiCurve(first=table.first, entries=table.entries.astype(np.float64))
    center, width = _first_number(dataset, "WindowCenter"), _first_number(dataset, "WindowWidth")
    if center is None or width is None or abs(center) > MAGNITUDE_MAX:
        return None
    if not 1.0 / MAGNITUDE_MAX < width < MAGNITUDE_MAX:
        return None
    function = str(dataset.get("VOILUTFunction") or "LINEAR").strip().upper()
    # Part 3 C.11.2.1.3.1, C.11.2.1.3.2: SIGMOID and LINEAR_EXACT take any width above 0.
    if function in ("SIGMOID", "LINEAR_EXACT"):
        return VoiWindow(center=center, width=width, sigmoid=function == "SIGMOID")
    # Part 3 C.11.2.1.2: LINEAR is the default; a width of 1 is a threshold, which leaves no picture.
    return VoiWindow(center=center - 0.5, width=width - 1.0, sigmoid=False) if width > 1 else None


def _first_number(dataset: Dataset, keyword: str) -> float | None:
    try:
        value = dataset.get(keyword)
        value = value if value is None or isinstance(value, str | int | float) else value[0]
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _voi_input_signed(dataset: Dataset) -> bool:
    """Whether the first value that a VOI LUT maps is a signed number (Part 3 C.11.2.1.1).

    It is what comes out of the Modality LUT: never negative after a table, possibly so after a negative intercept,
    whatever Pixel Representation says.
    """
    if dataset.get("ModalityLUTSequence"):
        return False
    intercept = _first_number(dataset, "RescaleIntercept")
    return dataset.get("PixelRepresentation") == 1 or (intercept is not None and intercept < 0)


def _sequence_table(dataset: Dataset, keyword: str, *, signed: bool) -> LookupTable | None:
    """The first item of a LUT sequence (Part 3 C.11.1.1, C.11.2.1.1)."""
    sequence = dataset.get(keyword)
    if not sequence:
        return None
    # The order of bytes is the data set's, not the item's own.
    return read_table(sequence[0], "LUTDescriptor", "LUTData", signed=signed, little=_is_little(dataset))


def read_table(
    item: Dataset, descriptor: str, data: str, *, signed: bool = False, little: bool | None = None
) -> LookupTable | None:
    """A lookup table from its descriptor (entries, first value, bits per entry) and data; None where one is absent.

    Args:
        item: data set that holds both.
        descriptor: keyword.
        data: keyword.
        signed: whether stored values, and so the first of them, may be negative.
        little: byte order of words; None for the data set's own.
    """
    if item.get(data) is None or item.get(descriptor) is None:
        return None
    count, first, bits = (int(value) for value in item.get(descriptor))
    # The descriptor's VR is ambiguous: without Pixel Representation beside it, a negative start reads as unsigned.
    if first >= 2**15 and signed:
        first -= 2**16
    count = count or 2**16  # Part 3 C.11.1.1.1: a count of 0 stands for 65536
    values = item.get(data)
    if isinstance(values, bytes) and bits == 8 and count <= len(values) < 2 * count:
        entries = np.frombuffer(values, np.uint8).astype(np.uint16)  # Part 3 C.7.6.3.1.6: two entries share a word
    elif isinstance(values, bytes):
        order = "<" if (_is_little(item) if little is None else little) else ">"
        entries = np.frombuffer(values[: len(values) // 2 * 2], dtype=f"{order}u2").astype(np.uint16)
    else:
        entries = np.asarray(values, dtype=np.int64).astype(np.uint16)
    return LookupTable(first=first, entries=entries[:count], bits=bits) if len(entries) else None


def _is_little(dataset: Dataset) -> bool:
    return dataset.original_encoding[1] is not False

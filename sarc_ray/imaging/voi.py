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
class ModalityTable:
    """The Modality LUT Sequence (Part 3 C.11.1.1): a table on stored values."""

    first: int
    entries: npt.NDArray[np.uint16]

    def apply(self, pixels_HW: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.integer[Any]]:
        """Look every pixel up; values before the first and after the last entry take that entry. Shape (H, W)."""
        index_HW = np.clip(pixels_HW.astype(np.int32) - self.first, 0, len(self.entries) - 1)
        return self.entries[index_HW]


Voi = VoiWindow | VoiCurve


def modality_table(dataset: Dataset) -> ModalityTable | None:
    """The data set's Modality LUT, or None."""
    found = _lookup_table(dataset, "ModalityLUTSequence")
    return None if found is None else ModalityTable(first=found[0], entries=found[1])


def read_voi(dataset: Dataset) -> Voi | None:
    """The data set's first VOI LUT, else its first window; None where there is none that can be used.

    A LUT wins over a window (Part 3 C.11.2 leaves the choice to the viewer). A window that no picture can be shown
    with (a width below 1, values that are not numbers) counts as absent.
    """
    table = _lookup_table(dataset, "VOILUTSequence")
    if table is not None and len(table[1]) > 1:
        return VoiCurve(first=table[0], entries=table[1].astype(np.float64))
    center, width = _first_number(dataset, "WindowCenter"), _first_number(dataset, "WindowWidth")
    if center is None or width is None or width < 1:
        return None
    function = str(dataset.get("VOILUTFunction") or "LINEAR").strip().upper()
    if function == "LINEAR":
        # Part 3 C.11.2.1.2: a width of 1 is a threshold, which leaves no picture.
        return VoiWindow(center=center - 0.5, width=width - 1.0, sigmoid=False) if width > 1 else None
    return VoiWindow(center=center, width=width, sigmoid=function == "SIGMOID")


def _first_number(dataset: Dataset, keyword: str) -> float | None:
    try:
        value = dataset.get(keyword)
        value = value if value is None or isinstance(value, str | int | float) else value[0]
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _lookup_table(dataset: Dataset, keyword: str) -> tuple[int, npt.NDArray[np.uint16]] | None:
    """First input value and entries of the first item of a LUT sequence (Part 3 C.11.1.1, C.11.2.1.1)."""
    sequence = dataset.get(keyword)
    if not sequence or sequence[0].get("LUTData") is None or sequence[0].get("LUTDescriptor") is None:
        return None
    count, first, _ = (int(value) for value in sequence[0].LUTDescriptor)
    # The descriptor's VR is ambiguous: without Pixel Representation in the item, a negative start reads as unsigned.
    if first >= 2**15 and dataset.get("PixelRepresentation") == 1:
        first -= 2**16
    data = sequence[0].LUTData
    if isinstance(data, bytes):
        order = "<" if dataset.original_encoding[1] is not False else ">"
        entries = np.frombuffer(data[: len(data) // 2 * 2], dtype=f"{order}u2").astype(np.uint16)
    else:
        entries = np.asarray(data, dtype=np.int64).astype(np.uint16)
    # An entry count of 0 stands for 65536.
    return first, entries[: count or 2**16]

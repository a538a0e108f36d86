"""Checks that every statistic makes of its input, and the types they share. Shapes: N rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """An estimate with its confidence interval (NaN where undefined)."""

    estimate: float
    ci_low: float
    ci_high: float


def as_finite(name: str, values: npt.ArrayLike) -> FloatArray:
    """Return ``values`` as a float64 vector of shape (N,).

    Raises:
        ValueError: not real numbers (dates are none), not one-dimensional, empty, or with NaN or infinite values
            (their number is named).

    >>> as_finite("alm_kg", [15, 16.5])
    array([15. , 16.5])
    """
    dtype = getattr(values, "dtype", None)
    # Numpy would count the days of dates, a missing one's too, and drop imaginary parts.
    if getattr(dtype, "kind", "f") in "cmM":
        raise ValueError(f"{name}: expected numbers, found {dtype}")
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: expected numbers without missing values: {error}") from error
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"{name}: expected a non-empty vector, found shape {array.shape}")
    n_bad = int(array.size - np.count_nonzero(np.isfinite(array)))
    if n_bad:
        raise ValueError(f"{name}: {n_bad} of {array.size} values are NaN or infinite; remove and count them first")
    return array


def as_labels(name: str, values: npt.ArrayLike) -> BoolArray:
    """Return 0/1 labels as a boolean vector of shape (N,).

    Raises:
        ValueError: as :func:`as_finite`, or a value other than 0 and 1.

    >>> as_labels("sarcopenia", [0, 1.0])
    array([False,  True])
    """
    array = as_finite(name, values)
    wrong = array[(array != 0) & (array != 1)]
    if wrong.size:
        raise ValueError(f"{name}: found {wrong[0]:g}; only 0 (without) and 1 (with) are allowed")
    return array == 1


def as_probabilities(name: str, values: npt.ArrayLike) -> FloatArray:
    """Return probabilities as a float64 vector of shape (N,).

    Raises:
        ValueError: as :func:`as_finite`, or a value outside [0, 1].

    >>> as_probabilities("score", [0.2, 1])
    array([0.2, 1. ])
    """
    array = as_finite(name, values)
    wrong = array[(array < 0) | (array > 1)]
    if wrong.size:
        raise ValueError(f"{name}: found {wrong[0]:g}; a probability lies within [0, 1]")
    return array


def check_lengths(**arrays: npt.NDArray[Any]) -> None:
    """Refuse vectors of unequal length.

    Raises:
        ValueError: lengths differ (each is named).

    >>> check_lengths(y=np.zeros(2), score=np.zeros(2))
    """
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"vectors must have one length, found {lengths}")


def check_level(name: str, level: float) -> float:
    """Return a confidence or coverage level.

    Raises:
        ValueError: not within (0, 1).

    >>> check_level("confidence_level", 0.95)
    0.95
    """
    if not 0 < level < 1:
        raise ValueError(f"{name}: found {level!r}; allowed: between 0 and 1, for example 0.95")
    return level


def normal_quantile(confidence_level: float) -> float:
    """Two-sided standard normal quantile of a confidence level.

    >>> round(normal_quantile(0.95), 6)
    1.959964
    """
    return float(stats.norm.ppf(0.5 + check_level("confidence_level", confidence_level) / 2))


def normal_p_value(z: float) -> float:
    """Two-sided p-value of a standard normal statistic; NaN for NaN.

    >>> round(normal_p_value(1.959964), 6)
    0.05
    """
    return float(2 * stats.norm.sf(abs(z)))

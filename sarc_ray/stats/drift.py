"""How far a distribution has moved from a reference, from counts alone: stability index and distance of two CDFs.

Both sides are counts over the same cells: K cells of a grid in ascending order, or B categories in any.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from sarc_ray.stats.arrays import FloatArray, as_finite

# What an empty cell counts as, since a logarithm needs something; half an observation says "fewer than one".
EMPTY_CELL = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class GridDistance:
    """A Kolmogorov-Smirnov distance that was taken at the edges of a grid.

    Attributes:
        distance: the largest difference of the two distribution functions at an edge; never above the distance of the
            samples themselves.
        margin: by how much that may be larger at most; 0 where every cell holds one value.
    """

    distance: float
    margin: float


def stability_index(reference_B: npt.ArrayLike, current_B: npt.ArrayLike) -> float:
    """Population stability index: the sum over cells of (q - p) ln(q / p), for shares p (reference) and q (current).

    Symmetric in its arguments, 0 for equal shares. It is Jeffreys' divergence of the binned distributions. For two
    normal distributions of equal SD whose means differ by d SD, and fine cells, it comes to d squared.

    Args:
        reference_B: counts, shape (B,), B at least 2. A cell that is empty on one side counts as ``EMPTY_CELL`` there;
            one that is empty on both is left out.
        current_B: counts over the same cells.

    Returns:
        NaN where a side has no counts at all.

    Raises:
        ValueError: shapes that differ, fewer than two cells, negative counts.

    References:
        Jeffreys H (1946). An invariant form for the prior probability in estimation problems. Proceedings of the Royal
        Society A 186:453-461. Siddiqi N (2006). Credit Risk Scorecards. Wiley (for monitoring; limits 0.1 and 0.25).

    >>> round(stability_index([50, 30, 20], [40, 30, 30]), 4)
    0.0629
    """
    reference_B, current_B = _pair(reference_B, current_B)
    if reference_B.sum() == 0 or current_B.sum() == 0:
        return float("nan")
    known = (reference_B > 0) | (current_B > 0)
    p_B = np.maximum(reference_B[known], EMPTY_CELL) / reference_B.sum()
    q_B = np.maximum(current_B[known], EMPTY_CELL) / current_B.sum()
    return float(np.sum((q_B - p_B) * np.log(q_B / p_B)))


def stability_p_value(index: float, *, n_reference: float, n_current: float, n_cells: int) -> float:
    """Chance of a stability index this large or larger where both sides are samples of one population.

    Where nothing has moved, index / (1 / n_reference + 1 / n_current) follows a chi-square distribution with
    n_cells - 1 degrees of freedom, for large samples. One-sided, as an index cannot be too small.

    Args:
        index: as :func:`stability_index` gives it.
        n_reference: independent units (patients) behind the reference.
        n_current: and behind the current counts.
        n_cells: cells that either side fills.

    Returns:
        NaN where the index is NaN, or there are fewer than two cells.

    Raises:
        ValueError: a number of units that is not positive.

    References:
        Yurdakul B, Naranjo J (2020). Statistical properties of the population stability index. Journal of Risk Model
        Validation 14(4):89-100.

    >>> round(stability_p_value(0.05, n_reference=1000, n_current=200, n_cells=10), 3)
    0.501
    """
    _check_units(n_reference, n_current)
    if n_cells < 2 or not np.isfinite(index):
        return float("nan")
    return float(stats.chi2.sf(index / (1 / n_reference + 1 / n_current), n_cells - 1))


def grid_distance(reference_K: npt.ArrayLike, current_K: npt.ArrayLike) -> GridDistance:
    """Two-sample Kolmogorov-Smirnov distance at the edges of a grid, and how much the grid may hide.

    Within a cell neither distribution function rises by more than the cell's share of its side, so the distance of the
    samples themselves exceeds that at the edges by the smaller of the two shares at most.

    Args:
        reference_K: counts in cells in ascending order, shape (K,), K at least 2.
        current_K: counts over the same cells.

    Returns:
        NaNs where a side has no counts.

    Raises:
        ValueError: shapes that differ, fewer than two cells, negative counts.

    >>> grid_distance([10, 10, 10, 10], [5, 5, 10, 20])
    GridDistance(distance=0.25, margin=0.25)
    """
    reference_K, current_K = _pair(reference_K, current_K)
    if reference_K.sum() == 0 or current_K.sum() == 0:
        return GridDistance(distance=float("nan"), margin=float("nan"))
    p_K, q_K = reference_K / reference_K.sum(), current_K / current_K.sum()
    gaps = np.abs(np.cumsum(q_K - p_K)[:-1])
    return GridDistance(distance=float(gaps.max()), margin=float(np.minimum(p_K, q_K).max()))


def distance_p_value(distance: float, *, n_reference: float, n_current: float) -> float:
    """Chance of a Kolmogorov-Smirnov distance this large or larger between two samples of one population. Two-sided.

    Of the one-sample distribution at n m / (n + m), as scipy's ``ks_2samp(method="asymp")`` has it. Conservative for
    discrete values, and for a distance that was taken on a grid.

    Args:
        distance: from 0 to 1.
        n_reference: independent units (patients) behind the reference.
        n_current: and behind the current counts.

    Returns:
        NaN where the distance is NaN.

    Raises:
        ValueError: a number of units that is not positive, a distance outside [0, 1].

    References:
        Hodges JL (1958). The significance probability of the Smirnov two-sample test. Arkiv foer Matematik 3:469-486.

    >>> round(distance_p_value(0.1, n_reference=1000, n_current=200), 4)
    0.0661
    """
    _check_units(n_reference, n_current)
    if np.isnan(distance):
        return float("nan")
    # Sums of shares may end a rounding above 1.
    if not 0 <= distance <= 1 + 1e-9:
        raise ValueError(f"distance: found {distance!r}; allowed: 0 to 1")
    effective = n_reference * n_current / (n_reference + n_current)
    return float(np.clip(stats.kstwo.sf(distance, max(1, round(effective))), 0.0, 1.0))


def coarse_cells(reference_K: npt.ArrayLike, n_cells: int) -> npt.NDArray[np.int64]:
    """Which of about ``n_cells`` coarse cells, equal in the reference's share, each cell of a grid belongs to.

    Args:
        reference_K: counts in cells in ascending order, shape (K,), not all 0.
        n_cells: asked for; fewer come out where single cells hold more than a coarse one should.

    Returns:
        Indices from 0 without gaps, ascending, shape (K,).

    Raises:
        ValueError: negative or infinite counts, none at all, n_cells below 1.

    >>> coarse_cells([1, 1, 1, 1, 4], 2)
    array([0, 0, 0, 0, 1])
    """
    counts_K = as_finite("counts", reference_K)
    if counts_K.min() < 0 or counts_K.sum() == 0 or n_cells < 1:
        raise ValueError(
            f"counts, n_cells: found {counts_K.sum():g} in all, the least {counts_K.min():g}, and {n_cells} cells; "
            "allowed: counts of 0 or more, not all 0; 1 cell or more"
        )
    # Rounding up puts a cell that ends at a border into the coarse cell below it; 1e-9 lets 0.3000000001 be 0.3.
    wanted_K = np.ceil(np.cumsum(counts_K) / counts_K.sum() * n_cells - 1e-9).clip(1, n_cells)
    return np.unique(wanted_K, return_inverse=True)[1].astype(np.int64)


def _pair(reference: npt.ArrayLike, current: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    a, b = np.asarray(reference, dtype=np.float64), np.asarray(current, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape or a.size < 2:
        raise ValueError(
            f"counts: found shapes {a.shape} and {b.shape}; allowed: the same cells on both sides, 2 or more"
        )
    if not (np.isfinite(a).all() and np.isfinite(b).all()) or a.min() < 0 or b.min() < 0:
        raise ValueError("counts: found negative or infinite ones; allowed: 0 or more")
    return a, b


def _check_units(n_reference: float, n_current: float) -> None:
    if not (n_reference > 0 and n_current > 0):
        raise ValueError(f"n_reference, n_current: found {n_reference} and {n_current}; allowed: above 0")

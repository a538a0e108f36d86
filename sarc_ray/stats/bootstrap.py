"""Patient-level bootstrap of the nine metrics of Table 2, of functions of means, and of any statistic.

Shapes: N rows, U units of resampling (patients), B replicates, K columns.

Metrics are computed from counts of rows (:mod:`sarc_ray.stats.scored_sample`), drawn in blocks of replicates
(:mod:`sarc_ray.stats.resampling`): the memory does not grow with the number of replicates, and the answer does not
depend on who computes which block.

Two kinds of interval. ``percentile``: the quantiles of the replicates at the two tails. ``bca``: quantiles that are
moved for bias (the share of replicates below the estimate, ties half) and for skewness (the acceleration).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import stats

from sarc_ray.stats.arrays import FloatArray, IntArray, as_finite, check_lengths, check_level
from sarc_ray.stats.resampling import Block, draw_rows, draw_units, number_patients, plan_blocks
from sarc_ray.stats.scored_sample import METRICS as METRICS
from sarc_ray.stats.scored_sample import (
    ScoredSample,
    estimate_metrics,
    influences,
    metrics_of_counts,
    prepare_pair,
    prepare_sample,
    replicate_metrics,
)

Kind = Literal["percentile", "bca"]
MapBlocks = Callable[[Callable[[Block], FloatArray], Sequence[Block]], Iterable[FloatArray]]
# Replicates closer to the estimate than this are ties: sums in another order differ in the last bits.
_TIE = 1e-12


@dataclass(frozen=True, kw_only=True, slots=True)
class BootstrapInterval:
    """An interval; ``n_degenerate`` of ``n_boot`` replicates had no defined value and are left out of it."""

    estimate: float
    ci_low: float
    ci_high: float
    n_boot: int
    n_degenerate: int


def bootstrap_metrics(
    label: npt.ArrayLike,
    score: npt.ArrayLike,
    flag: npt.ArrayLike,
    *,
    n_boot: int,
    confidence_level: float,
    seed: int | Sequence[int],
    patient: npt.ArrayLike | None = None,
    kind: Kind = "percentile",
    map_blocks: MapBlocks = map,
) -> dict[str, BootstrapInterval]:
    """Intervals of the nine metrics of Table 2 from unstratified resampling of patients.

    Args:
        label: 0/1, shape (N,).
        score: probability of the outcome, shape (N,).
        flag: 0/1 decision in force, shape (N,).
        n_boot: number of replicates.
        confidence_level: of the two-sided intervals (quantiles by linear interpolation between order statistics).
        seed: entropy; equal seeds give equal answers.
        patient: patient of each row, shape (N,); None where every row is a patient of its own. All rows of a patient
            are drawn together.
        kind: of interval; the acceleration of ``bca`` is that of the patients' empirical influences.
        map_blocks: as :func:`map`; a parallel one must keep the order.

    Returns:
        One interval per name of ``METRICS``. A metric without a defined value is NaN.

    Raises:
        ValueError: NaN, labels or flags other than 0/1, scores outside [0, 1], unequal lengths, n_boot < 1, a level
            outside (0, 1), an unknown kind.

    References:
        Efron B, Tibshirani RJ (1993). An introduction to the bootstrap, chapters 13 and 14.

    >>> rows = [0, 0, 0, 1, 1, 1], [0.1, 0.2, 0.5, 0.4, 0.7, 0.9], [0, 0, 1, 0, 1, 1]
    >>> intervals = bootstrap_metrics(*rows, n_boot=200, confidence_level=0.95, seed=7)
    >>> round(intervals["auroc"].estimate, 4), intervals["auroc"].ci_high
    (0.8889, 1.0)
    """
    sample = prepare_sample(label, score, flag, patient=patient)
    # A partial, not a closure, so that other processes can take it.
    replicate = functools.partial(replicate_metrics, sample)
    replicates_B9 = _replicates(replicate, n_boot, seed, map_blocks)
    accelerations = None
    if _check_kind(kind) == "bca":
        accelerations = [
            _acceleration(_by_patient(influence_N, sample), sample.size_N if sample.unit_N is None else None)
            for influence_N in influences(sample)
        ]
    return summarise(
        METRICS,
        estimate_metrics(sample),
        replicates_B9,
        confidence_level=confidence_level,
        accelerations=accelerations,
    )


def bootstrap_differences(
    label: npt.ArrayLike,
    score_a: npt.ArrayLike,
    flag_a: npt.ArrayLike,
    score_b: npt.ArrayLike,
    flag_b: npt.ArrayLike,
    *,
    n_boot: int,
    confidence_level: float,
    seed: int | Sequence[int],
    patient: npt.ArrayLike | None = None,
    kind: Kind = "percentile",
    map_blocks: MapBlocks = map,
) -> dict[str, BootstrapInterval]:
    """Intervals of the differences (a - b) of the nine metrics of two scores of the same rows.

    In each replicate both scores see the same patients. A difference is degenerate where either metric is undefined.
    Arguments, errors and sources as in :func:`bootstrap_metrics`.

    >>> rows = [0, 0, 0, 1, 1, 1], [0.1, 0.2, 0.5, 0.4, 0.7, 0.9], [0, 0, 1, 0, 1, 1]
    >>> intervals = bootstrap_differences(*rows, *rows[1:], n_boot=50, confidence_level=0.95, seed=7)
    >>> intervals["auroc"].ci_low, intervals["auroc"].ci_high
    (0.0, 0.0)
    """
    a, b = prepare_pair(label, score_a, flag_a, score_b, flag_b, patient=patient)
    replicate = functools.partial(replicate_differences, a, b)
    replicates_B9 = _replicates(replicate, n_boot, seed, map_blocks)
    accelerations = None
    if _check_kind(kind) == "bca":
        pairs = zip(influences(a), influences(b), strict=True)
        accelerations = [_acceleration(_by_patient(of_a, a) - _by_patient(of_b, b)) for of_a, of_b in pairs]
    return summarise(
        METRICS,
        estimate_metrics(a) - estimate_metrics(b),
        replicates_B9,
        confidence_level=confidence_level,
        accelerations=accelerations,
    )


def replicate_differences(a: ScoredSample, b: ScoredSample, block: Block) -> FloatArray:
    """Return the nine differences (a - b) of each replicate of a block, shape (B, 9), in the order of ``METRICS``.

    >>> pair = prepare_pair([0, 1], [0.2, 0.7], [0, 1], [0.9, 0.7], [1, 1])
    >>> replicate_differences(*pair, plan_blocks(3, seed=1)[0]).shape
    (3, 9)
    """
    if a.unit_N is None or b.unit_N is None:
        raise ValueError("a, b: patients are not numbered; make the samples by prepare_pair")
    n_rows = a.size_N.size
    parts = []
    for counts_BU in draw_units(block, a.n_units, n_rows=n_rows):
        of_a = metrics_of_counts(a, counts_BU.take(a.unit_N, axis=1))
        parts.append(of_a - metrics_of_counts(b, counts_BU.take(b.unit_N, axis=1)))
    return np.concatenate(parts)


def bootstrap_means(
    columns_NK: npt.ArrayLike,
    statistic: Callable[[FloatArray], FloatArray],
    names: Sequence[str],
    *,
    n_boot: int,
    confidence_level: float,
    seed: int | Sequence[int],
    patient: npt.ArrayLike | None = None,
    kind: Kind = "percentile",
    map_blocks: MapBlocks = map,
) -> dict[str, BootstrapInterval]:
    """Intervals of statistics that are functions of column means (mean absolute error, 1 - MSE / Var, ...).

    Args:
        columns_NK: numbers, shape (N, K).
        statistic: from means of shape (B, K) to values of shape (B, len(names)), replicate by replicate.
        names: of the statistic's values.
        n_boot: number of replicates.
        confidence_level: of the two-sided intervals.
        seed: entropy; equal seeds give equal answers.
        patient: as in :func:`bootstrap_metrics`.
        kind: of interval; the acceleration of ``bca`` is that of the jackknife over patients.
        map_blocks: as in :func:`bootstrap_metrics`.

    Raises:
        ValueError: NaN or infinite numbers, not two-dimensional, unequal lengths, n_boot < 1, an unknown kind.

    >>> x = np.arange(10.0)
    >>> bootstrap_means(x[:, None], lambda m: m, ["mean"], n_boot=100, confidence_level=0.9, seed=1)["mean"].estimate
    4.5
    """
    matrix_NK = np.asarray(columns_NK, dtype=np.float64)
    if matrix_NK.ndim != 2:
        raise ValueError(f"columns: expected shape (N, K), found {matrix_NK.shape}")
    as_finite("columns", matrix_NK.ravel())
    n_rows = len(matrix_NK)
    unit_N, n_units = number_patients(patient, n_rows)

    def replicate(block: Block) -> FloatArray:
        parts = []
        for counts_BN in draw_rows(block, unit_N, n_units, n_rows):
            parts.append(statistic(counts_BN @ matrix_NK / counts_BN.sum(axis=1, keepdims=True)))
        return np.concatenate(parts)

    replicates = _replicates(replicate, n_boot, seed, map_blocks)
    estimate = statistic(matrix_NK.mean(axis=0, keepdims=True))[0]
    accelerations = None
    if _check_kind(kind) == "bca":
        left_out_UK = statistic(_means_without_each(matrix_NK, unit_N, n_units))
        accelerations = _jackknife_accelerations(left_out_UK)
    return summarise(names, estimate, replicates, confidence_level=confidence_level, accelerations=accelerations)


def bootstrap_statistic(
    statistic: Callable[..., float],
    arrays: Sequence[npt.ArrayLike],
    *,
    n_boot: int,
    confidence_level: float,
    seed: int | Sequence[int],
    patient: npt.ArrayLike | None = None,
    kind: Kind = "percentile",
    map_blocks: MapBlocks = map,
) -> BootstrapInterval:
    """Interval of any statistic of parallel arrays; as :func:`bootstrap_statistics` for one number.

    >>> a, b = np.array([1.0, 2.0, 4.0]), np.array([1.5, 2.5, 3.0])
    >>> bootstrap_statistic(lambda a, b: float(np.mean(a - b)), [a, b], n_boot=50, confidence_level=0.9, seed=1).n_boot
    50
    """
    return bootstrap_statistics(
        lambda *columns: [statistic(*columns)],
        ["statistic"],
        arrays,
        n_boot=n_boot,
        confidence_level=confidence_level,
        seed=seed,
        patient=patient,
        kind=kind,
        map_blocks=map_blocks,
    )["statistic"]


def bootstrap_statistics(
    statistic: Callable[..., Sequence[float]],
    names: Sequence[str],
    arrays: Sequence[npt.ArrayLike],
    *,
    n_boot: int,
    confidence_level: float,
    seed: int | Sequence[int],
    patient: npt.ArrayLike | None = None,
    kind: Kind = "percentile",
    map_blocks: MapBlocks = map,
) -> dict[str, BootstrapInterval]:
    """Intervals of any statistics of parallel arrays, by drawing whole patients (slow, general).

    Args:
        statistic: called with the resampled arrays, returns one number per name; may return NaN. The order of rows
            must not matter to it.
        names: of the statistic's values.
        arrays: each of length N.
        n_boot: number of replicates.
        confidence_level: of the two-sided intervals.
        seed: entropy; equal seeds give equal answers.
        patient: as in :func:`bootstrap_metrics`.
        kind: as in :func:`bootstrap_means`; ``bca`` calls the statistic once more for each patient.
        map_blocks: as in :func:`bootstrap_metrics`.

    Raises:
        ValueError: no arrays, no vectors, unequal lengths, n_boot < 1, an unknown kind.

    >>> x = np.array([1.0, 2.0, 4.0])
    >>> bootstrap_statistics(lambda x: [x.min(), x.max()], ["low", "high"], [x],
    ...                      n_boot=50, confidence_level=0.9, seed=1)["high"].ci_high
    4.0
    """
    columns = [np.asarray(array) for array in arrays]
    if not columns or any(column.ndim == 0 or len(column) == 0 for column in columns):
        raise ValueError("arrays: give at least one, each with at least one row")
    check_lengths(**{f"arrays[{i}]": column for i, column in enumerate(columns)})
    n_rows = len(columns[0])
    unit_N, n_units = number_patients(patient, n_rows)

    def replicate(block: Block) -> FloatArray:
        values = []
        for counts_BN in draw_rows(block, unit_N, n_units, n_rows):
            for counts_N in counts_BN:
                rows = np.repeat(np.arange(n_rows), counts_N.astype(np.int64))
                values.append(statistic(*(column[rows] for column in columns)))
        return np.array(values, dtype=np.float64)

    replicates_BK = _replicates(replicate, n_boot, seed, map_blocks)
    accelerations = None
    if _check_kind(kind) == "bca":
        units = np.arange(n_rows) if unit_N is None else unit_N
        # Without the only patient there is nothing to compute anything of.
        left_out_UK = np.full((1, len(names)), np.nan)
        if n_units > 1:
            left_out_UK = np.array([statistic(*(column[units != u] for column in columns)) for u in range(n_units)])
        accelerations = _jackknife_accelerations(left_out_UK)
    return summarise(
        names,
        np.array(statistic(*columns), dtype=np.float64),
        replicates_BK,
        confidence_level=confidence_level,
        accelerations=accelerations,
    )


def summarise(
    names: Sequence[str],
    estimate_K: FloatArray,
    replicates_BK: FloatArray,
    *,
    confidence_level: float,
    accelerations: Sequence[float] | None = None,
) -> dict[str, BootstrapInterval]:
    """Turn replicates into intervals; undefined (NaN) replicates are counted and left out.

    Args:
        names: of the statistics.
        estimate_K: their values in the sample, shape (K,); no interval where NaN.
        replicates_BK: shape (B, K).
        confidence_level: of the two-sided intervals.
        accelerations: one per statistic, for BCa intervals (NaN where every replicate lies on one side of the
            estimate, or the acceleration is NaN); None for percentile intervals.

    Raises:
        ValueError: a level outside (0, 1), another number of names than of statistics.

    References:
        Efron B (1987). Better bootstrap confidence intervals.

    >>> summarise(["x"], np.array([2.0]), np.array([[1.0], [2.0], [3.0], [np.nan]]), confidence_level=0.5)["x"]
    BootstrapInterval(estimate=2.0, ci_low=1.5, ci_high=2.5, n_boot=4, n_degenerate=1)
    """
    tail = (1 - check_level("confidence_level", confidence_level)) / 2
    if not len(names) == len(estimate_K) == replicates_BK.shape[1]:
        raise ValueError(f"names: found {list(names)} for {replicates_BK.shape[1]} statistics; name each")
    intervals = {}
    for k, name in enumerate(names):
        defined = replicates_BK[np.isfinite(replicates_BK[:, k]), k]
        tails = np.array([tail, 1 - tail])
        if accelerations is not None:
            tails = _bca_tails(tails, defined, float(estimate_K[k]), accelerations[k])
        usable = defined.size > 0 and bool(np.isfinite(estimate_K[k])) and not np.isnan(tails).any()
        low, high = np.quantile(defined, tails) if usable else (np.nan, np.nan)
        intervals[name] = BootstrapInterval(
            estimate=float(estimate_K[k]),
            ci_low=float(low),
            ci_high=float(high),
            n_boot=len(replicates_BK),
            n_degenerate=len(replicates_BK) - defined.size,
        )
    return intervals


def _replicates(
    replicate: Callable[[Block], FloatArray], n_boot: int, seed: int | Sequence[int], map_blocks: MapBlocks
) -> FloatArray:
    """All replicates in the order of their blocks, shape (B, K)."""
    return np.concatenate(list(map_blocks(replicate, plan_blocks(n_boot, seed=seed))))


def _jackknife_accelerations(left_out_UK: FloatArray) -> list[float]:
    """Accelerations of K statistics from their values without each patient."""
    return [_acceleration(left_out_U.mean() - left_out_U) for left_out_U in left_out_UK.T]


def _check_kind(kind: str) -> str:
    if kind not in ("percentile", "bca"):
        raise ValueError(f"kind: found {kind!r}; allowed: percentile, bca")
    return kind


def _bca_tails(tails: FloatArray, replicates_B: FloatArray, estimate: float, acceleration: float) -> FloatArray:
    if replicates_B.size == 0 or not np.isfinite(estimate):
        return np.full(2, np.nan)
    gap_B = replicates_B - estimate
    tied_B = np.abs(gap_B) <= _TIE * max(1.0, abs(estimate))
    share = (np.count_nonzero((gap_B < 0) & ~tied_B) + np.count_nonzero(tied_B) / 2) / gap_B.size
    if share in (0, 1):
        return np.full(2, np.nan)
    bias = stats.norm.ppf(share)
    shifted = bias + stats.norm.ppf(tails)
    return np.asarray(stats.norm.cdf(bias + shifted / (1 - acceleration * shifted)), dtype=np.float64)


def _acceleration(influence_U: FloatArray, size_U: IntArray | None = None) -> float:
    """Sum of cubes over 6 (sum of squares)^1.5; 0 where nothing has influence."""
    size = np.ones(1) if size_U is None else size_U
    squares = float(np.sum(size * influence_U**2))
    # Influences are of the order 1 / U: what is left of a constant statistic is rounding.
    if squares <= (_TIE / influence_U.size) ** 2:
        return 0.0
    return float(np.sum(size * influence_U**3)) / (6 * squares**1.5)


def _by_patient(influence_N: FloatArray, sample: ScoredSample) -> FloatArray:
    if sample.unit_N is None:
        return influence_N
    return np.bincount(sample.unit_N, weights=influence_N, minlength=sample.n_units).astype(np.float64)


def _means_without_each(matrix_NK: FloatArray, unit_N: IntArray | None, n_units: int) -> FloatArray:
    """Column means of the rows without each patient, shape (U, K); NaN for the only patient."""
    if unit_N is None:
        rows_U, sums_UK = np.ones(n_units), matrix_NK
    else:
        rows_U = np.bincount(unit_N, minlength=n_units).astype(np.float64)
        sums_UK = np.stack([np.bincount(unit_N, weights=column, minlength=n_units) for column in matrix_NK.T], axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (matrix_NK.sum(axis=0) - sums_UK) / (len(matrix_NK) - rows_U)[:, None]

"""Patient-level bootstrap of the nine metrics of Table 2, of functions of means, and of any statistic.

Shapes: N rows, U units of resampling (patients), B replicates, K columns, G distinct scores held by a positive.

Drawing U units with replacement is drawing multinomial counts over them. Rows are sorted by score once; then every
replicate is one cumulative sum of counts, and the metrics are sums over it. Replicates come in blocks of a fixed
size, each with its own child of one SeedSequence, so the answer does not depend on who computes which block.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sarc_ray.stats import discrimination
from sarc_ray.stats.arrays import (
    BoolArray,
    FloatArray,
    IntArray,
    as_finite,
    as_labels,
    as_probabilities,
    check_lengths,
    check_level,
)

METRICS = ("auroc", "auprc", "f1", "mcc", "sensitivity", "specificity", "ppv", "npv", "brier")
# Part of the definition of a result: another number draws other replicates from the same seed.
REPLICATES_PER_BLOCK = 50
# Counts of this many units fit the first-level cache, and their index fits 16 bits.
_UNITS_PER_BUCKET = 8192
# Replicates of one block are taken together while their counts stay below this many numbers.
_COUNTS_AT_ONCE = 2**18

MapBlocks = Callable[[Callable[["Block"], FloatArray], Sequence["Block"]], Iterable[FloatArray]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """Some replicates with a random stream of their own; picklable."""

    n_replicates: int
    seed: np.random.SeedSequence


@dataclass(frozen=True, kw_only=True, slots=True)
class BootstrapInterval:
    """Percentile interval; ``n_degenerate`` of ``n_boot`` replicates had no defined value and are left out of it."""

    estimate: float
    ci_low: float
    ci_high: float
    n_boot: int
    n_degenerate: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredSample:
    """Rows sorted by falling score, positives first among ties; built by :func:`prepare_sample`.

    ``weights_3N``: flagged positives, flagged negatives, squared error. ``start``, ``middle``, ``end`` (G,) bound the
    rows of each distinct score that holds a positive: its positives are start..middle, all its rows start..end.
    ``unit_N`` is the patient's number, or None where every row is a patient of its own.
    """

    weights_3N: FloatArray
    start: IntArray
    middle: IntArray
    end: IntArray
    unit_N: IntArray | None
    n_units: int


def bootstrap_metrics(
    label: npt.ArrayLike,
    score: npt.ArrayLike,
    flag: npt.ArrayLike,
    *,
    n_boot: int,
    confidence_level: float,
    seed: int | Sequence[int],
    patient: npt.ArrayLike | None = None,
    map_blocks: MapBlocks = map,
) -> dict[str, BootstrapInterval]:
    """Percentile intervals of the nine metrics of Table 2 from unstratified resampling of patients.

    Args:
        label: 0/1, shape (N,).
        score: probability of the outcome, shape (N,).
        flag: 0/1 decision in force, shape (N,).
        n_boot: number of replicates.
        confidence_level: of the percentile intervals (linear interpolation between order statistics).
        seed: entropy; equal seeds give equal answers.
        patient: patient of each row, shape (N,); None where every row is a patient of its own. All rows of a patient
            are drawn together.
        map_blocks: as :func:`map`; a parallel one must keep the order.

    Returns:
        One interval per name of ``METRICS``. A metric without a defined value is NaN.

    Raises:
        ValueError: NaN, labels or flags other than 0/1, scores outside [0, 1], unequal lengths, n_boot < 1.

    References:
        Efron B, Tibshirani RJ (1993). An introduction to the bootstrap, chapter 13.

    >>> intervals = bootstrap_metrics([0, 0, 0, 1, 1, 1], [0.1, 0.2, 0.5, 0.4, 0.7, 0.9], [0, 0, 1, 0, 1, 1],
    ...                               n_boot=200, confidence_level=0.95, seed=7)
    >>> round(intervals["auroc"].estimate, 4), intervals["auroc"].ci_high
    (0.8889, 1.0)
    """
    sample = prepare_sample(label, score, flag, patient=patient)
    # A partial, not a closure, so that other processes can take it.
    replicate = functools.partial(replicate_metrics, sample)
    replicates_B9 = np.concatenate(list(map_blocks(replicate, plan_blocks(n_boot, seed=seed))))
    return summarise(METRICS, estimate_metrics(sample), replicates_B9, confidence_level=confidence_level)


def bootstrap_means(
    columns_NK: npt.ArrayLike,
    statistic: Callable[[FloatArray], FloatArray],
    names: Sequence[str],
    *,
    n_boot: int,
    confidence_level: float,
    seed: int | Sequence[int],
    patient: npt.ArrayLike | None = None,
    map_blocks: MapBlocks = map,
) -> dict[str, BootstrapInterval]:
    """Percentile intervals of statistics that are functions of column means (mean absolute error, 1 - MSE / Var, ...).

    Args:
        columns_NK: numbers, shape (N, K).
        statistic: from means of shape (B, K) to values of shape (B, len(names)), replicate by replicate.
        names: of the statistic's values.
        n_boot: number of replicates.
        confidence_level: of the percentile intervals.
        seed: entropy; equal seeds give equal answers.
        patient: as in :func:`bootstrap_metrics`.
        map_blocks: as in :func:`bootstrap_metrics`.

    Raises:
        ValueError: NaN or infinite numbers, not two-dimensional, unequal lengths, n_boot < 1.

    >>> x = np.arange(10.0)
    >>> bootstrap_means(x[:, None], lambda m: m, ["mean"], n_boot=100, confidence_level=0.9, seed=1)["mean"].estimate
    4.5
    """
    matrix_NK = np.asarray(columns_NK, dtype=np.float64)
    if matrix_NK.ndim != 2:
        raise ValueError(f"columns: expected shape (N, K), found {matrix_NK.shape}")
    as_finite("columns", matrix_NK.ravel())
    unit_N, n_units = _units(patient, len(matrix_NK))

    def replicate(block: Block) -> FloatArray:
        parts = []
        for counts_BN in _draw_counts(block, unit_N, n_units, len(matrix_NK)):
            counts = counts_BN.astype(np.float64)
            parts.append(statistic(counts @ matrix_NK / counts.sum(axis=1, keepdims=True)))
        return np.concatenate(parts)

    replicates = np.concatenate(list(map_blocks(replicate, plan_blocks(n_boot, seed=seed))))
    estimate = statistic(matrix_NK.mean(axis=0, keepdims=True))[0]
    return summarise(names, estimate, replicates, confidence_level=confidence_level)


def bootstrap_statistic(
    statistic: Callable[..., float],
    arrays: Sequence[npt.ArrayLike],
    *,
    n_boot: int,
    confidence_level: float,
    seed: int | Sequence[int],
    patient: npt.ArrayLike | None = None,
    map_blocks: MapBlocks = map,
) -> BootstrapInterval:
    """Percentile interval of any statistic of parallel arrays, by drawing whole patients (slow, general).

    Args:
        statistic: called with the resampled arrays; may return NaN. The order of rows must not matter to it.
        arrays: each of length N.
        n_boot: number of replicates.
        confidence_level: of the percentile interval.
        seed: entropy; equal seeds give equal answers.
        patient: as in :func:`bootstrap_metrics`.
        map_blocks: as in :func:`bootstrap_metrics`.

    Raises:
        ValueError: no arrays, unequal lengths, n_boot < 1.

    >>> a, b = np.array([1.0, 2.0, 4.0]), np.array([1.5, 2.5, 3.0])
    >>> bootstrap_statistic(lambda a, b: float(np.mean(a - b)), [a, b], n_boot=50, confidence_level=0.9, seed=1).n_boot
    50
    """
    columns = [np.asarray(array) for array in arrays]
    if not columns or len(columns[0]) == 0:
        raise ValueError("arrays: give at least one, with at least one row")
    check_lengths(**{f"arrays[{i}]": column for i, column in enumerate(columns)})
    n_rows = len(columns[0])
    unit_N, n_units = _units(patient, n_rows)

    def replicate(block: Block) -> FloatArray:
        values = []
        for counts_BN in _draw_counts(block, unit_N, n_units, n_rows):
            for counts_N in counts_BN:
                rows = np.repeat(np.arange(n_rows), counts_N)
                values.append([statistic(*(column[rows] for column in columns))])
        return np.array(values, dtype=np.float64)

    replicates_B1 = np.concatenate(list(map_blocks(replicate, plan_blocks(n_boot, seed=seed))))
    estimate = np.array([statistic(*columns)], dtype=np.float64)
    return summarise(["statistic"], estimate, replicates_B1, confidence_level=confidence_level)["statistic"]


def plan_blocks(n_boot: int, *, seed: int | Sequence[int]) -> list[Block]:
    """Split replicates into blocks, each with a spawned child of the seed.

    Raises:
        ValueError: n_boot < 1.

    >>> [block.n_replicates for block in plan_blocks(120, seed=1)]
    [50, 50, 20]
    """
    if n_boot < 1:
        raise ValueError(f"n_boot: found {n_boot}; at least 1 replicate is needed (2000 in the paper)")
    sizes = [min(REPLICATES_PER_BLOCK, n_boot - done) for done in range(0, n_boot, REPLICATES_PER_BLOCK)]
    children = np.random.SeedSequence(seed).spawn(len(sizes))
    return [Block(n_replicates=size, seed=child) for size, child in zip(sizes, children, strict=True)]


def prepare_sample(
    label: npt.ArrayLike, score: npt.ArrayLike, flag: npt.ArrayLike, *, patient: npt.ArrayLike | None = None
) -> ScoredSample:
    """Sort and check the rows once; arguments and errors as in :func:`bootstrap_metrics`.

    >>> prepare_sample([0, 1], [0.2, 0.7], [0, 1]).n_units
    2
    """
    positive_N, score_N, flag_N = as_labels("label", label), as_probabilities("score", score), as_labels("flag", flag)
    check_lengths(label=positive_N, score=score_N, flag=flag_N)
    unit_N, n_units = _units(patient, score_N.size)
    order_N = np.lexsort((~positive_N, -score_N))
    positive_N, score_N, flag_N = positive_N[order_N], score_N[order_N], flag_N[order_N]
    start, middle, end = _tie_bounds(positive_N, score_N)
    return ScoredSample(
        weights_3N=np.stack([flag_N & positive_N, flag_N & ~positive_N, (score_N - positive_N) ** 2]).astype(float),
        start=start,
        middle=middle,
        end=end,
        unit_N=None if unit_N is None else unit_N[order_N],
        n_units=n_units,
    )


def estimate_metrics(sample: ScoredSample) -> FloatArray:
    """Return the nine metrics of the sample itself, shape (9,), in the order of ``METRICS``.

    >>> estimate_metrics(prepare_sample([0, 1], [0.2, 0.7], [0, 1]))[:2]
    array([1., 1.])
    """
    return _metrics(sample, np.ones((1, sample.weights_3N.shape[1]), dtype=np.int64))[0]


def replicate_metrics(sample: ScoredSample, block: Block) -> FloatArray:
    """Return the nine metrics of each replicate of a block, shape (B, 9), in the order of ``METRICS``.

    >>> replicate_metrics(prepare_sample([0, 1], [0.2, 0.7], [0, 1]), plan_blocks(3, seed=1)[0]).shape
    (3, 9)
    """
    n_rows = sample.weights_3N.shape[1]
    draws = _draw_counts(block, sample.unit_N, sample.n_units, n_rows)
    return np.concatenate([_metrics(sample, counts_BN) for counts_BN in draws])


def summarise(
    names: Sequence[str], estimate_K: FloatArray, replicates_BK: FloatArray, *, confidence_level: float
) -> dict[str, BootstrapInterval]:
    """Turn replicates into percentile intervals; undefined (NaN) replicates are counted and left out.

    Raises:
        ValueError: a level outside (0, 1).

    >>> summarise(["x"], np.array([2.0]), np.array([[1.0], [2.0], [3.0], [np.nan]]), confidence_level=0.5)["x"]
    BootstrapInterval(estimate=2.0, ci_low=1.5, ci_high=2.5, n_boot=4, n_degenerate=1)
    """
    tail = (1 - check_level("confidence_level", confidence_level)) / 2
    intervals = {}
    for k, name in enumerate(names):
        defined = replicates_BK[np.isfinite(replicates_BK[:, k]), k]
        usable = defined.size > 0 and bool(np.isfinite(estimate_K[k]))
        low, high = np.quantile(defined, [tail, 1 - tail]) if usable else (np.nan, np.nan)
        intervals[name] = BootstrapInterval(
            estimate=float(estimate_K[k]),
            ci_low=float(low),
            ci_high=float(high),
            n_boot=len(replicates_BK),
            n_degenerate=len(replicates_BK) - defined.size,
        )
    return intervals


def _units(patient: npt.ArrayLike | None, n_rows: int) -> tuple[IntArray | None, int]:
    """Number the patients; None where every row is a patient of its own."""
    if patient is None:
        return None, n_rows
    patients: npt.NDArray[Any] = np.asarray(patient)
    if patients.shape != (n_rows,):
        raise ValueError(f"patient: expected shape ({n_rows},), found {patients.shape}")
    names, unit_N = np.unique(patients, return_inverse=True)
    return (None, n_rows) if names.size == n_rows else (unit_N.astype(np.int64), int(names.size))


def _tie_bounds(positive_N: BoolArray, score_N: FloatArray) -> tuple[IntArray, IntArray, IntArray]:
    begins = np.flatnonzero(np.diff(score_N, prepend=np.inf))
    ends = np.append(begins[1:], score_N.size)
    n_positive = np.add.reduceat(positive_N.astype(np.int64), begins)
    held = n_positive > 0
    return begins[held], (begins + n_positive)[held], ends[held]


def _draw_counts(block: Block, unit_N: IntArray | None, n_units: int, n_rows: int) -> Iterable[IntArray]:
    """Yield counts of rows, shape (B, N), a few replicates at a time."""
    rng = np.random.default_rng(block.seed)
    at_once = max(1, _COUNTS_AT_ONCE // n_rows)
    for done in range(0, block.n_replicates, at_once):
        n_replicates = min(at_once, block.n_replicates - done)
        counts_BU = _multinomial_counts(n_replicates, n_units, rng=rng)
        yield counts_BU if unit_N is None else counts_BU.take(unit_N, axis=1)


def _multinomial_counts(n_replicates: int, n_units: int, *, rng: np.random.Generator) -> IntArray:
    """Counts of ``n_units`` draws with replacement from as many units, shape (B, U)."""
    if n_units <= _UNITS_PER_BUCKET:
        drawn_BU = rng.integers(0, n_units, size=(n_replicates, n_units))
        drawn_BU += np.arange(n_replicates)[:, None] * n_units
        return np.bincount(drawn_BU.ravel(), minlength=n_replicates * n_units).reshape(n_replicates, n_units)
    return np.stack([_counts_by_bucket(n_units, rng=rng) for _ in range(n_replicates)])


def _counts_by_bucket(n_units: int, *, rng: np.random.Generator) -> IntArray:
    # The same distribution as one bincount over all units, but each bucket's counts stay in the cache: ten times
    # as fast at a million units.
    starts = np.arange(0, n_units, _UNITS_PER_BUCKET)
    sizes = np.diff(starts, append=n_units)
    totals = rng.multinomial(n_units, sizes / n_units)
    counts_U = np.empty(n_units, dtype=np.int64)
    for start, size, total in zip(starts.tolist(), sizes.tolist(), totals.tolist(), strict=True):
        drawn = rng.integers(0, size, size=total, dtype=np.uint16)
        counts_U[start : start + size] = np.bincount(drawn, minlength=size)
    return counts_U


def _metrics(sample: ScoredSample, counts_BN: IntArray) -> FloatArray:
    cumulative_BN = np.zeros((counts_BN.shape[0], counts_BN.shape[1] + 1), dtype=np.int64)
    np.cumsum(counts_BN, axis=1, out=cumulative_BN[:, 1:])
    above_BG, through_BG = cumulative_BN[:, sample.start], cumulative_BN[:, sample.end]
    drawn_BG = (cumulative_BN[:, sample.middle] - above_BG).astype(np.float64)
    hits_BG = np.cumsum(drawn_BG, axis=1)
    n_rows = cumulative_BN[:, -1].astype(np.float64)
    n_positive = drawn_BG.sum(axis=1)
    n_negative = n_rows - n_positive
    with np.errstate(divide="ignore", invalid="ignore"):
        # Negatives strictly above each positive, and half of those tied with it, are the lost pairs.
        false_above_BG = above_BG - (hits_BG - drawn_BG)
        lost = np.einsum("bg,bg->b", drawn_BG, false_above_BG + (through_BG - hits_BG)) / 2
        auroc = 1 - lost / (n_positive * n_negative)
        gained = np.divide(drawn_BG * hits_BG, through_BG, out=np.zeros_like(drawn_BG), where=through_BG > 0)
        auprc = gained.sum(axis=1) / n_positive
    tp, fp, squared_error = (counts_BN.astype(np.float64) @ sample.weights_3N.T).T
    cells = discrimination.Confusion(tp=tp, fp=fp, fn=n_positive - tp, tn=n_negative - fp)
    threshold_metrics = [getattr(discrimination, name)(cells) for name in METRICS[2:8]]
    return np.stack([auroc, auprc, *threshold_metrics, squared_error / n_rows], axis=1)

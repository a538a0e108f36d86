"""The nine metrics of Table 2 from counts of rows: of a sample, of its replicates, and their influences.

Shapes: N cells (rows alike in score, label and flag are one cell where nothing tells them apart), B replicates,
G distinct scores held by a positive.

Cells are sorted by score once. Then every replicate is one cumulative sum of counts, and the metrics are sums over it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sarc_ray.stats import discrimination
from sarc_ray.stats.arrays import BoolArray, FloatArray, IntArray, as_labels, as_probabilities, check_lengths
from sarc_ray.stats.resampling import Block, draw_cells, draw_rows, number_patients

METRICS = ("auroc", "auprc", "f1", "mcc", "sensitivity", "specificity", "ppv", "npv", "brier")
# Alike rows are drawn as one cell where cells are fewer than rows by this factor: a binomial draw costs as much as
# some ten uniform ones. Small samples gain nothing.
_ROWS_PER_CELL, _ROWS_FOR_CELLS = 16, 8192


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredSample:
    """Cells sorted by falling score, positives first among ties; built by :func:`prepare_sample`.

    ``weights_3N``: flagged positives, flagged negatives, squared error. ``size_N`` is the number of rows in a cell.
    ``start``, ``middle``, ``end`` (G,) bound the cells of each distinct score that holds a positive: its positives are
    start..middle, all its cells start..end. ``unit_N`` is the patient's number of each row (then every row is a cell),
    or None where every row is a patient of its own.
    """

    weights_3N: FloatArray
    positive_N: BoolArray
    size_N: IntArray
    start: IntArray
    middle: IntArray
    end: IntArray
    unit_N: IntArray | None
    n_units: int


def prepare_sample(
    label: npt.ArrayLike, score: npt.ArrayLike, flag: npt.ArrayLike, *, patient: npt.ArrayLike | None = None
) -> ScoredSample:
    """Sort and check the rows once; arguments and errors as in :func:`sarc_ray.stats.bootstrap.bootstrap_metrics`.

    >>> prepare_sample([0, 1], [0.2, 0.7], [0, 1]).n_units
    2
    """
    unit_N, n_units = number_patients(patient, np.asarray(score).size)
    may_merge = unit_N is None and n_units > _ROWS_FOR_CELLS
    return _sorted_sample(label, score, flag, unit_N, n_units, may_merge=may_merge)


def prepare_pair(
    label: npt.ArrayLike,
    score_a: npt.ArrayLike,
    flag_a: npt.ArrayLike,
    score_b: npt.ArrayLike,
    flag_b: npt.ArrayLike,
    *,
    patient: npt.ArrayLike | None = None,
) -> tuple[ScoredSample, ScoredSample]:
    """Two scores of the same rows, with patients numbered alike, so that both see the same replicates.

    >>> a, b = prepare_pair([0, 1], [0.2, 0.7], [0, 1], [0.9, 0.7], [1, 1])
    >>> a.unit_N, b.unit_N
    (array([1, 0]), array([0, 1]))
    """
    n_rows = np.asarray(score_a).size
    unit_N, n_units = number_patients(patient, n_rows)
    if unit_N is None:
        unit_N = np.arange(n_rows, dtype=np.int64)
    first = _sorted_sample(label, score_a, flag_a, unit_N, n_units, may_merge=False)
    return first, _sorted_sample(label, score_b, flag_b, unit_N, n_units, may_merge=False)


def estimate_metrics(sample: ScoredSample) -> FloatArray:
    """Return the nine metrics of the sample itself, shape (9,), in the order of ``METRICS``.

    >>> estimate_metrics(prepare_sample([0, 1], [0.2, 0.7], [0, 1]))[:2]
    array([1., 1.])
    """
    return metrics_of_counts(sample, sample.size_N[None, :].astype(np.float64))[0]


def replicate_metrics(sample: ScoredSample, block: Block) -> FloatArray:
    """Return the nine metrics of each replicate of a block, shape (B, 9), in the order of ``METRICS``.

    >>> from sarc_ray.stats.resampling import plan_blocks
    >>> replicate_metrics(prepare_sample([0, 1], [0.2, 0.7], [0, 1]), plan_blocks(3, seed=1)[0]).shape
    (3, 9)
    """
    n_cells = sample.size_N.size
    if sample.unit_N is None and n_cells < sample.n_units:
        draws = draw_cells(block, sample.size_N)
    else:
        draws = draw_rows(block, sample.unit_N, sample.n_units, n_cells)
    # One buffer for all replicates: fresh memory for each costs as much as the sums.
    scratch: FloatArray = np.empty((0, n_cells + 1))
    parts = []
    for counts_BN in draws:
        if len(scratch) < len(counts_BN):
            scratch = np.empty((len(counts_BN), n_cells + 1))
        parts.append(metrics_of_counts(sample, counts_BN, scratch=scratch))
    return np.concatenate(parts)


def metrics_of_counts(sample: ScoredSample, counts_BN: FloatArray, *, scratch: FloatArray | None = None) -> FloatArray:
    """Return the nine metrics where each cell counts so often, shape (B, 9); NaN where undefined.

    >>> sample = prepare_sample([0, 1], [0.2, 0.7], [0, 1])
    >>> metrics_of_counts(sample, np.array([[1.0, 1.0], [2.0, 0.0]]))[:, 4]
    array([1., 1.])
    """
    n_replicates, n_cells = counts_BN.shape
    cumulative_BN = np.empty((n_replicates, n_cells + 1)) if scratch is None else scratch[:n_replicates]
    cumulative_BN[:, 0] = 0
    np.cumsum(counts_BN, axis=1, out=cumulative_BN[:, 1:])
    above_BG, through_BG = cumulative_BN.take(sample.start, axis=1), cumulative_BN.take(sample.end, axis=1)
    drawn_BG = cumulative_BN.take(sample.middle, axis=1) - above_BG
    n_rows, n_positive = cumulative_BN[:, -1].copy(), drawn_BG.sum(axis=1)
    n_negative = n_rows - n_positive
    with np.errstate(divide="ignore", invalid="ignore"):
        # Pairs lost by a positive are the negatives above it, and half of those tied with it. Summed over positives,
        # rows above plus rows at or above count every such pair twice, and every pair of positives once.
        above_BG += through_BG
        lost = (np.einsum("bg,bg->b", drawn_BG, above_BG) - n_positive**2) / 2
        auroc = 1 - lost / (n_positive * n_negative)
        hits_BG = np.cumsum(drawn_BG, axis=1)
        hits_BG /= np.maximum(through_BG, 1, out=through_BG)
        auprc = np.einsum("bg,bg->b", drawn_BG, hits_BG) / n_positive
    # einsum, not BLAS: the sum must not depend on the number of threads.
    tp, fp, squared_error = (np.einsum("bn,n->b", counts_BN, weight_N) for weight_N in sample.weights_3N)
    cells = discrimination.Confusion(tp=tp, fp=fp, fn=n_positive - tp, tn=n_negative - fp)
    threshold_metrics = [getattr(discrimination, name)(cells) for name in METRICS[2:8]]
    return np.stack([auroc, auprc, *threshold_metrics, squared_error / n_rows], axis=1)


def influences(sample: ScoredSample) -> Iterator[FloatArray]:
    """Yield the empirical influence of one row of each cell on each of ``METRICS``, shape (N,), one metric at a time.

    The derivative of the metric by the row's weight (the infinitesimal jackknife). Influences of all rows sum to 0, a
    patient's influence is the sum over the patient's rows. NaN or infinite where the metric is undefined.

    References:
        Efron B, Tibshirani RJ (1993). An introduction to the bootstrap, chapter 21. For the AUROC these are the
        structural components of DeLong et al. (1988).

    >>> sample = prepare_sample([0, 1, 1], [0.2, 0.7, 0.1], [0, 1, 0])
    >>> [round(float(influence), 4) for influence in next(influences(sample))]
    [0.25, 0.0, -0.25]
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        yield _auroc_influence(sample)
        yield _auprc_influence(sample)
        yield from _threshold_influences(sample)
        squared_N, n_rows = sample.weights_3N[2], float(sample.size_N.sum())
        yield (squared_N - float(squared_N @ sample.size_N) / n_rows) / n_rows


def _sorted_sample(
    label: npt.ArrayLike,
    score: npt.ArrayLike,
    flag: npt.ArrayLike,
    unit_N: IntArray | None,
    n_units: int,
    *,
    may_merge: bool,
) -> ScoredSample:
    positive_N, score_N, flag_N = as_labels("label", label), as_probabilities("score", score), as_labels("flag", flag)
    check_lengths(label=positive_N, score=score_N, flag=flag_N)
    keys = (~positive_N, -score_N)
    order_N = np.lexsort((~flag_N, *keys) if may_merge else keys)
    positive_N, score_N, flag_N = positive_N[order_N], score_N[order_N], flag_N[order_N]
    size_N = np.ones(score_N.size, dtype=np.int64)
    if may_merge:
        new_N = np.append(True, (np.diff(score_N) != 0) | np.diff(positive_N) | np.diff(flag_N))
        first = np.flatnonzero(new_N)
        if first.size * _ROWS_PER_CELL <= score_N.size:
            size_N = np.diff(first, append=score_N.size)
            positive_N, score_N, flag_N = positive_N[first], score_N[first], flag_N[first]
    start, middle, end = _tie_bounds(positive_N, score_N)
    return ScoredSample(
        weights_3N=np.stack([flag_N & positive_N, flag_N & ~positive_N, (score_N - positive_N) ** 2]).astype(float),
        positive_N=positive_N,
        size_N=size_N,
        start=start,
        middle=middle,
        end=end,
        unit_N=None if unit_N is None else unit_N[order_N],
        n_units=n_units,
    )


def _tie_bounds(positive_N: BoolArray, score_N: FloatArray) -> tuple[IntArray, IntArray, IntArray]:
    begins = np.flatnonzero(np.diff(score_N, prepend=np.inf))
    ends = np.append(begins[1:], score_N.size)
    n_positive = np.add.reduceat(positive_N.astype(np.int64), begins)
    held = n_positive > 0
    return begins[held], (begins + n_positive)[held], ends[held]


def _auroc_influence(sample: ScoredSample) -> FloatArray:
    size_N = sample.size_N.astype(np.float64)
    positives_N, negatives_N = np.cumsum(size_N * sample.positive_N), np.cumsum(size_N * ~sample.positive_N)
    n_positive, n_negative = positives_N[-1], negatives_N[-1]
    padded = np.append(0.0, np.cumsum(size_N))
    start, middle, end = sample.start, sample.middle, sample.end
    # Share of the other class that a row beats: positives stand first among ties, so half of them is taken back.
    tied_with_negative_N = _spread(padded[middle] - padded[start], middle, end, size_N.size)
    tied_with_positive_N = _spread(padded[end] - padded[middle], start, middle, size_N.size)
    below_N = (n_negative - negatives_N - tied_with_positive_N / 2) / n_negative
    above_N = (positives_N - tied_with_negative_N / 2) / n_positive
    auroc = float((below_N * size_N) @ sample.positive_N) / n_positive
    return np.where(sample.positive_N, (below_N - auroc) / n_positive, (above_N - auroc) / n_negative)


def _spread(value_G: FloatArray, low: IntArray, high: IntArray, n: int) -> FloatArray:
    """Values laid over cells low..high of their groups, 0 elsewhere; shape (N,)."""
    steps = np.zeros(n + 1)
    steps[low] += value_G
    steps[high] -= value_G
    return np.cumsum(steps)[:n]


def _auprc_influence(sample: ScoredSample) -> FloatArray:
    padded = np.append(0.0, np.cumsum(sample.size_N))
    drawn_G, through_G = padded[sample.middle] - padded[sample.start], padded[sample.end]
    hits_G, n_positive = np.cumsum(drawn_G), drawn_G.sum()
    auprc = float(drawn_G @ (hits_G / through_G)) / n_positive
    # One row more in a group changes the precision there and at every lower threshold.
    gain_G = hits_G / through_G + _suffix_sum(drawn_G * (through_G - hits_G) / through_G**2)[:-1] - auprc
    loss_G = _suffix_sum(drawn_G * hits_G / through_G**2)
    group_N = np.searchsorted(sample.end, np.arange(sample.size_N.size), side="right")
    gain_N = np.append(gain_G, 0.0)[group_N]
    return np.where(sample.positive_N, gain_N, -loss_G[group_N]) / n_positive


def _suffix_sum(value_G: FloatArray) -> FloatArray:
    """Sums of each value and all later ones, and a last 0; shape (G + 1,)."""
    return np.append(np.cumsum(value_G[::-1])[::-1], 0.0)


def _threshold_influences(sample: ScoredSample) -> Iterator[FloatArray]:
    """Of F1, MCC, sensitivity, specificity, PPV, NPV."""
    tp_N, fp_N = sample.weights_3N[:2]
    fn_N, tn_N = sample.positive_N - tp_N, ~sample.positive_N - fp_N
    tp, fp, fn, tn = (float(cell_N @ sample.size_N) for cell_N in (tp_N, fp_N, fn_N, tn_N))
    yield _ratio_influence(2 * tp_N, 2 * tp_N + fp_N + fn_N, 2 * tp, 2 * tp + fp + fn)
    yield _mcc_gradient(tp, fp, fn, tn) @ np.stack([tp_N, fp_N, fn_N, tn_N])
    yield _ratio_influence(tp_N, tp_N + fn_N, tp, tp + fn)
    yield _ratio_influence(tn_N, tn_N + fp_N, tn, tn + fp)
    yield _ratio_influence(tp_N, tp_N + fp_N, tp, tp + fp)
    yield _ratio_influence(tn_N, tn_N + fn_N, tn, tn + fn)


def _ratio_influence(top_N: FloatArray, bottom_N: FloatArray, top: float, bottom: float) -> FloatArray:
    if bottom == 0:
        return np.full_like(top_N, np.nan)
    return (top_N - top / bottom * bottom_N) / bottom


def _mcc_gradient(tp: float, fp: float, fn: float, tn: float) -> FloatArray:
    flagged, positive, negative, passed = tp + fp, tp + fn, tn + fp, tn + fn
    spread = np.sqrt(flagged) * np.sqrt(positive) * np.sqrt(negative) * np.sqrt(passed)
    if spread == 0:
        return np.full(4, np.nan)
    half = (tp * tn - fp * fn) / spread / 2
    return np.array(
        [
            tn / spread - half * (1 / flagged + 1 / positive),
            -fn / spread - half * (1 / flagged + 1 / negative),
            -fp / spread - half * (1 / positive + 1 / passed),
            tp / spread - half * (1 / negative + 1 / passed),
        ]
    )

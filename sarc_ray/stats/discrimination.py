"""How well a score separates patients with and without the outcome.

Shapes: N rows, G distinct scores. The direction is fixed: a higher score speaks for the outcome; it is never chosen
by the data. A row is positive if score >= threshold.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from sarc_ray.stats.arrays import (
    BoolArray,
    FloatArray,
    Interval,
    as_finite,
    as_labels,
    check_lengths,
    check_level,
    normal_p_value,
    normal_quantile,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class AurocComparison:
    """Difference of two AUROCs (a - b) with its two-sided test; ``df`` is infinite for the normal reference."""

    auroc_a: float
    auroc_b: float
    difference: float
    ci_low: float
    ci_high: float
    statistic: float
    df: float
    p_value: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Confusion:
    """The four cells of a decision; numbers or arrays of one shape (one element per bootstrap replicate).

    Raises:
        ValueError: negative, missing or infinite counts.
    """

    tp: npt.NDArray[np.float64] | float
    fp: npt.NDArray[np.float64] | float
    fn: npt.NDArray[np.float64] | float
    tn: npt.NDArray[np.float64] | float

    def __post_init__(self) -> None:
        for name, cell in (("tp", self.tp), ("fp", self.fp), ("fn", self.fn), ("tn", self.tn)):
            # A comparison with NaN is false.
            if not (np.greater_equal(cell, 0) & np.less(cell, np.inf)).all():
                raise ValueError(f"{name}: found {cell}; allowed: finite counts from 0")


@dataclass(frozen=True, kw_only=True, slots=True)
class RocCurve:
    """Points of shape (G + 1,) from (0, 0) to (1, 1); the first threshold is infinite (nobody is flagged)."""

    threshold: FloatArray
    fpr: FloatArray
    tpr: FloatArray


@dataclass(frozen=True, kw_only=True, slots=True)
class PrecisionRecallCurve:
    """One point per distinct score, shape (G,), by falling threshold."""

    threshold: FloatArray
    recall: FloatArray
    precision: FloatArray


def auroc(label: npt.ArrayLike, score: npt.ArrayLike) -> float:
    """Area under the receiver-operating characteristic curve.

    The probability that a random positive scores higher than a random negative; ties count half.

    Args:
        label: 0/1, shape (N,).
        score: higher speaks for the outcome, shape (N,).

    Returns:
        The area, NaN if one class is absent.

    Raises:
        ValueError: NaN or infinite values, labels other than 0/1, unequal lengths.

    References:
        Hanley JA, McNeil BJ (1982). The meaning and use of the area under a receiver operating characteristic curve.

    >>> auroc([0, 0, 1, 1], [0.1, 0.4, 0.4, 0.8])
    0.875
    """
    positive_N, score_N = _checked(label, score)
    n_positive = int(positive_N.sum())
    n_negative = positive_N.size - n_positive
    if n_positive == 0 or n_negative == 0:
        return float("nan")
    rank_sum = float(stats.rankdata(score_N)[positive_N].sum())
    return (rank_sum - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative)


def auroc_interval(label: npt.ArrayLike, score: npt.ArrayLike, *, confidence_level: float) -> Interval:
    """AUROC with DeLong's standard error and a Wald interval clipped to [0, 1].

    Rows must be independent (one per patient). The variance divides by n - 1 within each class (ddof 1), computed by
    midranks in O(n log n). NaN interval where a class has fewer than two rows.

    Raises:
        ValueError: as :func:`auroc`; a level outside (0, 1).

    References:
        DeLong ER, DeLong DM, Clarke-Pearson DL (1988). Comparing the areas under two or more correlated receiver
        operating characteristic curves. Sun X, Xu W (2014). Fast implementation of DeLong's algorithm.

    >>> interval = auroc_interval([0, 0, 0, 1, 1, 1], [0.1, 0.2, 0.5, 0.4, 0.7, 0.9], confidence_level=0.95)
    >>> round(interval.estimate, 4), round(interval.ci_low, 4), interval.ci_high
    (0.8889, 0.5809, 1.0)
    """
    quantile = normal_quantile(confidence_level)
    area = auroc(label, score)
    half_width = quantile * float(np.sqrt(delong_variance(label, score)))
    return Interval(
        estimate=area, ci_low=float(np.maximum(area - half_width, 0)), ci_high=float(np.minimum(area + half_width, 1))
    )


def delong_variance(label: npt.ArrayLike, score: npt.ArrayLike) -> float:
    """DeLong's variance of one AUROC; NaN where a class has fewer than two rows.

    Raises:
        ValueError: as :func:`auroc`.

    References:
        DeLong et al. (1988); Sun and Xu (2014).

    >>> round(delong_variance([0, 0, 0, 1, 1, 1], [0.1, 0.2, 0.5, 0.4, 0.7, 0.9]), 6)
    0.024691
    """
    positive_N, score_N = _checked(label, score)
    return _delong_variance(positive_N, score_N)


def delong_paired(
    label: npt.ArrayLike, score_a: npt.ArrayLike, score_b: npt.ArrayLike, *, confidence_level: float
) -> AurocComparison:
    """Compare the AUROCs of two scores of the same patients (DeLong, two-sided, normal reference).

    Args:
        label: 0/1, shape (N,).
        score_a: first score, shape (N,).
        score_b: second score, shape (N,).
        confidence_level: of the difference's Wald interval, which is clipped to [-1, 1].

    Returns:
        a - b. Equal areas with zero variance (identical scores) give statistic 0 and p 1; a difference with zero
        variance has no test (NaN), as has a class with fewer than two rows.

    Raises:
        ValueError: as :func:`auroc`.

    References:
        DeLong et al. (1988); Sun and Xu (2014).

    >>> comparison = delong_paired([0, 0, 0, 1, 1, 1], [1, 2, 5, 4, 7, 9], [3, 1, 5, 2, 6, 4], confidence_level=0.95)
    >>> round(comparison.difference, 4), round(comparison.statistic, 4), round(comparison.p_value, 4)
    (0.2222, 1.4142, 0.1573)
    """
    positive_N, a_N = _checked(label, score_a)
    _, b_N = _checked(label, score_b)
    variance = _delong_variance(positive_N, a_N, b_N)
    return _comparison(auroc(label, a_N), auroc(label, b_N), variance, np.inf, confidence_level)


def delong_unpaired(
    label_a: npt.ArrayLike,
    score_a: npt.ArrayLike,
    label_b: npt.ArrayLike,
    score_b: npt.ArrayLike,
    *,
    confidence_level: float,
) -> AurocComparison:
    """Compare AUROCs of two disjoint sets of patients (two-sided, t reference with Welch's degrees of freedom).

    Raises:
        ValueError: as :func:`auroc`; a level outside (0, 1).

    References:
        DeLong et al. (1988); Welch BL (1947) for the degrees of freedom, with the variances of the two areas in the
        place of the variances of two means.

    >>> y, s = [0, 0, 0, 1, 1, 1], [0.1, 0.2, 0.5, 0.4, 0.7, 0.9]
    >>> delong_unpaired(y, s, y, s, confidence_level=0.95).p_value
    1.0
    """
    check_level("confidence_level", confidence_level)
    variance_a, variance_b = delong_variance(label_a, score_a), delong_variance(label_b, score_b)
    variance = variance_a + variance_b
    n_a, n_b = np.asarray(label_a).size, np.asarray(label_b).size
    df = variance**2 / (variance_a**2 / (n_a - 1) + variance_b**2 / (n_b - 1)) if variance > 0 else np.inf
    return _comparison(auroc(label_a, score_a), auroc(label_b, score_b), variance, df, confidence_level)


def auprc(label: npt.ArrayLike, score: npt.ArrayLike) -> float:
    """Area under the precision-recall curve as step-wise average precision.

    Sum over distinct scores, from the highest, of (increase in recall) x (precision at that threshold): no linear
    interpolation, tied rows enter together. Chance level is the prevalence. NaN without positives.

    Raises:
        ValueError: as :func:`auroc`.

    References:
        Davis J, Goadrich M (2006). The relationship between precision-recall and ROC curves.

    >>> round(auprc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]), 6)
    0.833333
    """
    curve = pr_curve(label, score)
    return float(np.sum(np.diff(curve.recall, prepend=0.0) * curve.precision))


def confusion_at(label: npt.ArrayLike, score: npt.ArrayLike, threshold: float) -> Confusion:
    """Count the four cells where a row is flagged if score >= threshold.

    Raises:
        ValueError: as :func:`auroc`; a threshold of NaN.

    >>> confusion_at([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8], 0.4)
    Confusion(tp=1.0, fp=1.0, fn=1.0, tn=1.0)
    """
    positive_N, score_N = _checked(label, score)
    if np.isnan(threshold):
        raise ValueError("threshold: found NaN; give the number in force")
    return _count(positive_N, score_N >= threshold)


def confusion_from_flags(label: npt.ArrayLike, flag: npt.ArrayLike) -> Confusion:
    """Count the four cells of 0/1 flags.

    Raises:
        ValueError: values other than 0/1, unequal lengths.

    >>> confusion_from_flags([0, 0, 1, 1], [0, 1, 0, 1]).tp
    1.0
    """
    positive_N, flag_N = as_labels("label", label), as_labels("flag", flag)
    check_lengths(label=positive_N, flag=flag_N)
    return _count(positive_N, flag_N)


def sensitivity(cells: Confusion) -> FloatArray:
    """TP / (TP + FN); NaN without positives.

    >>> float(sensitivity(Confusion(tp=27, fp=41, fn=5, tn=116)))
    0.84375
    """
    return _ratio(cells.tp, np.add(cells.tp, cells.fn))


def specificity(cells: Confusion) -> FloatArray:
    """TN / (TN + FP); NaN without negatives.

    >>> round(float(specificity(Confusion(tp=27, fp=41, fn=5, tn=116))), 3)
    0.739
    """
    return _ratio(cells.tn, np.add(cells.tn, cells.fp))


def ppv(cells: Confusion) -> FloatArray:
    """Positive predictive value (precision) TP / (TP + FP); NaN if nobody is flagged.

    >>> round(float(ppv(Confusion(tp=27, fp=41, fn=5, tn=116))), 3)
    0.397
    """
    return _ratio(cells.tp, np.add(cells.tp, cells.fp))


def npv(cells: Confusion) -> FloatArray:
    """Negative predictive value TN / (TN + FN); NaN if everybody is flagged.

    >>> round(float(npv(Confusion(tp=27, fp=41, fn=5, tn=116))), 3)
    0.959
    """
    return _ratio(cells.tn, np.add(cells.tn, cells.fn))


def f1(cells: Confusion) -> FloatArray:
    """F1 = 2 TP / (2 TP + FP + FN); 0 if a class exists but nothing is hit, NaN without positives and flags.

    >>> round(float(f1(Confusion(tp=27, fp=41, fn=5, tn=116))), 3)
    0.54
    """
    twice_tp = np.multiply(2.0, cells.tp)
    return _ratio(twice_tp, twice_tp + np.add(cells.fp, cells.fn))


def mcc(cells: Confusion) -> FloatArray:
    """Matthews correlation coefficient (phi); NaN where a margin is empty (some libraries return 0 there).

    References:
        Matthews BW (1975).

    >>> round(float(mcc(Confusion(tp=27, fp=41, fn=5, tn=116))), 3)
    0.455
    """
    tp, fp, fn, tn = (np.asarray(cell, dtype=np.float64) for cell in (cells.tp, cells.fp, cells.fn, cells.tn))
    margins = np.sqrt(tp + fp) * np.sqrt(tp + fn) * np.sqrt(tn + fp) * np.sqrt(tn + fn)
    # Rounding must not make a perfect decision better than perfect.
    return np.clip(_ratio(tp * tn - fp * fn, margins), -1, 1)


def roc_curve(label: npt.ArrayLike, score: npt.ArrayLike) -> RocCurve:
    """Return the points of the ROC curve, one per distinct score after the origin; rates are NaN for an absent class.

    Raises:
        ValueError: as :func:`auroc`.

    >>> roc_curve([0, 1], [0.2, 0.7]).tpr
    array([0., 1., 1.])
    """
    threshold_G, tp_G, fp_G, n_positive, n_negative = _cumulative(label, score)
    return RocCurve(
        threshold=np.concatenate([[np.inf], threshold_G]),
        fpr=_ratio(np.concatenate([[0.0], fp_G]), n_negative),
        tpr=_ratio(np.concatenate([[0.0], tp_G]), n_positive),
    )


def pr_curve(label: npt.ArrayLike, score: npt.ArrayLike) -> PrecisionRecallCurve:
    """Return the points of the precision-recall curve, one per distinct score; recall is NaN without positives.

    Raises:
        ValueError: as :func:`auroc`.

    >>> pr_curve([0, 1], [0.2, 0.7]).precision
    array([1. , 0.5])
    """
    threshold_G, tp_G, fp_G, n_positive, _ = _cumulative(label, score)
    return PrecisionRecallCurve(threshold=threshold_G, recall=_ratio(tp_G, n_positive), precision=tp_G / (tp_G + fp_G))


def youden_threshold(label: npt.ArrayLike, score: npt.ArrayLike) -> float:
    """Return the observed score that maximises sensitivity + specificity - 1 when rows at or above it are flagged.

    Of several maxima the highest threshold (the fewest flagged) is taken.

    Raises:
        ValueError: as :func:`auroc`; one class absent, where no threshold can be chosen.

    References:
        Youden WJ (1950). Index for rating diagnostic tests.

    >>> youden_threshold([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
    0.8
    """
    curve = roc_curve(label, score)
    youden_G = (curve.tpr - curve.fpr)[1:]
    if np.isnan(youden_G).any():
        raise ValueError("label: one class is absent; Youden's threshold needs patients with and without the outcome")
    # Equal indices can differ in the last bit; the first within rounding is the highest threshold.
    return float(curve.threshold[1:][np.argmax(youden_G >= youden_G.max() - 1e-12)])


def f1_at_youden(label: npt.ArrayLike, score: npt.ArrayLike) -> float:
    """F1 at :func:`youden_threshold` of the same rows.

    Raises:
        ValueError: as :func:`youden_threshold`.

    >>> round(f1_at_youden([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]), 4)
    0.6667
    """
    return float(f1(confusion_at(label, score, youden_threshold(label, score))))


def wilson_interval(n_hits: int, n: int, *, confidence_level: float) -> Interval:
    """Proportion with Wilson's score interval, without continuity correction; NaN for n = 0.

    Raises:
        ValueError: negative or infinite counts, more hits than n, a level outside (0, 1).

    References:
        Wilson EB (1927). Probable inference, the law of succession, and statistical inference.

    >>> interval = wilson_interval(27, 32, confidence_level=0.95)
    >>> round(interval.ci_low, 4), round(interval.ci_high, 4)
    (0.6825, 0.9314)
    """
    quantile = normal_quantile(confidence_level)
    if not 0 <= n_hits <= n < np.inf:
        raise ValueError(f"n_hits: found {n_hits} of n = {n}; allowed: 0 to n")
    if n == 0:
        return Interval(estimate=float("nan"), ci_low=float("nan"), ci_high=float("nan"))
    share = n_hits / n
    centre = (share + quantile**2 / (2 * n)) / (1 + quantile**2 / n)
    half_width = quantile * np.sqrt(share * (1 - share) / n + quantile**2 / (4 * n**2)) / (1 + quantile**2 / n)
    # Rounding must not put a share of 0 or 1 outside its interval.
    low = max(0.0, centre - half_width) if n_hits > 0 else 0.0
    high = min(1.0, centre + half_width) if n_hits < n else 1.0
    return Interval(estimate=share, ci_low=float(low), ci_high=float(high))


def _checked(label: npt.ArrayLike, score: npt.ArrayLike) -> tuple[BoolArray, FloatArray]:
    positive_N, score_N = as_labels("label", label), as_finite("score", score)
    check_lengths(label=positive_N, score=score_N)
    return positive_N, score_N


def _ratio(numerator: npt.ArrayLike, denominator: npt.ArrayLike) -> FloatArray:
    top, bottom = np.broadcast_arrays(
        np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64)
    )
    return np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom > 0)


def _count(positive_N: BoolArray, flag_N: BoolArray) -> Confusion:
    tp = float(np.count_nonzero(positive_N & flag_N))
    n_positive, n_flagged = float(np.count_nonzero(positive_N)), float(np.count_nonzero(flag_N))
    fp, fn = n_flagged - tp, n_positive - tp
    return Confusion(tp=tp, fp=fp, fn=fn, tn=positive_N.size - tp - fp - fn)


def _cumulative(label: npt.ArrayLike, score: npt.ArrayLike) -> tuple[FloatArray, FloatArray, FloatArray, float, float]:
    positive_N, score_N = _checked(label, score)
    order_N = np.argsort(-score_N, kind="stable")
    score_N, positive_N = score_N[order_N], positive_N[order_N]
    last_G = np.append(np.flatnonzero(np.diff(score_N)), score_N.size - 1)
    tp_G = np.cumsum(positive_N, dtype=np.float64)[last_G]
    fp_G = 1.0 + last_G - tp_G
    return score_N[last_G], tp_G, fp_G, float(tp_G[-1]), float(fp_G[-1])


def _delong_variance(positive_N: BoolArray, *scores_N: FloatArray) -> float:
    """Variance of one AUROC, or of the difference of two of the same rows (first - second), by midranks.

    The components are subtracted row by row: covariances of nearly equal scores would cancel to rounding.
    """
    n_positive, n_negative = int(positive_N.sum()), int((~positive_N).sum())
    if min(n_positive, n_negative) < 2:
        return float("nan")
    of_positives, of_negatives = zip(*(_components(positive_N, score_N) for score_N in scores_N), strict=True)
    differences = (functools.reduce(np.subtract, parts) for parts in (of_positives, of_negatives))
    return sum(float(part.var(ddof=1)) / part.size for part in differences)


def _components(positive_N: BoolArray, score_N: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Share of the negatives below each positive, and of the positives above each negative; ties count half."""
    rank_N = stats.rankdata(score_N)
    below = (rank_N[positive_N] - stats.rankdata(score_N[positive_N])) / np.count_nonzero(~positive_N)
    above = 1 - (rank_N[~positive_N] - stats.rankdata(score_N[~positive_N])) / np.count_nonzero(positive_N)
    return below, above


def _comparison(area_a: float, area_b: float, variance: float, df: float, confidence_level: float) -> AurocComparison:
    difference = area_a - area_b
    # What is left of an exact zero is rounding, about 1e-33. Variances are at least (2 n_positive n_negative)^-2.
    variance = 0.0 if variance < 1e-30 else variance
    if variance == 0:
        statistic = 0.0 if abs(difference) < 1e-12 else float("nan")
    else:
        statistic = difference / float(np.sqrt(variance))
    normal = np.isinf(df)
    p_value = normal_p_value(statistic) if normal else float(2 * stats.t.sf(abs(statistic), df))
    quantile = normal_quantile(confidence_level) if normal else float(stats.t.ppf(0.5 + confidence_level / 2, df))
    half_width = quantile * float(np.sqrt(variance))
    return AurocComparison(
        auroc_a=area_a,
        auroc_b=area_b,
        difference=difference,
        ci_low=float(np.maximum(difference - half_width, -1)),
        ci_high=float(np.minimum(difference + half_width, 1)),
        statistic=statistic,
        df=float(df),
        p_value=p_value,
    )

"""Exact intervals of shares, and likelihood ratios of a decision.

Wilson's interval, sensitivity, specificity and predictive values are in :mod:`sarc_ray.stats.discrimination`.
"""

from __future__ import annotations

import numpy as np
from scipy import stats

from sarc_ray.stats.arrays import Interval, check_level, normal_quantile
from sarc_ray.stats.discrimination import Confusion


def exact_interval(n_hits: int, n: int, *, confidence_level: float) -> Interval:
    """Proportion with Clopper and Pearson's exact interval; NaN for n = 0.

    The two-sided interval of all shares that neither one-sided binomial test rejects at half of 1 - confidence level.
    It covers at least as often as it says, usually more often: Wilson's is nearer on average.

    Raises:
        ValueError: negative or infinite counts, more hits than n, a level outside (0, 1).

    References:
        Clopper CJ, Pearson ES (1934). The use of confidence or fiducial limits illustrated in the case of the binomial.

    >>> interval = exact_interval(27, 32, confidence_level=0.95)
    >>> round(interval.ci_low, 4), round(interval.ci_high, 4)
    (0.6721, 0.9472)
    """
    tail = (1 - check_level("confidence_level", confidence_level)) / 2
    if not 0 <= n_hits <= n < np.inf:
        raise ValueError(f"n_hits: found {n_hits} of n = {n}; allowed: 0 to n")
    if n == 0:
        return Interval(estimate=float("nan"), ci_low=float("nan"), ci_high=float("nan"))
    low = stats.beta.ppf(tail, n_hits, n - n_hits + 1) if n_hits > 0 else 0.0
    high = stats.beta.isf(tail, n_hits + 1, n - n_hits) if n_hits < n else 1.0
    return Interval(estimate=n_hits / n, ci_low=float(low), ci_high=float(high))


def positive_likelihood_ratio(cells: Confusion, *, confidence_level: float) -> Interval:
    """Sensitivity / (1 - specificity): by how much a flag multiplies the odds of the outcome.

    Two-sided interval on the log scale, SE^2 = 1/TP - 1/(TP + FN) + 1/FP - 1/(FP + TN); independent patients.

    Args:
        cells: counts, one number each.
        confidence_level: of the interval.

    Returns:
        NaN where a class is absent or nobody is flagged, infinite where flags are right without exception; no
        interval (NaN) where TP or FP is 0.

    Raises:
        ValueError: a level outside (0, 1).

    References:
        Simel DL, Samsa GP, Matchar DB (1991). Likelihood ratios with confidence: sample size estimation for
        diagnostic test studies.

    >>> ratio = positive_likelihood_ratio(Confusion(tp=27, fp=41, fn=5, tn=116), confidence_level=0.95)
    >>> round(ratio.estimate, 4), round(ratio.ci_low, 4), round(ratio.ci_high, 4)
    (3.2309, 2.3878, 4.3719)
    """
    tp, fp, fn, tn = _counts(cells)
    return _ratio_of_shares(tp, tp + fn, fp, fp + tn, confidence_level)


def negative_likelihood_ratio(cells: Confusion, *, confidence_level: float) -> Interval:
    """(1 - sensitivity) / specificity: by how much the absence of a flag multiplies the odds of the outcome.

    As :func:`positive_likelihood_ratio`, with FN in the place of TP and TN in the place of FP.

    >>> ratio = negative_likelihood_ratio(Confusion(tp=27, fp=41, fn=5, tn=116), confidence_level=0.95)
    >>> round(ratio.estimate, 4), round(ratio.ci_low, 4), round(ratio.ci_high, 4)
    (0.2115, 0.094, 0.4756)
    """
    tp, fp, fn, tn = _counts(cells)
    return _ratio_of_shares(fn, tp + fn, tn, fp + tn, confidence_level)


def _counts(cells: Confusion) -> tuple[float, float, float, float]:
    return float(cells.tp), float(cells.fp), float(cells.fn), float(cells.tn)


def _ratio_of_shares(hits: float, n: float, other_hits: float, other_n: float, confidence_level: float) -> Interval:
    quantile, nan = normal_quantile(confidence_level), float("nan")
    if n == 0 or other_n == 0 or (hits == 0 and other_hits == 0):
        return Interval(estimate=nan, ci_low=nan, ci_high=nan)
    if other_hits == 0:
        return Interval(estimate=float("inf"), ci_low=nan, ci_high=nan)
    ratio = (hits / n) / (other_hits / other_n)
    if hits == 0:
        return Interval(estimate=ratio, ci_low=nan, ci_high=nan)
    factor = np.exp(quantile * np.sqrt(1 / hits - 1 / n + 1 / other_hits - 1 / other_n))
    return Interval(estimate=ratio, ci_low=float(ratio / factor), ci_high=float(ratio * factor))

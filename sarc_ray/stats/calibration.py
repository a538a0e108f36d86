"""Whether a probability means what it says. Shapes: N rows, P parameters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special, stats

from sarc_ray.stats.arrays import (
    BoolArray,
    FloatArray,
    IntArray,
    Interval,
    as_finite,
    as_labels,
    as_probabilities,
    check_lengths,
    check_level,
    normal_p_value,
    normal_quantile,
)
from sarc_ray.stats.discrimination import wilson_interval

_MAX_NEWTON_STEPS = 50


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibrationCurve:
    """Smoothed share of events at each row's probability; shape (N,), by rising probability."""

    probability: FloatArray
    observed: FloatArray


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibrationErrors:
    """Distances between probability and smoothed observed share: mean (ICI), median, 90th percentile, maximum."""

    ici: float
    e50: float
    e90: float
    emax: float


@dataclass(frozen=True, kw_only=True, slots=True)
class ReliabilityBin:
    """One bin of a calibration plot; the observed share carries Wilson's interval."""

    n: int
    n_events: int
    mean_probability: float
    observed: Interval


@dataclass(frozen=True, kw_only=True, slots=True)
class GoodnessOfFit:
    """A test of calibration; a small p-value speaks against calibration. ``df`` is NaN for a normal statistic."""

    statistic: float
    df: float
    p_value: float


def brier(label: npt.ArrayLike, probability: npt.ArrayLike) -> float:
    """Mean squared difference of probability and outcome; 0 is perfect.

    Raises:
        ValueError: NaN, labels other than 0/1, probabilities outside [0, 1], unequal lengths.

    References:
        Brier GW (1950). Verification of forecasts expressed in terms of probability.

    >>> round(brier([0, 1], [0.2, 0.7]), 4)
    0.065
    """
    positive_N, probability_N = _checked(label, probability)
    return float(np.mean((probability_N - positive_N) ** 2))


def scaled_brier(label: npt.ArrayLike, probability: npt.ArrayLike) -> float:
    """Return 1 - Brier / (q (1 - q)), with q the prevalence observed in these rows.

    1 is perfect, 0 is no better than saying the prevalence to everybody, below 0 is worse; NaN with one class.

    Raises:
        ValueError: as :func:`brier`.

    References:
        Steyerberg EW et al. (2010). Assessing the performance of prediction models: a framework.

    >>> round(scaled_brier([0, 1], [0.2, 0.7]), 4)
    0.74
    """
    positive_N, _ = _checked(label, probability)
    prevalence = float(positive_N.mean())
    if prevalence in (0.0, 1.0):
        return float("nan")
    return 1 - brier(label, probability) / (prevalence * (1 - prevalence))


def citl(label: npt.ArrayLike, probability: npt.ArrayLike, *, confidence_level: float) -> Interval:
    """Calibration-in-the-large: intercept of a logistic model with logit(probability) as offset (slope fixed at 1).

    0 is perfect; above 0 the probabilities are too low. Maximum likelihood by Newton's method, two-sided Wald
    interval, independent rows. NaN with one class.

    Raises:
        ValueError: as :func:`brier`; a probability of exactly 0 or 1, which has no logit; a level outside (0, 1).

    References:
        Cox DR (1958). Two further applications of a model for binary regression. Van Calster B et al. (2016). A
        calibration hierarchy for risk models was defined.

    >>> round(citl([0, 1, 0, 1], [0.5, 0.5, 0.5, 0.5], confidence_level=0.95).estimate, 6)
    0.0
    """
    positive_N, logit_N = _logits(label, probability)
    fit = _fit_logistic(np.ones((logit_N.size, 1)), positive_N, offset_N=logit_N)
    return _wald(fit, 0, confidence_level)


def cal_slope(label: npt.ArrayLike, probability: npt.ArrayLike, *, confidence_level: float) -> Interval:
    """Calibration slope: coefficient of logit(probability) in a logistic model with a free intercept.

    1 is perfect; below 1 the probabilities are too extreme (overfitting). Maximum likelihood by Newton's method,
    two-sided Wald interval, independent rows. NaN with one class, a constant probability or separated classes.

    Raises:
        ValueError: as :func:`citl`.

    References:
        Cox DR (1958); Van Calster B et al. (2016).

    >>> probability, label = [0.2] * 5 + [0.8] * 5, [0, 0, 0, 0, 1, 0, 1, 1, 1, 1]
    >>> round(cal_slope(label, probability, confidence_level=0.95).estimate, 6)
    1.0
    """
    positive_N, logit_N = _logits(label, probability)
    check_level("confidence_level", confidence_level)
    # Equal but for rounding is constant; a narrow range is not, and needs its own scale to converge.
    if np.ptp(logit_N) <= 1e-13 * np.abs(logit_N).max():
        return Interval(estimate=float("nan"), ci_low=float("nan"), ci_high=float("nan"))
    spread = float(logit_N.std())
    scaled_N = (logit_N - logit_N.mean()) / spread
    fit = _fit_logistic(np.column_stack([np.ones(logit_N.size), scaled_N]), positive_N, offset_N=np.zeros(logit_N.size))
    found = _wald(fit, 1, confidence_level)
    return Interval(estimate=found.estimate / spread, ci_low=found.ci_low / spread, ci_high=found.ci_high / spread)


def calibration_curve(label: npt.ArrayLike, probability: npt.ArrayLike) -> CalibrationCurve:
    """Smooth the outcome over the probability by :func:`lowess` (span 2/3, delta 0.01 x range).

    Raises:
        ValueError: as :func:`brier`.

    >>> calibration_curve([0, 0, 0, 1, 1], [0.1, 0.2, 0.3, 0.4, 0.5]).observed
    array([0., 0., 0., 1., 1.])
    """
    positive_N, probability_N = _checked(label, probability)
    order_N = np.argsort(probability_N, kind="stable")
    sorted_N = probability_N[order_N]
    observed_N = lowess(sorted_N, positive_N[order_N].astype(np.float64), span=2 / 3, delta=0.01 * np.ptp(sorted_N))
    return CalibrationCurve(probability=sorted_N, observed=observed_N)


def calibration_errors(label: npt.ArrayLike, probability: npt.ArrayLike) -> CalibrationErrors:
    """Integrated calibration index, E50, E90 and Emax: |probability - smoothed observed share| over the rows.

    Percentiles interpolate linearly between order statistics. NaN for fewer than five rows.

    Raises:
        ValueError: as :func:`brier`.

    References:
        Austin PC, Steyerberg EW (2019). The Integrated Calibration Index (ICI) and related metrics. Harrell FE
        (2015). Regression Modeling Strategies (Eavg, E90, Emax by lowess without robust iterations).

    >>> round(calibration_errors([0, 0, 0, 1, 1], [0.1, 0.2, 0.3, 0.4, 0.5]).ici, 4)
    0.34
    """
    curve = calibration_curve(label, probability)
    if curve.probability.size < 5:
        return CalibrationErrors(ici=float("nan"), e50=float("nan"), e90=float("nan"), emax=float("nan"))
    error_N = np.abs(curve.probability - curve.observed)
    e50, e90 = np.quantile(error_N, [0.5, 0.9])
    return CalibrationErrors(ici=float(error_N.mean()), e50=float(e50), e90=float(e90), emax=float(error_N.max()))


def lowess(x_sorted: npt.ArrayLike, y: npt.ArrayLike, *, span: float, delta: float) -> FloatArray:
    """Locally weighted linear regression of y on x, without robust iterations.

    At each anchor the nearest floor(span n) rows (at least two) are fitted by a line with tricube weights. Anchors
    are at least ``delta`` apart as in Cleveland's program; between them the fit is interpolated linearly.

    Args:
        x_sorted: rising, shape (N,).
        y: shape (N,).
        span: share of rows in each neighbourhood, (0, 1].
        delta: distance within which rows share anchors; 0 fits every row.

    Returns:
        Fitted values, shape (N,).

    Raises:
        ValueError: NaN, unequal lengths, x not sorted, span outside (0, 1], negative delta.

    References:
        Cleveland WS (1979). Robust locally weighted regression and smoothing scatterplots; (1981) LOWESS: a program.

    >>> lowess([0, 1, 2, 3], [1, 3, 5, 7], span=1.0, delta=0).round(6)
    array([1., 3., 5., 7.])
    """
    x_N, y_N = as_finite("x_sorted", x_sorted), as_finite("y", y)
    check_lengths(x_sorted=x_N, y=y_N)
    if np.any(np.diff(x_N) < 0):
        raise ValueError("x_sorted: values fall; sort the rows by x first")
    if not (0 < span <= 1 and delta >= 0):
        raise ValueError(f"span, delta: found {span!r}, {delta!r}; allowed: 0 < span <= 1, delta >= 0")
    if x_N.size == 1:
        return y_N.copy()
    # Rounding must not lose a row: 2/3 of 9 rows are 6.
    n_near = min(x_N.size, max(2, int(span * x_N.size + 1e-7)))
    anchors = _anchors(x_N, delta)
    fitted = [_fit_anchor(x_N, y_N, anchor, n_near) for anchor in anchors.tolist()]
    return np.interp(x_N, x_N[anchors], fitted)


def reliability_table(
    label: npt.ArrayLike, probability: npt.ArrayLike, *, n_bins: int, confidence_level: float
) -> list[ReliabilityBin]:
    """Bin rows by quantiles of the probability (tied rows stay together, so bins may be fewer than ``n_bins``).

    Raises:
        ValueError: as :func:`brier`; n_bins < 1.

    >>> [b.n for b in reliability_table([0, 0, 1, 1], [0.1, 0.2, 0.6, 0.7], n_bins=2, confidence_level=0.95)]
    [2, 2]
    """
    positive_N, probability_N = _checked(label, probability)
    bin_N = _quantile_bins(probability_N, n_bins)
    bins = []
    for number in range(int(bin_N.max()) + 1):
        inside_N = bin_N == number
        n, n_events = int(inside_N.sum()), int(positive_N[inside_N].sum())
        bins.append(
            ReliabilityBin(
                n=n,
                n_events=n_events,
                mean_probability=float(probability_N[inside_N].mean()),
                observed=wilson_interval(n_events, n, confidence_level=confidence_level),
            )
        )
    return bins


def spiegelhalter(label: npt.ArrayLike, probability: npt.ArrayLike) -> GoodnessOfFit:
    """Spiegelhalter's z-test of calibration (two-sided); NaN where every probability is 0, 0.5 or 1.

    z = sum((y - p)(1 - 2p)) / sqrt(sum((1 - 2p)^2 p (1 - p))).

    Raises:
        ValueError: as :func:`brier`.

    References:
        Spiegelhalter DJ (1986). Probabilistic prediction in patient management and clinical trials.

    >>> round(spiegelhalter([0, 0, 1, 1], [0.1, 0.2, 0.7, 0.9]).statistic, 4)
    -0.8805
    """
    positive_N, probability_N = _checked(label, probability)
    tilt_N = 1 - 2 * probability_N
    variance = float(np.sum(tilt_N**2 * probability_N * (1 - probability_N)))
    z = float(np.sum((positive_N - probability_N) * tilt_N)) / np.sqrt(variance) if variance > 0 else float("nan")
    return GoodnessOfFit(statistic=float(z), df=float("nan"), p_value=normal_p_value(z))


def hosmer_lemeshow(label: npt.ArrayLike, probability: npt.ArrayLike, *, n_bins: int, external: bool) -> GoodnessOfFit:
    """Hosmer and Lemeshow's chi-square over g quantile bins of the probability (tied rows stay together).

    Args:
        label: 0/1, shape (N,).
        probability: shape (N,).
        n_bins: usually 10; g is the number of bins that ties leave.
        external: True where the model was fitted on other rows (df g), False on the rows that fitted it (df g - 2).

    Returns:
        NaN where no degree of freedom is left or a bin's expected count is zero in a cell.

    Raises:
        ValueError: as :func:`brier`; n_bins < 1.

    References:
        Hosmer DW, Lemeshow S (1980). Goodness of fit tests for the multiple logistic regression model.

    >>> hosmer_lemeshow([0, 1, 0, 1], [0.5, 0.5, 0.6, 0.6], n_bins=2, external=True).df
    2.0
    """
    positive_N, probability_N = _checked(label, probability)
    bin_N = _quantile_bins(probability_N, n_bins)
    n, observed = np.bincount(bin_N), np.bincount(bin_N, weights=positive_N)
    expected = np.bincount(bin_N, weights=probability_N)
    spread = expected * (1 - expected / n)
    df = n.size if external else n.size - 2
    if df < 1 or np.any(spread <= 0):
        return GoodnessOfFit(statistic=float("nan"), df=float(df), p_value=float("nan"))
    statistic = float(np.sum((observed - expected) ** 2 / spread))
    return GoodnessOfFit(statistic=statistic, df=float(df), p_value=float(stats.chi2.sf(statistic, df)))


def _checked(label: npt.ArrayLike, probability: npt.ArrayLike) -> tuple[BoolArray, FloatArray]:
    positive_N, probability_N = as_labels("label", label), as_probabilities("probability", probability)
    check_lengths(label=positive_N, probability=probability_N)
    return positive_N, probability_N


def _logits(label: npt.ArrayLike, probability: npt.ArrayLike) -> tuple[BoolArray, FloatArray]:
    positive_N, probability_N = _checked(label, probability)
    n_certain = int(np.count_nonzero((probability_N == 0) | (probability_N == 1)))
    if n_certain:
        raise ValueError(
            f"probability: {n_certain} of {probability_N.size} values are exactly 0 or 1 and have no logit; "
            "calibration-in-the-large and slope are not defined for them"
        )
    return positive_N, special.logit(probability_N)


def _fit_logistic(
    design_NP: FloatArray, positive_N: BoolArray, *, offset_N: FloatArray
) -> tuple[FloatArray, FloatArray] | None:
    """Maximum-likelihood coefficients and their covariance; None where they do not exist (one class, separation)."""
    if positive_N.all() or not positive_N.any():
        return None
    beta_P = np.zeros(design_NP.shape[1])
    fitted_N = special.expit(offset_N)
    for _ in range(_MAX_NEWTON_STEPS):
        weight_N = fitted_N * (1 - fitted_N)
        information = design_NP.T @ (design_NP * weight_N[:, None])
        if np.linalg.cond(information) > 1e12:
            return None
        step_P = np.linalg.solve(information, design_NP.T @ (positive_N - fitted_N))
        # A long first step can overshoot into saturation; two logits per step lose nothing near the optimum.
        beta_P = beta_P + step_P * min(1.0, 2.0 / max(float(np.abs(design_NP @ step_P).max()), 1e-300))
        fitted_N = special.expit(offset_N + design_NP @ beta_P)
        if np.abs(step_P).max() < 1e-10:
            return beta_P, np.asarray(np.linalg.inv(information), dtype=np.float64)
    return None


def _wald(fit: tuple[FloatArray, FloatArray] | None, index: int, confidence_level: float) -> Interval:
    quantile = normal_quantile(confidence_level)
    if fit is None:
        return Interval(estimate=float("nan"), ci_low=float("nan"), ci_high=float("nan"))
    estimate, margin = float(fit[0][index]), quantile * float(np.sqrt(fit[1][index, index]))
    return Interval(estimate=estimate, ci_low=estimate - margin, ci_high=estimate + margin)


def _anchors(x_N: FloatArray, delta: float) -> IntArray:
    """Rows to fit: from each anchor, the last row within delta of it (or the next larger value), as Cleveland's."""
    anchors, last, n = [0], 0, x_N.size
    last = int(np.searchsorted(x_N, x_N[0], side="right")) - 1
    while last < n - 1:
        within = int(np.searchsorted(x_N, x_N[last] + delta, side="right")) - 1
        anchor = max(last + 1, within)
        anchors.append(anchor)
        last = int(np.searchsorted(x_N, x_N[anchor], side="right")) - 1
    return np.array(anchors, dtype=np.int64)


def _fit_anchor(x_N: FloatArray, y_N: FloatArray, anchor: int, n_near: int) -> float:
    x0, n = float(x_N[anchor]), x_N.size
    left, right = _nearest_window(x_N, x0, n_near)
    reach = max(x0 - x_N[left], x_N[right - 1] - x0)
    # Rows beyond the window that tie with its edge take part too.
    right = max(right, int(np.searchsorted(x_N, x0 + 0.999 * reach, side="right"))) if right < n else n
    distance = np.abs(x_N[left:right] - x0)
    weight = np.where(distance <= 0.999 * reach, (1 - (distance / max(reach, 1e-300)) ** 3) ** 3, 0.0)
    weight[distance <= 0.001 * reach] = 1.0
    weight /= weight.sum()
    x, y = x_N[left:right], y_N[left:right]
    centre = float(weight @ x)
    spread = float(weight @ (x - centre) ** 2)
    # With all weight on (nearly) one x there is no slope: take the mean.
    if np.sqrt(spread) > 0.001 * (x_N[-1] - x_N[0]):
        weight = weight * (1 + (x0 - centre) * (x - centre) / spread)
    return float(weight @ y)


def _nearest_window(x_N: FloatArray, x0: float, n_near: int) -> tuple[int, int]:
    """Bounds of the leftmost ``n_near`` neighbouring rows whose farthest row is nearest to x0."""
    low, high = 0, x_N.size - n_near
    while low < high:
        middle = (low + high) // 2
        if x0 - x_N[middle] > x_N[middle + n_near] - x0:
            low = middle + 1
        else:
            high = middle
    return low, low + n_near


def _quantile_bins(probability_N: FloatArray, n_bins: int) -> IntArray:
    if n_bins < 1:
        raise ValueError(f"n_bins: found {n_bins}; allowed: 1 or more (10 in the paper's plot)")
    edges = np.quantile(probability_N, np.arange(1, n_bins) / n_bins)
    _, bin_N = np.unique(np.searchsorted(edges, probability_N, side="left"), return_inverse=True)
    return bin_N.astype(np.int64)

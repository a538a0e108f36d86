"""Agreement of predicted with measured values in their own unit. Shapes: N rows.

Differences are predicted - measured throughout, so that a positive bias means a prediction that is too high.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from sarc_ray.stats.arrays import (
    FloatArray,
    Interval,
    as_finite,
    check_lengths,
    check_level,
    normal_quantile,
)

_ROUNDING = 1e-14


@dataclass(frozen=True, kw_only=True, slots=True)
class Concordance:
    """Lin's coefficient with its parts: ``estimate`` = ``pearson`` x ``bias_correction``.

    ``scale_shift`` is SD(predicted) / SD(measured); ``location_shift`` is the mean difference over the geometric mean
    of the two SDs.
    """

    estimate: float
    ci_low: float
    ci_high: float
    pearson: float
    bias_correction: float
    scale_shift: float
    location_shift: float


@dataclass(frozen=True, kw_only=True, slots=True)
class BlandAltman:
    """Mean difference (bias), its SD (ddof 1) and the limits of agreement, each with an interval."""

    bias: Interval
    sd: float
    loa_low: Interval
    loa_high: Interval


@dataclass(frozen=True, kw_only=True, slots=True)
class ProportionalBias:
    """Line of the difference over the mean of prediction and measurement; ``p_value`` is of a slope of 0."""

    slope: Interval
    intercept: Interval
    residual_sd: float
    p_value: float


def concordance(
    measured: npt.ArrayLike, predicted: npt.ArrayLike, *, confidence_level: float, ddof: int = 0
) -> Concordance:
    """Lin's concordance correlation coefficient with the z-transform interval.

    2 cov / (var_measured + var_predicted + (mean difference)^2). Variances and covariance divide by n - ddof: Lin
    (1989) uses n (ddof 0, the default here); some software uses n - 1.

    Args:
        measured: reference values, shape (N,).
        predicted: predictions in the same unit, shape (N,).
        confidence_level: of the interval, two-sided; rows must be independent.
        ddof: 0 or 1.

    Returns:
        The coefficient and its parts. NaN where either side is constant (then r is undefined); NaN interval for
        fewer than three rows or |CCC| = 1.

    Raises:
        ValueError: NaN or infinite values, unequal lengths, ddof other than 0 and 1, a level outside (0, 1).

    References:
        Lin LI-K (1989). A concordance correlation coefficient to evaluate reproducibility. Lin LI-K (2000). A note on
        the concordance correlation coefficient (corrected variance).

    >>> agreement = concordance([1, 2, 3, 4], [1.5, 2, 3, 5], confidence_level=0.95)
    >>> round(agreement.estimate, 4), round(agreement.ci_low, 4), round(agreement.ci_high, 4)
    (0.902, 0.3175, 0.9898)
    """
    measured_N, predicted_N = _checked(measured, predicted)
    quantile = normal_quantile(confidence_level)
    if ddof not in (0, 1):
        raise ValueError(f"ddof: found {ddof!r}; allowed: 0 (Lin 1989) or 1")
    n = measured_N.size
    shift = float(predicted_N.mean() - measured_N.mean())
    if n <= ddof or np.ptp(measured_N) == 0 or np.ptp(predicted_N) == 0:
        nan = float("nan")
        parts = dict.fromkeys(("estimate", "ci_low", "ci_high", "pearson", "bias_correction"), nan)
        return Concordance(**parts, scale_shift=nan, location_shift=nan)
    covariance = np.cov(measured_N, predicted_N, ddof=ddof)
    sd_measured, sd_predicted = np.sqrt(np.diag(covariance))
    estimate = float(2 * covariance[0, 1] / (covariance[0, 0] + covariance[1, 1] + shift**2))
    r = float(np.clip(covariance[0, 1] / (sd_measured * sd_predicted), -1, 1))
    scale, location = float(sd_predicted / sd_measured), float(shift / np.sqrt(sd_measured * sd_predicted))
    bias_correction = 2 / (scale + 1 / scale + location**2)
    ci_low, ci_high = _lin_interval(estimate, r, bias_correction, location, n, quantile)
    return Concordance(
        estimate=estimate,
        ci_low=ci_low,
        ci_high=ci_high,
        pearson=r,
        bias_correction=bias_correction,
        scale_shift=scale,
        location_shift=location,
    )


def pearson(measured: npt.ArrayLike, predicted: npt.ArrayLike, *, confidence_level: float) -> Interval:
    """Pearson's correlation with Fisher's z interval (two-sided, independent rows).

    NaN where either side is constant; NaN interval for fewer than four rows or |r| = 1.

    Raises:
        ValueError: NaN or infinite values, unequal lengths, a level outside (0, 1).

    References:
        Fisher RA (1921). On the "probable error" of a coefficient of correlation deduced from a small sample.

    >>> round(pearson([1, 2, 3, 4], [1.5, 2, 3, 5], confidence_level=0.95).estimate, 4)
    0.9592
    """
    measured_N, predicted_N = _checked(measured, predicted)
    quantile = normal_quantile(confidence_level)
    if np.ptp(measured_N) == 0 or np.ptp(predicted_N) == 0:
        return Interval(estimate=float("nan"), ci_low=float("nan"), ci_high=float("nan"))
    r = float(np.clip(np.corrcoef(measured_N, predicted_N)[0, 1], -1, 1))
    if measured_N.size < 4 or abs(r) == 1:
        return Interval(estimate=r, ci_low=float("nan"), ci_high=float("nan"))
    half_width = quantile / np.sqrt(measured_N.size - 3)
    low, high = np.tanh(np.arctanh(r) - half_width), np.tanh(np.arctanh(r) + half_width)
    return Interval(estimate=r, ci_low=float(low), ci_high=float(high))


def spearman(first: npt.ArrayLike, second: npt.ArrayLike, *, confidence_level: float) -> Interval:
    """Spearman's rank correlation (ties get mid-ranks) with the z-transform interval of Bonett and Wright.

    The variance of atanh(rho) is taken as (1 + rho^2 / 2) / (N - 3).

    Args:
        first: shape (N,).
        second: shape (N,).
        confidence_level: of the interval.

    Returns:
        NaN where a vector is constant; no interval below 5 rows or where |rho| is 1.

    Raises:
        ValueError: NaN or infinite values, unequal lengths, a level outside (0, 1).

    References:
        Bonett DG, Wright TA (2000). Sample size requirements for estimating Pearson, Kendall and Spearman correlations.

    >>> round(spearman([1, 2, 3, 4, 5], [5, 6, 7, 8, 7], confidence_level=0.95).estimate, 6)
    0.820783
    """
    first_N, second_N = as_finite("first", first), as_finite("second", second)
    check_lengths(first=first_N, second=second_N)
    quantile = normal_quantile(confidence_level)
    nothing = float("nan")
    if np.ptp(first_N) == 0 or np.ptp(second_N) == 0:
        return Interval(estimate=nothing, ci_low=nothing, ci_high=nothing)
    rho = float(np.corrcoef(stats.rankdata(first_N), stats.rankdata(second_N))[0, 1])
    if first_N.size < 5 or abs(rho) >= 1:
        return Interval(estimate=rho, ci_low=nothing, ci_high=nothing)
    margin = quantile * np.sqrt((1 + rho**2 / 2) / (first_N.size - 3))
    low, high = np.tanh(np.arctanh(rho) + np.array([-margin, margin]))
    return Interval(estimate=rho, ci_low=float(low), ci_high=float(high))


def bland_altman(measured: npt.ArrayLike, predicted: npt.ArrayLike, *, confidence_level: float) -> BlandAltman:
    """Bland and Altman's bias and 95% limits of agreement.

    Differences are predicted - measured, SD with ddof 1, limits = bias -/+ 1.96 SD, where 1.96 is the exact 97.5%
    normal quantile (always 95% limits, whatever the confidence level). Interval of the bias by t with n - 1 df; of a
    limit: limit -/+ t sqrt(3 SD^2 / n).
    SD, limits and intervals are NaN for a single row.

    Raises:
        ValueError: NaN or infinite values, unequal lengths, a level outside (0, 1).

    References:
        Bland JM, Altman DG (1986). Statistical methods for assessing agreement between two methods of clinical
        measurement.

    >>> agreement = bland_altman([10, 12, 15, 11], [11, 12, 14, 13], confidence_level=0.95)
    >>> agreement.bias.estimate, round(agreement.loa_low.estimate, 4), round(agreement.loa_high.estimate, 4)
    (0.5, -2.0303, 3.0303)
    """
    measured_N, predicted_N = _checked(measured, predicted)
    check_level("confidence_level", confidence_level)
    difference_N = predicted_N - measured_N
    n, bias = difference_N.size, float(difference_N.mean())
    sd = float(difference_N.std(ddof=1)) if n > 1 else float("nan")
    t = float(stats.t.ppf(0.5 + confidence_level / 2, n - 1)) if n > 1 else float("nan")
    margin_bias, margin_limit = t * sd / np.sqrt(n), t * sd * np.sqrt(3 / n)
    width = normal_quantile(0.95) * sd
    return BlandAltman(
        bias=_around(bias, margin_bias),
        sd=sd,
        loa_low=_around(bias - width, margin_limit),
        loa_high=_around(bias + width, margin_limit),
    )


def proportional_bias(
    measured: npt.ArrayLike, predicted: npt.ArrayLike, *, confidence_level: float
) -> ProportionalBias:
    """Whether the difference (predicted - measured) grows with the size of what is measured.

    Least squares of the difference on the mean of the two: a slope above 0 says that predictions spread wider than
    measurements, below 0 (the usual case of a model that shrinks to the mean) that they spread less. Residual SD with
    n - 2 in the denominator; intervals and the two-sided test by t with n - 2 df.

    Returns:
        NaN where the means do not vary; intervals and test are NaN for fewer than three rows, the test also for a
        perfect fit.

    Raises:
        ValueError: NaN or infinite values, unequal lengths, a level outside (0, 1).

    References:
        Bland JM, Altman DG (1999). Measuring agreement in method comparison studies, section 3.2.

    >>> bias = proportional_bias([10, 12, 15, 11], [11, 12, 14, 13], confidence_level=0.95)
    >>> round(bias.slope.estimate, 4), round(bias.p_value, 4)
    (-0.5455, 0.2994)
    """
    measured_N, predicted_N = _checked(measured, predicted)
    check_level("confidence_level", confidence_level)
    difference_N, mean_N = predicted_N - measured_N, (predicted_N + measured_N) / 2
    n, nan = mean_N.size, float("nan")
    if np.ptp(mean_N) == 0:
        return ProportionalBias(slope=_around(nan, nan), intercept=_around(nan, nan), residual_sd=nan, p_value=nan)
    centred_N = mean_N - mean_N.mean()
    spread = float(centred_N @ centred_N)
    slope = float(centred_N @ difference_N) / spread
    intercept = float(difference_N.mean()) - slope * float(mean_N.mean())
    rest = float(np.sum((difference_N - intercept - slope * mean_N) ** 2))
    sd = float(np.sqrt(rest / (n - 2))) if n > 2 else nan
    # What a line leaves of equal differences, or of a straight line, is rounding of the values.
    sd = 0.0 if sd <= _ROUNDING * max(np.abs(measured_N).max(), np.abs(predicted_N).max()) else sd
    se_slope, se_intercept = sd / np.sqrt(spread), sd * np.sqrt(1 / n + mean_N.mean() ** 2 / spread)
    t = float(stats.t.ppf(0.5 + confidence_level / 2, n - 2)) if n > 2 else nan
    return ProportionalBias(
        slope=_around(slope, t * se_slope),
        intercept=_around(intercept, t * se_intercept),
        residual_sd=sd,
        p_value=float(2 * stats.t.sf(abs(slope) / se_slope, n - 2)) if sd > 0 else nan,
    )


def explained_variance(measured: npt.ArrayLike, predicted: npt.ArrayLike) -> float:
    """Share of the measured variance that the prediction explains: 1 - MSE / Var(measured), Var with ddof 0.

    This is the coefficient of determination against the evaluated sample's own mean. A biased prediction is
    penalised (unlike scikit-learn's ``explained_variance_score``), and the squared correlation is an upper bound.
    Negative where the sample's mean would predict better; NaN where the measured values are constant.

    Raises:
        ValueError: NaN or infinite values, unequal lengths.

    >>> explained_variance([1, 2, 3, 4], [1.5, 2, 3, 5])
    0.75
    """
    measured_N, predicted_N = _checked(measured, predicted)
    variance = float(measured_N.var())
    if np.ptp(measured_N) == 0:
        return float("nan")
    return 1 - float(np.mean((predicted_N - measured_N) ** 2)) / variance


def mae(measured: npt.ArrayLike, predicted: npt.ArrayLike) -> float:
    """Mean absolute error, in the unit of the values.

    Raises:
        ValueError: NaN or infinite values, unequal lengths.

    >>> mae([1, 2, 3, 4], [1.5, 2, 3, 5])
    0.375
    """
    measured_N, predicted_N = _checked(measured, predicted)
    return float(np.abs(predicted_N - measured_N).mean())


def rmse(measured: npt.ArrayLike, predicted: npt.ArrayLike) -> float:
    """Root mean squared error (divides by n), in the unit of the values.

    Raises:
        ValueError: NaN or infinite values, unequal lengths.

    >>> round(rmse([1, 2, 3, 4], [1.5, 2, 3, 5]), 4)
    0.559
    """
    measured_N, predicted_N = _checked(measured, predicted)
    return float(np.sqrt(np.mean((predicted_N - measured_N) ** 2)))


def _checked(measured: npt.ArrayLike, predicted: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    measured_N, predicted_N = as_finite("measured", measured), as_finite("predicted", predicted)
    check_lengths(measured=measured_N, predicted=predicted_N)
    return measured_N, predicted_N


def _around(estimate: float, margin: float) -> Interval:
    return Interval(estimate=estimate, ci_low=float(estimate - margin), ci_high=float(estimate + margin))


def _lin_interval(
    ccc: float, r: float, bias_correction: float, location: float, n: int, quantile: float
) -> tuple[float, float]:
    if n < 3 or abs(ccc) >= 1:
        return float("nan"), float("nan")
    # Lin (2000), with ccc / r written as the bias correction, so that r = 0 divides nothing by zero.
    c = bias_correction
    variance = (
        (1 - r**2) * c**2 * (1 - ccc**2) + 2 * r**2 * c**3 * (1 - ccc) * location**2 - 0.5 * r**2 * c**4 * location**4
    ) / (n - 2)
    margin = quantile * float(np.sqrt(max(variance, 0.0))) / (1 - ccc**2)
    return float(np.tanh(np.arctanh(ccc) - margin)), float(np.tanh(np.arctanh(ccc) + margin))

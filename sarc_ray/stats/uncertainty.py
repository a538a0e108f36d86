"""How honest Gaussian predictions are. Shapes: M ensemble members, N rows; sigma is a standard deviation > 0."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special, stats

from sarc_ray.stats.arrays import FloatArray, as_finite, check_lengths, check_level

# Levels of the calibration error of intervals.
INTERVAL_LEVELS = np.arange(1, 20) / 20


@dataclass(frozen=True, kw_only=True, slots=True)
class MixtureMoments:
    """Moments of an equal mixture of members; ``variance`` = ``var_aleatoric`` + ``var_epistemic`` (ddof 0)."""

    mean: FloatArray
    variance: FloatArray
    var_aleatoric: FloatArray
    var_epistemic: FloatArray


@dataclass(frozen=True, kw_only=True, slots=True)
class RiskCoverage:
    """Mean error among the most certain rows, as more and more rows are kept.

    ``risk_N[k - 1]`` is the mean error of the k rows of smallest uncertainty, ``coverage_N[k - 1]`` is k / N. ``area``
    is the mean of ``risk_N``; ``area_best`` that of an uncertainty that ranks the errors perfectly; ``gain`` is 0
    where the uncertainty says nothing of the error, 1 where it is perfect, NaN where all errors are equal.
    """

    coverage_N: FloatArray
    risk_N: FloatArray
    area: float
    area_best: float
    gain: float


def gaussian_nll(measured: npt.ArrayLike, mu: npt.ArrayLike, sigma: npt.ArrayLike) -> FloatArray:
    """Negative log density of each measured value under N(mu, sigma^2), with the constant 0.5 log(2 pi), in nats.

    Args:
        measured: shape (N,).
        mu: predictive mean, shape (N,).
        sigma: predictive standard deviation > 0, shape (N,).

    Returns:
        Shape (N,); its mean is the score. Depends on the unit: halving the unit adds log 2.

    Raises:
        ValueError: NaN or infinite values, unequal lengths, sigma not positive.

    References:
        Gneiting T, Raftery AE (2007). Strictly proper scoring rules, prediction, and estimation.

    >>> gaussian_nll([0.0], [0.0], [1.0]).round(6)
    array([0.918939])
    """
    measured_N, mu_N, sigma_N = _checked(measured, mu, sigma)
    z_N = (measured_N - mu_N) / sigma_N
    return 0.5 * z_N**2 + np.log(sigma_N) + 0.5 * np.log(2 * np.pi)


def gaussian_crps(measured: npt.ArrayLike, mu: npt.ArrayLike, sigma: npt.ArrayLike) -> FloatArray:
    """Continuous ranked probability score of N(mu, sigma^2) for each row, in the unit of the values.

    sigma (z (2 Phi(z) - 1) + 2 phi(z) - 1 / sqrt(pi)), z = (measured - mu) / sigma; zero is perfect.

    Raises:
        ValueError: as :func:`gaussian_nll`.

    References:
        Gneiting T, Raftery AE, Westveld AH, Goldman T (2005). Calibrated probabilistic forecasting using ensemble
        model output statistics and minimum CRPS estimation.

    >>> gaussian_crps([0.0], [0.0], [1.0]).round(6)
    array([0.233695])
    """
    measured_N, mu_N, sigma_N = _checked(measured, mu, sigma)
    z_N = (measured_N - mu_N) / sigma_N
    density_N = np.exp(-0.5 * z_N**2) / np.sqrt(2 * np.pi)
    return sigma_N * (z_N * (2 * special.ndtr(z_N) - 1) + 2 * density_N - 1 / np.sqrt(np.pi))


def inside_interval(
    measured: npt.ArrayLike, mu: npt.ArrayLike, sigma: npt.ArrayLike, *, level: float
) -> npt.NDArray[np.bool_]:
    """Whether each measured value lies within the central interval of N(mu, sigma^2), bounds included.

    Returns:
        Shape (N,); its mean is the interval coverage (PICP), to be compared with ``level``.

    Raises:
        ValueError: as :func:`gaussian_nll`; a level outside (0, 1).

    >>> inside_interval([0.0, 2.0], [0.0, 0.0], [1.0, 1.0], level=0.9)
    array([ True, False])
    """
    measured_N, mu_N, sigma_N = _checked(measured, mu, sigma)
    quantile = float(stats.norm.ppf(0.5 + check_level("level", level) / 2))
    return np.abs(measured_N - mu_N) <= quantile * sigma_N


def interval_calibration_error(measured: npt.ArrayLike, mu: npt.ArrayLike, sigma: npt.ArrayLike) -> float:
    """Mean distance between the coverage of central intervals and their level, over the levels 5%, 10%, ... 95%.

    0 is perfect; honest predictions of N rows come to about 0.3 / sqrt(N) by chance. No weights, no squares.

    Raises:
        ValueError: as :func:`gaussian_nll`.

    References:
        Kuleshov V, Fenner N, Ermon S (2018). Accurate uncertainties for deep learning using calibrated regression
        (there squared, and of one-sided intervals).

    >>> interval_calibration_error([0.0, 0.0], [0.0, 0.0], [1.0, 1.0])
    0.5
    """
    measured_N, mu_N, sigma_N = _checked(measured, mu, sigma)
    # The level of the smallest central interval that holds the measured value.
    level_N = np.sort(special.erf(np.abs(measured_N - mu_N) / sigma_N / np.sqrt(2)))
    coverage_L = np.searchsorted(level_N, INTERVAL_LEVELS, side="right") / level_N.size
    return float(np.mean(np.abs(coverage_L - INTERVAL_LEVELS)))


def risk_coverage(error: npt.ArrayLike, uncertainty: npt.ArrayLike) -> RiskCoverage:
    """The risk-coverage curve of an uncertainty: does the error fall where the uncertain rows are left out?

    Rows of equal uncertainty count with their mean error, as if left out in random order, so that an uncertainty that
    is the same everywhere gives the mean error throughout.

    Args:
        error: size of each row's error, for example absolute, shape (N,).
        uncertainty: of each row, larger is less certain, shape (N,).

    Raises:
        ValueError: NaN or infinite values, unequal lengths.

    References:
        El-Yaniv R, Wiener Y (2010). On the foundations of noise-free selective classification.
        Geifman Y, Uziel G, El-Yaniv R (2019). Bias-reduced uncertainty estimation for deep neural classifiers (the
        area under the curve, and its excess over the best one).

    >>> curve = risk_coverage([1.0, 2.0, 3.0], [0.1, 0.2, 0.3])
    >>> curve.risk_N, curve.area, curve.gain
    (array([1. , 1.5, 2. ]), 1.5, 1.0)
    """
    error_N, uncertainty_N = as_finite("error", error), as_finite("uncertainty", uncertainty)
    check_lengths(error=error_N, uncertainty=uncertainty_N)
    _, group_N, size_G = np.unique(uncertainty_N, return_inverse=True, return_counts=True)
    mean_G = np.bincount(group_N, weights=error_N) / size_G
    kept_N = np.arange(1, error_N.size + 1)
    risk_N = np.cumsum(np.repeat(mean_G, size_G)) / kept_N
    area, best = float(risk_N.mean()), float((np.cumsum(np.sort(error_N)) / kept_N).mean())
    mean = float(error_N.mean())
    # The mean of equal errors is theirs but for rounding.
    room = mean - best
    gain = (mean - area) / room if room > 1e-13 * float(np.abs(error_N).max()) else float("nan")
    return RiskCoverage(coverage_N=kept_N / error_N.size, risk_N=risk_N, area=area, area_best=best, gain=gain)


def sharpness(sigma: npt.ArrayLike) -> float:
    """Root of the mean predictive variance, in the unit of the values; smaller is sharper.

    Raises:
        ValueError: NaN or infinite values, sigma not positive.

    >>> round(sharpness([0.1, 0.5, 1.0]), 8)
    0.64807407
    """
    return float(np.sqrt(np.mean(_positive(sigma) ** 2)))


def mixture_moments(mu: npt.ArrayLike, sigma: npt.ArrayLike) -> MixtureMoments:
    """Mean and variance of an equal mixture of Gaussians, split by the law of total variance.

    Args:
        mu: means, shape (M,) or (M, N).
        sigma: standard deviations > 0, of the same shape.

    Returns:
        Moments over members, shape () or (N,): aleatoric = mean(sigma^2), epistemic = var(mu) with ddof 0.

    Raises:
        ValueError: shapes differ, no members, NaN or infinite values, sigma not positive.

    References:
        Lakshminarayanan B, Pritzel A, Blundell C (2017). Simple and scalable predictive uncertainty estimation using
        deep ensembles.

    >>> moments = mixture_moments([15, 16, 14.5, 15.5, 17], [2, 1.8, 2.5, 2.2, 2])
    >>> round(float(moments.mean), 3), round(float(moments.variance), 3)
    (15.6, 5.206)
    """
    mu_M, sigma_M = np.asarray(mu, dtype=np.float64), np.asarray(sigma, dtype=np.float64)
    if mu_M.shape != sigma_M.shape or mu_M.ndim == 0 or mu_M.shape[0] == 0:
        raise ValueError(f"mu and sigma must share a shape (M, ...) with M >= 1, found {mu_M.shape}, {sigma_M.shape}")
    as_finite("mu", mu_M.ravel())
    _positive(sigma_M.ravel())
    var_aleatoric, var_epistemic = np.mean(sigma_M**2, axis=0), np.var(mu_M, axis=0)
    return MixtureMoments(
        mean=mu_M.mean(axis=0),
        variance=var_aleatoric + var_epistemic,
        var_aleatoric=var_aleatoric,
        var_epistemic=var_epistemic,
    )


def _positive(sigma: npt.ArrayLike) -> FloatArray:
    sigma_N = as_finite("sigma", sigma)
    if sigma_N.min() <= 0:
        raise ValueError(f"sigma: found {sigma_N.min():g}; a standard deviation must be greater than 0")
    return sigma_N


def _checked(
    measured: npt.ArrayLike, mu: npt.ArrayLike, sigma: npt.ArrayLike
) -> tuple[FloatArray, FloatArray, FloatArray]:
    measured_N, mu_N, sigma_N = as_finite("measured", measured), as_finite("mu", mu), _positive(sigma)
    check_lengths(measured=measured_N, mu=mu_N, sigma=sigma_N)
    return measured_N, mu_N, sigma_N

"""One factor per target that makes sigma as wide as the errors are, kept only where the tune split bears it out.

A network that stops by the tune split's likelihood is rarely wrong by much, but the mixture of members is: averaging
makes means better while the members' own sigmas stay. Multiplying sigma by s keeps the mean and the order of the
images, and both parts of the variance, aleatoric and epistemic, are multiplied by s^2: the errors say that the whole
is too wide or too narrow, not which part.

Why not isotonic regression on quantiles (Kuleshov et al. 2018): docs/explanation/uncertainty.md has the measurement.
Shapes: N images of the tune split.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sarc_ray.stats.arrays import FloatArray, as_finite, check_lengths
from sarc_ray.stats.uncertainty import gaussian_nll, interval_calibration_error

N_FOLDS = 10
# The factor's standard error is about 1 / sqrt(2 n): 10% for 50 patients. From 25 the rule mended next to nothing of a
# sigma that was a fifth too small, and spoilt an honest one.
MIN_PATIENTS = 50


@dataclass(frozen=True, kw_only=True, slots=True)
class Recalibration:
    """The decision about one target, and what it rests on.

    Args:
        scale: what sigma is multiplied by; 1 where no factor is in force.
        kept: whether the fitted factor is in force.
        why: in words.
        fitted_scale: fitted on the whole tune split; None where none was fitted.
        nll: mean Gaussian NLL of the tune split as the networks say, in nats, the target's unit.
        nll_recalibrated: the same with each patient's sigma multiplied by a factor fitted on other patients.
        calibration_error: mean distance of interval coverage from its level, as the networks say.
        calibration_error_recalibrated: the same with the factors of other patients.
        images: of the tune split, with a measurement.
        patients: of these images.
    """

    scale: float
    kept: bool
    why: str
    fitted_scale: float | None
    nll: float | None
    nll_recalibrated: float | None
    calibration_error: float | None
    calibration_error_recalibrated: float | None
    images: int
    patients: int


def fit_sigma_scale(measured_N: npt.ArrayLike, mu_N: npt.ArrayLike, sigma_N: npt.ArrayLike) -> float:
    """The factor s that minimises the Gaussian NLL of N(mu, (s sigma)^2): s^2 = mean(((y - mu) / sigma)^2).

    Raises:
        ValueError: NaN or infinite values, unequal lengths, sigma not positive, or all errors zero.

    References:
        Laves M-H, Ihler S, Fast JF, Kahrs LA, Ortmaier T. Well-calibrated regression uncertainty in medical imaging
        with deep learning. MIDL 2020 (sigma scaling).

    Example:
        >>> fit_sigma_scale([1.0, -3.0], [0.0, 0.0], [1.0, 1.0]) == 5.0**0.5
        True
    """
    measured_N, mu_N, sigma_N = as_finite("measured", measured_N), as_finite("mu", mu_N), as_finite("sigma", sigma_N)
    check_lengths(measured=measured_N, mu=mu_N, sigma=sigma_N)
    if sigma_N.min() <= 0:
        raise ValueError(f"sigma: found {sigma_N.min():g}; a standard deviation must be greater than 0")
    scale = float(np.sqrt(np.mean(np.square((measured_N - mu_N) / sigma_N))))
    if scale == 0.0:
        raise ValueError("measured: equal to mu in every row; errors of zero have no scale")
    return scale


def recalibrate(
    measured_N: npt.ArrayLike, mu_N: npt.ArrayLike, sigma_N: npt.ArrayLike, *, patient_N: npt.ArrayLike, seed: int
) -> Recalibration:
    """Fit the factor and decide whether it is in force: it must improve NLL and interval calibration error, both.

    Judged on the tune split without looking at a patient's own errors: patients are dealt into ten folds, and each
    fold's sigma is multiplied by the factor of the others. The factor in force is fitted on all.

    Args:
        measured_N: measurements; rows without one (NaN) are left out.
        mu_N: predictive means.
        sigma_N: predictive standard deviations, > 0.
        patient_N: patient of each image; never split between folds.
        seed: of the deal.

    Raises:
        ValueError: as :func:`fit_sigma_scale`, or unequal lengths.
    """
    measured_N = np.asarray(measured_N, dtype=np.float64)
    known_N = np.isfinite(measured_N)
    y_N, m_N, s_N = (np.asarray(values, dtype=np.float64)[known_N] for values in (measured_N, mu_N, sigma_N))
    patients, patient_of_N = np.unique(np.asarray(patient_N)[known_N], return_inverse=True)
    if len(patients) < MIN_PATIENTS:
        return _not_fitted(f"{len(patients)} tuning patients, {MIN_PATIENTS} are needed", len(y_N), len(patients))
    fold_P = np.random.default_rng(seed).permutation(len(patients)) % N_FOLDS
    fold_N = fold_P[patient_of_N]
    other_N = np.empty_like(s_N)
    for fold in range(N_FOLDS):
        inside_N = fold_N == fold
        other_N[inside_N] = fit_sigma_scale(y_N[~inside_N], m_N[~inside_N], s_N[~inside_N])
    before, after = _judged(y_N, m_N, s_N), _judged(y_N, m_N, other_N * s_N)
    kept = after[0] < before[0] and after[1] < before[1]
    fitted = fit_sigma_scale(y_N, m_N, s_N)
    return Recalibration(
        scale=fitted if kept else 1.0,
        kept=kept,
        why="improves NLL and interval calibration" if kept else _what_got_worse(before, after),
        fitted_scale=fitted,
        nll=before[0],
        nll_recalibrated=after[0],
        calibration_error=before[1],
        calibration_error_recalibrated=after[1],
        images=len(y_N),
        patients=len(patients),
    )


def not_wanted() -> Recalibration:
    """The record of a target whose recalibration was not asked for."""
    return _not_fitted("ensemble.recalibration: none", 0, 0)


def _judged(measured_N: FloatArray, mu_N: FloatArray, sigma_N: FloatArray) -> tuple[float, float]:
    nll = float(gaussian_nll(measured_N, mu_N, sigma_N).mean())
    return nll, interval_calibration_error(measured_N, mu_N, sigma_N)


def _what_got_worse(before: tuple[float, float], after: tuple[float, float]) -> str:
    names = ("NLL", "interval calibration")
    worse = [name for name, b, a in zip(names, before, after, strict=True) if not a < b]
    return f"does not improve {' nor '.join(worse)}"


def _not_fitted(why: str, images: int, patients: int) -> Recalibration:
    return Recalibration(
        scale=1.0,
        kept=False,
        why=why,
        fitted_scale=None,
        nll=None,
        nll_recalibrated=None,
        calibration_error=None,
        calibration_error_recalibrated=None,
        images=images,
        patients=patients,
    )

"""The scale on which a network predicts: targets transformed, then standardised by the training set.

Shapes: N pictures, M members; ``...`` any leading axes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Transform = Literal["identity", "log"]
_LOG_MEAN_MAX = 50.0
_LOG_SD_MAX = 5.0


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetScale:
    """Mean and standard deviation (ddof 0) of the transformed training targets.

    Args:
        transform: ``identity``, or ``log`` for a positive target with a long right tail.
        mean: of the transformed training targets.
        sd: of the transformed training targets, > 0.
    """

    transform: Transform
    mean: float
    sd: float

    def standardise(self, y_N: npt.ArrayLike) -> FloatArray:
        """Original unit to standardised units.

        Raises:
            ValueError: a value is not finite, or not positive under ``log``.
        """
        return (_transform(y_N, self.transform) - self.mean) / self.sd

    def restore(self, mu: npt.ArrayLike, sigma: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Mean and standard deviation in the original unit, of any shape (..., N).

        A normal prediction of the logarithm is lognormal in the original unit; its moments are
        exp(m + s^2 / 2) and that times sqrt(exp(s^2) - 1) (Johnson, Kotz and Balakrishnan 1994, chapter 14).
        """
        m = self.mean + self.sd * np.asarray(mu, dtype=np.float64)
        s = self.sd * np.asarray(sigma, dtype=np.float64)
        if self.transform == "identity":
            return m, s
        # An odd picture may get any sigma; beyond these the moments overflow and say no more than "unknown".
        m, s = np.clip(m, -_LOG_MEAN_MAX, _LOG_MEAN_MAX), np.minimum(s, _LOG_SD_MAX)
        mean = np.exp(m + 0.5 * np.square(s))
        return mean, mean * np.sqrt(np.expm1(np.square(s)))


def fit_scale(y_N: npt.ArrayLike, transform: Transform) -> TargetScale:
    """Learn the scale from the training targets.

    Raises:
        ValueError: fewer than two different values, a value that is not finite, or not positive under ``log``.
    """
    t_N = _transform(y_N, transform)
    sd = float(t_N.std()) if t_N.size else 0.0
    if sd <= 0.0:
        raise ValueError(f"training targets: {t_N.size} values without spread; at least two different ones are needed")
    return TargetScale(transform=transform, mean=float(t_N.mean()), sd=sd)


def _transform(y_N: npt.ArrayLike, transform: Transform) -> FloatArray:
    y_N = np.asarray(y_N, dtype=np.float64)
    n_bad = int(np.count_nonzero(~np.isfinite(y_N)))
    if n_bad:
        raise ValueError(f"targets: {n_bad} of {y_N.size} values are missing or infinite; leave those pictures out")
    if transform == "identity":
        return y_N
    if (y_N <= 0.0).any():
        raise ValueError(
            f"targets: smallest value {y_N.min():g}; transform 'log' needs values above 0; use transform: identity"
        )
    return np.log(y_N)

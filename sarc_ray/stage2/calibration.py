"""From raw score to probability: four ways, judged out of fold, in force only where they help.

A map in force is fitted on the out-of-fold scores of all training patients, each from a model that never saw the
patient. To be judged, the scores of each test fold pass through a map that was fitted on the other patients' scores.
Only where both Brier score and ICI are better than without does calibration come into force.

The paper: "Model calibration was performed using sigmoid methods" (Ryu et al. 2023, "Step 2"). Why the maps are as they
are: docs/explanation/calibration.md. Shapes: N rows, R repeats of the cross-validation, K knots.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import expit, logit

from sarc_ray.errors import EvaluationError
from sarc_ray.stats.arrays import FloatArray, IntArray
from sarc_ray.stats.calibration import brier, calibration_errors

if TYPE_CHECKING:
    from sarc_ray.stage2.cross_validation import Fold

Method = Literal["sigmoid", "isotonic", "beta", "none"]
METHODS: tuple[Method, ...] = get_args(Method)
# Raw scores are drawn towards one half by this weight before their logarithms are taken: a forest may say exactly 0 or
# 1, whose log-odds are infinite. The map is strictly increasing, so it makes no ties, and barely moves the rest.
_PRIOR_WEIGHT = 1e-3
# Share of the raw score in an isotonic score: its steps rise a little, so that the order of patients survives.
_TILT = 1e-3
# A probability that rounding has made 0 or 1 is taken for this far from it.
_LEAST = 1e-15


@dataclass(frozen=True, slots=True)
class Unchanged:
    """score = raw score."""

    def apply(self, raw_N: npt.ArrayLike) -> FloatArray:
        """The raw scores themselves."""
        return np.array(raw_N, dtype=np.float64)

    def to_state(self) -> dict[str, Any]:
        """Nothing is needed to make this again."""
        return {}


@dataclass(frozen=True, slots=True)
class Sigmoid:
    """score = 1 / (1 + exp(-(slope * log-odds of the raw score + intercept))). Slope 1, intercept 0 change nothing."""

    slope: float
    intercept: float

    def __post_init__(self) -> None:
        if not np.isfinite([self.slope, self.intercept]).all():
            raise ValueError(f"sigmoid: slope {self.slope} or intercept {self.intercept} is not finite")

    def apply(self, raw_N: npt.ArrayLike) -> FloatArray:
        """Calibrated probability of each raw score, same shape."""
        return np.asarray(expit(self.slope * logit(_drawn_in(raw_N)) + self.intercept), dtype=np.float64)

    def to_state(self) -> dict[str, Any]:
        """Numbers that make this again."""
        return {"slope": self.slope, "intercept": self.intercept}


@dataclass(frozen=True, slots=True)
class Beta:
    """score = 1 / (1 + exp(-(a ln(raw) - b ln(1 - raw) + c))). a = b = 1, c = 0 change nothing; a = b is a sigmoid."""

    a: float
    b: float
    c: float

    def __post_init__(self) -> None:
        if not np.isfinite([self.a, self.b, self.c]).all() or min(self.a, self.b) < 0.0 or self.a + self.b <= 0.0:
            raise ValueError(f"beta: a {self.a}, b {self.b}, c {self.c} give no increasing map")

    def apply(self, raw_N: npt.ArrayLike) -> FloatArray:
        """Calibrated probability of each raw score, same shape."""
        s_N = _drawn_in(raw_N)
        return np.asarray(expit(self.a * np.log(s_N) - self.b * np.log1p(-s_N) + self.c), dtype=np.float64)

    def to_state(self) -> dict[str, Any]:
        """Numbers that make this again."""
        return {"a": self.a, "b": self.b, "c": self.c}


@dataclass(frozen=True, slots=True, eq=False)
class Isotonic:
    """Straight lines between knots that do not fall, tilted by a little of the raw score; shape (K,) each."""

    raw_K: FloatArray
    score_K: FloatArray

    def __post_init__(self) -> None:
        ordered = self.raw_K.ndim == 1 and self.raw_K.shape == self.score_K.shape and len(self.raw_K) > 0
        if not ordered or not (np.diff(self.raw_K) > 0).all() or not (np.diff(self.score_K) >= 0).all():
            raise ValueError("isotonic: the knots are not in order")
        if not ((self.score_K >= 0.0) & (self.score_K <= 1.0)).all() or not np.isfinite(self.raw_K).all():
            raise ValueError("isotonic: a knot's score lies outside 0 to 1")

    def apply(self, raw_N: npt.ArrayLike) -> FloatArray:
        """Calibrated probability of each raw score, same shape; level beyond the outermost knots."""
        x_N = np.asarray(raw_N, dtype=np.float64)
        return np.asarray((1.0 - _TILT) * np.interp(x_N, self.raw_K, self.score_K) + _TILT * x_N, dtype=np.float64)

    def to_state(self) -> dict[str, Any]:
        """Arrays that make this again."""
        return {"raw_K": self.raw_K, "score_K": self.score_K}


@dataclass(frozen=True, slots=True, eq=False)
class MovedIsotonic:
    """An isotonic score moved on the scale of log-odds: what :func:`moved` makes of :class:`Isotonic`."""

    raw_K: FloatArray
    score_K: FloatArray
    slope: float
    intercept: float

    def __post_init__(self) -> None:
        Isotonic(self.raw_K, self.score_K)  # the knots are in order
        Sigmoid(self.slope, self.intercept)
        if self.slope <= 0.0:
            raise ValueError(f"moved isotonic: slope {self.slope} gives no increasing map")

    def apply(self, raw_N: npt.ArrayLike) -> FloatArray:
        """Calibrated probability of each raw score, same shape."""
        return Sigmoid(self.slope, self.intercept).apply(Isotonic(self.raw_K, self.score_K).apply(raw_N))

    def to_state(self) -> dict[str, Any]:
        """Arrays and numbers that make this again."""
        return {"raw_K": self.raw_K, "score_K": self.score_K, "slope": self.slope, "intercept": self.intercept}


Calibration: TypeAlias = Unchanged | Sigmoid | Beta | Isotonic | MovedIsotonic
# What a file says of the map in force.
MAPS: Mapping[str, type[Unchanged] | type[Sigmoid] | type[Beta] | type[Isotonic] | type[MovedIsotonic]] = {
    "none": Unchanged,
    "sigmoid": Sigmoid,
    "beta": Beta,
    "isotonic": Isotonic,
    "moved_isotonic": MovedIsotonic,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibrationDecision:
    """Whether the calibration that was asked for is in force, and the figures behind it.

    Attributes:
        method: that was asked for, one of ``METHODS``; of a bundle made of another one ``intercept`` or
            ``intercept_and_slope`` (:mod:`sarc_ray.stage2.local`), or ``prevalence``.
        kept: it is in force; else scores are raw scores.
        why: in words.
        brier: Brier score of the out-of-fold raw scores, mean of the repeats.
        brier_calibrated: the same after maps that were fitted on other patients; None where there are none.
        ici: integrated calibration index of the out-of-fold raw scores, mean of the repeats.
        ici_calibrated: as ``brier_calibrated``.
    """

    method: str
    kept: bool
    why: str
    brier: float
    brier_calibrated: float | None
    ici: float
    ici_calibrated: float | None


def calibrate(
    method: Method, raw: npt.ArrayLike, y: npt.ArrayLike, folds: Sequence[Fold]
) -> tuple[Calibration, CalibrationDecision]:
    """Fit a calibration to out-of-fold raw scores, and judge whether it shall be in force.

    Args:
        method: how.
        raw: out-of-fold raw scores, shape (n_repeats, n_rows).
        y: 0/1 labels, shape (n_rows,).
        folds: that the scores come from, patients never split; maps for judging are fitted on the rows outside each.

    Returns:
        The map in force, which is ``Unchanged`` where the fitted one is not, and the decision.

    Raises:
        EvaluationError: the scores rank patients no better than chance, whatever the method.

    References:
        Brier GW (1950). Verification of forecasts expressed in terms of probability. Austin PC, Steyerberg EW (2019).
        The Integrated Calibration Index (ICI) and related metrics for quantifying the calibration of logistic
        regression models.
    """
    raw_RN, y_N = np.asarray(raw, dtype=np.float64), np.asarray(y, dtype=np.int64)
    fitted = fit_calibration(method, raw_RN, y_N)
    before = _figures(raw_RN, y_N)
    if method == "none":
        return fitted, _decision(method, before, None, "stage2.calibration: none")
    try:
        after = _figures(_through_maps_of_others(method, raw_RN, y_N, folds), y_N)
    except EvaluationError:
        why = "without the patients of one fold the scores rank no better than chance"
        return Unchanged(), _decision(method, before, None, why)
    decision = _decision(method, before, after, _what_happened(before, after))
    return (fitted if decision.kept else Unchanged()), decision


def fit_calibration(method: Method, raw: npt.ArrayLike, y: npt.ArrayLike) -> Calibration:
    """Fit one map to out-of-fold raw scores.

    Args:
        method: how.
        raw: raw scores, shape (n_rows,) or (n_repeats, n_rows); of all repeats, each is one model's.
        y: 0/1 labels, shape (n_rows,).

    Raises:
        EvaluationError: as :func:`fit_sigmoid`, whatever the method. If that has a positive slope, the others rise.
    """
    sigmoid = fit_sigmoid(raw, y)
    if method == "beta":
        return fit_beta(raw, y)
    if method == "isotonic":
        return fit_isotonic(raw, y)
    return sigmoid if method == "sigmoid" else Unchanged()


def fit_sigmoid(raw: npt.ArrayLike, y: npt.ArrayLike) -> Sigmoid:
    """Fit Platt's sigmoid to out-of-fold raw scores by maximum likelihood.

    The labels are drawn in from 0 and 1 as Platt does, by the numbers of negatives and positives, which keeps the fit
    finite where the scores separate the classes. Unlike Platt's support-vector margins, raw scores here are
    probabilities; the sigmoid is fitted on their log-odds, so that a calibrated raw score is left as it is.

    Args:
        raw: raw scores, shape (n_rows,) or (n_repeats, n_rows); of all repeats, each is one model's.
        y: 0/1 labels, shape (n_rows,).

    Raises:
        EvaluationError: the out-of-fold scores rank patients no better than chance, so that no increasing sigmoid
            fits.

    References:
        Platt J. Probabilistic outputs for support vector machines. In: Advances in Large Margin Classifiers, 1999.
    """
    x_RN = logit(_drawn_in(np.atleast_2d(np.asarray(raw, dtype=np.float64))))
    target_N = softened(y)

    slope, intercept = fit_logistic((x_RN, np.ones_like(x_RN)), target_N, start=(1.0, 0.0))
    if not np.isfinite([slope, intercept]).all() or slope <= 0.0:
        raise EvaluationError(
            f"calibration: the sigmoid's slope is {slope:.3g}; out-of-fold scores rank patients no better than chance, "
            "so no score can be made. Check features and outcome, or train on more patients"
        )
    return Sigmoid(slope, intercept)


def fit_logistic(
    columns: Sequence[FloatArray], target_N: FloatArray, *, start: Sequence[float], offset: FloatArray | float = 0.0
) -> tuple[float, ...]:
    """Coefficients of columns in a logistic model of softened labels, by maximum likelihood.

    Args:
        columns: shape (N,) or (R, N) each; a constant is a column of ones.
        target_N: share of the outcome in each row, as :func:`softened` gives it.
        start: where the search begins, one number per column.
        offset: log-odds with a coefficient of 1, shape as the columns.
    """

    def loss(parameters: FloatArray) -> tuple[float, FloatArray]:
        z_RN = offset + sum(parameter * column for parameter, column in zip(parameters, columns, strict=True))
        error_RN = expit(z_RN) - target_N
        value = np.mean(np.logaddexp(0.0, z_RN) - target_N * z_RN)
        return float(value), np.array([np.mean(error_RN * column) for column in columns])

    found = minimize(loss, x0=np.array(start), jac=True, method="BFGS", options={"gtol": 1e-8})
    return tuple(float(value) for value in found.x)


def fit_beta(raw: npt.ArrayLike, y: npt.ArrayLike) -> Beta:
    """Fit beta calibration by maximum likelihood with a, b >= 0, which keeps it from falling.

    The paper refits without the term whose coefficient came out negative; the constrained maximum, which is sought here
    at once, is the same as long as one of them is positive. Labels are softened as in :func:`fit_sigmoid`.

    Args:
        raw: as in :func:`fit_sigmoid`.
        y: 0/1 labels, shape (n_rows,).

    References:
        Kull M, Silva Filho TM, Flach P (2017). Beyond sigmoids: how to obtain well-calibrated probabilities from binary
        classifiers with beta calibration. Electronic Journal of Statistics 11:5052-5080.
    """
    s_RN = _drawn_in(np.atleast_2d(np.asarray(raw, dtype=np.float64)))
    x_3RN = np.stack([np.log(s_RN), -np.log1p(-s_RN), np.ones_like(s_RN)])
    target_N = softened(y)

    def loss(parameters: FloatArray) -> tuple[float, FloatArray]:
        z_RN = np.tensordot(parameters, x_3RN, axes=1)
        error_RN = expit(z_RN) - target_N
        value = np.mean(np.logaddexp(0.0, z_RN) - target_N * z_RN)
        return float(value), np.mean(error_RN * x_3RN, axis=(1, 2))

    fitted = minimize(
        loss,
        x0=np.array([1.0, 1.0, 0.0]),
        jac=True,
        method="L-BFGS-B",
        bounds=[(0.0, None), (0.0, None), (None, None)],
        options={"ftol": 1e-15, "gtol": 1e-8, "maxiter": 1000},
    )
    return Beta(*(float(value) for value in fitted.x))


def fit_isotonic(raw: npt.ArrayLike, y: npt.ArrayLike) -> Isotonic:
    """Fit isotonic regression (pool adjacent violators), with softened labels, so that no score is 0 or 1.

    Args:
        raw: as in :func:`fit_sigmoid`.
        y: 0/1 labels, shape (n_rows,).

    References:
        Zadrozny B, Elkan C (2002). Transforming classifier scores into accurate multiclass probability estimates.
    """
    from sklearn.isotonic import IsotonicRegression  # readers of bundles do without it

    raw_RN = np.atleast_2d(np.asarray(raw, dtype=np.float64))
    fitted = IsotonicRegression().fit(raw_RN.ravel(), np.tile(softened(y), len(raw_RN)))
    return Isotonic(
        np.asarray(fitted.X_thresholds_, dtype=np.float64), np.asarray(fitted.y_thresholds_, dtype=np.float64)
    )


def moved(calibration: Calibration, *, slope: float, intercept: float) -> Calibration:
    """The map whose scores have the log-odds slope * (log-odds of this map's scores) + intercept.

    Raw scores without a map, and isotonic ones, are drawn in a little before their log-odds are taken, as by
    :class:`Sigmoid`, since they may be 0 or 1.

    Args:
        calibration: in force so far.
        slope: above 0.
        intercept: any number.

    Raises:
        ValueError: a slope of 0 or less, or a number that is not finite.
    """
    if not slope > 0.0:
        raise ValueError(f"slope: found {slope}, allowed: above 0; the order of patients would be lost")
    if isinstance(calibration, Beta):
        return Beta(slope * calibration.a, slope * calibration.b, slope * calibration.c + intercept)
    if isinstance(calibration, Isotonic):
        return MovedIsotonic(calibration.raw_K, calibration.score_K, slope, intercept)
    if isinstance(calibration, Unchanged):
        return Sigmoid(slope, intercept)
    return replace(calibration, slope=slope * calibration.slope, intercept=slope * calibration.intercept + intercept)


def log_odds(calibration: Calibration, score: npt.ArrayLike) -> FloatArray:
    """The log-odds on which :func:`moved` works, of scores that went through ``calibration``; same shape."""
    score_N = np.asarray(score, dtype=np.float64)
    if isinstance(calibration, Unchanged | Isotonic):
        score_N = _drawn_in(score_N)
    return np.asarray(logit(np.clip(score_N, _LEAST, 1.0 - _LEAST)), dtype=np.float64)


def softened(y: npt.ArrayLike) -> FloatArray:
    """Platt's targets, shape (N,): (P + 1) / (P + 2) of P rows with the outcome, 1 / (Q + 2) of Q without."""
    y_N = np.asarray(y, dtype=np.int64)
    n_pos, n_neg = int(y_N.sum()), int((1 - y_N).sum())
    return np.where(y_N == 1, (n_pos + 1.0) / (n_pos + 2.0), 1.0 / (n_neg + 2.0))


def _through_maps_of_others(method: Method, raw_RN: FloatArray, y_N: IntArray, folds: Sequence[Fold]) -> FloatArray:
    """Each fold's scores after a map that was fitted on the rows outside it, of all repeats; shape (R, N)."""
    mapped_RN = np.full_like(raw_RN, np.nan)
    for fold in folds:
        others = fit_calibration(method, raw_RN[:, fold.train], y_N[fold.train])
        mapped_RN[fold.repeat, fold.test] = others.apply(raw_RN[fold.repeat, fold.test])
    return mapped_RN


def _figures(score_RN: FloatArray, y_N: IntArray) -> tuple[float, float]:
    """Brier and ICI, mean of the repeats: each repeat's scores are those of one model's kind."""
    briers = [brier(y_N, score_N) for score_N in score_RN]
    icis = [calibration_errors(y_N, score_N).ici for score_N in score_RN]
    return float(np.mean(briers)), float(np.mean(icis))


def _decision(
    method: Method, before: tuple[float, float], after: tuple[float, float] | None, why: str
) -> CalibrationDecision:
    return CalibrationDecision(
        method=method,
        kept=after is not None and after[0] < before[0] and after[1] < before[1],
        why=why,
        brier=before[0],
        brier_calibrated=None if after is None else after[0],
        ici=before[1],
        ici_calibrated=None if after is None else after[1],
    )


def _what_happened(before: tuple[float, float], after: tuple[float, float]) -> str:
    worse = [name for name, b, a in zip(("Brier", "ICI"), before, after, strict=True) if not a < b]
    return f"does not improve {' nor '.join(worse)}" if worse else "improves Brier and ICI"


def _drawn_in(raw: npt.ArrayLike) -> FloatArray:
    return np.asarray((1.0 - _PRIOR_WEIGHT) * np.asarray(raw, dtype=np.float64) + 0.5 * _PRIOR_WEIGHT)

"""Sigmoid calibration on grouped out-of-fold scores, the threshold in force, and the final stage-2 model.

The paper: "Model calibration was performed using sigmoid methods" (Ryu et al. 2023, "Step 2").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import minimize
from scipy.special import expit, logit

from sarc_ray.errors import EvaluationError
from sarc_ray.stage2.algorithms import Float, Params, fit
from sarc_ray.stage2.cross_validation import CvResult, Fold, Labels, evaluate_params
from sarc_ray.stage2.portable import Fitted, portable

# Raw scores are drawn towards one half by this weight before their log-odds are taken: a forest may say exactly 0 or
# 1, whose log-odds are infinite. The map is strictly increasing, so it makes no ties, and barely moves the rest.
_PRIOR_WEIGHT = 1e-3


@dataclass(frozen=True, slots=True)
class Sigmoid:
    """score = 1 / (1 + exp(-(slope * log-odds of the raw score + intercept))). Slope 1, intercept 0 change nothing."""

    slope: float
    intercept: float

    def apply(self, raw_N: npt.ArrayLike) -> Float:
        """Calibrated probability of each raw score, same shape."""
        return np.asarray(expit(self.slope * _log_odds(raw_N) + self.intercept), dtype=np.float64)


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
    x_RN = _log_odds(np.atleast_2d(np.asarray(raw, dtype=np.float64)))
    y_N = np.asarray(y, dtype=np.int64)
    n_pos, n_neg = int(y_N.sum()), int((1 - y_N).sum())
    target_N = np.where(y_N == 1, (n_pos + 1.0) / (n_pos + 2.0), 1.0 / (n_neg + 2.0))

    def loss(parameters: Float) -> tuple[float, Float]:
        z_RN = parameters[0] * x_RN + parameters[1]
        error_RN = expit(z_RN) - target_N
        value = np.mean(np.logaddexp(0.0, z_RN) - target_N * z_RN)
        return float(value), np.array([np.mean(error_RN * x_RN), np.mean(error_RN)])

    fitted = minimize(loss, x0=np.array([1.0, 0.0]), jac=True, method="BFGS", options={"gtol": 1e-8})
    slope, intercept = (float(value) for value in fitted.x)
    if not np.isfinite([slope, intercept]).all() or slope <= 0.0:
        raise EvaluationError(
            f"calibration: the sigmoid's slope is {slope:.3g}; out-of-fold scores rank patients no better than chance, "
            "so no score can be made. Check features and outcome, or train on more patients"
        )
    return Sigmoid(slope, intercept)


@dataclass(frozen=True, slots=True)
class Stage2Model:
    """The final classifier: fitted on all training patients, calibrated, with the threshold in force.

    Attributes:
        algorithm: key of ``ALGORITHMS``.
        params: chosen hyper-parameters.
        feature_names: columns that :meth:`predict` needs, in order.
        fitted: the classifier in its portable form.
        sigmoid: raw score to calibrated probability.
        raw_threshold: threshold in units of the raw score.
        threshold: the same in units of the calibrated score; positive is score >= threshold.
    """

    algorithm: str
    params: Mapping[str, Any]
    feature_names: tuple[str, ...]
    fitted: Fitted
    sigmoid: Sigmoid
    raw_threshold: float
    threshold: float

    def matrix(self, X: pd.DataFrame) -> Float:
        """The features as a float64 array of shape (n_rows, n_features), in the model's order.

        Raises:
            EvaluationError: a feature is absent, or a value is missing or infinite.
        """
        absent = [name for name in self.feature_names if name not in X.columns]
        if absent:
            raise EvaluationError(f"stage 2: feature {absent[0]!r} is absent; needed: {', '.join(self.feature_names)}")
        x_NF = X.loc[:, list(self.feature_names)].to_numpy(dtype=np.float64)
        bad_F = (~np.isfinite(x_NF)).sum(axis=0)
        if bad_F.any():
            first = int(np.flatnonzero(bad_F)[0])
            raise EvaluationError(
                f"stage 2: feature {self.feature_names[first]!r} is missing or infinite in {bad_F[first]} rows; such "
                "rows get no score (outcome abstained), leave them out before"
            )
        return x_NF

    def predict(self, X: pd.DataFrame) -> tuple[Float, Float]:
        """Raw score and calibrated score of each row.

        Args:
            X: feature table, shape (n_rows, n_features); further columns are ignored.

        Returns:
            ``raw_score`` and ``score``, each float64 of shape (n_rows,).

        Raises:
            EvaluationError: as :meth:`matrix`.
        """
        x_NF = self.matrix(X)
        raw_N = self.fitted.raw_score(x_NF) if len(x_NF) else np.empty(0)
        return raw_N, self.sigmoid.apply(raw_N)

    def flag(self, score_N: Float) -> npt.NDArray[np.bool_]:
        """True where the calibrated score reaches the threshold in force."""
        return np.asarray(score_N) >= self.threshold


def fit_final(
    name: str,
    params: Params,
    X: pd.DataFrame,
    y: npt.ArrayLike,
    folds: Sequence[Fold],
    *,
    seed: int,
    n_jobs: int,
    cv: CvResult | None = None,
) -> Stage2Model:
    """Fit the chosen algorithm on all training patients; calibration and threshold come from out-of-fold scores.

    Args:
        name: key of ``ALGORITHMS``.
        params: chosen hyper-parameters.
        X: features, shape (n_rows, n_features), columns named.
        y: 0/1 labels, shape (n_rows,).
        folds: the patient-grouped folds of the search.
        seed: of the search; the final fit takes a seed derived from it.
        n_jobs: threads while fitting.
        cv: the chosen result, if its out-of-fold scores are at hand; computed anew where None, to the same values.

    Raises:
        EvaluationError: NaN among the features, or scores no better than chance (see :func:`fit_sigmoid`).
    """
    y_N: Labels = np.asarray(y, dtype=np.int64)
    x_NF = X.to_numpy(dtype=np.float64)
    cv = evaluate_params(name, params, x_NF, y_N, folds, seed=seed, n_jobs=n_jobs) if cv is None else cv
    sigmoid = fit_sigmoid(cv.oof_raw_scores, y_N)
    final_seed = int(np.random.SeedSequence(seed).spawn(1)[0].generate_state(1)[0] >> 1)
    return Stage2Model(
        algorithm=name,
        params=dict(params),
        feature_names=tuple(str(column) for column in X.columns),
        fitted=portable(fit(name, params, x_NF, y_N, seed=final_seed, n_jobs=n_jobs)),
        sigmoid=sigmoid,
        raw_threshold=cv.oof_threshold,
        threshold=float(sigmoid.apply(cv.oof_threshold)),
    )


def _log_odds(raw: npt.ArrayLike) -> Float:
    return logit((1.0 - _PRIOR_WEIGHT) * np.asarray(raw, dtype=np.float64) + 0.5 * _PRIOR_WEIGHT)

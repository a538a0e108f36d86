"""The final stage-2 model: fitted on all training patients; calibration and thresholds from out-of-fold scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from sarc_ray.errors import EvaluationError
from sarc_ray.stage2.algorithms import Float, Params, fit
from sarc_ray.stage2.calibration import Calibration, CalibrationDecision, calibrate
from sarc_ray.stage2.cross_validation import CvResult, Fold, Labels, evaluate_params
from sarc_ray.stage2.portable import Fitted, portable
from sarc_ray.stage2.prevalence import rebased_model
from sarc_ray.stage2.settings import Stage2Config
from sarc_ray.stage2.thresholds import OperatingPoint, operating_points, points_stated


@dataclass(frozen=True, slots=True)
class Stage2Model:
    """The final classifier: fitted on all training patients, calibrated, with the threshold in force.

    Attributes:
        algorithm: key of ``ALGORITHMS``.
        params: chosen hyper-parameters.
        feature_names: columns that :meth:`predict` needs, in order.
        fitted: the classifier in its portable form.
        calibration: raw score to score; leaves it where no calibration is in force.
        decision: whether the calibration that was asked for is in force, and why.
        thresholds: one per rule, with what each does.
        in_force: the rule whose threshold :meth:`flag` uses.
    """

    algorithm: str
    params: Mapping[str, Any]
    feature_names: tuple[str, ...]
    fitted: Fitted
    calibration: Calibration
    decision: CalibrationDecision
    thresholds: tuple[OperatingPoint, ...]
    in_force: str

    def __post_init__(self) -> None:
        rules = [point.rule for point in self.thresholds]
        if rules.count(self.in_force) != 1 or len(set(rules)) < len(rules):
            raise ValueError(
                f"thresholds: found {rules}; each once, and {self.in_force!r}, which is in force, among them"
            )

    @property
    def point(self) -> OperatingPoint:
        """The operating point in force."""
        return next(point for point in self.thresholds if point.rule == self.in_force)

    @property
    def threshold(self) -> float:
        """Positive is score >= threshold."""
        return self.point.threshold

    @property
    def raw_threshold(self) -> float:
        """The same in units of the raw score."""
        return self.point.raw_threshold

    def stated(self) -> dict[str, Any]:
        """What ``bundle.json`` says of calibration and thresholds, in JSON's types."""
        points = points_stated(self.thresholds, in_force=self.in_force)
        return {"threshold": self.threshold, "thresholds": points, "calibration": asdict(self.decision)}

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
        """Raw score and score of each row; they are equal where no calibration is in force.

        Args:
            X: feature table, shape (n_rows, n_features); further columns are ignored.

        Returns:
            ``raw_score`` and ``score``, each float64 of shape (n_rows,).

        Raises:
            EvaluationError: as :meth:`matrix`.
        """
        x_NF = self.matrix(X)
        raw_N = self.fitted.raw_score(x_NF) if len(x_NF) else np.empty(0)
        return raw_N, self.calibration.apply(raw_N)

    def flag(self, score_N: Float) -> npt.NDArray[np.bool_]:
        """True where the score reaches the threshold in force."""
        return np.asarray(score_N) >= self.threshold


def fit_final(
    name: str,
    params: Params,
    X: pd.DataFrame,
    y: npt.ArrayLike,
    folds: Sequence[Fold],
    *,
    config: Stage2Config,
    seed: int,
    n_jobs: int,
    cv: CvResult | None = None,
) -> Stage2Model:
    """Fit the chosen algorithm on all training patients; calibration and thresholds come from out-of-fold scores.

    Args:
        name: key of ``ALGORITHMS``.
        params: chosen hyper-parameters.
        X: features, shape (n_rows, n_features), columns named.
        y: 0/1 labels, shape (n_rows,).
        folds: the patient-grouped folds of the search.
        config: which calibration to try, the prevalence to re-base to, and the aims of the thresholds; its search
            settings are not used.
        seed: of the search; the final fit takes a seed derived from it.
        n_jobs: threads while fitting.
        cv: the chosen result, if its out-of-fold scores are at hand; computed anew where None, to the same values.

    Raises:
        EvaluationError: NaN among the features, or scores no better than chance (see :func:`calibrate`).
    """
    y_N: Labels = np.asarray(y, dtype=np.int64)
    x_NF = X.to_numpy(dtype=np.float64)
    cv = evaluate_params(name, params, x_NF, y_N, folds, seed=seed, n_jobs=n_jobs) if cv is None else cv
    calibration, decision = calibrate(config.calibration, cv.oof_raw_scores, y_N, folds)
    final_seed = int(np.random.SeedSequence(seed).spawn(1)[0].generate_state(1)[0] >> 1)
    model = Stage2Model(
        algorithm=name,
        params=dict(params),
        feature_names=tuple(str(column) for column in X.columns),
        fitted=portable(fit(name, params, x_NF, y_N, seed=final_seed, n_jobs=n_jobs)),
        calibration=calibration,
        decision=decision,
        thresholds=operating_points(
            cv.oof_raw_scores, y_N, calibration=calibration, aims=config.aims, prevalence=config.prevalence
        ),
        in_force=config.threshold,
    )
    if config.prevalence is None:
        return model
    return rebased_model(model, wanted=config.prevalence, present=float(y_N.mean()))

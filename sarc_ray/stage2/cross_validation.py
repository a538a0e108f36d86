"""Repeated, stratified, patient-grouped cross-validation, and the choice of a model by it alone.

Shapes: N rows (one per image), F features, R repeats, K folds of a repeat.

The paper fine-tuned by three-fold five-repeat cross-validation and then chose on its internal test set (Ryu et al.
2023, "Step 2"). Here the choice uses out-of-fold predictions only, so that the test set stays untouched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import StratifiedGroupKFold

from sarc_ray.errors import EvaluationError
from sarc_ray.stage2.algorithms import ALGORITHMS, Float, Params, fit
from sarc_ray.stage2.calibration import METHODS, Method
from sarc_ray.stage2.thresholds import RULES, Rule
from sarc_ray.stats.discrimination import auroc, confusion_at, f1, youden_threshold

Labels = npt.NDArray[np.int64]
_EVENTS_PER_FOLD = 2
_MOST_OF_AIMS = {
    "threshold_sensitivity": 1.0,
    "threshold_specificity": 1.0,
    "threshold_alerts_per_10000": 10_000.0,
    "threshold_cost_ratio": 1e6,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage2Config:
    """How stage 2 is searched, chosen and calibrated.

    Args:
        algorithms: keys of ``ALGORITHMS``.
        trials_per_algorithm: hyper-parameter draws of each algorithm.
        trials_per_round: draws that each algorithm's study is asked for before it is told any result; more workers
            than algorithms times this stand idle, fewer rounds learn less from each other.
        n_splits: folds of one repeat.
        n_repeats: repeats, each with folds of its own.
        calibration: how raw scores become probabilities; in force only where it improves Brier and ICI out of fold.
        threshold: the rule whose threshold is in force; the bundle holds those of all rules.
        threshold_sensitivity: the least sensitivity, of rule ``sensitivity``.
        threshold_specificity: the least specificity, of rule ``specificity``.
        threshold_alerts_per_10000: the most flagged of 10,000 rows, of rule ``alerts_per_10000``.
        threshold_cost_ratio: what a missed patient costs where a false alarm costs 1, of rule ``cost_ratio``.
    """

    algorithms: tuple[str, ...]
    trials_per_algorithm: int
    trials_per_round: int
    n_splits: int
    n_repeats: int
    calibration: Method
    threshold: Rule
    threshold_sensitivity: float
    threshold_specificity: float
    threshold_alerts_per_10000: float
    threshold_cost_ratio: float

    def __post_init__(self) -> None:
        if not self.algorithms or len(set(self.algorithms)) < len(self.algorithms):
            raise ValueError(f"algorithms: found {list(self.algorithms)}; name one or more, each once")
        for name in self.algorithms:
            if name not in ALGORITHMS:
                raise ValueError(f"algorithms: {name!r} is not known; allowed: {', '.join(ALGORITHMS)}")
        for field, least in (("trials_per_algorithm", 1), ("trials_per_round", 1), ("n_splits", 2), ("n_repeats", 1)):
            if getattr(self, field) < least:
                raise ValueError(f"{field}: found {getattr(self, field)}, allowed: {least} or more")
        for field, allowed in (("calibration", METHODS), ("threshold", RULES)):
            if getattr(self, field) not in allowed:
                raise ValueError(f"{field}: found {getattr(self, field)!r}, allowed: {', '.join(allowed)}")
        for field, most in _MOST_OF_AIMS.items():
            if not 0.0 < getattr(self, field) <= most:
                raise ValueError(f"{field}: found {getattr(self, field)}, allowed: above 0, up to {most:g}")

    @property
    def aims(self) -> dict[Rule, float | None]:
        """What each rule for a threshold is given; None for those that take nothing."""
        return {
            "youden": None,
            "f1": None,
            "sensitivity": self.threshold_sensitivity,
            "specificity": self.threshold_specificity,
            "alerts_per_10000": self.threshold_alerts_per_10000,
            "cost_ratio": self.threshold_cost_ratio,
        }


@dataclass(frozen=True, slots=True)
class Fold:
    """Row positions of one fold: fit on ``train``, predict ``test``."""

    repeat: int
    train: npt.NDArray[np.int64]
    test: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class CvResult:
    """What cross-validation says about one algorithm with one set of hyper-parameters.

    Attributes:
        algorithm: key of ``ALGORITHMS``.
        params: the hyper-parameters.
        auroc_per_fold: shape (n_repeats * n_splits,), in the order of the folds.
        oof_raw_scores: out-of-fold raw score of every row in every repeat, shape (n_repeats, n_rows).
        cv_auroc_mean: mean of ``auroc_per_fold``.
        cv_auroc_se: its standard error, see :func:`evaluate_params`.
        oof_threshold: Youden threshold on the pooled out-of-fold raw scores; positive is raw score >= threshold.
        oof_f1: F1 at that threshold, pooled over repeats.
    """

    algorithm: str
    params: dict[str, Any]
    auroc_per_fold: Float
    oof_raw_scores: Float
    cv_auroc_mean: float
    cv_auroc_se: float
    oof_threshold: float
    oof_f1: float

    @property
    def oof_raw_score(self) -> Float:
        """Mean over repeats, shape (n_rows,)."""
        return self.oof_raw_scores.mean(axis=0)


def make_folds(y: npt.ArrayLike, groups: npt.ArrayLike, *, n_splits: int, n_repeats: int, seed: int) -> list[Fold]:
    """Deal patients into stratified folds, several times over. All trials must be given the same folds.

    scikit-learn has no repeated stratified group K-fold, so a shuffled ``StratifiedGroupKFold`` is repeated.

    Args:
        y: 0/1 labels, shape (n_rows,).
        groups: patient of each row, shape (n_rows,); a patient is never on both sides of a fold.
        n_splits: folds of one repeat.
        n_repeats: repeats.
        seed: decides all folds.

    Returns:
        ``n_splits * n_repeats`` folds, repeat by repeat.

    Raises:
        EvaluationError: labels that are not 0/1, or fewer than two patients per fold with, or without, the outcome.
    """
    y_N, groups_N = check_labels(y, groups)
    needed = _EVENTS_PER_FOLD * n_splits
    for label, what in ((1, "with"), (0, "without")):
        found = len(np.unique(groups_N[y_N == label]))
        if found < needed:
            raise EvaluationError(
                f"cross-validation: found {found} patients {what} the outcome, needed are {needed} (two per fold of "
                f"{n_splits}); add patients, lower n_splits, or choose another outcome definition"
            )
    folds = []
    for repeat, state in enumerate(np.random.SeedSequence(seed).generate_state(n_repeats)):
        splitter = StratifiedGroupKFold(n_splits=n_splits, shuffle=True, random_state=int(state))
        for train, test in splitter.split(np.zeros((len(y_N), 1)), y_N, groups_N):
            if len(np.unique(y_N[test])) < 2:
                raise EvaluationError(
                    f"cross-validation: repeat {repeat} has a fold with one class only, because few patients hold "
                    "most rows; use one image per patient, or lower n_splits"
                )
            folds.append(Fold(repeat, train.astype(np.int64), test.astype(np.int64)))
    return folds


def check_labels(y: npt.ArrayLike, groups: npt.ArrayLike) -> tuple[Labels, npt.NDArray[Any]]:
    """Labels as int64 and groups as an array, both of shape (n_rows,).

    Raises:
        EvaluationError: unequal lengths, or labels other than 0 and 1 (NaN, say).
    """
    raw_N, groups_N = np.asarray(y, dtype=np.float64), np.asarray(groups)
    if raw_N.ndim != 1 or raw_N.shape != groups_N.shape:
        raise EvaluationError(
            f"labels have shape {raw_N.shape}, groups {groups_N.shape}; one of each per row is needed"
        )
    wrong_N = ~np.isin(raw_N, (0.0, 1.0))
    if wrong_N.any():
        raise EvaluationError(
            f"labels: {int(wrong_N.sum())} of {len(raw_N)} are neither 0 nor 1 (first: {raw_N[wrong_N][0]}); leave "
            "out rows without an outcome before stage 2"
        )
    return raw_N.astype(np.int64), groups_N


def evaluate_params(
    name: str, params: Params, X: npt.ArrayLike, y: npt.ArrayLike, folds: Sequence[Fold], *, seed: int, n_jobs: int
) -> CvResult:
    """Cross-validate one algorithm with one set of hyper-parameters.

    The standard error is the root of the within-repeat variance of the fold AUROCs (ddof 1, averaged over repeats)
    divided by the number of folds of one repeat. Repeats use the same patients again, so they steady the mean but
    are no new evidence about it; dividing by all folds would make the error too small (Bengio & Grandvalet 2004).

    Args:
        name: key of ``ALGORITHMS``.
        params: as ``suggest`` returns them.
        X: features, shape (n_rows, n_features), no NaN.
        y: 0/1 labels, shape (n_rows,).
        folds: of :func:`make_folds`; every row is tested once in each repeat.
        seed: of the estimators; each fold gets a seed of its own, the same for every trial.
        n_jobs: threads while fitting.

    Raises:
        ConfigError: unknown algorithm or hyper-parameters.
        EvaluationError: NaN among the features.
    """
    x_NF, y_N = np.asarray(X, dtype=np.float64), np.asarray(y, dtype=np.int64)
    n_repeats = 1 + max(fold.repeat for fold in folds)
    oof_RN = np.full((n_repeats, len(y_N)), np.nan)
    auroc_per_fold = np.empty(len(folds))
    seeds = np.random.SeedSequence(seed).generate_state(len(folds))
    for i, fold in enumerate(folds):
        fitted = fit(name, params, x_NF[fold.train], y_N[fold.train], seed=int(seeds[i] >> 1), n_jobs=n_jobs)
        raw = np.asarray(fitted.predict_proba(x_NF[fold.test])[:, 1], dtype=np.float64)
        oof_RN[fold.repeat, fold.test] = raw
        auroc_per_fold[i] = auroc(y_N[fold.test], raw)
    return _summarise(name, params, y_N, oof_RN, auroc_per_fold, [fold.repeat for fold in folds])


def _summarise(
    name: str, params: Params, y_N: Labels, oof_RN: Float, auroc_per_fold: Float, repeats: list[int]
) -> CvResult:
    if np.isnan(oof_RN).any():
        raise EvaluationError(
            "cross-validation: a row is in no test fold; folds must come from make_folds on these rows"
        )
    per_repeat = [auroc_per_fold[np.asarray(repeats) == repeat] for repeat in range(len(oof_RN))]
    variance = np.mean([np.var(values, ddof=1) for values in per_repeat])
    # Pooled over repeats, not averaged: an average of R models is steadier than the one model that will be used.
    y_pooled, oof_pooled = np.tile(y_N, len(oof_RN)), oof_RN.ravel()
    threshold = _between(youden_threshold(y_pooled, oof_pooled), oof_pooled)
    return CvResult(
        algorithm=name,
        params=dict(params),
        auroc_per_fold=auroc_per_fold,
        oof_raw_scores=oof_RN,
        cv_auroc_mean=float(auroc_per_fold.mean()),
        cv_auroc_se=float(np.sqrt(variance / len(per_repeat[0]))),
        oof_threshold=threshold,
        oof_f1=float(f1(confusion_at(y_pooled, oof_pooled, threshold))),
    )


def _between(threshold: float, scores: Float) -> float:
    """Halfway down to the next lower score: the same flags, but no score lies on the threshold.

    Rounding differs between machines in the last bit; a score exactly on the threshold would flip its flag.
    """
    lower = scores[scores < threshold]
    return float((threshold + lower.max()) / 2.0) if lower.size else float(threshold)


class Candidate(Protocol):
    """The part of a result that the choice looks at; a :class:`CvResult`, or a record of one."""

    @property
    def cv_auroc_mean(self) -> float:
        """Mean of the fold AUROCs."""

    @property
    def cv_auroc_se(self) -> float:
        """Its standard error."""

    @property
    def oof_f1(self) -> float:
        """F1 at the out-of-fold Youden threshold."""


def choose(results: Sequence[Candidate]) -> int:
    """Index of the chosen result.

    The best mean AUROC sets the mark; among all within one standard error (of that best) below it, the best F1 at the
    out-of-fold Youden threshold wins; then the higher mean AUROC, then the earlier result. Only the results and their
    order count, so the choice is the same whatever computed them.

    Raises:
        EvaluationError: no results, or one whose mean AUROC is not finite.
    """
    if not results:
        raise EvaluationError("choice: there are no cross-validation results to choose from")
    means = np.asarray([result.cv_auroc_mean for result in results])
    if not np.isfinite(means).all():
        raise EvaluationError("choice: a result has no mean AUROC; every trial must be evaluated on all folds")
    best = int(np.argmax(means))
    candidates = np.flatnonzero(means >= means[best] - results[best].cv_auroc_se)
    return min(candidates.tolist(), key=lambda i: (-results[i].oof_f1, -means[i], i))

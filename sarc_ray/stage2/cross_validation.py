"""Repeated, stratified, patient-grouped cross-validation of one set of hyper-parameters.

Shapes: N rows (one per image), F features, R repeats, K folds of a repeat. Three folds five times over are the
paper's (Ryu et al. 2023, "Step 2").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import StratifiedGroupKFold

from sarc_ray.errors import EvaluationError
from sarc_ray.stage2.algorithms import Float, Params, fit
from sarc_ray.stats.discrimination import auroc, confusion_at, f1, youden_threshold

Labels = npt.NDArray[np.int64]
_EVENTS_PER_FOLD = 2
# The choice looks at trials within one standard error of the best. On a part of the folds one may lie further behind
# by chance, so this many are asked for before it is given up.
_HOPELESS_SE = 2.0


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


@dataclass(frozen=True, slots=True)
class Bar:
    """The best finished trial, as what a running one is compared with.

    Attributes:
        auroc_per_fold: of the best trial, in the order of the folds.
        cv_auroc_se: standard error of its mean.
    """

    auroc_per_fold: tuple[float, ...]
    cv_auroc_se: float

    def excludes(self, auroc_so_far: Float) -> bool:
        """True where a trial with these AUROCs on the first folds is too far behind on just these folds."""
        behind = float(np.mean(self.auroc_per_fold[: len(auroc_so_far)]) - np.mean(auroc_so_far))
        return behind > _HOPELESS_SE * self.cv_auroc_se


@dataclass(frozen=True, slots=True)
class Pruned:
    """A trial that was given up; its AUROCs on the folds it was evaluated on. Nothing of it can be chosen."""

    auroc_per_fold: Float


def evaluate_params(
    name: str,
    params: Params,
    X: npt.ArrayLike,
    y: npt.ArrayLike,
    folds: Sequence[Fold],
    *,
    seed: int,
    n_jobs: int,
    on_gpu: bool = False,
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
        on_gpu: fit boosted trees on a GPU.

    Raises:
        ConfigError: unknown algorithm or hyper-parameters.
        EvaluationError: NaN among the features.
    """
    result = evaluate_against(None, name, params, X, y, folds, seed=seed, n_jobs=n_jobs, on_gpu=on_gpu)
    assert isinstance(result, CvResult), "without a bar nothing is given up"
    return result


def evaluate_against(
    bar: Bar | None,
    name: str,
    params: Params,
    X: npt.ArrayLike,
    y: npt.ArrayLike,
    folds: Sequence[Fold],
    *,
    seed: int,
    n_jobs: int,
    on_gpu: bool = False,
) -> CvResult | Pruned:
    """As :func:`evaluate_params`, but given up after any repeat in which ``bar`` excludes the trial."""
    x_NF, y_N = np.asarray(X, dtype=np.float64), np.asarray(y, dtype=np.int64)
    n_repeats = 1 + max(fold.repeat for fold in folds)
    oof_RN = np.full((n_repeats, len(y_N)), np.nan)
    auroc_per_fold = np.empty(len(folds))
    seeds = np.random.SeedSequence(seed).generate_state(len(folds))
    for i, fold in enumerate(folds):
        repeat_ended = i > 0 and fold.repeat != folds[i - 1].repeat
        if bar is not None and repeat_ended and bar.excludes(auroc_per_fold[:i]):
            return Pruned(auroc_per_fold[:i])
        fitted = fit(
            name, params, x_NF[fold.train], y_N[fold.train], seed=int(seeds[i] >> 1), n_jobs=n_jobs, on_gpu=on_gpu
        )
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

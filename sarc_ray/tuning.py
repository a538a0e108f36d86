"""Stage 2 from a table of features and a 0/1 outcome: search, choice, finalists, and what the procedure is worth.

Used by the verb ``tune`` for a run's own features (:mod:`sarc_ray.pipeline`) and for any table
(:mod:`sarc_ray.table_tuning`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from sarc_ray import storage
from sarc_ray.distributed.settings import EngineConfig
from sarc_ray.distributed.tune import search
from sarc_ray.errors import EvaluationError
from sarc_ray.stage2.choice import choose
from sarc_ray.stage2.cross_validation import Fold, make_folds
from sarc_ray.stage2.model import Stage2Model, fit_final
from sarc_ray.stage2.persist import from_bytes, to_bytes
from sarc_ray.stage2.search import RoundSearch, TrialRecord
from sarc_ray.stage2.settings import Stage2Config
from sarc_ray.stats.calibration import brier
from sarc_ray.stats.discrimination import auroc, confusion_at, f1

# (what is counted, done, in all)
Tell = Callable[[str, int, int], None]
# Of the seed of the outer folds, so that they are not the inner ones again.
_NESTED = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """What stage 2 learns from; N rows, F features.

    Attributes:
        features: shape (N, F), columns named, no NaN.
        outcome_N: 0 or 1.
        patient_N: whose row it is; a patient is never on both sides of a fold.
    """

    features: pd.DataFrame
    outcome_N: npt.NDArray[np.int64]
    patient_N: npt.NDArray[np.generic]

    def rows(self, row_N: npt.NDArray[np.int64]) -> Problem:
        """The problem of some rows."""
        return Problem(
            features=self.features.iloc[row_N].reset_index(drop=True),
            outcome_N=self.outcome_N[row_N],
            patient_N=self.patient_N[row_N],
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Searched:
    """What came of a search.

    Attributes:
        records: all trials in trial order, pruned ones among them.
        chosen: of the complete ones, by cross-validation.
        finalists: of each algorithm the best by the same rule; ``chosen`` is one of them.
        folds: of every trial.
    """

    records: tuple[TrialRecord, ...]
    chosen: TrialRecord
    finalists: Mapping[str, TrialRecord]
    folds: tuple[Fold, ...]


def search_stage2(
    problem: Problem, config: Stage2Config, *, seed: int, uri: str, engine: EngineConfig, tell: Tell
) -> Searched:
    """Search all algorithms in one pool and choose.

    Args:
        problem: training patients.
        config: of the search.
        seed: of folds, samplers and estimators.
        uri: folder of the trials' records; those found there are not run again.
        engine: resources. An engine must be held (:func:`sarc_ray.distributed.cluster.session`).
        tell: told of trials.

    Raises:
        EvaluationError: labels or features that cannot be learned from.
        TrainingError: a trial failed; finished ones stay on record.
    """
    folds = make_folds(
        problem.outcome_N, problem.patient_N, n_splits=config.n_splits, n_repeats=config.n_repeats, seed=seed
    )
    plan = RoundSearch(
        algorithms=config.algorithms,
        trials_per_algorithm=config.trials_per_algorithm,
        trials_per_round=config.trials_per_round,
        minutes_per_algorithm=config.minutes_per_algorithm,
        prune=config.prune,
        seed=seed,
    )
    records = search(
        problem.features,
        problem.outcome_N,
        plan=plan,
        folds=folds,
        seed=seed,
        uri=uri,
        engine=engine,
        progress=lambda done, total: tell("trials", done, total),
    )
    complete = [record for record in records if not record.pruned]
    by_algorithm = {
        name: [record for record in complete if record.spec.algorithm == name] for name in config.algorithms
    }
    finalists = {name: found[choose(found)] for name, found in by_algorithm.items() if found}
    chosen = complete[choose(complete)]
    # An algorithm's own mark may lie lower than that of all, and let another of its trials win.
    finalists[chosen.spec.algorithm] = chosen
    return Searched(records=tuple(records), chosen=chosen, finalists=finalists, folds=tuple(folds))


def fit_trial(
    problem: Problem, record: TrialRecord, folds: Sequence[Fold], config: Stage2Config, *, seed: int
) -> Stage2Model:
    """The final model of one trial: fitted on all rows, calibration and thresholds from scores out of the folds."""
    return fit_final(
        record.spec.algorithm,
        record.spec.params,
        problem.features,
        problem.outcome_N,
        folds,
        config=config,
        seed=seed,
        n_jobs=1,
    )


def fit_finalists(
    problem: Problem, searched: Searched, config: Stage2Config, *, seed: int, tell: Tell
) -> dict[str, Stage2Model]:
    """The final model of each algorithm's best trial.

    An algorithm that ranks patients no better than chance has none; it is an error of the chosen one alone.

    Raises:
        EvaluationError: the chosen trial gives no model.
    """
    models = {}
    for number, (name, record) in enumerate(searched.finalists.items()):
        try:
            models[name] = fit_trial(problem, record, searched.folds, config, seed=seed)
        except EvaluationError:
            if record is searched.chosen:
                raise
        tell("finalists", number + 1, len(searched.finalists))
    return models


def write_search(uri: str, searched: Searched, models: Mapping[str, Stage2Model], *, chosen: str) -> None:
    """Write ``trials.parquet`` (every trial, with its folds) and ``finalists/<algorithm>.skops``.

    Args:
        uri: folder.
        searched: the search.
        models: finalists.
        chosen: algorithm of the model in use.
    """
    in_use = searched.finalists[chosen]
    rows = [
        {
            "algorithm": record.spec.algorithm,
            "number": record.spec.number,
            "cv_auroc_mean": record.cv_auroc_mean,
            "cv_auroc_se": record.cv_auroc_se,
            "oof_f1": record.oof_f1,
            "pruned": record.pruned,
            "seconds": record.seconds,
            "finalist": record is searched.finalists.get(record.spec.algorithm),
            "chosen": record is in_use,
            "params": str(record.spec.params),
            "auroc_per_fold": list(record.auroc_per_fold),
        }
        for record in searched.records
    ]
    storage.write_table(storage.join(uri, "trials.parquet"), pd.DataFrame(rows))
    storage.remove_tree(storage.join(uri, "finalists"))
    for name, model in models.items():
        storage.write_bytes(storage.join(uri, "finalists", f"{name}.skops"), to_bytes(model))


def read_finalists(uri: str) -> dict[str, Stage2Model]:
    """The finalists that :func:`write_search` left in a folder, by algorithm.

    Raises:
        BundleError: one is damaged.
    """
    paths = storage.list_files(storage.join(uri, "finalists"), ".skops")
    return {path.rsplit("/", 1)[-1].removesuffix(".skops"): from_bytes(storage.read_bytes(path)) for path in paths}


def nested_cross_validation(
    problem: Problem, config: Stage2Config, *, seed: int, uri: str, engine: EngineConfig, tell: Tell
) -> pd.DataFrame:
    """What search, choice, calibration and threshold are worth together, on patients that took no part in them.

    The patients are dealt into ``config.nested_splits`` outer folds. For each, the whole procedure runs on the other
    patients and its model scores the fold (Varma & Simon 2006). The mean over folds estimates the procedure; no
    single model of it is used.

    Returns:
        One row per outer fold: ``fold``, ``n``, ``n_events``, ``algorithm`` chosen, ``cv_auroc`` (what the inner
        cross-validation said of it), ``auroc``, ``f1`` and ``brier`` on the fold.

    Raises:
        EvaluationError: too few patients with the outcome.

    References:
        Varma S, Simon R (2006). Bias in error estimation when using cross-validation for model selection. BMC
        Bioinformatics 7:91.
    """
    inner = replace(config, nested_splits=0)
    outer = make_folds(
        problem.outcome_N,
        problem.patient_N,
        n_splits=config.nested_splits,
        n_repeats=1,
        seed=int(np.random.SeedSequence([seed, _NESTED]).generate_state(1)[0]),
    )
    rows = []
    for number, fold in enumerate(outer):
        within = problem.rows(fold.train)
        # Trials on record are those of these patients: with another number of folds, others are in the same fold.
        folder = storage.join(uri, f"nested-{number:02d}-of-{config.nested_splits:02d}")
        searched = search_stage2(within, inner, seed=seed, uri=folder, engine=engine, tell=tell)
        model = fit_trial(within, searched.chosen, searched.folds, inner, seed=seed)
        score_N, label_N = model.predict(problem.features.iloc[fold.test])[1], problem.outcome_N[fold.test]
        rows.append(
            {
                "fold": number,
                "n": len(fold.test),
                "n_events": int(label_N.sum()),
                "algorithm": searched.chosen.spec.algorithm,
                "cv_auroc": searched.chosen.cv_auroc_mean,
                "auroc": auroc(label_N, score_N),
                "f1": float(f1(confusion_at(label_N, score_N, model.threshold))),
                "brier": brier(label_N, score_N),
            }
        )
        tell("outer folds", number + 1, config.nested_splits)
    return pd.DataFrame(rows)

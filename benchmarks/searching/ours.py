"""The search as `sarc-ray tune` makes it, on a Ray of its own."""

from __future__ import annotations

import tempfile
import time

import numpy as np
import pandas as pd

from sarc_ray.config import from_mapping, load_preset
from sarc_ray.distributed import cluster
from sarc_ray.distributed.settings import EngineConfig
from sarc_ray.stage2.algorithms import fit
from sarc_ray.stage2.search import TrialRecord
from sarc_ray.stage2.settings import Stage2Config
from sarc_ray.tuning import Problem, Searched, search_stage2
from searching.task import Found, Task

PRESET = load_preset("paper")


def search(task: Task) -> Found:
    """Rounds on Ray Tune; chosen by the project's rule, and by the best AUROC alone."""
    engine = from_mapping(EngineConfig, PRESET["engine"] | {"num_cpus": task.budget.cores})
    with tempfile.TemporaryDirectory(prefix="sarc-ray-search-") as folder:
        begin = time.perf_counter()
        with cluster.session(engine):
            start_s = time.perf_counter() - begin
            searched = _searched(task, engine, uri=folder)
            wall_s = time.perf_counter() - begin
    _require_same_folds(task, searched)
    best = max(searched.records, key=lambda record: record.cv_auroc_mean)
    return Found(
        wall_s=wall_s,
        start_s=start_s,
        trials=len(searched.records),
        trials_s=sum(record.seconds for record in searched.records),
        chosen=searched.chosen.spec.algorithm,
        scores={"chosen": _scores(task, searched.chosen), "best": _scores(task, best)},
    )


def _searched(task: Task, engine: EngineConfig, *, uri: str) -> Searched:
    """The one place that knows how the package's search is called."""
    budget = task.budget
    config = from_mapping(
        Stage2Config,
        PRESET["stage2"]
        | {
            "algorithms": list(budget.algorithms),
            "trials_per_algorithm": budget.trials,
            "trials_per_round": budget.trials_per_round,
            "n_splits": budget.n_splits,
            "n_repeats": budget.n_repeats,
        },
    )
    problem = Problem(
        features=pd.DataFrame(task.x_NF, columns=list(task.features)), outcome_N=task.y_N, patient_N=task.patient_N
    )
    return search_stage2(problem, config, seed=budget.seed, uri=uri, engine=engine, tell=lambda *_: None)


def _require_same_folds(task: Task, searched: Searched) -> None:
    ours = [(fold.repeat, *(part.tolist() for part in (fold.train, fold.test))) for fold in searched.folds]
    theirs = [(repeat, *(part.tolist() for part in parts)) for repeat, *parts in task.folds()]
    assert ours == theirs, "others were given other folds"


def _scores(task: Task, record: TrialRecord) -> np.ndarray:
    name, params = record.spec.algorithm, record.spec.params
    fitted = fit(name, params, task.x_NF, task.y_N, seed=task.budget.seed, n_jobs=1)
    return fitted.predict_proba(task.held_out_x_NF)[:, 1]

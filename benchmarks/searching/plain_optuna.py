"""Plain Optuna in as many processes as there are cores, started by joblib.

`study.optimize(n_jobs=...)` uses threads, which wait for each other wherever scikit-learn holds Python's lock. So each
process goes through the studies (one per algorithm) and takes the next free trial; the studies are shared by a journal,
as Optuna advises for several processes. Nobody waits for a round or for a fold: only the last trial leaves a core idle.
That is the fastest way we know. Which trial learns from which is chance, and so is the choice.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import optuna
from joblib import Parallel, delayed
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from sklearn.model_selection import cross_val_score

from sarc_ray.stage2.algorithms import suggest
from searching import workers
from searching.estimators import with_params
from searching.task import Found, Task


def search(task: Task) -> Found:
    """Chosen by the best mean AUROC over the folds."""
    budget = task.budget
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with tempfile.TemporaryDirectory(prefix="optuna-") as folder:
        journal = Path(folder) / "journal.log"
        begin = time.perf_counter()
        start_s = workers.start(budget.cores)
        for name in budget.algorithms:
            optuna.create_study(study_name=name, storage=_storage(journal), direction="maximize")
        trials_s = sum(
            Parallel(n_jobs=budget.cores)(
                delayed(_take_trials)(journal, task, worker) for worker in range(budget.cores)
            )
        )
        trials = {name: _complete(journal, name) for name in budget.algorithms}
        best = {name: max(found, key=lambda trial: trial.value) for name, found in trials.items()}
        chosen = max(best, key=lambda name: best[name].value)
        wall_s = time.perf_counter() - begin
    fitted = with_params(chosen, best[chosen].params, task.y_N, seed=budget.seed).fit(task.x_NF, task.y_N)
    return Found(
        wall_s=wall_s,
        start_s=start_s,
        trials=sum(map(len, trials.values())),
        trials_s=trials_s,
        chosen=chosen,
        scores={"best": fitted.predict_proba(task.held_out_x_NF)[:, 1]},
    )


def _take_trials(journal: Path, task: Task, worker: int) -> float:
    """One process, until nothing is left; the seconds of its trials."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    splits, seconds = task.splits(), 0.0
    for number, name in enumerate(task.budget.algorithms):
        sampler = optuna.samplers.TPESampler(seed=1000 * task.budget.seed + 100 * worker + number)
        study = optuna.load_study(study_name=name, storage=_storage(journal), sampler=sampler)
        # Numbers are given once across processes, so that the budget is met exactly.
        while (trial := study.ask()).number < task.budget.trials:
            params = suggest(name, trial)
            begin = time.perf_counter()
            estimator = with_params(name, params, task.y_N, seed=task.budget.seed)
            scores = cross_val_score(estimator, task.x_NF, task.y_N, cv=splits, scoring="roc_auc", error_score="raise")
            seconds += time.perf_counter() - begin
            study.tell(trial, float(scores.mean()))
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
    return seconds


def _storage(journal: Path) -> JournalStorage:
    return JournalStorage(JournalFileBackend(str(journal)))


def _complete(journal: Path, name: str) -> list[optuna.trial.FrozenTrial]:
    study = optuna.load_study(study_name=name, storage=_storage(journal))
    return study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))

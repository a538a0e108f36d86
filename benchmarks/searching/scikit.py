"""scikit-learn's random search, one algorithm after another; its workers fill the cores."""

from __future__ import annotations

import time

from sklearn.base import clone
from sklearn.model_selection import RandomizedSearchCV

from searching import workers
from searching.estimators import distributions, unfitted
from searching.task import Found, Task


def search(task: Task) -> Found:
    """Chosen by the best mean AUROC over the folds."""
    budget, searches = task.budget, {}
    begin = time.perf_counter()
    start_s = workers.start(budget.cores)
    for number, name in enumerate(budget.algorithms):
        searches[name] = RandomizedSearchCV(
            unfitted(name, seed=budget.seed),
            distributions(name, task.y_N),
            n_iter=budget.trials,
            scoring="roc_auc",
            cv=task.splits(),
            n_jobs=budget.cores,
            refit=False,
            random_state=budget.seed + number,
            error_score="raise",
        ).fit(task.x_NF, task.y_N)
    chosen = max(searches, key=lambda name: searches[name].best_score_)
    wall_s = time.perf_counter() - begin
    trials_s = sum(_seconds(found) for found in searches.values())
    best = clone(searches[chosen].estimator).set_params(**searches[chosen].best_params_)
    scores = best.fit(task.x_NF, task.y_N).predict_proba(task.held_out_x_NF)[:, 1]
    n_trials = sum(len(found.cv_results_["params"]) for found in searches.values())
    return Found(
        wall_s=wall_s, start_s=start_s, trials=n_trials, trials_s=trials_s, chosen=chosen, scores={"best": scores}
    )


def _seconds(found: RandomizedSearchCV) -> float:
    """Of all folds of all trials; scikit-learn keeps the mean over the folds."""
    results = found.cv_results_
    return float((results["mean_fit_time"] + results["mean_score_time"]).sum() * found.n_splits_)

"""FLAML with the same families, folds and seconds. It tries small and cheap models first, with all cores for each."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from flaml import AutoML

from searching.task import Found, Task

# Its names for our families; it has no elastic net but l1 and l2, and two ways to grow XGBoost's trees.
FAMILIES = {
    "random_forest": ("rf",),
    "logistic_regression": ("lrl1", "lrl2"),
    "xgboost": ("xgboost", "xgb_limitdepth"),
    "extra_trees": ("extra_tree",),
    "lightgbm": ("lgbm",),
}


class _GivenFolds:
    """Our folds, as FLAML takes a splitter of the user's own; it then leaves the rows in their order."""

    shuffle = False

    def __init__(self, splits: list[tuple[np.ndarray, np.ndarray]], n_rows: int) -> None:
        self._splits, self._n_rows = splits, n_rows

    def get_n_splits(self, *_: Any) -> int:
        return len(self._splits)

    def split(self, x_NF: np.ndarray, *_: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        assert len(x_NF) == self._n_rows, "FLAML has left out rows or added some; the folds would be others"
        return iter(self._splits)


def search(task: Task) -> Found:
    """Chosen by FLAML. Its seconds hold its refit, which takes a fraction of one."""
    budget = task.budget
    # Its logistic regressions know no scaler; with one scale for all features they stand a chance.
    centre_F, spread_F = task.x_NF.mean(axis=0), task.x_NF.std(axis=0)
    search = AutoML()
    begin = time.perf_counter()
    search.fit(
        (task.x_NF - centre_F) / spread_F,
        task.y_N,
        task="classification",
        metric="roc_auc",
        estimator_list=[family for name in budget.algorithms for family in FAMILIES[name]],
        eval_method="cv",
        split_type=_GivenFolds(task.splits(), len(task.y_N)),
        time_budget=budget.seconds,
        n_jobs=budget.cores,
        seed=budget.seed,
        verbose=0,
    )
    wall_s = time.perf_counter() - begin
    scores = search.predict_proba((task.held_out_x_NF - centre_F) / spread_F)[:, 1]
    return Found(
        wall_s=wall_s,
        start_s=0.0,
        trials=sum(search._iter_per_learner.values()),
        trials_s=wall_s,
        chosen=search.best_estimator,
        scores={"best": scores},
    )

"""Our algorithms as plain scikit-learn estimators, and our search spaces as distributions to draw from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import loguniform, randint, uniform
from sklearn.base import BaseEstimator, clone
from sklearn.pipeline import Pipeline

from sarc_ray.stage2.algorithms import ALGORITHMS, Choice, Integer, Real


@dataclass(frozen=True)
class LogInteger:
    """Whole numbers, uniform on a logarithmic axis, as Optuna draws them."""

    low: int
    high: int

    def rvs(self, *, random_state: np.random.RandomState) -> int:
        """Draw one, as scikit-learn asks for it."""
        value = np.exp(random_state.uniform(np.log(self.low - 0.5), np.log(self.high + 0.5)))
        return int(np.clip(np.rint(value), self.low, self.high))


def unfitted(name: str, *, seed: int) -> BaseEstimator:
    """The library's own class with its defaults, one thread; cloned, because our forests have trees of their own."""
    return clone(ALGORITHMS[name].make({}, seed, 1))


def with_params(name: str, params: Mapping[str, Any], y_N: np.ndarray, *, seed: int) -> BaseEstimator:
    """With parameters as our spaces name them."""
    estimator = unfitted(name, seed=seed)
    values = {key: value for key, value in params.items() if key != "class_weight"}
    key, options = _class_weight(name, y_N)
    values[key] = options[params["class_weight"]]
    return estimator.set_params(**{_prefix(estimator) + key: value for key, value in values.items()})


def distributions(name: str, y_N: np.ndarray) -> dict[str, Any]:
    """What ``RandomizedSearchCV`` draws from: our space under the names of the estimator."""
    prefix = _prefix(unfitted(name, seed=0))
    space = ALGORITHMS[name].space
    drawn = {prefix + key: _distribution(kind) for key, kind in space.items() if not isinstance(kind, Choice)}
    key, options = _class_weight(name, y_N)
    return {**drawn, prefix + key: list(options.values())}


def _distribution(kind: Integer | Real) -> Any:
    if isinstance(kind, Real):
        return loguniform(kind.low, kind.high) if kind.log else uniform(kind.low, kind.high - kind.low)
    if kind.log:
        return LogInteger(kind.low, kind.high)
    return randint(kind.low, kind.high + 1) if kind.step == 1 else list(range(kind.low, kind.high + 1, kind.step))


def _class_weight(name: str, y_N: np.ndarray) -> tuple[str, dict[str, Any]]:
    """XGBoost knows no class weights; the ratio of the classes, as its documentation advises, ranks alike."""
    if name == "xgboost":
        return "scale_pos_weight", {"none": 1.0, "balanced": float((y_N == 0).sum() / (y_N == 1).sum())}
    return "class_weight", {"none": None, "balanced": "balanced"}


def _prefix(estimator: BaseEstimator) -> str:
    return f"{estimator.steps[-1][0]}__" if isinstance(estimator, Pipeline) else ""

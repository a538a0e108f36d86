"""The five algorithms of stage 2 and their search spaces, in one table.

Random forest, regularised logistic regression, extreme gradient boosting, extra trees and light gradient boosting are
the paper's (Ryu et al. 2023, "Step 2"); it does not publish its search spaces. Ours are made for what stage 2 sees:
some hundreds of patients, a tenth to a fifth of them with the outcome, about nine features of which several say
nearly the same thing. So trees are kept shallow or their leaves large, boosted ensembles have at most 300 trees and
forests 200, and class weighting is searched rather than decided, because it moves probabilities (which calibration
mends) but may also help or hurt the ranking.

References:
    Probst P, Boulesteix A-L (2018). To tune or not to tune the number of trees in random forest. Journal of Machine
    Learning Research 18:1-18.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from sarc_ray.errors import ConfigError, EvaluationError

Float: TypeAlias = npt.NDArray[np.float64]
Params: TypeAlias = Mapping[str, Any]


class Trial(Protocol):
    """The part of ``optuna.trial.Trial`` that a search space uses."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """Draw a whole number."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """Draw a number."""

    def suggest_categorical(self, name: str, choices: list[str]) -> Any:
        """Draw one of some values."""


@dataclass(frozen=True)
class Integer:
    """Whole numbers from ``low`` to ``high``, both included."""

    low: int
    high: int
    step: int = 1
    log: bool = False
    why: str = field(kw_only=True, repr=False)

    def suggest(self, trial: Trial, name: str) -> int:
        """Draw a value."""
        return trial.suggest_int(name, self.low, self.high, step=self.step, log=self.log)

    def allows(self, value: Any) -> bool:
        """True for a value of this range."""
        return isinstance(value, int) and self.low <= value <= self.high


@dataclass(frozen=True)
class Fixed(Integer):
    """A whole number that is not searched: ``low`` is ``high``. A model made with another one can be made again."""

    def allows(self, value: Any) -> bool:
        """True for a whole number from 1."""
        return isinstance(value, int) and value >= 1


@dataclass(frozen=True)
class Real:
    """Numbers from ``low`` to ``high``, both included."""

    low: float
    high: float
    log: bool = False
    why: str = field(kw_only=True, repr=False)

    def suggest(self, trial: Trial, name: str) -> float:
        """Draw a value."""
        return trial.suggest_float(name, self.low, self.high, log=self.log)

    def allows(self, value: Any) -> bool:
        """True for a value of this range."""
        return isinstance(value, float | int) and self.low <= value <= self.high


@dataclass(frozen=True)
class Choice:
    """One of some words."""

    options: tuple[str, ...]
    why: str = field(kw_only=True, repr=False)

    def suggest(self, trial: Trial, name: str) -> str:
        """Draw a value."""
        return str(trial.suggest_categorical(name, list(self.options)))

    def allows(self, value: Any) -> bool:
        """True for one of the words."""
        return value in self.options


@dataclass(frozen=True, kw_only=True)
class Algorithm:
    """One algorithm: what it is called in the report, how its unfitted estimator is made, what is searched.

    Attributes:
        label: for people.
        make: from hyper-parameters, seed and threads.
        space: what is searched, and why so far.
        gpu: arguments by which it is fitted on a GPU; None where it knows none.
    """

    label: str
    make: Callable[[dict[str, Any], int, int], Any]
    space: Mapping[str, Integer | Real | Choice]
    gpu: Mapping[str, Any] | None = None


# The libraries are imported where an estimator is made: the table below is read by commands that make none.


def _random_forest(params: dict[str, Any], seed: int, n_jobs: int) -> Any:
    from sarc_ray.stage2.forests import random_forest

    return random_forest(**params, random_state=seed, n_jobs=n_jobs)


def _extra_trees(params: dict[str, Any], seed: int, n_jobs: int) -> Any:
    from sarc_ray.stage2.forests import extra_trees

    return extra_trees(**params, random_state=seed, n_jobs=n_jobs)


def _logistic_regression(params: dict[str, Any], seed: int, n_jobs: int) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler

    # saga is the solver that knows the elastic net; it wants features of one scale, hence the scaler.
    model = LogisticRegression(**params, solver="saga", max_iter=10_000, random_state=seed)
    return Pipeline([("scale", StandardScaler()), ("logistic", model)])


def _xgboost(params: dict[str, Any], seed: int, n_jobs: int) -> Any:
    import xgboost

    return xgboost.XGBClassifier(
        **params, objective="binary:logistic", tree_method="hist", random_state=seed, n_jobs=n_jobs
    )


def _lightgbm(params: dict[str, Any], seed: int, n_jobs: int) -> Any:
    import lightgbm

    # subsample_freq=1: without it LightGBM ignores subsample. deterministic and row-wise: same trees on every run.
    return lightgbm.LGBMClassifier(
        **params,
        subsample_freq=1,
        random_state=seed,
        n_jobs=n_jobs,
        deterministic=True,
        force_row_wise=True,
        verbosity=-1,
    )


_CLASS_WEIGHT = Choice(("none", "balanced"), why="moves probabilities, and may help or hurt the ranking")
_TREES = "not searched: more trees are never worse, only slower, and little is gained beyond (Probst & Boulesteix 2018)"
_LEAF = "the parameter that matters: it smooths the probabilities"
_TURNS = "below 1, features that say the same take turns"
_SHRINKAGE = "traded against the number of trees"
_ROWS = "below 1, trees see different patients and err less alike"
_PENALTY = "from hardly any shrinking of leaves to strong"

ALGORITHMS: dict[str, Algorithm] = {
    "random_forest": Algorithm(
        label="Random forest",
        make=_random_forest,
        space={
            "n_estimators": Fixed(200, 200, why=_TREES),
            "max_depth": Integer(2, 10, why="ten is as good as unlimited at some hundreds of patients"),
            "min_samples_leaf": Integer(1, 40, log=True, why=_LEAF),
            "max_features": Real(0.1, 1.0, why="correlated features: from one at a time to all"),
            "class_weight": _CLASS_WEIGHT,
        },
    ),
    "logistic_regression": Algorithm(
        label="Regularised logistic regression",
        make=_logistic_regression,
        space={
            "C": Real(1e-2, 1e2, log=True, why="from strongly shrunk to nearly unpenalised, on standardised features"),
            "l1_ratio": Real(
                0.0,
                1.0,
                why="ridge (0) suits correlated features, lasso (1) drops useless ones; elastic net between",
            ),
            "class_weight": _CLASS_WEIGHT,
        },
    ),
    "xgboost": Algorithm(
        label="Extreme gradient boosting",
        make=_xgboost,
        gpu={"device": "cuda"},
        space={
            "n_estimators": Integer(50, 300, step=50, why="no early stopping, which would need patients of its own"),
            "learning_rate": Real(0.01, 0.3, log=True, why=_SHRINKAGE),
            "max_depth": Integer(1, 5, why="1 is an additive model; interactions beyond a few are noise here"),
            "min_child_weight": Real(1.0, 20.0, log=True, why="no leaf with less information than this"),
            "subsample": Real(0.5, 1.0, why=_ROWS),
            "colsample_bytree": Real(0.4, 1.0, why=_TURNS),
            "reg_lambda": Real(0.1, 30.0, log=True, why=_PENALTY),
            "class_weight": _CLASS_WEIGHT,
        },
    ),
    "extra_trees": Algorithm(
        label="Extremely randomised trees",
        make=_extra_trees,
        space={
            "n_estimators": Fixed(200, 200, why=_TREES),
            "max_depth": Integer(3, 14, why="random cuts waste some levels, so deeper than a forest"),
            "min_samples_leaf": Integer(1, 40, log=True, why=_LEAF),
            "max_features": Real(0.1, 1.0, why="correlated features: from one at a time to all"),
            "class_weight": _CLASS_WEIGHT,
        },
    ),
    "lightgbm": Algorithm(
        label="Light gradient boosting machine",
        make=_lightgbm,
        gpu={"device_type": "gpu"},
        space={
            "n_estimators": Integer(50, 300, step=50, why="no early stopping, which would need patients of its own"),
            "learning_rate": Real(0.01, 0.3, log=True, why=_SHRINKAGE),
            "num_leaves": Integer(2, 16, log=True, why="it grows leaf by leaf: this, not depth, is its complexity"),
            "min_child_samples": Integer(
                5, 60, log=True, why="its default of 20 is half of what the events of a fold leave"
            ),
            "subsample": Real(0.5, 1.0, why=_ROWS),
            "colsample_bytree": Real(0.4, 1.0, why=_TURNS),
            "reg_lambda": Real(0.01, 30.0, log=True, why=_PENALTY),
            "class_weight": _CLASS_WEIGHT,
        },
    ),
}


def suggest(name: str, trial: Trial) -> dict[str, Any]:
    """Draw the hyper-parameters of one algorithm, define-by-run, as Optuna's ``trial`` offers them.

    Args:
        name: a key of ``ALGORITHMS``.
        trial: an ``optuna.trial.Trial`` or whatever has its ``suggest_*`` methods.

    Returns:
        Plain scalars and words only, so that they go through JSON and Parquet unchanged.

    Raises:
        ConfigError: unknown algorithm.
    """
    return {key: parameter.suggest(trial, key) for key, parameter in _algorithm(name).space.items()}


def build(name: str, params: Params, *, seed: int, n_jobs: int, on_gpu: bool = False) -> Any:
    """Make the unfitted scikit-learn estimator of one algorithm. Class weighting belongs to :func:`fit`.

    Args:
        name: a key of ``ALGORITHMS``.
        params: exactly the keys of its search space, each within its range.
        seed: of the estimator's own randomness.
        n_jobs: threads while fitting.
        on_gpu: fit boosted trees on a GPU; the others stay on the CPU.

    Raises:
        ConfigError: unknown algorithm, or a parameter that is missing, unknown or out of range.
    """
    algorithm = _algorithm(name)
    if set(params) != set(algorithm.space):
        raise ConfigError(
            f"{name}: found parameters {', '.join(sorted(params))}; needed are {', '.join(sorted(algorithm.space))}"
        )
    for key, parameter in algorithm.space.items():
        if not parameter.allows(params[key]):
            raise ConfigError(f"{name}.{key}: found {params[key]!r}, allowed: {parameter}")
    constructor = {key: value for key, value in params.items() if key != "class_weight"}
    estimator = algorithm.make(constructor, seed, n_jobs)
    return estimator.set_params(**algorithm.gpu) if on_gpu and algorithm.gpu else estimator


def fit(
    name: str,
    params: Params,
    x_NF: Float,
    y_N: npt.NDArray[np.int64],
    *,
    seed: int,
    n_jobs: int,
    on_gpu: bool = False,
) -> Any:
    """Fit one algorithm.

    Class weight "balanced" gives each class half of the total weight, as in scikit-learn; it enters every algorithm
    in the same way, as sample weights.

    Args:
        name: a key of ``ALGORITHMS``.
        params: as :func:`suggest` returns them.
        x_NF: features, shape (n_rows, n_features), no NaN.
        y_N: 0/1 labels, shape (n_rows,), both classes present.
        seed: of the estimator's own randomness.
        n_jobs: threads.
        on_gpu: as in :func:`build`.

    Returns:
        The fitted scikit-learn estimator (of xgboost and lightgbm: their scikit-learn classes).

    Raises:
        ConfigError: as :func:`build`.
        EvaluationError: one class only, or NaN among the features.
    """
    estimator = build(name, params, seed=seed, n_jobs=n_jobs, on_gpu=on_gpu)
    _check_training_table(x_NF, y_N)
    weight_N = np.ones(len(y_N))
    if params["class_weight"] == "balanced":
        weight_N = len(y_N) / (2.0 * np.bincount(y_N, minlength=2)[y_N])
    # The logistic regression is a pipeline, which wants the name of the step that takes the weights.
    key = "logistic__sample_weight" if name == "logistic_regression" else "sample_weight"
    return estimator.fit(x_NF, y_N, **{key: weight_N})


def _algorithm(name: str) -> Algorithm:
    if name not in ALGORITHMS:
        raise ConfigError(f"algorithms: {name!r} is not known; allowed: {', '.join(ALGORITHMS)}")
    return ALGORITHMS[name]


def _check_training_table(x_NF: Float, y_N: npt.NDArray[np.int64]) -> None:
    if not np.isfinite(x_NF).all():
        raise EvaluationError(
            "training table: a feature is missing or infinite; leave out such patients or the feature"
        )
    if set(np.unique(y_N)) != {0, 1}:
        raise EvaluationError(f"training table: found classes {np.unique(y_N)}; both 0 and 1 are needed")

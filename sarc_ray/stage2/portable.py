"""Fitted classifiers in the form that a bundle stores: numbers and text, no Python objects of other libraries.

Shapes: N rows, F features, T trees, Q nodes of all trees.

Why not the estimators themselves: their attributes change with every release of scikit-learn, a forest keeps the
weights of its training patients, and a tree's compiled predictor follows node indices without checking them, so that
an altered file could make it read foreign memory. Here every index is checked when a model is made, whatever made it.
Boosters stay in their library's documented text format, checked in the same way before the library reads it.
Every row's result is independent of the other rows of its batch.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.special import expit
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.pipeline import Pipeline

from sarc_ray.errors import BundleError
from sarc_ray.stage2.algorithms import Float

Int = npt.NDArray[np.int64]
_ROWS_AT_ONCE = 1024  # rows x trees is held at once


@dataclass(frozen=True, eq=False)
class Forest:
    """Random forest or extra trees: the mean over trees of the leaf's share of class 1.

    Attributes (one per node, shape (Q,), of all trees in turn; ``root`` has shape (T,)):
        left: child where feature <= threshold; of a leaf, the leaf itself.
        right: child otherwise; of a leaf, the leaf itself.
        feature: column that a node asks for; 0 at leaves.
        threshold: its cut; infinite at leaves.
        share: weighted share of class 1 among the training rows of a node.
        cover: weighted number of training rows of a node (for SHAP).
        root: first node of each tree.
        n_features: number of columns.
    """

    left: Int
    right: Int
    feature: Int
    threshold: Float
    share: Float
    cover: Float
    root: Int
    n_features: int

    def __post_init__(self) -> None:
        size = self.left.shape
        for name in ("right", "feature", "threshold", "share", "cover"):
            _require(getattr(self, name).shape == size and len(size) == 1, f"{name} has another length than left")
        node_Q = np.arange(size[0])
        leaf_Q = (self.left == node_Q) & (self.right == node_Q)
        end_Q = _end_of_tree(self.root, size[0])
        # A child lies behind its parent and in the same tree: so no walk leaves the arrays, and every walk ends.
        for child_Q in (self.left, self.right):
            _require(bool(np.all(leaf_Q | ((child_Q > node_Q) & (child_Q < end_Q)))), "a node has an impossible child")
        _require(_within(self.feature, self.n_features), "a node asks for a feature that does not exist")
        _require(bool(np.all((self.share >= 0.0) & (self.share <= 1.0))), "a share lies outside 0 to 1")
        _require(not np.isnan(self.threshold).any(), "a threshold is not a number")
        _require(bool(np.isposinf(self.threshold[leaf_Q]).all()), "a leaf has a threshold")

    def raw_score(self, x_NF: Float) -> Float:
        """Probability of class 1 before calibration, shape (n_rows,)."""
        # scikit-learn's trees were grown on float32 features; the same rounding gives the same leaf.
        x32_NF = np.asarray(x_NF, dtype=np.float32)
        parts = [x32_NF[i : i + _ROWS_AT_ONCE] for i in range(0, len(x32_NF), _ROWS_AT_ONCE)]
        return np.concatenate([self._share(part) for part in parts]) if parts else np.empty(0)

    def _share(self, x_NF: npt.NDArray[np.float32]) -> Float:
        row_N1 = np.arange(len(x_NF))[:, None]
        node_NT = np.broadcast_to(self.root, (len(x_NF), len(self.root)))
        while True:
            goes_left_NT = x_NF[row_N1, self.feature[node_NT]] <= self.threshold[node_NT]
            next_NT = np.where(goes_left_NT, self.left[node_NT], self.right[node_NT])
            if np.array_equal(next_NT, node_NT):
                return self.share[node_NT].mean(axis=1)
            node_NT = next_NT

    def to_state(self) -> dict[str, Any]:
        """Arrays, text and numbers that make this model again."""
        return dict(vars(self))

    @classmethod
    def from_estimator(cls, forest: Any) -> Forest:
        """Take the trees out of a fitted scikit-learn forest of two classes."""
        trees = [tree.tree_ for tree in forest.estimators_]
        root = np.concatenate([[0], np.cumsum([tree.node_count for tree in trees])[:-1]]).astype(np.int64)
        leaf_Q = np.concatenate([tree.children_left < 0 for tree in trees])
        node_Q = np.arange(len(leaf_Q))

        def joined(name: str) -> npt.NDArray[Any]:
            return np.concatenate([getattr(tree, name) for tree in trees])

        def child(name: str) -> Int:
            absolute_Q = np.concatenate([getattr(t, name) + first for t, first in zip(trees, root, strict=True)])
            return np.where(leaf_Q, node_Q, absolute_Q).astype(np.int64)

        value_QC = joined("value")[:, 0, :]
        return cls(
            left=child("children_left"),
            right=child("children_right"),
            feature=np.where(leaf_Q, 0, joined("feature")).astype(np.int64),
            threshold=np.where(leaf_Q, np.inf, joined("threshold")),
            share=np.asarray(value_QC[:, 1] / value_QC.sum(axis=1), dtype=np.float64),
            cover=joined("weighted_n_node_samples").astype(np.float64),
            root=root,
            n_features=int(forest.n_features_in_),
        )


@dataclass(frozen=True, eq=False)
class Linear:
    """Logistic regression on standardised features: ``mean``, ``scale`` and ``coef`` have shape (F,)."""

    mean: Float
    scale: Float
    coef: Float
    intercept: float

    def __post_init__(self) -> None:
        arrays = (self.mean, self.scale, self.coef)
        _require(all(a.ndim == 1 and a.shape == self.mean.shape for a in arrays), "coefficients differ in length")
        _require(all(bool(np.isfinite(a).all()) for a in arrays), "a coefficient is not finite")
        _require(bool((self.scale > 0.0).all()) and bool(np.isfinite(self.intercept)), "a scale is not above 0")

    @property
    def n_features(self) -> int:
        """Number of columns."""
        return len(self.coef)

    def raw_score(self, x_NF: Float) -> Float:
        """Probability of class 1 before calibration, shape (n_rows,)."""
        # A sum per row, not a matrix product: BLAS may round a row differently in batches of another size.
        log_odds_N = ((x_NF - self.mean) / self.scale * self.coef).sum(axis=1) + self.intercept
        return np.asarray(expit(log_odds_N), dtype=np.float64)

    def to_state(self) -> dict[str, Any]:
        """Arrays, text and numbers that make this model again."""
        return dict(vars(self))

    @classmethod
    def from_estimator(cls, pipeline: Any) -> Linear:
        """Take the coefficients out of a fitted pipeline of scaler and logistic regression."""
        scaler, logistic = pipeline["scale"], pipeline["logistic"]
        return cls(scaler.mean_, scaler.scale_, logistic.coef_[0], float(logistic.intercept_[0]))


@dataclass(frozen=True, eq=False)
class XgboostTrees:
    """XGBoost's booster as its documented JSON, keys sorted."""

    text: str

    def __post_init__(self) -> None:
        try:
            _check_xgboost(json.loads(self.text)["learner"])
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            if isinstance(error, BundleError):
                raise
            raise BundleError(f"stage 2: the XGBoost model is not in the expected form ({error!r})") from error

    @property
    def n_features(self) -> int:
        """Number of columns."""
        return int(json.loads(self.text)["learner"]["learner_model_param"]["num_feature"])

    @functools.cached_property
    def booster(self) -> Any:
        """XGBoost's own object, set to one thread: batches are small."""
        import xgboost

        return xgboost.Booster(params={"nthread": 1}, model_file=bytearray(self.text.encode("ascii")))

    def raw_score(self, x_NF: Float) -> Float:
        """Probability of class 1 before calibration, shape (n_rows,)."""
        return np.asarray(self.booster.inplace_predict(x_NF), dtype=np.float64)

    def to_state(self) -> dict[str, Any]:
        """Arrays, text and numbers that make this model again."""
        return {"text": self.text}

    def __getstate__(self) -> dict[str, Any]:
        return {"text": self.text}  # the booster is read again where this lands

    @classmethod
    def from_estimator(cls, classifier: Any) -> XgboostTrees:
        """Take the trees out of a fitted ``XGBClassifier``."""
        model = json.loads(classifier.get_booster().save_raw("json"))
        return cls(json.dumps(model, sort_keys=True, separators=(",", ":")))


@dataclass(frozen=True, eq=False)
class LightgbmTrees:
    """LightGBM's booster as its documented text: header and trees, without training parameters.

    The header's ``feature_infos`` (the least and greatest value of each feature among the training patients) is left
    out: prediction does not need it, and it would tell single patients' values.
    """

    text: str

    def __post_init__(self) -> None:
        try:
            _check_lightgbm(self.text)
        except (KeyError, ValueError, IndexError) as error:
            if isinstance(error, BundleError):
                raise
            raise BundleError(f"stage 2: the LightGBM model is not in the expected form ({error!r})") from error

    @property
    def n_features(self) -> int:
        """Number of columns."""
        return int(_keys(self.text.split("\nTree=")[0])["max_feature_idx"]) + 1

    @functools.cached_property
    def booster(self) -> Any:
        """LightGBM's own object."""
        import lightgbm

        return lightgbm.Booster(model_str=self.text)

    def raw_score(self, x_NF: Float) -> Float:
        """Probability of class 1 before calibration, shape (n_rows,)."""
        return np.asarray(self.booster.predict(x_NF, num_threads=1), dtype=np.float64)

    def to_state(self) -> dict[str, Any]:
        """Arrays, text and numbers that make this model again."""
        return {"text": self.text}

    def __getstate__(self) -> dict[str, Any]:
        return {"text": self.text}  # the booster is read again where this lands

    @classmethod
    def from_estimator(cls, classifier: Any) -> LightgbmTrees:
        """Take the trees out of a fitted ``LGBMClassifier``."""
        trees, end, _ = classifier.booster_.model_to_string().partition("end of trees\n")
        lines = [
            "feature_infos=" + " ".join(["none"] * int(classifier.n_features_in_))
            if line.startswith("feature_infos=")
            else line
            for line in trees.split("\n")
        ]
        return cls("\n".join(lines) + end)


Fitted: TypeAlias = Forest | Linear | XgboostTrees | LightgbmTrees
# The form that each algorithm's model takes; the key of the second mapping is what a file says.
FORMS: Mapping[str, type[Forest] | type[Linear] | type[XgboostTrees] | type[LightgbmTrees]] = {
    "forest": Forest,
    "linear": Linear,
    "xgboost_json": XgboostTrees,
    "lightgbm_text": LightgbmTrees,
}


def portable(estimator: Any) -> Fitted:
    """Turn what :func:`sarc_ray.stage2.algorithms.fit` returns into its portable form."""
    if isinstance(estimator, RandomForestClassifier | ExtraTreesClassifier):
        return Forest.from_estimator(estimator)
    if isinstance(estimator, Pipeline):
        return Linear.from_estimator(estimator)
    if hasattr(estimator, "get_booster"):
        return XgboostTrees.from_estimator(estimator)
    return LightgbmTrees.from_estimator(estimator)


def _require(holds: bool, problem: str) -> None:
    if not holds:
        raise BundleError(f"stage 2: the model is damaged or altered: {problem}; get the bundle again from its source")


def _within(values: npt.ArrayLike, n: int) -> bool:
    array = np.asarray(values)
    return bool(np.all((array >= 0) & (array < n)))


def _end_of_tree(root: Int, n_nodes: int) -> Int:
    bounds = np.append(root, n_nodes)
    _require(
        len(root) > 0 and bounds[0] == 0 and bool((np.diff(bounds) > 0).all()), "the trees' roots are out of order"
    )
    return np.repeat(bounds[1:], np.diff(bounds))


def _check_xgboost(learner: Mapping[str, Any]) -> None:
    model = learner["gradient_booster"]["model"]
    n_features = int(learner["learner_model_param"]["num_feature"])
    _require(learner["gradient_booster"]["name"] == "gbtree", "not a booster of trees")
    _require(learner["objective"]["name"] == "binary:logistic", "not a booster of two classes")
    _require(len(model["trees"]) == int(model["gbtree_model_param"]["num_trees"]), "the number of trees differs")
    _require(len(model["tree_info"]) == len(model["trees"]) and not any(model["tree_info"]), "trees of other classes")
    for tree in model["trees"]:
        left, right = np.asarray(tree["left_children"]), np.asarray(tree["right_children"])
        n_nodes = int(tree["tree_param"]["num_nodes"])
        per_node = (
            "left_children",
            "right_children",
            "split_indices",
            "split_conditions",
            "split_type",
            "default_left",
        )
        _require(all(len(tree[key]) == n_nodes for key in per_node), "a tree's lists differ in length")
        node = np.arange(n_nodes)
        inner = (left > node) & (right > node) & (left < n_nodes) & (right < n_nodes)
        _require(bool(np.all(inner | ((left == -1) & (right == -1)))), "a node has an impossible child")
        _require(_within(tree["split_indices"], n_features), "a node asks for a feature that does not exist")
        _require(not any(tree["split_type"]) and not tree["categories"], "a node splits categories")


def _check_lightgbm(text: str) -> None:
    header, *trees = text.split("\nTree=")
    _require(text.endswith("end of trees\n") and text.count("end of trees") == 1, "the end of the trees is missing")
    keys = _keys(header)
    _require(keys["objective"] == "binary sigmoid:1" and keys["num_class"] == "1", "not a booster of two classes")
    _require(keys["num_tree_per_iteration"] == "1", "not a booster of two classes")
    _require(len(keys["tree_sizes"].split()) == len(trees), "the number of trees differs")
    for tree in trees:
        values = _keys("Tree=" + tree)
        n_leaves = int(values["num_leaves"])
        _require(values["num_cat"] == "0" and values["is_linear"] == "0", "a tree of another kind")
        _require(len(values["leaf_value"].split()) == n_leaves, "a tree's lists differ in length")
        if n_leaves > 1:
            _check_lightgbm_nodes(values, n_leaves, int(keys["max_feature_idx"]) + 1)


def _check_lightgbm_nodes(values: Mapping[str, str], n_leaves: int, n_features: int) -> None:
    node = np.arange(n_leaves - 1)
    for key in ("split_feature", "threshold", "decision_type", "left_child", "right_child"):
        _require(len(values[key].split()) == len(node), "a tree's lists differ in length")
    for key in ("left_child", "right_child"):
        child = np.asarray(values[key].split(), dtype=np.int64)  # a leaf is written as -1 - its number
        inner = (child > node) & (child < len(node))
        _require(bool(np.all(inner | ((child < 0) & (child >= -n_leaves)))), "a node has an impossible child")
    _require(
        _within(np.asarray(values["split_feature"].split(), dtype=np.int64), n_features), "a feature does not exist"
    )
    _require(set(values["decision_type"].split()) <= {"0", "2"}, "a node splits categories")


def _keys(lines: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in lines.split("\n") if "=" in line)

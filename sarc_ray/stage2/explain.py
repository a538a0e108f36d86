"""SHAP values of stage 2: what each feature adds to one patient's raw score.

There is one classifier, fitted on all training patients; folds serve its calibration alone, so there is nothing to
average over. Its values explain it before calibration. The map that follows, where one is in force, is increasing, so
signs and order are those of the score too, amounts are not.
"""

from __future__ import annotations

import itertools
import warnings
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from sarc_ray.stage2.algorithms import Float
from sarc_ray.stage2.model import Stage2Model
from sarc_ray.stage2.portable import Fitted, Forest, Linear


@dataclass(frozen=True, slots=True)
class Explanation:
    """SHAP values; ``base + values.sum(axis=1)`` is the raw score on the stated scale.

    Attributes:
        values: shape (n_rows, n_features).
        base: what is said of a patient of whom nothing is known.
        feature_names: of the columns.
        scale: "probability" (forests average probabilities) or "log-odds" (boosters and logistic regression add
            log-odds).
        label: for the axis of a figure; says that calibration is not in it.
    """

    values: Float
    base: float
    feature_names: tuple[str, ...]
    scale: Literal["probability", "log-odds"]
    label: str


@dataclass(frozen=True, slots=True)
class Explainer:
    """Explains batch after batch of one model; made by :func:`make_explainer`.

    Attributes:
        model: what is explained.
        engine: the explainer of the package shap.
    """

    model: Stage2Model
    engine: Any

    def explain(self, X: pd.DataFrame) -> Explanation:
        """SHAP values of every row and feature; those of a row do not depend on its neighbours.

        Args:
            X: feature table, shape (n_rows, n_features), no NaN.

        Raises:
            EvaluationError: a feature is absent or missing.
        """
        fitted = self.model.fitted
        x_NF = self.model.matrix(X)
        scale: Literal["probability", "log-odds"] = "probability" if isinstance(fitted, Forest) else "log-odds"
        values = np.asarray(self.engine.shap_values(_as_fitted(fitted, x_NF)), dtype=np.float64)
        if values.ndim == 3:  # one matrix per class or output
            values = values[:, :, -1]
        base = float(np.ravel(self.engine.expected_value)[-1])
        label = f"SHAP value ({scale}, before calibration)"
        return Explanation(values.reshape(x_NF.shape), base, self.model.feature_names, scale, label)


def make_explainer(model: Stage2Model) -> Explainer:
    """The explainer of a model; takes a few seconds the first time, because shap is slow to import.

    Trees: exact, with the training patients' own way through the trees as background (Lundberg et al. 2020). Logistic
    regression: exact for independent features, against the training mean.

    References:
        Lundberg SM, Lee SI (2017). A unified approach to interpreting model predictions.
        Lundberg SM et al. (2020). From local explanations to global understanding with explainable AI for trees.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=PendingDeprecationWarning)  # its colour maps, made on import
        import shap  # slow to import, and needed only where something is explained

    fitted = model.fitted
    if isinstance(fitted, Linear):
        # On the standardised scale the training mean is the zero vector.
        background = np.zeros((1, fitted.n_features))
        return Explainer(model, shap.LinearExplainer((fitted.coef, fitted.intercept), background))
    if isinstance(fitted, Forest):
        return Explainer(model, shap.TreeExplainer({"trees": _trees(fitted)}))
    return Explainer(model, shap.TreeExplainer(fitted.booster))


def shap_values(model: Stage2Model, X: pd.DataFrame) -> Explanation:
    """SHAP values of one table; see :func:`make_explainer` and :meth:`Explainer.explain`."""
    return make_explainer(model).explain(X)


@dataclass(frozen=True, slots=True)
class TopReasons:
    """The largest contributions to each row's raw score.

    Attributes:
        explainer: of the model.
        n: how many of them, 1 or more.
    """

    explainer: Explainer
    n: int

    def of(self, X: pd.DataFrame) -> pd.DataFrame:
        """Name and SHAP value of the n features that move each row's raw score most, up or down.

        Args:
            X: as in :meth:`Explainer.explain`.

        Returns:
            Columns of :func:`reason_columns`, index of ``X``. Equal amounts stand in the order of the features; a
            feature that contributes nothing is no reason, and its place is empty (None, NaN).
        """
        found = self.explainer.explain(X)
        order_NF = np.argsort(-np.abs(found.values), axis=1, kind="stable")
        value_NF = np.take_along_axis(found.values, order_NF, axis=1)
        name_NF = np.asarray([*found.feature_names], dtype=object)[order_NF]
        name_NF[value_NF == 0.0] = None
        value_NF = np.where(value_NF == 0.0, np.nan, value_NF)
        columns: dict[str, Any] = {}
        for rank, (name, amount) in enumerate(reason_columns(self.n)):
            # Fewer features than reasons: the rest stays empty.
            there = rank < name_NF.shape[1]
            columns[name] = name_NF[:, rank] if there else np.full(len(X), None)
            columns[amount] = value_NF[:, rank] if there else np.full(len(X), np.nan)
        return pd.DataFrame(columns, index=X.index)


def reason_columns(n: int) -> list[tuple[str, str]]:
    """Names of the columns of n reasons, the largest first: the feature, and its SHAP value.

    >>> reason_columns(2)
    [('reason_1', 'reason_1_shap'), ('reason_2', 'reason_2_shap')]
    """
    return [(f"reason_{rank}", f"reason_{rank}_shap") for rank in range(1, n + 1)]


def _as_fitted(fitted: Fitted, x_NF: Float) -> Float:
    """The features as the fitted model itself sees them."""
    if isinstance(fitted, Linear):
        return (x_NF - fitted.mean) / fitted.scale
    return x_NF.astype(np.float32).astype(np.float64) if isinstance(fitted, Forest) else x_NF


def _trees(forest: Forest) -> list[dict[str, Any]]:
    """The forest as SHAP wants it: child -1 at leaves, values already divided by the number of trees."""
    bounds = np.append(forest.root, len(forest.left))
    trees = []
    for start, end in itertools.pairwise(bounds):
        part = slice(int(start), int(end))
        leaf = forest.left[part] == np.arange(start, end)
        left = np.where(leaf, -1, forest.left[part] - start)
        trees.append(
            {
                "children_left": left,
                "children_right": np.where(leaf, -1, forest.right[part] - start),
                "children_default": left,
                "features": np.where(leaf, -2, forest.feature[part]),
                "thresholds": np.where(leaf, -2.0, forest.threshold[part]),
                "values": forest.share[part][:, None] / len(forest.root),
                "node_sample_weight": forest.cover[part],
            }
        )
    return trees

"""SHAP values of stage 2: what each feature adds to one patient's raw score.

They explain the classifier before calibration. The map that follows, where one is in force, is increasing, so signs and
order are those of the score too, amounts are not.
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
from sarc_ray.stage2.portable import Forest, Linear


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


def shap_values(model: Stage2Model, X: pd.DataFrame) -> Explanation:
    """SHAP values of every row and feature.

    Trees: exact, with the training patients' own way through the trees as background (Lundberg et al. 2020). Logistic
    regression: exact for independent features, against the training mean.

    Args:
        model: the final model.
        X: feature table, shape (n_rows, n_features), no NaN.

    Raises:
        EvaluationError: a feature is absent or missing.

    References:
        Lundberg SM, Lee SI (2017). A unified approach to interpreting model predictions.
        Lundberg SM et al. (2020). From local explanations to global understanding with explainable AI for trees.
    """
    x_NF = model.matrix(X)
    scale: Literal["probability", "log-odds"] = "probability" if isinstance(model.fitted, Forest) else "log-odds"
    explainer, rows_NF = _explainer(model, x_NF)
    values = np.asarray(explainer.shap_values(rows_NF), dtype=np.float64)
    if values.ndim == 3:  # one matrix per class or output
        values = values[:, :, -1]
    base = float(np.ravel(explainer.expected_value)[-1])
    label = f"SHAP value ({scale}, before calibration)"
    return Explanation(values.reshape(x_NF.shape), base, model.feature_names, scale, label)


def _explainer(model: Stage2Model, x_NF: Float) -> tuple[Any, Float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=PendingDeprecationWarning)  # its colour maps, made on import
        import shap  # slow to import, and needed by the report alone

    fitted = model.fitted
    if isinstance(fitted, Linear):
        # On the standardised scale the training mean is the zero vector.
        background = np.zeros((1, fitted.n_features))
        return shap.LinearExplainer((fitted.coef, fitted.intercept), background), (x_NF - fitted.mean) / fitted.scale
    if isinstance(fitted, Forest):
        return shap.TreeExplainer({"trees": _trees(fitted)}), x_NF.astype(np.float32).astype(np.float64)
    return shap.TreeExplainer(fitted.booster), x_NF


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

"""What the final model uses on patients that it never saw: permutation importance and partial dependence.

N rows, F features, R repeats, G points of a grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from sarc_ray.errors import EvaluationError
from sarc_ray.stage2.algorithms import Float
from sarc_ray.stage2.model import Stage2Model
from sarc_ray.stats.discrimination import auroc


@dataclass(frozen=True, slots=True)
class PermutationImportance:
    """What the AUROC loses when a feature's values are dealt anew among the rows.

    Attributes:
        feature_names: in the model's order.
        auroc: with all features in place.
        drop_FR: ``auroc`` minus the AUROC with the feature dealt anew, shape (n_features, n_repeats); below 0 where the
            model does better without it.
    """

    feature_names: tuple[str, ...]
    auroc: float
    drop_FR: Float

    def table(self) -> pd.DataFrame:
        """``feature``, ``auroc_drop`` (mean over the repeats), ``auroc_drop_sd`` (ddof 1), largest drop first.

        The SD tells how much depends on how the values were dealt, not how much on which patients were tested.
        """
        table = pd.DataFrame(
            {
                "feature": self.feature_names,
                "auroc_drop": self.drop_FR.mean(axis=1),
                "auroc_drop_sd": self.drop_FR.std(axis=1, ddof=1),
            }
        )
        return table.sort_values("auroc_drop", ascending=False, kind="stable", ignore_index=True)


def permutation_importance(
    model: Stage2Model, X: pd.DataFrame, y: npt.ArrayLike, *, n_repeats: int, seed: int
) -> PermutationImportance:
    """Deal the values of one feature at a time anew among the rows, and see what the AUROC loses.

    The order of patients is the raw score's and the score's alike, so calibration plays no part. Features that say
    nearly the same stand in for each other, so that each of them may look useless.

    Args:
        model: the final model.
        X: features of rows that the model never learned from, shape (n_rows, n_features), no NaN.
        y: 0/1 labels, shape (n_rows,).
        n_repeats: how often each feature is dealt anew, 2 or more.
        seed: each feature has a stream of its own, so that further features change nothing.

    Raises:
        EvaluationError: one class is absent, or a feature is absent or missing.

    References:
        Breiman L (2001). Random forests. Fisher A, Rudin C, Dominici F (2019). All models are wrong, but many are
        useful.
    """
    x_NF, y_N = model.matrix(X), np.asarray(y)
    whole = auroc(y_N, model.fitted.raw_score(x_NF))
    if np.isnan(whole):
        raise EvaluationError("permutation importance: one class is absent; patients with and without are needed")
    drop_FR = np.empty((x_NF.shape[1], n_repeats))
    for f, stream in enumerate(np.random.SeedSequence(seed).spawn(x_NF.shape[1])):
        rng = np.random.default_rng(stream)
        dealt_NF = x_NF.copy()
        for r in range(n_repeats):
            dealt_NF[:, f] = rng.permutation(x_NF[:, f])
            drop_FR[f, r] = whole - auroc(y_N, model.fitted.raw_score(dealt_NF))
    return PermutationImportance(model.feature_names, whole, drop_FR)


def partial_dependence(model: Stage2Model, X: pd.DataFrame, features: Sequence[str], *, n_points: int) -> pd.DataFrame:
    """Mean score of the rows where one feature is set to the same value in all of them, value by value.

    The values are the middles of ``n_points`` groups of equal size, by linear interpolation between order statistics:
    the curve ends where patients become rare, and its points are as dense as they are. A feature that goes with
    another one is moved alone, into rows that may not exist.

    Args:
        model: the final model.
        X: features, shape (n_rows, n_features), no NaN.
        features: which of them to move.
        n_points: of each curve.

    Returns:
        ``feature``, ``percentile`` (0 to 100), ``value`` (in the feature's unit), ``score`` (mean score, after
        calibration where one is in force).

    Raises:
        EvaluationError: a feature is absent or missing.

    References:
        Friedman JH (2001). Greedy function approximation: a gradient boosting machine, section 8.2.
    """
    X = pd.DataFrame(model.matrix(X), columns=list(model.feature_names))
    percentile_G = 100.0 * (np.arange(n_points) + 0.5) / n_points
    parts = []
    for name in features:
        value_G = np.percentile(X[name], percentile_G)
        score_G = [model.predict(X.assign(**{name: value}))[1].mean() for value in value_G]
        parts.append(pd.DataFrame({"feature": name, "percentile": percentile_G, "value": value_G, "score": score_G}))
    return pd.concat(parts, ignore_index=True)

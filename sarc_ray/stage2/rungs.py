"""The ladder of models: stage 2 learned on more and more of its features, rung by rung.

N rows, F features.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from sarc_ray.stage2.algorithms import Float, Params, fit
from sarc_ray.stage2.features import feature_names
from sarc_ray.stage2.portable import Fitted, portable

CLINICAL, MEANS, UNCERTAINTIES = "clinical", "means", "uncertainties"
# A second opinion that no search has fitted to the full set of features: ridge regression, as it comes.
RIDGE: tuple[str, dict[str, Any]] = (
    "logistic_regression",
    {"C": 1.0, "l1_ratio": 0.0, "class_weight": "none"},
)


@dataclass(frozen=True, slots=True)
class Rung:
    """A classifier that was learned on some of the features.

    Attributes:
        columns: which.
        fitted: the classifier.
    """

    columns: tuple[str, ...]
    fitted: Fitted

    def raw_score(self, X: pd.DataFrame) -> Float:
        """Raw score of each row, shape (n_rows,)."""
        return self.fitted.raw_score(X[list(self.columns)].to_numpy(dtype=np.float64))


def rung_columns(
    clinical_features: Sequence[str], target_names: Sequence[str], *, mu_only: Collection[str] = ()
) -> dict[str, tuple[str, ...]]:
    """Feature columns of each rung, which holds those of the rung before it; rungs that would add nothing are left out.

    Args:
        clinical_features: as in :func:`~sarc_ray.stage2.features.feature_names`.
        target_names: as there.
        mu_only: as there.

    >>> list(rung_columns(["age_years"], ["alm_kg"]).items())[1]
    ('means', ('age_years', 'alm_kg_mu'))
    """
    names = feature_names(clinical_features, target_names, mu_only=mu_only)
    n_clinical, n_means = len(clinical_features), len(clinical_features) + len(target_names)
    ends = {CLINICAL: n_clinical, MEANS: n_means, UNCERTAINTIES: len(names)}
    kept: dict[str, tuple[str, ...]] = {}
    for rung, end in ends.items():
        columns = tuple(names[:end])
        if columns and columns not in kept.values():
            kept[rung] = columns
    return kept


def learn_rungs(
    name: str,
    params: Params,
    X: pd.DataFrame,
    y: npt.ArrayLike,
    *,
    columns: Mapping[str, tuple[str, ...]],
    seed: int,
) -> dict[str, Rung]:
    """Learn every rung by one algorithm with one set of hyper-parameters, so that the features alone differ.

    Args:
        name: key of ``ALGORITHMS``.
        params: its hyper-parameters.
        X: features of the training patients, shape (n_rows, n_features), no NaN.
        y: 0/1 labels, shape (n_rows,).
        columns: of each rung.
        seed: of the estimators.

    Raises:
        ConfigError: unknown algorithm or hyper-parameters.
        EvaluationError: NaN among the features, or one class only.
    """
    y_N = np.asarray(y, dtype=np.int64)
    return {
        rung: Rung(own, portable(fit(name, params, X[list(own)].to_numpy(dtype=np.float64), y_N, seed=seed, n_jobs=1)))
        for rung, own in columns.items()
    }

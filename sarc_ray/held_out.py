"""What the report shows of the final model on patients that it never saw: those of the internal test set.

SHAP values, permutation importance and partial dependence, all of the same patients: of evenly spaced ones where there
are very many.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from sarc_ray.bundle import Bundle
from sarc_ray.evaluation.rows import numbers
from sarc_ray.report.content import Absent, Dependence, Importance, ShapValues, TestSet

MAX_PATIENTS = 1000
N_REPEATS = 30
N_POINTS = 20
_WHO = "of the internal test set"


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldOut:
    """Patients whose scores are explained; N rows.

    Attributes:
        features: of stage 2, shape (N, n_features), none missing.
        outcome_N: 0, 1 or NaN.
        patients: who they are, for captions.
    """

    features: pd.DataFrame
    outcome_N: np.ndarray
    patients: str


def held_out(bundle: Bundle, internal: TestSet | None) -> HeldOut | Absent:
    """Scored patients of the internal test set, at most ``MAX_PATIENTS``, evenly spaced by ``row_id``."""
    if internal is None:
        return Absent(reason="The internal test set was not evaluated, so there are no patients to explain.")
    rows = internal.frame[internal.frame["score"].notna()].sort_values("row_id")
    n_scored = len(rows)
    if n_scored > MAX_PATIENTS:
        rows = rows.iloc[np.linspace(0, n_scored - 1, MAX_PATIENTS).round().astype(int)]
    features = bundle.features(rows)
    known = features.notna().all(axis=1)
    features = features[known].reset_index(drop=True)
    if features.empty:
        return Absent(reason="No patient of the internal test set has all features of stage 2.")
    whole = len(features) == n_scored
    shown = f"the {n_scored:,} patients" if whole else f"{len(features):,} of {n_scored:,} patients, evenly spaced,"
    return HeldOut(features=features, outcome_N=numbers(rows[known.to_numpy()], "outcome"), patients=f"{shown} {_WHO}")


def shap_of(bundle: Bundle, people: HeldOut | Absent) -> ShapValues | Absent:
    """SHAP values of their raw scores."""
    if isinstance(people, Absent):
        return people
    from sarc_ray.stage2.explain import shap_values  # slow to import

    explanation = shap_values(bundle.stage2, people.features)
    return ShapValues(
        values_NF=explanation.values,
        features=people.features[list(explanation.feature_names)],
        label=explanation.label,
        patients=people.patients,
    )


def importance_of(bundle: Bundle, people: HeldOut | Absent, *, seed: int) -> Importance | Absent:
    """What the AUROC of those with a label loses when a feature is dealt anew among them."""
    if isinstance(people, Absent):
        return people
    from sarc_ray.stage2.importance import permutation_importance  # imports scikit-learn

    known_N = ~np.isnan(people.outcome_N)
    label_N = people.outcome_N[known_N]
    if len(np.unique(label_N)) < 2:
        return Absent(
            reason="Permutation importance needs patients with and without the outcome in the internal test set."
        )
    features = people.features[known_N]
    found = permutation_importance(bundle.stage2, features, label_N, n_repeats=N_REPEATS, seed=seed)
    n_events = int(label_N.sum())
    return Importance(
        table=found.table(),
        auroc=found.auroc,
        n_repeats=N_REPEATS,
        patients=f"{len(label_N):,} patients {_WHO} ({n_events:,} with the outcome)",
    )


def dependence_of(bundle: Bundle, people: HeldOut | Absent) -> Dependence | Absent:
    """How their mean score follows each target's predicted value, and its uncertainty."""
    if isinstance(people, Absent):
        return people
    from sarc_ray.stage2.importance import partial_dependence  # imports scikit-learn

    model = bundle.stage2
    names = [target.name for target in bundle.spec.targets]
    wanted = [f"{name}{end}" for end in ("_mu", "_uncertainty_pct") for name in names]
    features = [name for name in wanted if name in model.feature_names]
    return Dependence(
        table=partial_dependence(model, people.features, features, n_points=N_POINTS),
        mean_score=float(model.predict(people.features)[1].mean()),
        patients=people.patients,
    )

"""Simulated patients without pictures: the table that stage 2 would see behind an ideal stage 1.

Means and standard deviations of the ideal reader's posterior stand for the predictions of stage 1 and their
uncertainty, beside age, sex and body-mass index. The outcome is sarcopenia by AWGS 2019.

Shape suffixes: N rows (patients), F features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sarc_ray.simulate.cohort import CohortName, simulate_features
from sarc_ray.simulate.law import CHANNELS
from sarc_ray.stage2.features import build_features

CLINICAL = ("age_years", "sex", "bmi_kg_m2")


@dataclass(frozen=True, kw_only=True, slots=True)
class Cohort:
    """Patients to search on, others to judge by; ``bayes_N`` is the score that nobody can beat."""

    name: str
    features: tuple[str, ...]
    x_NF: np.ndarray
    y_N: np.ndarray
    patient_N: np.ndarray
    held_out_x_NF: np.ndarray
    held_out_y_N: np.ndarray
    held_out_bayes_N: np.ndarray


def draw(law: CohortName, *, n_train: int, n_held_out: int, seed: int) -> Cohort:
    """Draw eligible patients, one picture each; the first ``n_train`` are to search on."""
    drawn = simulate_features(n_train + n_held_out, cohort=law, seed=seed)
    frame = drawn.manifest.join(drawn.truth.drop(columns="image_uri"))
    frame = frame[frame["role"] == "eligible"].drop_duplicates("patient_id").reset_index(drop=True)
    for name in CHANNELS:
        frame[f"{name}_mu"] = frame[f"{name}_ideal_mu"]
        frame[f"{name}_uncertainty_pct"] = 100.0 * frame[f"{name}_ideal_sigma"] / frame[f"{name}_ideal_mu"]
    features = build_features(frame, CLINICAL, CHANNELS)
    x_NF, y_N = features.to_numpy(), frame["outcome_true"].to_numpy(dtype=np.int64)
    assert len(x_NF) == n_train + n_held_out, "each eligible patient has a row"
    return Cohort(
        name=f"{law}, seed {seed}",
        features=tuple(features.columns),
        x_NF=x_NF[:n_train],
        y_N=y_N[:n_train],
        patient_N=frame["patient_id"].to_numpy(dtype=np.str_)[:n_train],
        held_out_x_NF=x_NF[n_train:],
        held_out_y_N=y_N[n_train:],
        held_out_bayes_N=frame["bayes_score"].to_numpy()[n_train:],
    )

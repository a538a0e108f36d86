from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from sarc_ray.stage1.ensemble import prediction_columns
from sarc_ray.stage1.member import MemberResult
from sarc_ray.stage1.predictions import predict_patients
from tests.stage1.toy import TARGET

TARGETS = (TARGET, dataclasses.replace(TARGET, name="hgs_kg"))
N, M = 400, 4


@pytest.fixture(scope="module")
def cohort():
    """Half the images are of tuning patients; alm_kg's members say half their true sigma, hgs_kg's are honest."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"patient_id": [f"p{i // 2}" for i in range(N)]}, index=range(50, 50 + N))
    members = [{} for _ in range(M)]
    for target, said in (("alm_kg", 0.5), ("hgs_kg", 1.0)):
        sigma_N = rng.uniform(1, 3, N)
        mu_N = rng.normal(20, 3, N)
        frame[target] = mu_N + sigma_N * rng.normal(size=N)
        for member in members:
            result = MemberResult(data=b"", mu_N=mu_N + rng.normal(0, 0.05, N), sigma_N=said * sigma_N, history=())
            member[target] = result
    frame.loc[frame.index[-20:], "alm_kg"] = np.nan
    tune_N = np.arange(N) >= N // 2
    speaks_IN = tune_N | (np.arange(N) % M == np.arange(M)[:, None]) | ((np.arange(N) + 1) % M == np.arange(M)[:, None])
    return frame, members, tune_N, speaks_IN


def predict(cohort, recalibration):
    frame, members, tune_N, speaks_IN = cohort
    return predict_patients(
        frame, members, targets=TARGETS, speaks_IN=speaks_IN, tune_N=tune_N, recalibration=recalibration, seed=1
    )


def test_without_recalibration_the_columns_are_the_mixtures(cohort):
    frame, members, _, speaks_IN = cohort
    columns, decisions = predict(cohort, "none")
    assert list(columns.index) == list(frame.index)
    for target in TARGETS:
        parts = [np.stack([getattr(m[target.name], name) for m in members]) for name in ("mu_N", "sigma_N")]
        for name, values in prediction_columns(target.name, *parts, positive=True, use_MN=speaks_IN).items():
            np.testing.assert_array_equal(columns[name], values)
        assert (decisions[target.name].scale, decisions[target.name].kept) == (1.0, False)


def test_a_target_that_needs_it_is_recalibrated_for_training_and_tuning_patients_alike(cohort):
    plain, _ = predict(cohort, "none")
    columns, decisions = predict(cohort, "scale")
    scale = decisions["alm_kg"].scale
    assert decisions["alm_kg"].kept
    assert scale == pytest.approx(2.0, rel=0.15)
    for part, factor in (("mu", 1), ("sigma", scale), ("var_aleatoric", scale**2), ("var_epistemic", scale**2)):
        np.testing.assert_allclose(columns[f"alm_kg_{part}"], factor * plain[f"alm_kg_{part}"])
    np.testing.assert_allclose(columns["alm_kg_uncertainty_pct"], scale * plain["alm_kg_uncertainty_pct"])
    assert decisions["alm_kg"].images == N // 2 - 20
    assert decisions["hgs_kg"].scale == pytest.approx(1.0, abs=0.1)


def test_ensembles_of_folds_have_no_say_in_what_others_are_told(cohort):
    """Neither in the recalibration nor in a patient's prediction, wild as they may be."""
    frame, members, tune_N, _ = cohort
    fold_N = np.where(tune_N, -1, np.arange(N) // 2 % 2)
    wild = [
        {name: dataclasses.replace(one, mu_N=one.mu_N + 100, sigma_N=99 * one.sigma_N) for name, one in member.items()}
        for member in members
    ]
    speaks_IN = np.repeat(np.stack([tune_N, fold_N == 0, fold_N == 1]), M, axis=0)
    columns, decisions = predict((frame, [*members, *members, *wild], tune_N, speaks_IN), "scale")
    everyone, expected = predict((frame, members, tune_N, np.ones((M, N), dtype=bool)), "scale")
    assert decisions == expected
    pd.testing.assert_frame_equal(columns[fold_N != 1], everyone[fold_N != 1])
    assert (columns["alm_kg_mu"] - everyone["alm_kg_mu"])[fold_N == 1].min() > 90


def test_training_patients_have_no_say_in_the_recalibration(cohort):
    frame, members, tune_N, speaks_IN = cohort
    changed = frame.copy()
    changed.loc[~tune_N, "alm_kg"] += 50.0
    assert predict((changed, members, tune_N, speaks_IN), "scale")[1] == predict(cohort, "scale")[1]

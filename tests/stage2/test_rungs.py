"""Each rung is the plain fit on its own columns."""

import numpy as np
import pytest

from sarc_ray.stage2.algorithms import fit
from sarc_ray.stage2.rungs import RIDGE, learn_rungs, rung_columns
from tests.stage2.cohort import CHEAP, CLINICAL, TARGETS, draw


def test_each_rung_holds_the_one_before():
    columns = rung_columns(CLINICAL, TARGETS)
    assert list(columns) == ["clinical", "means", "uncertainties"]
    assert columns["clinical"] == ("age_years", "sex_male", "bmi_kg_m2")
    assert columns["means"] == (*columns["clinical"], "alm_kg_mu", "hgs_kg_mu", "crt_s_mu")
    assert columns["uncertainties"][:6] == columns["means"]
    assert len(columns["uncertainties"]) == 9


@pytest.mark.parametrize(
    ("clinical", "targets", "mu_only", "rungs"),
    [
        ((), ("alm_kg",), (), ["means", "uncertainties"]),
        (("age_years",), ("t_score",), ("t_score",), ["clinical", "means"]),
        (("age_years",), (), (), ["clinical"]),
    ],
)
def test_rungs_that_add_nothing_are_left_out(clinical, targets, mu_only, rungs):
    assert list(rung_columns(clinical, targets, mu_only=mu_only)) == rungs


@pytest.mark.parametrize(("name", "params"), [("lightgbm", CHEAP["lightgbm"]), RIDGE])
def test_a_rung_is_a_fit_on_its_columns_alone(name, params):
    X, y_N = draw(240, seed=1)
    new, _ = draw(50, seed=2)
    rungs = learn_rungs(name, params, X, y_N, columns=rung_columns(CLINICAL, TARGETS), seed=4)
    for rung in rungs.values():
        own = list(rung.columns)
        direct = fit(name, params, X[own].to_numpy(), y_N, seed=4, n_jobs=1).predict_proba(new[own].to_numpy())[:, 1]
        np.testing.assert_allclose(rung.raw_score(new), direct, atol=1e-6)
    shuffled = new[new.columns[::-1]].assign(hgs_kg_uncertainty_pct=np.nan)
    np.testing.assert_array_equal(rungs["means"].raw_score(shuffled), rungs["means"].raw_score(new))

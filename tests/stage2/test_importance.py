"""Importance and dependence against plain definitions, and on a model whose answers are known."""

import numpy as np
import pandas as pd
import pytest

from sarc_ray.errors import EvaluationError
from sarc_ray.stage2.algorithms import ALGORITHMS
from sarc_ray.stage2.importance import partial_dependence, permutation_importance
from sarc_ray.stats.discrimination import auroc
from tests.stage2.cohort import draw, fitted_model


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_drop_is_the_auroc_lost_by_dealing_the_values_anew(name):
    model, X, y_N = fitted_model(name)
    found = permutation_importance(model, X, y_N, n_repeats=3, seed=5)
    assert found.auroc == pytest.approx(auroc(y_N, model.predict(X)[1]))
    for f, stream in enumerate(np.random.SeedSequence(5).spawn(9)):
        rng = np.random.default_rng(stream)
        for r in range(3):
            dealt = X.assign(**{X.columns[f]: rng.permutation(X.iloc[:, f].to_numpy())})
            assert found.drop_FR[f, r] == pytest.approx(found.auroc - auroc(y_N, model.predict(dealt)[0]))


def test_on_new_patients_age_matters_and_a_useless_feature_does_not():
    model, _, _ = fitted_model("logistic_regression", n=800)
    X, y_N = draw(800, seed=9)
    found = permutation_importance(model, X, y_N, n_repeats=20, seed=1)
    table = found.table().set_index("feature")
    assert table["auroc_drop"].is_monotonic_decreasing
    assert table.loc["age_years", "auroc_drop"] > 0.03 > abs(table.loc["hgs_kg_uncertainty_pct", "auroc_drop"])
    place = list(X.columns).index("age_years")
    assert table.loc["age_years", "auroc_drop_sd"] == pytest.approx(found.drop_FR[place].std(ddof=1))
    again = permutation_importance(model, X, y_N, n_repeats=20, seed=1)
    np.testing.assert_array_equal(again.drop_FR, found.drop_FR)


def test_importance_needs_both_classes():
    model, X, _ = fitted_model("logistic_regression")
    with pytest.raises(EvaluationError, match="one class is absent"):
        permutation_importance(model, X, np.zeros(len(X)), n_repeats=2, seed=1)


@pytest.mark.parametrize("name", ["random_forest", "xgboost", "logistic_regression"])
def test_dependence_is_the_mean_score_with_one_value_for_all(name):
    model, X, _ = fitted_model(name)
    table = partial_dependence(model, X, ["alm_kg_mu", "crt_s_uncertainty_pct"], n_points=4)
    assert table["feature"].tolist() == ["alm_kg_mu"] * 4 + ["crt_s_uncertainty_pct"] * 4
    assert table["percentile"].tolist() == [12.5, 37.5, 62.5, 87.5] * 2
    for row in table.to_dict("records"):
        assert row["value"] == pytest.approx(np.percentile(X[row["feature"]], row["percentile"]))
        same = X.assign(**{row["feature"]: row["value"]})
        assert row["score"] == pytest.approx(model.predict(same)[1].mean())


def test_the_curve_of_a_linear_model_follows_its_coefficient():
    model, X, _ = fitted_model("logistic_regression")
    coefficients = pd.Series(model.fitted.coef, index=model.feature_names)
    for name in ("alm_kg_mu", "crt_s_mu"):
        score_G = partial_dependence(model, X, [name], n_points=10)["score"].to_numpy()
        assert np.all(np.sign(np.diff(score_G)) == np.sign(coefficients[name]))

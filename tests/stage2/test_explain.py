import numpy as np
import pandas as pd
import pytest
from scipy.special import logit

from sarc_ray.stage2.algorithms import ALGORITHMS
from sarc_ray.stage2.explain import Explainer, Explanation, TopReasons, make_explainer, shap_values
from tests.stage2.cohort import fitted_model


@pytest.mark.parametrize("name", ALGORITHMS)
def test_values_add_up_to_the_raw_score_and_name_their_scale(name):
    model, X, _ = fitted_model(name)
    explanation = shap_values(model, X.iloc[:50])
    raw_N, _ = model.predict(X.iloc[:50])
    assert explanation.values.shape == (50, 9)
    assert explanation.scale == ("probability" if name in ("random_forest", "extra_trees") else "log-odds")
    expected_N = raw_N if explanation.scale == "probability" else logit(raw_N)
    np.testing.assert_allclose(explanation.base + explanation.values.sum(axis=1), expected_N, atol=2e-5)
    assert explanation.label == f"SHAP value ({explanation.scale}, before calibration)"
    assert explanation.feature_names == tuple(X.columns)


def test_age_raises_the_score_and_a_useless_feature_does_little():
    model, X, _ = fitted_model("random_forest", n=500)
    values = shap_values(model, X).values
    age = list(X.columns).index("age_years")
    useless = list(X.columns).index("hgs_kg_uncertainty_pct")
    assert np.corrcoef(X["age_years"], values[:, age])[0, 1] > 0.6
    assert np.abs(values[:, useless]).mean() < 0.5 * np.abs(values[:, age]).mean()


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_rows_values_do_not_depend_on_its_neighbours(name):
    model, X, _ = fitted_model(name)
    explainer = make_explainer(model)
    whole = explainer.explain(X.iloc[:20]).values
    one_by_one = np.concatenate([explainer.explain(X.iloc[[k]]).values for k in range(20)])
    np.testing.assert_array_equal(one_by_one, whole)


def test_the_largest_contributions_stand_first_with_their_sign():
    model, X, _ = fitted_model("lightgbm")
    values = shap_values(model, X.iloc[:40]).values
    top = TopReasons(make_explainer(model), 3).of(X.iloc[:40])
    assert top.columns.tolist() == [f"reason_{k}{end}" for k in (1, 2, 3) for end in ("", "_shap")]
    for row in range(40):
        expected = sorted(zip(np.abs(values[row]), X.columns, values[row], strict=True), reverse=True)[:3]
        assert [top[f"reason_{k}"].iloc[row] for k in (1, 2, 3)] == [name for _, name, _ in expected]
        assert [top[f"reason_{k}_shap"].iloc[row] for k in (1, 2, 3)] == [value for _, _, value in expected]
    assert (top.filter(like="_shap") < 0).any().any()
    assert (top.filter(like="_shap") > 0).any().any()


def test_ties_follow_the_features_and_what_adds_nothing_is_no_reason(monkeypatch):
    values = np.array([[0.0, 0.5, -0.5], [0.0, 0.0, 0.0]])
    found = Explanation(values, 0.1, ("a", "b", "c"), "log-odds", "")
    monkeypatch.setattr(Explainer, "explain", lambda self, X: found)
    top = TopReasons(Explainer(None, None), 4).of(pd.DataFrame(index=[7, 9]))
    assert top.index.tolist() == [7, 9]
    assert top.loc[7, ["reason_1", "reason_1_shap", "reason_2", "reason_2_shap"]].tolist() == ["b", 0.5, "c", -0.5]
    assert top.loc[7, ["reason_3", "reason_3_shap", "reason_4", "reason_4_shap"]].isna().all()
    assert top.loc[9].isna().all()

import numpy as np
import pytest
from scipy.special import logit

from sarc_ray.stage2.algorithms import ALGORITHMS
from sarc_ray.stage2.explain import shap_values
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

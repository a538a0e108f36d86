import numpy as np
import pandas as pd
import pytest

from sarc_ray.errors import ConfigError, EvaluationError
from sarc_ray.stage2.features import build_features, feature_names

FRAME = pd.DataFrame(
    {
        "age_years": [70, 60],
        "sex": ["M", "F"],
        "view": ["AP", "PA"],
        "alm_kg_mu": [20.0, 14.0],
        "alm_kg_uncertainty_pct": [9.0, 11.0],
    },
    index=[5, 9],
)


def test_columns_come_in_the_stated_order_and_are_numbers():
    X = build_features(FRAME, ["sex", "age_years", "view"], ["alm_kg"])
    assert list(X.columns) == ["sex_male", "age_years", "view_ap", "alm_kg_mu", "alm_kg_uncertainty_pct"]
    assert list(X.columns) == feature_names(["sex", "age_years", "view"], ["alm_kg"])
    np.testing.assert_array_equal(X.to_numpy(), [[1, 70, 1, 20, 9], [0, 60, 0, 14, 11]])
    assert set(X.dtypes) == {np.dtype(float)}
    assert list(X.index) == [5, 9]


@pytest.mark.parametrize("missing", [None, np.nan])
def test_a_missing_code_stays_missing(missing):
    X = build_features(FRAME.assign(sex=["M", missing]), ["sex"], ["alm_kg"])
    assert X["sex_male"].iloc[0] == 1.0
    assert np.isnan(X["sex_male"].iloc[1])


def test_a_target_is_never_a_clinical_feature():
    with pytest.raises(ConfigError, match="'alm_kg' is also a target"):
        feature_names(["age_years", "alm_kg"], ["alm_kg"])


def test_a_feature_is_named_once():
    with pytest.raises(ConfigError, match="'age_years' appears twice"):
        feature_names(["age_years", "age_years"], ["alm_kg"])


def test_an_unknown_code_and_an_absent_column_are_named():
    with pytest.raises(EvaluationError, match="'sex' holds 'male'; allowed: M, F"):
        build_features(FRAME.assign(sex=["male", "F"]), ["sex"], ["alm_kg"])
    with pytest.raises(EvaluationError, match="'bmi_kg_m2' is absent"):
        build_features(FRAME, ["bmi_kg_m2"], ["alm_kg"])


def test_a_target_that_can_be_negative_enters_without_relative_uncertainty():
    frame = FRAME.assign(z_mu=[-0.5, 0.2], z_uncertainty_pct=np.nan)
    X = build_features(frame, ["age_years"], ["z", "alm_kg"], mu_only=["z"])
    assert list(X.columns) == ["age_years", "z_mu", "alm_kg_mu", "alm_kg_uncertainty_pct"]
    assert X.notna().all(axis=None)

import numpy as np
import pandas as pd
import pytest

from sarc_ray.errors import EvaluationError, ManifestError
from sarc_ray.evaluation.row_values import NO_VARIANCE
from sarc_ray.evaluation.sensitivity import ANALYSES, COLUMNS, compare, restricted, sensitivity_table, training_patients
from sarc_ray.stats.discrimination import auroc, delong_paired
from tests.evaluation.cohorts import make_config

CONFIG = make_config(min_cell_size=20)
OVER_60 = ANALYSES["over_60"]


def cohort() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "row_id": range(9),
            "patient_id": list("aabcdefgh"),
            "split": ["train"] * 4 + ["tune"] * 2 + ["test_internal"] * 3,
            "age_years": [60.0, 60.1, 75.0, None, 59.0, 61.0, 45.0, 80.0, None],
            "outcome": 0.0,
        }
    )


def scored(n: int, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    rng = np.random.default_rng(seed)
    outcome_N = (rng.random(n) < 0.3).astype(float)
    base = pd.DataFrame({"row_id": range(n), "patient_id": [f"p{k}" for k in range(n)], "outcome": outcome_N})
    every_N, some_N = (np.clip(0.3 * outcome_N + rng.normal(0.4, s, n), 0.01, 0.99) for s in (0.15, 0.3))
    return base.assign(score=every_N), base.assign(score=some_N)


def test_only_patients_to_learn_from_are_left_out():
    """Older than 60, so not 60 itself, nor whose age is not known; test patients of every age stay."""
    kept = restricted(cohort(), OVER_60)
    assert kept["patient_id"].tolist() == ["a", "b", "e", "f", "g", "h"]
    assert kept["age_years"].tolist()[:3] == [60.1, 75.0, 61.0]
    assert kept["split"].tolist() == ["train", "train", "tune", *["test_internal"] * 3]
    assert {"row_id", "outcome"}.isdisjoint(kept.columns)
    assert (training_patients(cohort()), training_patients(kept)) == (5, 3)


def test_nobody_to_learn_from_is_said():
    young = cohort().assign(age_years=50.0)
    with pytest.raises(EvaluationError, match="split train: none of 4 rows has age_years above 60"):
        restricted(young, OVER_60)
    with pytest.raises(ManifestError, match="column age_years: missing"):
        restricted(cohort().drop(columns="age_years"), OVER_60)


def test_the_difference_is_delongs_on_rows_that_both_scored():
    every, some = scored(300, 1)
    every.loc[3, "score"], some.loc[[3, 4], "score"], every.loc[5, "outcome"] = np.nan, np.nan, np.nan
    row = compare(every, some.sample(frac=1.0, random_state=1), dataset="test_internal", config=CONFIG)
    rest = every.drop(index=[3, 4, 5])
    expected = delong_paired(rest["outcome"], some["score"].drop(index=[3, 4, 5]), rest["score"], confidence_level=0.95)
    assert (row["n"], row["n_left_out"]) == (297, 3)
    assert row["auroc_all"] == auroc(rest["outcome"], rest["score"])
    assert row["difference"] == row["auroc_analysis"] - row["auroc_all"] < 0
    assert (row["ci_low"], row["ci_high"], row["p_value"]) == (expected.ci_low, expected.ci_high, expected.p_value)
    assert row["ci_high"] < 0
    assert row["p_value"] < 0.05
    table = sensitivity_table("over_60", [row], training_patients=3, training_patients_all=5)
    assert tuple(table.columns) == COLUMNS
    assert table.loc[0, ["analysis", "training_patients", "training_patients_all"]].tolist() == ["over_60", 3, 5]


def test_a_model_compared_with_itself():
    every, _ = scored(100, 2)
    row = compare(every, every, dataset="test_internal", config=CONFIG)
    assert (row["difference"], row["ci_low"], row["ci_high"], row["p_value"]) == (0.0, 0.0, 0.0, 1.0)


def test_what_cannot_be_told_is_left_out_with_its_reason():
    every, some = scored(100, 3)
    twice = every.assign(patient_id=every["patient_id"].replace("p1", "p0"))
    row = compare(twice, some, dataset="test_internal", config=CONFIG)
    assert "patients repeat" in row["na_reason"]
    assert np.isnan(row["p_value"])
    assert np.isfinite(row["difference"])
    row = compare(every.assign(outcome=0.0), some, dataset="test_internal", config=CONFIG)
    assert "one class" in row["na_reason"]
    with pytest.raises(EvaluationError, match="1 rows are in one of the two runs alone"):
        compare(every, some.drop(index=7), dataset="test_internal", config=CONFIG)


def test_too_few_rows_and_no_variance_have_a_reason():
    """The plan's smallest numbers hold here too; of one patient with the outcome DeLong's variance is not defined."""
    every, some = scored(100, 3)
    row = compare(every, some, dataset="test_internal", config=make_config(min_cell_size=101))
    assert (row["na_reason"], "difference" in row) == ("n = 100 is below min_cell_size = 101", False)
    row = compare(every, some, dataset="test_internal", config=make_config(min_cell_size=1, min_events=90))
    assert "are below min_events = 90" in row["na_reason"]
    one = np.zeros(100)
    one[0] = 1
    row = compare(every.assign(outcome=one), some, dataset="test_internal", config=CONFIG)
    assert np.isfinite(row["difference"])
    assert row["na_reason"] == NO_VARIANCE
    nobody = every.assign(score=np.nan)
    assert "n = 0" in compare(nobody, some, dataset="test_internal", config=CONFIG)["na_reason"]

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from sarc_ray.errors import EvaluationError
from sarc_ray.evaluation.table_one import COLUMNS, TableVariable, format_p, table_one


def paper_derivation():
    """141 with and 785 without sarcopenia; comorbidities as counted in Table 1 of Ryu et al. (2023)."""
    counts = {
        "women": (116, 584),
        "previous_fracture": (16, 42),
        "hypertension": (76, 398),
    }
    frame = pd.DataFrame({"outcome": np.repeat([1.0, 0.0], [141, 785])})
    for name, (with_outcome, without) in counts.items():
        frame[name] = np.concatenate([np.arange(141) < with_outcome, np.arange(785) < without]).astype(float)
    rng = np.random.default_rng(1)
    frame["sex"] = np.where(frame.pop("women") == 1, "F", "M")
    frame["age_years"] = np.where(frame["outcome"] == 1, rng.normal(65.6, 11.5, 926), rng.normal(60.7, 10.2, 926))
    frame["crt_s"] = np.exp(rng.normal(2.3, 0.3, 926)) + frame["outcome"]
    return frame


@pytest.fixture
def frame():
    return paper_derivation()


def row(table, label):
    return table.set_index("variable").loc[label]


def test_comorbidities_print_as_in_the_paper(frame):
    table = table_one(frame)
    assert list(table.columns) == list(COLUMNS)
    women = row(table, "Women, n (%)")
    assert (women["with"], women["without"], women["p"]) == ("116 (82)", "584 (74)", "0.045")
    fracture = row(table, "Previous fracture, n (%)")
    assert (fracture["with"], fracture["without"], fracture["p"]) == ("16 (11)", "42 (5)", "0.007")
    assert row(table, "Hypertension, n (%)")["p"] == "0.484"
    patients = row(table, "Patients, n (%)")
    assert (patients["with"], patients["without"]) == ("141 (15)", "785 (85)")


def test_means_and_medians(frame):
    table = table_one(frame)
    a, b = frame[frame["outcome"] == 1], frame[frame["outcome"] == 0]
    age = row(table, "Age, years")
    assert age["with"] == f"{a['age_years'].mean():.1f} +/- {a['age_years'].std(ddof=1):.1f}"
    assert age["p_value"] == pytest.approx(scipy.stats.ttest_ind(a["age_years"], b["age_years"]).pvalue)
    assert age["test"] == "t (pooled)"
    rise = row(table, "CRT, s")
    assert rise["median_with"] == a["crt_s"].median()
    assert rise["q3_without"] == pytest.approx(b["crt_s"].quantile(0.75))
    assert rise["test"] == "Wilcoxon rank-sum"
    assert rise["smd"] > 0


def test_low_components_are_derived(frame):
    low = row(table_one(frame), "Low CRT, n (%)")
    assert low["count_with"] == (frame[frame["outcome"] == 1]["crt_s"] >= 12).sum()
    # Handgrip strength was not measured, so nothing is said about it.
    assert "Low HGS, n (%)" not in set(table_one(frame)["variable"])


def test_missing_values_are_counted(frame):
    frame.loc[:9, "age_years"] = np.nan
    frame.loc[200:204, "hypertension"] = np.nan
    frame.loc[920:, "outcome"] = np.nan
    frame["diabetes"] = np.nan
    table = table_one(frame)
    assert row(table, "Patients, n (%)")["n_missing"] == 6
    age = row(table, "Age, years")
    assert (age["n_missing"], age["n_missing_with"], age["n_with"]) == (10, 10, 131)
    pressure = row(table, "Hypertension, n (%)")
    assert (pressure["n_missing_without"], pressure["n_without"]) == (5, 774)
    assert "Diabetes, n (%)" not in set(table["variable"])


def test_one_group_has_no_test(frame):
    table = table_one(frame[frame["outcome"] == 0])
    age = row(table, "Age, years")
    assert (age["with"], age["p"], age["test"]) == ("", "", "")
    assert np.isnan(age["p_value"])


def test_any_grouping_and_variables(frame):
    frame["from_external"] = (np.arange(926) % 2).astype(float)
    variables = [TableVariable(column="crt_s", label="CRT", summary="mean")]
    table = table_one(frame, by="from_external", variables=variables)
    assert table["variable"].tolist() == ["Patients, n (%)", "CRT"]
    assert table["n_with"].tolist() == [463, 463]


def test_wrong_grouping_is_refused(frame):
    with pytest.raises(EvaluationError, match="column severity: missing"):
        table_one(frame, by="severity")
    with pytest.raises(EvaluationError, match="found 3"):
        table_one(frame.assign(outcome=3.0))


def test_p_values_print_as_in_the_paper():
    assert [format_p(p) for p in (0.0004, 0.0449, 0.9786, np.nan)] == ["<0.001", "0.045", "0.979", ""]


def test_patients_with_several_images_count_once(frame):
    """The first image stands for the patient; the first that has a label, where not all have one."""
    frame["patient_id"] = [f"p{k}" for k in range(926)]
    unlabelled = frame.assign(outcome=np.nan, age_years=200.0)
    later = frame.assign(age_years=frame["age_years"] + 1)
    table = table_one(pd.concat([unlabelled, frame, later], ignore_index=True))
    pd.testing.assert_frame_equal(table, table_one(frame))
    assert row(table, "Patients, n (%)")["n_missing"] == 0

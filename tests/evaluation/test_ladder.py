"""The ladder's rows are DeLong's own figures, on the rows that have the scores."""

import dataclasses

import numpy as np
import pytest

from sarc_ray.evaluation.ladder import COLUMNS, LadderPlan, ladder_rows
from sarc_ray.stats.discrimination import auroc_interval, delong_paired
from tests.evaluation.cohorts import scored_cohort

PLAN = LadderPlan(
    dataset="test_internal",
    learner="chosen",
    algorithm="lightgbm",
    confidence_level=0.9,
    min_cell_size=20,
    min_events=0,
    run_id="run-1",
)
RUNGS = ["sarc_f", "clinical", "means", "uncertainties"]


@pytest.fixture(scope="module")
def frame():
    frame, _ = scored_cohort(n=200, seed=3)
    rng = np.random.default_rng(1)
    frame = frame.assign(
        clinical=frame["score"] + rng.normal(0, 0.2, 200), means=frame["score"] + rng.normal(0, 0.1, 200)
    )
    frame["uncertainties"] = frame["score"]
    frame.loc[:29, "sarc_f"] = np.nan
    frame.loc[190:, "outcome"] = np.nan
    return frame


def line(table, rung, comparator=""):
    (row,) = table[(table["rung"] == rung) & (table["comparator"] == comparator)].to_dict("records")
    return row


def test_every_rung_and_every_step(frame):
    table = ladder_rows(frame, RUNGS, plan=PLAN)
    assert tuple(table.columns) == COLUMNS
    assert list(zip(table["rung"], table["comparator"], strict=True)) == [
        *((rung, "") for rung in RUNGS),
        ("clinical", "sarc_f"),
        ("means", "clinical"),
        ("uncertainties", "means"),
        ("uncertainties", "clinical"),
    ]
    known = frame[frame["outcome"].notna()]
    found = line(table, "means")
    expected = auroc_interval(known["outcome"], known["means"], confidence_level=0.9)
    assert (found["estimate"], found["ci_low"], found["ci_high"]) == (
        expected.estimate,
        expected.ci_low,
        expected.ci_high,
    )
    assert (found["metric"], found["n"], found["n_events"]) == ("auroc", 190, int(known["outcome"].sum()))
    assert np.isnan(found["p_value"])


def test_a_difference_is_of_the_rows_that_have_both(frame):
    table = ladder_rows(frame, RUNGS, plan=PLAN)
    both = frame[frame["outcome"].notna() & frame["sarc_f"].notna()]
    compared = delong_paired(both["outcome"], both["clinical"], both["sarc_f"], confidence_level=0.9)
    found = line(table, "clinical", "sarc_f")
    assert (found["estimate"], found["p_value"]) == (compared.difference, compared.p_value)
    assert (found["ci_low"], found["ci_high"], found["n"]) == (compared.ci_low, compared.ci_high, 160)
    assert line(table, "sarc_f")["n"] == 160
    assert line(table, "clinical")["n"] == 190


def test_two_learned_rungs_have_one_difference(frame):
    table = ladder_rows(frame, ["clinical", "means"], plan=PLAN)
    assert table["comparator"].tolist() == ["", "", "clinical"]


def test_figures_that_cannot_be_computed_say_why(frame):
    few = ladder_rows(frame.head(12), ["clinical", "means"], plan=PLAN)
    assert few["na_reason"].tolist() == ["n = 12 is below min_cell_size = 20"] * 3
    assert few["estimate"].isna().all()
    events = int(frame["outcome"].sum())
    rare = ladder_rows(frame, ["clinical"], plan=dataclasses.replace(PLAN, min_events=events + 1))
    assert rare["na_reason"].tolist() == [f"{events} rows with the outcome are below min_events = {events + 1}"]
    perfect = ladder_rows(frame.assign(clinical=frame["outcome"].fillna(0.0)), ["clinical", "means"], plan=PLAN)
    assert line(perfect, "clinical")["na_reason"].startswith("interval and p-value left out: DeLong's variance")
    assert np.isnan(line(perfect, "clinical")["ci_low"])
    none = ladder_rows(frame.assign(outcome=0.0), ["clinical"], plan=PLAN)
    assert none["na_reason"].tolist() == ["no row has the outcome"]
    nobody = ladder_rows(frame.assign(sarc_f=np.nan), ["sarc_f"], plan=PLAN)
    assert nobody["n"].tolist() == [0]
    assert "below min_cell_size" in nobody["na_reason"].item()


def test_where_patients_repeat_there_is_no_analytic_interval(frame):
    table = ladder_rows(frame.assign(patient_id="one"), ["clinical", "means"], plan=PLAN)
    plain = ladder_rows(frame, ["clinical", "means"], plan=PLAN)
    assert table["estimate"].tolist() == plain["estimate"].tolist()
    assert table[["ci_low", "ci_high", "p_value"]].isna().all().all()
    assert table["na_reason"].str.contains("patients repeat").all()

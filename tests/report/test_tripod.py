"""TRIPOD+AI: every item is there, filled from the records where they hold the answer, and nothing is made up."""

import dataclasses
import re

import numpy as np
import pandas as pd
import pytest

from sarc_ray.evaluation.external_rows import no_reference
from sarc_ray.evaluation.plan import make_plan
from sarc_ray.evaluation.results import evaluate_by_plan
from sarc_ray.report import html
from sarc_ray.report.content import Absent, Results
from sarc_ray.report.tabulate import table_two_view
from sarc_ray.report.tripod import AUTHORS, FULL, OPEN, PART, answers, tripod_view
from sarc_ray.report.tripod_items import ITEMS, N_ITEMS
from sarc_ray.stage2.calibration import Sigmoid
from tests.evaluation.cohorts import make_config

# Items that no run can know anything of.
ONLY_AUTHORS = ("1", "2", "3a", "3b", "3c", "6c", "8b", "8c", "18a", "18b", "18d", "19", "25", "26", "27b", "27c")


def test_the_statement_has_27_items_in_52_parts():
    numbers = [int(re.match(r"\d+", item.number).group()) for item in ITEMS]
    assert sorted(set(numbers)) == list(range(1, N_ITEMS + 1))
    assert numbers == sorted(numbers)
    assert len({item.number for item in ITEMS}) == len(ITEMS) == 52


@pytest.mark.parametrize("number", ONLY_AUTHORS)
def test_what_only_authors_know_is_left_to_them(report, number):
    answer = answers(report)[number]
    assert answer.said == ""
    assert answer.left == AUTHORS
    assert answer.status == OPEN


def test_every_answer_is_there(report):
    found = answers(report)
    assert list(found) == [item.number for item in ITEMS]
    assert all(answer.said or answer.left for answer in found.values())
    assert {answer.status for answer in found.values()} == {FULL, PART, OPEN}


def test_answers_are_those_of_the_records(report):
    found = answers(report)
    row = report.results.row("test_internal", "auroc")
    assert f"AUROC {row['estimate']:.3f} ({row['ci_low']:.3f} to {row['ci_high']:.3f})" in found["23a"].said
    assert f"internal test set {row['n']} scored and labelled, {row['n_events']} with the outcome" in found["21"].said
    assert "age 40 years or more" in found["6b"].said
    assert "grip strength < 28 (men), 18 (women) kg" in found["8a"].said
    assert "Chen LK" in found["8a"].said
    assert "0.2000 or more" in found["15"].said
    assert "Youden's index" in found["15"].said
    assert "90 scored" in found["27a"].said
    assert "crt as logarithm" in found["12b"].said
    assert report.results.table["plan_hash"].iloc[0] in found["18c"].said
    assert "abc" in found["22"].said


def test_when_the_plan_was_fixed_is_left_to_the_authors(report):
    answer = answers(report)["18c"]
    assert "before" not in answer.said
    assert answer.left == "When it was fixed; the study protocol."


def test_the_method_of_the_intervals_is_that_of_a_resampled_figure(report):
    assert report.results.table["method"].iloc[0] == "count"
    assert "bootstrap percentile, patients with 50 replicates" in answers(report)["12e"].said
    table = report.results.table.assign(n_boot=pd.NA)
    analytic = answers(dataclasses.replace(report, results=Results(table=table)))
    assert "; bootstrap with 50 replicates" in analytic["12e"].said


def test_a_plan_without_the_outcome_counts_nobody_and_says_no_number(report):
    table = report.results.table.copy()
    mine = (table["score"] == "score") & (table["metric"] == "auroc")
    table.loc[mine, ["n", "n_events"]] = pd.NA
    changed = dataclasses.replace(report, results=Results(table=table))
    assert not [answer.said for answer in answers(changed).values() if "<NA>" in str(answer.said)]
    assert table_two_view(changed).groups[1][0] == "Internal test set"
    assert "n\u00a0=\u00a0240" in table_two_view(report).groups[1][0]


def test_measures_and_subgroups_that_were_not_computed_are_not_claimed(report):
    assert {"ROC", "ICI", "concordance"} <= set(answers(report)["12e"].said.replace(",", "").replace(";", "").split())
    table = report.results.table.copy()
    gone = table["metric"].isin(["auroc", "ici", "ccc"]) | (table["subgroup"] != "all")
    table.loc[gone, "estimate"] = np.nan
    found = answers(dataclasses.replace(report, results=Results(table=table)))
    assert not {"AUROC", "ROC", "ICI", "concordance"} & set(found["12e"].said.replace(",", "").replace(";", "").split())
    assert "AUPRC" in found["12e"].said
    assert "Performance is reported by sex" in answers(report)["14"].said
    assert "Performance is reported by no subgroup" in found["14"].said


def test_recalibration_of_the_external_patients_is_named_as_updating(report):
    plan = make_plan(make_config(n_boot=20, n_boot_curves=5, subgroups=(), age_band_edges_years=()), [])
    results = evaluate_by_plan(
        report.test_sets[1].frame,
        plan,
        dataset="test_external",
        seed=1,
        run_id="run-1",
        reference=no_reference(Sigmoid(1.0, 0.0)),
    )
    internal = report.results.table[report.results.table["dataset"] == "test_internal"]
    changed = dataclasses.replace(report, results=Results(table=pd.concat([internal, results], ignore_index=True)))
    found, without = answers(changed), answers(report)
    slope = changed.results.row("test_external", "cal_slope", score="score_intercept_and_slope")
    assert f"intercept and slope {slope['estimate']:.3f} (" in found["24"].said
    for number in ("12f", "24"):
        assert "None in this run." in without[number].said
        assert "None" not in found[number].said
        assert "Recalibration by intercept, and by intercept and slope" in found[number].said
        assert report.operating.said in found[number].said
    recalibrated = changed.results.table["score"].str.startswith("score_")
    table = changed.results.table.assign(estimate=lambda rows: rows["estimate"].mask(recalibrated))
    too_few = answers(dataclasses.replace(report, results=Results(table=table)))
    assert "None in this run." in too_few["12f"].said


def test_ethics_and_data_of_real_patients_are_the_authors(report):
    assert answers(report)["17"].status == FULL
    real = answers(dataclasses.replace(report, simulated=False))
    assert real["17"].left == AUTHORS
    assert real["18e"].left == AUTHORS
    assert "imulated" not in " ".join(answer.said for answer in real.values())


def test_less_is_said_where_less_is_known(report):
    frames = [one.frame.assign(acquired_month="2020-03", site="A") for one in report.test_sets]
    sets = tuple(dataclasses.replace(one, frame=frame) for one, frame in zip(report.test_sets, frames, strict=True))
    more = answers(dataclasses.replace(report, test_sets=sets))
    assert "2020-03 to 2020-03" in more["5b"].said
    assert more["6a"].said == "1 site in the test sets."
    assert answers(report)["5b"].status == OPEN
    less = answers(dataclasses.replace(report, search=Absent(reason="away"), archive=Absent(reason="none")))
    assert less["13"].status == OPEN
    assert "archive" not in less["27a"].said


def test_an_outcome_of_a_column_has_no_guideline(report):
    settings = {**report.lineage.settings, "outcome": {"definition": "column", "column": "finding"}}
    changed = dataclasses.replace(report, lineage=dataclasses.replace(report.lineage, settings=settings))
    assert answers(changed)["8a"].said == "The manifest's column finding, 0 or 1."


def test_networks_of_all_targets_are_not_counted_for_each(report):
    assert "Stage 1: for each target 4 networks" in answers(report)["12c"].said
    settings = {**report.lineage.settings, "ensemble": {**report.lineage.settings["ensemble"], "heads": "all_targets"}}
    changed = dataclasses.replace(report, lineage=dataclasses.replace(report.lineage, settings=settings))
    assert "Stage 1: for all targets together 4 networks" in answers(changed)["12c"].said


def test_the_page_and_the_file_hold_every_item(folder, report):
    text = (folder / html.TRIPOD_PAGE).read_text(encoding="utf-8")
    assert text.count('<th scope="row">') == len(ITEMS)
    assert text.count(AUTHORS) == sum(answer.left == AUTHORS for answer in answers(report).values())
    numbers = pd.read_csv(folder / "manuscript" / "tripod-ai.csv", keep_default_na=False, dtype=str)
    assert numbers["item"].tolist() == [item.number for item in ITEMS]
    assert (numbers.loc[numbers["status"] == OPEN, "from_the_records"] == "").all()
    count = numbers["status"].value_counts()
    assert f"{count[FULL]} are filled from the records, {count[PART]} in part" in tripod_view(report).note

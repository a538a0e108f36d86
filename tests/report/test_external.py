"""Tables of an external validation, from results with a reference."""

import dataclasses

import pandas as pd
import pytest

from sarc_ray.evaluation.external_rows import Reference
from sarc_ray.evaluation.plan import make_plan
from sarc_ray.evaluation.results import evaluate_by_plan
from sarc_ray.report.content import Absent, Results
from sarc_ray.report.external import case_mix_view, recalibration_view
from sarc_ray.stage2.calibration import Sigmoid
from tests.evaluation.cohorts import make_config, scored_cohort


@pytest.fixture(scope="module")
def results():
    plan = make_plan(make_config(n_boot=50, n_boot_curves=5, subgroups=(), age_band_edges_years=()), [])
    there, here = scored_cohort(n=200, seed=1)[0], scored_cohort(n=200, seed=2)[0]
    settings = {"seed": 1, "run_id": "run-1"}
    variables = ("age_years", "sex", "view")
    reference = Reference(name="test_internal", frame=there, variables=variables, calibration=Sigmoid(1.0, 0.0))
    parts = (
        evaluate_by_plan(there, plan, dataset="test_internal", **settings),
        evaluate_by_plan(here, plan, dataset="test_external", reference=reference, **settings),
    )
    return Results(table=pd.concat(parts, ignore_index=True))


def test_calibration_stands_beside_its_two_recalibrations(report, results):
    table = recalibration_view(dataclasses.replace(report, results=results))
    assert table.columns == ("", "As scored", "New intercept", "Intercept and slope")
    rows = {row[0]: row[1:] for row in table.rows}
    citl = [results.row("test_external", "citl", score=name) for name in ("score", "score_intercept")]
    for cell, row in zip(rows["Calibration in the large"], citl, strict=False):
        assert cell.startswith(f"{row['estimate']:.3f}".replace("-", "\u2212"))
    assert rows["Slope of the map"][:2] == ("", "1.000")
    found = results.row("test_external", "ppv")["estimate"]
    assert f"/ {found:.3f}" in rows["PPV, promised / found"][0]
    assert {"citl", "ppv_transported", "ppv"} <= set(table.numbers["metric"])


def test_case_mix_is_told_variable_by_variable(report, results):
    table = case_mix_view(dataclasses.replace(report, results=results))
    names = [row[0] for row in table.rows]
    assert names[:2] == ["Age", "sex: M"]
    assert "AUROC of telling the two sets apart" in names
    assert "no column view" in table.note


def test_without_an_external_set_the_page_says_so(report, results):
    alone = Results(table=results.table[results.table["dataset"] == "test_internal"])
    content = dataclasses.replace(report, results=alone)
    found = recalibration_view(content)
    assert isinstance(found, Absent)
    assert "No external test set was evaluated" in found.reason
    assert case_mix_view(content) is None


def test_results_of_an_earlier_release_are_to_be_made_again(report, results):
    table = results.table[results.table["score"] == "score"]
    found = recalibration_view(dataclasses.replace(report, results=Results(table=table)))
    assert isinstance(found, Absent)
    assert "No external test set" not in found.reason
    assert "Evaluate again (sarc-ray evaluate)" in found.reason

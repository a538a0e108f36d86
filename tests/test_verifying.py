"""Numbers made again: on the small finished run of the report's own tests. With all tables: tests/test_pipeline.py."""

import re
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from sarc_ray import evaluating, intake, reporting, sensitivity, storage, verifying
from sarc_ray.bundle import load_bundle
from sarc_ray.errors import ConfigError, StorageError
from sarc_ray.evaluation.algorithm_table import cross_validated
from sarc_ray.evaluation.ladder import LadderPlan, ladder_rows
from sarc_ray.evaluation.plan_file import write_plan
from sarc_ray.evaluation.results import by_plan, headline_table
from sarc_ray.evaluation.table_one import table_one
from sarc_ray.plans import plan_of
from sarc_ray.run import Run
from sarc_ray.verifying import differences, drawn_alike, verify
from tests import test_reporting as small

TABLE = pd.DataFrame(
    {
        "metric": ["auroc", "ppv", "npv"],
        "estimate": [0.8, np.nan, 0.95],
        "n": pd.array([100, 100, pd.NA], dtype="Int64"),
        "na_reason": ["", "nobody is flagged", ""],
    }
)


def test_rounding_and_ways_to_write_nothing_make_no_difference():
    read_back = TABLE.assign(
        estimate=TABLE["estimate"] * (1 + 1e-12), n=[100.0, 100.0, np.nan], na_reason=[None, "nobody is flagged", None]
    )
    assert list(differences("results", TABLE, read_back)) == []


def test_a_changed_number_or_text_is_named_with_its_row():
    changed = TABLE.assign(estimate=[0.8, np.nan, 0.951], na_reason=["", "nobody", ""])
    assert list(differences("results", changed, TABLE)) == [
        "results: row 3, estimate: shows 0.951, is 0.95",
        "results: row 2, na_reason: shows nobody, is nobody is flagged",
    ]
    known = TABLE.assign(estimate=[0.8, 0.5, 0.95])
    assert list(differences("results", known, TABLE)) == ["results: row 2, estimate: shows 0.5, is nan"]


def test_missing_tables_rows_and_columns_are_named():
    assert list(differences("ladder", None, TABLE)) == ["ladder: missing"]
    assert "has 2 rows" in next(differences("results", TABLE[:2], TABLE))
    assert "is 3 rows of metric, estimate, n, na_reason" in next(differences("results", TABLE[["n"]], TABLE))


def test_many_differences_are_counted():
    long = pd.DataFrame({"x": np.arange(9.0)})
    found = list(differences("results", long + 1, long))
    assert len(found) == 4
    assert found[-1] == "results: x: 9 rows differ"


def test_numbers_that_went_through_a_csv_file_may_be_rounded_and_identifiers_may_not():
    shown = pd.DataFrame({"x": ["0.3000000000000001", "", "1e-05", "3"], "id": ["1234567890123456"] * 4})
    again = shown.assign(x=[0.3, np.nan, 1.00000000001e-05, 3.0])
    assert list(differences("cells", shown, again)) == []
    assert len(list(differences("cells", shown, again.assign(x=[0.3001, np.nan, 1e-05, 4.0])))) == 2
    assert len(list(differences("cells", shown, again.assign(id="1234567890123457")))) == 4
    assert list(differences("cells", shown, again.assign(x=["0.3", "1.5", "1e-05", "3"]))) == [
        "cells: row 2, x: shows , is 1.5"
    ]


def climbed():
    """A ladder of its own columns."""
    rng = np.random.default_rng(4)
    frame = pd.DataFrame({"patient_id": np.arange(80), "outcome": np.resize([1.0, 0.0], 80)})
    rungs = ("clinical", "means", "uncertainties")
    frame = frame.assign(**{rung: frame["outcome"] + rng.normal(0, 1, 80) for rung in rungs})
    plan = {"dataset": "test_internal", "algorithm": "logistic_regression", "run_id": "r"}
    plan |= {"confidence_level": 0.95, "min_cell_size": 10, "min_events": 0}
    tables = [ladder_rows(frame, rungs, plan=LadderPlan(learner=name, **plan)) for name in ("chosen", "ridge")]
    return pd.concat(tables, ignore_index=True)


def compared():
    """One algorithm in cross-validation."""
    trial = {"algorithm": "logistic_regression", "cv_auroc_mean": 0.8, "cv_auroc_se": 0.02, "oof_f1": 0.5}
    trial |= {"pruned": False, "seconds": 1.0, "finalist": True, "chosen": True, "params": "{}"}
    return cross_validated(pd.DataFrame([trial]), confidence_level=0.95)


def silent(what, done, total):
    """Shows no progress."""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with a report."""
    folder = tmp_path_factory.mktemp("verifying")
    run = small.run_config(folder / "run")
    storage.write_table(
        run.path("cohort", "derivation.parquet"), small.cohort_frame(small.write_images(folder / "images"))
    )
    flow = {"label": ["screened"], "n_images": [60], "n_patients": [60]}
    flow |= {"excluded_images": [0], "excluded_patients": [0]}
    storage.write_table(run.path("cohort", "derivation_flow.csv"), pd.DataFrame(flow))
    shutil.copytree(small.BUNDLE, folder / "run" / "bundle")
    bundle = load_bundle(run.path("bundle"))
    scores = small.write_scores(run, intake.internal_rows(run), bundle)
    small.seal(run.path("scores", "test_internal"), scores)
    small.finish(run, "tune", model_id=bundle.model_id)
    run.save_config()
    plan, frames = plan_of(run), {"test_internal": intake.labelled_scores(run, "test_internal")}
    results = evaluating.results_of(run, plan, frames, silent)
    run.write_result("results", results)
    made = {"headline": headline_table(results, interval_level=0.9), "ladder": climbed(), "algorithms": compared()}
    for name, table in made.items():
        run.write_result(name, by_plan(table, plan))
    frame = intake.labelled_scores(run, "test_internal")
    storage.write_table(run.path("results", "table_one_test_internal.csv"), by_plan(table_one(frame), plan))
    storage.write_text(run.path("results", evaluating.PLAN), write_plan(plan))
    small.finish(run, "evaluate", rows=len(results))
    # An analysis whose model is the same one.
    for part in ("cohort", "bundle", "scores"):
        shutil.copytree(folder / "run" / part, folder / "run" / "sensitivity" / "over_60" / part)
    other = Run(config=replace(run.config, run=replace(run.config.run, directory=run.path("sensitivity", "over_60"))))
    sensitivity.comparison(run, other, "over_60")
    reporting.report(run)
    return run


@pytest.fixture
def settings_unchanged(monkeypatch):
    """The chain of fingerprints down to the manifests, and the search, which this run does not have."""
    monkeypatch.setattr(verifying, "finalists_table", lambda run, datasets, evaluation: compared())
    monkeypatch.setattr(verifying.ladder, "climb", lambda run, datasets, evaluation: climbed())
    monkeypatch.setattr(verifying.stages, "finished", lambda run, stage: run.finished(stage))


def test_a_report_is_true_until_someone_changes_a_number(run, settings_unchanged):
    found = verify(run, silent)
    assert found.differences == ()
    assert found.lineage == run.finished("report")["facts"]["lineage"]
    assert found.tables > 15
    page, table = run.path("report", "index.html"), run.path("results", "results.parquet")
    kept = {uri: storage.read_bytes(uri) for uri in (page, table)}
    text, auroc = storage.read_text(page), storage.read_table(run.path("results", "headline.parquet"))["attained"][0]
    assert f">{auroc:.3f}<" in text
    storage.write_text(page, text.replace(f">{auroc:.3f}<", ">0.999<").replace(found.lineage, "0123456789abcdef", 1))
    storage.write_table(table, storage.read_table(table).assign(ci_low=lambda table: table["ci_low"] + 0.001))
    seen = verify(run, silent).differences
    assert any("index.html: shows" in line and ">0.999<" in line and f">{auroc:.3f}<" in line for line in seen)
    assert f"report/index.html: lineage 0123456789abcdef, is {found.lineage}" in seen
    assert any(line.startswith("results/results.parquet: ci_low: ") for line in seen)
    for uri, data in kept.items():
        storage.write_bytes(uri, data)


def test_pictures_and_csv_twins_are_looked_at_too(run, settings_unchanged):
    first, second = storage.list_files(run.path("report", "manuscript"), ".svg")[:2]
    twin, lost = run.path("results", "results.csv"), run.path("results", "headline.csv")
    kept = {uri: storage.read_bytes(uri) for uri in (first, second, twin, lost)}
    for uri in (first, lost):
        storage.remove_tree(uri)
    lineage = run.finished("report")["facts"]["lineage"]
    storage.write_text(second, storage.read_text(second).replace(lineage, "0123456789abcdef"))
    cells = storage.read_table(twin)
    cells.loc[0, "estimate"] = "7.25"
    storage.write_table(twin, cells)
    seen = verify(run, silent).differences
    name, other = (f"report/manuscript/{uri.rsplit('/', 1)[-1]}" for uri in (first, second))
    assert f"{name}: missing" in seen
    assert f"{other}: lineage 0123456789abcdef, is {lineage}" in seen
    assert "results/headline.csv: missing" in seen
    assert any(line.startswith("results/results.csv: row 1, estimate: shows 7.25, is ") for line in seen)
    for uri, data in kept.items():
        storage.write_bytes(uri, data)
    assert verify(run, silent).differences == ()


@pytest.mark.parametrize("way", ["curve", "script", "added", "beside", "below", "hidden", "plan"])
def test_what_a_reader_would_see_otherwise_is_found(run, settings_unchanged, way):
    """A point of a curve moved, the script changed, files laid beside the others, words put into a picture."""
    roc = run.path("report", "manuscript", "roc-test_internal.svg")
    script, page = run.path("report", "assets", "report.js"), run.path("report", "index.html")
    added = {
        "added": run.path("report", "manuscript", "table-3.csv"),
        "beside": run.path("report", "summary.html"),
        "below": run.path("report", "assets", "old", "report.js"),
    }
    plan = run.path("results", "plan.yaml")
    uri = ({"curve": roc, "script": script, "hidden": page, "plan": plan} | added)[way]
    kept = storage.read_bytes(uri) if way not in added else b""
    text = kept.decode("utf-8")
    first = re.search(r"(?<=<path d=\"M )\d+\.\d+", text) if way == "curve" else None
    changed = {
        "curve": first and f"{text[: first.start()]}{float(first[0]) + 3}{text[first.end() :]}",
        "script": f"{text}\n// a line more",
        **dict.fromkeys(added, "auroc\n0.99\n"),
        "plan": text.replace(text.partition("sha256 ")[2][:8], "01234567"),
        "hidden": text.replace("</main>", "<svg><text>AUROC 0.999</text></svg></main>"),
    }[way]
    storage.write_text(uri, changed)
    seen = verify(run, silent).differences
    expected = {
        "curve": "report/manuscript/roc-test_internal.svg: what is drawn is not what the numbers give",
        "script": "report/assets/report.js: has ",
        "added": "report/manuscript/table-3.csv: not part of the report",
        "beside": "report/summary.html: not part of the report",
        "below": "report/assets/old/report.js: not part of the report",
        "plan": "results/plan.yaml: is not as it was written",
        "hidden": "report/index.html: ",
    }[way]
    assert any(line.startswith(expected) for line in seen), seen
    if way in added:
        storage.remove_tree(uri)
    else:
        storage.write_bytes(uri, kept)
    assert verify(run, silent).differences == ()


def test_a_sensitivity_analysis_is_compared_from_its_scores(run, settings_unchanged):
    uri = run.path("results", "sensitivity_over_60.csv")
    kept = storage.read_bytes(uri)
    table = storage.read_table(uri)
    assert table["difference"].tolist() == ["0.0"]
    assert table["plan_hash"].tolist() == [plan_of(run).plan_hash]
    storage.write_table(uri, table.assign(difference="0.125"))
    seen = verify(run, silent).differences
    assert "results/sensitivity_over_60.csv: row 1, difference: shows 0.125, is 0.0" in seen
    storage.write_bytes(uri, kept)


def test_pictures_are_alike_within_rounding_and_whatever_their_pixels_and_made_up_names():
    drawn = '<svg><path id="m0a1b2c3d4e" d="M 1.5 2.25"/><image xlink:href="data:image/png;base64,AAAA"/></svg>'
    assert drawn_alike(drawn, drawn.replace("2.25", "2.251").replace("m0a1b2c3d4e", "mffffffffff").replace("AAAA", "B"))
    assert not drawn_alike(drawn, drawn.replace("2.25", "2.35"))
    assert not drawn_alike(drawn, drawn.replace("2.25", "2.25 3"))


def test_pictures_and_settings_must_be_those_of_the_report(run, settings_unchanged, monkeypatch):
    monkeypatch.setattr(verifying.reporting, "unread", lambda content: 2)
    with pytest.raises(StorageError, match="2 pictures of the report"):
        verify(run, silent)
    monkeypatch.undo()
    with pytest.raises((ConfigError, StorageError)):
        verify(run, silent)

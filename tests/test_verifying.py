"""Numbers made again: on the small finished run of the report's own tests. With all tables: tests/test_pipeline.py."""

import shutil

import numpy as np
import pandas as pd
import pytest

from sarc_ray import evaluating, intake, reporting, storage, verifying
from sarc_ray.bundle import load_bundle
from sarc_ray.errors import ConfigError, StorageError
from sarc_ray.evaluation.plan_file import write_plan
from sarc_ray.evaluation.results import headline_table
from sarc_ray.plans import plan_of
from sarc_ray.verifying import differences, verify
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
    run.write_result("headline", headline_table(results, interval_level=0.9))
    storage.write_text(run.path("results", evaluating.PLAN), write_plan(plan))
    small.finish(run, "evaluate", rows=len(results))
    reporting.report(run)
    return run


@pytest.fixture
def settings_unchanged(monkeypatch):
    """The chain of fingerprints down to the manifests, which this run does not have."""
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


def test_pictures_and_settings_must_be_those_of_the_report(run, settings_unchanged, monkeypatch):
    monkeypatch.setattr(verifying.reporting, "unread", lambda content: 2)
    with pytest.raises(StorageError, match="2 pictures of the report"):
        verify(run, silent)
    monkeypatch.undo()
    with pytest.raises((ConfigError, StorageError)):
        verify(run, silent)

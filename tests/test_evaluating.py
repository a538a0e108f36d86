"""Plans of a run, and its results table, around written score tables."""

import dataclasses

import pandas as pd
import pytest

from sarc_ray import evaluating, intake, storage
from sarc_ray.errors import ConfigError
from sarc_ray.evaluation.plan_file import write_plan
from sarc_ray.plans import plan_in_force, plan_of, whole_plan
from sarc_ray.run import Run
from tests.small_run import make_run

DATASETS = ("test_internal", "test_external")


def changed(run, **evaluation):
    settings = dataclasses.replace(run.config.evaluation, **evaluation)
    return Run(config=dataclasses.replace(run.config, evaluation=settings))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    made = make_run(tmp_path_factory.mktemp("evaluating"))[0]
    return changed(made, n_boot=120, n_boot_curves=5, subgroups=("sex",), age_band_edges_years=())


@pytest.fixture(scope="module")
def frames(run):
    return {dataset: intake.labelled_scores(run, dataset) for dataset in DATASETS}


@pytest.fixture(scope="module")
def results(run, frames):
    return evaluating.results_of(run, plan_of(run), frames, lambda *_: None)


def test_the_external_set_is_set_beside_the_internal_one(results):
    beside = results[results["comparator"] == "test_internal"]
    assert set(beside["dataset"]) == {"test_external"}
    assert {"auroc_gap", "membership_auroc", "ppv_transported", "smd"} <= set(beside["metric"])
    recalibrated = results[results["score"].str.startswith("score_")]
    assert set(recalibrated["dataset"]) == {"test_external"}


def test_large_sets_go_to_the_engine_and_come_back_the_same(ray_session, run, frames, results, monkeypatch):
    calls = []

    def counted(replicate, blocks):
        calls.append(len(blocks))
        return spread(replicate, blocks)

    spread = evaluating.map_blocks
    monkeypatch.setattr(evaluating, "map_blocks", counted)
    limit = len(frames["test_external"])
    other = changed(run, rows_on_engine=limit)
    assert len(frames["test_internal"]) > limit
    found = evaluating.results_of(other, plan_of(other), frames, lambda *_: None)
    assert max(calls) == 3
    pd.testing.assert_frame_equal(found.drop(columns="run_id"), results.drop(columns="run_id"), rtol=1e-12)


def test_a_plan_is_asked_for_by_its_place_and_kept_beside_the_results(run, tmp_path):
    uri = str(tmp_path / "plan.yaml")
    storage.write_text(uri, "metrics: [auroc, ppv]\noutcomes: [sarcopenia]\nmin_cell_size: 30\n")
    asked = plan_of(changed(run, plan=uri))
    assert (list(asked.outcome_metrics), asked.config.min_cell_size) == (["auroc", "ppv"], 30)
    assert plan_in_force(run).plan_hash == plan_of(run).plan_hash  # nothing was evaluated yet
    storage.write_text(run.path("results", evaluating.PLAN), write_plan(asked))
    assert plan_in_force(run).plan_hash == asked.plan_hash
    assert set(whole_plan(run).outcome_metrics) > set(asked.outcome_metrics)
    storage.remove_tree(run.path("results", evaluating.PLAN))
    storage.write_text(uri, "metrics: [auc]\n")
    with pytest.raises(ConfigError, match="did you mean 'aurc' or 'auroc'"):
        plan_of(changed(run, plan=uri))

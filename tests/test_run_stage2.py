"""Finalists on the test sets of a run, with features as they were when the patients were scored."""

import dataclasses
import io
import shutil

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from sarc_ray import evaluating, intake, ladder, sensitivity, storage, tables
from sarc_ray.errors import EvaluationError
from sarc_ray.plans import plan_of
from sarc_ray.run import Run
from sarc_ray.run_stage2 import choose_as_paper, finalists_table
from sarc_ray.screen import print_headline
from sarc_ray.stage2.persist import to_bytes
from sarc_ray.stage2.rungs import RIDGE
from sarc_ray.stats.discrimination import auroc, confusion_from_flags, f1
from tests.small_run import N_EXTERNAL, make_run


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """The small run with one finalist on record: the bundle's own model."""
    run, bundle, people, scores = make_run(tmp_path_factory.mktemp("finalists"))
    trial = {
        "algorithm": bundle.stage2.algorithm,
        "cv_auroc_mean": 0.8,
        "cv_auroc_se": 0.02,
        "oof_f1": 0.5,
        "pruned": False,
        "seconds": 1.0,
        "finalist": True,
        "chosen": True,
        "params": "{}",
    }
    storage.write_table(run.path("stage2", "trials.parquet"), pd.DataFrame([trial]))
    name = f"{bundle.stage2.algorithm}.skops"
    storage.write_bytes(run.path("stage2", "finalists", name), to_bytes(bundle.stage2))
    return run, bundle, people, scores


def test_a_feature_from_the_header_counts_as_it_did_in_scoring(tuned):
    """One external patient's BMI is in the score table alone."""
    run, _, _, scores = tuned
    table = finalists_table(run, list(scores), run.config.evaluation)
    assert set(table["choice"]) == {run.config.stage2.choice}
    external = table[table["dataset"] == "test_external"]
    assert set(external["n"]) == {N_EXTERNAL - 1}
    labels = storage.read_table(run.path("cohort", "external.parquet"))[["row_id", "outcome"]]
    scored = scores["test_external"].dropna(subset="score").merge(labels, on="row_id")
    found = external.set_index("metric").loc["auroc", "estimate"]
    assert found == pytest.approx(auroc(scored["outcome_y"], scored["score"]))


def test_the_choice_of_the_paper_takes_the_best_f1_and_sees_the_same_features(tuned):
    run, bundle, _, scores = tuned
    cohort_uri = run.path("cohort", "derivation.parquet")
    cohort = storage.read_table(cohort_uri)
    cohort.loc[cohort.index[cohort["split"] == "test_internal"][3], "bmi_kg_m2"] = np.nan  # the score table has it
    storage.write_table(cohort_uri, cohort)
    shutil.copytree(run.path("scores", "test_internal"), run.path("stage2", "choosing"))
    model = bundle.stage2
    models = {point.rule: dataclasses.replace(model, in_force=point.rule) for point in model.thresholds}
    scored = scores["test_internal"].dropna(subset="score").merge(cohort[["row_id", "outcome"]], on="row_id")
    expected = {
        rule: f1(confusion_from_flags(scored["outcome_y"], one.flag(scored["score"]))) for rule, one in models.items()
    }
    assert len({round(float(value), 6) for value in expected.values()}) > 1
    assert expected[choose_as_paper(run, models)] == np.nanmax(list(expected.values()))


def test_every_table_has_the_confidence_level_of_the_plan_in_force(tuned, tmp_path, monkeypatch):
    """The configuration says 95%, its plan another level."""
    uri = str(tmp_path / "plan.yaml")
    storage.write_text(uri, "confidence_level: 0.8\n")
    given = tuned[0].config
    assert given.evaluation.confidence_level == 0.95
    settings = dataclasses.replace(given.evaluation, plan=uri, n_boot=20, n_boot_curves=5)
    run = Run(config=dataclasses.replace(given, evaluation=settings))
    monkeypatch.setattr(evaluating.stages, "finished", lambda run, stage: {})
    monkeypatch.setattr(evaluating.stages, "fingerprint", lambda run, stage: stage)
    learner = {"algorithm": RIDGE[0], "params": RIDGE[1]}
    manifest = dataclasses.replace(ladder.read_manifest_of(run.path("bundle")), stage2=learner)
    monkeypatch.setattr(ladder, "read_manifest_of", lambda uri: manifest)  # a learner that is quick
    evaluating.evaluate(run, lambda *_: None)
    made, plain = storage.read_table(run.path("results", "algorithms.parquet")), finalists_table(run, [], settings)
    assert made["ci_high"][0] - made["estimate"][0] == pytest.approx(1.2816 * 0.02, rel=1e-3)
    assert plain["ci_high"][0] - plain["estimate"][0] == pytest.approx(1.9600 * 0.02, rel=1e-3)
    plan_hash = plan_of(run).plan_hash
    for name in ("results", "headline", "algorithms", "ladder"):
        for ending in ("parquet", "csv"):
            assert set(storage.read_table(run.path("results", f"{name}.{ending}"))["plan_hash"]) == {plan_hash}
    for name in ("results", "ladder"):
        assert set(storage.read_table(run.path("results", f"{name}.parquet"))["confidence_level"]) == {0.8}
    assert set(sensitivity.comparison(run, run, "over_60")["confidence_level"]) == {0.8}
    console = Console(file=io.StringIO(), width=120)
    print_headline(console, run)
    assert "attained (80% CI)" in console.file.getvalue()


def test_scores_of_another_bundle_in_the_runs_folder_are_refused(tmp_path):
    """Someone scored with the distilled bundle, and told it to write where the run's own scores were."""
    run, bundle, _, scores = make_run(tmp_path)
    uri = run.path("scores", "test_internal")
    for version, model_id, found in (("v2", bundle.model_id, len(scores["test_internal"]) - 1), ("v3", "0" * 32, None)):
        storage.write_table(storage.join(tables.parts_uri(uri, version), "part.parquet"), scores["test_internal"])
        row_ids = scores["test_internal"]["row_id"].to_numpy()
        tables.seal(uri, version=version, expected_row_ids=row_ids, lineage={"model_id": model_id})
        if found is not None:
            assert len(intake.scored_rows(run, "test_internal")) == found
    for read in (intake.scored_rows, intake.labelled_scores):
        with pytest.raises(EvaluationError, match=f"scores of model {'0' * 32}, the run's bundle is {bundle.model_id}"):
            read(run, "test_internal")

"""A sensitivity analysis of a small run: another model, the same test patients."""

import pandas as pd
import pytest

from sarc_ray import intake, pipeline, sensitivity, storage
from sarc_ray.bundle import read_manifest_of
from sarc_ray.errors import ConfigError, StorageError
from sarc_ray.privacy import create_key_file
from sarc_ray.run import load_run

SMALL = (
    "simulate.derivation_n=800",
    "simulate.external_n=100",
    "simulate.size_px=64",
    "preprocess.size_px=32",
    "fit.epochs=3",
    "augment.copies=1",
    "network.hidden_units=[8]",
    "ensemble.members=3",
    "stage2.algorithms=[logistic_regression]",
    "stage2.trials_per_algorithm=2",
    "stage2.trials_per_round=1",
    "stage2.n_repeats=2",
    "evaluation.n_boot=50",
    "engine.num_cpus=2",
    "data.archive=null",
)


def settings_in(folder) -> list[str]:
    cohorts = [f"data.{name}={folder}/data/{name}/manifest.parquet" for name in ("derivation", "external")]
    own = [f"data.truth={folder}/data/truth", f"run.directory={folder}/run", f"score.key_file={folder}/key"]
    return [*SMALL, *cohorts, *own]


def work(run) -> None:
    pipeline.prepare(run)
    pipeline.train(run)
    pipeline.tune(run)
    for dataset in ("test_internal", "test_external"):
        pipeline.score(run, dataset)


def test_an_analysis_needs_a_name_and_a_finished_run(tmp_path):
    run = load_run("demo", settings_in(tmp_path))
    with pytest.raises(ConfigError, match="--analysis: found 'over_70', allowed: over_60"):
        sensitivity.analysis_run(run, "over_70")
    with pytest.raises(StorageError, match="'score-test_internal' has not finished"):
        sensitivity.analysis_run(run, "over_60")


@pytest.mark.slow
def test_a_model_trained_on_older_patients_meets_the_same_test_patients(ray_session, tmp_path):
    create_key_file(str(tmp_path / "key"))
    run = load_run("demo", settings_in(tmp_path))
    pipeline.simulate(run, f"{tmp_path}/data")
    work(run)
    other = sensitivity.analysis_run(run, "over_60")
    work(other)
    table = sensitivity.comparison(run, other, "over_60")
    before, after = intake.read_cohort(run, "derivation"), intake.read_cohort(other, "derivation")
    learning = after["split"] != "test_internal"
    assert after.loc[learning, "age_years"].min() > 60
    assert before.loc[before["split"] != "test_internal", "age_years"].min() < 60
    for split in ("train", "tune"):
        older = before[(before["split"] == split) & (before["age_years"] > 60)]
        assert set(after.loc[after["split"] == split, "row_id"]) == set(older["row_id"])
    assert set(intake.internal_rows(run)["row_id"]) == set(intake.internal_rows(other)["row_id"])
    assert set(intake.external_rows(run)["row_id"]) == set(intake.external_rows(other)["row_id"])
    assert read_manifest_of(run.path("bundle")).model_id != read_manifest_of(other.path("bundle")).model_id
    assert table["dataset"].tolist() == ["test_internal", "test_external"]
    assert (table["training_patients"] < table["training_patients_all"]).all()
    assert table["p_value"].between(0, 1).all()
    assert (table["ci_low"] <= table["difference"]).all()
    written = storage.read_table(run.path("results", "sensitivity_over_60.csv"))
    assert written["dataset"].tolist() == table["dataset"].tolist()
    assert pd.to_numeric(written["difference"]).tolist() == pytest.approx(table["difference"].tolist())

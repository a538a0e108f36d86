"""The example on real radiographs, cut down: the same YAML and verbs on some of them, with a small network."""

from pathlib import Path

import pandas as pd
import pytest

from sarc_ray import intake, pipeline, storage, tables
from sarc_ray.privacy import create_key_file
from sarc_ray.run import load_run

EXAMPLE = str(Path(__file__).parents[2] / "examples" / "nih_age.yaml")
SMALL = (
    "preprocess.size_px=32",
    "network.backbone=compact",
    "network.weights=random",
    "network.feature_blocks=[2]",
    "network.pooling_grid=2",
    "network.hidden_units=[8]",
    "augment.copies=1",
    "fit.epochs=2",
    "ensemble.members=3",
    "stage2.algorithms=[logistic_regression]",
    "stage2.trials_per_algorithm=2",
    "stage2.trials_per_round=1",
    "stage2.n_repeats=2",
    "evaluation.n_boot=200",
    "evaluation.min_cell_size=5",
    "engine.num_cpus=2",
)
# Images taken of each split; patients come with all of theirs.
TAKEN = {"train": 150, "tune": 12, "test_internal": 12}


@pytest.fixture(scope="module")
def run(ray_session, shared, tmp_path_factory):
    folder = tmp_path_factory.mktemp("nih")
    source = shared / "data" / "nih-cxr"
    manifest = pd.read_csv(source / "manifest.csv", dtype={"patient_id": str}).sort_values("patient_id")
    cut = pd.concat([manifest[manifest["split"] == split].head(n) for split, n in TAKEN.items()])
    cut.assign(image_uri=[str((source / uri).resolve()) for uri in cut["image_uri"]]).to_csv(
        folder / "manifest.csv", index=False
    )
    create_key_file(str(folder / "key"))
    paths = [f"data.derivation={folder}/manifest.csv", f"run.directory={folder}/run", f"score.key_file={folder}/key"]
    run = load_run(EXAMPLE, [*SMALL, *paths])
    pipeline.prepare(run)
    pipeline.train(run)
    pipeline.tune(run)
    pipeline.score(run, "test_internal")
    pipeline.evaluate(run)
    return run


def test_example_resolves():
    config = load_run(EXAMPLE).config
    assert [target.name for target in config.targets] == ["age_years"]
    assert config.clinical_features == ("sex", "view")
    assert config.outcome.column == "any_finding"
    assert config.network.trainable == "head"
    assert config.fit.cache_features
    assert config.fit.ridge_start


def test_every_radiograph_is_read_and_the_manifests_split_is_kept(run):
    cohort = intake.read_cohort(run, "derivation")
    assert cohort["split"].value_counts().to_dict() == TAKEN
    assert cohort["patient_id"].nunique() < len(cohort)
    assert tables.read_pointer(run.path("images")).counts == {"scored": TAKEN["train"] + TAKEN["tune"]}
    assert tables.read_pointer(run.path("scores", "test_internal")).counts == {"scored": TAKEN["test_internal"]}


def test_results_count_patients_as_clusters(run):
    results = storage.read_table(run.path("results", "results.parquet"))
    everyone = results[(results["outcome"] == "age_years") & (results["subgroup"] == "all")].set_index("metric")
    assert everyone.loc["mae", "n"] == TAKEN["test_internal"]
    assert everyone.loc["mae", ["ci_low", "ci_high"]].notna().all()
    # Formulas that take rows for independent give no interval where patients repeat.
    assert pd.isna(everyone.loc["ccc", "ci_low"])
    assert pd.notna(everyone.loc["ccc", "estimate"])
    assert not (results["outcome"] == "any_finding").all()

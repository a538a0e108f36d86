"""Prepare, train, tune, score and evaluate as submitted jobs on a cluster of two nodes: the run of one process."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml

from sarc_ray import pipeline, storage, tables
from sarc_ray.bundle import read_manifest_of
from sarc_ray.config import parse_overrides
from sarc_ray.privacy import create_key_file
from sarc_ray.run import load_run
from tests.jobs.cluster import run_ray, two_nodes

ROOT = Path(__file__).parents[2]
JOBS = ("prepare", "train", "tune", "score", "evaluate")
DATASETS = ("test_internal", "test_external", "archive")
TARGETS = ("alm_kg", "hgs_kg", "crt_s")
MEMBERS = 3
SMALL = (
    "simulate.derivation_n=150",
    "simulate.external_n=60",
    "simulate.archive_n=30",
    "simulate.size_px=64",
    "preprocess.size_px=32",
    "fit.epochs=2",
    "augment.copies=1",
    "network.hidden_units=[8]",
    f"ensemble.members={MEMBERS}",
    "stage2.algorithms=[logistic_regression, lightgbm]",
    "stage2.trials_per_algorithm=3",
    "stage2.trials_per_round=2",
    "stage2.n_repeats=2",
    "evaluation.n_boot=200",
    "evaluation.min_cell_size=10",
    "engine.rows_per_block=16",
    "engine.num_cpus=2",
)


def settings(url, key_file, folder):
    cohorts = [f"data.{name}={url}/data/{name}/manifest.parquet" for name in ("derivation", "external", "archive")]
    return [
        *SMALL,
        *cohorts,
        f"data.truth={url}/data/truth",
        f"run.directory={url}/{folder}",
        f"score.key_file={key_file}",
    ]


def run_in_one_process(run, url):
    """As ``sarc-ray simulate`` and ``sarc-ray run`` do on a laptop."""
    with pipeline.engine(run):
        pipeline.simulate(run, f"{url}/data")
        pipeline.prepare(run)
        pipeline.train(run)
        pipeline.tune(run)
        for name in DATASETS:
            pipeline.score(run, name)
        pipeline.evaluate(run)


def submit_all(config, cluster, tmp_path):
    """As docs/how-to/submit-a-training-job.md says: one job after the other, the checkout as its working folder."""
    for name in ("jobs", "sarc_ray"):
        shutil.copytree(ROOT / name, tmp_path / "work" / name, ignore=shutil.ignore_patterns("__pycache__"))
    logs = {}
    for name in JOBS:
        ended = run_ray(
            ["job", "submit", "--working-dir", ".", "--", "python", f"jobs/{name}.py", config],
            cluster,
            cwd=tmp_path / "work",
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        logs[name] = ended.stdout
    return logs


@pytest.fixture(scope="module")
def runs(ray_session, s3_server, tmp_path_factory):
    """The run of one process, the run of the jobs, and what the jobs said."""
    folder, url = tmp_path_factory.mktemp("whole"), "s3://tests/whole-run"
    create_key_file(str(folder / "key"))
    direct = load_run("demo", settings(url, folder / "key", "direct"))
    run_in_one_process(direct, url)
    own = {"preset": "demo", **parse_overrides(settings(url, folder / "key", "submitted"))}
    storage.write_text(f"{url}/run.yaml", yaml.safe_dump(own))
    with two_nodes(folder) as cluster:
        logs = submit_all(f"{url}/run.yaml", cluster, folder)
    return direct, load_run(f"{url}/run.yaml"), logs


def tables_of(runs, *path):
    return [storage.read_table(run.path(*path)) for run in runs[:2]]


@pytest.mark.slow
def test_every_job_did_its_own_work(runs):
    *_, logs = runs
    titles = {name: [name] for name in JOBS} | {"score": [f"score {name}" for name in DATASETS]}
    for name, log in logs.items():
        assert all(f"{title}: done (" in log for title in titles[name])
        assert "unchanged since the last run" not in log


@pytest.mark.slow
def test_members_are_the_same_byte_for_byte_though_two_nodes_trained_them(runs):
    direct, submitted, _ = runs
    nodes = set()
    for target in TARGETS:
        for index in range(MEMBERS):
            for part in ("safetensors", "npz", "json"):
                path = ("members", target, f"member-{index:02d}.{part}")
                assert storage.read_bytes(submitted.path(*path)) == storage.read_bytes(direct.path(*path)), path
            record = storage.read_json(submitted.path("members", target, f"member-{index:02d}.done.json"))
            nodes |= {attempt["node"] for attempt in record["attempts"]}
    assert len(nodes) == 2
    found, expected = tables_of(runs, "predictions.parquet")
    pd.testing.assert_frame_equal(found, expected, check_exact=True)


@pytest.mark.slow
def test_the_search_chooses_the_same(runs):
    direct, submitted, _ = runs
    expected, found = tables_of(runs, "stage2", "trials.parquet")
    timed = [name for name in expected if "seconds" in name]
    pd.testing.assert_frame_equal(found.drop(columns=timed), expected.drop(columns=timed), check_exact=True)
    ours, theirs = submitted.finished("tune")["facts"], direct.finished("tune")["facts"]
    assert ours == theirs
    # The model_id is a hash of weights, trees, parameters and thresholds.
    bundles = [read_manifest_of(run.path("bundle")) for run in (submitted, direct)]
    assert bundles[0].model_id == bundles[1].model_id == ours["model_id"]
    assert json.loads(json.dumps(bundles[0].metrics)) == json.loads(json.dumps(bundles[1].metrics))


@pytest.mark.slow
@pytest.mark.parametrize("dataset", DATASETS)
def test_score_tables_are_the_same_row_for_row(runs, dataset):
    direct, submitted, _ = runs
    expected, found = (tables.read(run.path("scores", dataset)) for run in (direct, submitted))
    assert expected["outcome"].eq("scored").sum() > 5
    assert set(found["run_id"]) != set(expected["run_id"])  # the folder is another one
    shared = [name for name in expected if name != "run_id"]
    pd.testing.assert_frame_equal(found[shared], expected[shared], check_exact=True)
    pointers = [tables.read_pointer(run.path("scores", dataset)) for run in (direct, submitted)]
    assert pointers[0].version == pointers[1].version


@pytest.mark.slow
@pytest.mark.parametrize("name", ["results", "headline", "algorithms", "ladder"])
def test_results_are_the_same(runs, name):
    expected, found = (without_times(table) for table in tables_of(runs, "results", f"{name}.parquet"))
    assert len(expected) > 5
    shared = [column for column in expected if column != "run_id"]
    pd.testing.assert_frame_equal(found[shared], expected[shared], check_exact=True)


def without_times(table):
    """The computing time of a search stands among the figures of its algorithm."""
    return table[table["metric"] != "seconds"] if "metric" in table else table

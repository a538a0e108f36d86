"""The scripts in jobs/: what they refuse, and score.py submitted to a cluster of two nodes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from sarc_ray import storage, tables
from sarc_ray.bundle import load_bundle, write_bundle
from sarc_ray.cohort.schema import read_manifest
from sarc_ray.imaging.batch import prepare_rows
from sarc_ray.privacy import create_key_file, load_key, pseudonyms
from sarc_ray.scoring import score_rows
from tests import bundle_factory, dicom_factory
from tests.engine import READ_LIMITS
from tests.jobs.cluster import run_ray, two_nodes

ROOT = Path(__file__).parents[2]
N_ROWS = 24
JOBS = ("prepare", "train", "tune", "score", "evaluate", "distill")


# Runs scripts one after another in one process: each alone would spend its time on imports.
RUN_ALL = """
import runpy, sys
for line in sys.stdin.read().splitlines():
    sys.argv = line.split()
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        print(sys.argv[0], end.code, flush=True)
"""


def run_jobs(lines, cwd):
    return subprocess.run(
        [sys.executable, "-c", RUN_ALL],
        input="\n".join(lines),
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def test_jobs_refuse_what_cannot_work_with_the_exit_code_of_the_command_line(tmp_path):
    scripts = [str(ROOT / "jobs" / f"{name}.py") for name in JOBS]
    lines = [f"{script} demo" for script in scripts]
    lines += [f"{scripts[3]} --bundle s3://tests/bundle --to s3://tests/scores", scripts[3]]
    lines += [f"{scripts[3]} --bundle s3://b/bundle --manifest s3://b/m.parquet --to scores"]
    lines += [f"{scripts[2]} --table s3://b/train.csv --to s3://b/out", scripts[2]]
    lines += [f"{scripts[2]} --table s3://b/train.csv --outcome died --to out"]
    result = run_jobs(lines, tmp_path)
    assert result.stdout.splitlines() == [f"{line.split()[0]} 2" for line in lines], result.stderr
    assert result.stderr.count("run.directory: found 'runs/demo', a relative path") == len(JOBS)
    assert "--manifest not given" in result.stderr
    assert result.stderr.count("CONFIG: missing") == 2
    assert "--to: found 'scores', a relative path" in result.stderr
    assert "--outcome not given" in result.stderr
    assert "--to: found 'out', a relative path" in result.stderr
    assert list(tmp_path.iterdir()) == []


def write_manifest(folder):
    """Readable radiographs, a text file, a missing object, a child, rows without BMI."""
    rng = np.random.default_rng(8)
    records = []
    for number in range(N_ROWS):
        uri = f"{folder}/images/{number:03d}.dcm"
        if number % 8 == 3:
            storage.write_bytes(uri, b"not a DICOM object")
        elif number % 8 != 6:
            noise = rng.integers(0, 60, dicom_factory.picture().shape)
            picture = np.minimum(dicom_factory.picture() + noise, 4095).astype(np.uint16)
            storage.write_bytes(uri, dicom_factory.make_dicom(picture))
        records.append(
            {
                "image_uri": f"images/{number:03d}.dcm",
                "patient_id": f"P{number // 2}",
                "age_years": 30.0 if number % 8 == 1 else round(rng.uniform(41, 90), 1),
                "sex": "FM"[number % 2],
                "bmi_kg_m2": np.nan if number % 8 == 5 else round(rng.uniform(18, 30), 1),
                "site": "north",
            }
        )
    uri = f"{folder}/manifest.parquet"
    storage.write_table(uri, pd.DataFrame(records))
    return uri


def score_directly(manifest_uri, bundle_uri, key):
    """The table as one process makes it, in one batch, without the engine."""
    manifest = read_manifest(manifest_uri)
    spec = bundle_factory.SPEC
    batch = prepare_rows(manifest["row_id"].tolist(), manifest["image_uri"].tolist(), spec.preprocess, READ_LIMITS)
    for name in ("age_years", "sex", "bmi_kg_m2", "site"):
        batch = batch.append_column(name, pa.array(manifest[name], from_pandas=True))
    keys = pseudonyms(manifest["patient_id"].tolist(), key=key, purpose="patient")
    batch = batch.append_column("patient_key", pa.array(keys))
    table = score_rows(batch, load_bundle(bundle_uri), run_id="direct").to_pandas()
    return table.sort_values("row_id", ignore_index=True)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory, s3_server):
    folder = tmp_path_factory.mktemp("cluster")
    with two_nodes(folder) as environment:
        yield environment


def test_a_submitted_job_writes_the_table_of_one_process(cluster, tmp_path, s3_url):
    manifest, bundle, table = write_manifest(s3_url), f"{s3_url}/bundle", f"{s3_url}/scores"
    members = bundle_factory.make_members(1)
    stage2 = bundle_factory.make_stage2(members, 1)
    ood = bundle_factory.make_ood(members, 1)
    write_bundle(bundle, members=members, ood=ood, stage2=stage2, spec=bundle_factory.SPEC, metrics={}, lineage={})
    create_key_file(str(tmp_path / "key"))
    # The working folder as 'ray job submit --working-dir .' would send it, less what a job does not need.
    for name in ("jobs", "sarc_ray"):
        shutil.copytree(ROOT / name, tmp_path / "work" / name, ignore=shutil.ignore_patterns("__pycache__"))
    result = run_ray(
        [
            *("job", "submit", "--working-dir", str(tmp_path / "work"), "--", "python", "jobs/score.py"),
            *("--bundle", bundle, "--manifest", manifest, "--to", table),
            *("--set", f"score.key_file={tmp_path / 'key'}", "--set", "engine.rows_per_block=6"),
        ],
        cluster,
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"score: {N_ROWS} of {N_ROWS} radiographs" in result.stdout
    found = tables.read(table)
    expected = score_directly(manifest, bundle, load_key(str(tmp_path / "key")))
    assert found["outcome"].value_counts().to_dict() == {"scored": 12, "rejected": 6, "abstained": 6}
    shared = [name for name in found.columns if name != "run_id"]
    pd.testing.assert_frame_equal(found[shared], expected[shared], check_exact=True)

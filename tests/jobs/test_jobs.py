"""The scripts in jobs/: what they refuse, and score.py submitted to a cluster of two nodes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from sarc_ray import tables
from tests.archive import N_ROWS, make_archive
from tests.jobs.cluster import run_ray, two_nodes

ROOT = Path(__file__).parents[2]
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


@pytest.fixture(scope="module")
def cluster(tmp_path_factory, s3_server):
    folder = tmp_path_factory.mktemp("cluster")
    with two_nodes(folder) as environment:
        yield environment


def test_a_submitted_job_writes_the_table_of_one_process(cluster, tmp_path, s3_url):
    archive, table = make_archive(s3_url, tmp_path), f"{s3_url}/scores"
    # The working folder as 'ray job submit --working-dir .' would send it, less what a job does not need.
    for name in ("jobs", "sarc_ray"):
        shutil.copytree(ROOT / name, tmp_path / "work" / name, ignore=shutil.ignore_patterns("__pycache__"))
    result = run_ray(
        [
            *("job", "submit", "--working-dir", str(tmp_path / "work"), "--", "python", "jobs/score.py"),
            *("--bundle", archive.bundle, "--manifest", archive.manifest, "--to", table),
            *("--set", f"score.key_file={archive.key_file}", "--set", "engine.rows_per_block=6"),
        ],
        cluster,
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"score: {N_ROWS} of {N_ROWS} radiographs" in result.stdout
    found = tables.read(table)
    assert found["outcome"].value_counts().to_dict() == {"scored": 20, "rejected": 10, "abstained": 10}
    shared = [name for name in found.columns if name != "run_id"]
    pd.testing.assert_frame_equal(found[shared], archive.expected[shared], check_exact=True)

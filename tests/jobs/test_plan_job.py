"""The plan as a job: what it refuses before it looks for a cluster."""

import subprocess
import sys
from pathlib import Path

import pytest

JOB = Path(__file__).parents[2] / "jobs" / "plan.py"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--bundle", "bundle", "--manifest", "s3://b/m.parquet"], "--bundle: found 'bundle', a relative path"),
        (["--bundle", "s3://b/bundle", "--manifest", "m.csv"], "--manifest: found 'm.csv', a relative path"),
        (
            ["--bundle", "s3://b/bundle", "--manifest", "s3://b/m.parquet", "--to", "plan.json"],
            "--to: found 'plan.json', a relative path",
        ),
        (
            ["--bundle", "s3://b/bundle", "--manifest", "s3://b/m.parquet", "--nodes", "0"],
            "--nodes: found '0', allowed: a whole number from 1",
        ),
    ],
)
def test_what_can_only_be_a_slip_is_refused(options, message):
    ended = subprocess.run([sys.executable, str(JOB), *options], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2, ended.stderr
    assert message in ended.stderr

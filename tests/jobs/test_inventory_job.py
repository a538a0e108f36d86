"""The inventory as a job: what it refuses before it looks for a cluster."""

import subprocess
import sys
from pathlib import Path

import pytest

JOB = Path(__file__).parents[2] / "jobs" / "inventory.py"


@pytest.mark.parametrize(
    ("folder", "manifest", "message"),
    [
        ("archive", "s3://bucket/m.parquet", "URL: found 'archive', a relative path"),
        ("s3://bucket/archive", "m.parquet", "--to: found 'm.parquet', a relative path"),
        ("s3://bucket/archive", "s3://bucket/m.xlsx", "--to: found 's3://bucket/m.xlsx'; name a file that ends in"),
    ],
)
def test_what_no_node_could_share_is_refused(folder, manifest, message):
    ended = subprocess.run(
        [sys.executable, str(JOB), folder, "--to", manifest], capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 2, ended.stderr
    assert message in ended.stderr

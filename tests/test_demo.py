"""The demo as a person runs it: killed on the way, started again, and reading its own results."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.minute_run import SMALL

ROOT = Path(__file__).parents[1]


def command(folder):
    settings = [*SMALL, f"run.directory={folder}/demo", f"score.key_file={folder}/demo/key"]
    return [str(Path(sys.executable).parent / "sarc-ray"), "demo", *(arg for s in settings for arg in ("--set", s))]


@pytest.mark.slow
def test_killed_and_started_again_it_goes_on_from_the_last_finished_stage(tmp_path):
    process = subprocess.Popen(command(tmp_path), cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 300
    while not (tmp_path / "demo/stages/prepare.json").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = subprocess.run(command(tmp_path), cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    lines = {line.split("  ")[0].strip(): line for line in done.stdout.splitlines() if line}
    assert "unchanged since the last run" in lines["simulate"]
    assert "unchanged since the last run" in lines["prepare"]
    assert "unchanged" not in lines["train"]
    assert "test_internal, n = " in done.stdout
    assert (tmp_path / "demo/results/results.csv").exists()
    assert done.stderr == ""

"""The tutorial's commands, extracted from the page and run as they stand."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

PAGE = Path(__file__).parents[2] / "docs" / "tutorial" / "own-cohort.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)
FILE = re.compile(r"# file: (\S+)\n")


def blocks():
    return BLOCK.findall(PAGE.read_text(encoding="utf-8"))


def test_the_page_holds_files_and_commands():
    languages = [language for language, _ in blocks()]
    assert set(languages) == {"sh", "python", "yaml", "text"}
    assert all(FILE.match(text) for language, text in blocks() if language in ("python", "yaml"))
    commands = "".join(text for language, text in blocks() if language == "sh")
    for verb in (
        "simulate",
        "key",
        "check",
        "prepare",
        "train",
        "tune",
        "score",
        "evaluate",
        "report",
        "bundle verify",
    ):
        assert f"sarc-ray {verb} " in commands, verb


@pytest.mark.slow
def test_every_command_runs(tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment["OMP_NUM_THREADS"] = "1"
    said = ""
    for language, text in blocks():
        file = FILE.match(text)
        if file:
            (tmp_path / file.group(1)).write_text(text, encoding="utf-8")
        elif language == "sh":
            for command in text.splitlines():
                ended = subprocess.run(
                    command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True
                )
                said += f"\n$ {command}\n{ended.stdout}"
                assert ended.returncode == 0, f"{said}\n{ended.stderr}"
    if "SARC_RAY_TUTORIAL_OUTPUT" in os.environ:  # to renew the outputs that the page shows
        Path(os.environ["SARC_RAY_TUTORIAL_OUTPUT"]).write_text(said, encoding="utf-8")
    assert "no error" in said
    assert "whole and unchanged" in said
    run = tmp_path / "runs" / "my-cohort"
    results = pd.read_csv(run / "results" / "results.csv")
    assert {"auroc", "ccc", "brier"} <= set(results["metric"])
    assert (run / "report" / "index.html").stat().st_size > 10_000
    assert (tmp_path / "archive-scores" / "current.json").exists()

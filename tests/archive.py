"""A small archive to score by the command line, the table that one process makes of it, and the command as a process.

Its rows are of every kind: radiographs, text files, missing objects, children, patients without BMI.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from sarc_ray import storage, tables
from sarc_ray.bundle import load_bundle, write_bundle
from sarc_ray.cohort.schema import read_manifest
from sarc_ray.imaging.batch import prepare_rows
from sarc_ray.privacy import create_key_file, load_key, pseudonyms
from sarc_ray.scoring import score_rows
from tests import bundle_factory, dicom_factory
from tests.engine import READ_LIMITS

ROOT = Path(__file__).parents[1]
N_ROWS = 40
FEATURES = ("age_years", "sex", "bmi_kg_m2", "site")
_COMMAND = "from sarc_ray.cli import main; main()"
# Runs command lines, one after another, on one engine: each alone would spend its time on imports.
_SERVER = """
import contextlib, io, json, sys, traceback
from sarc_ray.cli import main
from sarc_ray.distributed import cluster
from tests.engine import engine_config
answers = sys.stdout
with cluster.session(engine_config(num_cpus=2)):
    for line in sys.stdin:
        sys.argv = ["sarc-ray", *json.loads(line)]
        told = io.StringIO()
        with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
            try:
                main()
                code = 0
            except SystemExit as end:
                code = end.code or 0
            except BaseException:
                traceback.print_exc()
                code = "traceback"
        answers.write(json.dumps([code, told.getvalue()]) + chr(10))
        answers.flush()
"""


@dataclass(frozen=True, kw_only=True)
class Archive:
    """Where things lie, and the right answer."""

    folder: str
    manifest: str
    bundle: str
    key_file: str
    expected: pd.DataFrame

    def arguments(self, table: str, *options: str) -> list[str]:
        """Arguments of the command that scores the archive into a table."""
        settings = {"score.key_file": self.key_file, "engine.num_cpus": 2, "engine.scorers": 1}
        settings |= {"engine.rows_per_block": 2, "engine.seconds_per_fetch": 20}
        places = ["--bundle", self.bundle, "--manifest", self.manifest, "--to", table]
        own = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
        return ["score", *places, *own, *options]

    def start(self, table: str) -> subprocess.Popen[str]:
        """Start the command as a process with an engine of its own; what it says goes to its pipes."""
        return _start(_COMMAND, *self.arguments(table))

    def score(self, table: str) -> tuple[int, str]:
        """Run the command as a process to its end: its exit code, and all that it said."""
        process = self.start(table)
        out, told = process.communicate()
        return process.returncode, out + told

    def require_right(self, table: str) -> pd.DataFrame:
        """The table equals that of one process, row for row, the name of the run apart."""
        found = tables.read(table)
        assert found["row_id"].is_unique
        shared = [name for name in self.expected.columns if name != "run_id"]
        pd.testing.assert_frame_equal(found[shared], self.expected[shared], check_exact=True)
        return found


class CommandServer:
    """A process with an engine of its own that runs command lines."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.pid = process.pid

    def begin(self, arguments: list[str]) -> None:
        """Begin a command."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(arguments) + "\n")
        self._process.stdin.flush()

    def end(self) -> tuple[int | str, str]:
        """Wait until it ends: its exit code, and all that it said."""
        assert self._process.stdout is not None
        answer = self._process.stdout.readline()
        assert answer, "the server of commands has ended"
        code, told = json.loads(answer)
        return code, told

    def run(self, arguments: list[str]) -> tuple[int | str, str]:
        """Run a command to its end."""
        self.begin(arguments)
        return self.end()


@contextlib.contextmanager
def command_server(environment: dict[str, str]) -> Iterator[CommandServer]:
    """Run commands, which see these environment variables too, for the length of the block."""
    process = _start(_SERVER, environment=environment)
    try:
        yield CommandServer(process)
    finally:
        process.communicate()  # the end of its input ends it


def _start(program: str, *arguments: str, environment: dict[str, str] | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", program, *arguments],
        cwd=ROOT,
        env={**os.environ, **(environment or {}), "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def make_archive(folder: str, private: Path) -> Archive:
    """Write objects, manifest and bundle below a URL, and the key into a folder of this machine."""
    create_key_file(str(private / "key"))
    bundle = f"{folder}/bundle"
    members = bundle_factory.make_members(1)
    parts = {"members": members, "ood": bundle_factory.make_ood(members, 1)}
    parts["stage2"] = bundle_factory.make_stage2(members, 1)
    write_bundle(bundle, **parts, spec=bundle_factory.SPEC, metrics={}, lineage={})
    manifest = _write_manifest(folder)
    return Archive(
        folder=folder,
        manifest=manifest,
        bundle=bundle,
        key_file=str(private / "key"),
        expected=_score_directly(manifest, bundle, load_key(str(private / "key"))),
    )


def _write_manifest(folder: str) -> str:
    rng = np.random.default_rng(8)
    records = []
    for number in range(N_ROWS):
        uri = f"{folder}/images/{number:03d}.dcm"
        if number % 8 == 3:
            storage.write_bytes(uri, b"not a DICOM object")
        elif number % 8 != 6:
            noise = rng.integers(0, 60, dicom_factory.picture().shape)
            pixels = np.minimum(dicom_factory.picture() + noise, 4095).astype(np.uint16)
            storage.write_bytes(uri, dicom_factory.make_dicom(pixels))
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
    storage.write_table(f"{folder}/manifest.parquet", pd.DataFrame(records))
    return f"{folder}/manifest.parquet"


def _score_directly(manifest_uri: str, bundle_uri: str, key: bytes) -> pd.DataFrame:
    """The table as one process makes it, in one batch, without the engine."""
    manifest = read_manifest(manifest_uri)
    preprocess = bundle_factory.SPEC.preprocess
    batch = prepare_rows(manifest["row_id"].tolist(), manifest["image_uri"].tolist(), preprocess, READ_LIMITS)
    for name in FEATURES:
        batch = batch.append_column(name, pa.array(manifest[name], from_pandas=True))
    keys = pseudonyms(manifest["patient_id"].tolist(), key=key, purpose="patient")
    batch = batch.append_column("patient_key", pa.array(keys))
    table = score_rows(batch, load_bundle(bundle_uri), run_id="direct").to_pandas()
    return table.sort_values("row_id", ignore_index=True)

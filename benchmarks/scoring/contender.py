"""Runs a contender in a process of its own: from its start to its end by the wall clock, and the machine's CPU time."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sarc_ray.instruments import busy_core_seconds

_FOLDER = Path(__file__).parent


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What a run took, and what it says of itself.

    Attributes:
        wall_s: from the start of its process to its end, imports, Ray and all.
        machine_cpu_s: time in which the machine's cores worked meanwhile, for whomever: the contender with all its
            processes, and the object store, which is served here. 0 where the system does not tell.
        answer: the contender's own figures.
    """

    wall_s: float
    machine_cpu_s: float
    answer: dict[str, Any]


def run(name: str, request: Mapping[str, Any]) -> Outcome:
    """Run ``<name>.py`` of this folder.

    Raises:
        SystemExit: it failed; with its last words.
    """
    with tempfile.TemporaryDirectory(prefix="sarc-ray-contender-") as folder:
        answer = Path(folder) / "answer.json"
        asked = Path(folder) / "request.json"
        asked.write_text(json.dumps(request | {"answer": str(answer)}), encoding="utf-8")
        cpu_s, wall_s = busy_core_seconds(), time.perf_counter()
        command = [sys.executable, "-W", "ignore", str(_FOLDER / f"{name}.py"), str(asked)]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        wall_s, cpu_s = time.perf_counter() - wall_s, busy_core_seconds() - cpu_s
        if ended.returncode != 0 or not answer.exists():
            raise SystemExit(f"{name}: exit code {ended.returncode}\n{(ended.stdout + ended.stderr)[-3000:]}")
        return Outcome(wall_s=wall_s, machine_cpu_s=cpu_s, answer=json.loads(answer.read_text(encoding="utf-8")))


@contextlib.contextmanager
def on_cores(n: int) -> Iterator[None]:
    """Keep what is started in the block, and its children, to the first ``n`` of the cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:n])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)

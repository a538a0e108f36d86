"""Instruments of the workers: seconds by part of the way, and memory; they travel as extra columns of a batch.

A row that is worked on carries what it cost through the engine and into the small parts of its table. The columns have
a prefix of their own, are summed while a run is watched and when its table is sealed, and are left out of what is
sealed: they differ from run to run, and a sealed row does not.
"""

from __future__ import annotations

import contextlib
import os
import resource
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

# The way of a radiograph, in its order.
PARTS = {
    "fetch": "waiting for the object store, requests of one process in parallel, beside the reading of those before",
    "isolate": "handing the object to the process that may die, and its answer back",
    "decode": "header and pixels",
    "gate": "rules of the header, and the look at the pixels",
    "preprocess": "resize, window, CLAHE",
    "ensemble": "the networks",
    "stage2": "clinical features, classifier, calibration, reasons, the row",
}
PREFIX = "watch_"
PEAK_COLUMN = f"{PREFIX}peak_bytes"
BYTES_COLUMN = f"{PREFIX}fetched_bytes"
_KIB = 1024


def seconds_column(part: str) -> str:
    """Name of the column with the seconds of one of :data:`PARTS`."""
    return f"{PREFIX}seconds_{part}"


class Stopwatch:
    """Wall-clock seconds by part; the same part may be entered again."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the block's time for ``name``, also when it ends in an exception."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started


def with_seconds(table: pa.Table, seconds: Mapping[str, float | Sequence[float]]) -> pa.Table:
    """A table with what its rows took.

    Args:
        table: N rows.
        seconds: by part: of each row, shape (N,), or of all together, which is then spread over them.
    """
    for part, value in seconds.items():
        if isinstance(value, int | float):
            value = [value / max(len(table), 1)] * len(table)
        table = table.append_column(seconds_column(part), pa.array(value, pa.float64()))
    return table


def with_peak(table: pa.Table, n_bytes: int) -> pa.Table:
    """A table with the peak memory of the worker that made it; where it carries one already, the larger stays."""
    if PEAK_COLUMN in table.column_names:
        n_bytes = max(n_bytes, pc.max(table[PEAK_COLUMN]).as_py() or 0)
        table = table.drop_columns([PEAK_COLUMN])
    return table.append_column(PEAK_COLUMN, pa.array([n_bytes] * len(table), pa.int64()))


def with_carried(table: pa.Table, source: pa.Table) -> pa.Table:
    """A table with the instruments' columns of the batch that it was made of, row by row."""
    for name in watched_columns(source.column_names):
        table = table.append_column(name, source[name])
    return table


def watched_columns(names: Iterable[str]) -> list[str]:
    """Those of some columns that are the instruments'."""
    return [name for name in names if name.startswith(PREFIX)]


def without_instruments(table: pa.Table) -> pa.Table:
    """A table as it is sealed."""
    return table.drop_columns(watched_columns(table.column_names))


def peak_bytes(children: Iterable[int] = ()) -> int:
    """Most memory that this process has held so far, and with it what its children ``pids`` have.

    Linux and macOS; a child that has ended, or a system that does not tell, counts nothing.
    """
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return own * (1 if sys.platform == "darwin" else _KIB) + sum(map(_peak_of, children))


def busy_core_seconds() -> float:
    """Core-seconds that this machine has worked since it started, for whomever; 0 where none tells (not Linux)."""
    try:
        fields = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:]
    except OSError:
        return 0.0
    user, nice, system, _idle, _waiting, irq, softirq = map(int, fields[:7])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def memory_here() -> dict[str, int]:
    """Memory of this machine in bytes: ``used`` and ``total``; empty where the system does not tell (not Linux)."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return {}
    found = {name: int(value.split()[0]) * _KIB for name, _, value in (line.partition(":") for line in lines)}
    if not {"MemTotal", "MemAvailable"} <= found.keys():
        return {}
    return {"used": found["MemTotal"] - found["MemAvailable"], "total": found["MemTotal"]}


def _peak_of(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * _KIB for line in lines if line.startswith("VmHWM:")), 0)

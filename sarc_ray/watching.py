"""What a run that writes a table shows of itself: progress while it works, a summary when it is done.

Under a table's URL lie beside the layout of :mod:`sarc_ray.tables`::

    progress.json                what the last run is doing, replaced as a whole every few seconds
    summaries/<version>.json     what came of a sealed version, and from what; written right before the pointer moves

Neither holds anything of a single image.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import io
import os
import platform
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sarc_ray import storage, tables
from sarc_ray.errors import StorageError
from sarc_ray.instruments import (
    BYTES_COLUMN,
    PARTS,
    PEAK_COLUMN,
    memory_here,
    peak_bytes,
    seconds_column,
    watched_columns,
    without_instruments,
)
from sarc_ray.versions import git_commit, installed_versions

SCHEMA_VERSION = 1
_WINDOW_S = 60.0
_FILE_INTERVAL_S = 5.0
# As many as the store is asked for at once; they are held in memory together, pictures and all.
_PARTS_AT_ONCE = 64
_GIB = 1024**3


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """A run at one moment.

    Attributes:
        done: rows that have their outcome.
        total: rows of the version.
        outcomes: rows done, by outcome.
        rows_per_second: of this run, over the last minute; None until it can be told.
        seconds_left: at that rate; None until it can be told.
        memory: as :func:`sarc_ray.instruments.memory_here` gives it.
    """

    done: int
    total: int
    outcomes: dict[str, int]
    rows_per_second: float | None
    seconds_left: float | None
    memory: dict[str, int]

    def describe(self) -> str:
        """Outcome counts, rate, time left and memory in a line; the row counts are left to the progress bar."""
        parts = [", ".join(f"{name} {count:,}" for name, count in sorted(self.outcomes.items(), reverse=True))]
        if self.rows_per_second is not None:
            parts.append(f"{self.rows_per_second:.1f}/s")
        if self.seconds_left is not None:
            parts[-1] += f", {dt.timedelta(seconds=round(self.seconds_left))} left"
        if self.memory:
            parts.append(f"memory {self.memory['used'] / _GIB:.1f} of {self.memory['total'] / _GIB:.1f} GiB here")
        return "; ".join(filter(None, parts))


Watcher = Callable[[Snapshot], None]


class Pace:
    """Rows per second over the last minute.

    Args:
        clock: seconds; for tests.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: deque[tuple[float, int]] = deque()

    def update(self, done: int) -> None:
        """Note how many rows are done by now."""
        now = self._clock()
        self._seen.append((now, done))
        while len(self._seen) > 2 and self._seen[1][0] <= now - _WINDOW_S:
            self._seen.popleft()

    def rows_per_second(self) -> float | None:
        """None until rows were done between two looks."""
        if len(self._seen) < 2:
            return None
        (t_first, first), (t_last, last) = self._seen[0], self._seen[-1]
        return (last - first) / (t_last - t_first) if last > first and t_last > t_first else None

    def seconds_left(self, rows: int) -> float | None:
        """For so many rows more."""
        rate = self.rows_per_second()
        return None if rate is None else rows / rate


class Tally:
    """Counts over the rows of a table: outcomes, reasons, seconds by part, memory."""

    def __init__(self) -> None:
        self.n_rows = 0
        self.outcomes: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.n_timed = 0
        self.seconds: dict[str, float] = {}
        self.peak_bytes = 0
        self.fetched_bytes = 0

    def add(self, table: pa.Table) -> None:
        """Count the rows of a table that has a column ``outcome``, and perhaps ``reason`` and the instruments'."""
        names = set(table.column_names)
        self.n_rows += len(table)
        self.outcomes.update(_counts(table, "outcome") if "outcome" in names else {})
        self.reasons.update(_counts(table, "reason") if "reason" in names else {})
        timed = [part for part in PARTS if seconds_column(part) in names]
        for part in timed:
            column = table[seconds_column(part)]
            self.seconds[part] = self.seconds.get(part, 0.0) + (pc.sum(column).as_py() or 0.0)
        if timed:
            self.n_timed += len(table) - table[seconds_column(timed[0])].null_count
        if BYTES_COLUMN in names:
            self.fetched_bytes += pc.sum(table[BYTES_COLUMN]).as_py() or 0
        if PEAK_COLUMN in names:
            self.peak_bytes = max(self.peak_bytes, pc.max(table[PEAK_COLUMN]).as_py() or 0)

    def strip(self, table: pa.Table) -> pa.Table:
        """Count a table, and give it back as it is sealed."""
        self.add(table)
        return without_instruments(table)

    def parts(self) -> dict[str, dict[str, float]]:
        """Seconds of workers by part, per row, and rows per second of one worker that did this part alone."""
        return {
            part: {
                "worker_seconds": round(seconds, 6),
                "seconds_per_row": round(seconds / self.n_timed, 6) if self.n_timed else 0.0,
                "rows_per_worker_second": round(self.n_timed / seconds, 3) if seconds > 0 else 0.0,
            }
            for part, seconds in self.seconds.items()
        }


class Watch:
    """Follows the parts of one version while they are written.

    Args:
        uri: the table.
        version: under way.
        run: name of the run.
        n_rows: of the version.
        progress: called with (rows done, rows in all).
        watcher: called with a snapshot.
    """

    def __init__(
        self,
        uri: str,
        *,
        version: str,
        run: str,
        n_rows: int,
        progress: Callable[[int, int], None] | None = None,
        watcher: Watcher | None = None,
    ) -> None:
        self._uri = uri
        self._facts = {"run": run, "version": version, "host": platform.node(), "pid": os.getpid()}
        self._n_rows = n_rows
        self._progress = progress
        self._watcher = watcher
        self._folder = tables.parts_uri(uri, version)
        self._started_at = _now()
        self._started = time.monotonic()
        self._tally = Tally()
        self._pace = Pace()
        self._known: set[str] = set()
        self._before: frozenset[str] = frozenset()
        self._n_new = 0
        self._written = -_FILE_INTERVAL_S
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def told(self) -> Iterator[None]:
        """Keep ``progress.json`` true to how the block goes and ends."""
        # Parts that lie there were taken over, or made by a run that was interrupted: they say nothing of the pace.
        self._before = frozenset(storage.list_files(self._folder, ".parquet"))
        self._pace.update(0)
        self.write("running")
        try:
            yield
        except BaseException as error:
            # The message may name objects; the log has it.
            state = "failed" if isinstance(error, Exception) else "interrupted"
            self.write(state, error=type(error).__name__)
            raise
        self.write("finished")

    def look(self) -> None:
        """Read the parts that have come since the last look, and say how it goes."""
        parts = self._unknown_parts()
        for first in range(0, len(parts), _PARTS_AT_ONCE):
            self._count(parts[first : first + _PARTS_AT_ONCE])
            self.beat()
        self._pace.update(self._n_new)
        self._say()
        self.beat()

    def beat(self) -> None:
        """Keep ``progress.json`` fresh, so that a reader can tell a run that works from one that was killed."""
        if time.monotonic() - self._written >= _FILE_INTERVAL_S:
            self.write("running")

    def finish_looking(self) -> None:
        """All parts are written."""
        self.look()
        if self._progress is not None:
            self._progress(self._n_rows, self._n_rows)

    def snapshot(self) -> Snapshot:
        """How it stands."""
        done = min(self._tally.n_rows, self._n_rows)
        return Snapshot(
            done=done,
            total=self._n_rows,
            outcomes=dict(self._tally.outcomes),
            rows_per_second=self._pace.rows_per_second(),
            seconds_left=self._pace.seconds_left(self._n_rows - done),
            memory=memory_here(),
        )

    def summarise(self, sealed: Tally, *, lineage: Mapping[str, Any], n_taken_over: int) -> None:
        """Write the summary of a version that is about to be sealed.

        Args:
            sealed: of all its rows.
            lineage: of the table.
            n_taken_over: rows copied from the version before.
        """
        self._tally = sealed
        summary = summary_of(sealed, lineage=lineage, n_taken_over=n_taken_over)
        seconds = {**self.seconds, "wall": time.monotonic() - self._started}
        summary |= {
            **{name: self._facts[name] for name in ("run", "version", "host")},
            "started_at": self._started_at,
            "finished_at": _now(),
            "seconds": {name: round(value, 2) for name, value in seconds.items()},
            "rows_of_this_run": self._n_new,
            "rows_per_second": round(self._n_new / seconds["wall"], 3),
            "driver_peak_bytes": peak_bytes(),
        }
        storage.write_json(summary_uri(self._uri, str(self._facts["version"])), summary)

    def _count(self, parts: Sequence[str]) -> None:
        """Read parts side by side: one by one, a store far away gives fewer per second than a cluster writes."""
        with contextlib.suppress(StorageError):  # as with a listing that fails
            for part, data in zip(parts, storage.read_many(parts), strict=True):
                if isinstance(data, Exception):
                    continue
                with contextlib.suppress(OSError, pa.ArrowInvalid):  # it is being written, and read next time
                    table = _watched_part(data)
                    self._known.add(part)
                    self._tally.add(table)
                    self._n_new += 0 if part in self._before else len(table)

    def _unknown_parts(self) -> list[str]:
        try:
            return [part for part in storage.list_files(self._folder, ".parquet") if part not in self._known]
        except StorageError:  # to look is not worth a run; a store that stays away is found by who writes
            return []

    def _say(self) -> None:
        if self._progress is None and self._watcher is None:
            return
        snapshot = self.snapshot()
        if self._progress is not None:
            self._progress(snapshot.done, snapshot.total)
        if self._watcher is not None:
            self._watcher(snapshot)

    def write(self, state: str, *, error: str | None = None) -> None:
        """Replace ``progress.json``; a store that refuses it is the writing of the parts to report, not this."""
        self._written = time.monotonic()
        now = self.snapshot()
        content = {
            "schema_version": SCHEMA_VERSION,
            **self._facts,
            "state": state,
            "error": error,
            "started_at": self._started_at,
            "updated_at": _now(),
            "rows": now.total,
            "rows_done": now.total if state == "finished" else now.done,
            "rows_of_this_run": self._n_new,
            "outcomes": now.outcomes,
            "reasons": {name: count for name, count in self._tally.reasons.items() if name},
            "rows_per_second": now.rows_per_second,
            "seconds_left": 0.0 if state == "finished" else now.seconds_left,
            "worker_seconds": {part: round(seconds, 6) for part, seconds in self._tally.seconds.items()},
            "memory": {
                "driver_peak_bytes": peak_bytes(),
                "largest_worker_peak_bytes": self._tally.peak_bytes or None,
                "machine_used_bytes": now.memory.get("used"),
                "machine_total_bytes": now.memory.get("total"),
            },
        }
        with contextlib.suppress(StorageError):
            storage.write_json(progress_uri(self._uri), content)


def summary_of(sealed: Tally, *, lineage: Mapping[str, Any], n_taken_over: int) -> dict[str, Any]:
    """What a table's rows say of the run or runs that made them, and from what they were made."""
    return {
        "schema_version": SCHEMA_VERSION,
        "rows": sealed.n_rows,
        "rows_taken_over": n_taken_over,
        "outcomes": dict(sealed.outcomes),
        "reasons": {name: count for name, count in sealed.reasons.items() if name},
        "rows_timed": sealed.n_timed,
        "fetched_bytes": sealed.fetched_bytes,
        "parts": sealed.parts(),
        "largest_worker_peak_bytes": sealed.peak_bytes or None,
        "lineage": {**lineage, "versions": installed_versions(), "git_commit": git_commit()},
    }


def progress_uri(uri: str) -> str:
    """Where the last run of a table says what it is doing."""
    return storage.join(uri, "progress.json")


def summary_uri(uri: str, version: str) -> str:
    """Where the summary of a version lies."""
    return storage.join(uri, "summaries", f"{version}.json")


def _watched_part(data: bytes) -> pa.Table:
    """The few columns of a part that are counted; not its pictures."""
    # Whole: parts of scores are small, and one request costs less than the three of a reader that seeks.
    with pq.ParquetFile(io.BytesIO(data)) as file:
        names = file.schema_arrow.names
        wanted = [name for name in ("outcome", "reason") if name in names]
        return file.read(columns=[*wanted, *watched_columns(names)] or names[:1])


def _counts(table: pa.Table, name: str) -> dict[str, int]:
    return {found["values"]: found["counts"] for found in pc.value_counts(table[name]).to_pylist()}


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")

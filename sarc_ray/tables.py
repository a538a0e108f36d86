"""Sealed tables: many small parts become a few immutable files, and a pointer object is moved last.

Layout under a table's URL::

    current.json                 the pointer: version, files and their hashes, counts, lineage; replaced as a whole
    versions/<version>/*.parquet immutable; what DuckDB, Spark, Polars and pandas read
    inputs/<version>.parquet     a hash of what decided each row, where a later run may take rows over
    work/<version>/              input, parts and job checkpoint of a run under way; removed at the seal
    lock.json                    which run writes the table, while it does
    progress.json, summaries/    how a run goes and went (:mod:`sarc_ray.watching`)

A reader follows the pointer and so sees the old table or the new one, never a mixture.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sarc_ray import storage
from sarc_ray.errors import ConfigError, SchemaVersionError, StorageError

logger = logging.getLogger(__name__)

SCHEMA_VERSION = 1
_FILE_BYTES = 128 * 1024**2
_PARTS_AT_ONCE = 64
# By these a table of scores is told from a run's image table, which is sealed in the same way.
_OF_SCORES = ("row_id", "outcome", "score", "flag")


@dataclass(frozen=True, kw_only=True, slots=True)
class Pointer:
    """Content of ``current.json``.

    Attributes:
        version: name of the immutable prefix.
        files: of the table, below its URL.
        sha256: of each file's content, by its name.
        n_rows: in all files.
        n_retryable: rows that the store failed on.
        counts: rows by outcome.
        lineage: what made the table.
    """

    version: str
    files: tuple[str, ...]
    sha256: dict[str, str]
    n_rows: int
    n_retryable: int
    counts: dict[str, int]
    lineage: dict[str, Any]


def work_uri(uri: str) -> str:
    """Folder for the parts of a run under way."""
    return storage.join(uri, "work")


def parts_uri(uri: str, version: str) -> str:
    """Folder for the parts of one version: what a run of another version still writes there can never mix with them."""
    return storage.join(work_uri(uri), version, "parts")


def input_uri(uri: str, version: str) -> str:
    """The rows that a version under way works on; written when all is prepared, so its presence says "go on"."""
    return storage.join(work_uri(uri), version, "input.parquet")


def base_of(version: str) -> str:
    """The name by content: ``abc`` of ``abc``, ``abc+1``, ``abc+2``, ..."""
    return version.partition("+")[0]


def version_to_write(uri: str, base: str) -> str:
    """The version that a run with this content goes on with, or a name that no version has had.

    A second version of one content is made when its retryable rows are tried again, and when a manifest becomes again
    what it was: ``abc+1``, ``abc+2``, ...
    """
    sealed = read_pointer(uri)
    for number in itertools.count():
        name = f"{base}+{number}" if number else base
        if sealed is not None and name == sealed.version:
            continue
        if storage.exists(input_uri(uri, name)) or not storage.exists(storage.join(uri, "versions", name)):
            return name
    raise AssertionError("the count has no end")


def read_pointer(uri: str) -> Pointer | None:
    """The pointer of a table, or None where no table was sealed yet.

    Raises:
        SchemaVersionError: the table was sealed by a newer release, or by one before tables had all these facts.
        StorageError: the pointer is none.
    """
    pointer_uri = storage.join(uri, "current.json")
    if not storage.exists(pointer_uri):
        return None
    found = storage.read_json(pointer_uri)
    if not isinstance(found, dict) or not isinstance(found.get("schema_version"), int):
        raise StorageError(
            f"{pointer_uri}: no pointer of a sealed table; get it back from a copy, or name another table"
        )
    if found["schema_version"] > SCHEMA_VERSION:
        raise SchemaVersionError(
            f"{pointer_uri}: schema version {found['schema_version']}, this release reads up to {SCHEMA_VERSION}; "
            "install a newer sarc-ray"
        )
    facts = [field.name for field in fields(Pointer)]
    if absent := [name for name in facts if name not in found]:
        raise SchemaVersionError(
            f"{pointer_uri}: has no {', '.join(absent)}; an earlier release sealed this table. Write it again into a "
            "new folder, or read its files by themselves"
        )
    return Pointer(**{**{name: found[name] for name in facts}, "files": tuple(found["files"])})


def iterate(uri: str, *, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """The files of a sealed table, one at a time, each only after its hash was found right.

    Raises:
        StorageError: no sealed table lies under ``uri``, or a file of it is not what was sealed.
    """
    pointer = read_pointer(uri)
    if pointer is None:
        raise StorageError(f"{uri}: no finished table here; run the step that writes it first")
    for name in pointer.files:
        data = storage.read_bytes(storage.join(uri, name))
        found = hashlib.sha256(data).hexdigest()
        if found != pointer.sha256[name]:
            raise StorageError(
                f"{storage.join(uri, name)}: damaged or altered since it was sealed: expected sha256 "
                f"{pointer.sha256[name]}, found {found}; get it back from a copy, or write the table into a new folder"
            )
        yield pq.read_table(io.BytesIO(data), columns=columns)


def check_scores(uri: str, names: Collection[str]) -> None:
    """Refuse a sealed table that is none of scores.

    Args:
        uri: the table, for the message.
        names: its columns.

    Raises:
        ConfigError: says which columns it lacks.
    """
    if lacking := [name for name in _OF_SCORES if name not in names]:
        raise ConfigError(f"{uri}: no score table: it has no {', '.join(lacking)}; name a folder that 'score' wrote")


def read(uri: str, *, columns: list[str] | None = None) -> pd.DataFrame:
    """A whole sealed table in memory, rows ordered by ``row_id``."""
    files = list(iterate(uri, columns=columns))
    if not files:
        raise StorageError(f"{uri}: the table has no rows; check the manifest that it was made from")
    frame = pa.concat_tables(files, promote_options="default").to_pandas()
    return frame.sort_values("row_id", ignore_index=True) if "row_id" in frame else frame


def seal(
    uri: str,
    *,
    version: str,
    expected_row_ids: np.ndarray,
    lineage: Mapping[str, Any],
    guard: Callable[[], None] | None = None,
    passing: Callable[[pa.Table], pa.Table] | None = None,
) -> Pointer:
    """Reconcile the parts with the manifest, compact them, and move the pointer.

    Args:
        uri: the table; its parts lie under :func:`parts_uri`.
        version: name of the immutable prefix; what an interrupted seal left there is removed.
        expected_row_ids: shape (n_rows,), int64, unique: the manifest's rows.
        lineage: what made the table; stored in the pointer.
        guard: called right before the pointer moves; what it raises keeps the old table in place.
        passing: called with each table of rows before it is written; gives the same rows as they are to be written.

    Raises:
        StorageError: rows are missing, or rows are there that the manifest does not know; nothing is sealed.
        ValueError: the version is sealed already.
    """
    before = read_pointer(uri)
    if before is not None and before.version == version:
        raise ValueError(f"{uri}: the version {version} is sealed and immutable; give another name")
    storage.remove_tree(storage.join(uri, "versions", version))
    counts: dict[str, int] = {}
    sha256: dict[str, str] = {}
    seen: list[np.ndarray] = []
    n_retryable = 0
    for number, table in enumerate(_compacted(parts_uri(uri, version), expected_row_ids)):
        table = table if passing is None else passing(table)
        name = f"versions/{version}/part-{number:05d}.parquet"
        sha256[name] = storage.write_parquet(storage.join(uri, name), table)
        seen.append(table.column("row_id").to_numpy())
        n_retryable += pc.sum(table.column("retryable")).as_py() or 0
        for reason in pc.value_counts(table.column("outcome")).to_pylist():
            counts[reason["values"]] = counts.get(reason["values"], 0) + reason["counts"]
    found = np.concatenate(seen) if seen else np.empty(0, dtype=np.int64)
    _reconcile(uri, found, expected_row_ids)
    pointer = Pointer(
        version=version,
        files=tuple(sha256),
        sha256=sha256,
        n_rows=len(found),
        n_retryable=n_retryable,
        counts=counts,
        lineage=dict(lineage),
    )
    if guard is not None:
        guard()
    storage.write_json(storage.join(uri, "current.json"), {"schema_version": SCHEMA_VERSION, **asdict(pointer)})
    storage.remove_tree(work_uri(uri))
    return pointer


def _compacted(folder: str, expected: np.ndarray) -> Iterator[pa.Table]:
    """Parts joined into tables of about ``_FILE_BYTES``, each ``row_id`` once, ordered within a table."""
    rows = _FirstOnes(expected)
    pending: list[pa.Table] = []
    n_bytes = 0
    for table in _read_parts(storage.list_files(folder, ".parquet")):
        pending.append(table.filter(pa.array(rows.take(table.column("row_id").to_numpy()))))
        n_bytes += pending[-1].nbytes
        if n_bytes >= _FILE_BYTES:
            yield pa.concat_tables(pending, promote_options="default").sort_by("row_id")
            pending, n_bytes = [], 0
    if pending:
        yield pa.concat_tables(pending, promote_options="default").sort_by("row_id")


def _read_parts(uris: Sequence[str]) -> Iterator[pa.Table]:
    """The parts in their order, some requests at a time: a hundred thousand one after another would take an hour."""
    for start in range(0, len(uris), _PARTS_AT_ONCE):
        batch = uris[start : start + _PARTS_AT_ONCE]
        for uri, data in zip(batch, storage.read_many(batch), strict=True):
            try:
                # What failed among others is asked for once more by itself, which tells why.
                yield pq.read_table(io.BytesIO(storage.read_bytes(uri) if isinstance(data, Exception) else data))
            except pa.ArrowInvalid:
                # Half written by a process that was killed, which then did not note its rows as done.
                logger.warning("%s: left out, since it breaks off", uri)


class _FirstOnes:
    """Which rows come for the first time; a byte for each that is expected, where a set would take a hundred."""

    def __init__(self, expected: np.ndarray) -> None:
        self._expected = np.sort(expected)
        self._came = np.zeros(len(expected), dtype=bool)

    def take(self, row_ids: np.ndarray) -> np.ndarray:
        """Shape (n,), True where a row has not come before. Rows that nobody expects are let through, to be told of."""
        fresh = np.zeros(len(row_ids), dtype=bool)
        fresh[np.unique(row_ids, return_index=True)[1]] = True
        place = np.searchsorted(self._expected, row_ids)
        known = place < len(self._expected)
        known[known] = self._expected[place[known]] == row_ids[known]
        fresh[known] &= ~self._came[place[known]]
        self._came[place[known]] = True
        return fresh


def _reconcile(uri: str, found: np.ndarray, expected: np.ndarray) -> None:
    missing = np.setdiff1d(expected, found)
    strange = np.setdiff1d(found, expected)
    if len(missing) or len(strange):
        raise StorageError(
            f"{uri}: {len(missing)} of {len(expected)} manifest rows have no outcome and {len(strange)} outcomes have "
            "no manifest row; the table was not sealed. Run the same command again; if it repeats, remove "
            f"{work_uri(uri)} and start afresh"
        )

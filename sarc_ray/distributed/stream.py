"""A manifest streamed through a function into a sealed table, resumable at any moment, on Ray Data.

The plan is always the same: manifest Parquet -> blocks of ``rows_per_block`` -> maps -> small parts. Ray Data's job
checkpoint on ``row_id`` lets an interrupted run go on; the seal (:mod:`sarc_ray.tables`) makes each row appear once.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray.data
from ray.data.checkpoint import CheckpointConfig

from sarc_ray import storage, tables
from sarc_ray.distributed.settings import EngineConfig

Progress = Callable[[int, int], None]
_PROGRESS_INTERVAL_S = 1.0


def stream_to_table(
    rows: pd.DataFrame,
    uri: str,
    *,
    build: Callable[[ray.data.Dataset], ray.data.Dataset],
    engine: EngineConfig,
    version: str,
    lineage: Mapping[str, Any],
    progress: Progress | None = None,
) -> tables.Pointer:
    """Run ``build``'s maps over ``rows`` and seal what they write.

    Args:
        rows: one row per image with a unique int64 ``row_id``.
        uri: the table to write.
        build: adds maps to a dataset; each keeps the column ``row_id``.
        engine: block size.
        version: name of the sealed version; the same inputs must give the same name.
        lineage: stored with the table.
        progress: called with (rows written, rows in all) about once a second.

    Returns:
        The pointer of the sealed table. A table of the same version that is sealed already is left as it is, but for
        its retryable rows: these, and only these, are tried again into a new version.
    """
    expected = rows["row_id"].to_numpy()
    sealed = tables.read_pointer(uri)
    kept = None
    if sealed is not None and sealed.version.split("+")[0] == version:
        if not sealed.n_retryable:
            return sealed
        table = pa.concat_tables(list(tables.iterate(uri)), promote_options="default")
        kept = table.filter(pc.invert(table["retryable"]))
        rows = rows[~rows["row_id"].isin(kept["row_id"].to_numpy())]
        version = _next(sealed.version)
    work = tables.work_uri(uri)
    parts_uri = storage.join(work, "parts")
    input_uri = storage.join(work, f"input-{version}.parquet")
    if not storage.exists(input_uri):
        storage.remove_tree(work)  # parts of another version must not mix with this one
        if kept is not None:
            storage.write_table(storage.join(parts_uri, "kept.parquet"), kept)
        storage.write_table(input_uri, rows)
    with _job_checkpoint(storage.join(work, "checkpoint")), _watch(parts_uri, len(rows), progress):
        fs, path = storage.arrow_filesystem(input_uri)
        dataset = ray.data.read_parquet(path, filesystem=fs)
        dataset = build(dataset.repartition(target_num_rows_per_block=engine.rows_per_block))
        fs, path = storage.arrow_filesystem(parts_uri)
        dataset.write_parquet(path, filesystem=fs, mode="append")
    return tables.seal(uri, version=version, expected_row_ids=expected, lineage=lineage)


def _next(version: str) -> str:
    """``abc`` was sealed first; its retries are ``abc+1``, ``abc+2``, ..."""
    base, _, retry = version.partition("+")
    return f"{base}+{int(retry or 0) + 1}"


@contextlib.contextmanager
def _job_checkpoint(uri: str) -> Iterator[None]:
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    fs, path = storage.arrow_filesystem(uri)
    fs.create_dir(path, recursive=True)
    context.checkpoint_config = CheckpointConfig(
        id_column="row_id", checkpoint_path=path, override_filesystem=fs, delete_checkpoint_on_success=False
    )
    try:
        yield
    finally:
        context.checkpoint_config = None


@contextlib.contextmanager
def _watch(parts_uri: str, total: int, progress: Progress | None) -> Iterator[None]:
    """Report the rows in finished parts from a thread, since Ray Data has no callback for it."""
    if progress is None:
        yield
        return
    stop = threading.Event()

    def count() -> None:
        known: dict[str, int] = {}
        while not stop.wait(_PROGRESS_INTERVAL_S):
            with contextlib.suppress(OSError, pa.ArrowInvalid):  # a part that is being written is counted next time
                for part in storage.list_files(parts_uri, ".parquet"):
                    if part not in known:
                        fs, path = storage.arrow_filesystem(part)
                        known[part] = pq.read_metadata(path, filesystem=fs).num_rows
            progress(min(sum(known.values()), total), total)

    thread = threading.Thread(target=count, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    progress(total, total)

"""A manifest streamed through a function into a sealed table, resumable at any moment, on Ray Data.

The plan is always the same: manifest Parquet -> blocks of ``rows_per_block`` -> maps -> small parts. Ray Data's job
checkpoint on ``row_id`` lets an interrupted run go on; the seal (:mod:`sarc_ray.tables`) makes each row appear once.
One run writes a table at a time (:mod:`sarc_ray.table_lock`), and only what it has to (:mod:`sarc_ray.table_reuse`).
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pandas as pd
import ray.data
from ray.data.checkpoint import CheckpointConfig

from sarc_ray import storage, table_lock, table_reuse, tables, watching
from sarc_ray.distributed.settings import EngineConfig
from sarc_ray.errors import SarcRayError
from sarc_ray.store_errors import is_of_a_store, trouble
from sarc_ray.table_reuse import RowIds, RowInputs, WritePlan

Progress = Callable[[int, int], None]
_LOOK_INTERVAL_S = 1.0
_PAUSE_PER_LOOK = 10.0


def stream_to_table(
    rows: pd.DataFrame,
    uri: str,
    *,
    build: Callable[[ray.data.Dataset], ray.data.Dataset],
    engine: EngineConfig,
    version: str,
    lineage: Mapping[str, Any],
    inputs: RowInputs | None = None,
    retry: bool = False,
    progress: Progress | None = None,
    watcher: watching.Watcher | None = None,
) -> tables.Pointer:
    """Run ``build``'s maps over ``rows`` and seal what they write.

    While it works, ``progress.json`` in the table's folder says how it goes; see :mod:`sarc_ray.watching`.

    Args:
        rows: one row per image with a unique int64 ``row_id``.
        uri: the table to write.
        build: adds maps to a dataset; each keeps the column ``row_id``.
        engine: block size.
        version: name of the sealed version; the same inputs must give the same name.
        lineage: stored with the table.
        inputs: what decides each row; with them a run takes over what is unchanged in a sealed table.
        retry: touch only the retryable rows of the sealed table; needs ``inputs``.
        progress: called with (rows written, rows in all) about once a second.
        watcher: called as often with outcome counts, rate and memory too.

    Returns:
        The pointer of the sealed table. A table of the same version that is sealed already is left as it is, but for
        its retryable rows: these, and only these, are tried again into a new version.

    Raises:
        TableBusyError: another run writes the table.
        StorageError: the table cannot be read or written, or does not reconcile with the rows.
    """
    sealed = tables.read_pointer(uri)
    if sealed is not None and not sealed.n_retryable and (retry or tables.base_of(sealed.version) == version):
        return sealed
    run_name = str(lineage.get("run_id") or lineage.get("stage") or version)
    with table_lock.hold(uri, run=run_name) as lock:
        plan = _plan(uri, rows["row_id"].to_numpy(), version=version, inputs=inputs, retry=retry)
        if retry and sealed is not None and not len(plan.todo):
            return sealed  # the rows that the store failed on have left the manifest: nothing would change
        name = tables.version_to_write(uri, plan.base)
        todo = rows[rows["row_id"].isin(plan.todo)]
        _prepare_work(uri, name, plan, todo)
        watch = watching.Watch(
            uri, version=name, run=run_name, n_rows=len(plan.expected), progress=progress, watcher=watcher
        )
        with watch.told():
            if len(todo):
                _stream(uri, name, build=build, engine=engine, n_rows=len(plan.expected), progress=watch)
            return _seal(uri, name, plan, lineage=lineage, watch=watch, lock=lock)


def _seal(
    uri: str,
    version: str,
    plan: WritePlan,
    *,
    lineage: Mapping[str, Any],
    watch: watching.Watch,
    lock: table_lock.TableLock,
) -> tables.Pointer:
    facts = {} if plan.inputs is None else {"recipe": plan.inputs.recipe, "n_taken_over": len(plan.kept)}
    if plan.inputs is not None:
        table_reuse.write_inputs(uri, version, plan.inputs)
    tally = watching.Tally()
    started = time.monotonic()

    def guard() -> None:
        lock.require()
        watch.seconds["sealing"] = time.monotonic() - started
        watch.summarise(tally, lineage={**lineage, **facts}, n_taken_over=len(plan.kept))
        lock.require()

    watch.write("sealing")
    return tables.seal(
        uri,
        version=version,
        expected_row_ids=plan.expected,
        lineage={**lineage, **facts},
        guard=guard,
        passing=tally.strip,
    )


def _plan(uri: str, row_id_N: RowIds, *, version: str, inputs: RowInputs | None, retry: bool) -> WritePlan:
    if not retry:
        return table_reuse.plan_all(uri, row_id_N, version=version, inputs=inputs)
    assert inputs is not None, "who retries knows what decides each row"
    return table_reuse.plan_retry(uri, row_id_N, version=version, inputs=inputs)


def _prepare_work(uri: str, version: str, plan: WritePlan, todo: pd.DataFrame) -> None:
    """The rows to work on and the parts to take over; an interrupted run of the same version has them already."""
    if storage.exists(tables.input_uri(uri, version)):
        return
    storage.remove_tree(tables.work_uri(uri))
    table_reuse.copy_rows(uri, plan.kept, version=version)
    storage.write_table(tables.input_uri(uri, version), todo)


def _stream(
    uri: str,
    version: str,
    *,
    build: Callable[[ray.data.Dataset], ray.data.Dataset],
    engine: EngineConfig,
    n_rows: int,
    progress: watching.Watch,
) -> None:
    parts_uri = tables.parts_uri(uri, version)
    with (
        _failures_told(uri),
        _job_checkpoint(storage.join(tables.work_uri(uri), version, "checkpoint")),
        _watched(progress),
    ):
        fs, path = storage.arrow_filesystem(tables.input_uri(uri, version))
        dataset = ray.data.read_parquet(path, filesystem=fs)
        dataset = build(dataset.repartition(target_num_rows_per_block=engine.rows_per_block))
        fs, path = storage.arrow_filesystem(parts_uri)
        dataset.write_parquet(path, filesystem=fs, mode="append")


@contextlib.contextmanager
def _failures_told(uri: str) -> Iterator[None]:
    """What failed in a worker, in the words of the worker; without the engine's own, and without its traceback.

    Raises:
        SarcRayError: as the worker raised it.
        StorageError: a part or the checkpoint could not be written or read.
    """
    try:
        yield
    except Exception as error:
        cause = getattr(error, "cause", None) or error
        if isinstance(cause, SarcRayError):
            raise cause from None
        # Engine errors are none of the system's: a bug, or a cluster that is gone, keeps its traceback.
        if is_of_a_store(cause):
            raise trouble(uri, "written", cause) from error
        raise


@contextlib.contextmanager
def _job_checkpoint(uri: str) -> Iterator[None]:
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # A failure is raised, and told by us: nothing is to be said twice.
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    context.raise_original_map_exception = True
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
def _watched(watch: watching.Watch) -> Iterator[None]:
    """Look at the finished parts from a thread, since Ray Data has no callback for it."""
    stop = threading.Event()
    started = time.monotonic()

    def look() -> None:
        next_look = started
        while not stop.wait(_LOOK_INTERVAL_S):
            began = time.monotonic()
            if began < next_look:
                watch.beat()
                continue
            watch.look()
            # Thousands of parts are listed in seconds: to look shall not become the work.
            now = time.monotonic()
            next_look = now + _PAUSE_PER_LOOK * (now - began)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        watch.seconds["streaming"] = time.monotonic() - started
    watch.finish_looking()

"""A manifest to the score table: fetch, decode and gate in tasks, the ensemble in warm actors."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import ray.data

from sarc_ray.bundle import load_bundle
from sarc_ray.distributed.cluster import cpu_count, gpu_count
from sarc_ray.distributed.prepare import read_limits
from sarc_ray.distributed.settings import EngineConfig
from sarc_ray.distributed.stream import Progress, stream_to_table
from sarc_ray.imaging.batch import prepare_and_time
from sarc_ray.imaging.isolation import ReadLimits
from sarc_ray.imaging.preprocess import PreprocessConfig
from sarc_ray.instruments import Stopwatch, peak_bytes, with_carried, with_peak, with_seconds
from sarc_ray.scoring import score_rows
from sarc_ray.stage1.settings import Precision
from sarc_ray.table_reuse import RowInputs
from sarc_ray.tables import Pointer
from sarc_ray.watching import Watcher

if TYPE_CHECKING:  # imports scikit-learn
    from sarc_ray.stage2.explain import TopReasons


def score_manifest(
    rows: pd.DataFrame,
    uri: str,
    *,
    bundle_uri: str,
    preprocess: PreprocessConfig,
    engine: EngineConfig,
    version: str,
    lineage: Mapping[str, Any],
    inputs: RowInputs | None = None,
    retry: bool = False,
    n_reasons: int = 0,
    precision: Precision = "float32",
    progress: Progress | None = None,
    watcher: Watcher | None = None,
) -> Pointer:
    """Score every row of a manifest; each gets exactly one outcome row.

    Args:
        rows: ``row_id``, ``image_uri`` (absolute), the clinical features, ``patient_key``, ``study_key``, ``site``,
            ``device`` as far as known. No raw identifiers: the rows travel through the cluster.
        uri: the score table, any fsspec URL.
        bundle_uri: readable from every node.
        preprocess: the bundle's.
        engine: blocks, actors, and limits of reading.
        version: names this table's content: changes with the bundle, the preprocessing, the rows and ``n_reasons``.
        lineage: stored with the table; ``run_id`` goes into every row.
        inputs: what decides each row; with them, rows of the sealed table that would come out the same are taken over.
        retry: touch only the retryable rows of the sealed table.
        n_reasons: how many of the largest contributions each row names; 0 leaves their columns out.
        precision: of the networks' convolutions.
        progress: called with (rows written, rows in all).
        watcher: called with outcome counts, rate and memory too.
    """
    of_reader = {
        "preprocess": preprocess,
        "limits": read_limits(engine),
        "carried": [name for name in rows.columns if name != "image_uri"],
        "seconds_per_fetch": engine.seconds_per_fetch,
    }
    of_scorer = {
        "bundle_uri": bundle_uri,
        "run_id": lineage["run_id"],
        "threads": engine.scorer_threads,
        "precision": precision,
        "n_reasons": n_reasons,
    }
    return stream_to_table(
        rows,
        uri,
        build=functools.partial(_add_maps, engine=engine, of_reader=of_reader, of_scorer=of_scorer),
        engine=engine,
        version=version,
        lineage=lineage,
        inputs=inputs,
        retry=retry,
        progress=progress,
        watcher=watcher,
    )


def _add_maps(
    dataset: ray.data.Dataset, *, engine: EngineConfig, of_reader: dict[str, Any], of_scorer: dict[str, Any]
) -> ray.data.Dataset:
    prepared = dataset.map_batches(
        prepare_batch,
        batch_format="pyarrow",
        batch_size=None,
        fn_kwargs=of_reader,
        # One process decodes at a time in each task; what it may take of memory is limited where it is forked.
        num_cpus=1,
    )
    return prepared.map_batches(
        Scorer,
        batch_format="pyarrow",
        batch_size=engine.rows_per_block,
        # A scorer holds no CPU slot: with one per core the pool would starve the tasks that feed it.
        num_cpus=0,
        num_gpus=engine.gpus_per_scorer or None,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=engine.scorers or _default_scorers(engine)),
        fn_constructor_kwargs=of_scorer,
    )


def _default_scorers(engine: EngineConfig) -> int:
    if engine.gpus_per_scorer > 0:
        return max(1, int(gpu_count() / engine.gpus_per_scorer))
    return max(1, cpu_count() // 2)


def prepare_batch(
    batch: pa.Table, *, preprocess: PreprocessConfig, limits: ReadLimits, carried: list[str], seconds_per_fetch: float
) -> pa.Table:
    """Image rows beside the manifest's own columns."""
    row_ids, uris = batch["row_id"].to_pylist(), batch["image_uri"].to_pylist()
    images = prepare_and_time(row_ids, uris, preprocess, limits, seconds_per_fetch=seconds_per_fetch)
    for name in carried:
        if name not in images.column_names:
            images = images.append_column(name, batch[name])
    return images


class Scorer:
    """Holds the verified bundle, and the explainer where one is asked for, in memory for the life of an actor."""

    def __init__(self, *, bundle_uri: str, run_id: str, threads: int, precision: Precision, n_reasons: int) -> None:
        self._bundle = load_bundle(bundle_uri)
        self._how: dict[str, Any] = {"run_id": run_id, "threads": threads, "precision": precision}
        self._top_reasons: TopReasons | None = None
        if n_reasons:
            from sarc_ray.stage2.explain import TopReasons, make_explainer

            self._top_reasons = TopReasons(make_explainer(self._bundle.stage2), n_reasons)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Score rows, with the columns of :mod:`sarc_ray.instruments`."""
        started, watch = time.perf_counter(), Stopwatch()
        table = score_rows(batch, self._bundle, top_reasons=self._top_reasons, watch=watch, **self._how)
        ensemble_s = watch.seconds.get("ensemble", 0.0)
        seconds = {"ensemble": ensemble_s, "stage2": time.perf_counter() - started - ensemble_s}
        return with_peak(with_seconds(with_carried(table, batch), seconds), peak_bytes())

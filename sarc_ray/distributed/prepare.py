"""Manifest rows to the image table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import pyarrow as pa
import ray.data

from sarc_ray.distributed.settings import EngineConfig
from sarc_ray.distributed.stream import Progress, stream_to_table
from sarc_ray.imaging.batch import prepare_rows
from sarc_ray.imaging.isolation import ReadLimits
from sarc_ray.imaging.preprocess import PreprocessConfig
from sarc_ray.tables import Pointer


def prepare_images(
    manifest: pd.DataFrame,
    uri: str,
    *,
    preprocess: PreprocessConfig,
    engine: EngineConfig,
    version: str,
    lineage: Mapping[str, Any],
    progress: Progress | None = None,
) -> Pointer:
    """Write the image table of a manifest: one outcome row per image, with the small picture where it could be read.

    Args:
        manifest: columns ``row_id`` and ``image_uri`` (absolute).
        uri: the table to write, any fsspec URL.
        preprocess: picture size and contrast.
        engine: block size, and limits of reading.
        version: changes whenever the manifest's rows or ``preprocess`` change.
        lineage: stored with the table.
        progress: called with (rows written, rows in all).
    """

    def build(dataset: ray.data.Dataset) -> ray.data.Dataset:
        return dataset.map_batches(
            _prepare_batch,
            batch_format="pyarrow",
            batch_size=None,
            fn_kwargs={
                "preprocess": preprocess,
                "limits": read_limits(engine),
                "seconds_per_fetch": engine.seconds_per_fetch,
            },
        )

    return stream_to_table(
        manifest[["row_id", "image_uri"]],
        uri,
        build=build,
        engine=engine,
        version=version,
        lineage=lineage,
        progress=progress,
    )


def read_limits(engine: EngineConfig) -> ReadLimits:
    """What reading one image may use. No part of a fingerprint: images that keep within it come out the same."""
    return ReadLimits(seconds_per_image=engine.seconds_per_image, mebibytes_per_image=engine.mebibytes_per_image)


def _prepare_batch(
    batch: pa.Table, *, preprocess: PreprocessConfig, limits: ReadLimits, seconds_per_fetch: float
) -> pa.Table:
    row_ids, uris = batch["row_id"].to_pylist(), batch["image_uri"].to_pylist()
    return prepare_rows(row_ids, uris, preprocess, limits, seconds_per_fetch=seconds_per_fetch)

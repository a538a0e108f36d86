"""A listing of objects to a table of their headers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import pyarrow as pa
import ray.data

from sarc_ray.distributed.settings import EngineConfig
from sarc_ray.distributed.stream import Progress, stream_to_table
from sarc_ray.imaging.heads import head_rows
from sarc_ray.tables import Pointer


def read_all_heads(
    listing: pd.DataFrame,
    uri: str,
    *,
    key: bytes,
    engine: EngineConfig,
    version: str,
    lineage: Mapping[str, Any],
    progress: Progress | None = None,
) -> Pointer:
    """Write the table of headers of a listing: one row of :data:`sarc_ray.imaging.heads.HEAD_SCHEMA` per object.

    Args:
        listing: columns ``row_id`` (unique), ``image_uri`` (absolute) and ``bytes``.
        uri: the table to write, any fsspec URL.
        key: secret of the patient and study keys; the workers get it, since no identifier may leave them.
        engine: block size.
        version: changes whenever the listing or the key change.
        lineage: stored with the table.
        progress: called with (rows written, rows in all).
    """

    # A function that holds the key, not an argument of the map: Ray writes a map's arguments into its logs.
    def read(batch: pa.Table) -> pa.Table:
        columns = (batch[name].to_pylist() for name in ("row_id", "image_uri", "bytes"))
        return head_rows(*columns, key=key, seconds_per_fetch=engine.seconds_per_fetch)

    def build(dataset: ray.data.Dataset) -> ray.data.Dataset:
        return dataset.map_batches(read, batch_format="pyarrow", batch_size=None)

    return stream_to_table(
        listing[["row_id", "image_uri", "bytes"]],
        uri,
        build=build,
        engine=engine,
        version=version,
        lineage=lineage,
        progress=progress,
    )

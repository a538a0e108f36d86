"""Rows of a sealed score table, piece by piece, of one model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from sarc_ray import storage, tables
from sarc_ray.errors import ConfigError, ManifestError, StorageError

# Rows at once: each becomes some eight rows of measurements.
ROWS_AT_ONCE = 50_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Exported:
    """What an export wrote.

    Attributes:
        n_written: rows or files.
        left_out: how many rows or images were not exported, by cause.
    """

    n_written: int
    left_out: dict[str, int]


def schema_of(table: str) -> pa.Schema:
    """Columns of a sealed score table.

    Raises:
        ConfigError: the table is another one.
        StorageError: there is no sealed table, or one without rows.
    """
    for whole in tables.iterate(table):
        tables.check_scores(table, whole.column_names)
        return whole.schema.remove_metadata()
    raise StorageError(f"{table}: the table has no rows; check the manifest that it was made from")


def read_supplied(uri: str) -> pd.DataFrame:
    """A table that the user adds to an export, as :func:`sarc_ray.storage.read_table` gives it.

    Raises:
        ManifestError: the file is no table; nothing of it is quoted.
        StorageError: it cannot be read.
    """
    try:
        return storage.read_table(uri)
    except ValueError as error:
        raise ManifestError(
            f"{uri}: not a readable table ({type(error).__name__}); write UTF-8 CSV with one header line, or Parquet"
        ) from None


def check_columns(table: str, schema: pa.Schema, names: Sequence[str]) -> None:
    """Refuse columns that the table does not have.

    Raises:
        ConfigError: names them, and those that it has.
    """
    missing = [name for name in names if name not in schema.names]
    if missing:
        raise ConfigError(f"{table}: no column {', '.join(missing)}; it has {', '.join(schema.names)}")


def check_model(table: str, model_id: str) -> None:
    """Refuse a bundle that did not score the table: its units and its threshold may be others.

    Raises:
        ConfigError: the table is another model's.
        StorageError: there is no sealed table.
    """
    pointer = tables.read_pointer(table)
    if pointer is None:
        raise StorageError(f"{table}: no finished table here; run the step that writes it first")
    found = pointer.lineage.get("model_id")
    if found != model_id:
        raise ConfigError(
            f"--bundle: its model_id is {model_id}, but {table} was scored by {found}; name the bundle that scored it"
        )


def iterate_rows(table: str, columns: Sequence[str]) -> Iterator[pa.Table]:
    """At most :data:`ROWS_AT_ONCE` rows at a time, in the table's own order.

    Args:
        table: a sealed score table.
        columns: that it has; see :func:`check_columns`.

    Raises:
        StorageError: there is no sealed table.
    """
    for whole in tables.iterate(table, columns=list(columns)):
        for start in range(0, len(whole), ROWS_AT_ONCE):
            yield whole.select(list(columns)).slice(start, ROWS_AT_ONCE)


def find_rows(table: str, row_ids: Sequence[int], columns: Sequence[str]) -> dict[int, dict[str, Any]]:
    """The rows of a few images, by ``row_id``; those that the table does not know are absent.

    Raises:
        ConfigError: the table lacks a column.
        StorageError: there is no sealed table, or one without rows.
    """
    names = ["row_id", *columns]
    check_columns(table, schema_of(table), names)
    wanted = pa.array(row_ids, pa.int64())
    parts = [part.filter(pc.is_in(part["row_id"], wanted)) for part in iterate_rows(table, names)]
    return {row["row_id"]: row for part in parts for row in part.to_pylist()}

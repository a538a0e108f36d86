"""The rows of a score table that a comparison needs, with what a manifest says of them."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sarc_ray import storage, tables
from sarc_ray.cohort.schema import read_manifest
from sarc_ray.drift.variables import MANIFEST_NUMBERS, MANIFEST_TEXTS, needed_columns, variables_of
from sarc_ray.errors import ConfigError, ManifestError, StorageError

_MONTH = re.compile(r"^\d{4}-(0[1-9]|1[0-2])$")


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """Rows of a score table.

    Attributes:
        rows: the columns that are watched, and what groups them.
        source: version, SHA-256 over the files, model, months, lineage of the table.
    """

    rows: pa.Table
    source: Mapping[str, Any]


def read_scores(uri: str, *, manifest: str | None, since: str | None, until: str | None) -> Scores:
    """Read a sealed score table.

    Args:
        uri: of the table.
        manifest: whose columns (rows, columns, photometric and so on) are joined by ``row_id``; None for none.
        since: first month (YYYY-MM); None from the beginning.
        until: last month. Rows without a month are left out where one of the two is given.

    Raises:
        ConfigError: a month is none, no row is left, or the table is none of scores.
        ManifestError: the manifest cannot be read as one, or knows none of the rows.
        StorageError: there is no sealed table.
    """
    for name, month in (("--since", since), ("--until", until)):
        if month is not None and not _MONTH.match(month):
            raise ConfigError(f"{name}: found {month!r}, allowed: a month as YYYY-MM")
    pointer = tables.read_pointer(uri)
    if pointer is None:
        raise StorageError(f"{uri}: no finished score table here; run 'sarc-ray score' first")
    digest, parts = hashlib.sha256(), []
    for name in pointer.files:
        data = storage.read_bytes(storage.join(uri, name))
        digest.update(data)
        part = pq.read_table(io.BytesIO(data))
        tables.check_scores(uri, part.column_names)
        names = [variable.name for variable in variables_of(part.schema)]
        parts.append(_of_months(part.select(needed_columns(names, part.schema)), since, until))
    rows = pa.concat_tables(parts, promote_options="default") if parts else None
    if rows is None or not len(rows):
        raise ConfigError(f"{uri}: no row of these months; the table has {pointer.n_rows} rows in all")
    source = {
        "version": pointer.version,
        "sha256": digest.hexdigest(),
        "model_id": pointer.lineage.get("model_id"),
        "since": since,
        "until": until,
        "lineage": dict(pointer.lineage),
    }
    return Scores(rows=rows if manifest is None else _joined(rows, manifest), source=source)


def _of_months(part: pa.Table, since: str | None, until: str | None) -> pa.Table:
    if since is not None:
        part = part.filter(pc.greater_equal(part["acquired_month"], since))
    return part if until is None else part.filter(pc.less_equal(part["acquired_month"], until))


def _joined(rows: pa.Table, manifest_uri: str) -> pa.Table:
    manifest = read_manifest(manifest_uri)
    place = pc.index_in(rows["row_id"], pa.array(manifest["row_id"]))
    if place.null_count == len(rows):
        raise ManifestError(
            f"{manifest_uri}: none of its {len(manifest)} rows is in the score table; give the manifest that was "
            "scored, from where it lay then: row_id is made of the images' addresses"
        )
    for name in (*MANIFEST_NUMBERS, *MANIFEST_TEXTS):
        if name in manifest and name not in rows.column_names:
            kind = pa.float64() if name in MANIFEST_NUMBERS else pa.string()
            values = manifest[name] if name in MANIFEST_NUMBERS else manifest[name].map(_text, na_action="ignore")
            rows = rows.append_column(name, pa.array(values, kind, from_pandas=True).take(place.combine_chunks()))
    return rows


def _text(value: object) -> str:
    """Whole numbers without a point: a column of numbers with gaps holds 12.0 for 12."""
    return f"{value:g}" if isinstance(value, float) else str(value)

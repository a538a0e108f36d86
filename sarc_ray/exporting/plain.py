"""Chosen columns of a score table as one CSV or Parquet file, for whatever cannot read the table itself."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from sarc_ray.errors import ConfigError, Outcome
from sarc_ray.exporting.rows import Exported, check_columns, iterate_rows, schema_of
from sarc_ray.exporting.writing import writing_rows

# What is left out unless it is named: what a model's developer wants rather than a reader of scores.
_ON_REQUEST = ("study_key", "image_sha256", "retryable", "gate_flags", "raw_score", "run_id")
_ON_REQUEST_ENDINGS = ("_var_aleatoric", "_var_epistemic", "_uncertainty_pct", "_shap")


def export_plain(table: str, to: str, *, columns: Sequence[str] = (), scored_only: bool = False) -> Exported:
    """Write chosen columns of a score table, in their order, as one file.

    Args:
        table: a sealed score table.
        to: a ``.csv`` or ``.parquet`` under any fsspec URL.
        columns: names; none means :func:`usual_columns`.
        scored_only: leave out rows that were not scored.

    Raises:
        ConfigError: the table is none of scores, a column is unknown or named twice, or ``to`` has another ending.
        StorageError: there is no sealed table, or the file cannot be written.
    """
    schema = schema_of(table)
    names = list(columns) or usual_columns(schema.names)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"--column: {', '.join(twice)} named twice; name each once")
    check_columns(table, schema, names)
    n_rows = n_left_out = 0
    with writing_rows(to, pa.schema([schema.field(name) for name in names])) as write:
        # The outcome decides which rows, also where it is no column of the export.
        for part in iterate_rows(table, list(dict.fromkeys([*names, "outcome"]))):
            kept = part.filter(pc.equal(part["outcome"], Outcome.SCORED.value)) if scored_only else part
            n_rows += len(kept)
            n_left_out += len(part) - len(kept)
            write(kept.select(names))
    return Exported(n_written=n_rows, left_out={"not scored": n_left_out} if n_left_out else {})


def usual_columns(known: Sequence[str]) -> list[str]:
    """The columns that are exported where none are named."""
    return [name for name in known if name not in _ON_REQUEST and not name.endswith(_ON_REQUEST_ENDINGS)]

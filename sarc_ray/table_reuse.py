"""What a run may take over from the sealed table: rows whose inputs are the same and that no retry can better.

A row is decided by what is common to all rows (the recipe: bundle with its preprocessing, settings, release) and by its
own cells of the manifest, of which a hash is kept beside each version. Another recipe takes nothing over, so that no
version ever holds rows of two bundles.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from sarc_ray import storage, tables
from sarc_ray.errors import StorageError

RowIds = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class RowInputs:
    """What decides the rows of a table.

    Attributes:
        recipe: hash of what is common to all rows.
        row_id_N: shape (N,).
        hash_N: shape (N,), of each row's own cells.
    """

    recipe: str
    row_id_N: RowIds
    hash_N: npt.NDArray[np.uint64]


@dataclass(frozen=True, kw_only=True, slots=True)
class WritePlan:
    """What a run has to do.

    Attributes:
        base: name of the version to be written, by content.
        todo: rows to work on.
        kept: rows to take over from the sealed table, sorted.
        inputs: of all rows of the version; None where these are not known.
    """

    base: str
    todo: RowIds
    kept: RowIds
    inputs: RowInputs | None

    @property
    def expected(self) -> RowIds:
        """All rows of the version."""
        return np.concatenate([self.kept, self.todo])


def row_hashes(rows: pd.DataFrame) -> npt.NDArray[np.uint64]:
    """A hash of each row's cells, shape (N,); equal cells in equal columns give equal hashes."""
    return np.asarray(pd.util.hash_pandas_object(rows, index=False), dtype=np.uint64)


def plan_all(uri: str, row_id_N: RowIds, *, version: str, inputs: RowInputs | None) -> WritePlan:
    """A table of all rows: those that are new, changed or retryable are to be worked on, the others are taken over.

    Args:
        uri: the table.
        row_id_N: shape (N,), unique: the manifest's rows.
        version: name of the content.
        inputs: of these rows; None takes rows over from the same content alone.
    """
    sealed = tables.read_pointer(uri)
    if sealed is None:
        known = _no_rows()
    elif tables.base_of(sealed.version) == version:
        known = row_id_N
    else:
        known = _unchanged(uri, sealed, inputs)
    if sealed is None or not len(known):
        return WritePlan(base=version, todo=row_id_N, kept=_no_rows(), inputs=inputs)
    row_ids, retryable = _rows_of(uri)
    kept = np.intersect1d(np.intersect1d(row_ids[~retryable], known), row_id_N)
    return WritePlan(base=version, todo=np.setdiff1d(row_id_N, kept), kept=kept, inputs=inputs)


def plan_retry(uri: str, row_id_N: RowIds, *, version: str, inputs: RowInputs) -> WritePlan:
    """The sealed table with its retryable rows tried again, and nothing else, whatever the manifest has become.

    Args:
        uri: the table.
        row_id_N: shape (N,), unique: the manifest's rows; it has to name the retryable ones.
        version: name of the manifest's content.
        inputs: of these rows.

    Raises:
        StorageError: there is no sealed table, or it was made with another bundle or other settings.
    """
    sealed = tables.read_pointer(uri)
    if sealed is None:
        raise StorageError(f"{uri}: no finished table whose rows could be tried again; run 'sarc-ray score' first")
    if tables.base_of(sealed.version) == version:
        return plan_all(uri, row_id_N, version=version, inputs=inputs)
    before = _read_inputs(uri, sealed)
    if before is None or before.recipe != inputs.recipe:
        raise StorageError(
            f"{uri}: sealed with another bundle, other settings or another release, and one table never holds rows of "
            "two; run 'sarc-ray score' without --retry, which scores all rows anew"
        )
    row_ids, retryable = _rows_of(uri)
    todo = np.intersect1d(row_ids[retryable], row_id_N)
    merged = _updated(before, inputs, todo)
    base = tables.base_of(sealed.version)
    if not np.array_equal(merged.hash_N, before.hash_N):  # other cells than those that gave the version its name
        base = f"{base}-{hashlib.sha256(merged.hash_N.tobytes()).hexdigest()[:8]}"
    return WritePlan(base=base, todo=todo, kept=np.setdiff1d(row_ids, todo), inputs=merged)


def copy_rows(uri: str, row_ids: RowIds, *, version: str) -> None:
    """Take rows of the sealed table over into the parts of a version.

    Args:
        uri: the table.
        row_ids: shape (N,), sorted.
        version: to which they go.
    """
    if not len(row_ids):
        return
    for number, table in enumerate(tables.iterate(uri)):
        found = table["row_id"].to_numpy()
        # A search in what is sorted: a hash set of all rows for each file would cost more than the copying.
        place = np.minimum(np.searchsorted(row_ids, found), len(row_ids) - 1)
        kept = table.filter(pa.array(row_ids[place] == found))
        if len(kept):
            storage.write_table(storage.join(tables.parts_uri(uri, version), f"kept-{number:05d}.parquet"), kept)


def write_inputs(uri: str, version: str, inputs: RowInputs) -> None:
    """Keep what decided the rows of a version, for the run after this one."""
    table = pa.table({"row_id": pa.array(inputs.row_id_N), "input_hash": pa.array(inputs.hash_N)})
    storage.write_table(_inputs_uri(uri, version), table)


def _read_inputs(uri: str, sealed: tables.Pointer) -> RowInputs | None:
    where = _inputs_uri(uri, sealed.version)
    recipe = sealed.lineage.get("recipe")
    if recipe is None or not storage.exists(where):
        return None
    table = storage.read_table(where)
    return RowInputs(recipe=recipe, row_id_N=table["row_id"].to_numpy(), hash_N=table["input_hash"].to_numpy())


def _updated(before: RowInputs, now: RowInputs, row_ids: RowIds) -> RowInputs:
    """The inputs of before, with those of some rows as they are now."""
    hash_N = before.hash_N.copy()
    hash_N[_places(before, row_ids)] = now.hash_N[_places(now, row_ids)]
    return RowInputs(recipe=before.recipe, row_id_N=before.row_id_N, hash_N=hash_N)


def _places(inputs: RowInputs, row_ids: RowIds) -> npt.NDArray[np.intp]:
    return pd.Index(inputs.row_id_N).get_indexer(pd.Index(row_ids))


def _unchanged(uri: str, sealed: tables.Pointer, inputs: RowInputs | None) -> RowIds:
    """Rows of the sealed table that the same inputs would give again."""
    if inputs is None or sealed.lineage.get("recipe") != inputs.recipe:
        return _no_rows()
    before = _read_inputs(uri, sealed)
    if before is None:
        return _no_rows()
    common, mine, theirs = np.intersect1d(inputs.row_id_N, before.row_id_N, assume_unique=True, return_indices=True)
    unchanged: RowIds = common[inputs.hash_N[mine] == before.hash_N[theirs]]
    return unchanged


def _rows_of(uri: str) -> tuple[RowIds, npt.NDArray[np.bool_]]:
    """Row identities of the sealed table, and which of them are retryable."""
    files = [*tables.iterate(uri, columns=["row_id", "retryable"])]
    if not files:
        return _no_rows(), np.empty(0, dtype=np.bool_)
    table = pa.concat_tables(files)
    return table["row_id"].to_numpy(), table["retryable"].to_numpy()


def _inputs_uri(uri: str, version: str) -> str:
    return storage.join(uri, "inputs", f"{version}.parquet")


def _no_rows() -> RowIds:
    return np.empty(0, dtype=np.int64)

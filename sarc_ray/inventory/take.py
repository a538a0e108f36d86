"""From a bucket or folder to a manifest: list it, read the headers, write what they say.

Beside the manifest ``NAME.parquet`` (or ``.csv``) lies the folder ``NAME.inventory``: the table of headers, and its
listing while an inventory is under way. An interrupted inventory goes on from both, whatever was added to the folder
in between; a finished one lists the folder anew.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from sarc_ray import __version__, storage, tables
from sarc_ray.cohort.schema import SCHEMA_VERSION, row_id
from sarc_ray.distributed import cluster
from sarc_ray.distributed.inventory import read_all_heads
from sarc_ray.errors import ConfigError, StorageError
from sarc_ray.imaging.heads import HEAD_SCHEMA
from sarc_ray.privacy import load_key, pseudonyms
from sarc_ray.run import Run, fingerprint_of, load_run
from sarc_ray.telling import Tell, silent

_ENDINGS = (".parquet", ".csv")
_LISTED_BETWEEN_WORDS = 1000
# What people look at first comes first.
_FIRST = ("image_uri", "patient_id", "study_id", "eligible", "reason", "gate_flags")
_LEFT_OUT = ("row_id", "outcome", "retryable")
MANIFEST_COLUMNS = (*_FIRST, *(name for name in HEAD_SCHEMA.names if name not in (*_FIRST, *_LEFT_OUT)))


@dataclass(frozen=True, kw_only=True, slots=True)
class InventoryRequest:
    """What to look at, and where to write the manifest.

    Args:
        folder: bucket or folder, any fsspec URL.
        manifest: ``.parquet`` or ``.csv``, any fsspec URL.
    """

    folder: str
    manifest: str

    def __post_init__(self) -> None:
        if not self.manifest.endswith(_ENDINGS):
            raise ConfigError(f"--to: found {self.manifest!r}; name a file that ends in {' or '.join(_ENDINGS)}")

    @property
    def table(self) -> str:
        """URL of the table of headers."""
        return f"{storage.canonical_uri(self.manifest).rpartition('.')[0]}.inventory"


def load_run_for(request: InventoryRequest, key_file: str | None, overrides: Sequence[str]) -> Run:
    """A run that gives the engine's settings and the key file: those of the preset ``paper``.

    Args:
        request: what to look at.
        key_file: file with the secret; None leaves it to ``overrides`` and the environment.
        overrides: ``a.b=c`` assignments.
    """
    own = {"run.name": "inventory", "run.directory": request.table, "data.derivation": request.manifest}
    own |= {"score.key_file": key_file} if key_file is not None else {}
    return load_run("paper", [*(f"{name}={json.dumps(value)}" for name, value in own.items()), *overrides])


def take_inventory(request: InventoryRequest, run: Run, tell: Tell = silent) -> dict[str, Any]:
    """Read every header below the folder and write the manifest; interrupted, the same call goes on.

    Returns:
        A record as the verbs of :mod:`sarc_ray.pipeline` give it.

    Raises:
        ConfigError: there is no key for patient keys.
        StorageError: the folder is empty or cannot be reached, or the manifest cannot be written.
    """
    started = time.perf_counter()
    key = load_key(run.config.score.key_file)
    listing_uri = _listing_uri(request)
    if not storage.exists(listing_uri):
        storage.write_table(listing_uri, _list(request, tell))
    listing = storage.read_table(listing_uri)
    version = _version(listing, key)
    before = tables.read_pointer(request.table)
    if before is not None and before.version.split("+")[0] == version and not before.n_retryable:
        pointer = before  # and no engine is started
    else:
        pointer = _read_heads(request, run, listing, key=key, version=version, tell=tell)
    skipped = pointer is before and storage.exists(request.manifest)
    if not skipped:
        storage.write_table(request.manifest, _manifest(request))
    if not pointer.n_retryable:
        storage.remove_tree(listing_uri)
    facts: dict[str, Any] = {"objects": pointer.n_rows, "eligible": pointer.counts.get("scored", 0)}
    facts |= {"to_try_again": pointer.n_retryable} if pointer.n_retryable else {}
    return {"skipped": skipped, "seconds": time.perf_counter() - started, "facts": facts}


def _read_heads(
    request: InventoryRequest, run: Run, listing: pd.DataFrame, *, key: bytes, version: str, tell: Tell
) -> tables.Pointer:
    with cluster.session(run.config.engine):
        return read_all_heads(
            listing,
            request.table,
            key=key,
            engine=run.config.engine,
            version=version,
            lineage={"stage": "inventory", "sarc_ray": __version__},
            progress=lambda done, total: tell("headers", done, total),
        )


def _listing_uri(request: InventoryRequest) -> str:
    """Named by the folder: the listing of another folder must not be taken for this one's."""
    name = fingerprint_of(storage.canonical_uri(request.folder))
    return storage.join(request.table, f"listing-{name}.parquet")


def _version(listing: pd.DataFrame, key: bytes) -> str:
    content = pd.util.hash_pandas_object(listing, index=False).to_numpy().tobytes().hex()
    return fingerprint_of([__version__, content, *pseudonyms(["inventory"], key=key, purpose="version")])


def _list(request: InventoryRequest, tell: Tell) -> pd.DataFrame:
    """Row identity, URL and size of every object below the folder, but for what this verb writes itself."""
    uris: list[str] = []
    sizes: list[int] = []
    for uri, size in _objects(request):
        uris.append(uri)
        sizes.append(size)
        if len(uris) % _LISTED_BETWEEN_WORDS == 0:
            tell("objects found", len(uris), len(uris))
    if not uris:
        raise StorageError(f"{request.folder}: there is no object below it; check the path")
    listing = pd.DataFrame({"row_id": [row_id(uri) for uri in uris], "image_uri": uris, "bytes": sizes})
    # A store may have keys a//b and a/b; both are one URI.
    return listing.drop_duplicates("row_id").sort_values("image_uri", ignore_index=True)


def _objects(request: InventoryRequest) -> Iterator[tuple[str, int]]:
    manifest, inside = storage.canonical_uri(request.manifest), f"{request.table}/"
    for uri, size in storage.walk_objects(request.folder):
        if uri != manifest and not uri.startswith(inside):
            # A name that is no text gets a row too; nothing is found under its substitute, and the row says so.
            yield uri.encode("utf-8", "backslashreplace").decode("utf-8"), size


def _manifest(request: InventoryRequest) -> pa.Table | pd.DataFrame:
    table = pa.concat_tables(tables.iterate(request.table)).sort_by("image_uri")
    base = f"{storage.parent(storage.canonical_uri(request.manifest))}/"
    uri = table["image_uri"]
    relative = pc.if_else(pc.starts_with(uri, base), pc.utf8_slice_codeunits(uri, len(base)), uri)
    table = table.set_column(table.schema.get_field_index("image_uri"), "image_uri", relative)
    table = table.append_column("eligible", pc.equal(table["reason"], "").cast(pa.int64()))
    table = table.set_column(
        table.schema.get_field_index("patient_known"), "patient_known", table["patient_known"].cast(pa.int64())
    ).select(MANIFEST_COLUMNS)
    if request.manifest.endswith(".csv"):
        return table.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)
    return table.replace_schema_metadata({"schema_version": str(SCHEMA_VERSION)})

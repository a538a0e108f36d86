"""Objects and tables under any fsspec URL; the only module that uses fsspec.

Credentials and endpoints come from the store's own environment variables (for S3: ``AWS_ACCESS_KEY_ID``,
``AWS_SECRET_ACCESS_KEY``, ``AWS_ENDPOINT_URL``), never from a configuration file, so that no secret is saved
with a run.

Failing requests are tried again by the store's own client, with growing pauses (botocore draws them at random). What
is added here is an end to it: a time limit for all attempts on one object together.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import io
import json
import os
import posixpath
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, BinaryIO

import fsspec
import pandas as pd
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
from fsspec.asyn import AsyncFileSystem, sync

from sarc_ray.errors import SarcRayError, StorageError
from sarc_ray.store_errors import is_of_a_store, refuses_credentials, trouble

_SCHEME = re.compile(r"^[a-zA-Z][a-zA-Z0-9+.-]*://")
_CONCURRENT_READS = 64
_FOLDERS_LISTED_APART = 1000
# Stands for "::" of a name while fsspec takes a URL apart; no name holds it.
_COLONS = "\0"

_Range = tuple[int | None, int | None]
_WHOLE: _Range = (None, None)


def is_absolute(uri: str) -> bool:
    """True for URLs with a scheme and for absolute local paths."""
    return bool(_SCHEME.match(uri)) or os.path.isabs(uri)


def canonical_uri(uri: str) -> str:
    """One spelling per object: local paths become absolute and lose ``file://``, ``a/./b//c`` becomes ``a/b/c``."""
    match = _SCHEME.match(uri)
    if match and match.group().lower() not in ("file://", "local://"):
        return match.group().lower() + posixpath.normpath(uri[match.end() :])
    return os.path.abspath(uri[match.end() :] if match else uri)


def join(base: str, *parts: str) -> str:
    """Join path parts to a URL or local path; an absolute part wins, as in ``os.path.join``."""
    for part in parts:
        base = part if is_absolute(part) else f"{base.rstrip('/')}/{part}"
    return base


def lies_within(uri: str, folder: str) -> bool:
    """True where a URL names a folder, or something below it."""
    inner, outer = canonical_uri(uri), canonical_uri(folder)
    return inner == outer or inner.startswith(f"{outer.rstrip('/')}/")


def require_known_schemes(uris: Iterable[str]) -> None:
    """Look at the schemes of URLs, and open nothing.

    Raises:
        StorageError: one is not known, or the package that reads it is missing. Names no object.
    """
    for scheme in sorted({uri.partition("://")[0].lower() for uri in uris if _SCHEME.match(uri)}):
        try:
            fsspec.get_filesystem_class(scheme)
        except (ValueError, ImportError) as error:
            raise StorageError(
                f"objects under {scheme}:// cannot be read ({error}); correct the scheme, or install what reads it"
            ) from error


def parent(uri: str) -> str:
    """URL or path of the folder that holds ``uri``."""
    return uri.rsplit("/", 1)[0] if "/" in uri else "."


def filesystem(uri: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The fsspec file system of a URL and the path within it.

    Raises:
        StorageError: unknown scheme, or a store that cannot be opened (missing credentials, say).
    """
    whole = canonical_uri(uri)
    # fsspec takes "::" for a chain of stores (simplecache::s3://...). Before no other scheme it is part of a name.
    chained = any("://" in link for link in whole.split("::")[1:])
    try:
        fs, path = fsspec.core.url_to_fs(whole if chained else whole.replace("::", _COLONS))
    except (ValueError, ImportError, OSError) as error:
        raise StorageError(
            f"{uri}: cannot open this store ({error}); check the URL's scheme and credentials"
        ) from error
    return fs, path.replace(_COLONS, "::")


def arrow_filesystem(uri: str) -> tuple[pyarrow.fs.FileSystem, str]:
    """The same as :func:`filesystem` for readers that want pyarrow's interface (Ray Data)."""
    fs, path = filesystem(uri)
    if fs.protocol == "file" or "file" in fs.protocol:
        return pyarrow.fs.LocalFileSystem(), path
    return pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(fs)), path


def exists(uri: str) -> bool:
    """True when an object or a folder lies under ``uri``."""
    fs, path = filesystem(uri)
    with _trouble_told(uri, "looked up"):
        fs.invalidate_cache()
        return bool(fs.exists(path))


def read_bytes(uri: str) -> bytes:
    """Read one object.

    Raises:
        StorageError: the object is missing or the store fails.
    """
    fs, path = filesystem(uri)
    with _trouble_told(uri, "read"):
        data: bytes = fs.cat_file(path)
    return data


@contextlib.contextmanager
def _trouble_told(uri: str, what: str) -> Iterator[None]:
    """Turn a store's own errors into ours; every store has its own family of them (botocore's are no OSError)."""
    try:
        yield
    except FileNotFoundError as error:
        raise StorageError(f"{uri}: no such object; check the path") from error
    except Exception as error:
        raise trouble(uri, what, error) from error


def read_many(uris: Sequence[str]) -> list[bytes | Exception]:
    """Read many objects at once, requests in parallel; the failure of an object is returned in its place.

    A missing object comes back as ``FileNotFoundError``.

    Raises:
        CredentialsError: the store does not accept the credentials, so that the fault is no object's.
    """
    return _read_all(uris, [_WHOLE] * len(uris), None)


def read_ranges(
    uris: Sequence[str], starts: Sequence[int], ends: Sequence[int], *, seconds_per_fetch: float | None = None
) -> list[bytes | Exception]:
    """Read a part of each of many objects, one request each and in parallel; failures as in :func:`read_many`.

    Args:
        uris: shape (N,), objects.
        starts: shape (N,), first bytes, counted from 0. Most stores refuse a start at or beyond an object's end.
        ends: shape (N,), the bytes after the last; an object that ends before gives what it has.
        seconds_per_fetch: longest that one object may take, all attempts together; it then counts as one that the
            store failed on. None, or a local file: no limit.

    Raises:
        CredentialsError: as :func:`read_many`.
    """
    return _read_all(uris, list(zip(starts, ends, strict=True)), seconds_per_fetch)


def read_bounded(
    uris: Sequence[str], limit_bytes: int, *, seconds_per_fetch: float | None = None
) -> list[bytes | Exception]:
    """Read at most the first ``limit_bytes`` of each of many objects, whatever their size; else as :func:`read_ranges`.

    One request for each object, but for those of no bytes, of which most stores can give no range: one more.
    """
    starts, ends = [0] * len(uris), [limit_bytes] * len(uris)
    found = read_ranges(uris, starts, ends, seconds_per_fetch=seconds_per_fetch)
    return [b"" if _may_be_empty(value) and _is_empty(uri) else value for uri, value in zip(uris, found, strict=True)]


def _may_be_empty(found: bytes | Exception) -> bool:
    # S3 and Azure say InvalidRange; others quote HTTP's status 416, Range Not Satisfiable.
    return isinstance(found, Exception) and re.search(r"range|\b416\b", str(found), re.IGNORECASE) is not None


def _is_empty(uri: str) -> bool:
    try:
        fs, path = filesystem(uri)
        return fs.size(path) == 0
    except Exception:  # every store has its own family of errors; the first one is told
        return False


def is_missing(error: Exception) -> bool:
    """True where a read failed because no such object exists (a folder is none); false where the store failed."""
    absent = (FileNotFoundError, IsADirectoryError, NotADirectoryError)
    return any(isinstance(found, absent) for found in (error, error.__cause__))


def _read_all(
    uris: Sequence[str], ranges: Sequence[_Range], seconds_per_fetch: float | None
) -> list[bytes | Exception]:
    results: list[bytes | Exception] = [FileNotFoundError("not read")] * len(uris)
    by_store: dict[int, tuple[fsspec.AbstractFileSystem, list[int], list[str]]] = {}
    for index, uri in enumerate(uris):
        try:
            fs, path = filesystem(uri)
        except StorageError as error:
            results[index] = error
            continue
        _, indices, paths = by_store.setdefault(id(fs), (fs, [], []))
        indices.append(index)
        paths.append(path)
    for fs, indices, paths in by_store.values():
        found = _cat_all(fs, paths, [ranges[k] for k in indices], seconds_per_fetch)
        for index, value in zip(indices, found, strict=True):
            results[index] = value
    for uri, value in zip(uris, results, strict=True):
        if isinstance(value, Exception) and refuses_credentials(value):
            raise trouble(parent(uri), "read", value) from value
    return results


def _cat_all(
    fs: fsspec.AbstractFileSystem, paths: list[str], ranges: Sequence[_Range], seconds_per_fetch: float | None
) -> list[bytes | Exception]:
    if isinstance(fs, AsyncFileSystem):
        found: list[bytes | Exception] = sync(fs.loop, _cat_at_once, fs, paths, ranges, seconds_per_fetch)
        return found
    values: list[bytes | Exception] = []
    for path, (start, end) in zip(paths, ranges, strict=True):
        try:
            values.append(fs.cat_file(path, start=start, end=end))
        except Exception as error:  # every store has its own family of errors
            values.append(error)
    return values


async def _cat_at_once(
    fs: AsyncFileSystem, paths: Sequence[str], ranges: Sequence[_Range], seconds_per_fetch: float | None
) -> list[bytes | BaseException]:
    """Objects in parallel, each within its own time. Not ``fs.cat``: it takes names with [, ? or * for patterns."""
    room = asyncio.Semaphore(_CONCURRENT_READS)

    async def read(path: str, start: int | None, end: int | None) -> bytes:
        async with room:
            try:
                # A client's own retries of retries can hold an object that hangs for half an hour.
                data: bytes = await asyncio.wait_for(fs._cat_file(path, start=start, end=end), seconds_per_fetch)
            except TimeoutError as error:
                if error.args:  # the store's own word
                    raise
                raise TimeoutError(f"not read within {seconds_per_fetch} s") from error
            return data

    reads = (read(path, *part) for path, part in zip(paths, ranges, strict=True))
    return await asyncio.gather(*reads, return_exceptions=True)


def write_bytes(uri: str, data: bytes) -> None:
    """Write one object whole: readers see the old object or the new one.

    Raises:
        StorageError: the store refuses the write.
    """
    fs, path = filesystem(uri)
    try:
        if isinstance(fs, AsyncFileSystem):
            fs.pipe_file(path, data)
            return
        fs.makedirs(posixpath.dirname(path), exist_ok=True)
        temporary = f"{path}.{os.getpid()}.tmp"
        fs.pipe_file(temporary, data)
        fs.mv(temporary, path)
    except Exception as error:  # every store has its own family of errors
        raise trouble(uri, "written", error) from error


@contextlib.contextmanager
def writing(uri: str) -> Iterator[BinaryIO]:
    """A file to write an object of any size into; where the block raises, the object stays as it was.

    Raises:
        StorageError: the store, or the disk that holds the object until it is whole, refuses the write.
    """
    fs, path = filesystem(uri)
    local = "file" in fs.protocol
    with tempfile.TemporaryDirectory() as folder:
        temporary = f"{path}.{os.getpid()}.tmp" if local else os.path.join(folder, "object")
        try:
            if local:
                fs.makedirs(posixpath.dirname(path), exist_ok=True)
            with open(temporary, "wb") as sink:
                yield sink
            if local:
                os.replace(temporary, path)
            else:
                fs.put_file(temporary, path)
        except SarcRayError:
            raise
        except Exception as error:  # every store has its own family of errors
            if not is_of_a_store(error):
                raise
            raise trouble(uri, "written", error) from error
        finally:
            if local and os.path.exists(temporary):
                os.remove(temporary)


def create_bytes(uri: str, data: bytes) -> bool:
    """Write one object if there is none; False where there is one, which stays as it is.

    Of two that try at once, only one succeeds where :func:`creates_once` says so.

    Raises:
        StorageError: the store refuses the write.
    """
    return not exists(uri) and _create(uri, data)


def creates_once(uri: str, data: bytes) -> bool:
    """True where the store itself refuses to create what is there: local files, S3 with If-None-Match and the like.

    Args:
        uri: an object that the caller has just created.
        data: what he wrote; a store that knows no such condition is given it once more.
    """
    return not _create(uri, data)


def _create(uri: str, data: bytes) -> bool:
    """Create without looking first; where a store heeds no condition, what is there is replaced."""
    fs, path = filesystem(uri)
    try:
        if "file" in fs.protocol:
            _create_file(path, data)
        else:
            _create_in_store(fs, path, data)
    except FileExistsError:
        return False
    except Exception as error:  # every store has its own family of errors
        # HTTP 409: two conditional writes met, and this one lost.
        if re.search("ConditionalRequestConflict|precondition", str(error), re.IGNORECASE):
            return False
        raise trouble(uri, "written", error) from error
    return True


def _create_file(path: str, data: bytes) -> None:
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
    except FileExistsError as error:
        raise NotADirectoryError(str(error)) from error
    with open(path, "xb") as sink:  # fsspec's own way looks first and writes then
        sink.write(data)


def _create_in_store(fs: fsspec.AbstractFileSystem, path: str, data: bytes) -> None:
    try:
        fs.pipe_file(path, data, mode="create")
    except (TypeError, NotImplementedError):  # the store's client knows no condition
        fs.pipe_file(path, data)
    except OSError as error:
        if error.errno != errno.ENOSYS:  # HTTP 501: the store itself knows none
            raise
        fs.pipe_file(path, data)


def read_text(uri: str) -> str:
    """Read one object as UTF-8 text."""
    return read_bytes(uri).decode("utf-8")


def write_text(uri: str, text: str) -> None:
    """Write one object as UTF-8 text."""
    write_bytes(uri, text.encode("utf-8"))


def read_json(uri: str) -> Any:
    """Read one JSON object.

    Raises:
        StorageError: missing, or not JSON.
    """
    try:
        return json.loads(read_bytes(uri))
    except ValueError as error:
        raise StorageError(f"{uri}: not valid JSON ({error})") from error


def write_json(uri: str, value: Any) -> None:
    """Write one JSON object, keys sorted, so that equal content gives equal bytes."""
    write_text(uri, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def list_files(uri: str, suffix: str = "") -> list[str]:
    """URLs of all objects below a folder, sorted; an absent folder has none."""
    fs, path = filesystem(uri)
    with _trouble_told(uri, "listed"):
        fs.invalidate_cache()
        if not fs.exists(path):
            return []
        return sorted(str(fs.unstrip_protocol(p)) for p in fs.find(path) if p.endswith(suffix))


def walk_objects(uri: str) -> Iterator[tuple[str, int]]:
    """URL and size in bytes of every object below a folder, or of one object; in no certain order.

    A folder that is divided into folders is listed folder by folder, so that memory holds one of them at a time.

    Raises:
        StorageError: there is nothing under ``uri``, or the store fails.
    """
    fs, path = filesystem(uri)
    with _trouble_told(uri, "listed"):
        fs.invalidate_cache()
        if not fs.exists(path):
            raise FileNotFoundError(path)
        entries = fs.ls(path, detail=True) if fs.isdir(path) else [fs.info(path)]
        folders = [entry["name"] for entry in entries if entry["type"] == "directory"]
        # A flat listing answers with 1,000 objects a request; a request for each of very many folders would be slower.
        whole = len(folders) > _FOLDERS_LISTED_APART
        for entry in () if whole else entries:
            yield from _as_objects(fs, [entry])
        for folder in [path] if whole else folders:
            yield from _as_objects(fs, fs.find(folder, detail=True).values())
            fs.invalidate_cache()


def _as_objects(fs: fsspec.AbstractFileSystem, entries: Iterable[dict[str, Any]]) -> Iterator[tuple[str, int]]:
    for entry in entries:
        if entry["type"] != "directory":
            yield canonical_uri(str(fs.unstrip_protocol(entry["name"]))), int(entry["size"] or 0)


def remove_tree(uri: str) -> None:
    """Delete an object or a folder with all below it; nothing happens when it is absent."""
    fs, path = filesystem(uri)
    with _trouble_told(uri, "removed"):
        fs.invalidate_cache()
        if fs.exists(path):
            fs.rm(path, recursive=True)


def read_table(uri: str) -> pd.DataFrame:
    """Read a table: a ``.csv`` (all cells as text, empty ones as ""), a Parquet file, or a folder of Parquet files.

    Raises:
        StorageError: missing or unreadable.
    """
    if uri.endswith(".csv"):
        return pd.read_csv(io.BytesIO(read_bytes(uri)), dtype=str, keep_default_na=False)
    files = [uri] if uri.endswith(".parquet") else list_files(uri, ".parquet")
    if not files:
        raise StorageError(f"{uri}: no .csv or .parquet table here; check the path")
    try:
        tables = [pq.read_table(io.BytesIO(read_bytes(file))) for file in files]
    except pa.ArrowInvalid as error:
        raise StorageError(f"{uri}: not a Parquet file ({error})") from error
    return pa.concat_tables(tables, promote_options="default").to_pandas()


def write_table(uri: str, table: pd.DataFrame | pa.Table) -> None:
    """Write a table as ``.csv`` or as one Parquet file, by the URL's ending."""
    if uri.endswith(".csv"):
        frame = table if isinstance(table, pd.DataFrame) else table.to_pandas()
        write_text(uri, frame.to_csv(index=False, lineterminator="\n"))
        return
    write_parquet(uri, pa.Table.from_pandas(table, preserve_index=False) if isinstance(table, pd.DataFrame) else table)


def write_parquet(uri: str, table: pa.Table) -> str:
    """Write a table as one Parquet file; gives the SHA-256 of the file."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    write_bytes(uri, sink.getvalue())
    return hashlib.sha256(sink.getbuffer()).hexdigest()


def content_id(uri: str) -> str:
    """Identity of an object's or folder's content: SHA-256 over its bytes, and the names of a folder's files."""
    fs, path = filesystem(uri)
    with _trouble_told(uri, "listed"):
        fs.invalidate_cache()
        if fs.isdir(path):
            digest = hashlib.sha256()
            for name in sorted(fs.find(path)):
                digest.update(name[len(path) :].encode("utf-8") + hashlib.sha256(fs.cat_file(name)).digest())
            return digest.hexdigest()
    return hashlib.sha256(read_bytes(uri)).hexdigest()

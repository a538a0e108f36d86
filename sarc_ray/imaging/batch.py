"""From URIs to rows of the image table: the pure function that the engine maps over a manifest."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pyarrow as pa

from sarc_ray import storage
from sarc_ray.errors import REASONS
from sarc_ray.imaging.dicom import MAX_OBJECT_BYTES
from sarc_ray.imaging.gate import is_lateral
from sarc_ray.imaging.isolation import ReadLimits, idle_pids, read_images, warm_up
from sarc_ray.imaging.preprocess import ImageResult, PreprocessConfig
from sarc_ray.instruments import BYTES_COLUMN, peak_bytes, with_peak, with_seconds

_Read = Callable[[Sequence[str]], list[bytes | Exception]]
_READING_PARTS = ("isolate", "decode", "gate", "preprocess")
# Objects fetched at once, while those before them are read: at most twice as many are in memory.
_FETCHED_AT_ONCE = 16

FRONTAL_VIEWS = ("PA", "AP")

IMAGE_SCHEMA = pa.schema(
    [
        ("row_id", pa.int64()),
        ("outcome", pa.string()),
        ("reason", pa.string()),
        ("retryable", pa.bool_()),
        ("image_sha256", pa.string()),
        ("image", pa.binary()),
        ("header_age_years", pa.float64()),
        ("header_sex", pa.string()),
        ("header_bmi_kg_m2", pa.float64()),
        ("header_view", pa.string()),
        ("gate_flags", pa.string()),
        ("acquired_month", pa.string()),
    ]
)


def prepare_rows(
    row_ids: Sequence[int],
    uris: Sequence[str],
    config: PreprocessConfig,
    limits: ReadLimits,
    *,
    seconds_per_fetch: float | None = None,
) -> pa.Table:
    """Fetch, decode, gate and preprocess a batch of radiographs, each isolated; fetching goes on beside reading.

    Args:
        row_ids: shape (N,), the manifest's keys.
        uris: shape (N,), absolute.
        config: size and contrast of the pictures.
        limits: what reading one of them may use.
        seconds_per_fetch: longest that fetching one of them may take, all attempts together; None sets no limit.

    Returns:
        N rows of ``IMAGE_SCHEMA``; ``image`` holds size * size bytes row by row, or null where ``reason`` says why not.

    Raises:
        CredentialsError: the store does not accept the credentials.
    """
    timed = prepare_and_time(row_ids, uris, config, limits, seconds_per_fetch=seconds_per_fetch)
    return timed.select(IMAGE_SCHEMA.names)


def prepare_and_time(
    row_ids: Sequence[int],
    uris: Sequence[str],
    config: PreprocessConfig,
    limits: ReadLimits,
    *,
    seconds_per_fetch: float | None = None,
) -> pa.Table:
    """:func:`prepare_rows` with the columns of :mod:`sarc_ray.instruments`: what each row took, and the memory."""
    warm_up()
    fetching_s: list[float] = []
    n_bytes: list[int] = []
    fetched = _weighed(_fetched(uris, seconds_per_fetch, fetching_s), n_bytes)
    results = read_images(fetched, config, limits)
    rows = [_row(row_id, result) for row_id, result in zip(row_ids, results, strict=True)]
    seconds = {part: [result.seconds.get(part, 0.0) for result in results] for part in _READING_PARTS}
    table = with_seconds(pa.Table.from_pylist(rows, schema=IMAGE_SCHEMA), {"fetch": sum(fetching_s), **seconds})
    table = table.append_column(BYTES_COLUMN, pa.array(n_bytes, pa.int64()))
    return with_peak(table, peak_bytes(idle_pids()))


def _fetched(
    uris: Sequence[str], seconds_per_fetch: float | None, fetching_s: list[float]
) -> Iterator[bytes | Exception]:
    """The objects in order, fetched one slice ahead; how long each slice took is added to ``fetching_s``."""
    fetcher = _fetcher(os.getpid())
    # The byte beyond the limit tells that an object is too large.
    read = functools.partial(
        storage.read_bounded, limit_bytes=MAX_OBJECT_BYTES + 1, seconds_per_fetch=seconds_per_fetch
    )
    ahead: Future[list[bytes | Exception]] | None = None
    for start in range(0, len(uris) + _FETCHED_AT_ONCE, _FETCHED_AT_ONCE):
        found = [] if ahead is None else ahead.result()
        ahead = fetcher.submit(_timed, read, uris[start : start + _FETCHED_AT_ONCE], fetching_s)
        while found:
            yield found.pop(0)  # what was read leaves the memory


def _weighed(fetched: Iterator[bytes | Exception], n_bytes: list[int]) -> Iterator[bytes | Exception]:
    for data in fetched:
        n_bytes.append(0 if isinstance(data, Exception) else len(data))
        yield data
        del data  # what was read leaves the memory


def _timed(read: _Read, uris: Sequence[str], fetching_s: list[float]) -> list[bytes | Exception]:
    started = time.perf_counter()
    try:
        return read(uris)
    finally:
        fetching_s.append(time.perf_counter() - started)


@functools.lru_cache(maxsize=1)
def _fetcher(pid: int) -> ThreadPoolExecutor:
    """One thread for the life of the process ``pid``: clients of object stores are kept per thread."""
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="fetch")


def stack_images(column: pa.ChunkedArray | Sequence[bytes], size_px: int) -> np.ndarray:
    """Picture bytes of the image table as one uint8 array of shape (N, size, size)."""
    values = column.to_pylist() if isinstance(column, pa.ChunkedArray) else list(column)
    return np.frombuffer(b"".join(values), dtype=np.uint8).reshape(-1, size_px, size_px)


def _view(text: str | None) -> str | None:
    """A header's view as one of a few words: its free text, which may hold anything, stays out of the tables."""
    if text is None or text in FRONTAL_VIEWS:
        return text
    return "LATERAL" if is_lateral(text) else "OTHER"


def _row(row_id: int, result: ImageResult) -> dict[str, object]:
    facts = REASONS[result.reason]
    header = result.header
    return {
        "row_id": int(row_id),
        "outcome": str(facts.outcome),
        "reason": str(result.reason),
        "retryable": facts.retryable,
        "image_sha256": result.image_sha256,
        "image": None if result.image_HW is None else result.image_HW.tobytes(),
        "header_age_years": None if header is None else header.age_years,
        "header_sex": None if header is None else header.sex,
        "header_bmi_kg_m2": None if header is None else header.bmi_kg_m2,
        "header_view": None if header is None else _view(header.view),
        "gate_flags": result.gate_flags,
        "acquired_month": None if header is None else header.acquired_month,
    }

"""From URIs to rows of the image table: the pure function that the engine maps over a manifest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from sarc_ray import storage
from sarc_ray.errors import REASONS
from sarc_ray.imaging.preprocess import ImageResult, PreprocessConfig, process_image

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


def prepare_rows(row_ids: Sequence[int], uris: Sequence[str], config: PreprocessConfig) -> pa.Table:
    """Fetch, decode, gate and preprocess a batch of radiographs.

    Args:
        row_ids: shape (N,), the manifest's keys.
        uris: shape (N,), absolute.
        config: size and contrast of the pictures.

    Returns:
        N rows of ``IMAGE_SCHEMA``; ``image`` holds size * size bytes row by row, or null where ``reason`` says why not.
    """
    rows = [
        _row(row_id, process_image(data, config)) for row_id, data in zip(row_ids, storage.read_many(uris), strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=IMAGE_SCHEMA)


def stack_images(column: pa.ChunkedArray | Sequence[bytes], size_px: int) -> np.ndarray:
    """Picture bytes of the image table as one uint8 array of shape (N, size, size)."""
    values = column.to_pylist() if isinstance(column, pa.ChunkedArray) else list(column)
    return np.frombuffer(b"".join(values), dtype=np.uint8).reshape(-1, size_px, size_px)


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
        "header_view": None if header is None else header.view,
        "gate_flags": result.gate_flags,
        "acquired_month": None if header is None else header.acquired_month,
    }

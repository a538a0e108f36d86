"""Simulated radiographs as DICOM files, and the small pictures that ours makes of them.

Shape suffixes: N images, S rows and columns.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sarc_ray.errors import Reason
from sarc_ray.imaging.preprocess import PreprocessConfig, process_image
from sarc_ray.simulate.writer import Chunk, write_chunk

TARGETS = ("alm_kg", "hgs_kg", "crt_s")
SEED = 7
# Patients drawn for each one wanted: some are not eligible or have no measurement.
_SPARE = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Radiographs:
    """Files with their measurements, the pictures made of them, and the seconds that took."""

    paths: list[Path]
    y_TN: np.ndarray
    images_NSS: np.ndarray
    decode_s: float


def draw(folder: Path, *, n: int, source_px: int, preprocess: PreprocessConfig) -> Radiographs:
    """Write ``n`` radiographs that the gate accepts and whose targets are all measured."""
    chunk = Chunk(
        cohort="derivation", start=0, stop=_SPARE * n + 16, eligible_n=_SPARE * n + 16, size_px=source_px, seed=SEED
    )
    manifest = write_chunk(chunk, uri=str(folder)).manifest
    measured = manifest[manifest[list(TARGETS)].notna().all(axis=1)]
    paths, rows, images = [], [], []
    begin = time.perf_counter()
    for number, name in enumerate(measured["image_uri"]):
        path = folder / "derivation" / name
        result = process_image(path.read_bytes(), preprocess)
        if result.reason == Reason.NONE:
            paths.append(path)
            rows.append(number)
            images.append(result.image_HW)
        if len(paths) == n:
            break
    decode_s = time.perf_counter() - begin
    assert len(paths) == n, f"{len(paths)} of {n} radiographs could be used"
    y_TN = measured.iloc[rows][list(TARGETS)].to_numpy(dtype=np.float64).T
    return Radiographs(paths=paths, y_TN=y_TN, images_NSS=np.stack(images), decode_s=decode_s)

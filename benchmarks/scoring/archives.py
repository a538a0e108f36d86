"""Archives of the scoring benchmark: a pool of drawn radiographs, and manifests of any length over it.

Drawing takes seconds a picture, so a pool is drawn once and its objects lie in the store under many names (hard links):
every row of a manifest is an object of its own to whoever reads it, fetched, decoded and scored anew.

Layout below a folder: ``pool/<archive>/<k>.dcm``, and the bucket's folder, which an S3 server shows.

Shape suffixes: H rows, W columns.
"""

from __future__ import annotations

import copy
import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from decoding.files import SHAPES_HW, SYNTAXES, draw

from sarc_ray import storage

BUCKET = "benchmark"
SEED = 700
# Objects of one folder of the store; a server lists a folder before it opens what is in it.
_OBJECTS_PER_FOLDER = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Archive:
    """What the objects of an archive are."""

    name: str
    title: str
    syntax: str
    shapes_HW: tuple[tuple[int, int], ...]


JPEG_2000 = Archive(name="jpeg2000", title="JPEG 2000, large", syntax="JPEG 2000 lossless", shapes_HW=SHAPES_HW)
PLAIN = Archive(name="plain", title="uncompressed, large", syntax="explicit little endian", shapes_HW=SHAPES_HW)
SMALL = Archive(name="small", title="uncompressed, 256 x 256", syntax="explicit little endian", shapes_HW=((256, 256),))
LARGE = (JPEG_2000, PLAIN)


def draw_pool(folder: Path, archives: Sequence[Archive], *, n: int, cores: int) -> None:
    """Draw what is not there yet: ``n`` pictures, each written for every one of the archives, of equal shapes."""
    shapes = archives[0].shapes_HW
    assert all(archive.shapes_HW == shapes for archive in archives)
    wanted = [
        (
            k,
            shapes[k % len(shapes)],
            [(a.syntax, path) for a in archives if not (path := _pooled(folder, a, k)).exists()],
        )
        for k in range(n)
    ]
    with ProcessPoolExecutor(max_workers=cores, mp_context=multiprocessing.get_context("spawn")) as pool:
        list(pool.map(_draw, [entry for entry in wanted if entry[2]]))


def write_manifest(folder: Path, archive: Archive, *, n: int, n_pool: int) -> None:
    """Give ``n`` objects of the store their names, in turn over the pool, and list them."""
    bucket = folder / "s3" / BUCKET
    rng = np.random.default_rng(SEED)
    names = [f"{archive.name}/{k // _OBJECTS_PER_FOLDER:03d}/{k:06d}.dcm" for k in range(n)]
    for k, name in enumerate(names):
        path = bucket / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            os.link(_pooled(folder, archive, k % n_pool), path)
    manifest = pd.DataFrame(
        {
            "image_uri": [f"s3://{BUCKET}/{name}" for name in names],
            "patient_id": [f"patient-{k}" for k in range(n)],
            "age_years": rng.uniform(41, 90, n).round(1),
            "sex": np.where(rng.random(n) < 0.4, "M", "F"),
            "bmi_kg_m2": rng.normal(24, 3, n).clip(15, 40).round(1),
        }
    )
    storage.write_table(str(bucket / "manifests" / f"{archive.name}-{n}.parquet"), manifest)


def manifest_url(archive: Archive, n: int) -> str:
    """Where the manifest of so many rows lies in the store."""
    return f"s3://{BUCKET}/manifests/{archive.name}-{n}.parquet"


def mean_bytes(folder: Path, archive: Archive, *, n_pool: int) -> float:
    """Of the pool's objects."""
    return float(np.mean([_pooled(folder, archive, k).stat().st_size for k in range(n_pool)]))


def _pooled(folder: Path, archive: Archive, k: int) -> Path:
    return folder / "pool" / archive.name / f"{k}.dcm"


def _draw(entry: tuple[int, tuple[int, int], list[tuple[str, Path]]]) -> None:
    k, shape_HW, wanted = entry
    drawn = draw(shape_HW, seed=SEED + k)
    for syntax, path in wanted:
        dataset = copy.deepcopy(drawn)
        stored_HW = np.frombuffer(dataset.PixelData, dtype="<u2").reshape(dataset.Rows, dataset.Columns)
        SYNTAXES[syntax](dataset, stored_HW)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part")
        dataset.save_as(unfinished, enforce_file_format=True)
        unfinished.rename(path)

"""Writing the built-in cohort: independent chunks of pictures, then manifests and truth.

Layout below the target URL: ``<cohort>/manifest.parquet``, ``<cohort>/images/...dcm``, and apart from them
``truth/<cohort>.parquet``, keyed by ``row_id``, which no training step opens.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa

from sarc_ray import storage
from sarc_ray.cohort.schema import SCHEMA_VERSION, row_id
from sarc_ray.simulate.anatomy import Signals
from sarc_ray.simulate.cohort import COHORTS, CohortName, Drawn, SimulateConfig, count_patients, draw_rows, row_rng
from sarc_ray.simulate.detector import DEVICE_BY_NAME, Header, to_dicom
from sarc_ray.simulate.law import CHANNELS
from sarc_ray.simulate.other_parts import Part, render_part
from sarc_ray.simulate.phantom import Box, Picture, render

_NOT_DICOM = b"This is not a DICOM object.\n" * 40
_TRUNCATED_FRACTION = 0.6
# What archive rows of role other_body_part show, by turns.
_OTHER_PARTS: tuple[Part, ...] = ("hand", "knee")


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunk:
    """A run of patients of one cohort: the unit of parallel work (picklable)."""

    cohort: CohortName
    start: int
    stop: int
    eligible_n: int
    size_px: int
    seed: int


@dataclass(frozen=True, kw_only=True, slots=True)
class WrittenChunk:
    """Rows of one chunk, in order of patients."""

    cohort: CohortName
    start: int
    manifest: pd.DataFrame
    truth: pd.DataFrame


def plan_chunks(config: SimulateConfig, *, seed: int) -> list[Chunk]:
    """Cut the cohorts into chunks; the result of the simulation does not depend on the cut."""
    return [
        Chunk(
            cohort=cohort,
            start=start,
            stop=min(start + config.chunk_size, n),
            eligible_n=config.eligible_n(cohort),
            size_px=config.size_px,
            seed=seed,
        )
        for cohort in COHORTS
        for n in (count_patients(cohort, config.eligible_n(cohort)),)
        for start in range(0, n, config.chunk_size)
    ]


def write_chunk(chunk: Chunk, *, uri: str) -> WrittenChunk:
    """Draw and write the pictures of one chunk.

    Args:
        chunk: from :func:`plan_chunks`.
        uri: target folder, any fsspec URL.

    Raises:
        StorageError: the store refuses a write.
    """
    patients = range(chunk.start, chunk.stop)
    drawn = draw_rows(patients, cohort=chunk.cohort, eligible_n=chunk.eligible_n, seed=chunk.seed)
    folder = storage.join(uri, chunk.cohort)
    masks = []
    for row in range(len(drawn.manifest)):
        data, boxes = _picture(drawn, row, chunk)
        if drawn.truth["role"].iloc[row] != "missing_object":
            storage.write_bytes(storage.join(folder, drawn.manifest["image_uri"].iloc[row]), data)
        masks.append(boxes)
    truth = drawn.truth.copy()
    for name in masks[0] if masks else ():
        truth[f"{name}_boxes"] = [json.dumps(np.round(boxes[name], 4).tolist()) for boxes in masks]
    truth.insert(0, "row_id", [row_id(storage.join(folder, u)) for u in truth["image_uri"]])
    return WrittenChunk(cohort=chunk.cohort, start=chunk.start, manifest=drawn.manifest, truth=truth)


def _picture(drawn: Drawn, row: int, chunk: Chunk) -> tuple[bytes, dict[str, tuple[Box, ...]]]:
    manifest, truth = drawn.manifest.iloc[row], drawn.truth.iloc[row]
    device = DEVICE_BY_NAME[manifest["device"]]
    patient, image = int(manifest["patient_id"][1:]) - 1, int(manifest["study_id"].rsplit("-S", 1)[1])
    rng = row_rng(chunk.seed, chunk.cohort, patient, image, purpose=1)
    shape_HW = (chunk.size_px, round(chunk.size_px * device.aspect))
    role, part = truth["role"], _other_part(truth["role"], patient)
    if part is not None:
        gray_HW = render_part(part, shape_HW=shape_HW, rng=rng)
        picture = Picture(gray_HW=gray_HW, boxes={name: () for name in CHANNELS})
    else:
        picture = render(_signals(truth), shape_HW=shape_HW, rng=rng)
    header = _header(drawn, row, body_part="CHEST" if role != "other_body_part" else str(part).upper())
    data = _NOT_DICOM if role == "not_dicom" else to_dicom(picture.gray_HW, device=device, header=header)
    if role == "truncated":
        data = data[: int(len(data) * _TRUNCATED_FRACTION)]
    return data, picture.boxes


def _other_part(role: str, patient: int) -> Part | None:
    """What a row's picture shows where it is no frontal chest."""
    if role == "lateral":
        return "lateral"
    return _OTHER_PARTS[patient % len(_OTHER_PARTS)] if role == "other_body_part" else None


def _signals(truth: pd.Series) -> Signals:
    return Signals(
        alm=float(truth["channel_alm_kg"]),
        hgs=float(truth["channel_hgs_kg"]),
        crt=float(truth["channel_crt_s"]),
        haze=float(truth["haze"]),
        breast=float(truth["breast"]),
        aorta=float(truth["aorta"]),
    )


def _header(drawn: Drawn, row: int, *, body_part: str) -> Header:
    manifest, truth = drawn.manifest.iloc[row], drawn.truth.iloc[row]
    role = truth["role"]
    return Header(
        patient_id=manifest["patient_id"],
        study_id=manifest["study_id"],
        image_key=manifest["image_uri"],
        sex=manifest["sex"],
        age_years=None if role == "missing_age" else float(truth["age_years_true"]),
        acquired_on=manifest["acquired_on"],
        view=manifest["view"],
        body_part=body_part,
        site=manifest["site"],
    )


def write_manifests(written: Iterable[WrittenChunk], *, uri: str) -> dict[CohortName, str]:
    """Write manifests and truth tables from the chunks' rows, in the order of patients.

    Args:
        written: results of :func:`write_chunk` for every chunk of the plan, in any order.
        uri: the same target folder.

    Returns:
        URL of each cohort's manifest.
    """
    chunks = list(written)
    manifests: dict[CohortName, str] = {}
    for cohort in COHORTS:
        parts = sorted((c for c in chunks if c.cohort == cohort), key=lambda c: c.start)
        if not parts:
            continue
        storage.write_table(truth_uri(uri, cohort), _versioned([part.truth for part in parts]))
        # The manifest comes last: where it is, the cohort is whole.
        manifests[cohort] = storage.join(uri, cohort, "manifest.parquet")
        storage.write_table(manifests[cohort], _versioned([part.manifest for part in parts]))
    return manifests


def truth_uri(uri: str, cohort: CohortName) -> str:
    """Where the truth of a cohort lies."""
    return storage.join(uri, "truth", f"{cohort}.parquet")


def _versioned(frames: Sequence[pd.DataFrame]) -> pa.Table:
    table = pa.Table.from_pandas(pd.concat(frames, ignore_index=True), preserve_index=False)
    return table.replace_schema_metadata({"schema_version": str(SCHEMA_VERSION)})


def simulate(config: SimulateConfig, *, uri: str, seed: int) -> dict[CohortName, str]:
    """Write the whole cohort in this process; for parallel work map :func:`write_chunk` over the plan.

    Args:
        config: sizes.
        uri: target folder.
        seed: of the simulation.

    Returns:
        URL of each cohort's manifest.
    """
    return write_manifests((write_chunk(chunk, uri=uri) for chunk in plan_chunks(config, seed=seed)), uri=uri)

"""A small archive of radiographs and a score table of them, written as the scorer writes it, but by hand.

Rows 0 and 1 are two radiographs of one study, 2 to 5 one each of a patient of its own; 4 was not scored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from sarc_ray import storage, tables
from sarc_ray.bundle import read_manifest_of
from sarc_ray.cohort.schema import row_id
from sarc_ray.privacy import create_key_file, load_key, pseudonyms
from sarc_ray.scoring import score_schema
from tests import dicom_factory

BUNDLE = str(Path(__file__).parents[1] / "golden" / "bundle" / "model")
MODEL_ID = read_manifest_of(BUNDLE).model_id
N_IMAGES = 6
ABSTAINED = 4
STUDIES = ("1.2.3.10", "1.2.3.10", "1.2.3.12", "1.2.3.13", "1.2.3.14", "1.2.3.15")
PATIENTS = ("P-A", "P-A", "P-C", "P-D", "P-E", "P-F")
COLUMNS = ("alm_kg_mu", "alm_kg_sigma", "crt_s_mu", "crt_s_sigma", "score", "flag")


@dataclass(frozen=True)
class Archive:
    """Where everything lies, and what the table says."""

    uris: list[str]
    table: str
    key_file: str
    manifest: str
    frame: pd.DataFrame


def make_archive(folder: Path, tags: Mapping[int, Mapping[str, str]] | None = None) -> Archive:
    """Radiographs, manifest, key and a sealed table of three files; ``tags`` change those of radiographs by number."""
    uris = [str(folder / "images" / f"chest-{number}.dcm") for number in range(N_IMAGES)]
    for number, uri in enumerate(uris):
        storage.write_bytes(uri, make_image(number, **(tags or {}).get(number, {})))
    create_key_file(str(folder / "key"))
    manifest = pd.DataFrame(
        {
            "image_uri": uris,
            "patient_id": PATIENTS,
            "acquired_on": ["2020-03-05", "2020-03-05", "2019-12-31", "2021-07", "", "2021-02-28"],
        }
    )
    storage.write_table(str(folder / "manifest.csv"), manifest)
    frame = make_rows(uris, str(folder / "key"))
    table = str(folder / "scores")
    schema = score_schema(("age_years", "sex", "bmi_kg_m2"), ("alm_kg", "crt_s"))
    for number in range(0, N_IMAGES, 2):
        part = pa.Table.from_pandas(frame.iloc[number : number + 2], schema=schema, preserve_index=False)
        storage.write_table(storage.join(tables.parts_uri(table, "v1"), f"part-{number}.parquet"), part)
    lineage = {"model_id": MODEL_ID, "run_id": "test-1"}
    tables.seal(table, version="v1", expected_row_ids=frame["row_id"].to_numpy(), lineage=lineage)
    return Archive(
        uris=uris,
        table=table,
        key_file=str(folder / "key"),
        manifest=str(folder / "manifest.csv"),
        frame=frame.sort_values("row_id", ignore_index=True),
    )


def make_image(number: int, **tags: object) -> bytes:
    """A radiograph of the archive."""
    own = {
        "PatientID": PATIENTS[number],
        "StudyInstanceUID": STUDIES[number],
        "SeriesInstanceUID": f"{STUDIES[number]}.1",
        "SOPInstanceUID": f"{STUDIES[number]}.1.{number}",
        "AccessionNumber": f"ACC-{number}",
    }
    return dicom_factory.make_dicom(**{**own, **tags})


def make_rows(uris: list[str], key_file: str) -> pd.DataFrame:
    """Rows of the score table; the numbers are random."""
    rng = np.random.default_rng(3)
    scored = np.arange(N_IMAGES) != ABSTAINED
    frame = pd.DataFrame(
        {
            "row_id": [row_id(uri) for uri in uris],
            "patient_key": pseudonyms(PATIENTS, key=load_key(key_file), purpose="patient"),
            "image_sha256": [hashlib.sha256(storage.read_bytes(uri)).hexdigest() for uri in uris],
            "outcome": np.where(scored, "scored", "abstained"),
            "reason": np.where(scored, "", "missing_bmi"),
            "retryable": False,
            "acquired_month": ["2020-03", "2020-03", "2019-12", "2021-07", "2021-08", None],
            "site": 'north, "old"',
            "age_years": 70.0,
            "sex": "F",
            "model_id": MODEL_ID,
            "run_id": "test-1",
        }
    )
    for name in ("alm_kg", "crt_s"):
        frame[f"{name}_mu"] = np.where(scored, rng.uniform(10, 25, N_IMAGES), np.nan)
        frame[f"{name}_sigma"] = np.where(scored, rng.uniform(1, 3, N_IMAGES), np.nan)
    frame["score"] = np.where(scored, rng.random(N_IMAGES), np.nan)
    frame["flag"] = pd.Series(
        [value > 0.5 if known else None for value, known in zip(frame["score"], scored, strict=True)]
    )
    names = score_schema(("age_years", "sex", "bmi_kg_m2"), ("alm_kg", "crt_s")).names
    return frame.reindex(columns=names)

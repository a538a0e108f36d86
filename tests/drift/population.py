"""A score table drawn from a law that can be moved."""

import numpy as np
import pandas as pd
import pyarrow as pa

from sarc_ray import storage, tables
from sarc_ray.scoring import score_schema

TARGETS = ("alm_kg", "crt_s")
CLINICAL = ("age_years", "sex", "bmi_kg_m2")
MODEL = "model-1"


def draw(rng, n, *, months=("2025-01", "2025-02", "2025-03", "2025-04"), sites=("north", "south"), first=0):
    """Score rows; nine of ten are scored, every fifth patient has two images."""
    patient_N = np.where(np.arange(n) % 6 == 5, np.arange(n) - 1, np.arange(n)) + first
    age = rng.normal(64, 11, n).clip(41, 98).round()
    alm = rng.normal(17, 3, n)
    score = 1 / (1 + np.exp(-(0.06 * (age - 64) - 0.3 * (alm - 17) - 1.5)))
    frame = pd.DataFrame(
        {
            "row_id": np.arange(n) + first,
            "patient_key": [f"k{patient:08d}" for patient in patient_N],
            "image_sha256": "0" * 64,
            "outcome": "scored",
            "reason": "",
            "retryable": False,
            "acquired_month": rng.choice(list(months), n),
            "site": rng.choice(list(sites), n),
            "view": rng.choice(["PA", "AP"], n, p=[0.9, 0.1]),
            "gate_flags": "",
            "age_years": age,
            "sex": rng.choice(["F", "M"], n, p=[0.55, 0.45]),
            "bmi_kg_m2": rng.normal(24, 3.5, n),
            "alm_kg_mu": alm,
            "crt_s_mu": rng.lognormal(2.4, 0.2, n),
            "alm_kg_sigma": 2.0,
            "alm_kg_uncertainty_pct": rng.gamma(30, 0.4, n),
            "crt_s_uncertainty_pct": rng.gamma(40, 0.6, n),
            "ood_distance": rng.gamma(50, 0.02, n),
            "raw_score": score,
            "score": score,
            "flag": score > 0.4,
            "model_id": MODEL,
            "run_id": "run",
        }
    )
    frame["device"] = frame["site"] + "-dr"
    return reject(frame, rng.random(n) < 0.1, "missing_bmi")


def reject(frame, mask_N, reason):
    """Rows that abstain: without predictions, without the value that was missing."""
    made = [name for name in frame if name.endswith(("_mu", "_sigma", "_pct", "score")) or name == "ood_distance"]
    frame.loc[mask_N, made] = np.nan
    frame["flag"] = frame["flag"].astype("boolean").mask(mask_N)
    frame.loc[mask_N, ["outcome", "reason"]] = ["abstained", reason]
    if reason == "missing_bmi":
        frame.loc[mask_N, "bmi_kg_m2"] = np.nan
    return frame


def to_arrow(frame):
    schema = score_schema(CLINICAL, TARGETS)
    return pa.Table.from_pandas(frame.reindex(columns=schema.names), schema=schema, preserve_index=False)


def seal(uri, frame, *, model=MODEL, version="v1"):
    """As a table of two parts."""
    table = to_arrow(frame)
    half = len(table) // 2
    for name, part in (("a", table.slice(0, half)), ("b", table.slice(half))):
        storage.write_table(storage.join(tables.parts_uri(uri, version), f"{name}.parquet"), part)
    ids = frame["row_id"].to_numpy()
    tables.seal(uri, version=version, expected_row_ids=ids, lineage={"model_id": model, "run_id": "run-1"})
    return uri

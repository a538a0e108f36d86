"""A tuned and scored run without a picture: written tables around the golden bundle."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from sarc_ray import storage, tables
from sarc_ray.bundle import load_bundle
from sarc_ray.run import load_run

BUNDLE = Path(__file__).parent / "golden" / "bundle" / "model"
N = {"train": 240, "tune": 20, "test_internal": 120}
N_EXTERNAL = 90


def draw(rng, n, first_row):
    """Clinical columns, an outcome that follows age and lean mass, and what stage 1 says."""
    age, alm = rng.normal(65, 10, n).clip(41), rng.normal(16, 3, n)
    logit = 0.08 * (age - 65) - 0.4 * (alm - 16) - 1.0
    return pd.DataFrame(
        {
            "row_id": np.arange(n) + first_row,
            "patient_id": [f"p{first_row + k}" for k in range(n)],
            "image_uri": "x",
            "age_years": age,
            "sex": np.where(rng.random(n) < 0.4, "M", "F"),
            "bmi_kg_m2": rng.normal(23, 3, n),
            "outcome": (rng.random(n) < 1 / (1 + np.exp(-logit))).astype(float),
            "alm_kg_mu": alm,
            "crt_s_mu": rng.normal(11, 1, n),
            "alm_kg_uncertainty_pct": rng.uniform(10, 15, n),
            "crt_s_uncertainty_pct": rng.uniform(30, 35, n),
        }
    )


STAGE1 = ["alm_kg_mu", "crt_s_mu", "alm_kg_uncertainty_pct", "crt_s_uncertainty_pct"]


def seal_scores(run, dataset, rows, bundle):
    raw_N, score_N = bundle.stage2.predict(bundle.features(rows))
    table = rows[["row_id", *run.config.clinical_features, *STAGE1]].assign(
        raw_score=raw_N, score=score_N, flag=score_N >= 0.5, outcome="scored", reason="", retryable=False
    )
    made = ["raw_score", "score", *STAGE1]
    table.loc[table.index[0], made] = np.nan  # one that abstained
    uri = run.path("scores", dataset)
    storage.write_table(storage.join(tables.parts_uri(uri, "v1"), "part.parquet"), table)
    tables.seal(uri, version="v1", expected_row_ids=table["row_id"].to_numpy(), lineage={})
    return table


def make_run(folder):
    """The run, its bundle, its patients and its score tables."""
    spec = json.loads((BUNDLE / "bundle.json").read_text(encoding="utf-8"))["spec"]
    settings = [
        f"run.directory={folder}",
        f"targets=[{', '.join(json.dumps(target) for target in spec['targets'])}]",
        "data.archive=null",
        "data.truth=null",
    ]
    run = load_run("demo", settings)
    for path in BUNDLE.rglob("*"):
        if path.is_file():
            storage.write_bytes(run.path("bundle", str(path.relative_to(BUNDLE))), path.read_bytes())
    bundle = load_bundle(run.path("bundle"))
    rng = np.random.default_rng(3)
    people = draw(rng, sum(N.values()), 10**15).assign(split=np.repeat(list(N), list(N.values())))
    people["sarc_f"] = rng.integers(0, 11, len(people)).astype(float)
    people.loc[:4, "outcome"] = np.nan  # no label: nothing is learned from them
    external = draw(rng, N_EXTERNAL, 2 * 10**15)
    # In the manifest one patient's BMI is missing; the header had it, and the score table knows.
    known = external.copy()
    external.loc[7, "bmi_kg_m2"] = np.nan
    storage.write_table(run.path("cohort", "derivation.parquet"), people.drop(columns=STAGE1))
    storage.write_table(run.path("cohort", "external.parquet"), external.drop(columns=STAGE1))
    learned = people[people["split"].isin(["train", "tune"])]
    storage.write_table(run.path("predictions.parquet"), learned[["row_id", "patient_id", "split", *STAGE1]])
    scores = {
        "test_internal": seal_scores(run, "test_internal", people[people["split"] == "test_internal"], bundle),
        "test_external": seal_scores(run, "test_external", known, bundle),
    }
    return run, bundle, people, scores

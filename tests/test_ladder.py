"""The ladder of a small run: written tables, a real bundle, no picture."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sarc_ray import ladder, storage, tables
from sarc_ray.bundle import load_bundle
from sarc_ray.run import load_run
from sarc_ray.stage2.algorithms import fit
from sarc_ray.stage2.rungs import RIDGE
from sarc_ray.stats.discrimination import auroc

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


@pytest.fixture(scope="module")
def climbed(tmp_path_factory):
    """Run, its patients, score tables, and the ladder's table."""
    folder = tmp_path_factory.mktemp("ladder")
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
    table = ladder.write_ladder(run, list(scores))
    return run, bundle, people, scores, table


def line(table, dataset, learner, rung, comparator=""):
    rows = table[(table["dataset"] == dataset) & (table["learner"] == learner)]
    (row,) = rows[(rows["rung"] == rung) & (rows["comparator"] == comparator)].to_dict("records")
    return row


def test_the_last_rung_of_the_chosen_learner_is_the_bundle(climbed):
    _, bundle, people, scores, table = climbed
    scored = scores["test_internal"].dropna(subset="score").merge(people[["row_id", "outcome"]], on="row_id")
    row = line(table, "test_internal", "chosen", "uncertainties")
    assert row["estimate"] == pytest.approx(auroc(scored["outcome_y"], scored["raw_score"]))
    assert row["algorithm"] == bundle.manifest.stage2["algorithm"]
    assert row["n"] == N["test_internal"] - 1


@pytest.mark.parametrize("learner", ["chosen", "ridge"])
def test_lower_rungs_are_learned_on_the_labelled_training_patients_alone(climbed, learner):
    run, bundle, people, _, table = climbed
    training = people[(people["split"] == "train") & people["outcome"].notna()]
    test = people[people["split"] == "test_internal"].iloc[1:]
    stage2 = bundle.manifest.stage2
    name, params = RIDGE if learner == "ridge" else (stage2["algorithm"], stage2["params"])
    for rung, n_columns in (("clinical", 3), ("means", 5)):
        x_NF, x_test = (bundle.features(rows).to_numpy()[:, :n_columns] for rows in (training, test))
        y_N = training["outcome"].to_numpy(dtype=np.int64)
        fitted = fit(name, params, x_NF, y_N, seed=run.config.run.seed, n_jobs=1)
        expected = auroc(test["outcome"], fitted.predict_proba(x_test)[:, 1])
        assert line(table, "test_internal", learner, rung)["estimate"] == pytest.approx(expected, abs=1e-9)


def test_means_bring_something_here(climbed):
    table = climbed[-1]
    row = line(table, "test_internal", "ridge", "means", "clinical")
    assert row["estimate"] > 0
    assert row["p_value"] < 0.05


def test_sarc_f_is_the_first_rung_where_it_was_recorded(climbed):
    _, _, people, _, table = climbed
    test = people[people["split"] == "test_internal"].iloc[1:]
    for learner in ("chosen", "ridge"):
        row = line(table, "test_internal", learner, "sarc_f")
        assert row["estimate"] == pytest.approx(auroc(test["outcome"], test["sarc_f"]))
    assert "sarc_f" not in set(table.loc[table["dataset"] == "test_external", "rung"])


def test_a_feature_from_the_header_counts_as_it_did_in_scoring(climbed):
    table = climbed[-1]
    external = table[(table["dataset"] == "test_external") & (table["metric"] == "auroc")]
    assert external["n"].tolist() == [N_EXTERNAL - 1] * 6
    assert external["estimate"].notna().all()


def test_it_is_written_beside_the_results(climbed):
    run, *_, table = climbed
    written = storage.read_table(run.path("results", "ladder.parquet"))
    pd.testing.assert_frame_equal(written, table, check_dtype=False)
    assert len(storage.read_table(run.path("results", "ladder.csv"))) == len(table)

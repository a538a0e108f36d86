"""Another site's scores and labels, beside a bundle without its run. With a run: tests/test_pipeline.py."""

import numpy as np
import pandas as pd
import pytest

from sarc_ray import storage, tables
from sarc_ray.bundle import load_bundle
from sarc_ray.cohort.schema import row_id
from sarc_ray.errors import ConfigError, ManifestError
from sarc_ray.external_site import SiteRequest, evaluate_site, load_model_run, read_request, site_run
from sarc_ray.recalibrating.labels import read_labelled
from sarc_ray.stage2.local import decide
from sarc_ray.storage import canonical_uri
from tests.small_run import BUNDLE, STAGE1, draw

N = 160


def write_site(folder):
    """A site's manifest with labels and measured lean mass, and the sealed score table of its images."""
    bundle = load_bundle(str(BUNDLE))
    rng = np.random.default_rng(11)
    rows = draw(rng, N, 0).drop(columns="row_id")
    rows["image_uri"] = [f"{k}.dcm" for k in range(N)]
    rows["alm_kg"] = rows["alm_kg_mu"] + rng.normal(0, 1, N)
    manifest = rows.drop(columns=STAGE1).rename(columns={"outcome": "died"}).assign(gap_days=0.0, hgs_kg=25.0)
    storage.write_table(str(folder / "site.csv"), manifest)
    raw_N, score_N = bundle.stage2.predict(bundle.features(rows))
    scores = rows[STAGE1].assign(
        row_id=[row_id(canonical_uri(str(folder / uri))) for uri in rows["image_uri"]],
        alm_kg_sigma=1.0,
        raw_score=raw_N,
        score=score_N,
        flag=score_N >= 0.5,
        outcome="scored",
        reason="",
        retryable=False,
        model_id=bundle.model_id,
    )
    seal(folder / "scores", scores)
    return manifest, scores


def seal(uri, table):
    storage.write_table(storage.join(tables.parts_uri(str(uri), "v1"), "part.parquet"), table)
    tables.seal(str(uri), version="v1", expected_row_ids=table["row_id"].to_numpy(), lineage={})


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    return folder, *write_site(folder)


def request(folder, **changes):
    values = {
        "table": str(folder / "site.csv"),
        "scores": str(folder / "scores"),
        "to": str(folder / "out"),
        "bundle": str(BUNDLE),
        "label": "died",
    }
    return SiteRequest(**(values | changes))


def evaluate(asked):
    run = load_model_run(asked, None, ["evaluation.n_boot=50", "evaluation.n_boot_curves=10"])
    record = evaluate_site(asked, run, lambda *_: None)
    return record, storage.read_table(site_run(asked, run).path("results", "results.parquet"))


def test_a_site_without_the_run_gets_results_of_its_own(site):
    folder, manifest, scores = site
    record, results = evaluate(request(folder))
    assert (record["facts"]["images"], set(results["dataset"])) == (N, {"site"})
    rows = results[(results["score"] == "score") & (results["subgroup"] == "all")].set_index("metric")
    assert rows.loc["prevalence", "estimate"] == pytest.approx(manifest["died"].mean())
    assert rows.loc["auroc", "outcome"] == "died"
    brier = ((scores["score"].to_numpy() - manifest["died"].to_numpy()) ** 2).mean()
    assert rows.loc["brier", "estimate"] == pytest.approx(brier)
    assert "are at hand" in rows.loc["membership_auroc", "na_reason"]
    recalibrated = results[results["score"] == "score_intercept"].set_index("metric")
    assert recalibrated.loc["brier", "estimate"] < 1
    assert (results.loc[results["outcome"] == "alm_kg", "metric"] == "ccc").any()
    for name in ("results.csv", "plan.yaml", "headline.csv", "table_one_site.csv", "site_flow.csv"):
        assert storage.exists(str(folder / "out" / "results" / name))
    described = storage.read_table(str(folder / "out" / "results" / "table_one_site.csv"))
    assert set(described["plan_hash"]) == set(results["plan_hash"])
    contents = storage.read_table(str(folder / "out" / "manuscript" / "contents.csv")).set_index("file")
    drawn = ("flow-site", "roc-site", "calibration-site", "decision-curve-site", "table-1", "table-2", "recalibration")
    assert {f"{name}.csv" for name in drawn} <= set(contents.index)
    table = storage.read_table(str(folder / "out" / "manuscript" / "table-2.csv")).set_index("metric")
    assert float(table.loc["brier", "estimate"]) == pytest.approx(brier)
    assert set(contents["lineage"]) == set(table["lineage"])


def test_scores_of_another_model_or_of_other_images_are_refused(site, tmp_path):
    folder, _, scores = site
    seal(tmp_path / "other", scores.assign(model_id="m-0"))
    with pytest.raises(ManifestError, match="scores of model m-0"):
        evaluate(request(folder, scores=str(tmp_path / "other")))
    seal(tmp_path / "elsewhere", scores.assign(row_id=np.arange(N)))
    with pytest.raises(ManifestError, match="none of its 160 rows"):
        evaluate(request(folder, scores=str(tmp_path / "elsewhere")))
    with pytest.raises(ManifestError, match="nobody"):
        evaluate(request(folder, label="nobody"))


def test_options_that_belong_together():
    nothing = {"bundle": None, "label": None}
    assert read_request(None, None, None, **nothing, config="run.yaml") is None
    with pytest.raises(ConfigError, match="--scores and --to not given"):
        read_request("t.csv", None, None, **nothing, config="run.yaml")
    with pytest.raises(ConfigError, match="whose model was it"):
        read_request("t.csv", "scores", "to", **nothing, config=None)
    asked = read_request("t.csv", "scores", "to", bundle="b", label=None, config=None)
    assert asked == SiteRequest(table="t.csv", scores="scores", to="to", bundle="b", label=None)


def flow_of(folder):
    table = storage.read_table(str(folder / "results" / "site_flow.csv"))
    return dict(zip(table["label"], table["n_images"].astype(int), strict=True))


def test_the_rules_of_eligibility_hold_and_every_row_left_out_is_counted(site, tmp_path):
    folder, manifest, scores = site
    odd = manifest.copy()
    odd.loc[0, "age_years"], odd.loc[1, "age_years"] = 39.0, np.nan
    odd.loc[2:4, "gap_days"] = -200.0
    odd.loc[5:6, "hgs_kg"] = np.nan
    odd.loc[7:10, "died"] = np.nan
    storage.write_table(str(folder / "odd.csv"), odd)
    refused = scores.copy()
    refused.loc[11:12, ["score", "raw_score"]] = np.nan
    refused.loc[11:12, ["outcome", "reason"]] = ["abstained", "missing_bmi"]
    seal(folder / "refused", refused[:-1])
    changes = {"table": str(folder / "odd.csv"), "scores": str(folder / "refused"), "to": str(tmp_path)}
    record, results = evaluate(request(folder, **changes))
    flow = flow_of(tmp_path)
    assert list(flow.values()) == [N, N - 3, N - 5, N - 7, N - 11, N - 11, N - 13, N - 14, N - 14]
    assert list(flow)[-1] == "evaluated"
    assert "not refused as missing_bmi: body-mass index" in " ".join(flow)
    rows = results[(results["score"] == "score") & (results["subgroup"] == "all")].set_index("metric")
    assert rows.loc["auroc", "n"] == flow["evaluated"]
    kept = odd.index[11:-1].drop([11, 12])
    assert rows.loc["prevalence", "estimate"] == pytest.approx(odd.loc[kept, "died"].mean())
    assert record["facts"]["screened"] == N
    assert sum(record["facts"]["left out by"].values()) == 14
    assert "age 40 or over" in record["facts"]["left out by"]


def test_nobody_eligible_and_a_column_that_decides_are_said(site, tmp_path):
    folder, manifest, _ = site
    storage.write_table(str(folder / "young.csv"), manifest.assign(age_years=30.0))
    with pytest.raises(ManifestError, match=r"no image is left to evaluate .*age 40 or over: 0"):
        evaluate(request(folder, table=str(folder / "young.csv")))
    storage.write_table(str(folder / "bare.csv"), manifest.drop(columns="gap_days"))
    with pytest.raises(ManifestError, match=r"set eligibility\.gap_max_days to null"):
        evaluate(request(folder, table=str(folder / "bare.csv")))


def test_recalibration_is_the_one_that_the_command_recalibrate_makes(site):
    folder, _, _ = site
    _, results = evaluate(request(folder))
    sample = read_labelled(
        str(folder / "site.csv"), scores=str(folder / "scores"), label="died", bundle=load_bundle(str(BUNDLE))
    )
    calibration = load_bundle(str(BUNDLE)).stage2.calibration
    decision = decide(calibration, sample.score_N, sample.y_N, sample.patient_N, seed=1, n_boot=2)
    for one in decision.candidates[1:]:
        own = results[results["score"] == f"score_{one.method}"].set_index("metric")["estimate"]
        found = (own["recalibration_slope"], own["recalibration_intercept"])
        assert found == pytest.approx((one.slope, one.intercept), rel=1e-6)


def test_of_several_images_the_index_image_counts(site, tmp_path):
    folder, manifest, _ = site
    twice = pd.concat([manifest, manifest.assign(image_uri="again-" + manifest["image_uri"])], ignore_index=True)
    twice["gap_days"] = np.repeat([0.0, 50.0], N)
    storage.write_table(str(folder / "twice.csv"), twice)
    record, _ = evaluate(request(folder, table=str(folder / "twice.csv"), to=str(tmp_path)))
    assert record["facts"]["images"] == N

"""Another site's scores and labels, beside a bundle without its run. With a run: tests/test_pipeline.py."""

import numpy as np
import pandas as pd
import pytest

from sarc_ray import storage, tables
from sarc_ray.bundle import load_bundle
from sarc_ray.cohort.schema import row_id
from sarc_ray.errors import ConfigError, ManifestError
from sarc_ray.external_site import SiteRequest, evaluate_site, load_model_run, read_request, site_run
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
    manifest = rows.drop(columns=STAGE1).rename(columns={"outcome": "died"})
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
    for name in ("results.csv", "plan.yaml", "headline.csv", "table_one_site.csv"):
        assert storage.exists(str(folder / "out" / "results" / name))


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


def test_of_several_images_the_index_image_counts(site, tmp_path):
    folder, manifest, _ = site
    twice = pd.concat([manifest, manifest.assign(image_uri="again-" + manifest["image_uri"])], ignore_index=True)
    twice["gap_days"] = np.repeat([0.0, 50.0], N)
    storage.write_table(str(folder / "twice.csv"), twice)
    record, _ = evaluate(request(folder, table=str(folder / "twice.csv"), to=str(tmp_path)))
    assert record["facts"]["images"] == N

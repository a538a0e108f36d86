"""The whole pipeline on a small simulated cohort in S3, as the demo runs it, in this process."""

import shutil

import numpy as np
import pandas as pd
import pytest

from sarc_ray import distilling, intake, pipeline, reporting, stages, storage, tables
from sarc_ray.bundle import load_bundle, read_manifest_of, require_preprocessing, verify_bundle
from sarc_ray.bundle_scoring import score_rows_with_bundle
from sarc_ray.distributed import train
from sarc_ray.errors import (
    BundleError,
    ConfigError,
    EvaluationError,
    ManifestError,
    Outcome,
    StorageError,
    TrainingError,
)
from sarc_ray.evaluation.rows import COLUMNS
from sarc_ray.external_site import SiteRequest, evaluate_site, site_run
from sarc_ray.privacy import create_key_file
from sarc_ray.run import load_run
from sarc_ray.telling import silent
from sarc_ray.verifying import verify
from tests.minute_run import SMALL

URL = "s3://tests/pipeline"


def data_settings():
    cohorts = [f"data.{name}={URL}/{name}/manifest.parquet" for name in ("derivation", "external", "archive")]
    return [*cohorts, f"data.truth={URL}/truth"]


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    create_key_file(str(folder / "key"))
    return [*SMALL, *data_settings(), f"run.directory={folder}/run", f"score.key_file={folder}/key"]


@pytest.fixture(scope="module")
def few_patients_are_enough():
    """The small cohort has fewer tuning patients than a factor for sigma takes, and is to have one all the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sarc_ray.stage1.recalibration.MIN_PATIENTS", 10)
        yield


@pytest.fixture(scope="module")
def run(ray_session, settings, few_patients_are_enough):
    run = load_run("demo", settings)
    pipeline.simulate(run, URL)
    pipeline.prepare(run)
    pipeline.train(run)
    pipeline.tune(run)
    for dataset in ("test_internal", "test_external", "archive"):
        pipeline.score(run, dataset)
    pipeline.evaluate(run)
    return run


def test_every_manifest_row_has_one_outcome(run):
    manifest = storage.read_table(run.config.data.archive)
    table = tables.read(run.path("scores", "archive"))
    assert len(table) == len(manifest) == table["row_id"].nunique()
    counts = tables.read_pointer(run.path("scores", "archive")).counts
    assert sum(counts.values()) == len(manifest)
    assert counts["scored"] > 0
    assert counts["rejected"] + counts["abstained"] > 0
    assert table.loc[table["outcome"] == Outcome.SCORED, "score"].between(0, 1).all()
    assert table.loc[table["outcome"] != Outcome.SCORED, "score"].isna().all()


def test_identifiers_stay_out_of_the_tables(run):
    ids = set(storage.read_table(run.config.data.archive)["patient_id"])
    table = tables.read(run.path("scores", "archive"))
    assert not ids & set(table.astype(str).to_numpy().ravel())
    assert table["patient_key"].notna().all()


def test_training_patients_are_predicted_by_members_that_never_saw_them(run):
    """Out-of-fold predictions differ from the whole ensemble's; tuning patients get the whole ensemble's."""
    predictions = storage.read_table(run.path("predictions.parquet")).set_index("row_id")
    frame, images = intake.training_images(run)
    bundle = load_bundle(run.path("bundle"))
    scored = bundle.score(images, frame[list(bundle.spec.clinical_features)]).set_index(frame["row_id"])
    tune = frame.loc[frame["split"] == "tune", "row_id"]
    train = frame.loc[frame["split"] == "train", "row_id"]
    pd.testing.assert_series_equal(
        predictions.loc[tune, "alm_kg_mu"], scored.loc[tune, "alm_kg_mu"], check_names=False, rtol=1e-6
    )
    assert (predictions.loc[train, "alm_kg_mu"] - scored.loc[train, "alm_kg_mu"]).abs().min() > 0
    assert run.finished("train")["facts"]["training_features"] == "repeated_folds"
    assert "| training_features | repeated_folds |" in storage.read_text(run.path("bundle", "model_card.md"))


@pytest.mark.slow
@pytest.mark.parametrize(("way", "n_indices"), [("in_sample", 3), ("ensembles_per_fold", 12)])
def test_other_ways_to_training_features(run, settings, tmp_path, way, n_indices):
    """The bundle scores with as many members as ever; what it was trained on is on record."""
    other = load_run("demo", [*settings, f"run.directory={tmp_path}", f"ensemble.training_features={way}"])
    assert stages.fingerprint_of_members(other) != stages.fingerprint_of_members(run)
    pipeline.prepare(other)
    facts = pipeline.train(other)["facts"]
    assert (facts["training_features"], facts["members"]) == (way, n_indices)
    pipeline.tune(other)
    bundle = load_bundle(other.path("bundle"))
    assert [len(of_target) for of_target in bundle.members] == [3, 3, 3]
    assert bundle.manifest.lineage["training_features"] == way
    assert ("`in_sample`" in storage.read_text(other.path("bundle", "model_card.md"))) == (way == "in_sample")
    predictions = storage.read_table(other.path("predictions.parquet"))
    frame, images = intake.training_images(other)
    scored = bundle.score(images, frame[list(bundle.spec.clinical_features)])
    same = np.isclose(predictions["alm_kg_uncertainty_pct"], scored["alm_kg_uncertainty_pct"], rtol=1e-6)
    assert same[frame["split"] == "tune"].all()
    assert same[frame["split"] == "train"].mean() == (1.0 if way == "in_sample" else 0.0)


def test_sigma_and_distance_are_the_same_in_training_and_in_scoring(run):
    """Recalibration is recorded with the stage, in force in the bundle; the threshold is the tuning patients' own."""
    facts = run.finished("train")["facts"]["recalibration"]
    bundle = load_bundle(run.path("bundle"))
    assert [facts[name]["scale"] for name in ("alm_kg", "hgs_kg", "crt_s")] == list(bundle.spec.sigma_scale)
    assert all(one["fitted_scale"] > 0 and one["kept"] == (one["scale"] != 1.0) for one in facts.values())
    assert bundle.manifest.metrics["recalibration"] == facts
    predictions = storage.read_table(run.path("predictions.parquet"))
    frame, images = intake.training_images(run)
    scored = bundle.score(images, frame[list(bundle.spec.clinical_features)])
    tune = (predictions["split"] == "tune").to_numpy()
    assert (predictions["row_id"].to_numpy() == frame["row_id"].to_numpy()).all()
    for column in ("alm_kg_sigma", "hgs_kg_sigma", "crt_s_var_epistemic", "crt_s_uncertainty_pct"):
        pd.testing.assert_series_equal(predictions.loc[tune, column], scored.loc[tune, column], rtol=1e-6)
    pd.testing.assert_series_equal(predictions["ood_distance"], scored["ood_distance"], rtol=1e-6)
    # Fewer than 99 tuning images: the largest of their distances.
    assert bundle.spec.ood_threshold == predictions.loc[tune, "ood_distance"].max()
    assert bundle.manifest.metrics["ood_false_alarm_rate"] == pytest.approx(1 / (tune.sum() + 1))
    assert bundle.manifest.metrics["ood_false_alarm_rate_asked"] == 0.01


def test_another_recalibration_trains_no_member_anew(run, settings, monkeypatch):
    def fail(*_args, **_kwargs):
        raise AssertionError("a member was trained")

    plain = load_run("demo", [*settings, "ensemble.recalibration=none"])
    assert stages.fingerprint(plain, "train") != stages.fingerprint(run, "train")
    assert stages.fingerprint_of_members(plain) == stages.fingerprint_of_members(run)
    other = load_run("demo", [*settings, "ood.false_alarm_rate=0.05"])
    assert stages.fingerprint(other, "train") == stages.fingerprint(run, "train")
    assert stages.fingerprint(other, "tune") != stages.fingerprint(run, "tune")
    monkeypatch.setattr("sarc_ray.distributed.train._run_trainer", fail)
    before = storage.read_table(run.path("predictions.parquet"))
    record = run.finished("train")
    try:
        facts = pipeline.train(plain)["facts"]
        after = storage.read_table(run.path("predictions.parquet"))
    finally:
        storage.write_table(run.path("predictions.parquet"), before)
        storage.write_json(run.path("stages", "train.json"), record)
        run.save_config()
    assert {one["why"] for one in facts["recalibration"].values()} == {"ensemble.recalibration: none"}
    pd.testing.assert_series_equal(after["alm_kg_mu"], before["alm_kg_mu"])


def test_another_calibration_or_threshold_searches_nothing_anew(run, settings, tmp_path, monkeypatch):
    def fail(*_args, **_kwargs):
        raise AssertionError("a trial was run")

    first, facts = read_manifest_of(run.path("bundle")), run.finished("tune")["facts"]
    assert (first.calibration, facts["threshold_rule"]) == (facts["calibration"], "youden")
    shutil.copytree(run.config.run.directory, tmp_path / "run")
    changes = ["stage2.threshold=specificity", "stage2.calibration=none"]
    other = load_run("demo", [*settings, *changes, f"run.directory={tmp_path}/run"])
    assert stages.fingerprint(other, "tune") != stages.fingerprint(run, "tune")
    longer = load_run("demo", [*settings, "stage2.trials_per_algorithm=3"])
    assert stages.fingerprint_of_search(longer) == stages.fingerprint_of_search(run)  # goes on from the trials made
    assert stages.fingerprint(longer, "tune") != stages.fingerprint(run, "tune")
    sharper = load_run("demo", [*settings, "stage2.n_repeats=3"])
    assert stages.fingerprint_of_search(sharper) != stages.fingerprint_of_search(run)
    monkeypatch.setattr("sarc_ray.distributed.tune._run", fail)
    facts = pipeline.tune(other)["facts"]
    bundle = load_bundle(other.path("bundle"))
    assert (bundle.stage2.in_force, facts["threshold_rule"]) == ("specificity", "specificity")
    assert facts["threshold"] == bundle.manifest.threshold
    assert bundle.manifest.calibration == facts["calibration"]
    assert facts["calibration"]["why"] == "stage2.calibration: none"
    assert facts["calibration"]["brier"] == first.calibration["brier"]
    assert bundle.model_id != first.model_id


def test_every_algorithm_is_compared_on_every_test_set(run):
    """The chosen one's figures are those of the score table; there is a finalist of each algorithm."""
    table = storage.read_table(run.path("results", "algorithms.parquet"))
    assert set(table["algorithm"]) == {"logistic_regression", "lightgbm"}
    assert set(table["dataset"]) == {"cross_validation", "test_internal", "test_external"}
    chosen = run.finished("tune")["facts"]["algorithm"]
    assert set(table.loc[table["chosen"], "algorithm"]) == {chosen}
    results = storage.read_table(run.path("results", "results.parquet"))
    for dataset in ("test_internal", "test_external"):
        for metric in ("auroc", "sensitivity", "brier"):
            same = (results["dataset"] == dataset) & (results["metric"] == metric) & (results["subgroup"] == "all")
            of_score = results[same & (results["score"] == "score") & (results["comparator"] == "")]["estimate"].item()
            mine = (table["algorithm"] == chosen) & (table["dataset"] == dataset) & (table["metric"] == metric)
            assert table[mine]["estimate"].item() == pytest.approx(of_score, abs=1e-9)


def test_the_ladder_ends_with_the_bundles_own_score(run):
    table = storage.read_table(run.path("results", "ladder.parquet"))
    results = storage.read_table(run.path("results", "results.parquet"))
    for dataset in ("test_internal", "test_external"):
        delong = results[(results["dataset"] == dataset) & (results["metric"] == "auroc_delong")]
        delong = delong[(delong["score"] == "score") & (delong["subgroup"] == "all")]
        rows = table[(table["dataset"] == dataset) & (table["learner"] == "chosen") & (table["metric"] == "auroc")]
        last = rows[rows["rung"] == "uncertainties"]
        for name in ("estimate", "ci_low", "ci_high"):
            assert last[name].item() == pytest.approx(delong[name].item(), abs=1e-9)
        assert last["n"].item() == delong["n"].item()
    assert set(table["learner"]) == {"chosen", "ridge"}


def test_reasons_by_request_are_another_version_of_the_same_scores(run, settings, tmp_path):
    shutil.copytree(run.config.run.directory, tmp_path / "run")
    tables_of, versions = {}, []
    for n_reasons in (3, 0):
        own = [f"run.directory={tmp_path}/run", f"score.reasons={n_reasons}"]
        other = load_run("demo", [*settings, *own])
        assert not pipeline.score(other, "test_external")["skipped"]
        uri = other.path("scores", "test_external")
        tables_of[n_reasons] = tables.read(uri)
        versions.append(tables.read_pointer(uri).version)
    assert len(set(versions)) == 2
    plain, named = tables_of[0], tables_of[3]
    added = [f"reason_{k}{end}" for k in (1, 2, 3) for end in ("", "_shap")]
    assert [name for name in named if name not in plain] == added
    same = [name for name in plain if name != "run_id"]
    pd.testing.assert_frame_equal(named[same], plain[same])
    scored = named["outcome"] == "scored"
    assert scored.any()
    features = read_manifest_of(run.path("bundle")).stage2["features"]
    assert named.loc[scored, "reason_1"].isin(features).all()
    assert named.loc[~scored, added].isna().all().all()


def test_the_choice_of_the_paper_takes_the_best_f1_in_the_internal_test_set(run, settings, tmp_path, monkeypatch):
    def fail(*_args, **_kwargs):
        raise AssertionError("a trial was run")

    shutil.copytree(run.config.run.directory, tmp_path / "run")
    other = load_run("demo", [*settings, "stage2.choice=internal_test_as_paper", f"run.directory={tmp_path}/run"])
    monkeypatch.setattr("sarc_ray.distributed.tune._run", fail)
    facts = pipeline.tune(other)["facts"]
    table = storage.read_table(run.path("results", "algorithms.parquet"))
    f1 = table[(table["dataset"] == "test_internal") & (table["metric"] == "f1")].set_index("algorithm")["estimate"]
    assert f1[facts["algorithm"]] == f1.max()
    assert read_manifest_of(other.path("bundle")).stage2["algorithm"] == facts["algorithm"]
    assert read_manifest_of(other.path("bundle")).lineage["choice"] == "internal_test_as_paper"
    assert "too good" in storage.read_text(other.path("bundle", "model_card.md"))
    trials = storage.read_table(other.path("stage2", "trials.parquet"))
    assert trials.loc[trials["chosen"], "algorithm"].item() == facts["algorithm"]


def test_results_have_the_papers_metrics_with_the_ideal_beside_them(run):
    results = storage.read_table(run.path("results", "results.parquet"))
    assert list(results.columns) == list(COLUMNS)
    table_two = {"auroc", "auprc", "f1", "mcc", "sensitivity", "specificity", "ppv", "npv", "brier"}
    for dataset in ("test_internal", "test_external"):
        of_score = results[
            (results["dataset"] == dataset)
            & (results["score"] == "score")
            & (results["subgroup"] == "all")
            & (results["comparator"] == "")
        ]
        assert table_two <= set(of_score["metric"])
        ideal = results[(results["dataset"] == dataset) & (results["score"] == "ideal")]
        assert {"auroc", "ccc", "explained_variance", "nll", "coverage_90"} <= set(ideal["metric"])
    assert storage.exists(run.path("results", "table_one_test_internal.csv"))
    headline = storage.read_table(run.path("results", "headline.parquet"))
    # Where a small test set is flagged whole, some figures do not exist; the results say why.
    for row in headline[headline["attained"].isna()].to_dict("records"):
        rows = results[(results["dataset"] == row["dataset"]) & (results["score"] == "score")]
        rows = rows[(rows["metric"] == row["metric"]) & (rows["subgroup"] == "all") & (rows["comparator"] == "")]
        assert (rows["na_reason"] != "").all()
    assert headline.set_index("metric").loc[["auroc", "ccc", "brier"], "attained"].notna().all()


def test_another_sites_table_gets_what_the_external_test_set_gets(run, tmp_path):
    """The external cohort, given as if it were a stranger's, differs in its name alone."""
    asked = SiteRequest(
        table=run.config.data.external,
        scores=run.path("scores", "test_external"),
        to=str(tmp_path),
        bundle=None,
        label=None,
    )
    assert evaluate_site(asked, run, silent)["facts"]["plan"] == run.finished("evaluate")["facts"]["plan"]
    site, own = (storage.read_table(other.path("results", "results.parquet")) for other in (site_run(asked, run), run))
    own = own[own["dataset"] == "test_external"]
    for metric in ("smd", "auroc_delong", "ppv_transported"):
        found, expected = (
            table[(table["metric"] == metric) & (table["subgroup"] == "all") & (table["score"] != "ideal")]
            for table in (site, own)
        )
        assert len(found) > 0
        np.testing.assert_allclose(found["estimate"], expected["estimate"], err_msg=metric)


def test_a_report_is_verified_until_someone_changes_a_number(run):
    reporting.report(run)
    found = verify(run, silent)
    assert found.differences == ()
    assert (found.tables > 20, found.cells > 5000, found.lineage) == (
        True,
        True,
        run.finished("report")["facts"]["lineage"],
    )
    page = run.path("report", "index.html")
    table = run.path("results", "results.parquet")
    kept = {uri: storage.read_bytes(uri) for uri in (page, table)}
    auroc = float(storage.read_table(run.path("results", "headline.parquet"))["attained"][0])
    text = storage.read_text(page)
    assert f"{auroc:.3f}" in text
    storage.write_text(page, text.replace(f"{auroc:.3f}", "0.999"))
    assert any("index.html: shows" in line and "0.999" in line for line in verify(run, silent).differences)
    storage.write_bytes(page, kept[page])
    results = storage.read_table(table)
    results.loc[5, "estimate"] += 0.01
    storage.write_table(table, results)
    assert any("results.parquet: row 6, estimate" in line for line in verify(run, silent).differences)
    storage.write_bytes(table, kept[table])
    assert verify(run, silent).differences == ()


def test_the_same_command_again_does_nothing_and_a_change_redoes_what_depends_on_it(run, settings):
    assert pipeline.evaluate(run)["skipped"]
    assert pipeline.train(run)["skipped"]
    changed = load_run("demo", [*settings, "evaluation.n_boot=100"])
    assert pipeline.tune(changed)["skipped"]
    assert pipeline.score(changed, "test_internal")["skipped"]
    assert not pipeline.evaluate(changed)["skipped"]


def test_a_stage_never_builds_on_other_settings(run, settings):
    other = load_run("demo", [*settings, "fit.epochs=3"])
    with pytest.raises(ConfigError, match="settings or data have changed since the stage 'train'"):
        pipeline.tune(other)


def test_what_the_manifest_says_of_scores_does_not_count(run):
    path = run.path("cohort", "external.parquet")
    cohort = storage.read_table(path)
    try:
        storage.write_table(path, cohort.assign(score=0.5, alm_kg_mu=1.0, label=1))
        frame = intake.labelled_scores(run, "test_external")
    finally:
        storage.write_table(path, cohort)
    assert frame["score"].nunique() > 2
    assert frame["alm_kg_mu"].max() > 1.0
    assert frame["outcome"].isin([0, 1]).all()


def test_images_in_both_cohorts_are_refused(run):
    cohort = intake.read_cohort(run, "derivation")
    with pytest.raises(ManifestError, match="images are in the derivation cohort too"):
        intake.refuse_shared_images(cohort, cohort.head(3))


def test_patients_without_features_are_left_out_of_stage_2(run):
    cohort = intake.read_cohort(run, "derivation")
    cohort.loc[:4, "bmi_kg_m2"] = float("nan")
    assert (~intake.features_known(cohort, run.config)).sum() == 5


def test_the_bundle_is_whole_until_someone_touches_it(run, tmp_path):
    bundle = run.path("bundle")
    assert verify_bundle(bundle).model_id == run.finished("tune")["facts"]["model_id"]
    for path in storage.list_files(bundle):
        relative = path.split("/bundle/", 1)[1]
        storage.write_bytes(str(tmp_path / "copy" / relative), storage.read_bytes(path))
    card = str(tmp_path / "copy" / "model_card.md")
    storage.write_text(card, storage.read_text(card) + " ")
    with pytest.raises(BundleError, match=r"model_card\.md"):
        verify_bundle(str(tmp_path / "copy"))


def test_a_tuned_run_is_distilled_into_one_network_that_scores(run, settings, tmp_path):
    """Another bundle, which names its parent and takes over its stage 2; every row gets its outcome as ever."""
    parent = load_bundle(run.path("bundle"))
    facts = distilling.distill(run, silent)["facts"]
    assert (facts["parent_model_id"], facts["instead_of"]) == (parent.model_id, 9)
    assert distilling.distill(run, silent)["skipped"]
    assert not storage.exists(run.path("distilling"))
    manifest = verify_bundle(run.path("distilled"))
    assert manifest.model_id == facts["model_id"] != parent.model_id
    assert manifest.lineage["parent_model_id"] == parent.model_id
    assert manifest.thresholds == parent.manifest.thresholds
    assert manifest.calibration == parent.manifest.calibration
    card = storage.read_text(run.path("distilled", "model_card.md"))
    assert "stage1: distilled" in card
    assert parent.model_id in card
    found = manifest.metrics["distillation"]
    assert found["images"] == (storage.read_table(run.path("predictions.parquet"))["split"] == "tune").sum()
    assert set(found["targets"]) == {"alm_kg", "hgs_kg", "crt_s"}
    frame, images = intake.training_images(run)
    distance_N = load_bundle(run.path("distilled")).predict(images, device="cpu")["ood_distance"]
    assert np.median(distance_N[frame["split"] == "train"]) == pytest.approx(1.0, abs=0.3)
    rows = intake.archive_rows(run)
    table_uri = str(tmp_path / "scores")
    score_rows_with_bundle(
        rows, bundle_uri=run.path("distilled"), table_uri=table_uri, key=b"0" * 32, run=run, tell=silent
    )
    table, of_parent = tables.read(table_uri), tables.read(run.path("scores", "archive"))
    assert table.columns.tolist() == of_parent.columns.tolist()
    assert len(table) == len(rows)
    assert set(table["model_id"]) == {facts["model_id"]}
    scored = table[table["outcome"] == Outcome.SCORED]
    assert len(scored) > 0
    assert scored[["alm_kg_sigma", "crt_s_var_epistemic", "score"]].notna().all(axis=None)


def test_in_sample_ensembles_are_not_distilled(run, settings, monkeypatch):
    other = load_run("demo", [*settings, "ensemble.training_features=in_sample"])
    monkeypatch.setattr(stages, "finished", lambda run, stage: {})
    with pytest.raises(ConfigError, match="no answers for unseen pictures to learn from"):
        distilling.distill(other, silent)


@pytest.mark.slow
def test_members_of_all_targets_share_their_convolutions_from_training_to_score(run, settings, tmp_path):
    other = load_run("demo", [*settings, f"run.directory={tmp_path}", "ensemble.heads=all_targets"])
    assert stages.fingerprint_of_members(other) != stages.fingerprint_of_members(run)
    pipeline.prepare(other)
    assert pipeline.train(other)["facts"]["members"] == 3
    pipeline.tune(other)
    bundle = load_bundle(other.path("bundle"))
    assert [len(of_target) for of_target in bundle.members] == [3, 3, 3]
    hashes = [[member.backbone_hash for member in of_target] for of_target in bundle.members]
    assert hashes[0] == hashes[1] == hashes[2]
    assert len(set(hashes[0])) == 3
    assert pipeline.score(other, "test_internal")["facts"]["counts"]["scored"] > 0
    assert distilling.distill(other, silent)["facts"]["instead_of"] == 9


def test_a_member_that_fails_is_waited_for_or_done_without(run, settings, tmp_path, monkeypatch):
    """Index 1 of four finds no room. The run waits; told to go on, it trains nobody anew and says what it lacks."""
    asked = []
    run_trainer = train._run_trainer

    def find_no_room(task, *args, **kwargs):
        asked.append(task.index)
        if task.index == 1:
            raise RuntimeError("no room")
        return run_trainer(task, *args, **kwargs)

    monkeypatch.setattr(train, "_run_trainer", find_no_room)
    # Half of a small cohort: five patients have sarcopenia, too few to learn from; three times as many might have it.
    few = ["ensemble.members=4", "fit.epochs=1", "outcome.definition=awgs2019_possible"]
    own = [*settings, f"run.directory={tmp_path}", *few]
    waiting = load_run("demo", own)
    pipeline.prepare(waiting)
    with pytest.raises(TrainingError, match=r"alm_kg 1 \(no room\); hgs_kg 1 .*run the same command again"):
        pipeline.train(waiting)
    assert sorted(asked) == [0, 1, 2, 3]
    with pytest.raises(StorageError, match="'train' has not finished"):
        pipeline.tune(waiting)
    going_on = load_run("demo", [*own, "ensemble.missing_allowed=1"])
    facts = pipeline.train(going_on)["facts"]
    assert sorted(asked) == [0, 1, 1, 2, 3]
    assert facts["failed_members"] == ["alm_kg 1", "hgs_kg 1", "crt_s 1"]
    predictions = storage.read_table(going_on.path("predictions.parquet"))
    n_left = (predictions["split"] == "train").sum()  # one image per patient
    # Half of the patients are left with one of their two members.
    assert facts["patients_left_out_of_stage2"] == facts["training_patients"] - n_left
    assert n_left == pytest.approx(facts["training_patients"] / 2, abs=2)
    assert pipeline.tune(going_on)["facts"]["patients"] <= n_left
    bundle = load_bundle(going_on.path("bundle"))
    assert [len(of_target) for of_target in bundle.members] == [3, 3, 3]
    assert bundle.manifest.lineage["failed_members"] == ["alm_kg 1", "hgs_kg 1", "crt_s 1"]
    card = storage.read_text(going_on.path("bundle", "model_card.md"))
    assert '| failed_members | ["alm_kg 1", "hgs_kg 1", "crt_s 1"] |' in card
    assert f"| patients_left_out_of_stage2 | {facts['patients_left_out_of_stage2']} |" in card


def test_scoring_with_other_preprocessing_is_refused(run, settings):
    other = load_run("demo", [*settings, "preprocess.clahe_clip_limit=3.0"])
    with pytest.raises(ConfigError, match="settings or data have changed since the stage 'tune'"):
        pipeline.score(other, "archive")
    with pytest.raises(BundleError, match="clahe_clip_limit"):
        require_preprocessing(load_bundle(run.path("bundle")).spec, other.config.preprocess)


def test_verbs_out_of_order_and_unknown_data_sets_are_named(run, settings, tmp_path):
    fresh = load_run("demo", [*settings, f"run.directory={tmp_path}"])
    with pytest.raises(StorageError, match="the stage 'tune' has not finished"):
        pipeline.score(fresh, "archive")
    with pytest.raises(EvaluationError, match="allowed: test_internal"):
        pipeline.score(run, "archiv")

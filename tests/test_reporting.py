"""The verb on a small finished run: real DICOM files and a real bundle, everything else written as the stages do."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sarc_ray import intake, reporting, storage, tables
from sarc_ray.bundle import load_bundle
from sarc_ray.config import to_mapping
from sarc_ray.errors import StorageError
from sarc_ray.evaluation.results import evaluate_dataset
from sarc_ray.evaluation.sensitivity import compare, sensitivity_table
from sarc_ray.evaluation.table_one import table_one
from sarc_ray.imaging.preprocess import process_image
from sarc_ray.report.content import Absent
from sarc_ray.run import load_run
from sarc_ray.stats.discrimination import auroc
from tests.dicom_factory import make_dicom, picture

BUNDLE = Path(__file__).parent / "golden" / "bundle" / "model"
N = 60
CANARY = "CANARY-PATIENT"


def run_config(folder, *more):
    spec = json.loads((BUNDLE / "bundle.json").read_text(encoding="utf-8"))["spec"]
    targets = ", ".join(json.dumps(target) for target in spec["targets"])
    return load_run(
        "demo",
        [
            f"run.directory={folder}",
            f"targets=[{targets}]",
            f"preprocess={json.dumps(spec['preprocess'])}",
            "data.external=null",
            "data.archive=null",
            "data.truth=null",
            "evaluation.n_boot=50",
            "evaluation.subgroups=[]",
            "evaluation.age_band_edges_years=[]",
            *more,
        ],
    )


def write_images(folder):
    folder.mkdir()
    rng = np.random.default_rng(1)
    uris = []
    for k in range(N):
        pixels = (picture() * rng.uniform(0.5, 0.9) + rng.normal(0, 20, picture().shape)).clip(0, 4095)
        path = folder / f"{CANARY}-{k}.dcm"
        path.write_bytes(make_dicom(pixels.astype(np.uint16)))
        uris.append(str(path))
    return uris


def cohort_frame(uris):
    rng = np.random.default_rng(2)
    return pd.DataFrame(
        {
            "row_id": np.arange(N) + 7 * 10**15,
            "image_uri": uris,
            "patient_id": [f"{CANARY}-{k}" for k in range(N)],
            "age_years": rng.uniform(50, 85, N).round(1),
            "sex": ["F", "M"] * (N // 2),
            "bmi_kg_m2": rng.normal(23, 3, N).round(1),
            "alm_kg": rng.normal(16, 3, N),
            "crt_s": rng.normal(11, 2, N),
            "split": ["train"] * 12 + ["tune"] * 4 + ["test_internal"] * (N - 16),
            "outcome": np.resize([1.0, 0.0, 0.0, 1.0, 0.0], N),
        }
    )


def write_scores(run, rows, bundle):
    images = [process_image(data, run.config.preprocess).image_HW for data in storage.read_many(rows["image_uri"])]
    scored = bundle.score(np.stack(images), rows[["age_years", "sex", "bmi_kg_m2"]], device="cpu")
    table = pd.concat([rows[["row_id"]], scored], axis=1).assign(outcome="scored", reason="", retryable=False)
    return table.assign(patient_key=[f"key-{CANARY}-{k}" for k in range(len(rows))])


def seal(uri, table):
    storage.write_table(storage.join(tables.parts_uri(uri, "v1"), "part.parquet"), table)
    tables.seal(uri, version="v1", expected_row_ids=table["row_id"].to_numpy(), lineage={})


def finish(run, stage, **facts):
    storage.write_json(run.path("stages", f"{stage}.json"), {"fingerprint": stage, "seconds": 1.0, "facts": facts})


def evaluate(run):
    frame = intake.labelled_scores(run, "test_internal")
    results = evaluate_dataset(
        frame,
        dataset="test_internal",
        targets=run.config.targets,
        config=run.config.evaluation,
        seed=1,
        run_id="sample-1",
    )
    storage.write_table(run.path("results", "results.parquet"), results)
    storage.write_table(run.path("results", "table_one_test_internal.csv"), table_one(frame))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Folder of a run that was evaluated."""
    folder = tmp_path_factory.mktemp("finished")
    run = run_config(folder / "run")
    cohort = cohort_frame(write_images(folder / "images"))
    storage.write_table(run.path("cohort", "derivation.parquet"), cohort)
    flow = {"label": ["screened"], "n_images": [N], "n_patients": [N]}
    storage.write_table(
        run.path("cohort", "derivation_flow.csv"),
        pd.DataFrame(flow | {"excluded_images": [0], "excluded_patients": [0]}),
    )
    shutil.copytree(BUNDLE, folder / "run" / "bundle")
    bundle = load_bundle(run.path("bundle"))
    seal(run.path("scores", "test_internal"), write_scores(run, intake.internal_rows(run), bundle))
    finish(run, "tune", model_id=bundle.model_id)
    finish(run, "score-test_internal", n_rows=N - 16)
    evaluate(run)
    finish(run, "evaluate", rows=1)
    run.save_config()
    return folder


@pytest.fixture
def copied(finished, tmp_path):
    """The run in a folder of its own; its images stay where they are."""
    shutil.copytree(finished / "run", tmp_path / "run")
    return tmp_path / "run"


def test_gathers_what_the_run_holds(finished):
    run = run_config(finished / "run")
    report = reporting.gather(run)
    cohort = intake.read_cohort(run, "derivation")
    training = cohort[cohort["split"] == "train"]
    assert report.training_scale["alm_kg"] == pytest.approx((training["alm_kg"].mean(), training["alm_kg"].std(ddof=0)))
    assert report.cohorts[0].parts == {"Training": 12, "Tuning": 4, "Internal test": N - 16}
    assert list(report.table_one) == ["Derivation cohort", "Internal test set"]
    described = table_one(report.test_sets[0].frame)
    pd.testing.assert_frame_equal(report.table_one["Internal test set"], described, check_dtype=False)
    assert isinstance(report.archive, Absent)
    assert not report.simulated
    bundle = load_bundle(run.path("bundle"))
    assert report.threshold == bundle.manifest.threshold
    # A raw score is the base value and what the features add to it; the base is the same for everybody.
    raw = report.test_sets[0].frame.sort_values("row_id")["raw_score"].to_numpy()
    base = raw - report.shap.values_NF.sum(axis=1)
    np.testing.assert_allclose(base, base[0], atol=1e-5)
    assert "before calibration" in report.shap.label


def test_what_the_model_uses_is_measured_on_the_internal_test_set(finished):
    report = reporting.gather(run_config(finished / "run"))
    frame = report.test_sets[0].frame
    assert report.importance.auroc == pytest.approx(auroc(frame["outcome"], frame["raw_score"]))
    assert set(report.importance.table["feature"]) == set(report.shap.features.columns)
    assert report.dependence.mean_score == pytest.approx(frame["score"].mean())
    assert report.dependence.table["feature"].unique().tolist() == [
        *("alm_kg_mu", "crt_s_mu", "alm_kg_uncertainty_pct", "crt_s_uncertainty_pct")
    ]
    manifest = load_bundle(str(finished / "run" / "bundle")).manifest
    assert report.operating.calibration == manifest.calibration
    points = report.operating.points
    assert points.loc[points["in_force"], "threshold"].item() == manifest.threshold
    assert points["said"].str.len().min() > 5


def test_the_ladder_is_shown_where_it_was_climbed(copied, finished):
    run = run_config(copied)
    assert "evaluate" in reporting.gather(run).ladder.reason
    table = pd.DataFrame({"dataset": ["test_internal"], "rung": ["clinical"]})
    storage.write_table(run.path("results", "ladder.parquet"), table)
    assert reporting.gather(run).ladder.equals(table)


def test_a_sensitivity_analysis_is_shown_where_it_was_made(copied):
    run = run_config(copied)
    assert "sarc-ray sensitivity" in reporting.gather(run).retrained.reason
    mine = intake.labelled_scores(run, "test_internal")
    other = mine.assign(score=1 - mine["score"])
    row = compare(mine, other, dataset="test_internal", config=run.config.evaluation)
    table = sensitivity_table("over_60", [row], training_patients=9, training_patients_all=16)
    storage.write_table(run.path("results", "sensitivity_over_60.csv"), table)
    (away,) = reporting.gather(run).retrained
    assert away.scores == {}
    scores = tables.read(run.path("scores", "test_internal"))
    seal(run.path("sensitivity", "over_60", "scores", "test_internal"), scores.assign(score=1 - scores["score"]))
    (found,) = reporting.gather(run).retrained
    assert found.label == "trained on patients older than 60"
    assert found.table["training_patients"].tolist() == [9]
    both = found.scores["test_internal"]
    assert len(both) == len(mine)
    np.testing.assert_allclose(both["score_analysis"], 1 - both["score_all"])
    np.testing.assert_array_equal(both["outcome"], mine["outcome"])


def test_the_lineage_is_a_hash_of_what_decides_the_figures(copied):
    run = run_config(copied)
    before = reporting.gather(run).lineage
    assert before.hash == reporting.lineage_hash(run, storage.read_table(run.path("results", "results.parquet")))
    assert before.settings["run"]["name"] == "demo"
    assert before.hash in before.facts["Lineage"]
    record = storage.read_json(run.path("stages", "evaluate.json"))
    storage.write_json(run.path("stages", "evaluate.json"), record | {"fingerprint": "other"})
    assert reporting.gather(run).lineage.hash != before.hash


def test_heat_maps_are_of_the_chosen_patients(finished):
    report = reporting.gather(run_config(finished / "run"))
    frame = report.test_sets[0].frame
    assert [(example.sex, example.outcome) for example in report.examples] == [("F", 1), ("F", 0), ("M", 1), ("M", 0)]
    for example in report.examples:
        group = frame[(frame["sex"] == example.sex) & (frame["outcome"] == example.outcome)].sort_values("score")
        chosen = group.iloc[(len(group) - 1) // 2]
        assert example.predicted["alm_kg"] == (chosen["alm_kg_mu"], chosen["alm_kg_sigma"])
        assert set(example.heat_HW) == {"alm_kg", "crt_s"}
        assert all(heat.shape == (32, 32) and 0 <= heat.min() <= heat.max() <= 1 for heat in example.heat_HW.values())


def test_writes_once_and_names_nobody(copied):
    run = run_config(copied)
    record = reporting.report(run)
    # flow; ROC, precision-recall, distribution, calibration, decision curve; three kinds and error against uncertainty
    # of two targets; SHAP, permutation importance, partial dependence, Grad-CAM
    assert record["facts"]["figures"] == 1 + 5 + 3 * 2 + 2 + 3 + 1
    assert record["facts"]["lineage"] == reporting.gather(run).lineage.hash
    text = (copied / "report" / "index.html").read_text(encoding="utf-8")
    assert "No external test set" in text
    assert "No archive" in text
    for path in (copied / "report").rglob("*.*"):
        content = path.read_text(encoding="utf-8")
        assert CANARY not in content, path
        assert "70000000000000" not in content, path  # row ids


def test_only_a_report_that_lacks_pictures_is_drawn_again(copied, monkeypatch):
    def write_page(uri, report):
        storage.write_text(storage.join(uri, "index.html"), "page")
        return {"figures": 1, "tables": 1, "absent": 2}

    monkeypatch.setattr(reporting, "write_report", write_page)
    run = run_config(copied)
    assert reporting.report(run)["facts"]["pictures_unread"] == 0
    assert reporting.report(run)["skipped"]
    shutil.rmtree(copied / "report")
    assert not reporting.report(run)["skipped"]
    record = storage.read_json(run.path("stages", "report.json"))
    storage.write_json(run.path("stages", "report.json"), record | {"facts": record["facts"] | {"pictures_unread": 1}})
    assert not reporting.report(run)["skipped"]


def test_pictures_that_are_away_are_said_so(copied):
    run = run_config(copied)
    cohort = intake.read_cohort(run, "derivation")
    storage.write_table(
        run.path("cohort", "derivation.parquet"),
        cohort.assign(image_uri=[f"/nowhere/{CANARY}-{k}.dcm" for k in range(N)]),
    )
    assert reporting.report(run)["facts"]["pictures_unread"] == 4
    text = (copied / "report" / "index.html").read_text(encoding="utf-8")
    assert text.count("the radiograph could not be read again: no object exists under the manifest&#39;s URI") == 4
    assert CANARY not in text


def test_the_archive_is_counted_by_reason(copied):
    manifest = copied / "archive.parquet"
    run = run_config(copied, f"data.archive={manifest}")
    assert "was not scored yet" in reporting.gather(run).archive.reason
    rows = [("scored", "", False, True)] * 3 + [("scored", "", False, False)] + [("rejected", "not_dicom", False, None)]
    table = pd.DataFrame(rows, columns=["outcome", "reason", "retryable", "flag"]).assign(row_id=range(5))
    seal(run.path("scores", "archive"), table)
    archive = reporting.gather(run).archive
    assert (archive.n_rows, archive.n_flagged) == (5, 3)
    assert archive.counts.set_index("reason")["n"].to_dict() == {"": 4, "not_dicom": 1}


def test_a_damaged_bundle_leaves_the_rest(copied):
    run = run_config(copied)
    (copied / "bundle" / "model_card.md").write_text("other")
    (copied / "bundle" / "stage2" / "model.skops").write_bytes(b"other")
    report = reporting.gather(run)
    assert isinstance(report.shap, Absent)
    assert "cannot be used" in report.shap.reason
    assert isinstance(report.examples, Absent)
    assert report.test_sets


def test_needs_an_evaluated_run(tmp_path):
    with pytest.raises(StorageError, match="evaluate"):
        reporting.report(run_config(tmp_path))


def test_the_sample_is_configured_as_its_bundle(finished):
    run = run_config(finished / "run")
    assert to_mapping(run.config.preprocess) == to_mapping(load_bundle(run.path("bundle")).spec.preprocess)

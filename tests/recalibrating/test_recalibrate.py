"""Bundles made of a bundle: the golden one, whose stage 1 stays as it is."""

import dataclasses
import hashlib
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from scipy.special import expit, logit

from sarc_ray import storage
from sarc_ray.bundle import Bundle, load_bundle, read_manifest_of, verify_bundle, write_bundle
from sarc_ray.cohort.schema import row_id
from sarc_ray.errors import ConfigError, EvaluationError, ManifestError
from sarc_ray.recalibrating.display import print_recalibrated
from sarc_ray.recalibrating.labels import read_labelled
from sarc_ray.recalibrating.rewrite import Recalibrated, RecalibrationRequest, recalibrate
from sarc_ray.stage2.prevalence import present_prevalence, rebase
from tests.bundle_factory import make_distilled, make_ood

GOLDEN = Path(__file__).parents[1] / "golden" / "bundle"
MODEL = str(GOLDEN / "model")
N = 600


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_bundle(MODEL)


@pytest.fixture(scope="module")
def sample(bundle) -> pd.DataFrame:
    """Scores of the golden bundle with labels whose log-odds lie 1.2 below what the scores say."""
    rng = np.random.default_rng(1)
    raw_N = rng.uniform(0.05, 0.95, N)
    score_N = bundle.stage2.calibration.apply(raw_N)
    return pd.DataFrame(
        {
            "patient_key": [f"p{k:04d}" for k in range(N)],
            "raw_score": raw_N,
            "score": score_N,
            "model_id": bundle.model_id,
            "label": (rng.random(N) < expit(logit(score_N) - 1.2)).astype(int),
        }
    )


def request(to: str, **given) -> RecalibrationRequest:
    nothing = {"table": None, "scores": None, "label": None, "prevalence": None, "seed": 1}
    return RecalibrationRequest(**{"bundle": MODEL, "to": to, **nothing, **given})


def written(frame: pd.DataFrame, uri: Path) -> str:
    storage.write_table(str(uri), frame)
    return str(uri)


def shown(done: Recalibrated, to: str) -> str:
    text = io.StringIO()
    print_recalibrated(Console(file=text, width=120), done, to)
    return text.getvalue()


def content_of(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def local(sample, tmp_path_factory) -> tuple[Recalibrated, str]:
    folder = tmp_path_factory.mktemp("local")
    to = str(folder / "bundle")
    return recalibrate(request(to, table=written(sample, folder / "sample.csv"))), to


def test_a_local_sample_makes_a_bundle_that_names_its_parent(local, bundle):
    before = content_of(GOLDEN / "model")
    done, to = local
    manifest = verify_bundle(to)
    assert manifest.model_id == done.model_id != bundle.model_id
    assert manifest.lineage["parent_model_id"] == done.parent_model_id == bundle.model_id
    assert {**bundle.manifest.lineage, **manifest.lineage} == manifest.lineage | {
        key: value for key, value in bundle.manifest.lineage.items() if key not in manifest.lineage
    }
    assert manifest.spec == bundle.spec
    stage1 = {path: digest for path, digest in manifest.files.items() if path.startswith("stage1/")}
    assert stage1 == {path: digest for path, digest in bundle.manifest.files.items() if path.startswith("stage1/")}
    assert content_of(GOLDEN / "model") == before
    assert done.decision.kept == "intercept"
    assert done.decision.chosen.intercept == pytest.approx(-1.2, abs=0.25)
    assert manifest.calibration["method"] == "intercept"
    assert manifest.metrics["local_recalibration"]["n_patients"] == N


def test_scores_of_the_new_bundle_are_put_right_and_flags_stay(local, bundle):
    done, to = local
    new = load_bundle(to)
    images, clinical = np.load(GOLDEN / "images.npy"), pd.read_csv(GOLDEN / "clinical.csv")
    before, after = bundle.score(images, clinical, device="cpu"), new.score(images, clinical, device="cpu")
    assert after["flag"].tolist() == before["flag"].tolist()
    assert before["flag"].nunique() == 2
    np.testing.assert_array_equal(after["raw_score"], before["raw_score"])
    np.testing.assert_allclose(
        logit(after["score"]) - logit(before["score"]), done.decision.chosen.intercept, atol=2e-2
    )
    raw = [point.raw_threshold for point in bundle.stage2.thresholds]
    assert [point.raw_threshold for point in new.stage2.thresholds] == raw
    assert done.thresholds == (bundle.stage2.threshold, new.stage2.threshold)
    assert done.thresholds[1] < done.thresholds[0]


def test_the_card_and_the_screen_tell_what_was_decided(local):
    done, to = local
    card = storage.read_text(storage.join(to, "model_card.md"))
    assert "Scores are recalibrated on a local sample (intercept)" in card
    assert "## Local recalibration" in card
    assert f"| parent_model_id | {done.parent_model_id} |" in card
    text = shown(done, to)
    assert f"wrote {to}: model {done.model_id}, parent {done.parent_model_id}" in text
    assert "600 rows of 600 patients" in text
    assert "intercept and slope" in text


def test_nothing_to_put_right_writes_nothing(sample, tmp_path):
    rng = np.random.default_rng(7)
    sound = sample.assign(label=(rng.random(N) < sample["score"]).astype(int))
    done = recalibrate(request(str(tmp_path / "new"), table=written(sound, tmp_path / "sample.parquet")))
    assert (done.decision.kept, done.model_id) == ("none", None)
    assert not (tmp_path / "new").exists()
    assert "no other was written" in shown(done, "new")


def test_rebasing_needs_no_labels_and_can_follow_a_recalibration(local, sample, bundle, tmp_path):
    to = str(tmp_path / "rebased")
    done = recalibrate(request(to, prevalence=0.04))
    present = present_prevalence(bundle.stage2.thresholds)
    assert done.prevalences == (pytest.approx(present), 0.04)
    new = load_bundle(to)
    raw_N = np.linspace(0.05, 0.95, 50)
    expected_N = rebase(bundle.stage2.calibration.apply(raw_N), present=present, wanted=0.04)
    np.testing.assert_allclose(new.stage2.calibration.apply(raw_N), expected_N, atol=2e-3)
    assert new.manifest.lineage["parent_model_id"] == bundle.model_id
    card = storage.read_text(storage.join(to, "model_card.md"))
    assert f"re-based from a prevalence of {present:.4f} to 0.0400" in card
    assert "at the prevalence above" in card
    # After a local recalibration the scores hold at the local share.
    second = recalibrate(request(str(tmp_path / "second"), bundle=local[1], prevalence=0.04))
    assert second.prevalences[0] == pytest.approx(sample["label"].mean())
    assert read_manifest_of(str(tmp_path / "second")).lineage["parent_model_id"] == local[0].model_id
    assert "recalibrated on a local sample (intercept); re-based" in storage.read_text(
        storage.join(str(tmp_path / "second"), "model_card.md")
    )
    third = recalibrate(request(str(tmp_path / "third"), bundle=str(tmp_path / "second"), prevalence=0.1))
    assert third.prevalences[0] == pytest.approx(0.04)


def test_a_manifest_beside_its_score_table_gives_the_bundles_own_outcome(sample, bundle, tmp_path):
    few = 8
    cohort = pd.DataFrame(
        {
            "image_uri": [f"{k}.dcm" for k in range(few)],
            "patient_id": ["a", "a", *"bcdefg"],
            "sex": "F",
            "height_m": 1.6,
            "alm_kg": [10.0, 10.0, 20.0, 20.0, 10.0, 10.0, 20.0, None],
            "hgs_kg": [10.0, 10.0, 10.0, 30.0, 30.0, 10.0, 10.0, 10.0],
            "crt_s": 9.0,
            "mine": [1, 0, 0, 0, 1, 1, None, 0],
        }
    )
    manifest = written(cohort, tmp_path / "manifest.csv")
    scores = sample.iloc[:few].assign(row_id=[row_id(str(tmp_path / f"{k}.dcm")) for k in range(few)])
    # One image was not scored, one is of somebody else.
    scores.loc[1, ["score", "raw_score"]] = np.nan
    scores = written(scores.iloc[::-1], tmp_path / "scores.parquet")
    labelled = read_labelled(manifest, scores=scores, label=None, bundle=bundle)
    assert labelled.y_N.tolist() == [1, 0, 0, 0, 1, 0]
    assert labelled.patient_N.tolist() == ["a", *"bcdef"]
    np.testing.assert_allclose(labelled.score_N, sample["score"].to_numpy()[[0, 2, 3, 4, 5, 6]])
    assert (labelled.n_left_out, labelled.label) == (2, "sarcopenia")
    mine = read_labelled(manifest, scores=scores, label="mine", bundle=bundle)
    assert mine.y_N.tolist() == [1, 0, 0, 1, 1, 0]
    assert mine.label == "mine"
    elsewhere = written(cohort.assign(image_uri=cohort["image_uri"] + ".gz"), tmp_path / "other.csv")
    with pytest.raises(ManifestError, match="none of its 8 rows belongs to an image"):
        read_labelled(elsewhere, scores=scores, label=None, bundle=bundle)


@pytest.mark.parametrize(
    ("change", "label", "message"),
    [
        ({"label": 2}, None, "row 1, column label: found 2.*allowed: 0, 1 or empty"),
        ({"label": "yes"}, None, "row 1, column label: found yes; allowed: a number"),
        ({"score": 1.5}, None, "row 1, column score: found 1.5; allowed: 0 to 1"),
        ({}, "sarcopenia", "column sarcopenia: missing"),
        ({"model_id": "0" * 32}, None, "scores of model 0000.*; score the sample with this bundle"),
        ({"raw_score": 0.5}, None, "scores differ by up to .* from what the bundle makes"),
        ({"patient_key": ["p1", "", " "] * (N // 3)}, None, "400 rows have no patient_key, and all of them would"),
        ({"patient_key": None}, None, "patient_key or patient_id: missing"),
        ({"raw_score": None, "model_id": None}, None, "raw_score or model_id: missing"),
    ],
)
def test_wrong_samples_are_refused(sample, bundle, tmp_path, change, label, message):
    gone = [name for name, value in change.items() if value is None]
    frame = sample.assign(**change).drop(columns=gone)
    uri = written(frame, tmp_path / "sample.csv")
    with pytest.raises(ManifestError, match=message):
        read_labelled(uri, scores=None, label=label, bundle=bundle)


def test_true_and_false_are_labels_in_text_too(sample, bundle, tmp_path):
    for name in ("sample.csv", "sample.parquet"):
        uri = written(sample.assign(label=sample["label"].astype(bool)), tmp_path / name)
        found = read_labelled(uri, scores=None, label=None, bundle=bundle)
        np.testing.assert_array_equal(found.y_N, sample["label"])


def test_a_small_sample_is_refused_with_what_is_needed(sample, tmp_path):
    uri = written(sample.head(40), tmp_path / "sample.csv")
    with pytest.raises(EvaluationError, match="at least 20 of each are needed"):
        recalibrate(request(str(tmp_path / "new"), table=uri))
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "either --table with a labelled sample, or --prevalence"),
        ({"table": "a.csv", "prevalence": 0.1}, "either --table"),
        ({"prevalence": 0.1, "label": "x"}, "belong to --table"),
        ({"prevalence": 1.0}, r"--prevalence: found 1\.0"),
        ({"prevalence": 0.1, "to": MODEL + "/"}, "lies within the bundle"),
        ({"prevalence": 0.1, "to": MODEL + "/new"}, "lies within the bundle"),
    ],
)
def test_requests_that_make_no_sense(given, message):
    with pytest.raises(ConfigError, match=message):
        request(**{"to": "new", **given})


def test_a_distilled_bundle_still_names_its_ensembles_when_it_is_recalibrated(bundle, tmp_path):
    """Its parent is then the distilled bundle; whom the network answers for has not changed, its probabilities have."""
    parts, ensembles = make_distilled(8), "e" * 32
    lineage = {"stage": "distill", "parent_model_id": ensembles, "distilled_from_model_id": ensembles}
    write_bundle(
        str(tmp_path / "distilled"),
        members=parts,
        ood=make_ood(parts, 8),
        stage2=bundle.stage2,
        spec=dataclasses.replace(bundle.spec, stage1="distilled"),
        metrics={},
        lineage=lineage,
    )
    done = recalibrate(request(str(tmp_path / "new"), bundle=str(tmp_path / "distilled"), prevalence=0.04))
    before, after = (
        storage.read_text(storage.join(str(tmp_path / name), "model_card.md")) for name in ("distilled", "new")
    )
    for card in (before, after):
        assert f"the ensembles of bundle\n`{ensembles}` say" in card
    assert "all unchanged" in before
    assert "unchanged" not in after
    assert "not the probabilities, which have been put right since" in after
    assert f"| parent_model_id | {done.parent_model_id} |" in after
    assert verify_bundle(str(tmp_path / "new")).spec.stage1 == "distilled"

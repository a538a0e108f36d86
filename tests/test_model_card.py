"""The card that lies in every bundle: what was decided, what is known, what to beware of."""

import dataclasses

import numpy as np
import pytest

from sarc_ray import storage
from sarc_ray.bundle import read_manifest_of, verify_bundle, write_bundle
from tests.bundle_factory import SPEC, make_members, make_ood, make_stage2, write_tested


@pytest.fixture(scope="module")
def members():
    return make_members(5)


@pytest.fixture(scope="module")
def stage2(members):
    return make_stage2(members, 5)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"kept": True, "why": "improves Brier and ICI"}, "Sigmoid calibration is in force: out of fold it improves"),
        (
            {"kept": False, "why": "does not improve ICI"},
            "not in force, scores are raw scores: out of fold it does not",
        ),
        ({"kept": False, "brier_calibrated": None, "why": "no better"}, "scores are raw scores (no better)"),
        ({"method": "none", "brier_calibrated": None}, "No calibration was asked for; out of fold Brier 0.1500, ICI"),
    ],
)
def test_the_card_says_which_way_calibration_went(tmp_path, members, stage2, change, text):
    figures = {"brier": 0.15, "brier_calibrated": 0.14, "ici": 0.04, "ici_calibrated": 0.03}
    decision = dataclasses.replace(stage2.decision, **{**figures, **change})
    uri = write_tested(str(tmp_path / "bundle"), members, dataclasses.replace(stage2, decision=decision))
    card = storage.read_text(storage.join(uri, "model_card.md"))
    assert text in card
    assert ("Brier 0.1500 without and 0.1400 with it" in card) == (decision.brier_calibrated is not None)
    assert verify_bundle(uri).calibration == dataclasses.asdict(decision)


@pytest.mark.parametrize("way", ["in_sample", "repeated_folds"])
def test_the_card_warns_where_stage_2_learned_from_memorised_predictions(tmp_path, members, stage2, way):
    uri = str(tmp_path / "bundle")
    parts = {"members": members, "ood": make_ood(members, 5), "stage2": stage2, "spec": SPEC, "metrics": {}}
    write_bundle(uri, **parts, lineage={"training_features": way})
    card = storage.read_text(storage.join(uri, "model_card.md"))
    assert f"| training_features | {way} |" in card
    assert ("cross-validated figures above are too good" in card) == (way == "in_sample")


def test_numbers_that_are_not_finite_become_null_and_the_card_says_what_is_known(tmp_path, members, stage2):
    uri = str(tmp_path / "bundle")
    metrics = {"cv_auroc_mean": np.float64(0.81), "cv_auroc_se": np.nan, "training_patients": np.int64(601)}
    decision = {"why": "improves both", "images": 147, "patients": 140, "fitted_scale": 1.1, "nll": 2.5}
    decision |= {"nll_recalibrated": 2.4, "calibration_error": 0.05, "calibration_error_recalibrated": None}
    recalibration = {"recalibration": {"alm_kg": decision}}
    spec = dataclasses.replace(SPEC, ood_threshold=2.5)
    parts = {"members": members, "ood": make_ood(members, 5), "stage2": stage2}
    write_bundle(uri, **parts, spec=spec, metrics=metrics | recalibration, lineage={"run": "r-7"})
    expected = {"cv_auroc_mean": 0.81, "cv_auroc_se": None, "training_patients": 601, **recalibration}
    assert read_manifest_of(uri).metrics == expected
    card = storage.read_text(storage.join(uri, "model_card.md"))
    for text in (
        "| alm_kg | improves both | 1.1000 | 2.5000 | 2.4000 | 0.0500 | - | 140 |",
        "Not a medical device",
        "| training_patients | 601 |",
        "| run | r-7 |",
        "`alm_kg`",
        "awgs2019",
        "sigma x 1.100",
        "above 2.500 it gets no score",
    ):
        assert text in card


@pytest.mark.parametrize(
    ("threshold", "held", "asked", "n", "text"),
    [
        (2.5, 0.01, 0.01, 224, "Of pictures like the 224 tuning pictures at most 1.00% are expected beyond it.\n"),
        (
            2.5,
            1 / 31,
            0.01,
            30,
            "at most 3.23% are expected beyond it (1.00% was asked for, and takes more of them).\n",
        ),
        (
            None,
            None,
            0.01,
            11,
            "refused for it. 11 tuning pictures are too few for a threshold at a false-alarm rate of",
        ),
        (None, None, 0.0, 224, "a picture is; none is refused for it.\n"),
    ],
)
def test_the_card_says_how_many_ordinary_pictures_the_threshold_costs(
    tmp_path, members, stage2, threshold, held, asked, n, text
):
    uri, spec = str(tmp_path / "bundle"), dataclasses.replace(SPEC, ood_threshold=threshold)
    metrics = {"ood_false_alarm_rate": held, "ood_false_alarm_rate_asked": asked, "ood_tuning_images": n}
    write_bundle(uri, members=members, ood=make_ood(members, 5), stage2=stage2, spec=spec, metrics=metrics, lineage={})
    assert text in storage.read_text(storage.join(uri, "model_card.md"))

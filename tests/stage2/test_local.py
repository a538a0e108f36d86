import dataclasses

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from sarc_ray.errors import EvaluationError
from sarc_ray.stage2.calibration import Beta, Isotonic, Sigmoid, Unchanged, log_odds, moved
from sarc_ray.stage2.local import (
    CANDIDATES,
    MIN_PATIENTS,
    Candidate,
    Judged,
    LocalDecision,
    decide,
    fit,
    recalibrated_model,
)
from sarc_ray.stage2.persist import content_hash, from_bytes, to_bytes
from sarc_ray.stats.calibration import brier, calibration_errors
from tests.stage2.cohort import fitted_model

SIGMOID = Sigmoid(1.0, 0.0)
MAPS = [Unchanged(), Sigmoid(1.5, -0.3), Beta(0.4, 1.7, 0.2), Isotonic(np.array([0.1, 0.8]), np.array([0.05, 0.7]))]


def sample(n: int, *, slope: float, intercept: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores, and labels whose log-odds are slope * those of the scores + intercept."""
    rng = np.random.default_rng(seed)
    z_N = rng.normal(-1.5, 1.2, n)
    return expit(z_N), (rng.random(n) < expit(slope * z_N + intercept)).astype(int)


def decision_with(kept: Candidate, *, slope: float, intercept: float) -> LocalDecision:
    judged = [
        Judged(method="none", slope=1.0, intercept=0.0, brier=0.12, ici=0.05, improves=False),
        Judged(method=kept, slope=slope, intercept=intercept, brier=0.1, ici=0.01, improves=True),
    ]
    return LocalDecision(
        kept=kept,
        candidates=tuple(judged),
        n_rows=200,
        n_patients=200,
        n_patients_with=40,
        prevalence=0.2,
        mean_score=0.3,
        n_boot=10,
        seed=1,
    )


@pytest.mark.parametrize("calibration", MAPS)
def test_a_moved_map_moves_log_odds(calibration):
    raw_N = np.linspace(0.0, 1.0, 1001)
    score_N = calibration.apply(raw_N)
    once = moved(calibration, slope=0.7, intercept=-0.4)
    np.testing.assert_allclose(logit(once.apply(raw_N)), 0.7 * log_odds(calibration, score_N) - 0.4, atol=1e-9)
    twice = moved(once, slope=2.0, intercept=0.5)
    np.testing.assert_allclose(logit(twice.apply(raw_N)), 2.0 * logit(once.apply(raw_N)) + 0.5, atol=1e-9)
    assert np.all(np.diff(twice.apply(raw_N)) > 0)
    with pytest.raises(ValueError, match="slope: found 0"):
        moved(calibration, slope=0.0, intercept=0.0)


def test_fits_are_scikit_learns():
    score_N, y_N = sample(20_000, slope=0.6, intercept=0.4, seed=1)
    reference = LogisticRegression(C=np.inf, tol=1e-10).fit(logit(score_N)[:, None], y_N)
    slope, intercept = fit("intercept_and_slope", logit(score_N), y_N)
    # Softened labels, 1 of some thousand, are all that differs.
    np.testing.assert_allclose([slope, intercept], [reference.coef_[0, 0], reference.intercept_[0]], atol=5e-3)
    slope, intercept = fit("intercept", logit(score_N), y_N)
    assert slope == 1.0
    assert expit(logit(score_N) + intercept).mean() == pytest.approx(y_N.mean(), abs=1e-3)
    assert fit("none", logit(score_N), y_N) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("slope", "intercept", "kept"),
    [(1.0, 0.0, "none"), (1.0, -1.0, "intercept"), (0.4, -1.0, "intercept_and_slope")],
)
def test_what_is_wrong_is_put_right_and_nothing_else(slope, intercept, kept):
    score_N, y_N = sample(1200, slope=slope, intercept=intercept, seed=3)
    decision = decide(SIGMOID, score_N, y_N, np.arange(1200), seed=1, n_boot=20)
    assert decision.kept == kept
    assert [judged.method for judged in decision.candidates] == list(CANDIDATES)
    assert decision.chosen.slope == pytest.approx(slope, abs=0.1)
    assert decision.chosen.intercept == pytest.approx(intercept, abs=0.2)
    plain = decision.candidates[0]
    assert not plain.improves
    assert plain.brier == pytest.approx(brier(y_N, score_N), rel=0.02)
    if kept != "none":
        new_score_N, new_y_N = sample(20_000, slope=slope, intercept=intercept, seed=4)
        better_N = expit(decision.chosen.slope * logit(new_score_N) + decision.chosen.intercept)
        assert brier(new_y_N, better_N) < brier(new_y_N, new_score_N)
        assert calibration_errors(new_y_N, better_N).ici < 0.5 * calibration_errors(new_y_N, new_score_N).ici


def test_scores_that_rank_the_wrong_way_are_left_alone():
    score_N, y_N = sample(400, slope=-1.0, intercept=-2.0, seed=5)
    decision = decide(SIGMOID, score_N, y_N, np.arange(400), seed=1, n_boot=10)
    backwards = decision.candidates[-1]
    assert backwards.slope < 0
    assert not backwards.improves
    assert decision.kept != "intercept_and_slope"


def test_patients_are_drawn_whole():
    """Every patient three times over: the same draws, so the same figures as each once."""
    score_N, y_N = sample(200, slope=0.5, intercept=-0.5, seed=6)
    once = decide(SIGMOID, score_N, y_N, np.arange(200), seed=2, n_boot=10)
    order = np.random.default_rng(1).permutation(600)
    patient_N = np.tile(np.arange(200), 3)[order]
    thrice = decide(SIGMOID, np.tile(score_N, 3)[order], np.tile(y_N, 3)[order], patient_N, seed=2, n_boot=10)
    assert (thrice.n_rows, thrice.n_patients, thrice.n_patients_with) == (600, 200, once.n_patients_with)
    for a, b in zip(once.candidates, thrice.candidates, strict=True):
        # Softened labels depend on the number of rows.
        assert b.brier == pytest.approx(a.brier, abs=2e-4)
        assert b.intercept == pytest.approx(a.intercept, abs=0.05)
    as_rows = decide(SIGMOID, np.tile(score_N, 3), np.tile(y_N, 3), np.arange(600), seed=2, n_boot=10)
    assert as_rows.candidates[1].brier != pytest.approx(thrice.candidates[1].brier, abs=1e-6)


def test_the_same_seed_gives_the_same_decision():
    score_N, y_N = sample(200, slope=0.7, intercept=0.0, seed=7)
    first, again, other = (decide(SIGMOID, score_N, y_N, np.arange(200), seed=s, n_boot=10) for s in (1, 1, 2))
    assert first == again
    assert first.candidates[0].brier != other.candidates[0].brier


@pytest.mark.parametrize(("n_with", "n_without"), [(MIN_PATIENTS - 1, 100), (100, MIN_PATIENTS - 1), (0, 50)])
def test_small_samples_are_refused(n_with, n_without):
    y_N = np.repeat([1, 0], [n_with, n_without])
    with pytest.raises(EvaluationError, match=rf"{n_with} patients with the outcome and {n_without} without; at least"):
        decide(SIGMOID, np.linspace(0.1, 0.9, len(y_N)), y_N, np.arange(len(y_N)), seed=1, n_boot=10)
    # Rows are no patients.
    few = np.arange(len(y_N)) // 10
    with pytest.raises(EvaluationError, match="local sample"):
        decide(SIGMOID, np.linspace(0.1, 0.9, len(y_N)), y_N, few, seed=1, n_boot=10)


@pytest.mark.parametrize("calibration", MAPS)
def test_a_recalibrated_model_flags_the_same_patients(calibration):
    model, X, _ = fitted_model("logistic_regression")
    points = [dataclasses.replace(p, threshold=float(calibration.apply(p.raw_threshold))) for p in model.thresholds]
    model = dataclasses.replace(model, calibration=calibration, thresholds=tuple(points))
    moved_model = recalibrated_model(model, decision_with("intercept_and_slope", slope=0.6, intercept=-0.9))
    (raw_N, score_N), (raw_after_N, score_after_N) = model.predict(X), moved_model.predict(X)
    np.testing.assert_array_equal(raw_after_N, raw_N)
    np.testing.assert_array_equal(moved_model.flag(score_after_N), model.flag(score_N))
    expected_N = expit(0.6 * log_odds(calibration, score_N) - 0.9)
    np.testing.assert_allclose(score_after_N, expected_N, atol=1e-9)
    assert content_hash(from_bytes(to_bytes(moved_model))) == content_hash(moved_model) != content_hash(model)
    assert moved_model.decision.brier_calibrated == 0.1
    with pytest.raises(ValueError, match="kept: found none"):
        recalibrated_model(
            model, dataclasses.replace(decision_with("intercept", slope=1.0, intercept=1.0), kept="none")
        )

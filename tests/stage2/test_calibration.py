import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, roc_auc_score

from sarc_ray.errors import EvaluationError
from sarc_ray.stage2.calibration import (
    METHODS,
    Beta,
    Isotonic,
    Sigmoid,
    Unchanged,
    calibrate,
    fit_beta,
    fit_calibration,
    fit_isotonic,
    fit_sigmoid,
)
from sarc_ray.stage2.cross_validation import make_folds
from sarc_ray.stats.calibration import calibration_errors


def test_sigmoid_finds_the_distortion_that_was_applied():
    rng = np.random.default_rng(0)
    truth_N = expit(rng.normal(-1.5, 1.2, 200_000))
    y_N = (rng.random(200_000) < truth_N).astype(int)
    raw_N = expit((logit(truth_N) - 0.7) / 1.8)
    sigmoid = fit_sigmoid(raw_N, y_N)
    np.testing.assert_allclose(sigmoid.apply(raw_N), truth_N, atol=0.01)


def test_sigmoid_leaves_calibrated_scores_alone():
    rng = np.random.default_rng(1)
    raw_N = rng.uniform(0.05, 0.9, 200_000)
    sigmoid = fit_sigmoid(raw_N, (rng.random(200_000) < raw_N).astype(int))
    np.testing.assert_allclose(sigmoid.apply(raw_N), raw_N, atol=0.01)


def test_sigmoid_stays_finite_on_perfect_and_extreme_scores():
    sigmoid = fit_sigmoid(np.array([0.0, 0.0, 1.0, 1.0]), np.array([0, 0, 1, 1]))
    score_N = sigmoid.apply([0.0, 1.0])
    assert 0.0 < score_N[0] < 0.5 < score_N[1] < 1.0


def test_sigmoid_is_strictly_increasing():
    raw_N = np.linspace(0.0, 1.0, 2001)
    assert np.all(np.diff(Sigmoid(0.8, -0.3).apply(raw_N)) > 0)


@pytest.mark.parametrize("method", METHODS)
def test_scores_worse_than_chance_make_no_model(method):
    rng = np.random.default_rng(2)
    raw_N = rng.random(500)
    with pytest.raises(EvaluationError, match="no better than chance"):
        fit_calibration(method, raw_N, (rng.random(500) > raw_N).astype(int))


def test_beta_finds_the_distortion_that_no_sigmoid_undoes():
    rng = np.random.default_rng(3)
    raw_N = rng.uniform(0.01, 0.99, 200_000)
    truth_N = Beta(0.4, 2.0, 0.8).apply(raw_N)
    y_N = (rng.random(200_000) < truth_N).astype(int)
    np.testing.assert_allclose(fit_beta(raw_N, y_N).apply(raw_N), truth_N, atol=0.01)
    assert np.abs(fit_sigmoid(raw_N, y_N).apply(raw_N) - truth_N).max() > 0.04


def test_beta_is_what_scikit_learn_finds():
    rng = np.random.default_rng(4)
    raw_N = rng.beta(2.0, 3.0, 20_000)
    y_N = (rng.random(20_000) < Beta(0.7, 1.4, -0.2).apply(raw_N)).astype(int)
    s_N = 0.999 * raw_N + 0.0005
    reference = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(np.c_[np.log(s_N), -np.log(1 - s_N)], y_N)
    found = fit_beta(raw_N, y_N)
    # Softened labels, 1 of 10,000, are all that differs.
    np.testing.assert_allclose([found.a, found.b, found.c], [*reference.coef_[0], reference.intercept_[0]], atol=5e-3)


def test_beta_of_a_falling_term_is_the_fit_without_it():
    """Kull et al. refit without a term whose coefficient is negative."""
    rng = np.random.default_rng(5)
    raw_N = rng.uniform(0.05, 0.95, 5000)
    y_N = (rng.random(5000) < expit(2.5 * np.log(raw_N) + 0.6 * np.log(1 - raw_N) + 2.0)).astype(int)
    s_N = 0.999 * raw_N + 0.0005
    free = LogisticRegression(C=np.inf, tol=1e-10).fit(np.c_[np.log(s_N), -np.log(1 - s_N)], y_N)
    assert free.coef_[0, 1] < 0.0
    found, alone = fit_beta(raw_N, y_N), LogisticRegression(C=np.inf, tol=1e-10).fit(np.log(s_N)[:, None], y_N)
    assert found.b == 0.0
    np.testing.assert_allclose([found.a, found.c], [alone.coef_[0, 0], alone.intercept_[0]], atol=0.01)


def test_beta_and_isotonic_leave_calibrated_scores_alone():
    rng = np.random.default_rng(1)
    raw_N = rng.uniform(0.05, 0.9, 200_000)
    y_N = (rng.random(200_000) < raw_N).astype(int)
    np.testing.assert_allclose(fit_beta(raw_N, y_N).apply(raw_N), raw_N, atol=0.01)
    assert np.abs(fit_isotonic(raw_N, y_N).apply(raw_N) - raw_N).mean() < 0.01


def test_isotonic_is_scikit_learns_but_for_its_tilt_and_softened_labels():
    rng = np.random.default_rng(6)
    raw_RN = rng.uniform(0.0, 1.0, (2, 1000))
    y_N = (rng.random(1000) < raw_RN.mean(axis=0) ** 2).astype(int)
    found = fit_isotonic(raw_RN, y_N)
    reference = IsotonicRegression(out_of_bounds="clip").fit(raw_RN.ravel(), np.tile(y_N, 2))
    new_N = np.linspace(-0.0, 1.0, 501)
    np.testing.assert_allclose(found.apply(new_N), reference.predict(new_N), atol=0.006)


@pytest.mark.parametrize("method", METHODS)
def test_every_map_keeps_the_order_of_patients_and_stays_off_0_and_1(method):
    rng = np.random.default_rng(7)
    raw_N = rng.beta(1.0, 4.0, 400)
    y_N = (rng.random(400) < raw_N).astype(int)
    new_N = np.linspace(0.0, 1.0, 2001)
    score_N = fit_calibration(method, raw_N, y_N).apply(new_N)
    assert np.all(np.diff(score_N) > 0)
    if method != "none":
        assert score_N[0] > 0.0
        assert score_N[-1] < 1.0
    assert fit_calibration(method, raw_N, y_N).apply(0.3).shape == ()


@pytest.mark.parametrize("method", ["sigmoid", "isotonic", "beta"])
def test_perfect_and_extreme_scores_stay_finite(method):
    raw_N, y_N = np.array([0.0, 0.0, 0.0, 1.0, 1.0, 1.0]), np.array([0, 0, 0, 1, 1, 1])
    score_N = fit_calibration(method, raw_N, y_N).apply([0.0, 1.0])
    assert 0.0 < score_N[0] < 0.5 < score_N[1] < 1.0


@pytest.mark.parametrize(
    "make",
    [
        lambda: Sigmoid(np.nan, 0.0),
        lambda: Beta(0.0, 0.0, 1.0),
        lambda: Beta(-0.1, 1.0, 0.0),
        lambda: Isotonic(np.array([0.2, 0.1]), np.array([0.1, 0.2])),
        lambda: Isotonic(np.array([0.1, 0.2]), np.array([0.2, 0.1])),
        lambda: Isotonic(np.array([0.1, 0.2]), np.array([0.2, 1.1])),
        lambda: Isotonic(np.array([]), np.array([])),
    ],
)
def test_maps_that_cannot_be_are_refused(make):
    with pytest.raises(ValueError, match=r"finite|no increasing map|not in order|outside 0 to 1"):
        make()


def _cohort(n, seed, *, distort):
    """Out-of-fold scores of two repeats, labels, folds; the truth is what ``distort`` bends."""
    rng = np.random.default_rng(seed)
    log_odds_N = rng.normal(-1.2, 1.2, n)
    y_N = (rng.random(n) < expit(log_odds_N)).astype(int)
    raw_RN = expit(distort(log_odds_N + rng.normal(0.0, 0.1, (2, n))))
    return (
        raw_RN,
        y_N,
        make_folds(y_N, np.arange(n), n_splits=3, n_repeats=2, seed=1),
    )


@pytest.mark.parametrize("method", ["sigmoid", "isotonic", "beta"])
def test_a_calibration_that_helps_is_in_force(method):
    raw_RN, y_N, folds = _cohort(800, 0, distort=lambda x: 2.0 * x + 1.5)
    found, decision = calibrate(method, raw_RN, y_N, folds)
    assert (decision.kept, decision.why) == (True, "improves Brier and ICI")
    assert type(found) is type(fit_calibration(method, raw_RN, y_N))
    np.testing.assert_array_equal(found.apply(raw_RN), fit_calibration(method, raw_RN, y_N).apply(raw_RN))
    assert decision.brier_calibrated < decision.brier - 0.02
    assert decision.ici_calibrated < decision.ici / 2
    assert decision.brier == pytest.approx(np.mean([brier_score_loss(y_N, raw_N) for raw_N in raw_RN]))
    assert decision.ici == pytest.approx(np.mean([calibration_errors(y_N, raw_N).ici for raw_N in raw_RN]))


def test_a_calibration_that_does_not_help_is_not_in_force():
    raw_RN, y_N, folds = _cohort(90, 0, distort=lambda x: x)
    found, decision = calibrate("isotonic", raw_RN, y_N, folds)
    assert isinstance(found, Unchanged)
    assert not decision.kept
    assert decision.why == "does not improve Brier nor ICI"
    assert decision.brier_calibrated > decision.brier
    assert decision.ici_calibrated > decision.ici


def test_one_of_two_figures_is_not_enough():
    raw_RN, y_N, folds = _cohort(90, 2, distort=lambda x: x)
    found, decision = calibrate("isotonic", raw_RN, y_N, folds)
    assert isinstance(found, Unchanged)
    assert decision.why == "does not improve Brier"
    assert decision.brier_calibrated > decision.brier
    assert decision.ici_calibrated < decision.ici


def test_none_is_recorded_with_its_figures():
    raw_RN, y_N, folds = _cohort(200, 1, distort=lambda x: 2.0 * x)
    found, decision = calibrate("none", raw_RN, y_N, folds)
    assert isinstance(found, Unchanged)
    assert (decision.kept, decision.why) == (False, "stage2.calibration: none")
    assert decision.brier > 0.0
    assert decision.brier_calibrated is decision.ici_calibrated is None


def test_no_patient_calibrates_its_own_score():
    raw_RN, y_N, _ = _cohort(120, 8, distort=lambda x: x)
    groups_N = np.arange(120) // 2
    folds = make_folds(y_N, groups_N, n_splits=3, n_repeats=2, seed=1)
    mapped_RN = np.full_like(raw_RN, np.nan)
    for fold in folds:
        others_N = ~np.isin(groups_N, groups_N[fold.test])
        map_of_others = fit_isotonic(raw_RN[:, others_N], y_N[others_N])
        mapped_RN[fold.repeat, fold.test] = map_of_others.apply(raw_RN[fold.repeat, fold.test])
    decision = calibrate("isotonic", raw_RN, y_N, folds)[1]
    assert decision.brier_calibrated == np.mean([brier_score_loss(y_N, score_N) for score_N in mapped_RN])
    own_RN = fit_isotonic(raw_RN, y_N).apply(raw_RN)
    own = np.mean([brier_score_loss(y_N, score_N) for score_N in own_RN])
    assert own < decision.brier < decision.brier_calibrated  # its own label would have made it look better


def test_a_fold_without_order_keeps_calibration_out_of_force():
    raw_N = np.r_[np.linspace(0.3, 0.6, 30), 0.05, 0.95]
    y_N = np.r_[np.tile([1, 0, 0], 5), np.tile([0, 0, 1], 5)[::-1], 0, 1]
    folds = make_folds(y_N, np.arange(32), n_splits=3, n_repeats=1, seed=0)
    found, decision = calibrate("sigmoid", raw_N[None], y_N, folds)
    assert roc_auc_score(y_N, raw_N) > 0.5
    assert isinstance(found, Unchanged)
    assert decision.why == "without the patients of one fold the scores rank no better than chance"

import dataclasses

import numpy as np
import pytest
from scipy.stats import norm

from sarc_ray.errors import EvaluationError
from sarc_ray.stage2.calibration import Beta, Isotonic, Sigmoid, Unchanged, calibrate
from sarc_ray.stage2.cross_validation import make_folds
from sarc_ray.stage2.local import recalibrated_model
from sarc_ray.stage2.model import Stage2Model
from sarc_ray.stage2.persist import content_hash, from_bytes, to_bytes
from sarc_ray.stage2.prevalence import present_prevalence, rebase, rebased_model
from tests.stage2.cohort import CONFIG, fitted_model
from tests.stage2.test_local import decision_with


@pytest.fixture(scope="module")
def fitted():
    return fitted_model("logistic_regression", n=600)


@pytest.fixture
def model(fitted) -> Stage2Model:
    return fitted[0]


def test_rebasing_is_bayes_rule():
    """Scores normal in each class: the posterior at one prevalence re-based is the posterior at the other."""
    x_N = np.linspace(-3.0, 4.0, 50)

    def posterior(prevalence):
        with_N, without_N = prevalence * norm.pdf(x_N, 1.0), (1 - prevalence) * norm.pdf(x_N, 0.0)
        return with_N / (with_N + without_N)

    np.testing.assert_allclose(rebase(posterior(0.15), present=0.15, wanted=0.04), posterior(0.04), rtol=1e-12)
    np.testing.assert_array_equal(rebase([0.0, 1.0], present=0.3, wanted=0.1), [0.0, 1.0])


def test_rebased_scores_are_calibrated_where_only_the_prevalence_differs():
    rng = np.random.default_rng(1)
    y_N = rng.random(400_000) < 0.05
    x_N = rng.normal(y_N * 1.0, 1.0)
    odds_N = 0.2 / 0.8 * np.exp(x_N - 0.5)
    score_N = rebase(odds_N / (1 + odds_N), present=0.2, wanted=0.05)
    assert abs(score_N.mean() - 0.05) < 0.001
    high_N = score_N > 0.2
    assert abs(y_N[high_N].mean() - score_N[high_N].mean()) < 0.005


@pytest.mark.parametrize(("present", "wanted"), [(0.0, 0.1), (0.1, 1.0), (0.1, np.nan), (1.5, 0.1)])
def test_a_prevalence_lies_between_0_and_1(present, wanted):
    with pytest.raises(ValueError, match=r"prevalence \((present|wanted)\): found"):
        rebase([0.5], present=present, wanted=wanted)


def test_the_training_prevalence_is_read_off_the_operating_points(fitted):
    model, _, y_N = fitted
    assert present_prevalence(model.thresholds) == pytest.approx(y_N.mean(), abs=1e-12)
    nobody = [dataclasses.replace(point, ppv=None, sensitivity=0.0) for point in model.thresholds]
    with pytest.raises(EvaluationError, match="no threshold of this model flags"):
        present_prevalence(nobody)


@pytest.mark.parametrize(
    "calibration",
    [Sigmoid(1.3, -0.2), Beta(0.8, 1.4, 0.1), Isotonic(np.array([0.05, 0.3, 0.7]), np.array([0.1, 0.2, 0.8])), None],
)
def test_a_rebased_model_flags_the_same_patients(fitted, calibration):
    model, X, y_N = fitted
    if calibration is not None:
        points = [dataclasses.replace(p, threshold=float(calibration.apply(p.raw_threshold))) for p in model.thresholds]
        model = dataclasses.replace(model, calibration=calibration, thresholds=tuple(points))
    moved = rebased_model(model, wanted=0.03)
    (raw_N, score_N), (raw_after_N, score_after_N) = model.predict(X), moved.predict(X)
    np.testing.assert_array_equal(raw_after_N, raw_N)
    np.testing.assert_array_equal(moved.flag(score_after_N), model.flag(score_N))
    assert 0 < moved.flag(score_after_N).sum() < len(X)
    # Isotonic scores, and raw ones, are drawn in a little before their log-odds are taken.
    expected_N = rebase(score_N, present=float(y_N.mean()), wanted=0.03)
    np.testing.assert_allclose(
        score_after_N, expected_N, atol=1e-9 if isinstance(calibration, Sigmoid | Beta) else 2e-3
    )
    for before, after in zip(model.thresholds, moved.thresholds, strict=True):
        assert (after.raw_threshold, after.sensitivity, after.specificity) == (
            *(before.raw_threshold, before.sensitivity, before.specificity),
        )
    assert moved.point.ppv < model.point.ppv
    assert present_prevalence(moved.thresholds) == pytest.approx(0.03)
    assert content_hash(from_bytes(to_bytes(moved))) == content_hash(moved) != content_hash(model)


def test_rebasing_goes_there_and_back(fitted):
    model, X, y_N = fitted
    model = dataclasses.replace(model, calibration=Sigmoid(1.3, -0.2))
    there = rebased_model(model, wanted=0.3)
    back = rebased_model(there, wanted=float(y_N.mean()))
    np.testing.assert_allclose(back.predict(X)[1], model.predict(X)[1], atol=1e-12)
    assert back.point.ppv == pytest.approx(model.point.ppv)
    assert there.decision.method == back.decision.method == "prevalence"
    assert there.decision.why.endswith(f"re-based from a prevalence of {y_N.mean():.4f} to 0.3000")
    assert back.decision.why.endswith(f"re-based from a prevalence of 0.3000 to {y_N.mean():.4f}")


def test_the_configuration_rebases_the_final_model(fitted):
    model, X, _ = fitted
    config = dataclasses.replace(CONFIG, prevalence=0.03)
    asked, _, _ = fitted_model("logistic_regression", n=600, config=config)
    expected = rebased_model(model, wanted=0.03)
    np.testing.assert_allclose(asked.predict(X)[1], expected.predict(X)[1], rtol=1e-12)
    assert asked.decision == expected.decision
    # Rules that count patients count those of the wanted prevalence.
    counting = {"f1", "alerts_per_10000", "cost_ratio"}
    for own, other in zip(asked.thresholds, expected.thresholds, strict=True):
        assert (own.raw_threshold == other.raw_threshold) or own.rule in counting
        same = rebased_model(dataclasses.replace(model, thresholds=(own,), in_force=own.rule), wanted=0.03, present=0.1)
        assert (own.ppv, own.alerts_per_10000) == pytest.approx((same.point.ppv, same.point.alerts_per_10000))
    (alerts,) = [point for point in asked.thresholds if point.rule == "alerts_per_10000"]
    assert 0.8 * alerts.aim < alerts.alerts_per_10000 <= alerts.aim
    with pytest.raises(ValueError, match=r"prevalence: found 1\.0"):
        dataclasses.replace(CONFIG, prevalence=1.0)
    with pytest.raises(ValueError, match="with calibration none"):
        dataclasses.replace(CONFIG, prevalence=0.1, calibration="none")


def test_scores_of_no_prevalence_are_not_rebased(fitted):
    model, X, y_N = fitted
    folds = make_folds(y_N, np.arange(len(y_N)), n_splits=3, n_repeats=1, seed=1)
    raw_1N = model.predict(X)[0][None]
    calibration, decision = calibrate("none", raw_1N, y_N, folds)
    plain = dataclasses.replace(model, calibration=calibration, decision=decision)
    assert plain.calibration == Unchanged()
    with pytest.raises(EvaluationError, match=r"stage2\.calibration: none"):
        rebased_model(plain, wanted=0.1)


def test_a_locally_recalibrated_model_is_rebased_from_the_local_prevalence(fitted):
    model, X, _ = fitted
    local = recalibrated_model(model, decision_with("intercept", slope=1.0, intercept=-0.8))
    with pytest.raises(EvaluationError, match="recalibrated on a local sample"):
        rebased_model(local, wanted=0.1)
    moved = rebased_model(local, wanted=0.1, present=0.05)
    np.testing.assert_allclose(moved.predict(X)[1], rebase(local.predict(X)[1], present=0.05, wanted=0.1), atol=1e-12)

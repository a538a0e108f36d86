from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize
import scipy.special
import scipy.stats
import sklearn.metrics

from sarc_ray.stats import calibration


def scored(seed: int, n: int, *, shift: float = 0.0, slope: float = 1.0):
    """Labels drawn at logit = shift + slope x logit(probability)."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(-1.5, 1, n)
    label = (rng.random(n) < scipy.special.expit(shift + slope * logit)).astype(int)
    return label, scipy.special.expit(logit)


def naive_lowess(x, y, span):
    """Cleveland's definition for one row after another, without anchors."""
    n_near, fitted = max(2, int(span * len(x) + 1e-7)), []
    for x0 in x:
        reach = np.sort(np.abs(x - x0))[n_near - 1]
        weight = np.clip(1 - (np.abs(x - x0) / reach) ** 3, 0, None) ** 3
        design = np.column_stack([np.ones_like(x), x - x0])
        fitted.append(np.linalg.solve(design.T @ (design * weight[:, None]), design.T @ (weight * y))[0])
    return np.array(fitted)


def test_tiny_check_of_calibration_errors():
    errors = calibration.calibration_errors([0, 0, 0, 1, 1], [0.1, 0.2, 0.3, 0.4, 0.5])
    assert errors.ici == pytest.approx(0.34)
    assert errors.e90 == pytest.approx(0.56)
    assert errors.emax == pytest.approx(0.6)
    assert errors.e50 == pytest.approx(0.3)


def test_lowess_equals_its_definition():
    rng = np.random.default_rng(1)
    x = np.sort(rng.random(80))
    y = np.sin(4 * x) + rng.normal(0, 0.2, 80)
    np.testing.assert_allclose(calibration.lowess(x, y, span=2 / 3, delta=0.0), naive_lowess(x, y, 2 / 3), atol=2e-3)


def test_lowess_shares_anchors_within_delta():
    rng = np.random.default_rng(2)
    x = np.sort(np.round(rng.random(3000), 3))
    y = (rng.random(3000) < x**2).astype(float)
    exact = calibration.lowess(x, y, span=2 / 3, delta=0.0)
    shared = calibration.lowess(x, y, span=2 / 3, delta=0.01)
    np.testing.assert_allclose(shared, exact, atol=1e-3)
    # Tied rows have one fitted value.
    assert np.unique(np.column_stack([x, shared]), axis=0).shape[0] == np.unique(x).size


def test_lowess_of_one_value_is_the_mean():
    assert calibration.lowess([2.0, 2.0, 2.0], [0, 1, 1], span=1.0, delta=0.0) == pytest.approx([2 / 3] * 3)
    assert calibration.lowess([2.0], [1.0], span=2 / 3, delta=0.0).tolist() == [1.0]


@pytest.mark.parametrize(
    ("x", "span", "delta", "message"),
    [
        ([2, 1], 0.5, 0, "values fall"),
        ([1, 2], 0, 0, "0 < span"),
        ([1, 2], 1, -1, "delta >= 0"),
        ([1, 2], 1, np.nan, "delta >= 0"),
    ],
)
def test_lowess_refuses(x, span, delta, message):
    with pytest.raises(ValueError, match=message):
        calibration.lowess(x, [0, 1], span=span, delta=delta)


@pytest.mark.parametrize("seed", range(2))
def test_citl_and_slope_maximise_the_likelihood(seed):
    label, probability = scored(seed, 400, shift=0.5, slope=0.7)
    logit = scipy.special.logit(probability)

    def loss(beta, slope=None):
        eta = beta[0] + (beta[1] if slope is None else slope) * logit
        return np.sum(np.logaddexp(0, eta) - label * eta)

    free = scipy.optimize.minimize(loss, [0, 1], tol=1e-10)
    fixed = scipy.optimize.minimize(loss, [0], args=(1.0,), tol=1e-10)
    slope = calibration.cal_slope(label, probability, confidence_level=0.95)
    citl = calibration.citl(label, probability, confidence_level=0.95)
    assert slope.estimate == pytest.approx(free.x[1], abs=1e-4)
    assert citl.estimate == pytest.approx(fixed.x[0], abs=1e-4)
    fitted = scipy.special.expit(free.x[0] + free.x[1] * logit)
    design = np.column_stack([np.ones_like(logit), logit])
    covariance = np.linalg.inv(design.T @ (design * (fitted * (1 - fitted))[:, None]))
    assert slope.ci_high - slope.estimate == pytest.approx(1.959963985 * np.sqrt(covariance[1, 1]), rel=1e-3)


def test_intervals_of_an_honest_score_cover_the_truth():
    hits = np.zeros(2)
    for seed in range(300):
        label, probability = scored(1000 + seed, 300)
        citl = calibration.citl(label, probability, confidence_level=0.9)
        slope = calibration.cal_slope(label, probability, confidence_level=0.9)
        hits += [citl.ci_low <= 0 <= citl.ci_high, slope.ci_low <= 1 <= slope.ci_high]
    # Three standard errors of 300 trials: 0.052.
    assert np.abs(hits / 300 - 0.9).max() < 0.052


def test_known_miscalibration_is_found():
    label, probability = scored(5, 40_000, shift=0.4, slope=0.5)
    assert calibration.cal_slope(label, probability, confidence_level=0.95).estimate == pytest.approx(0.5, abs=0.05)
    honest = calibration.calibration_errors(*scored(6, 40_000))
    wrong = calibration.calibration_errors(label, probability)
    assert honest.ici < 0.01 < 0.1 < wrong.ici
    assert calibration.spiegelhalter(label, probability).p_value < 1e-6


def test_slope_far_from_one_is_reached():
    label, probability = scored(7, 3000, shift=0, slope=1.0)
    squeezed = scipy.special.expit(0.01 * scipy.special.logit(probability))
    slope = calibration.cal_slope(label, squeezed, confidence_level=0.95).estimate
    expected = 100 * calibration.cal_slope(label, probability, confidence_level=0.95).estimate
    assert slope == pytest.approx(expected, rel=1e-6)


def test_undefined_calibration_is_nan():
    for label, probability in (([0, 0, 0], [0.1, 0.2, 0.3]), ([0, 0, 1, 1], [0.1, 0.2, 0.3, 0.4])):
        assert np.isnan(calibration.cal_slope(label, probability, confidence_level=0.95).estimate)
    assert np.isnan(calibration.cal_slope([0, 1, 1], [0.2, 0.2, 0.2], confidence_level=0.95).estimate)
    assert np.isnan(calibration.citl([1, 1], [0.2, 0.3], confidence_level=0.95).estimate)
    assert np.isnan(calibration.scaled_brier([1, 1], [0.2, 0.3]))
    assert np.isnan(calibration.calibration_errors([0, 1], [0.2, 0.3]).ici)


def test_certain_probabilities_have_no_logit():
    with pytest.raises(ValueError, match="2 of 3 values are exactly 0 or 1"):
        calibration.citl([0, 1, 1], [0.0, 0.5, 1.0], confidence_level=0.95)
    assert calibration.brier([0, 1], [0.0, 1.0]) == 0


def test_brier_equals_scikit_learn():
    label, probability = scored(3, 200)
    assert calibration.brier(label, probability) == pytest.approx(sklearn.metrics.brier_score_loss(label, probability))
    share = label.mean()
    reference = sklearn.metrics.brier_score_loss(label, np.full(200, share))
    assert calibration.scaled_brier(label, probability) == pytest.approx(
        1 - calibration.brier(label, probability) / reference
    )


@pytest.mark.parametrize("test", ["spiegelhalter", "hosmer_lemeshow"])
def test_p_values_of_an_honest_score_are_uniform(test):
    def p_value(label, probability):
        if test == "spiegelhalter":
            return calibration.spiegelhalter(label, probability).p_value
        return calibration.hosmer_lemeshow(label, probability, n_bins=10, external=True).p_value

    p_values = [p_value(*scored(2000 + seed, 1000)) for seed in range(300)]
    assert scipy.stats.kstest(p_values, "uniform").pvalue > 0.01


def test_hosmer_lemeshow_degrees_of_freedom():
    label, probability = scored(3, 500)
    assert calibration.hosmer_lemeshow(label, probability, n_bins=10, external=True).df == 10
    assert calibration.hosmer_lemeshow(label, probability, n_bins=10, external=False).df == 8
    assert np.isnan(calibration.hosmer_lemeshow(label, np.full(500, 0.2), n_bins=10, external=False).p_value)


def test_reliability_table_keeps_ties_together_and_loses_nobody():
    label, probability = scored(3, 500)
    coarse = np.round(probability, 1)
    bins = calibration.reliability_table(label, coarse, n_bins=10, confidence_level=0.95)
    assert sum(b.n for b in bins) == 500
    assert sum(b.n_events for b in bins) == label.sum()
    assert len(bins) <= np.unique(coarse).size
    assert all(b.observed.ci_low <= b.n_events / b.n <= b.observed.ci_high for b in bins)
    fine = calibration.reliability_table(label, probability, n_bins=10, confidence_level=0.95)
    assert [b.n for b in fine] == [50] * 10
    with pytest.raises(ValueError, match="n_bins: found 0"):
        calibration.reliability_table(label, probability, n_bins=0, confidence_level=0.95)


@pytest.mark.parametrize("width", [1e-2, 1e-4, 1e-6])
def test_slope_of_a_narrow_range_is_that_of_two_shares(width):
    low, high = 0.3, 0.3 + width
    found = calibration.cal_slope([1, 1, 0, 0, 0, 0, 1], [high] * 3 + [low] * 4, confidence_level=0.95)
    slope = (scipy.special.logit(2 / 3) - scipy.special.logit(1 / 4)) / np.diff(scipy.special.logit([low, high]))[0]
    assert found.estimate == pytest.approx(slope, rel=1e-6)
    assert found.ci_low < 0 < slope < found.ci_high


def test_slope_of_a_constant_but_for_rounding_is_none():
    assert np.isnan(calibration.cal_slope([0, 1, 1], [0.3, np.nextafter(0.3, 1), 0.3], confidence_level=0.95).estimate)
    with pytest.raises(ValueError, match="confidence_level"):
        calibration.cal_slope([0, 1], [0.3, 0.3], confidence_level=95)

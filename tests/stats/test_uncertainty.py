from __future__ import annotations

import numpy as np
import pytest
import scipy.integrate
import scipy.stats

from sarc_ray.stats import uncertainty

MEASURED, MU, SIGMA = [1.5, 3, 2], [1, 2, 3], [0.1, 0.5, 1]


def test_worked_example():
    assert uncertainty.sharpness(SIGMA) == pytest.approx(0.64807407, abs=5e-9)
    assert uncertainty.gaussian_nll(MEASURED, MU, SIGMA).mean() == pytest.approx(4.92036111, abs=5e-9)
    assert uncertainty.gaussian_crps(MEASURED, MU, SIGMA).mean() == pytest.approx(0.59080611, abs=5e-9)


def test_mixture_example():
    moments = uncertainty.mixture_moments([15, 16, 14.5, 15.5, 17], [2, 1.8, 2.5, 2.2, 2])
    assert float(moments.mean) == pytest.approx(15.6)
    assert float(moments.variance) == pytest.approx(5.206)
    assert float(moments.var_aleatoric) == pytest.approx(4.466)
    assert float(moments.var_epistemic) == pytest.approx(0.740)


def test_mixture_works_on_columns():
    rng = np.random.default_rng(0)
    mu_MN, sigma_MN = rng.normal(size=(5, 7)), rng.uniform(0.5, 2, size=(5, 7))
    moments = uncertainty.mixture_moments(mu_MN, sigma_MN)
    expected = (sigma_MN**2 + mu_MN**2).mean(axis=0) - mu_MN.mean(axis=0) ** 2
    np.testing.assert_allclose(moments.variance, expected)


def test_nll_equals_the_density():
    expected = -scipy.stats.norm.logpdf(MEASURED, MU, SIGMA)
    np.testing.assert_allclose(uncertainty.gaussian_nll(MEASURED, MU, SIGMA), expected)


def test_crps_equals_its_integral():
    measured, mu, sigma = 1.3, 0.4, 0.8
    below, _ = scipy.integrate.quad(lambda x: scipy.stats.norm.cdf(x, mu, sigma) ** 2, -10, measured)
    above, _ = scipy.integrate.quad(lambda x: scipy.stats.norm.sf(x, mu, sigma) ** 2, measured, 10)
    assert uncertainty.gaussian_crps([measured], [mu], [sigma])[0] == pytest.approx(below + above, rel=1e-6)


def test_honest_predictions_are_covered_at_every_level():
    rng = np.random.default_rng(2)
    sigma = rng.uniform(0.5, 3, 20_000)
    measured = rng.normal(0, sigma)
    for level in (0.5, 0.9, 0.95):
        share = uncertainty.inside_interval(measured, np.zeros_like(sigma), sigma, level=level).mean()
        # Four standard errors.
        assert abs(share - level) < 4 * np.sqrt(level * (1 - level) / 20_000)


def test_calibration_error_equals_its_definition():
    rng = np.random.default_rng(3)
    measured, mu, sigma = rng.normal(size=300), rng.normal(size=300), rng.uniform(0.5, 2, 300)
    levels = np.arange(0.05, 0.96, 0.05)
    coverage = [uncertainty.inside_interval(measured, mu, sigma, level=level).mean() for level in levels]
    expected = np.abs(np.array(coverage) - levels).mean()
    assert uncertainty.interval_calibration_error(measured, mu, sigma) == pytest.approx(expected)


def test_calibration_error_is_small_for_honest_predictions_and_grows_with_overconfidence():
    rng = np.random.default_rng(4)
    by_chance = [
        uncertainty.interval_calibration_error(rng.normal(0, 2, 400), np.zeros(400), np.full(400, 2.0))
        for _ in range(200)
    ]
    assert np.mean(by_chance) == pytest.approx(0.3 / np.sqrt(400), rel=0.15)
    measured = rng.normal(0, 2, 4000)
    errors = [
        uncertainty.interval_calibration_error(measured, np.zeros(4000), np.full(4000, s)) for s in (2.0, 1.5, 1.0)
    ]
    assert errors[0] < 0.02 < errors[1] < errors[2]


def test_risk_coverage_by_hand():
    curve = uncertainty.risk_coverage([4.0, 1.0, 2.0, 5.0], [0.4, 0.1, 0.3, 0.2])
    np.testing.assert_allclose(curve.risk_N, [1.0, 3.0, 8 / 3, 3.0])
    np.testing.assert_allclose(curve.coverage_N, [0.25, 0.5, 0.75, 1.0])
    best = np.mean([1.0, 1.5, 7 / 3, 3.0])
    assert curve.area_best == pytest.approx(best)
    assert curve.gain == pytest.approx((3.0 - curve.area) / (3.0 - best))


def test_risk_coverage_of_no_information_and_of_ties():
    rng = np.random.default_rng(5)
    error = rng.exponential(size=50)
    constant = uncertainty.risk_coverage(error, np.ones(50))
    np.testing.assert_allclose(constant.risk_N, error.mean())
    assert constant.gain == pytest.approx(0.0)
    # A tie counts as the mean over the orders in which it could be broken.
    tied, broken = [], np.array([1.0, 2.0, 2.0, 2.0, 3.0])
    for order in ([0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]):
        sigma = broken.copy()
        sigma[1:4] += 0.1 * np.array(order)
        tied.append(uncertainty.risk_coverage(error[:5], sigma).area)
    assert uncertainty.risk_coverage(error[:5], broken).area == pytest.approx(np.mean(tied))
    assert np.isnan(uncertainty.risk_coverage([2.0, 2.0], [1.0, 3.0]).gain)


def test_honest_uncertainty_gains_and_a_reversed_one_loses():
    rng = np.random.default_rng(6)
    sigma = rng.uniform(0.2, 3, 5000)
    error = np.abs(rng.normal(0, sigma))
    assert uncertainty.risk_coverage(error, sigma).gain > 0.3
    assert uncertainty.risk_coverage(error, -sigma).gain < -0.3


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="sigma: found 0"):
        uncertainty.gaussian_nll([1], [1], [0])
    with pytest.raises(ValueError, match="mu: 1 of 1 values are NaN"):
        uncertainty.gaussian_crps([1], [np.nan], [1])
    with pytest.raises(ValueError, match="level: found 90"):
        uncertainty.inside_interval([1], [1], [1], level=90)
    with pytest.raises(ValueError, match="share a shape"):
        uncertainty.mixture_moments([1, 2], [1])
    with pytest.raises(ValueError, match="one length"):
        uncertainty.risk_coverage([1.0, 2.0], [1.0])


def test_errors_that_differ_by_rounding_alone_gain_nothing():
    curve = uncertainty.risk_coverage([0.1, np.nextafter(0.1, 1), 0.1], [1, 2, 3])
    assert np.isnan(curve.gain)
    assert curve.area == pytest.approx(0.1)

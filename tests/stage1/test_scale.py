from __future__ import annotations

import numpy as np
import pytest

from sarc_ray.stage1.scale import TargetScale, fit_scale


def test_standardised_training_targets_have_mean_0_and_sd_1():
    for transform in ("identity", "log"):
        y_N = np.random.default_rng(0).lognormal(2.0, 0.3, 50)
        z_N = fit_scale(y_N, transform).standardise(y_N)
        np.testing.assert_allclose([z_N.mean(), z_N.std()], [0.0, 1.0], atol=1e-12)


def test_identity_restores_value_and_spread():
    scale = fit_scale([10.0, 20.0, 30.0], "identity")
    mu, sigma = scale.restore(scale.standardise([12.5]), [0.5])
    np.testing.assert_allclose([mu[0], sigma[0]], [12.5, 0.5 * np.std([10, 20, 30])])


def test_log_restores_lognormal_moments():
    scale = fit_scale(np.random.default_rng(0).lognormal(2.2, 0.3, 200), "log")
    mu, sigma = scale.restore([0.4], [0.8])
    draws = np.exp(scale.mean + scale.sd * np.random.default_rng(1).normal(0.4, 0.8, 2_000_000))
    np.testing.assert_allclose([mu[0], sigma[0]], [draws.mean(), draws.std()], rtol=2e-3)


@pytest.mark.parametrize(
    ("y_N", "transform", "message"),
    [
        ([1.0, np.nan], "identity", "1 of 2 values are missing"),
        ([1.0, 0.0], "log", "smallest value 0.*identity"),
        ([3.0, 3.0], "identity", "without spread"),
        ([], "identity", "without spread"),
    ],
)
def test_refuses_targets_that_cannot_be_learned(y_N, transform, message):
    with pytest.raises(ValueError, match=message):
        fit_scale(y_N, transform)


def test_a_wild_prediction_of_a_logarithm_stays_finite():
    scale = TargetScale(transform="log", mean=2.3, sd=0.3)
    mean, sd = scale.restore([0.0, 1e6, -1e6], [1e6, 1.0, 1.0])
    assert np.isfinite(mean).all()
    assert np.isfinite(sd).all()
    assert sd[0] > 100 * scale.restore(0.0, 1.0)[1]

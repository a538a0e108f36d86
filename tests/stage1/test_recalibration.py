from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize

from sarc_ray.stage1.recalibration import fit_sigma_scale, not_wanted, recalibrate
from sarc_ray.stats.uncertainty import gaussian_nll, interval_calibration_error


def draw(n, *, true_over_said, seed=0):
    """Honest predictions whose sigma is then said too small (above 1) or too large (below 1)."""
    rng = np.random.default_rng(seed)
    sigma_N = rng.uniform(0.5, 3.0, n)
    mu_N = rng.normal(20, 4, n)
    return mu_N + true_over_said * sigma_N * rng.normal(size=n), mu_N, sigma_N


def test_the_factor_is_the_one_of_least_nll():
    measured_N, mu_N, sigma_N = draw(200, true_over_said=1.4)
    best = optimize.minimize_scalar(lambda s: gaussian_nll(measured_N, mu_N, s * sigma_N).mean(), bounds=(0.2, 5))
    assert fit_sigma_scale(measured_N, mu_N, sigma_N) == pytest.approx(best.x, rel=1e-4)


@pytest.mark.parametrize("true_over_said", [0.7, 1.4])
def test_a_wrong_sigma_is_mended_on_other_patients(true_over_said):
    tune = draw(300, true_over_said=true_over_said)
    found = recalibrate(*tune, patient_N=np.arange(300), seed=1)
    assert found.kept
    assert found.scale == found.fitted_scale == pytest.approx(true_over_said, rel=0.12)
    assert found.nll_recalibrated < found.nll
    assert found.calibration_error_recalibrated < found.calibration_error
    measured_N, mu_N, sigma_N = draw(3000, true_over_said=true_over_said, seed=5)
    before, after = (interval_calibration_error(measured_N, mu_N, s * sigma_N) for s in (1.0, found.scale))
    assert after < 0.5 * before


def test_an_honest_sigma_is_seldom_touched_and_then_hardly():
    found = [recalibrate(*draw(200, true_over_said=1.0, seed=s), patient_N=np.arange(200), seed=s) for s in range(60)]
    # In sample the factor improves the NLL always.
    assert np.mean([one.kept for one in found]) < 0.35
    assert max(abs(one.scale - 1.0) for one in found) < 0.2
    assert all(one.scale == 1.0 and "does not improve" in one.why for one in found if not one.kept)


def test_both_have_to_improve():
    """Rare outliers widen sigma for the NLL's sake, and the intervals of all others get too wide."""
    measured_N, mu_N, sigma_N = draw(400, true_over_said=1.0, seed=3)
    measured_N[::40] += 8 * sigma_N[::40]
    found = recalibrate(measured_N, mu_N, sigma_N, patient_N=np.arange(400), seed=0)
    assert found.nll_recalibrated < found.nll
    assert found.calibration_error_recalibrated > found.calibration_error
    assert (found.kept, found.scale, found.why) == (False, 1.0, "does not improve interval calibration")
    assert found.fitted_scale > 1.2


def test_a_patient_is_not_judged_by_his_own_errors():
    """Every image 20 times under one patient judges as once; under 20 patients the judge would be in sample."""
    measured_N, mu_N, sigma_N = (np.repeat(values, 20) for values in draw(50, true_over_said=1.0, seed=2))
    once = recalibrate(*draw(50, true_over_said=1.0, seed=2), patient_N=np.arange(50), seed=7)
    honest = recalibrate(measured_N, mu_N, sigma_N, patient_N=np.repeat(np.arange(50), 20), seed=7)
    leaky = recalibrate(measured_N, mu_N, sigma_N, patient_N=np.arange(1000), seed=7)
    assert honest.nll_recalibrated == pytest.approx(once.nll_recalibrated)
    assert leaky.nll_recalibrated < honest.nll_recalibrated
    assert (honest.images, honest.patients) == (1000, 50)


def test_rows_without_a_measurement_and_small_splits():
    measured_N, mu_N, sigma_N = draw(80, true_over_said=2.0)
    measured_N[:20] = np.nan
    found = recalibrate(measured_N, mu_N, sigma_N, patient_N=np.arange(80), seed=0)
    assert found.images == 60
    assert found.fitted_scale == fit_sigma_scale(measured_N[20:], mu_N[20:], sigma_N[20:])
    few = recalibrate(measured_N[:69], mu_N[:69], sigma_N[:69], patient_N=np.arange(69), seed=0)
    assert (few.scale, few.kept, few.nll) == (1.0, False, None)
    assert few.why == "49 tuning patients, 50 are needed"
    assert not_wanted().scale == 1.0


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="sigma: found 0"):
        fit_sigma_scale([1.0], [0.0], [0.0])
    with pytest.raises(ValueError, match="equal to mu in every row"):
        fit_sigma_scale([1.0], [1.0], [1.0])

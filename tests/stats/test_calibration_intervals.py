from __future__ import annotations

import numpy as np
import scipy.special

from sarc_ray.stats.calibration import calibration_errors
from sarc_ray.stats.calibration_intervals import calibration_error_intervals

SETTINGS = {"n_boot": 100, "confidence_level": 0.9, "seed": 3}


def scored(seed, n, *, slope):
    rng = np.random.default_rng(seed)
    logit = rng.normal(-1, 1.2, n)
    label = (rng.random(n) < scipy.special.expit(slope * logit)).astype(int)
    return label, scipy.special.expit(logit)


def test_interval_of_a_large_error_holds_the_truth_and_that_of_an_honest_score_stays_small():
    # Without sampling error the mean distance is E|expit(0.4 x) - expit(x)|.
    logit = np.random.default_rng(0).normal(-1, 1.2, 100_000)
    truth = np.abs(scipy.special.expit(0.4 * logit) - scipy.special.expit(logit)).mean()
    wrong = calibration_error_intervals(*scored(1, 600, slope=0.4), **SETTINGS)["ici"]
    honest = calibration_error_intervals(*scored(2, 600, slope=1.0), **SETTINGS)["ici"]
    assert wrong.ci_low < truth < wrong.ci_high
    assert honest.ci_high < wrong.ci_low


def test_estimates_are_those_of_the_rows_and_errors_keep_their_order():
    label, probability = scored(4, 150, slope=0.7)
    errors = calibration_errors(label, probability)
    found = calibration_error_intervals(label, probability, **SETTINGS)
    assert {name: interval.estimate for name, interval in found.items()} == {
        "ici": errors.ici,
        "e50": errors.e50,
        "e90": errors.e90,
        "emax": errors.emax,
    }
    assert found["e50"].ci_low <= found["e90"].ci_low <= found["emax"].ci_low
    assert found["e50"].ci_high <= found["e90"].ci_high <= found["emax"].ci_high


def test_patients_are_drawn_whole():
    label, probability = scored(5, 80, slope=0.7)
    alone = calibration_error_intervals(label, probability, **SETTINGS)["ici"]
    twice = [np.repeat(x, 2) for x in (label, probability)]
    copies = calibration_error_intervals(*twice, **SETTINGS, patient=np.repeat(np.arange(80), 2))["ici"]
    ignored = calibration_error_intervals(*twice, **SETTINGS)["ici"]
    width = alone.ci_high - alone.ci_low
    assert abs((copies.ci_high - copies.ci_low) / width - 1) < 0.1
    assert ignored.ci_high - ignored.ci_low < 0.9 * width


def test_fewer_than_five_rows_have_none():
    found = calibration_error_intervals([0, 1, 0], [0.1, 0.8, 0.3], **SETTINGS)["emax"]
    assert np.isnan([found.estimate, found.ci_low]).all()
    assert found.n_degenerate == 100

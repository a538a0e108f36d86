from __future__ import annotations

import numpy as np
import pytest

from sarc_ray.stats import decision


def test_net_benefit_counts_at_each_threshold():
    rng = np.random.default_rng(1)
    label, probability = rng.integers(0, 2, 200), np.round(rng.random(200), 2)
    thresholds = np.array([0.05, 0.25, 0.5, 0.9])
    expected = []
    for t in thresholds:
        treated = probability >= t
        expected.append((treated & (label == 1)).mean() - (treated & (label == 0)).mean() * t / (1 - t))
    np.testing.assert_allclose(decision.net_benefit(label, probability, thresholds), expected)


def test_internal_test_set_of_the_paper():
    # TP 27 and FP 41 of 189 at a threshold probability of 0.2.
    label = np.repeat([1, 0, 1, 0], [27, 41, 5, 116])
    probability = np.repeat([0.4, 0.4, 0.1, 0.1], [27, 41, 5, 116])
    curve = decision.decision_curve(label, probability, [0.2])
    assert curve.model[0] == pytest.approx(27 / 189 - 41 / 189 * 0.25)
    assert curve.treat_all[0] == pytest.approx(32 / 189 - 157 / 189 * 0.25)
    assert curve.standardised[0] == pytest.approx(curve.model[0] * 189 / 32)
    # Of 157 without sarcopenia 116 are spared, at the price of 5 missed (4 interventions each at 0.2).
    assert curve.avoided_per_100[0] == pytest.approx((116 - 5 * 4) / 189 * 100)


def test_treating_everybody_equals_treat_all():
    curve = decision.decision_curve([0, 1, 0, 1], [0.9, 0.9, 0.8, 0.8], [0.1, 0.5, 0.7])
    np.testing.assert_allclose(curve.model, curve.treat_all)
    np.testing.assert_array_equal(curve.treat_none, 0)


@pytest.mark.parametrize("threshold", [0.0, 1.0, -0.1])
def test_thresholds_lie_strictly_between(threshold):
    with pytest.raises(ValueError, match="strictly between"):
        decision.net_benefit([0, 1], [0.1, 0.2], [threshold])


def test_without_events_nothing_is_standardised():
    assert np.isnan(decision.decision_curve([0, 0], [0.1, 0.2], [0.15]).standardised).all()

import dataclasses

import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import f1_score

from sarc_ray.stage2.calibration import Beta, Isotonic, MovedIsotonic, Sigmoid, Unchanged
from sarc_ray.stage2.thresholds import RULES, operating_points, points_stated
from sarc_ray.stats.discrimination import youden_threshold

AIMS = {
    "youden": None,
    "f1": None,
    "sensitivity": 0.9,
    "specificity": 0.9,
    "alerts_per_10000": 1000.0,
    "cost_ratio": 5.0,
}


def chosen(raw, y, **aims):
    """Points by rule."""
    points = operating_points(raw, y, calibration=Unchanged(), aims={**AIMS, **aims})
    return {point.rule: point for point in points}


def draw(n, seed):
    rng = np.random.default_rng(seed)
    log_odds_N = rng.normal(-1.5, 1.3, n)
    return expit(log_odds_N + rng.normal(0.0, 0.5, (2, n))).round(2), (rng.random(n) < expit(log_odds_N)).astype(int)


@pytest.mark.parametrize("seed", range(4))
def test_every_rule_against_all_cuts_tried_one_by_one(seed):
    raw_RN, y_N = draw(300, seed)
    raw_N, label_N = raw_RN.ravel(), np.tile(y_N, 2)
    n_pos, n_neg = int(label_N.sum()), int((1 - label_N).sum())
    cuts = [np.inf, *np.unique(raw_N)[::-1]]  # from nobody to everybody
    tp = np.array([np.sum(label_N[raw_N >= cut]) for cut in cuts])
    fp = np.array([np.sum(1 - label_N[raw_N >= cut]) for cut in cuts])
    expected = {
        "youden": cuts[1 + np.argmax((tp / n_pos - fp / n_neg)[1:].round(12))],
        "f1": cuts[np.argmax([f1_score(label_N, raw_N >= cut) for cut in cuts])],
        "sensitivity": next(cut for cut, found in zip(cuts, tp, strict=True) if 10 * found >= 9 * n_pos),
        "specificity": [cut for cut, found in zip(cuts, fp, strict=True) if 10 * (n_neg - found) >= 9 * n_neg][-1],
        "alerts_per_10000": [c for c, a, b in zip(cuts, tp, fp, strict=True) if 10 * (a + b) <= len(raw_N)][-1],
        "cost_ratio": cuts[np.argmin(fp + 5 * (n_pos - tp))],
    }
    points = chosen(raw_RN, y_N)
    assert expected["youden"] == youden_threshold(label_N, raw_N)
    for rule, cut in expected.items():
        flag_N = raw_N >= points[rule].raw_threshold
        np.testing.assert_array_equal(flag_N, raw_N >= cut)
        assert not np.any(raw_N == points[rule].raw_threshold)
        assert points[rule].sensitivity == pytest.approx(flag_N[label_N == 1].mean())
        assert points[rule].specificity == pytest.approx(1 - flag_N[label_N == 0].mean())
        assert points[rule].ppv == pytest.approx(label_N[flag_N].mean())
        assert points[rule].npv == pytest.approx(1 - label_N[~flag_N].mean())
        assert points[rule].f1 == pytest.approx(f1_score(label_N, flag_N))
        assert points[rule].alerts_per_10000 == pytest.approx(1e4 * flag_N.mean())
    assert list(points) == list(RULES)
    assert [point.aim for point in points.values()] == list(AIMS.values())


def test_aims_are_met_exactly_where_rounding_could_miss_them():
    raw_N, y_N = np.linspace(0.99, 0.01, 20), np.tile([1, 0], 10)
    points = chosen(raw_N, y_N, sensitivity=0.3, specificity=0.7, alerts_per_10000=1500.0)
    assert points["sensitivity"].sensitivity == pytest.approx(0.3)  # 3 of 10, the third positive is the last flagged
    assert points["specificity"].specificity == pytest.approx(0.7)
    assert points["alerts_per_10000"].alerts_per_10000 == pytest.approx(1500.0)
    assert chosen(raw_N, y_N, sensitivity=1.0)["sensitivity"].sensitivity == 1.0


def test_where_an_aim_allows_nobody_nobody_is_flagged():
    raw_N, y_N = np.array([0.9, 0.8, 0.2, 0.1]), np.array([0, 1, 0, 1])
    points = chosen(raw_N, y_N, specificity=0.9, alerts_per_10000=1000.0, cost_ratio=0.1)
    for rule in ("specificity", "alerts_per_10000", "cost_ratio"):
        assert points[rule].raw_threshold == pytest.approx(0.95)
        assert (points[rule].sensitivity, points[rule].specificity) == (0.0, 1.0)
        assert points[rule].ppv is None
    certain = chosen(np.array([1.0, 0.8, 0.2, 0.1]), y_N, alerts_per_10000=1.0)["alerts_per_10000"]
    assert certain.raw_threshold > 1.0
    assert certain.alerts_per_10000 == 0.0


KNOTS = np.array([0.0, 0.5, 1.0]), np.array([0.1, 0.3, 0.8])


@pytest.mark.parametrize(
    "calibration",
    [
        Unchanged(),
        Sigmoid(0.3, -1.0),
        Sigmoid(2.0, 1.0),
        Sigmoid(9.0, 9.0),
        Beta(0.5, 0.2, -0.3),
        Isotonic(*KNOTS),
        MovedIsotonic(*KNOTS, 0.4, -0.2),
    ],
)
def test_a_threshold_for_nobody_flags_nobody_behind_any_map(calibration):
    raw_N, y_N = np.array([1.0, 1.0, 0.9, 0.2, 0.1, 0.0]), np.array([0, 1, 1, 0, 1, 0])
    points = operating_points(raw_N, y_N, calibration=calibration, aims=AIMS | {"specificity": 1.0})
    score_N = calibration.apply(raw_N)
    flagged = {point.rule: 1e4 * (score_N >= point.threshold).mean() for point in points}
    assert flagged["specificity"] == 0.0
    assert flagged == pytest.approx({point.rule: point.alerts_per_10000 for point in points})
    # Not by a rounding error: another machine's may differ.
    (nobody,) = [point.threshold for point in points if point.rule == "specificity"]
    assert nobody > 1.0 or nobody > score_N.max() + 1e-12


def test_a_missed_patient_that_costs_more_lowers_the_threshold():
    raw_RN, y_N = draw(2000, 5)
    found = [chosen(raw_RN, y_N, cost_ratio=ratio)["cost_ratio"] for ratio in (1.0, 5.0, 50.0)]
    assert found[0].raw_threshold > found[1].raw_threshold > found[2].raw_threshold
    # Of calibrated scores the threshold is 1 / (1 + ratio) (Elkan 2001).
    rng = np.random.default_rng(0)
    truth_N = rng.beta(1.0, 3.0, 200_000)
    best = chosen(truth_N, (rng.random(200_000) < truth_N).astype(int), cost_ratio=5.0)["cost_ratio"]
    assert best.threshold == pytest.approx(1 / 6, abs=0.02)


def test_calibration_moves_the_number_and_flags_the_same():
    raw_RN, y_N = draw(300, 6)
    plain = operating_points(raw_RN, y_N, calibration=Unchanged(), aims=AIMS)
    sigmoid = Sigmoid(0.6, -0.4)
    moved = operating_points(raw_RN, y_N, calibration=sigmoid, aims=AIMS)
    for before, after in zip(plain, moved, strict=True):
        assert before.threshold == before.raw_threshold == after.raw_threshold
        assert after.threshold == sigmoid.apply(after.raw_threshold)
        np.testing.assert_array_equal(sigmoid.apply(raw_RN) >= after.threshold, raw_RN >= before.threshold)
        assert dataclasses.replace(after, threshold=before.threshold) == before


@pytest.mark.parametrize("copies", [1, 9])
def test_another_prevalence_is_other_numbers_of_the_same_patients(copies):
    """As if every patient with the outcome were there more often."""
    raw_RN, y_N = draw(400, 8)
    more = np.concatenate([np.arange(400), np.repeat(np.flatnonzero(y_N), copies)])
    expected = operating_points(raw_RN[:, more], y_N[more], calibration=Unchanged(), aims=AIMS)
    found = operating_points(raw_RN, y_N, calibration=Unchanged(), aims=AIMS, prevalence=float(y_N[more].mean()))
    for one, other in zip(found, expected, strict=True):
        assert dataclasses.asdict(one) == pytest.approx(dataclasses.asdict(other))
    plain = operating_points(raw_RN, y_N, calibration=Unchanged(), aims=AIMS)
    moved = {one.rule for one, other in zip(found, plain, strict=True) if one.raw_threshold != other.raw_threshold}
    assert moved == {"f1", "alerts_per_10000", "cost_ratio"}


def test_what_is_stated_is_in_units_of_the_score_and_marked():
    raw_RN, y_N = draw(100, 7)
    points = operating_points(raw_RN, y_N, calibration=Sigmoid(0.6, -0.4), aims=AIMS)
    stated = points_stated(points, in_force="f1")
    assert [facts["in_force"] for facts in stated] == [rule == "f1" for rule in RULES]
    assert [facts["threshold"] for facts in stated] == [point.threshold for point in points]
    assert not any("raw_threshold" in facts for facts in stated)


def test_points_that_cannot_be_are_refused():
    raw_RN, y_N = draw(100, 8)
    point = operating_points(raw_RN, y_N, calibration=Unchanged(), aims=AIMS)[0]
    with pytest.raises(ValueError, match="is not finite"):
        dataclasses.replace(point, threshold=np.inf)
    with pytest.raises(ValueError, match="rule: found 'kappa', allowed: youden"):
        dataclasses.replace(point, rule="kappa")
    with pytest.raises(ValueError, match="label: one class is absent"):
        operating_points([0.1, 0.2], [1, 1], calibration=Unchanged(), aims=AIMS)

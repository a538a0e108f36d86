"""What must hold of every sample: permutations, transforms, symmetries, bounds, duality of test and interval."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st

from sarc_ray.stats import agreement, calibration, decision, discrimination, hypothesis, scored_sample

LEVEL = {"confidence_level": 0.9}
# Probabilities in steps of a hundredth, so that rows tie; never 0 or 1, which have no logit.
hundredths = st.integers(1, 99)
scored_rows = st.lists(st.tuples(st.booleans(), hundredths, hundredths), min_size=5, max_size=50).filter(
    lambda rows: 2 <= sum(row[0] for row in rows) <= len(rows) - 2
)
pairs = st.lists(st.tuples(st.integers(-50, 50), st.integers(-50, 50)), min_size=5, max_size=40).filter(
    lambda rows: all(len({row[k] for row in rows}) > 2 for k in (0, 1))
)
cells = st.tuples(*[st.integers(0, 40)] * 4)
often = settings(max_examples=50, deadline=None)


def columns(rows):
    label, a, b = (np.array(column) for column in zip(*rows, strict=True))
    return label.astype(int), a / 100, b / 100


@often
@given(scored_rows, st.integers(0, 2**32 - 1))
def test_the_order_of_rows_does_not_matter(rows, seed):
    label, a, b = columns(rows)
    order = np.random.default_rng(seed).permutation(label.size)

    def figures(label, a, b):
        paired, errors = discrimination.delong_paired(label, a, b, **LEVEL), calibration.calibration_errors(label, a)
        return [
            *scored_sample.estimate_metrics(scored_sample.prepare_sample(label, a, b >= 0.5)),
            paired.difference,
            paired.ci_high,
            errors.ici,
            errors.emax,
            calibration.citl(label, a, **LEVEL).ci_low,
            calibration.spiegelhalter(label, a).statistic,
            agreement.concordance(a, b, **LEVEL).estimate,
            *decision.net_benefit(label, a, [0.2, 0.5]),
        ]

    np.testing.assert_allclose(figures(label[order], a[order], b[order]), figures(label, a, b), rtol=1e-6, atol=1e-9)


@often
@given(scored_rows)
def test_areas_and_their_tests_see_ranks_alone(rows):
    label, a, b = columns(rows)
    plain = discrimination.delong_paired(label, a, b, **LEVEL)
    bent = discrimination.delong_paired(label, scipy.special.logit(a), b**3, **LEVEL)
    assert bent.p_value == pytest.approx(plain.p_value, nan_ok=True)
    assert (bent.ci_low, bent.ci_high) == pytest.approx((plain.ci_low, plain.ci_high))
    assert discrimination.auprc(label, b**3) == pytest.approx(discrimination.auprc(label, b))
    back = discrimination.delong_paired(label, b, a, **LEVEL)
    assert (back.difference, back.ci_low) == pytest.approx((-plain.difference, -plain.ci_high))
    assert back.p_value == pytest.approx(plain.p_value, nan_ok=True)


@often
@given(scored_rows)
def test_delong_decides_as_its_interval(rows):
    label, a, b = columns(rows)
    found = discrimination.delong_paired(label, a, b, **LEVEL)
    if found.ci_high - found.ci_low > 1e-9:
        assert (found.p_value < 0.1) == (found.ci_low > 0 or found.ci_high < 0)


@often
@given(scored_rows)
def test_exchanging_the_outcome_mirrors_calibration(rows):
    label, p, _ = columns(rows)
    other = 1 - label, 1 - p
    assert calibration.brier(*other) == pytest.approx(calibration.brier(label, p))
    assert calibration.scaled_brier(*other) == pytest.approx(calibration.scaled_brier(label, p))
    assert calibration.scaled_brier(label, p) <= 1
    assert calibration.citl(*other, **LEVEL).estimate == pytest.approx(-calibration.citl(label, p, **LEVEL).estimate)
    slopes = [calibration.cal_slope(*sides, **LEVEL).estimate for sides in (other, (label, p))]
    assert slopes[0] == pytest.approx(slopes[1], rel=1e-6, nan_ok=True)
    spiegelhalter = calibration.spiegelhalter(*other).statistic
    assert spiegelhalter == pytest.approx(calibration.spiegelhalter(label, p).statistic, nan_ok=True)


@often
@given(scored_rows, st.floats(-2, 2))
def test_moving_logits_moves_calibration_in_the_large(rows, shift):
    label, p, _ = columns(rows)
    moved = scipy.special.expit(scipy.special.logit(p) + shift)
    before, after = calibration.citl(label, p, **LEVEL), calibration.citl(label, moved, **LEVEL)
    assert after.estimate == pytest.approx(before.estimate - shift, abs=1e-7)
    assert after.ci_high - after.ci_low == pytest.approx(before.ci_high - before.ci_low)


@often
@given(scored_rows)
def test_calibration_errors_keep_their_order(rows):
    label, p, _ = columns(rows)
    errors = calibration.calibration_errors(label, p)
    assert 0 <= errors.e50 <= errors.e90 <= errors.emax
    assert 0 <= errors.ici <= errors.emax


@often
@given(scored_rows, st.integers(1, 99))
def test_net_benefit_is_bounded_and_counts_avoided_interventions(rows, percent):
    label, p, _ = columns(rows)
    curve = decision.decision_curve(label, p, [percent / 100])
    assert curve.model[0] <= label.mean() + 1e-12
    assert curve.standardised[0] == pytest.approx(curve.model[0] / label.mean())
    # True negatives per 100, less what the missed events are worth at these odds.
    flag = p >= percent / 100
    odds = percent / (100 - percent)
    lost, avoided = np.sum(~flag & (label == 1)), np.sum(~flag & (label == 0))
    assert curve.avoided_per_100[0] == pytest.approx(100 * (avoided - lost / odds) / label.size, abs=1e-8)


@often
@given(cells)
def test_threshold_metrics_are_bounded_and_turn(found):
    tp, fp, fn, tn = found
    plain = discrimination.Confusion(tp=tp, fp=fp, fn=fn, tn=tn)
    turned = discrimination.Confusion(tp=tn, fp=fn, fn=fp, tn=tp)
    wrong = discrimination.Confusion(tp=fn, fp=tn, fn=tp, tn=fp)
    for name, other in (("sensitivity", "specificity"), ("ppv", "npv"), ("mcc", "mcc")):
        value = float(getattr(discrimination, name)(plain))
        np.testing.assert_allclose(float(getattr(discrimination, other)(turned)), value)
        assert np.isnan(value) or -1 <= value <= 1
    np.testing.assert_allclose(discrimination.mcc(wrong), -discrimination.mcc(plain))
    f1, precision, recall = (float(getattr(discrimination, name)(plain)) for name in ("f1", "ppv", "sensitivity"))
    if tp > 0:
        assert min(precision, recall) - 1e-12 <= f1 <= max(precision, recall) + 1e-12


@often
@given(pairs, st.integers(1, 9), st.integers(-20, 20))
def test_concordance_is_symmetric_and_keeps_its_unit(rows, factor, shift):
    x, y = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    ccc = agreement.concordance(x, y, **LEVEL)
    assert abs(ccc.estimate) <= abs(ccc.pearson) + 1e-12
    assert 0 < ccc.bias_correction <= 1
    assert ccc.estimate == pytest.approx(ccc.pearson * ccc.bias_correction)
    assert agreement.concordance(y, x, **LEVEL).estimate == pytest.approx(ccc.estimate)
    again = agreement.concordance(factor * x + shift, factor * y + shift, **LEVEL)
    assert again.estimate == pytest.approx(ccc.estimate)
    assert (again.ci_low, again.ci_high) == pytest.approx((ccc.ci_low, ccc.ci_high), nan_ok=True)
    assert agreement.explained_variance(x, y) <= ccc.pearson**2 + 1e-9


@often
@given(pairs)
def test_errors_and_limits_bound_each_other(rows):
    x, y = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    limits = agreement.bland_altman(x, y, **LEVEL)
    back = agreement.bland_altman(y, x, **LEVEL)
    assert abs(limits.bias.estimate) <= agreement.mae(x, y) + 1e-12 <= agreement.rmse(x, y) + 1e-9
    assert (back.loa_low.estimate, back.loa_low.ci_low) == pytest.approx(
        (-limits.loa_high.estimate, -limits.loa_high.ci_high)
    )
    spread = limits.sd**2 * (x.size - 1) / x.size
    assert agreement.rmse(x, y) ** 2 == pytest.approx(limits.bias.estimate**2 + spread)


@often
@given(st.integers(0, 60), st.integers(1, 60))
def test_wilson_holds_the_shares_that_the_score_test_keeps(n_hits, n_misses):
    n = n_hits + n_misses
    interval = discrimination.wilson_interval(n_hits, n, **LEVEL)
    for share in np.linspace(0.005, 0.995, 67):
        z = (n_hits / n - share) / np.sqrt(share * (1 - share) / n)
        if abs(abs(z) - 1.6448536269514722) > 1e-6:
            assert (abs(z) < 1.6448536269514722) == (interval.ci_low < share < interval.ci_high)


@often
@given(pairs)
def test_two_groups_may_be_exchanged(rows):
    x, y = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    for test in (hypothesis.t_test, hypothesis.rank_sum):
        assert test(x, y).p_value == pytest.approx(test(y, x).p_value)
        assert 0 <= test(x, y).p_value <= 1
    assert hypothesis.rank_sum(x, y).p_value == pytest.approx(hypothesis.rank_sum(x**3, y**3).p_value)
    assert hypothesis.smd_means(2 * x + 1, 2 * y + 1) == pytest.approx(hypothesis.smd_means(x, y))
    # Mann and Whitney's U counts the pairs that the AUROC counts.
    area = discrimination.auroc(np.repeat([1, 0], [x.size, y.size]), np.concatenate([x, y]))
    assert hypothesis.rank_sum(x, y).statistic == pytest.approx(area * x.size * y.size)

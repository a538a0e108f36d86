from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from sarc_ray.stats import agreement

# Bland & Altman (1986), peak expiratory flow (l/min) of 17 people, first readings; CCC parts from R's epiR 2.0.
WRIGHT = [494, 395, 516, 434, 476, 557, 413, 442, 650, 433, 417, 656, 267, 478, 178, 423, 427]
MINI = [512, 430, 520, 428, 500, 600, 364, 380, 658, 445, 432, 626, 260, 477, 259, 350, 451]


@pytest.fixture
def pair():
    rng = np.random.default_rng(4)
    measured = rng.normal(17, 4, 200)
    return measured, 0.7 * measured + 5.6 + rng.normal(0, 2, 200)


def test_peak_flow_concordance():
    result = agreement.concordance(WRIGHT, MINI, confidence_level=0.95)
    assert result.estimate == pytest.approx(0.94274243, abs=5e-9)
    assert result.ci_low == pytest.approx(0.85049187, abs=5e-9)
    assert result.ci_high == pytest.approx(0.97872628, abs=5e-9)
    assert result.bias_correction == pytest.approx(0.99943069, abs=5e-9)
    assert result.estimate == pytest.approx(result.pearson * result.bias_correction, rel=1e-12)


def test_peak_flow_bland_altman():
    # The published differences are Wright - mini, so mini stands as the reference here.
    result = agreement.bland_altman(MINI, WRIGHT, confidence_level=0.95)
    assert result.bias.estimate == pytest.approx(-2.11764706, abs=5e-9)
    assert result.sd == pytest.approx(38.76512987, abs=5e-9)
    assert result.loa_low.estimate == pytest.approx(-78.0959, abs=5e-4)
    assert result.loa_high.estimate == pytest.approx(73.8606, abs=5e-4)
    # The paper's own intervals: bias -22.0 to 17.8; lower limit -112.6 to -43.6 (it rounds SD to 38.8, t to 2.12).
    assert result.bias.ci_low == pytest.approx(-22.0, abs=0.1)
    assert result.bias.ci_high == pytest.approx(17.8, abs=0.1)
    assert result.loa_low.ci_low == pytest.approx(-112.6, abs=0.2)
    assert result.loa_low.ci_high == pytest.approx(-43.6, abs=0.2)


def test_concordance_denominator(pair):
    measured, predicted = pair
    for ddof in (0, 1):
        covariance = np.cov(measured, predicted, ddof=ddof)
        shift = measured.mean() - predicted.mean()
        expected = 2 * covariance[0, 1] / (np.trace(covariance) + shift**2)
        result = agreement.concordance(measured, predicted, confidence_level=0.95, ddof=ddof)
        assert result.estimate == pytest.approx(expected, rel=1e-12)
    with pytest.raises(ValueError, match="ddof: found 2"):
        agreement.concordance(measured, predicted, confidence_level=0.95, ddof=2)


def test_concordance_interval_covers_as_often_as_it_says():
    rng, hits = np.random.default_rng(12), 0
    truth = 2 * 0.6 / (1 + 1 + 0.3**2)
    for _ in range(500):
        draw = rng.multivariate_normal([0, 0.3], [[1, 0.6], [0.6, 1]], size=150)
        result = agreement.concordance(draw[:, 0], draw[:, 1], confidence_level=0.9)
        hits += result.ci_low <= truth <= result.ci_high
    # Three standard errors of 500 trials: 0.04.
    assert abs(hits / 500 - 0.9) < 0.04


def test_concordance_of_unrelated_values_has_an_interval():
    result = agreement.concordance([1, 2, 3, 1, 2, 3], [1, 2, 1, 3, 2, 3], confidence_level=0.95)
    assert result.pearson == pytest.approx(0, abs=1e-12)
    assert result.ci_low < 0 < result.ci_high


def test_pearson_equals_scipy(pair):
    expected = scipy.stats.pearsonr(*pair)
    interval = agreement.pearson(*pair, confidence_level=0.9)
    assert interval.estimate == pytest.approx(expected.statistic)
    assert (interval.ci_low, interval.ci_high) == pytest.approx(tuple(expected.confidence_interval(0.9)))


def test_errors_equal_scikit_learn(pair):
    measured, predicted = pair
    assert agreement.explained_variance(measured, predicted) == pytest.approx(
        sklearn.metrics.r2_score(measured, predicted)
    )
    assert agreement.mae(measured, predicted) == pytest.approx(sklearn.metrics.mean_absolute_error(measured, predicted))
    assert agreement.rmse(measured, predicted) == pytest.approx(
        sklearn.metrics.root_mean_squared_error(measured, predicted)
    )


def test_explained_variance_penalises_bias(pair):
    measured, predicted = pair
    biased = predicted + 3
    assert agreement.explained_variance(measured, biased) < agreement.explained_variance(measured, predicted)
    assert sklearn.metrics.explained_variance_score(measured, biased) == pytest.approx(
        sklearn.metrics.explained_variance_score(measured, predicted)
    )


def test_constant_values_are_undefined():
    constant, varied = [2.0, 2.0, 2.0, 2.0], [1.0, 2.0, 3.0, 4.0]
    assert np.isnan(agreement.concordance(varied, constant, confidence_level=0.95).estimate)
    assert np.isnan(agreement.pearson(constant, varied, confidence_level=0.95).estimate)
    assert np.isnan(agreement.explained_variance(constant, varied))
    assert agreement.explained_variance(varied, constant) < 0
    assert np.isnan(agreement.bland_altman([1.0], [2.0], confidence_level=0.95).sd)


def test_perfect_agreement_has_no_interval():
    result = agreement.concordance([1, 2, 3], [1, 2, 3], confidence_level=0.95)
    assert result.estimate == pytest.approx(1)
    assert np.isnan(result.ci_low)


def test_missing_values_are_refused():
    for function in (agreement.mae, agreement.rmse, agreement.explained_variance):
        with pytest.raises(ValueError, match="measured: 1 of 2 values are NaN"):
            function([1, np.nan], [1, 2])
    with pytest.raises(ValueError, match="one length"):
        agreement.bland_altman([1, 2], [1], confidence_level=0.95)


def test_spearman_equals_scipy_with_ties():
    rng = np.random.default_rng(8)
    first = rng.integers(0, 8, 60).astype(float)
    second = first + rng.normal(0, 3, 60)
    interval = agreement.spearman(first, second, confidence_level=0.95)
    assert interval.estimate == pytest.approx(scipy.stats.spearmanr(first, second).statistic)
    assert interval.ci_low < interval.estimate < interval.ci_high
    none = agreement.spearman(first, np.ones(60), confidence_level=0.95)
    assert np.isnan(none.estimate)
    assert agreement.spearman([1, 2, 3], [2, 4, 5], confidence_level=0.95).estimate == pytest.approx(1.0)


def test_spearman_interval_covers_as_it_says():
    """Normal pairs with Pearson's r 0.6 have Spearman's 6 / pi asin(r / 2)."""
    rng = np.random.default_rng(9)
    true, hits = 6 / np.pi * np.arcsin(0.3), 0
    for _ in range(400):
        first = rng.normal(size=80)
        interval = agreement.spearman(first, 0.6 * first + 0.8 * rng.normal(size=80), confidence_level=0.9)
        hits += interval.ci_low <= true <= interval.ci_high
    assert 0.85 <= hits / 400 <= 0.95


def test_proportional_bias_equals_scipys_regression():
    rng = np.random.default_rng(4)
    measured = rng.normal(17, 4, 60)
    predicted = 5 + 0.7 * measured + rng.normal(0, 1, 60)
    line = scipy.stats.linregress((measured + predicted) / 2, predicted - measured)
    bias = agreement.proportional_bias(measured, predicted, confidence_level=0.9)
    assert bias.slope.estimate == pytest.approx(line.slope)
    assert bias.intercept.estimate == pytest.approx(line.intercept)
    assert bias.p_value == pytest.approx(line.pvalue)
    t = scipy.stats.t.ppf(0.95, 58)
    assert bias.slope.ci_high - bias.slope.estimate == pytest.approx(t * line.stderr)
    assert bias.intercept.ci_high - bias.intercept.estimate == pytest.approx(t * line.intercept_stderr)


def test_proportional_bias_and_its_interval_decide_alike_and_turn_with_the_sides():
    rng, decided = np.random.default_rng(6), []
    for _ in range(60):
        measured = rng.normal(size=30)
        predicted = 0.8 * measured + rng.normal(0, 0.6, 30)
        bias = agreement.proportional_bias(measured, predicted, confidence_level=0.9)
        decided.append(bias.p_value < 0.1)
        assert decided[-1] == (bias.slope.ci_low > 0 or bias.slope.ci_high < 0)
        turned = agreement.proportional_bias(predicted, measured, confidence_level=0.9)
        assert turned.slope.estimate == pytest.approx(-bias.slope.estimate)
        moved = agreement.proportional_bias(3 * measured + 5, 3 * predicted + 5, confidence_level=0.9)
        assert moved.p_value == pytest.approx(bias.p_value)
    assert 0 < sum(decided) < 60


def test_proportional_bias_where_there_is_no_line():
    flat = agreement.proportional_bias([1, 2], [2, 1], confidence_level=0.95)
    assert np.isnan([flat.slope.estimate, flat.p_value]).all()
    two = agreement.proportional_bias([1, 2], [1, 3], confidence_level=0.95)
    assert two.slope.estimate == pytest.approx(2 / 3)
    assert np.isnan([two.slope.ci_low, two.residual_sd, two.p_value]).all()


@pytest.mark.parametrize("predicted", [[0.2, 0.3, 0.4, 0.8], [0.11, 0.22, 0.33, 0.77]])
def test_what_rounding_leaves_of_a_line_is_not_tested(predicted):
    """Equal differences, and differences that grow by a tenth: no residual but that of floating point."""
    line = agreement.proportional_bias([0.1, 0.2, 0.3, 0.7], predicted, confidence_level=0.95)
    assert np.isnan(line.p_value)
    assert line.residual_sd == 0

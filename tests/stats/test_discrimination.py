from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from sarc_ray.stats import discrimination as dis

# Table 2 of Ryu et al. (2023): the confusion matrices that give its threshold metrics to three places.
PAPER = {
    "internal": (
        dis.Confusion(tp=27, fp=41, fn=5, tn=116),
        {"f1": 0.540, "mcc": 0.455, "sensitivity": 0.844, "specificity": 0.739, "ppv": 0.397, "npv": 0.959},
    ),
    "external": (
        dis.Confusion(tp=11, fp=19, fn=7, tn=112),
        {"f1": 0.458, "mcc": 0.379, "sensitivity": 0.611, "specificity": 0.855, "ppv": 0.367, "npv": 0.941},
    ),
}


def tied_sample(seed: int, n: int = 300) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, n)
    score_a = np.round(0.6 * label + rng.normal(size=n), 1)
    score_b = np.round(0.3 * label + 0.5 * score_a + rng.normal(size=n), 1)
    return label, score_a, score_b


def naive_delong(label, score_a, score_b):
    """Structural components by all pairs, as DeLong et al. (1988) write them."""
    components = []
    for score in (score_a, score_b):
        gap = score[label == 1][:, None] - score[label == 0][None, :]
        psi = (gap > 0) + 0.5 * (gap == 0)
        components.append((psi.mean(axis=1), psi.mean(axis=0)))
    s10 = np.cov([c[0] for c in components]) / (label == 1).sum()
    s01 = np.cov([c[1] for c in components]) / (label == 0).sum()
    return s10 + s01


@pytest.mark.parametrize("cohort", PAPER)
def test_confusion_matrices_give_the_threshold_metrics_of_table_2(cohort):
    cells, printed = PAPER[cohort]
    for name, value in printed.items():
        assert round(float(getattr(dis, name)(cells)), 3) == value, name


@pytest.mark.parametrize("seed", range(3))
def test_areas_equal_scikit_learn_on_ties(seed):
    label, score, _ = tied_sample(seed)
    assert dis.auroc(label, score) == pytest.approx(sklearn.metrics.roc_auc_score(label, score), abs=1e-12)
    assert dis.auprc(label, score) == pytest.approx(sklearn.metrics.average_precision_score(label, score), abs=1e-12)


def test_threshold_metrics_equal_scikit_learn():
    label, score, _ = tied_sample(5)
    flag = score >= 0.4
    cells = dis.confusion_at(label, score, 0.4)
    assert cells == dis.confusion_from_flags(label, flag)
    assert [[cells.tn, cells.fp], [cells.fn, cells.tp]] == sklearn.metrics.confusion_matrix(label, flag).tolist()
    assert float(dis.f1(cells)) == pytest.approx(sklearn.metrics.f1_score(label, flag))
    assert float(dis.mcc(cells)) == pytest.approx(sklearn.metrics.matthews_corrcoef(label, flag))


def test_a_row_at_the_threshold_is_flagged():
    assert dis.confusion_at([0, 1], [0.5, 0.5], 0.5) == dis.Confusion(tp=1, fp=1, fn=0, tn=0)


def test_curves_equal_scikit_learn():
    label, score, _ = tied_sample(7)
    fpr, tpr, thresholds = sklearn.metrics.roc_curve(label, score, drop_intermediate=False)
    curve = dis.roc_curve(label, score)
    np.testing.assert_allclose(curve.fpr, fpr)
    np.testing.assert_allclose(curve.tpr, tpr)
    np.testing.assert_array_equal(curve.threshold, thresholds)
    precision, recall, _ = sklearn.metrics.precision_recall_curve(label, score)
    ours = dis.pr_curve(label, score)
    np.testing.assert_allclose(ours.precision, precision[:-1][::-1])
    np.testing.assert_allclose(ours.recall, recall[:-1][::-1])


@pytest.mark.parametrize("seed", range(3))
def test_delong_by_midranks_equals_all_pairs(seed):
    label, score_a, score_b = tied_sample(seed, n=120)
    covariance = naive_delong(label, score_a, score_b)
    assert dis.delong_variance(label, score_a) == pytest.approx(covariance[0, 0], rel=1e-10)
    comparison = dis.delong_paired(label, score_a, score_b, confidence_level=0.95)
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    assert comparison.statistic == pytest.approx(comparison.difference / np.sqrt(variance), rel=1e-9)
    assert comparison.difference == pytest.approx(dis.auroc(label, score_a) - dis.auroc(label, score_b))
    assert comparison.ci_high - comparison.ci_low == pytest.approx(2 * 1.959963985 * np.sqrt(variance), rel=1e-6)


def test_interval_excludes_zero_exactly_when_p_is_below_alpha():
    rng = np.random.default_rng(3)
    decided = []
    for _ in range(60):
        label = np.repeat([0, 1], 30)
        score_a, score_b = label + rng.normal(size=60) * 1.5, rng.normal(size=60)
        comparison = dis.delong_paired(label, score_a, score_b, confidence_level=0.9)
        decided.append(comparison.p_value < 0.1)
        assert decided[-1] == (comparison.ci_low > 0 or comparison.ci_high < 0)
    assert 0 < sum(decided) < 60


def test_identical_scores_have_no_difference():
    label, score, _ = tied_sample(1)
    comparison = dis.delong_paired(label, score, 3 * score + 1, confidence_level=0.95)
    assert (comparison.difference, comparison.statistic, comparison.p_value) == (0, 0, 1)


def test_difference_without_variance_has_no_test():
    comparison = dis.delong_paired([0, 0, 1, 1], [1, 2, 3, 4], [4, 3, 2, 1], confidence_level=0.95)
    assert comparison.difference == 1
    assert np.isnan(comparison.p_value)


def test_unpaired_comparison_uses_both_variances():
    (label_a, score_a, _), (label_b, score_b, _) = tied_sample(1, n=100), tied_sample(2, n=240)
    comparison = dis.delong_unpaired(label_a, score_a, label_b, score_b, confidence_level=0.95)
    variances = [dis.delong_variance(label_a, score_a), dis.delong_variance(label_b, score_b)]
    assert comparison.statistic == pytest.approx(comparison.difference / np.sqrt(sum(variances)))
    assert 99 < comparison.df < 338


def test_delong_interval_covers_as_often_as_it_says():
    # Binormal scores one SD apart: the area is Phi(1 / sqrt 2).
    rng, truth, hits = np.random.default_rng(11), 0.7602499389, 0
    label = np.repeat([0, 1], [120, 80])
    for _ in range(400):
        interval = dis.auroc_interval(label, label + rng.normal(size=200), confidence_level=0.9)
        hits += interval.ci_low <= truth <= interval.ci_high
    # Three standard errors of 400 trials: 0.045.
    assert abs(hits / 400 - 0.9) < 0.045


def test_interval_is_clipped():
    interval = dis.auroc_interval([0, 0, 0, 1, 1, 1], [0.1, 0.2, 0.5, 0.4, 0.7, 0.9], confidence_level=0.99)
    assert interval.ci_high == 1


@pytest.mark.parametrize("label", [[0, 0, 0], [1, 1, 1]])
def test_one_class_is_undefined_not_an_error(label):
    assert np.isnan(dis.auroc(label, [1, 2, 3]))
    interval = dis.auroc_interval(label, [1, 2, 3], confidence_level=0.95)
    assert np.isnan([interval.estimate, interval.ci_low, interval.ci_high]).all()
    with pytest.raises(ValueError, match="one class is absent"):
        dis.youden_threshold(label, [1, 2, 3])


def test_empty_margins_are_undefined():
    assert np.isnan(dis.ppv(dis.Confusion(tp=0, fp=0, fn=3, tn=9)))
    assert np.isnan(dis.mcc(dis.Confusion(tp=0, fp=0, fn=3, tn=9)))
    assert np.isnan(dis.f1(dis.Confusion(tp=0, fp=0, fn=0, tn=9)))
    assert np.isnan(dis.auprc([0, 0], [0.1, 0.2]))


@pytest.mark.parametrize(
    ("label", "score", "message"),
    [
        ([0, 1, np.nan], [1, 2, 3], "label: 1 of 3 values are NaN"),
        ([0, 1, 1], [1, np.nan, np.inf], "score: 2 of 3 values are NaN"),
        ([0, 1, 2], [1, 2, 3], "found 2; only 0"),
        ([0, 1], [1, 2, 3], "one length"),
        ([], [], "non-empty"),
        (["a", "b"], [1, 2], "expected numbers"),
    ],
)
def test_wrong_input_is_refused(label, score, message):
    with pytest.raises(ValueError, match=message):
        dis.auroc(label, score)


def test_youden_takes_the_highest_of_equal_thresholds():
    label, score = [0, 1, 0, 1], [1.0, 2.0, 3.0, 4.0]
    assert dis.youden_threshold(label, score) == 4.0
    curve = dis.roc_curve(label, score)
    best = (curve.tpr - curve.fpr).max()
    cells = dis.confusion_at(label, score, 4.0)
    assert float(dis.sensitivity(cells) + dis.specificity(cells) - 1) == pytest.approx(best)


def test_wilson_interval_inverts_the_score_test():
    interval = dis.wilson_interval(27, 68, confidence_level=0.95)
    for bound in (interval.ci_low, interval.ci_high):
        z = (27 / 68 - bound) / np.sqrt(bound * (1 - bound) / 68)
        assert abs(z) == pytest.approx(1.959963985, rel=1e-8)
    assert dis.wilson_interval(0, 10, confidence_level=0.95).ci_low == 0
    assert np.isnan(dis.wilson_interval(0, 0, confidence_level=0.95).estimate)
    with pytest.raises(ValueError, match="n_hits"):
        dis.wilson_interval(3, 2, confidence_level=0.95)


rows = st.lists(st.tuples(st.booleans(), st.integers(-5, 5)), min_size=4, max_size=40).filter(
    lambda pairs: 0 < sum(label for label, _ in pairs) < len(pairs)
)


@settings(max_examples=60, deadline=None)
@given(rows)
def test_turning_the_score_turns_the_area(pairs):
    label, score = np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs], dtype=float)
    assert dis.auroc(label, score) + dis.auroc(label, -score) == pytest.approx(1)
    assert dis.auroc(label, score) == pytest.approx(dis.auroc(label, np.exp(score)))
    assert 0 < dis.auprc(label, score) <= 1
    curve = dis.roc_curve(label, score)
    assert np.trapezoid(curve.tpr, curve.fpr) == pytest.approx(dis.auroc(label, score))


@pytest.mark.parametrize("decimals", [4, 6])
def test_nearly_equal_scores_are_compared_at_any_size(decimals):
    """Against the variance of row-by-row differences of all pairs' shares; covariances would cancel to rounding."""
    rng = np.random.default_rng(3)
    label = rng.random(100_000) < 0.1
    a = rng.normal(label, 1)
    b = np.round(a, decimals)
    found = dis.delong_paired(label, a, b, confidence_level=0.95)

    def beaten(score, by):
        low, high = (np.searchsorted(np.sort(score[~by]), score[by], side=side) for side in ("left", "right"))
        return (low + high) / 2 / np.count_nonzero(~by)

    variance = sum(
        np.var(beaten(a, by) - beaten(b, by), ddof=1) / np.count_nonzero(by) for by in (label, np.logical_not(label))
    )
    assert found.statistic == pytest.approx(found.difference / np.sqrt(variance), rel=1e-9)
    assert 0 < found.p_value < 1


def test_the_level_is_checked_whatever_the_reference():
    rows = [0, 0, 0, 1, 1, 1], [1, 2, 5, 4, 7, 9]
    with pytest.raises(ValueError, match="confidence_level"):
        dis.delong_unpaired(*rows, *rows, confidence_level=95)


@pytest.mark.parametrize("wrong", [-1, np.nan, np.inf])
def test_a_count_is_finite_and_not_negative(wrong):
    with pytest.raises(ValueError, match="fp: found"):
        dis.Confusion(tp=1, fp=wrong, fn=1, tn=1)
    with pytest.raises(ValueError, match="tn: found"):
        dis.Confusion(tp=np.ones(2), fp=np.ones(2), fn=np.ones(2), tn=np.array([1.0, wrong]))


@pytest.mark.parametrize("n", [3, 7, 10, 49, 1000])
def test_wilson_interval_holds_its_share_at_the_ends(n):
    assert dis.wilson_interval(0, n, confidence_level=0.95).ci_low == 0
    assert dis.wilson_interval(n, n, confidence_level=0.95).ci_high == 1
    with pytest.raises(ValueError, match="n = inf"):
        dis.wilson_interval(n, np.inf, confidence_level=0.95)


def test_dates_and_complex_numbers_are_no_scores():
    for score in (np.array(["2020-01-01", "NaT"], dtype="datetime64[D]"), np.array([1j, 2])):
        with pytest.raises(ValueError, match="score: expected numbers, found"):
            dis.auroc([0, 1], score)

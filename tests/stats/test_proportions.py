from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from sarc_ray.stats import proportions
from sarc_ray.stats.discrimination import Confusion, sensitivity, specificity, wilson_interval

counts = st.integers(1, 60)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 40), st.integers(0, 40), st.sampled_from([0.8, 0.95, 0.99]))
def test_exact_interval_is_what_the_binomial_test_does_not_reject(n_hits, n_misses, level):
    n = n_hits + n_misses
    interval = proportions.exact_interval(n_hits, n, confidence_level=level)
    if n == 0:
        assert np.isnan(interval.estimate)
        return
    assert 0 <= interval.ci_low <= n_hits / n <= interval.ci_high <= 1
    tail = (1 - level) / 2
    if n_hits > 0:
        assert scipy.stats.binom.sf(n_hits - 1, n, interval.ci_low) == pytest.approx(tail, rel=1e-7)
    if n_misses > 0:
        assert scipy.stats.binom.cdf(n_hits, n, interval.ci_high) == pytest.approx(tail, rel=1e-7)
    mirrored = proportions.exact_interval(n_misses, n, confidence_level=level)
    assert (mirrored.ci_low, mirrored.ci_high) == pytest.approx((1 - interval.ci_high, 1 - interval.ci_low))


def test_exact_interval_never_covers_less_than_it_says_and_wilson_is_nearer():
    n, shares, hits = 30, np.linspace(0.03, 0.97, 41), np.arange(31)
    covered = {}
    for name, function in (("exact", proportions.exact_interval), ("wilson", wilson_interval)):
        found = [function(int(k), n, confidence_level=0.9) for k in hits]
        low, high = np.array([i.ci_low for i in found]), np.array([i.ci_high for i in found])
        inside = (low <= shares[:, None]) & (shares[:, None] <= high)
        covered[name] = (scipy.stats.binom.pmf(hits, n, shares[:, None]) * inside).sum(axis=1)
    assert covered["exact"].min() >= 0.9
    assert abs(covered["wilson"].mean() - 0.9) < abs(covered["exact"].mean() - 0.9)


@settings(max_examples=60, deadline=None)
@given(counts, counts, counts, counts)
def test_likelihood_ratios_follow_from_shares_and_turn_with_the_labels(tp, fp, fn, tn):
    cells = Confusion(tp=tp, fp=fp, fn=fn, tn=tn)
    plus = proportions.positive_likelihood_ratio(cells, confidence_level=0.95)
    minus = proportions.negative_likelihood_ratio(cells, confidence_level=0.95)
    assert plus.estimate == pytest.approx(float(sensitivity(cells) / (1 - specificity(cells))))
    assert minus.estimate == pytest.approx(float((1 - sensitivity(cells)) / specificity(cells)))
    # Bayes: the odds after a flag are the odds before times the ratio.
    assert tp / fp == pytest.approx((tp + fn) / (fp + tn) * plus.estimate)
    assert plus.ci_low < plus.estimate < plus.ci_high
    assert plus.ci_low * plus.ci_high == pytest.approx(plus.estimate**2)
    # With outcome and no outcome exchanged the ratio is inverted.
    turned = proportions.positive_likelihood_ratio(Confusion(tp=fp, fp=tp, fn=tn, tn=fn), confidence_level=0.95)
    assert (turned.ci_low, turned.ci_high) == pytest.approx((1 / plus.ci_high, 1 / plus.ci_low))


def test_likelihood_ratio_interval_covers_as_often_as_it_says():
    rng, hits = np.random.default_rng(4), 0
    for _ in range(1500):
        tp, fp = rng.binomial(80, 0.7), rng.binomial(200, 0.25)
        ratio = proportions.positive_likelihood_ratio(
            Confusion(tp=tp, fp=fp, fn=80 - tp, tn=200 - fp), confidence_level=0.9
        )
        hits += ratio.ci_low <= 0.7 / 0.25 <= ratio.ci_high
    # Three standard errors of 1,500 trials: 0.023.
    assert abs(hits / 1500 - 0.9) < 0.03


@pytest.mark.parametrize(
    ("cells", "estimate"),
    [((0, 0, 5, 9), np.nan), ((3, 0, 2, 9), np.inf), ((0, 4, 5, 9), 0.0), ((0, 4, 0, 9), np.nan)],
)
def test_empty_cells_have_no_interval(cells, estimate):
    tp, fp, fn, tn = cells
    ratio = proportions.positive_likelihood_ratio(Confusion(tp=tp, fp=fp, fn=fn, tn=tn), confidence_level=0.95)
    np.testing.assert_equal(ratio.estimate, estimate)
    assert np.isnan([ratio.ci_low, ratio.ci_high]).all()


def test_wrong_counts_are_refused():
    with pytest.raises(ValueError, match="n_hits: found 3 of n = 2"):
        proportions.exact_interval(3, 2, confidence_level=0.95)
    with pytest.raises(ValueError, match="allowed: finite counts from 0"):
        proportions.negative_likelihood_ratio(Confusion(tp=-1, fp=1, fn=1, tn=1), confidence_level=0.95)

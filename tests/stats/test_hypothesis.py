from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from sarc_ray.stats import hypothesis as hyp

# Table 1 of Ryu et al. (2023): with sarcopenia, without, printed p (Pearson chi-square without Yates).
PAPER_TABLE_1 = [
    ("women, derivation", 116, 141, 584, 785, 0.045),
    ("hypertension, derivation", 76, 141, 398, 785, 0.484),
    ("previous fracture, derivation", 16, 141, 42, 785, 0.007),
    ("women, external", 15, 18, 80, 131, 0.065),
    ("osteoporosis, external", 10, 18, 39, 131, 0.029),
    ("previous fracture, external", 6, 18, 23, 131, 0.113),
    ("hypertension, external", 5, 18, 36, 131, 0.979),
    ("diabetes, external", 2, 18, 24, 131, 0.450),
]


@pytest.mark.parametrize(("name", "with_a", "n_a", "with_b", "n_b", "printed"), PAPER_TABLE_1)
def test_chi_square_gives_the_p_values_of_table_1(name, with_a, n_a, with_b, n_b, printed):
    result = hyp.chi_square([[with_a, n_a - with_a], [with_b, n_b - with_b]])
    assert round(result.p_value, 3) == printed, name


def test_diabetes_of_table_1_does_not_reproduce():
    # Printed 0.532; the printed counts give 0.528.
    assert round(hyp.chi_square([[38, 103], [192, 593]]).p_value, 3) == 0.528


def test_yates_and_fisher_differ_from_pearson():
    table = [[10, 8], [39, 92]]
    pearson, yates, fisher = hyp.chi_square(table), hyp.chi_square(table, yates=True), hyp.fisher_exact(table)
    assert pearson.p_value < fisher.p_value
    assert pearson.p_value < yates.p_value
    n = 149
    shortcut = n * (abs(10 * 92 - 8 * 39) - n / 2) ** 2 / (18 * 131 * 49 * 100)
    assert yates.statistic == pytest.approx(shortcut)


def test_fisher_sums_the_hypergeometric():
    support = np.arange(0, 9)
    pmf = scipy.stats.hypergeom(20, 8, 9).pmf(support)
    expected = pmf[pmf <= pmf[6] * (1 + 1e-7)].sum()
    assert hyp.fisher_exact([[6, 2], [3, 9]]).p_value == pytest.approx(expected)


def test_pooled_t_by_hand():
    rng = np.random.default_rng(1)
    a, b = rng.normal(65.6, 11.5, 141), rng.normal(60.7, 10.2, 785)
    pooled = np.sqrt((140 * a.var(ddof=1) + 784 * b.var(ddof=1)) / 924)
    expected = (a.mean() - b.mean()) / (pooled * np.sqrt(1 / 141 + 1 / 785))
    result = hyp.t_test(a, b)
    assert (result.statistic, result.df) == pytest.approx((expected, 924))
    welch = hyp.t_test(a, b, equal_variances=False)
    assert welch.statistic == pytest.approx((a.mean() - b.mean()) / np.sqrt(a.var(ddof=1) / 141 + b.var(ddof=1) / 785))
    assert welch.df < 924


def test_rank_sum_by_hand_with_ties():
    a, b = np.array([1.0, 2, 2, 3, 5]), np.array([2.0, 4, 5, 5, 6, 7])
    u = ((a[:, None] > b) + 0.5 * (a[:, None] == b)).sum()
    _, ties = np.unique(np.concatenate([a, b]), return_counts=True)
    n = 11
    sd = np.sqrt(5 * 6 / 12 * ((n + 1) - (ties**3 - ties).sum() / (n * (n - 1))))
    z = (abs(u - 15) - 0.5) / sd
    result = hyp.rank_sum(a, b)
    assert result.statistic == u
    assert result.p_value == pytest.approx(2 * scipy.stats.norm.sf(z))


def test_tests_hold_their_level():
    rng = np.random.default_rng(9)
    rejected = np.zeros(3)
    for _ in range(600):
        a, b = rng.normal(size=30), rng.normal(size=50)
        counts = [[k, 60 - k] for k in rng.binomial(60, 0.4, 2)]
        p_values = [hyp.t_test(a, b).p_value, hyp.rank_sum(a, b).p_value, hyp.chi_square(counts).p_value]
        rejected += np.array(p_values) < 0.05
    # Three standard errors of 600 trials: 0.027.
    assert np.abs(rejected / 600 - 0.05).max() < 0.027


def test_standardised_differences():
    rng = np.random.default_rng(2)
    a, b = rng.normal(1, 2, 50_000), rng.normal(0, 2, 50_000)
    assert hyp.smd_means(a, b) == pytest.approx(0.5, abs=0.02)
    assert hyp.smd_shares(0.3, 0.5) == -hyp.smd_shares(0.5, 0.3)
    assert np.isnan(hyp.smd_shares(1, 0))
    assert np.isnan(hyp.smd_means([1], [1, 2]))


def test_undefined_tests_are_nan():
    for result in (
        hyp.t_test([1], [1, 2]),
        hyp.t_test([1, 1], [1, 1]),
        hyp.rank_sum([1, 1], [1, 1]),
        hyp.chi_square([[0, 0], [3, 4]]),
        hyp.fisher_exact([[0, 3], [0, 4]]),
    ):
        assert np.isnan(result.p_value)


@pytest.mark.parametrize("counts", [[[1, 2]], [[1, -1], [2, 3]], [[1.5, 2], [2, 3]], [[1, np.nan], [2, 3]], [1, 2]])
def test_counts_are_whole_numbers(counts):
    with pytest.raises(ValueError, match="2 x 2 non-negative"):
        hyp.chi_square(counts)


def test_missing_values_are_refused():
    with pytest.raises(ValueError, match="a: 1 of 2"):
        hyp.t_test([1, np.nan], [1, 2])
    with pytest.raises(ValueError, match="share_b"):
        hyp.smd_shares(0.5, 1.5)


discordant = st.integers(0, 40)


@settings(max_examples=60, deadline=None)
@given(discordant, discordant)
def test_mcnemar_by_all_its_kinds(only_first, only_second):
    table = [[7, only_second], [only_first, 9]]
    exact, mid_p, plain, corrected = (
        hyp.mcnemar(table, kind=kind).p_value for kind in ("exact", "mid_p", "chi_square", "corrected")
    )
    n = only_first + only_second
    if n == 0:
        assert (exact, mid_p) == (1, 1)
        assert np.isnan([plain, corrected]).all()
        return
    assert exact == pytest.approx(scipy.stats.binomtest(only_first, n, 0.5).pvalue)
    assert plain == pytest.approx(2 * scipy.stats.norm.sf(abs(only_first - only_second) / np.sqrt(n)))
    assert mid_p < exact or exact == mid_p == 1
    assert plain <= corrected
    # Pairs on which both agree say nothing; the order of the decisions does not matter.
    turned = [[100, only_first], [only_second, 0]]
    assert hyp.mcnemar(turned, kind="mid_p").p_value == pytest.approx(mid_p)


def test_mcnemar_holds_its_level():
    n, hits = 40, np.arange(41)
    weight = scipy.stats.binom.pmf(hits, n, 0.5)
    level = {}
    for kind in ("exact", "mid_p"):
        p = np.array([hyp.mcnemar([[0, k], [n - k, 0]], kind=kind).p_value for k in hits])
        level[kind] = weight[p <= 0.05].sum()
    assert level["exact"] <= level["mid_p"] <= 0.055
    assert level["exact"] <= 0.05


def test_mcnemar_refuses():
    with pytest.raises(ValueError, match="McNemar's test takes 2 x 2"):
        hyp.mcnemar([[1, 2, 3], [4, 5, 6]], kind="exact")
    with pytest.raises(ValueError, match="kind: found 'yates'; allowed: exact, mid_p, chi_square, corrected"):
        hyp.mcnemar([[1, 2], [3, 4]], kind="yates")


def test_holm_equals_its_definition():
    """R: p.adjust(c(0.01, 0.02, 0.03, 0.04), "holm") gives 0.04 0.06 0.06 0.06, of c(0.5, 0.9) it gives 1 1."""
    np.testing.assert_allclose(hyp.holm([0.01, 0.02, 0.03, 0.04]), [0.04, 0.06, 0.06, 0.06])
    np.testing.assert_allclose(hyp.holm([0.9, 0.5]), [1.0, 1.0])
    p_K = np.random.default_rng(4).uniform(size=30)
    adjusted_K, order = hyp.holm(p_K), np.argsort(p_K)
    for level in (0.01, 0.05, 0.3):
        rejected = 0
        while rejected < 30 and p_K[order[rejected]] <= level / (30 - rejected):
            rejected += 1
        assert (adjusted_K <= level).sum() == rejected
    assert hyp.holm([]).size == 0
    with pytest.raises(ValueError, match="from 0 to 1"):
        hyp.holm([0.5, 1.5])


def test_equal_values_have_no_spread_whatever_their_mean_rounds_to():
    tenths, fifths = [0.1] * 3, [0.2] * 3
    assert np.mean(tenths) != 0.1
    assert np.isnan(hyp.smd_means(tenths, fifths))
    assert np.isnan(hyp.t_test(tenths, fifths).p_value)
    for equal_variances in (True, False):
        ours = hyp.t_test(tenths, [0.2, 0.3, 0.4], equal_variances=equal_variances)
        theirs = scipy.stats.ttest_ind([0, 0, 0], [0.1, 0.2, 0.3], equal_var=equal_variances)
        assert (ours.statistic, ours.df, ours.p_value) == pytest.approx((theirs.statistic, theirs.df, theirs.pvalue))


def test_the_name_says_whether_yates_corrected():
    assert hyp.chi_square([[3, 1], [0, 1]], yates=True).name == "chi-square (Yates)"
    assert hyp.chi_square([[3, 1], [0, 1], [2, 2]], yates=True).name == "chi-square"

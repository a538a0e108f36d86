"""Tests of two groups as the paper's Table 1 uses them, of two paired decisions, and standardised differences.

Tests are two-sided.

Shapes: A and B rows of the groups.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from scipy import stats

from sarc_ray.stats.arrays import FloatArray, as_finite

McnemarKind = Literal["exact", "mid_p", "chi_square", "corrected"]


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupTest:
    """A two-sided test of two groups; what is not defined for a test or for the data is NaN."""

    name: str
    statistic: float
    df: float
    p_value: float


def t_test(a: npt.ArrayLike, b: npt.ArrayLike, *, equal_variances: bool = True) -> GroupTest:
    """Two-sample t-test of mean(a) - mean(b), pooled (as the paper) or Welch's.

    NaN where a group has fewer than two rows or neither group varies.

    Raises:
        ValueError: NaN or infinite values, an empty group.

    References:
        Student (1908); Welch BL (1947).

    >>> round(t_test([1, 2, 3], [2, 3, 4]).p_value, 4)
    0.2879
    """
    a_A, b_B = as_finite("a", a), as_finite("b", b)
    name = "t (pooled)" if equal_variances else "t (Welch)"
    if min(a_A.size, b_B.size) < 2:
        return _undefined(name)
    of_a, of_b = (_sd(values) ** 2 / values.size for values in (a_A, b_B))
    if of_a + of_b == 0:
        return _undefined(name)
    df = (of_a + of_b) ** 2 / (of_a**2 / (a_A.size - 1) + of_b**2 / (b_B.size - 1))
    if equal_variances:
        df = a_A.size + b_B.size - 2
    # From moments: of a group of equal values scipy would take the rounding of their mean for spread, and warn.
    result = stats.ttest_ind_from_stats(
        a_A.mean(), _sd(a_A), a_A.size, b_B.mean(), _sd(b_B), b_B.size, equal_var=equal_variances
    )
    return GroupTest(name=name, statistic=float(result[0]), df=float(df), p_value=float(result[1]))


def rank_sum(a: npt.ArrayLike, b: npt.ArrayLike) -> GroupTest:
    """Wilcoxon's rank-sum (Mann-Whitney) test: normal approximation, tie correction, continuity correction.

    The statistic is Mann-Whitney's U of ``a`` (ties half). NaN p-value where all values are equal.

    Raises:
        ValueError: NaN or infinite values, an empty group.

    References:
        Wilcoxon F (1945); Mann HB, Whitney DR (1947).

    >>> rank_sum([1, 2, 3], [4, 5, 6]).statistic
    0.0
    """
    a_A, b_B = as_finite("a", a), as_finite("b", b)
    name = "Wilcoxon rank-sum"
    if np.ptp(np.concatenate([a_A, b_B])) == 0:
        return _undefined(name)
    result = stats.mannwhitneyu(a_A, b_B, alternative="two-sided", method="asymptotic", use_continuity=True)
    return GroupTest(name=name, statistic=float(result.statistic), df=float("nan"), p_value=float(result.pvalue))


def chi_square(counts: npt.ArrayLike, *, yates: bool = False) -> GroupTest:
    """Pearson's chi-square test of independence, without Yates's correction unless asked.

    Args:
        counts: contingency table, shape (rows, columns).
        yates: continuity correction; applies to 2 x 2 tables only (the test's name says whether).

    Returns:
        NaN where a row or a column is empty.

    Raises:
        ValueError: not a table of at least 2 x 2 non-negative whole numbers.

    References:
        Pearson K (1900); Yates F (1934).

    >>> round(chi_square([[116, 25], [584, 201]]).p_value, 3)
    0.045
    """
    table = _as_table(counts)
    name = "chi-square (Yates)" if yates and table.shape == (2, 2) else "chi-square"
    if (table.sum(axis=0) == 0).any() or (table.sum(axis=1) == 0).any():
        return _undefined(name)
    result = stats.chi2_contingency(table, correction=yates)
    return GroupTest(name=name, statistic=float(result[0]), df=float(result[2]), p_value=float(result[1]))


def fisher_exact(counts: npt.ArrayLike) -> GroupTest:
    """Fisher's exact test of a 2 x 2 table: p sums the tables no more probable than the observed one.

    The statistic is the sample odds ratio. NaN where a row or a column is empty.

    Raises:
        ValueError: not 2 x 2 non-negative whole numbers.

    References:
        Fisher RA (1935). The logic of inductive inference.

    >>> round(fisher_exact([[3, 1], [1, 3]]).p_value, 4)
    0.4857
    """
    table = _as_table(counts)
    if table.shape != (2, 2):
        raise ValueError(f"counts: found shape {table.shape}; Fisher's test here takes 2 x 2 tables")
    if (table.sum(axis=0) == 0).any() or (table.sum(axis=1) == 0).any():
        return _undefined("Fisher exact")
    result = stats.fisher_exact(table.astype(np.int64))
    odds_ratio, p_value = float(result[0]), float(result[1])
    return GroupTest(name="Fisher exact", statistic=odds_ratio, df=float("nan"), p_value=p_value)


def mcnemar(counts: npt.ArrayLike, *, kind: McnemarKind) -> GroupTest:
    """McNemar's test that two decisions on the same patients flag equally often (two-sided).

    Only the discordant pairs count: b flagged by the first alone, c by the second alone.

    Args:
        counts: 2 x 2 table of patients; rows: first decision no, yes; columns: second decision no, yes. For
            sensitivities take patients with the outcome alone, for specificities those without.
        kind: ``exact``: p = 2 P(X <= min(b, c)), at most 1, X binomial (b + c, 1/2). ``mid_p``: half of the
            probability of the observed table is taken off each side; less conservative. ``chi_square``:
            (b - c)^2 / (b + c), 1 df; ``corrected``: (|b - c| - 1)^2 / (b + c), not below 0.

    Returns:
        The statistic is b / c for the exact kinds. Without discordant pairs these have p = 1; the others are NaN.

    Raises:
        ValueError: not 2 x 2 non-negative whole numbers, an unknown kind.

    References:
        McNemar Q (1947). Note on the sampling error of the difference between correlated proportions. Fagerland MW,
        Lydersen S, Laake P (2013). The McNemar test for binary matched-pairs data (mid-p).

    >>> round(mcnemar([[59, 6], [16, 80]], kind="exact").p_value, 6)
    0.052479
    >>> round(mcnemar([[59, 6], [16, 80]], kind="mid_p").p_value, 6)
    0.03469
    """
    table = _as_table(counts)
    if table.shape != (2, 2):
        raise ValueError(f"counts: found shape {table.shape}; McNemar's test takes 2 x 2 tables")
    if kind not in get_args(McnemarKind):
        raise ValueError(f"kind: found {kind!r}; allowed: {', '.join(get_args(McnemarKind))}")
    only_first, only_second = float(table[1, 0]), float(table[0, 1])
    n, name = only_first + only_second, f"McNemar ({kind})"
    if kind in ("exact", "mid_p"):
        fewer = min(only_first, only_second)
        p_value = 2 * float(stats.binom.cdf(fewer, n, 0.5))
        if kind == "mid_p":
            p_value -= float(stats.binom.pmf(fewer, n, 0.5))
        odds = only_first / only_second if only_second else float("inf" if only_first else "nan")
        return GroupTest(name=name, statistic=odds, df=float("nan"), p_value=min(1.0, p_value))
    if n == 0:
        return _undefined(name)
    gap = abs(only_first - only_second)
    statistic = (gap if kind == "chi_square" else max(gap - 1, 0)) ** 2 / n
    return GroupTest(name=name, statistic=statistic, df=1.0, p_value=float(stats.chi2.sf(statistic, 1)))


def smd_means(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Standardised mean difference (mean(a) - mean(b)) / sqrt((var(a) + var(b)) / 2), ddof 1.

    NaN where a group has fewer than two rows or neither varies.

    Raises:
        ValueError: NaN or infinite values, an empty group.

    References:
        Austin PC (2009). Balance diagnostics for comparing the distribution of baseline covariates.

    >>> smd_means([1, 2, 3], [2, 3, 4])
    -1.0
    """
    a_A, b_B = as_finite("a", a), as_finite("b", b)
    if min(a_A.size, b_B.size) < 2:
        return float("nan")
    pooled = float(np.sqrt((_sd(a_A) ** 2 + _sd(b_B) ** 2) / 2))
    return float(a_A.mean() - b_B.mean()) / pooled if pooled > 0 else float("nan")


def smd_shares(share_a: float, share_b: float) -> float:
    """Standardised difference of two proportions, (a - b) / sqrt((a (1 - a) + b (1 - b)) / 2).

    NaN where neither proportion varies (each 0 or 1).

    Raises:
        ValueError: a proportion outside [0, 1].

    References:
        Austin PC (2009).

    >>> round(smd_shares(0.6, 0.5), 4)
    0.202
    """
    for name, share in (("share_a", share_a), ("share_b", share_b)):
        if not 0 <= share <= 1:
            raise ValueError(f"{name}: found {share!r}; allowed: 0 to 1")
    pooled = float(np.sqrt((share_a * (1 - share_a) + share_b * (1 - share_b)) / 2))
    return (share_a - share_b) / pooled if pooled > 0 else float("nan")


def holm(p_values: npt.ArrayLike) -> FloatArray:
    """P-values adjusted for their number by Holm's step-down method, same order; shape (K,).

    The k-th smallest of K is multiplied by K - k + 1, and none is smaller than the one before it, or above 1. A
    hypothesis is rejected at a level where its adjusted p-value is at or below it; the chance of any false rejection
    among all K then stays at or below that level, whatever depends on what.

    Returns:
        NaN stays NaN and does not count.

    Raises:
        ValueError: not one-dimensional, or a value outside [0, 1].

    References:
        Holm S (1979). A simple sequentially rejective multiple test procedure. Scandinavian Journal of Statistics
        6:65-70.

    >>> holm([0.01, 0.04, 0.03, float("nan")])
    array([0.03, 0.06, 0.06,  nan])
    """
    p_K = np.asarray(p_values, dtype=np.float64)
    known = np.flatnonzero(~np.isnan(p_K))
    if p_K.ndim != 1 or np.any((p_K[known] < 0) | (p_K[known] > 1)):
        raise ValueError(f"p_values: found {p_values!r}; allowed: a list of numbers from 0 to 1")
    adjusted_K, rising = np.full(p_K.shape, np.nan), known[np.argsort(p_K[known], kind="stable")]
    scaled = p_K[rising] * np.arange(rising.size, 0, -1)
    adjusted_K[rising] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return adjusted_K


def _sd(values_A: FloatArray) -> float:
    """SD with ddof 1; exactly 0 for equal values, whose mean may be another number by rounding."""
    return float(values_A.std(ddof=1)) if np.ptp(values_A) > 0 else 0.0


def _undefined(name: str) -> GroupTest:
    return GroupTest(name=name, statistic=float("nan"), df=float("nan"), p_value=float("nan"))


def _as_table(counts: npt.ArrayLike) -> FloatArray:
    table = np.asarray(counts, dtype=np.float64)
    whole = np.isfinite(table).all() and (table >= 0).all() and (table == np.floor(table)).all()
    if table.ndim != 2 or min(table.shape) < 2 or not whole:
        raise ValueError(f"counts: expected a table of at least 2 x 2 non-negative whole numbers, found {counts!r}")
    return table

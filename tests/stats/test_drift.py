"""Stability index and distance on counts, against scipy and against what is known in closed form."""

import numpy as np
import pytest
from scipy import stats

from sarc_ray.stats.drift import (
    coarse_cells,
    distance_p_value,
    grid_distance,
    stability_index,
    stability_p_value,
)


def counts_at(edges, values):
    return np.bincount(np.searchsorted(edges, values, side="left"), minlength=len(edges) + 1)


def test_the_index_is_both_directions_of_relative_entropy():
    rng = np.random.default_rng(1)
    for _ in range(20):
        p, q = rng.integers(1, 1000, (2, 8))
        expected = stats.entropy(p, q) + stats.entropy(q, p)
        assert stability_index(p, q) == pytest.approx(expected, rel=1e-12)
        assert stability_index(q, p) == pytest.approx(expected, rel=1e-12)
    assert stability_index([3, 4, 5], [6, 8, 10]) == pytest.approx(0.0, abs=1e-15)


def test_the_index_by_hand():
    # (0.4 - 0.5) ln 0.8 + (0.3 - 0.2) ln 1.5, as anyone can compute it.
    assert stability_index([50, 30, 20], [40, 30, 30]) == pytest.approx(-0.1 * np.log(0.8) + 0.1 * np.log(1.5))


def test_an_empty_cell_counts_half_and_one_empty_on_both_sides_not_at_all():
    by_hand = (0.1 - 0.005) * np.log(0.1 / 0.005) + (0.9 - 1.0) * np.log(0.9)
    assert stability_index([100, 0, 0], [90, 10, 0]) == pytest.approx(by_hand)


@pytest.mark.parametrize("shift", [0.2, 0.3162, 0.5])
def test_a_shift_of_a_normal_distribution_has_its_known_index_and_distance(shift):
    """The square of the shift; 2 Phi(d / 2) - 1. So 0.1 and 0.25 of the one are about 0.125 and 0.2 of the other."""
    edges = stats.norm.ppf(np.arange(1, 2000) / 2000)
    p = np.diff(stats.norm.cdf(edges), prepend=0, append=1) * 1e9
    q = np.diff(stats.norm.cdf(edges - shift), prepend=0, append=1) * 1e9
    assert stability_index(p, q) == pytest.approx(shift**2, rel=0.02)
    assert grid_distance(p, q).distance == pytest.approx(2 * stats.norm.cdf(shift / 2) - 1, abs=1e-3)


def test_the_index_of_unmoved_samples_follows_its_distribution():
    """Rejected at 5% in 5% of pairs, and mean (B - 1)(1 / n + 1 / m)."""
    rng = np.random.default_rng(2)
    p = np.full(10, 0.1)
    n, m = 5000, 500
    pairs = [(rng.multinomial(n, p), rng.multinomial(m, p)) for _ in range(4000)]
    found = np.array([stability_index(a, b) for a, b in pairs])
    p_values = np.array([stability_p_value(x, n_reference=n, n_current=m, n_cells=10) for x in found])
    assert found.mean() == pytest.approx(9 * (1 / n + 1 / m), rel=0.05)
    assert (p_values < 0.05).mean() == pytest.approx(0.05, abs=0.01)


def test_the_distance_on_a_fine_grid_is_that_of_scipy():
    rng = np.random.default_rng(3)
    a, b = rng.normal(0, 1, 700), rng.normal(0.15, 1.1, 300)
    expected = stats.ks_2samp(a, b, method="asymp")
    found = grid_distance(*(counts_at(np.unique(np.append(a, b)), x) for x in (a, b)))
    assert found.distance == pytest.approx(expected.statistic, abs=1e-12)
    assert found.margin == 0
    p_value = distance_p_value(found.distance, n_reference=700, n_current=300)
    assert p_value == pytest.approx(expected.pvalue, rel=1e-9)


def test_a_coarse_grid_hides_no_more_than_it_says():
    rng = np.random.default_rng(4)
    for _ in range(200):
        a, b = rng.normal(0, 1, 400), rng.normal(rng.normal(0, 0.3), rng.uniform(0.8, 1.2), 250)
        found = grid_distance(*(counts_at(np.quantile(a, np.arange(1, 20) / 20), x) for x in (a, b)))
        exact = stats.ks_2samp(a, b).statistic
        assert found.distance <= exact + 1e-12
        assert exact <= found.distance + found.margin + 1e-12
        assert found.margin < 0.15


def test_coarse_cells_hold_equal_shares_of_the_reference():
    counts = np.full(200, 7)
    cells = coarse_cells(counts, 10)
    assert np.bincount(cells, weights=counts).tolist() == [140.0] * 10
    assert coarse_cells([0, 0, 5, 5, 90, 0], 10).tolist() == [0, 0, 0, 0, 1, 1]
    uneven = np.random.default_rng(5).integers(0, 9, 50) + 1
    assert set(np.diff(coarse_cells(uneven, 7))) == {0, 1}


def test_nothing_to_compare_is_nan():
    assert np.isnan(stability_index([0, 0], [1, 2]))
    assert np.isnan(grid_distance([1, 2], [0, 0]).distance)
    assert np.isnan(stability_p_value(0.1, n_reference=10, n_current=10, n_cells=1))
    assert np.isnan(distance_p_value(float("nan"), n_reference=10, n_current=10))


@pytest.mark.parametrize("pair", [([1], [1]), ([1, 2], [1, 2, 3]), ([1, -1], [1, 1]), ([1, np.inf], [1, 1])])
def test_other_counts_are_refused(pair):
    with pytest.raises(ValueError, match="counts: found"):
        stability_index(*pair)
    with pytest.raises(ValueError, match="counts: found"):
        grid_distance(*pair)


def test_units_must_be_there():
    with pytest.raises(ValueError, match="n_reference, n_current: found 0 and 5"):
        stability_p_value(0.1, n_reference=0, n_current=5, n_cells=3)
    with pytest.raises(ValueError, match="n_reference, n_current: found 5 and 0"):
        distance_p_value(0.1, n_reference=5, n_current=0)


@pytest.mark.parametrize(("counts", "n_cells"), [([0, 0], 2), ([-1, 1], 2), ([1, 1], 0), ([np.nan, 1], 2)])
def test_coarse_cells_need_counts(counts, n_cells):
    with pytest.raises(ValueError, match="counts"):
        coarse_cells(counts, n_cells)


@pytest.mark.parametrize("distance", [-0.1, 1.5])
def test_a_distance_is_a_difference_of_shares(distance):
    with pytest.raises(ValueError, match="distance: found"):
        distance_p_value(distance, n_reference=10, n_current=10)

"""Cells instead of rows, and influences: both against their definitions."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from sarc_ray.stats import bootstrap, discrimination, scored_sample
from sarc_ray.stats.resampling import plan_blocks


def rows(seed: int, n: int, decimals: int):
    rng = np.random.default_rng(seed)
    label = (rng.random(n) < 0.3).astype(int)
    score = np.clip(np.round(0.4 + 0.1 * label + rng.normal(0, 0.15, n), decimals), 0, 1)
    return label, score, rng.random(n) < score


@pytest.mark.parametrize("decimals", [1, 2, 9])
def test_influence_is_the_derivative_by_a_rows_weight(decimals):
    sample = scored_sample.prepare_sample(*rows(1, 60, decimals))
    step, ones = 1e-6, np.ones((1, 60))
    up_N9 = scored_sample.metrics_of_counts(sample, ones + step * np.eye(60))
    down_N9 = scored_sample.metrics_of_counts(sample, ones - step * np.eye(60))
    influence_N9 = np.stack(list(scored_sample.influences(sample)), axis=1)
    np.testing.assert_allclose(influence_N9, (up_N9 - down_N9) / (2 * step), atol=1e-8)
    np.testing.assert_allclose(influence_N9.sum(axis=0), 0, atol=1e-13)


def test_influence_is_close_to_leaving_a_row_out():
    sample = scored_sample.prepare_sample(*rows(2, 400, 2))
    left_out_N9 = scored_sample.metrics_of_counts(sample, 1 - np.eye(400))
    influence_N9 = np.stack(list(scored_sample.influences(sample)), axis=1)
    for k, name in enumerate(scored_sample.METRICS):
        jackknife_N = left_out_N9[:, k].mean() - left_out_N9[:, k]
        assert np.corrcoef(jackknife_N, influence_N9[:, k])[0, 1] > 0.999, name


def test_influences_on_the_auroc_give_delongs_variance():
    label, score, flag = rows(3, 300, 2)
    sample = scored_sample.prepare_sample(label, score, flag)
    influence_N = next(scored_sample.influences(sample))
    # DeLong divides by n - 1 within each class, the influences by n.
    classes = [influence_N[sample.positive_N], influence_N[~sample.positive_N]]
    variance = sum(np.sum(part**2) * part.size / (part.size - 1) for part in classes)
    assert variance == pytest.approx(discrimination.delong_variance(label, score), rel=1e-10)


def test_undefined_metrics_have_undefined_influences():
    sample = scored_sample.prepare_sample([0, 0], [0.1, 0.2], [0, 0])
    influence = dict(zip(scored_sample.METRICS, scored_sample.influences(sample), strict=True))
    assert not np.isfinite(influence["auroc"]).any()
    assert np.isnan(influence["mcc"]).all()
    assert np.isfinite(influence["brier"]).all()


def test_alike_rows_become_cells_with_the_same_figures(monkeypatch):
    label, score, flag = rows(4, 9000, 1)
    cells = scored_sample.prepare_sample(label, score, flag)
    assert cells.size_N.size <= 44
    assert cells.size_N.sum() == 9000
    monkeypatch.setattr(scored_sample, "_ROWS_FOR_CELLS", 10**9)
    single = scored_sample.prepare_sample(label, score, flag)
    assert single.size_N.size == 9000
    np.testing.assert_allclose(
        scored_sample.estimate_metrics(cells), scored_sample.estimate_metrics(single), rtol=1e-12
    )
    for of_cells, of_rows in zip(scored_sample.influences(cells), scored_sample.influences(single), strict=True):
        for power in (2, 3):
            assert cells.size_N @ of_cells**power == pytest.approx(np.sum(of_rows**power), rel=1e-9)
    drawn = [
        np.concatenate([scored_sample.replicate_metrics(sample, block) for block in plan_blocks(1500, seed=5)])
        for sample in (cells, single)
    ]
    # Standard errors of 1,500 replicates are known to 1.8% each.
    np.testing.assert_allclose(drawn[0].std(axis=0), drawn[1].std(axis=0), rtol=0.1)
    np.testing.assert_allclose(drawn[0].mean(axis=0), drawn[1].mean(axis=0), atol=4 * drawn[1].std(axis=0).max() / 38)


def test_bootstrap_spread_is_that_of_the_influences():
    sample = scored_sample.prepare_sample(*rows(6, 2000, 2))
    drawn = np.concatenate([scored_sample.replicate_metrics(sample, block) for block in plan_blocks(2000, seed=5)])
    expected = [np.sqrt(np.sum(influence_N**2)) for influence_N in scored_sample.influences(sample)]
    np.testing.assert_allclose(drawn.std(axis=0), expected, rtol=0.06)


def test_memory_does_not_grow_with_replicates():
    label, score, flag = rows(7, 50_000, 9)

    def peak(n_boot, patient):
        tracemalloc.start()
        bootstrap.bootstrap_metrics(label, score, flag, n_boot=n_boot, confidence_level=0.9, seed=1, patient=patient)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    for patient in (None, np.arange(50_000) // 3):
        assert peak(150, patient) < 1.05 * peak(10, patient)

from __future__ import annotations

import itertools
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from sarc_ray.stats import bootstrap, discrimination


def cohort(seed: int, n: int = 189, decimals: int = 2):
    rng = np.random.default_rng(seed)
    label = (rng.random(n) < 0.17).astype(int)
    score = np.clip(np.round(0.15 + 0.15 * label + rng.normal(0, 0.12, n), decimals), 0, 1)
    return label, score, score >= 0.2


def paper_internal():
    """Rows with the internal test set's confusion matrix: TP 27, FP 41, FN 5, TN 116."""
    label = np.repeat([1, 0, 1, 0], [27, 41, 5, 116])
    flag = np.repeat([1, 1, 0, 0], [27, 41, 5, 116])
    return label, np.where(flag == 1, 0.4, 0.1), flag


def direct_metrics(label, score, flag):
    cells = discrimination.confusion_from_flags(label, flag)
    named = [float(getattr(discrimination, name)(cells)) for name in bootstrap.METRICS[2:8]]
    areas = [discrimination.auroc(label, score), discrimination.auprc(label, score)]
    return np.array([*areas, *named, np.mean((score - label) ** 2)])


@pytest.mark.parametrize("decimals", [1, 2, 8])
def test_estimates_equal_the_direct_functions(decimals):
    label, score, flag = cohort(1, decimals=decimals)
    estimate = bootstrap.estimate_metrics(bootstrap.prepare_sample(label, score, flag))
    np.testing.assert_allclose(estimate, direct_metrics(label, score, flag), rtol=1e-12)
    assert estimate[8] == pytest.approx(sklearn.metrics.brier_score_loss(label, score))


@pytest.mark.parametrize("clustered", [False, True])
def test_replicates_equal_recomputing_on_the_drawn_rows(clustered):
    # Flags that contradict the score prove that they are taken as given.
    label, score, flag = cohort(2, n=60, decimals=1)
    flag = np.random.default_rng(0).random(60) < 0.4
    patient = np.random.default_rng(1).integers(0, 25, 60) if clustered else None
    sample = bootstrap.prepare_sample(label, score, flag, patient=patient)
    [block] = bootstrap.plan_blocks(20, seed=3)
    replicates = bootstrap.replicate_metrics(sample, block)
    units, unit = np.unique(np.arange(60) if patient is None else patient, return_inverse=True)
    # The kernel numbers unclustered units by falling score.
    order = np.lexsort((label == 0, -score)) if patient is None else np.arange(60)
    rng = np.random.default_rng(block.seed)
    for row, drawn in zip(replicates, rng.integers(0, units.size, size=(20, units.size)), strict=True):
        rows = order[np.concatenate([np.flatnonzero(unit == u) for u in drawn])]
        np.testing.assert_allclose(row, direct_metrics(label[rows], score[rows], flag[rows]), rtol=1e-10)


def test_internal_ppv_interval_of_the_paper():
    # Percentile, unstratified: 0.282 to 0.515 by 2,000 replicates (the paper prints 0.288 to 0.514; a stratified
    # bootstrap gives 0.329 to 0.476).
    interval = bootstrap.bootstrap_metrics(*paper_internal(), n_boot=20_000, confidence_level=0.95, seed=1)["ppv"]
    assert interval.estimate == pytest.approx(27 / 68)
    assert interval.ci_low == pytest.approx(0.282, abs=0.006)
    assert interval.ci_high == pytest.approx(0.515, abs=0.006)


def test_answer_does_not_depend_on_workers():
    label, score, flag = cohort(4)

    def in_threads(function, blocks):
        with ThreadPoolExecutor(3) as pool:
            return list(pool.map(function, blocks))

    def last_first(function, blocks):
        return [function(block) for block in blocks[::-1]][::-1]

    settings = {"n_boot": 230, "confidence_level": 0.95, "seed": 9}
    results = [
        bootstrap.bootstrap_metrics(label, score, flag, **settings, map_blocks=way)
        for way in (map, in_threads, last_first)
    ]
    assert results[0] == results[1] == results[2]
    other = bootstrap.bootstrap_metrics(label, score, flag, n_boot=230, confidence_level=0.95, seed=10)
    assert other["auroc"] != results[0]["auroc"]


def test_sample_and_blocks_travel():
    sample = bootstrap.prepare_sample(*cohort(4))
    block = bootstrap.plan_blocks(60, seed=2)[1]
    there = bootstrap.replicate_metrics(pickle.loads(pickle.dumps(sample)), pickle.loads(pickle.dumps(block)))  # noqa: S301
    np.testing.assert_array_equal(there, bootstrap.replicate_metrics(sample, block))


def test_standard_error_of_a_share():
    # Sensitivity resampled over patients: conditional on the drawn positives, binomial; SE close to sqrt(pq/n).
    label, flag = np.repeat([1, 0], [400, 400]), np.repeat([1, 0, 0], [300, 100, 400])
    sample = bootstrap.prepare_sample(label, flag * 0.5, flag)
    replicates = np.concatenate([bootstrap.replicate_metrics(sample, b) for b in bootstrap.plan_blocks(4000, seed=5)])
    column = replicates[:, bootstrap.METRICS.index("sensitivity")]
    assert column.mean() == pytest.approx(0.75, abs=0.002)
    assert column.std() == pytest.approx(np.sqrt(0.75 * 0.25 / 400), rel=0.05)


def test_clusters_of_copies_equal_no_clusters():
    label, score, flag = cohort(6, n=150)
    alone = bootstrap.bootstrap_metrics(label, score, flag, n_boot=4000, confidence_level=0.9, seed=1)
    thrice = [np.repeat(x, 3) for x in (label, score, flag)]
    copies = bootstrap.bootstrap_metrics(
        *thrice, n_boot=4000, confidence_level=0.9, seed=2, patient=np.repeat(np.arange(150), 3)
    )
    ignored = bootstrap.bootstrap_metrics(*thrice, n_boot=4000, confidence_level=0.9, seed=2)
    for name in ("auroc", "specificity", "brier"):
        width = alone[name].ci_high - alone[name].ci_low
        assert copies[name].estimate == pytest.approx(alone[name].estimate)
        assert copies[name].ci_high - copies[name].ci_low == pytest.approx(width, rel=0.1)
        assert ignored[name].ci_high - ignored[name].ci_low < 0.7 * width


def test_degenerate_replicates_are_counted():
    label, score = [1, 0, 0, 0], [0.9, 0.1, 0.2, 0.3]
    result = bootstrap.bootstrap_metrics(label, score, [1, 0, 0, 0], n_boot=4000, confidence_level=0.95, seed=1)
    # No positive is drawn with probability (3/4)^4, no negative with (1/4)^4.
    expected = 4000 * (0.75**4 + 0.25**4)
    assert result["auroc"].n_degenerate == pytest.approx(expected, abs=4 * np.sqrt(expected))
    assert result["brier"].n_degenerate == 0
    assert result["auroc"].n_boot == 4000


def test_one_class_gives_nan_not_an_error():
    result = bootstrap.bootstrap_metrics([0, 0], [0.1, 0.2], [0, 1], n_boot=60, confidence_level=0.95, seed=1)
    assert np.isnan([result["auroc"].estimate, result["auroc"].ci_low]).all()
    assert result["auroc"].n_degenerate == 60
    assert result["specificity"].estimate == 0.5


def test_buckets_draw_the_same_distribution(monkeypatch):
    # Counts over 5 units, by buckets of 2: every outcome as frequent as the multinomial says.
    monkeypatch.setattr(bootstrap, "_UNITS_PER_BUCKET", 2)
    rng = np.random.default_rng(8)
    seen: dict[tuple[int, ...], int] = {}
    for counts in bootstrap._multinomial_counts(30_000, 5, rng=rng):
        assert counts.sum() == 5
        seen[tuple(counts.tolist())] = seen.get(tuple(counts.tolist()), 0) + 1
    outcomes = [c for c in itertools.product(range(6), repeat=5) if sum(c) == 5]
    expected = scipy.stats.multinomial(5, [0.2] * 5).pmf(outcomes) * 30_000
    observed = [seen.get(outcome, 0) for outcome in outcomes]
    assert scipy.stats.chisquare(observed, expected).pvalue > 1e-4


def test_large_samples_keep_their_mean_and_spread():
    counts = bootstrap._multinomial_counts(3, 50_000, rng=np.random.default_rng(1))
    assert counts.sum(axis=1).tolist() == [50_000] * 3
    assert counts.var() == pytest.approx(1, rel=0.03)


def test_means_bootstrap_knows_the_standard_error():
    rng = np.random.default_rng(3)
    x = rng.normal(5, 2, 400)
    interval = bootstrap.bootstrap_means(
        np.column_stack([x, x**2]),
        lambda means: np.column_stack([means[:, 0], np.sqrt(means[:, 1] - means[:, 0] ** 2)]),
        ["mean", "sd"],
        n_boot=4000,
        confidence_level=0.95,
        seed=2,
    )
    assert interval["mean"].estimate == pytest.approx(x.mean())
    assert interval["sd"].estimate == pytest.approx(x.std())
    width = interval["mean"].ci_high - interval["mean"].ci_low
    assert width == pytest.approx(2 * 1.96 * x.std() / 20, rel=0.05)


@pytest.mark.parametrize("clustered", [False, True])
def test_generic_statistic_equals_the_means_bootstrap(clustered):
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=80), rng.normal(size=80)
    settings = {
        "n_boot": 130,
        "confidence_level": 0.9,
        "seed": 2,
        "patient": np.repeat(np.arange(40), 2) if clustered else None,
    }
    general = bootstrap.bootstrap_statistic(lambda a, b: float(np.mean(np.abs(a) - np.abs(b))), [a, b], **settings)
    means = bootstrap.bootstrap_means((np.abs(a) - np.abs(b))[:, None], lambda m: m, ["d"], **settings)["d"]
    assert (general.estimate, general.ci_low, general.ci_high) == pytest.approx(
        (means.estimate, means.ci_low, means.ci_high)
    )


def test_percentile_interval_covers_as_often_as_it_says():
    rng, hits = np.random.default_rng(20), 0
    for trial in range(300):
        label = np.repeat([0, 1], [60, 40])
        score = scipy.stats.norm.cdf(label + rng.normal(size=100))
        interval = bootstrap.bootstrap_metrics(
            label, score, score > 0.7, n_boot=300, confidence_level=0.9, seed=[20, trial]
        )["auroc"]
        hits += interval.ci_low <= 0.7602499389 <= interval.ci_high
    # Three standard errors of 300 trials, and a small-sample bias of the percentile interval.
    assert abs(hits / 300 - 0.9) < 0.055


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score": [0.1, 1.2]}, "probability lies within"),
        ({"flag": [0, 2]}, "flag: found 2"),
        ({"label": [0, np.nan]}, "label: 1 of 2"),
        ({"n_boot": 0}, "n_boot: found 0"),
        ({"confidence_level": 1.0}, "confidence_level: found 1.0"),
        ({"patient": ["a"]}, "patient: expected shape"),
    ],
)
def test_wrong_input_is_refused(change, message):
    arguments = {"label": [0, 1], "score": [0.1, 0.2], "flag": [0, 1], "n_boot": 10, "confidence_level": 0.9, "seed": 1}
    with pytest.raises(ValueError, match=message):
        bootstrap.bootstrap_metrics(**(arguments | change))

from __future__ import annotations

import collections
import itertools
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from sarc_ray.stats import bootstrap, discrimination, resampling, scored_sample


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
    estimate = scored_sample.estimate_metrics(scored_sample.prepare_sample(label, score, flag))
    np.testing.assert_allclose(estimate, direct_metrics(label, score, flag), rtol=1e-12)
    assert estimate[8] == pytest.approx(sklearn.metrics.brier_score_loss(label, score))


@pytest.mark.parametrize("clustered", [False, True])
def test_replicates_equal_recomputing_on_the_drawn_rows(clustered):
    # Flags that contradict the score prove that they are taken as given.
    label, score, flag = cohort(2, n=60, decimals=1)
    flag = np.random.default_rng(0).random(60) < 0.4
    patient = np.random.default_rng(1).integers(0, 25, 60) if clustered else None
    sample = scored_sample.prepare_sample(label, score, flag, patient=patient)
    [block] = resampling.plan_blocks(20, seed=3)
    replicates = scored_sample.replicate_metrics(sample, block)
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


@pytest.mark.parametrize(("n", "decimals"), [(189, 2), (9000, 9), (9000, 2)])
def test_answer_does_not_depend_on_workers(n, decimals):
    # Each number of rows and ties draws in a way of its own.
    label, score, flag = cohort(4, n=n, decimals=decimals)

    def in_threads(function, blocks):
        with ThreadPoolExecutor(3) as pool:
            return list(pool.map(function, blocks))

    def last_first(function, blocks):
        return [function(block) for block in blocks[::-1]][::-1]

    settings = {"n_boot": 130, "confidence_level": 0.95, "seed": 9}
    results = [
        bootstrap.bootstrap_metrics(label, score, flag, **settings, map_blocks=way)
        for way in (map, in_threads, last_first)
    ]
    assert results[0] == results[1] == results[2]
    other = bootstrap.bootstrap_metrics(label, score, flag, n_boot=130, confidence_level=0.95, seed=10)
    assert other["auroc"] != results[0]["auroc"]


def test_sample_and_blocks_travel():
    sample = scored_sample.prepare_sample(*cohort(4))
    block = resampling.plan_blocks(60, seed=2)[1]
    there = scored_sample.replicate_metrics(pickle.loads(pickle.dumps(sample)), pickle.loads(pickle.dumps(block)))  # noqa: S301
    np.testing.assert_array_equal(there, scored_sample.replicate_metrics(sample, block))


def test_standard_error_of_a_share():
    # Sensitivity resampled over patients: conditional on the drawn positives, binomial; SE close to sqrt(pq/n).
    label, flag = np.repeat([1, 0], [400, 400]), np.repeat([1, 0, 0], [300, 100, 400])
    sample = scored_sample.prepare_sample(label, flag * 0.5, flag)
    replicates = np.concatenate(
        [scored_sample.replicate_metrics(sample, b) for b in resampling.plan_blocks(4000, seed=5)]
    )
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


def drawn_counts(n_replicates, n_units, seed):
    block = resampling.Block(n_replicates=n_replicates, seed=np.random.SeedSequence(seed))
    return np.concatenate([counts.copy() for counts in resampling.draw_units(block, n_units, n_rows=n_units)])


def multinomial_p_value(counts_BU, shares):
    """Of the chi-square test that every outcome of 5 draws is as frequent as the multinomial says."""
    outcomes = [c for c in itertools.product(range(6), repeat=len(shares)) if sum(c) == 5]
    expected = scipy.stats.multinomial(5, shares).pmf(outcomes) * len(counts_BU)
    seen = collections.Counter(map(tuple, counts_BU.astype(int).tolist()))
    assert sum(seen[outcome] for outcome in outcomes) == len(counts_BU)
    return scipy.stats.chisquare([seen[outcome] for outcome in outcomes], expected).pvalue


@pytest.mark.parametrize("size", [2, 4, 8192])
def test_buckets_draw_the_same_distribution(monkeypatch, size):
    # Buckets of 2 and of 4, with a rest of 1; and all units together.
    monkeypatch.setattr(resampling, "_UNITS_PER_BUCKET", size)
    assert multinomial_p_value(drawn_counts(8000, 5, seed=8), [0.2] * 5) > 1e-4


def test_cells_draw_the_same_distribution():
    block = resampling.Block(n_replicates=8000, seed=np.random.SeedSequence(3))
    counts_BN = np.concatenate(list(resampling.draw_cells(block, np.array([1, 3, 1]))))
    assert multinomial_p_value(counts_BN, [0.2, 0.6, 0.2]) > 1e-4


@pytest.mark.parametrize("n_units", [50_000, 16_384])
def test_large_samples_keep_their_mean_and_spread(n_units):
    counts_BU = drawn_counts(3, n_units, seed=1)
    assert counts_BU.sum(axis=1).tolist() == [n_units] * 3
    assert counts_BU.var() == pytest.approx(1, rel=0.03)


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
        ({"kind": "basic"}, "kind: found 'basic'; allowed: percentile, bca"),
    ],
)
def test_wrong_input_is_refused(change, message):
    arguments = {"label": [0, 1], "score": [0.1, 0.2], "flag": [0, 1], "n_boot": 10, "confidence_level": 0.9, "seed": 1}
    with pytest.raises(ValueError, match=message):
        bootstrap.bootstrap_metrics(**(arguments | change))


def test_bca_limits_equal_scipys_of_the_same_replicates():
    x = np.random.default_rng(5).exponential(size=40)
    result = scipy.stats.bootstrap((x,), np.mean, n_resamples=999, method="BCa", rng=np.random.default_rng(6))
    influence = x - x.mean()
    [ours] = bootstrap.summarise(
        ["mean"],
        np.array([x.mean()]),
        result.bootstrap_distribution[:, None],
        confidence_level=0.95,
        accelerations=[np.sum(influence**3) / (6 * np.sum(influence**2) ** 1.5)],
    ).values()
    assert (ours.ci_low, ours.ci_high) == pytest.approx(tuple(result.confidence_interval), rel=1e-12)


@pytest.mark.parametrize("clustered", [False, True])
def test_bca_of_all_engines_agree(clustered):
    # The Brier score is a mean: three engines, two of them by the jackknife, one by influences.
    label, score, flag = cohort(8, n=120)
    settings = {
        "n_boot": 400,
        "confidence_level": 0.9,
        "seed": 2,
        "kind": "bca",
        "patient": np.repeat(np.arange(40), 3) if clustered else None,
    }
    order = np.arange(120) if clustered else np.lexsort((label == 0, -score))
    label, score, flag = label[order], score[order], flag[order]
    squared = (score - label) ** 2
    fast = bootstrap.bootstrap_metrics(label, score, flag, **settings)["brier"]
    means = bootstrap.bootstrap_means(squared[:, None], lambda m: m, ["brier"], **settings)["brier"]
    general = bootstrap.bootstrap_statistic(lambda x: float(np.mean(x)), [squared], **settings)
    assert (means.ci_low, means.ci_high) == pytest.approx((general.ci_low, general.ci_high))
    assert (fast.ci_low, fast.ci_high) == pytest.approx((means.ci_low, means.ci_high))
    plain = bootstrap.bootstrap_metrics(label, score, flag, **(settings | {"kind": "percentile"}))["brier"]
    assert fast.ci_low > plain.ci_low
    assert fast.ci_high > plain.ci_high


def test_bca_follows_a_rising_transform():
    rng = np.random.default_rng(9)
    x = rng.gamma(2, size=(50, 1))
    settings = {"n_boot": 999, "confidence_level": 0.9, "seed": 2, "kind": "bca"}
    plain = bootstrap.bootstrap_means(x, lambda m: m, ["mean"], **settings)["mean"]
    bent = bootstrap.bootstrap_means(x, lambda m: m**3, ["cube"], **settings)["cube"]
    # The acceleration of a bent statistic is the same to first order only.
    assert (bent.ci_low, bent.ci_high) == pytest.approx((plain.ci_low**3, plain.ci_high**3), rel=0.02)


def test_bca_without_a_bias_correction_or_an_interval():
    # A perfect score: every replicate ties with the estimate, nothing has influence, the interval is a point.
    label, score = np.repeat([0, 1], 20), np.linspace(0.1, 0.9, 40)
    settings = {"n_boot": 200, "confidence_level": 0.9, "seed": 2, "kind": "bca"}
    perfect = bootstrap.bootstrap_metrics(label, score, score > 0.5, **settings)
    assert (perfect["auroc"].ci_low, perfect["auroc"].ci_high) == (1, 1)
    # All replicates on one side of the estimate: the bias correction would be infinite.
    [beyond] = bootstrap.summarise(
        ["x"], np.array([0.0]), np.arange(1.0, 9)[:, None], confidence_level=0.9, accelerations=[0.0]
    ).values()
    assert np.isnan([beyond.ci_low, beyond.ci_high]).all()
    assert np.isnan(bootstrap.bootstrap_means([[1.0], [1.0]], lambda m: m * np.nan, ["x"], **settings)["x"].ci_low)


def two_scores(seed, n):
    label, score_a, flag_a = cohort(seed, n=n)
    score_b = np.clip(np.round(0.5 * score_a + np.random.default_rng(seed).normal(0.1, 0.08, n), 2), 0, 1)
    return label, score_a, flag_a, score_b, score_b >= 0.2


@pytest.mark.parametrize("clustered", [False, True])
def test_differences_equal_recomputing_on_the_drawn_rows(clustered):
    label, score_a, flag_a, score_b, flag_b = two_scores(3, 60)
    patient = np.random.default_rng(1).integers(0, 25, 60) if clustered else np.arange(60)
    pair = scored_sample.prepare_pair(label, score_a, flag_a, score_b, flag_b, patient=patient)
    [block] = resampling.plan_blocks(20, seed=3)
    replicates = bootstrap.replicate_differences(*pair, block)
    units, unit = np.unique(patient, return_inverse=True)
    drawn_BU = np.random.default_rng(block.seed).integers(0, units.size, size=(20, units.size))
    for row, drawn in zip(replicates, drawn_BU, strict=True):
        rows = np.concatenate([np.flatnonzero(unit == u) for u in drawn])
        expected = direct_metrics(label[rows], score_a[rows], flag_a[rows])
        expected -= direct_metrics(label[rows], score_b[rows], flag_b[rows])
        np.testing.assert_allclose(row, expected, atol=1e-12)


@pytest.mark.parametrize("kind", ["percentile", "bca"])
def test_differences_are_symmetric_and_as_wide_as_delongs(kind):
    label, score_a, flag_a, score_b, flag_b = two_scores(4, 600)
    settings = {"n_boot": 2000, "confidence_level": 0.95, "seed": 2, "kind": kind}
    forth = bootstrap.bootstrap_differences(label, score_a, flag_a, score_b, flag_b, **settings)
    back = bootstrap.bootstrap_differences(label, score_b, flag_b, score_a, flag_a, **settings)
    for name in bootstrap.METRICS:
        assert forth[name].estimate == pytest.approx(-back[name].estimate)
        assert (forth[name].ci_low, forth[name].ci_high) == pytest.approx((-back[name].ci_high, -back[name].ci_low))
    delong = discrimination.delong_paired(label, score_a, score_b, confidence_level=0.95)
    assert forth["auroc"].estimate == pytest.approx(delong.difference)
    width = delong.ci_high - delong.ci_low
    assert forth["auroc"].ci_high - forth["auroc"].ci_low == pytest.approx(width, rel=0.12)


def test_differences_count_degenerate_replicates():
    # Score b flags one row alone: its PPV is undefined where this row is not drawn.
    label, score = np.repeat([0, 1], 10), np.linspace(0.1, 0.9, 20)
    result = bootstrap.bootstrap_differences(
        label, score, score > 0.5, score, score >= 0.9, n_boot=2000, confidence_level=0.95, seed=1
    )
    expected = 2000 * 0.95**20
    assert result["ppv"].n_degenerate == pytest.approx(expected, abs=4 * np.sqrt(expected))
    assert result["auroc"].n_degenerate == 0
    sample, [block] = scored_sample.prepare_sample(label, score, score > 0.5), resampling.plan_blocks(1, seed=1)
    with pytest.raises(ValueError, match="patients are not numbered"):
        bootstrap.replicate_differences(sample, sample, block)


@pytest.mark.slow
def test_bca_covers_better_than_percentile_where_the_statistic_is_skewed():
    # PPV of few flagged patients, 90% intervals of 1,000 trials each.
    hits, rng = {"percentile": 0, "bca": 0}, np.random.default_rng(2)
    for trial in range(1000):
        label = (rng.random(150) < 0.15).astype(int)
        flag = rng.random(150) < np.where(label == 1, 0.6, 0.2)
        for kind in hits:
            interval = bootstrap.bootstrap_metrics(
                label, flag * 0.5, flag, n_boot=1000, confidence_level=0.9, seed=[7, trial], kind=kind
            )["ppv"]
            hits[kind] += interval.ci_low <= 0.09 / 0.26 <= interval.ci_high
    assert abs(hits["bca"] / 1000 - 0.9) < 0.03
    assert abs(hits["bca"] - 900) <= abs(hits["percentile"] - 900) + 10


@pytest.mark.parametrize(
    "patient",
    [[1, 2, np.nan, np.nan], ["a", "b", None, "c"], [None] * 4, np.array(["NaT"] * 4, dtype="datetime64[D]")],
)
def test_a_missing_patient_is_refused_and_no_patient_of_its_own(patient):
    with pytest.raises(ValueError, match="missing"):
        bootstrap.bootstrap_metrics(
            [0, 0, 1, 1], [0.1, 0.4, 0.3, 0.8], [0, 1, 0, 1], patient=patient, n_boot=5, confidence_level=0.9, seed=1
        )


def test_the_only_patient_is_never_left_out():
    def largest(values):
        return float(values.max())

    rows = {"n_boot": 5, "confidence_level": 0.9, "seed": 1, "kind": "bca"}
    interval = bootstrap.bootstrap_statistic(largest, [[1.0, 2.0]], patient=["a", "a"], **rows)
    assert interval.estimate == 2
    assert np.isnan([interval.ci_low, interval.ci_high]).all()


def test_every_statistic_has_one_name():
    settings = {"n_boot": 5, "confidence_level": 0.9, "seed": 1}
    with pytest.raises(ValueError, match="names: found"):
        bootstrap.bootstrap_means([[1.0], [2.0]], lambda means: means, ["mean", "other"], **settings)
    with pytest.raises(ValueError, match="at least one row"):
        bootstrap.bootstrap_statistic(np.mean, [3.0], **settings)

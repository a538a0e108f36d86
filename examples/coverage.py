"""How often the intervals of sarc_ray.stats hold the truth: simulated samples of the sizes of a study.

Draws samples whose true figures are known (two normal classes, so that the score is calibrated and every metric has a
value in the population; pairs of measurement and prediction from a bivariate normal law), and counts in how many of
them a 95% interval holds the truth. Prints the table of docs/explanation/statistics.md as Markdown, in about five
minutes:

    python examples/coverage.py

Samples in which an interval is undefined (no patient with the outcome, nobody flagged) are left out and counted.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator

import numpy as np
from rich.console import Console
from scipy import special, stats

from sarc_ray.stats import agreement, bootstrap, calibration, discrimination, proportions
from sarc_ray.stats.arrays import Interval
from sarc_ray.stats.scored_sample import METRICS

LEVEL, PREVALENCE, THRESHOLD = 0.95, 0.17, 0.2
# Distance of the classes in standard deviations (AUROC 0.83), and the noise of a second, worse score.
DISTANCE, NOISE = 1.35, 0.7
# Predictions keep this correlation with the measurement, are too low by this much, and vary less.
CORRELATION, SHIFT, SCALE = 0.8, -0.2, 0.85

Found = tuple[str, float, Interval | bootstrap.BootstrapInterval]


def probability_of(x: np.ndarray) -> np.ndarray:
    """The posterior probability of the outcome, given the score on the scale of the classes."""
    return special.expit(special.logit(PREVALENCE) + DISTANCE * x - DISTANCE**2 / 2)


def true_metrics() -> dict[str, float]:
    """The nine metrics of Table 2 in the population."""
    cut = (special.logit(THRESHOLD) - special.logit(PREVALENCE) + DISTANCE**2 / 2) / DISTANCE
    sensitivity, specificity = stats.norm.sf(cut - DISTANCE), stats.norm.cdf(cut)
    tp, fn = PREVALENCE * sensitivity, PREVALENCE * (1 - sensitivity)
    tn, fp = (1 - PREVALENCE) * specificity, (1 - PREVALENCE) * (1 - specificity)
    grid = np.linspace(-9, 9 + DISTANCE, 400_001)
    positive, negative = PREVALENCE * stats.norm.pdf(grid - DISTANCE), (1 - PREVALENCE) * stats.norm.pdf(grid)
    above_positive, above_negative = PREVALENCE * stats.norm.sf(grid - DISTANCE), (1 - PREVALENCE) * stats.norm.sf(grid)
    precision = above_positive / (above_positive + above_negative)
    p = probability_of(grid)
    return {
        "auroc": stats.norm.cdf(DISTANCE / np.sqrt(2)),
        "auprc": float(np.trapezoid(precision * positive / PREVALENCE, grid)),
        "f1": 2 * tp / (2 * tp + fp + fn),
        "mcc": (tp * tn - fp * fn) / np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)),
        "sensitivity": sensitivity,
        "specificity": specificity,
        "ppv": tp / (tp + fp),
        "npv": tn / (tn + fn),
        "brier": float(np.trapezoid(positive * (1 - p) ** 2 + negative * p**2, grid)),
    }


def classified(n: int, n_boot: int, rng: np.random.Generator, truth: dict[str, float]) -> Iterator[Found]:
    """Intervals of discrimination, calibration and proportions of one sample."""
    label = (rng.random(n) < PREVALENCE).astype(int)
    x = rng.normal(size=n) + DISTANCE * label
    worse = x + rng.normal(0, NOISE, n)
    score = probability_of(x)
    flag = score >= THRESHOLD
    if 0 < label.sum() < n:
        yield "AUROC, DeLong", truth["auroc"], discrimination.auroc_interval(label, x, confidence_level=LEVEL)
        other = stats.norm.cdf(DISTANCE / np.sqrt(2 * (1 + NOISE**2)))
        compared = discrimination.delong_paired(label, x, worse, confidence_level=LEVEL)
        gap = _interval(compared.difference, compared)
        yield "difference of two AUROC, paired DeLong", truth["auroc"] - other, gap
        yield "calibration-in-the-large, Wald", 0.0, calibration.citl(label, score, confidence_level=LEVEL)
        yield "calibration slope, Wald", 1.0, calibration.cal_slope(label, score, confidence_level=LEVEL)
    cells = discrimination.confusion_from_flags(label, flag)
    ratio = truth["sensitivity"] / (1 - truth["specificity"])
    yield "positive likelihood ratio", ratio, proportions.positive_likelihood_ratio(cells, confidence_level=LEVEL)
    hits, positives = int(cells.tp), int(cells.tp + cells.fn)
    for name, make in (("Wilson", discrimination.wilson_interval), ("exact", proportions.exact_interval)):
        yield f"sensitivity, {name}", truth["sensitivity"], make(hits, positives, confidence_level=LEVEL)
    for kind in ("percentile", "bca"):
        found = bootstrap.bootstrap_metrics(
            label, score, flag, n_boot=n_boot, confidence_level=LEVEL, seed=int(rng.integers(2**31)), kind=kind
        )
        for metric in METRICS:
            yield f"{metric}, bootstrap {kind}", truth[metric], found[metric]


def measured(n: int, rng: np.random.Generator) -> Iterator[Found]:
    """Intervals of agreement of one sample."""
    covariance = CORRELATION * SCALE
    y, said = rng.multivariate_normal([0, SHIFT], [[1, covariance], [covariance, SCALE**2]], size=n).T
    concordance = agreement.concordance(y, said, confidence_level=LEVEL)
    truth = 2 * covariance / (1 + SCALE**2 + SHIFT**2)
    yield "Lin's CCC", truth, _interval(concordance.estimate, concordance)
    sd = np.sqrt(1 + SCALE**2 - 2 * covariance)
    limits = agreement.bland_altman(y, said, confidence_level=LEVEL)
    yield "Bland-Altman: bias", SHIFT, limits.bias
    yield "Bland-Altman: lower limit", SHIFT - stats.norm.ppf(0.975) * sd, limits.loa_low
    yield "Pearson", CORRELATION, agreement.pearson(y, said, confidence_level=LEVEL)
    rank = 6 / np.pi * np.arcsin(CORRELATION / 2)
    yield "Spearman", rank, agreement.spearman(y, said, confidence_level=LEVEL)


def _interval(estimate: float, holder: agreement.Concordance | discrimination.AurocComparison) -> Interval:
    return Interval(estimate=estimate, ci_low=holder.ci_low, ci_high=holder.ci_high)


def count(n: int, trials: int, n_boot: int, seed: int) -> tuple[Counter[str], Counter[str]]:
    """Trials whose interval holds the truth, and trials that have an interval, by name."""
    truth = true_metrics()
    hits, defined = Counter[str](), Counter[str]()
    for trial in range(trials):
        rng = np.random.default_rng([seed, n, trial])
        for name, value, interval in (*measured(n, rng), *classified(n, n_boot, rng, truth)):
            if np.isfinite(interval.ci_low) and np.isfinite(interval.ci_high):
                defined[name] += 1
                hits[name] += bool(interval.ci_low <= value <= interval.ci_high)
    return hits, defined


def cell(hits: int, defined: int, trials: int) -> str:
    """The share in per cent, and in how many samples the interval was undefined."""
    share = f"{100 * hits / defined:.1f}" if defined else "-"
    return share + (f" ({trials - defined} without)" if defined < trials else "")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[50, 189, 1000])
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--replicates", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    found = [count(n, options.trials, options.replicates, options.seed) for n in options.rows]
    console = Console()
    console.out("| 95% interval | " + " | ".join(f"n = {n}" for n in options.rows) + " |", highlight=False)
    console.out("| --- |" + " ---: |" * len(options.rows), highlight=False)
    for name in found[-1][1]:
        cells = [cell(hits[name], defined[name], options.trials) for hits, defined in found]
        console.out(f"| {name} | " + " | ".join(cells) + " |", highlight=False)


if __name__ == "__main__":
    main()

"""Time 2,000 bootstrap replicates of the nine metrics of Table 2: ours against a loop over scikit-learn.

Both run in this process, in turn; medians over repeats are printed. The loop is timed on fewer replicates where a
full run would take many minutes, and scaled.

    python benchmarks/bootstrap.py --rows 189
    python benchmarks/bootstrap.py --rows 1000000 --loop-replicates 2 --repeats 1
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import sklearn.metrics as sk

from sarc_ray.stats.bootstrap import bootstrap_metrics


def draw_rows(n, rows_per_patient, *, rng):
    label = (rng.random(n) < 0.15).astype(int)
    score = 1 / (1 + np.exp(-rng.normal(-2 + label, 1)))
    return label, score, score >= 0.2, np.arange(n) // rows_per_patient


def loop_over_scikit_learn(label, score, flag, n_boot, *, rng):
    replicates = []
    for _ in range(n_boot):
        rows = rng.integers(0, label.size, label.size)
        y, p, f = label[rows], score[rows], flag[rows]
        replicates.append(
            [
                sk.roc_auc_score(y, p),
                sk.average_precision_score(y, p),
                sk.f1_score(y, f),
                sk.matthews_corrcoef(y, f),
                sk.recall_score(y, f),
                sk.recall_score(y, f, pos_label=0),
                sk.precision_score(y, f),
                sk.precision_score(y, f, pos_label=0),
                sk.brier_score_loss(y, p),
            ]
        )
    return np.quantile(replicates, [0.025, 0.975], axis=0)


def seconds(function):
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=189)
    parser.add_argument("--rows-per-patient", type=int, default=1)
    parser.add_argument("--replicates", type=int, default=2000)
    parser.add_argument("--loop-replicates", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    rng = np.random.default_rng(1)
    label, score, flag, patient = draw_rows(options.rows, options.rows_per_patient, rng=rng)
    ours, loop = [], []
    for _ in range(options.repeats):
        ours.append(
            seconds(
                lambda: bootstrap_metrics(
                    label, score, flag, n_boot=options.replicates, confidence_level=0.95, seed=1, patient=patient
                )
            )
        )
        loop.append(
            seconds(lambda: loop_over_scikit_learn(label, score, flag, options.loop_replicates, rng=rng))
            * (options.replicates / options.loop_replicates)
        )
    ours_s, loop_s = statistics.median(ours), statistics.median(loop)
    print(f"rows {options.rows}, rows per patient {options.rows_per_patient}, replicates {options.replicates}")
    print(f"sarc-ray        {ours_s:10.3f} s")
    print(f"scikit-learn    {loop_s:10.3f} s  (scaled from {options.loop_replicates} replicates, rows as clusters)")
    print(f"ratio           {loop_s / ours_s:10.1f}")


if __name__ == "__main__":
    main()

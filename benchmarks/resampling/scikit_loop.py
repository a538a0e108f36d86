"""A loop over scikit-learn's nine metrics. Arguments: folder of rows.npz, replicates; prints seconds and limits."""

import json
import sys
import time
from pathlib import Path

import numpy as np
import sklearn.metrics as sk

METRICS = ("auroc", "auprc", "f1", "mcc", "sensitivity", "specificity", "ppv", "npv", "brier")


def metrics(y, p, f):
    return (
        sk.roc_auc_score(y, p),
        sk.average_precision_score(y, p),
        sk.f1_score(y, f),
        sk.matthews_corrcoef(y, f),
        sk.recall_score(y, f),
        sk.recall_score(y, f, pos_label=0),
        sk.precision_score(y, f),
        sk.precision_score(y, f, pos_label=0),
        sk.brier_score_loss(y, p),
    )


def draw(patient, starts, rng):
    """Rows of patients drawn with replacement; the rows of a patient follow one another."""
    n_patients = starts.size - 1
    drawn = rng.integers(0, n_patients, n_patients)
    if n_patients == patient.size:
        return drawn
    return np.concatenate([np.arange(starts[unit], starts[unit + 1]) for unit in drawn])


def main():
    rows, n_boot = np.load(Path(sys.argv[1]) / "rows.npz"), int(sys.argv[2])
    label, score, flag, patient = (rows[name] for name in ("label", "score", "flag", "patient"))
    rng = np.random.default_rng(2)
    begin = time.perf_counter()
    starts = np.append(np.flatnonzero(np.diff(patient, prepend=-1)), patient.size)
    replicates = []
    for _ in range(n_boot):
        drawn = draw(patient, starts, rng)
        replicates.append(metrics(label[drawn], score[drawn], flag[drawn]))
    low, high = np.quantile(replicates, [0.025, 0.975], axis=0)
    seconds = time.perf_counter() - begin
    limits = {name: [low[k], high[k]] for k, name in enumerate(METRICS)}
    print(json.dumps({"seconds": seconds, "limits": limits}))


if __name__ == "__main__":
    main()

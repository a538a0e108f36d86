"""Every algorithm's best trial, in cross-validation and on the test sets (Ryu et al. 2023, Table S1)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from sarc_ray.evaluation.plan import EvaluationConfig
from sarc_ray.evaluation.row_values import interval_values
from sarc_ray.evaluation.rows import numbers, seed_of, size_reason
from sarc_ray.stats import bootstrap
from sarc_ray.stats.arrays import normal_quantile

CROSS_VALIDATION = "cross_validation"
COLUMNS = (
    "algorithm",
    "chosen",
    "dataset",
    "metric",
    "estimate",
    "ci_low",
    "ci_high",
    "n",
    "n_events",
    "params",
    "na_reason",
)


def cross_validated(trials: pd.DataFrame, *, confidence_level: float) -> pd.DataFrame:
    """What the search says of each algorithm's finalist, and what the search of it cost.

    Args:
        trials: one row per trial: ``algorithm``, ``finalist``, ``chosen``, ``pruned``, ``cv_auroc_mean``,
            ``cv_auroc_se``, ``oof_f1``, ``seconds``, ``params``.
        confidence_level: of the normal interval of the mean AUROC, from its standard error.

    Returns:
        Rows of the columns ``COLUMNS`` with ``dataset`` "cross_validation" and the metrics ``auroc``, ``f1`` (at the
        out-of-fold Youden threshold, no interval), ``trials``, ``pruned`` and ``seconds`` (computing time of all).
    """
    z = normal_quantile(confidence_level)
    rows: list[dict[str, Any]] = []
    for name, group in trials.groupby("algorithm", sort=True):
        best = group[group["finalist"]]
        if best.empty:
            continue
        finalist = best.iloc[0]
        mean, se = float(finalist["cv_auroc_mean"]), float(finalist["cv_auroc_se"])
        known = {
            "algorithm": name,
            "chosen": bool(finalist["chosen"]),
            "dataset": CROSS_VALIDATION,
            "params": str(finalist["params"]),
            "na_reason": "",
        }
        figures = {
            "auroc": (mean, max(mean - z * se, 0.0), min(mean + z * se, 1.0)),
            "f1": (float(finalist["oof_f1"]), np.nan, np.nan),
            "trials": (float(len(group)), np.nan, np.nan),
            "pruned": (float(group["pruned"].sum()), np.nan, np.nan),
            "seconds": (float(group["seconds"].sum()), np.nan, np.nan),
        }
        rows += [
            {**known, "metric": metric, "estimate": value, "ci_low": low, "ci_high": high}
            for metric, (value, low, high) in figures.items()
        ]
    return _table(rows)


def algorithm_table(
    frame: pd.DataFrame, *, algorithm: str, chosen: bool, dataset: str, config: EvaluationConfig, seed: int
) -> pd.DataFrame:
    """The nine metrics of the paper's Table 2 for one algorithm on one test set.

    Args:
        frame: one row per scored and labelled image: ``patient_id``, ``outcome`` (0/1), ``score``, ``flag``.
        algorithm: whose scores and flags (at the threshold in force) these are.
        chosen: it is the model in use.
        dataset: name of the test set.
        config: replicates, level and kind of interval, and the smallest number of rows that gets figures.
        seed: of the bootstrap; patients are drawn.

    Returns:
        Rows of the columns ``COLUMNS``.
    """
    known = {"algorithm": algorithm, "chosen": chosen, "dataset": dataset, "params": ""}
    label_N = numbers(frame, "outcome")
    size = {"n": len(frame), "n_events": int(label_N.sum())}
    reason = size_reason(**size, min_cell_size=config.min_cell_size, min_events=config.min_events)
    if reason:
        return _table([{**known, **size, "metric": name, "na_reason": reason} for name in bootstrap.METRICS])
    patient_N = pd.factorize(frame["patient_id"])[0]
    intervals = bootstrap.bootstrap_metrics(
        label_N,
        numbers(frame, "score"),
        frame["flag"].to_numpy(dtype=bool),
        n_boot=config.n_boot,
        confidence_level=config.confidence_level,
        kind=config.interval,
        seed=seed_of(seed, dataset, algorithm),
        patient=patient_N if len(np.unique(patient_N)) < len(patient_N) else None,
    )
    return _table(
        [
            {
                **known,
                **size,
                "metric": name,
                "na_reason": "" if np.isfinite(found.estimate) else "not defined: a class or a flag is absent",
                **interval_values(found),
            }
            for name, found in intervals.items()
        ]
    )


def _table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    return table.astype(
        dict.fromkeys(("estimate", "ci_low", "ci_high"), "float64") | dict.fromkeys(("n", "n_events"), "Int64")
    )

"""Sensitivity analyses by name: a model that learned from some of the patients beside the one that learned from all.

The paper has one: "re-trained using individuals with age older than 60 according to AWGS 2019 age threshold in train
set", compared by DeLong on the same test patients (AUROC 0.777 against 0.813 in the internal test set, P = 0.137; 0.708
against 0.780 in the external one, P = 0.018). Its training set is divided here into patients to train and to tune on,
and both are restricted. The paper does not say whether the networks were trained again too; here they are.

Source: Ryu J, Eom S, Kim HC, et al. (2023), "Performance of sarcopenia prediction models" and Figure S2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from sarc_ray.cohort.splits import TEST_INTERNAL, TRAIN, TUNE
from sarc_ray.errors import EvaluationError, ManifestError
from sarc_ray.evaluation.plan import EvaluationConfig
from sarc_ray.evaluation.row_values import compared_values
from sarc_ray.evaluation.rows import numbers, size_reason
from sarc_ray.stats import discrimination

METHOD = "paired DeLong"
COLUMNS = (
    "analysis",
    "dataset",
    "n",
    "n_events",
    "n_left_out",
    "training_patients",
    "training_patients_all",
    "auroc_all",
    "auroc_analysis",
    "difference",
    "ci_low",
    "ci_high",
    "confidence_level",
    "p_value",
    "method",
    "na_reason",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Analysis:
    """Who is left to learn from: rows whose ``column`` lies above a number.

    Attributes:
        label: in words.
        column: of the manifest.
        above: rows at or below it, and rows without a value, are left out.
    """

    label: str
    column: str
    above: float


ANALYSES: Mapping[str, Analysis] = {
    "over_60": Analysis(label="trained on patients older than 60", column="age_years", above=60.0)
}


def restricted(cohort: pd.DataFrame, analysis: Analysis) -> pd.DataFrame:
    """The manifest of an analysis: some rows to train and tune on, and all test rows, in the cohort's order.

    Args:
        cohort: selected rows with ``split``, as ``prepare`` writes them.
        analysis: which rows stay.

    Returns:
        Without ``row_id`` and ``outcome``, which ``prepare`` makes again; the splits stay.

    Raises:
        ManifestError: the analysis's column is missing.
        EvaluationError: nobody is left to train, or to tune, on.
    """
    if analysis.column not in cohort:
        raise ManifestError(f"column {analysis.column}: missing; it says who is {analysis.label}; add it")
    learning = cohort["split"].isin([TRAIN, TUNE])
    kept = cohort[~learning | (numbers(cohort, analysis.column) > analysis.above)]
    for split in (TRAIN, TUNE):
        n_before, n_after = (int((frame["split"] == split).sum()) for frame in (cohort, kept))
        if n_before and not n_after:
            raise EvaluationError(
                f"split {split}: none of {n_before} rows has {analysis.column} above {analysis.above:g}, so no model "
                f"can be {analysis.label}; give a cohort that has such patients"
            )
    return kept.drop(columns=["row_id", "outcome"], errors="ignore").reset_index(drop=True)


def compare(every: pd.DataFrame, some: pd.DataFrame, *, dataset: str, config: EvaluationConfig) -> dict[str, Any]:
    """AUROC of the two models on the same test rows, and their difference by paired DeLong.

    Args:
        every: labels beside the scores of the model that learned from all: ``row_id``, ``patient_id``, ``outcome``
            (0, 1 or missing), ``score`` (missing where there is none).
        some: the same of the analysis's model; its ``row_id`` and ``score`` are used.
        dataset: name in the table.
        config: level of the difference's interval, and the smallest numbers of rows that get figures.

    Returns:
        Of ``COLUMNS`` those that two scores can tell. ``difference`` is the analysis's AUROC minus the other. Rows that
        lack a label or one of the scores are counted in ``n_left_out``. Where patients repeat, interval and p-value
        are left out, since they assume one row per patient.

    Raises:
        EvaluationError: the two have other rows.
    """
    if set(every["row_id"]) != set(some["row_id"]):
        n_other = len(set(every["row_id"]) ^ set(some["row_id"]))
        raise EvaluationError(
            f"data set {dataset}: {n_other} rows are in one of the two runs alone; both must have been prepared from "
            "the same manifests: run the analysis again"
        )
    both = every[["row_id", "patient_id", "outcome", "score"]].merge(
        some[["row_id", "score"]], on="row_id", suffixes=("", "_some"), validate="one_to_one"
    )
    label_N, all_N, some_N = (numbers(both, name) for name in ("outcome", "score", "score_some"))
    known_N = ~(np.isnan(label_N) | np.isnan(all_N) | np.isnan(some_N))
    label_N, all_N, some_N = label_N[known_N], all_N[known_N], some_N[known_N]
    n, n_events = int(known_N.sum()), int(label_N.sum())
    row = {
        "dataset": dataset,
        "n": n,
        "n_events": n_events,
        "n_left_out": int((~known_N).sum()),
        "confidence_level": config.confidence_level,
        "method": METHOD,
    }
    too_small = size_reason(n, n_events, min_cell_size=config.min_cell_size, min_events=config.min_events)
    if too_small:
        return {**row, "na_reason": too_small}
    if label_N.min() == label_N.max():
        return {**row, "na_reason": "the rows with both scores are of one class"}
    found = discrimination.delong_paired(label_N, some_N, all_N, confidence_level=config.confidence_level)
    repeated = bool(both.loc[known_N, "patient_id"].duplicated().any())
    values = {"na_reason": "", **compared_values(found, repeated=repeated)}
    areas = {"auroc_all": found.auroc_b, "auroc_analysis": found.auroc_a, "difference": values.pop("estimate")}
    return row | areas | values


def sensitivity_table(
    name: str, rows: list[dict[str, Any]], *, training_patients: int, training_patients_all: int
) -> pd.DataFrame:
    """Rows of :func:`compare` as a table with the columns ``COLUMNS``, one per test set."""
    table = pd.DataFrame(rows).assign(
        analysis=name, training_patients=training_patients, training_patients_all=training_patients_all
    )
    return table.reindex(columns=list(COLUMNS))


def training_patients(cohort: pd.DataFrame) -> int:
    """Patients to train and to tune on."""
    return int(cohort.loc[cohort["split"] != TEST_INTERNAL, "patient_id"].nunique())

"""External validation: who the other patients are, and calibration before and after recalibration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from sarc_ray.cohort.splits import TEST_EXTERNAL
from sarc_ray.evaluation.external_rows import CASE_MIX, LOG_ODDS, MEMBERSHIP, RECALIBRATED
from sarc_ray.report import words
from sarc_ray.report.content import Absent, Report
from sarc_ray.report.tabulate import Table

MAPS = {"score": "As scored", "score_intercept": "New intercept", "score_intercept_and_slope": "Intercept and slope"}
_METRICS = {
    "citl": "Calibration in the large",
    "cal_slope": "Calibration slope",
    "brier": "Brier score",
    "scaled_brier": "Scaled Brier score",
    "ici": "Integrated calibration index",
    "emax": "Largest error (Emax)",
    "recalibration_intercept": "Intercept of the map",
    "recalibration_slope": "Slope of the map",
}
_TRANSPORTED = {"ppv": "PPV", "npv": "NPV"}
_VARIABLES = {"age_years": "Age", "bmi_kg_m2": "BMI", "outcome": "Outcome", LOG_ODDS: "Score, log-odds"}


def recalibration_view(report: Report) -> Table | Absent:
    """Calibration of the external patients before and after recalibration; predictive values promised and found."""
    table = report.results.table
    sets = list(table.loc[table["score"].isin(RECALIBRATED), "dataset"].unique())
    if not sets:
        return Absent(reason=_why_none(report))
    dataset, kept = str(sets[0]), list[Mapping[str, Any]]()
    rows = [
        (label, *(_cell(report, dataset, metric, score, kept) for score in MAPS)) for metric, label in _METRICS.items()
    ]
    rows += _transported(report, dataset, kept)
    reasons = sorted({str(row["na_reason"]) for row in kept if row["na_reason"]})
    note = (
        "Each patient's recalibrated score comes from a map that was fitted on other patients of the same set. "
        "Discrimination stays as it is. Promised predictive values follow from sensitivity and specificity of the "
        "internal test set at the prevalence here, by Bayes' rule."
    )
    return Table(
        name="recalibration",
        title="External patients: calibration before and after recalibration",
        groups=(),
        columns=("", *MAPS.values()),
        rows=tuple(rows),
        note=note + (f" {words.DASH} {'; '.join(reasons)}." if reasons else ""),
        numbers=pd.DataFrame(kept),
    )


def case_mix_view(report: Report) -> Table | None:
    """Standardised differences between external and internal patients, and the membership model; None without any."""
    table = report.results.table
    rows = table[table["outcome"] == CASE_MIX]
    if rows.empty:
        return None
    found = [{str(name): value for name, value in row.items()} for row in rows.to_dict("records")]
    lines = [
        (_variable(str(row["score"])), f"{row['n']:,}", words.estimate(row)) for row in found if row["metric"] == "smd"
    ]
    extra = {"spread_ratio": "Spread of the score's log-odds, external / internal"}
    lines += [
        (extra.get(str(row["metric"]), "AUROC of telling the two sets apart"), f"{row['n']:,}", words.estimate(row))
        for row in found
        if row["metric"] in extra or row["score"] == MEMBERSHIP
    ]
    reasons = sorted({str(reason) for reason in rows["na_reason"] if reason})
    note = (
        "Differences are external - internal, in standard deviations. An AUROC near 0.5 says that the external "
        "patients are much like the internal ones: the test is one of reproducibility. Far above it they are others, "
        "and the test is one of transportability (Debray et al. 2015). Cross-fitted."
    )
    return Table(
        name="case-mix",
        title="External patients: case-mix beside the internal test set",
        groups=(),
        columns=("", "n", f"Estimate ({100 * report.confidence_level:g}% CI)"),
        rows=tuple(lines),
        note=note + (f" {words.DASH} {'; '.join(reasons)}." if reasons else ""),
        numbers=rows.reset_index(drop=True),
    )


def _why_none(report: Report) -> str:
    if TEST_EXTERNAL not in set(report.results.table["dataset"]):
        return "No external test set was evaluated, so nothing can be said of recalibration elsewhere."
    return (
        "The results of the external test set hold nothing of recalibration: they are of an earlier release, or their "
        "plan leaves it out. Evaluate again (sarc-ray evaluate)."
    )


def _cell(report: Report, dataset: str, metric: str, score: str, kept: list[Mapping[str, Any]]) -> str:
    row = report.results.row(dataset, metric, score=score)
    if row is None:
        return ""
    kept.append(row)
    return words.estimate(row)


def _transported(report: Report, dataset: str, kept: list[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Predictive values that the internal test set promises, beside those that were found."""
    rows: list[tuple[str, ...]] = []
    table = report.results.table
    for name, label in _TRANSPORTED.items():
        promised = table[(table["dataset"] == dataset) & (table["metric"] == f"{name}_transported")]
        found = report.results.row(dataset, name)
        if promised.empty or found is None:
            continue
        row: dict[str, Any] = {str(key): value for key, value in promised.iloc[0].items()}
        kept += [row, found]
        rows.append((f"{label}, promised / found", f"{words.estimate(row)} / {words.estimate(found)}", "", ""))
    return rows


def _variable(name: str) -> str:
    column, _, level = name.partition("=")
    label = _VARIABLES.get(column, column)
    return f"{label}: {level}" if level else label

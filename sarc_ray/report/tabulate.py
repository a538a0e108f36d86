"""Tables of the report as texts for the page, each with the numbers behind it for a CSV file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from sarc_ray.errors import REASONS, Reason
from sarc_ray.report import words
from sarc_ray.report.content import Absent, Archive, Report
from sarc_ray.report.words import METRICS

_TARGET_METRICS: tuple[tuple[str, str, int], ...] = (
    ("ccc", "Concordance (CCC)", 3),
    ("bias", "Bias (predicted \u2212 measured)", 2),
    ("loa_low", "Lower limit of agreement", 2),
    ("loa_high", "Upper limit of agreement", 2),
    ("explained_variance", "Explained variance", 3),
    ("mae", "Mean absolute error", 2),
    ("coverage", "Share inside the interval", 3),
    ("nll", "Negative log-likelihood", 3),
)
_CALIBRATION = {
    "citl": "Calibration in the large",
    "cal_slope": "Calibration slope",
    "ici": "Integrated calibration index",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A table for the page.

    Attributes:
        name: file stem of the CSV, unique in a report.
        title: a few words.
        groups: optional upper header: text and number of columns that it spans.
        columns: header; the first column names the rows.
        rows: texts; a row of one cell is a heading within the table.
        note: beneath it.
        numbers: what the CSV holds.
    """

    name: str
    title: str
    groups: tuple[tuple[str, int], ...]
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str
    numbers: pd.DataFrame


def table_one_view(report: Report) -> Table | Absent:
    """Table 1 of every cohort side by side; a cohort without a variable shows a dash."""
    tables = report.table_one
    if not tables:
        return Absent(reason="Table 1 was not computed for this run.")
    variables = list(dict.fromkeys(name for table in tables.values() for name in table["variable"]))
    lines = {label: table.set_index("variable") for label, table in tables.items()}
    rows = []
    for variable in variables:
        cells = [variable]
        for table in lines.values():
            found = table.loc[variable] if variable in table.index else {}
            cells += [_printed(found.get(name, "")) for name in ("with", "without", "p")]
            cells += [words.number(float(found.get("smd", np.nan)), 2), _missing(found)]
        rows.append(tuple(cells))
    return Table(
        name="table-1",
        title=f"Table 1. Clinical characteristics of patients with and without {report.outcome}",
        groups=(("", 1), *((label, 5) for label in tables)),
        columns=("", *("With", "Without", "p", "SMD", "Missing") * len(tables)),
        rows=tuple(rows),
        note=(
            "Mean \u00b1 SD with the pooled t-test, median [quartiles] with the Wilcoxon rank-sum test, n (%) with the "
            "chi-square test without Yates's correction; two-sided. SMD: standardised difference, with minus without. "
            "Patients without the value (Missing) are left out of that line; in the first line: those without the "
            "outcome known."
        ),
        numbers=pd.concat([table.assign(cohort=label) for label, table in tables.items()], ignore_index=True),
    )


def table_two_view(report: Report) -> Table | Absent:
    """Table 2: the nine metrics with intervals, per test set; with the ideal's where the truth is known."""
    if not report.test_sets:
        return Absent(reason="No test set was evaluated.")
    level = f"{100 * report.confidence_level:g}% CI"
    with_ideal = _ideal_known(report)
    kept: list[Mapping[str, Any]] = []
    rows: list[tuple[str, ...]] = []
    for heading, metrics in (("", METRICS), ("Calibration", _CALIBRATION)):
        rows += [(heading,)] if heading else []
        rows += [
            (label, *(cell for test_set in report.test_sets for cell in _cells(report, test_set.name, metric, kept)))
            for metric, label in metrics.items()
        ]
    reasons = sorted({str(row["na_reason"]) for row in kept if row["na_reason"] and np.isnan(row["estimate"])})
    note = (
        f"Flagged: score at or above {report.threshold:.4f}. Intervals: bootstrap by patient; of calibration in the "
        "large and slope: Wald."
    )
    note += f" {words.DASH} not defined ({'; '.join(reasons)})." if reasons else ""
    if with_ideal:
        note += (
            " Ideal: the predictor that knows all that was drawn into the pictures; it has no threshold in force, so "
            "it has none of the metrics that need one."
        )
    return Table(
        name="table-2",
        title=f"Table 2. Discriminatory performance for {report.outcome}",
        groups=(("", 1), *((_headed(report, test_set.name, test_set.label), 3) for test_set in report.test_sets))
        if with_ideal
        else (("", 1), *((_headed(report, test_set.name, test_set.label), 2) for test_set in report.test_sets)),
        columns=("Metric", *("Estimate", level, *(("Ideal",) if with_ideal else ())) * len(report.test_sets)),
        rows=tuple(rows),
        note=note,
        numbers=pd.DataFrame(kept),
    )


def targets_view(report: Report) -> Table | Absent:
    """Agreement and honesty of the uncertainty of each target, per test set."""
    if not report.test_sets:
        return Absent(reason="No test set was evaluated.")
    with_ideal = _ideal_known(report)
    kept: list[Mapping[str, Any]] = []
    rows: list[tuple[str, ...]] = []
    for target in report.targets:
        rows.append((words.with_unit(target),))
        for name, label, decimals in _TARGET_METRICS:
            metric = f"coverage_{100 * report.interval_level:g}" if name == "coverage" else name
            label = f"Share inside the {100 * report.interval_level:g}% interval" if name == "coverage" else label
            cells = [label]
            for test_set in report.test_sets:
                found = report.results.row(test_set.name, metric, score=f"{target.name}_mu", target=target.name)
                ideal = report.results.row(test_set.name, metric, score="ideal", target=target.name)
                kept += [row for row in (found, ideal) if row is not None]
                cells.append(words.estimate(found, decimals))
                cells += [
                    words.NOT_DEFINED if ideal is None else words.number(ideal["estimate"], decimals)
                ] * with_ideal
            rows.append(tuple(cells))
    return Table(
        name="targets",
        title="Predicted against measured values",
        groups=(("", 1), *((test_set.label, 1 + with_ideal) for test_set in report.test_sets)),
        columns=(
            "",
            *(f"Estimate ({100 * report.confidence_level:g}% CI)", *(("Ideal",) * with_ideal)) * len(report.test_sets),
        ),
        rows=tuple(rows),
        note="CCC: Lin's z-transform; bias and limits: t; share inside: Wilson; the rest: bootstrap by patient.",
        numbers=pd.DataFrame(kept),
    )


def archive_view(archive: Archive) -> Table:
    """What became of each row of the archive, with the meaning of every reason; reconciled to the manifest."""
    counts = archive.counts.sort_values(["outcome", "n", "reason"], ascending=[False, False, True])
    total = int(counts["n"].sum())
    rows = [
        (
            str(row["outcome"]),
            str(row["reason"]) or words.DASH,
            REASONS[Reason(row["reason"])].meaning,
            "yes" if row["retryable"] else "no",
            f"{row['n']:,}",
            words.percent(row["n"], total),
        )
        for row in counts.to_dict("records")
    ]
    agree = "equal to" if total == archive.n_rows else "NOT equal to"
    return Table(
        name="archive",
        title="Outcome of every row",
        groups=(),
        columns=("Outcome", "Reason", "Meaning", "Retry can help", "Rows", "Share"),
        rows=(*rows, ("Total", "", "", "", f"{total:,}", words.percent(total, total))),
        note=f"{total:,} outcome rows, {agree} the {archive.n_rows:,} rows of the manifest.",
        numbers=counts.reset_index(drop=True),
    )


def stages_view(report: Report) -> Table:
    """The run's finished stages."""
    stages = report.lineage.stages
    rows = [
        (str(row["stage"]), str(row["fingerprint"]), f"{row['seconds']:.1f}", str(row["facts"]))
        for row in stages.to_dict("records")
    ]
    return Table(
        name="stages",
        title="Finished stages",
        groups=(),
        columns=("Stage", "Fingerprint of its inputs", "Seconds", "What it says"),
        rows=tuple(rows),
        note="Seconds are those of the last call that had work to do.",
        numbers=stages,
    )


def _ideal_known(report: Report) -> bool:
    return report.simulated and bool((report.results.table["score"] == "ideal").any())


def _headed(report: Report, dataset: str, label: str) -> str:
    row = report.results.row(dataset, "auroc")
    if row is None or pd.isna(row["n"]):  # the plan leaves the outcome out
        return label
    return f"{label}, n\u00a0=\u00a0{row['n']} ({row['n_events']} with {report.outcome})"


def _cells(report: Report, dataset: str, metric: str, kept: list[Mapping[str, Any]]) -> Sequence[str]:
    """Estimate, interval and perhaps the ideal of one metric; the rows used are put into ``kept``."""
    row = report.results.row(dataset, metric)
    ideal = report.results.row(dataset, metric, score="ideal")
    kept += [found for found in (row, ideal) if found is not None]
    cells = [words.NOT_DEFINED, ""] if row is None else [words.number(row["estimate"]), words.interval(row)]
    if _ideal_known(report):
        cells.append(words.NOT_DEFINED if ideal is None else words.number(ideal["estimate"]))
    return cells


def _missing(line: Mapping[str, Any]) -> str:
    return words.number(float(line.get("n_missing", np.nan)), 0)


def _printed(value: Any) -> str:
    text = "" if value is None or value != value else str(value)
    return text.replace("+/-", "\u00b1") or words.DASH

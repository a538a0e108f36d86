"""Sensitivity analyses (the paper's Figure S2): ROC curves of two models on the same test patients, and a table."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from sarc_ray.evaluation.rows import numbers
from sarc_ray.report import style, words
from sarc_ray.report.content import Absent, Report, Retrained
from sarc_ray.report.tabulate import Table
from sarc_ray.stats.discrimination import roc_curve

_MODELS = (("all", "score_all", style.BLUE, "-"), ("analysis", "score_analysis", style.VERMILION, "--"))


def retrained_figures(report: Report) -> list[style.Figure | Absent]:
    """A figure for each analysis; where there is none, why."""
    if isinstance(report.retrained, Absent):
        return [report.retrained]
    return [_figure(report, analysis) for analysis in report.retrained]


def retrained_views(report: Report) -> list[Table]:
    """A table for each analysis: AUROC of both models, and the paired difference."""
    return [] if isinstance(report.retrained, Absent) else [_view(report, analysis) for analysis in report.retrained]


def _figure(report: Report, analysis: Retrained) -> style.Figure | Absent:
    if not analysis.scores:
        return Absent(reason=f"Model {analysis.label}: its scores are away; run 'sarc-ray sensitivity' again.")
    shown = [test_set for test_set in report.test_sets if len(analysis.scores.get(test_set.name, ()))]
    if not shown:
        return Absent(reason=f"Model {analysis.label}: no patient has a label and both scores.")
    parts = []
    with style.canvas(max(style.WIDTH_IN, 3.6 * len(shown)), 4.0) as figure:
        panels = figure.subplots(1, len(shown), squeeze=False, sharey=True)[0]
        for axes, test_set in zip(panels, shown, strict=True):
            frame = analysis.scores[test_set.name]
            row = analysis.table[analysis.table["dataset"] == test_set.name].iloc[0]
            for model, column, colour, dash in _MODELS:
                area = words.number(float(row[f"auroc_{model}"]))
                label = f"{'all patients' if model == 'all' else analysis.label}\nAUROC {area}"
                parts.append(_draw(axes, frame, column, colour, dash, label).assign(dataset=test_set.name, model=model))
            axes.set(title=f"{test_set.label}, n = {row['n']}", xlabel="1 \u2212 specificity")
            axes.legend(loc="lower right", fontsize=8)
        panels[0].set_ylabel("Sensitivity")
        svg = style.to_svg(figure)
    return style.Figure(
        name=f"figure-s2-{analysis.name.replace('_', '-')}",
        title=f"ROC of the model {analysis.label}",
        caption=(
            "Both models on the same test patients. The other one learned from all patients. The difference and its "
            "test stand in the table."
        ),
        svg=svg,
        numbers=pd.concat(parts, ignore_index=True)[["dataset", "model", "threshold", "fpr", "tpr"]],
    )


def _draw(axes: Axes, frame: pd.DataFrame, column: str, colour: str, dash: str, label: str) -> pd.DataFrame:
    curve = roc_curve(numbers(frame, "outcome"), numbers(frame, column))
    axes.plot(100 * curve.fpr, 100 * curve.tpr, dash, color=colour, lw=1.8, label=label)
    axes.plot([0, 100], [0, 100], color=style.LIGHT, lw=1, zorder=0)
    axes.set(xlim=(-1.5, 101.5), ylim=(-1.5, 101.5))
    axes.xaxis.set_major_formatter(PercentFormatter(decimals=0))
    axes.yaxis.set_major_formatter(PercentFormatter(decimals=0))
    return pd.DataFrame({"threshold": curve.threshold, "fpr": curve.fpr, "tpr": curve.tpr})


def _view(report: Report, analysis: Retrained) -> Table:
    labels = {test_set.name: test_set.label for test_set in report.test_sets}
    rows, reasons = [], set()
    for row in analysis.table.to_dict("records"):
        line = {
            name: float(row[column])
            for name, column in (("estimate", "difference"), ("ci_low", "ci_low"), ("ci_high", "ci_high"))
        }
        areas = (words.number(float(row[name])) for name in ("auroc_analysis", "auroc_all"))
        p_value = words.p_text(float(row["p_value"])).removeprefix("p ").removeprefix("= ")
        n = f"{row['n']} ({row['n_events']})"
        rows.append((labels.get(str(row["dataset"]), str(row["dataset"])), n, *areas, words.estimate(line), p_value))
        reasons |= {str(row["na_reason"])} if isinstance(row["na_reason"], str) and row["na_reason"] else set()
    first = analysis.table.iloc[0]
    learned = f"It learned from {first['training_patients']} of {first['training_patients_all']} patients."
    return Table(
        name=f"figure-s2-{analysis.name.replace('_', '-')}-table",
        title=f"Model {analysis.label}, beside the model of all patients",
        groups=(),
        columns=("Test set", "n (with)", "AUROC of this model", "AUROC of the other", "Difference (CI)", "p"),
        rows=tuple(rows),
        note=" ".join([learned, "Difference, interval and p by DeLong's paired test, two-sided.", *sorted(reasons)]),
        numbers=analysis.table,
    )

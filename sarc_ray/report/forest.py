"""Subgroups: the score's figures in each of them, as a forest plot with its table."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from sarc_ray.evaluation.results import LEFT_OUT, SUBGROUP
from sarc_ray.report import style, words
from sarc_ray.report.content import ALL_ROWS, Absent, Report, TestSet
from sarc_ray.report.tabulate import Table

_METRICS = ("auroc", "sensitivity", "specificity")
_NUMBERS = ("dataset", "subgroup", "metric", "estimate", "ci_low", "ci_high", "n", "n_events", "na_reason")


def forest_figure(report: Report, test_set: TestSet) -> style.Figure | Absent:
    """AUROC, sensitivity and specificity with intervals: all patients, then every subgroup of the plan."""
    rows = _rows(report, test_set)
    groups = list(dict.fromkeys(rows["subgroup"].tolist()))
    none = f"No subgroups of the {test_set.label.lower()}: "
    if (rows["na_reason"] == LEFT_OUT).all() and len(rows):
        return Absent(reason=f"{none}the evaluation plan leaves out AUROC, sensitivity and specificity.")
    if len(groups) < 2:
        return Absent(reason=f"{none}the plan names none that it has.{_absent_said(report, test_set)}")
    sizes = rows[rows["metric"] == _METRICS[0]].set_index("subgroup").to_dict("index")
    names = [f"{subgroup_said(group)}\n{sizes[group]['n']} ({sizes[group]['n_events']})" for group in groups]
    with style.canvas(5.8, 1.1 + 0.46 * len(groups)) as figure:
        panels = figure.subplots(1, len(_METRICS), sharey=True)
        for axes, metric in zip(panels, _METRICS, strict=True):
            _draw(axes, rows[rows["metric"] == metric].set_index("subgroup"), groups)
            axes.xaxis.set_major_locator(MaxNLocator(3))
            axes.set(title=words.METRICS[metric], ylim=(len(groups) - 0.4, -0.6))
        panels[0].set_yticks(range(len(groups)), names)
        svg = style.to_svg(figure)
    return style.Figure(
        name=f"subgroups-{test_set.name}",
        title=f"Subgroups, {test_set.label.lower()}",
        caption=(
            f"{100 * report.confidence_level:g}% intervals by bootstrap of patients; dotted: all patients. Beneath "
            f"each name the patients, and those with {report.outcome}. Subgroups are those of the plan; one of fewer "
            f"than {report.evaluation.min_cell_size} patients gets no figures. Intervals are not corrected for their "
            f"number: many subgroups differ by chance.{_absent_said(report, test_set)}"
        ),
        svg=svg,
        numbers=rows,
    )


def subgroups_view(report: Report) -> Table | None:
    """The figures of every subgroup to be read; None where no test set has any."""
    tables = {test_set.label: _rows(report, test_set) for test_set in report.test_sets}
    tables = {
        label: rows
        for label, rows in tables.items()
        if rows["subgroup"].nunique() > 1 and not (rows["na_reason"] == LEFT_OUT).all()
    }
    if not tables:
        return None
    lines: list[tuple[str, ...]] = []
    anything_missing = any((rows["na_reason"] != "").any() for rows in tables.values())
    for label, rows in tables.items():
        lines.append((label,))
        for group, own in rows.groupby("subgroup", sort=False):
            found = {str(row["metric"]): {str(key): row[key] for key in row} for row in own.to_dict("records")}
            size = found[_METRICS[0]]
            reasons = sorted({str(row["na_reason"]) for row in found.values() if row["na_reason"]})
            cells = [words.estimate(found[metric]) for metric in _METRICS]
            lines.append(
                (
                    subgroup_said(str(group)),
                    str(size["n"]),
                    str(size["n_events"]),
                    *cells,
                    *(["; ".join(reasons)] * anything_missing),
                )
            )
    level = f"({100 * report.confidence_level:g}% CI)"
    return Table(
        name="subgroups-table",
        title="Subgroups",
        groups=(),
        columns=(
            "Subgroup",
            "n",
            "With",
            *(f"{words.METRICS[metric]} {level}" for metric in _METRICS),
            *(["Why not"] * anything_missing),
        ),
        rows=tuple(lines),
        note="The threshold in force is the same in every subgroup.",
        numbers=pd.concat(tables.values(), ignore_index=True),
    )


def _rows(report: Report, test_set: TestSet) -> pd.DataFrame:
    """Rows of the results table of the shown metrics, all patients first."""
    table = report.results.table
    wanted = (
        (table["dataset"] == test_set.name)
        & (table["score"] == "score")
        & (table["comparator"] == "")
        & table["metric"].isin(_METRICS)
    )
    rows = table.loc[wanted, list(_NUMBERS)]
    columns = list(dict.fromkeys(str(group).partition("=")[0] for group in rows["subgroup"]))
    place = {group: _place(group, columns) for group in rows["subgroup"].astype(str).unique()}
    order = sorted(place, key=place.__getitem__)
    return rows.sort_values("subgroup", key=lambda names: names.map(order.index), kind="stable", ignore_index=True)


def _place(group: str, columns: list[str]) -> tuple[bool, int, int, str]:
    """All patients first; bands from the lowest, which begins with ``<``, to the highest, with ``>=``."""
    column, _, level = group.partition("=")
    band = {"<": 0, ">": 2}.get(level[:1], 1)
    return group != ALL_ROWS, columns.index(column), band, level


def subgroup_said(group: str) -> str:
    """A subgroup of the results table in words: ``sex=F`` is ``Sex F``."""
    if group == ALL_ROWS:
        return "All patients"
    column, _, level = group.partition("=")
    level = level.replace("-<", f" {words.DASH} < ") if "-<" in level else level.replace("<", "< ")
    return f"{column.replace('_', ' ').capitalize()} {level.replace('>=', f'{words.AT_LEAST} ')}".rstrip()


def _short_reason(reason: str) -> str:
    """Why a panel shows no mark in a line; the table has it in full."""
    if "is below" in reason or "are below" in reason:
        return "too few"
    return "left out" if reason == LEFT_OUT else "not defined"


def _absent_said(report: Report, test_set: TestSet) -> str:
    """Planned subgroups that are not there, each with its reason; empty where all are."""
    table = report.results.table
    rows = table[(table["dataset"] == test_set.name) & (table["metric"] == SUBGROUP)]
    said = [f"{subgroup_said(str(row['subgroup']))}: {row['na_reason']}" for row in rows.to_dict("records")]
    return f" Not shown: {'. '.join(said)}." if said else ""


def _draw(axes: Axes, rows: pd.DataFrame, groups: list[str]) -> None:
    found = rows.to_dict("index")
    for place, group in enumerate(groups):
        row = found[group]
        if np.isnan(row["estimate"]):
            said = _short_reason(str(row["na_reason"]))
            axes.text(0.5, place, said, transform=axes.get_yaxis_transform(), ha="center", va="center", fontsize=8.5)
            continue
        colour, mark = (style.INK, "D") if group == ALL_ROWS else (style.BLUE, "o")
        if np.isfinite(row["ci_low"]) and np.isfinite(row["ci_high"]):
            axes.plot([row["ci_low"], row["ci_high"]], [place, place], color=colour, lw=1.4)
        axes.plot(row["estimate"], place, mark, ms=5.5, color=colour, mec=style.PAPER)
        if group == ALL_ROWS:
            axes.axvline(row["estimate"], color=style.GREY, lw=1, ls=":", zorder=0)
    axes.set_xlim(right=1.02)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", color=style.LIGHT, lw=0.5)

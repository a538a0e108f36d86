"""What each part brings: the ladder of models, as a figure and a table."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from sarc_ray.evaluation.ladder import AUROC, DIFFERENCE
from sarc_ray.report import style, words
from sarc_ray.report.content import Absent, Report
from sarc_ray.report.tabulate import Table

_RUNGS = ("sarc_f", "clinical", "means", "uncertainties")
# Learner: colour, mark, place beside the line.
_MARKS = {"chosen": (style.BLUE, "o", -0.15), "ridge": (style.VERMILION, "s", 0.15)}
_LEARNERS = tuple(_MARKS)
_AS_RECORDED = (style.GREY, "D", 0.0)
_LABEL_CHARACTERS = 22
_P_ROOM = 0.45  # of the interval's range, to its right, for the p-values


def ladder_figure(report: Report) -> style.Figure | Absent:
    """Upper row: AUROC of each rung. Lower row: what a rung adds, with DeLong's p. A column for each test set."""
    table = report.ladder
    if isinstance(table, Absent):
        return table
    shown = [test_set for test_set in report.test_sets if (table["dataset"] == test_set.name).any()]
    areas, differences = table[table["metric"] == AUROC], table[table["metric"] == DIFFERENCE]
    rungs = [(rung, "") for rung in _RUNGS if (areas["rung"] == rung).any()]
    pairs = list(dict.fromkeys(zip(differences["rung"], differences["comparator"], strict=True)))
    pairs.sort(key=_place)
    heights = (len(rungs) + 0.6, len(pairs) + 0.6)
    with style.canvas(1.8 + 2.5 * len(shown), 1.5 + 0.55 * sum(heights)) as figure:
        panels = figure.subplots(2, len(shown), squeeze=False, sharex="row", sharey="row", height_ratios=heights)
        for j, test_set in enumerate(shown):
            _draw(panels[0, j], areas[areas["dataset"] == test_set.name], rungs, report)
            _draw(panels[1, j], differences[differences["dataset"] == test_set.name], pairs, report)
            panels[0, j].set(title=test_set.label, xlabel="AUROC")
            panels[1, j].set(xlabel="Difference of AUROCs")
            panels[1, j].axvline(0, color=style.GREY, lw=0.9, zorder=0)
        low, high = (float(bound) for bound in panels[1, 0].get_xlim())
        panels[1, 0].set_xlim(low, high + _P_ROOM * (high - low))
        handles = [
            panels[0, 0].plot([], [], mark, color=colour, label=_learner(table, learner))[0]
            for learner, (colour, mark, _) in _MARKS.items()
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=2)
        svg = style.to_svg(figure)
    return style.Figure(name="ladder", title="The ladder of models", caption=_note(report), svg=svg, numbers=table)


def ladder_view(report: Report) -> Table | None:
    """AUROC of each rung, and its difference from a lower one; None where the figure says why there is nothing."""
    table = report.ladder
    if isinstance(table, Absent):
        return None
    shown = [test_set for test_set in report.test_sets if (table["dataset"] == test_set.name).any()]
    rows: list[tuple[str, ...]] = []
    for learner in _LEARNERS:
        own = table[table["learner"] == learner]
        rows.append((_learner(table, learner).capitalize(),))
        lines = list(dict.fromkeys(zip(own["rung"], own["comparator"], strict=True)))
        lines.sort(key=lambda line: (line[1] != "", *_place(line)))
        for line in lines:
            cells = [_said(line, report)]
            for test_set in shown:
                cells += _cells(own, test_set.name, line)
            rows.append(tuple(cells))
    level = f"{100 * report.confidence_level:g}% CI"
    return Table(
        name="ladder-table",
        title="What each part brings",
        groups=(("", 1), *((test_set.label, 3) for test_set in shown)),
        columns=("Rung", *("n", f"AUROC or difference ({level})", "p") * len(shown)),
        rows=tuple(rows),
        note="n: patients who have the score, or both of them (with the outcome). How it was made: see the figure.",
        numbers=table,
    )


def _draw(axes: Axes, rows: pd.DataFrame, lines: Sequence[tuple[str, str]], report: Report) -> None:
    """A mark with its interval for each learner on each line; p-values where there are any."""
    for place, (rung, comparator) in enumerate(lines):
        found = rows[(rows["rung"] == rung) & (rows["comparator"] == comparator)]
        if found.empty:
            axes.text(
                0.5,
                place,
                "not recorded",
                transform=axes.get_yaxis_transform(),
                ha="center",
                va="center",
                fontsize=9,
                color=style.GREY,
                backgroundcolor=style.PAPER,
            )
        if rung == "sarc_f":  # nothing was learned for it, so there is one mark
            found = found[found["learner"] == _LEARNERS[0]]
        for row in found.to_dict("records"):
            colour, mark, beside = _AS_RECORDED if rung == "sarc_f" else _MARKS[str(row["learner"])]
            y = place + beside
            if np.isfinite(row["ci_low"]):
                axes.plot([row["ci_low"], row["ci_high"]], [y, y], color=colour, lw=1.4)
            axes.plot(row["estimate"], y, mark, ms=6, color=colour, mec=style.PAPER)
            p_text = words.p_text(float(row["p_value"]))
            if p_text:
                axes.annotate(
                    p_text,
                    (row["ci_high"], y),
                    xytext=(4, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=8,
                    color=colour,
                )
    axes.set_yticks(range(len(lines)), [textwrap.fill(_said(line, report), _LABEL_CHARACTERS) for line in lines])
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", color=style.LIGHT, lw=0.5)


def _place(line: tuple[str, str]) -> tuple[int, int]:
    """Lines in the order of the rungs; the difference from the rung before comes before the one from far below."""
    rung, comparator = line
    order = {name: number for number, name in enumerate(_RUNGS)}
    far = bool(comparator) and order.get(rung, 0) - order.get(comparator, 0) > 1 and comparator != "sarc_f"
    return (len(_RUNGS) if far else order.get(rung, 0), order.get(comparator, 0))


def _said(line: tuple[str, str], report: Report) -> str:
    """A rung, or a difference of two, in words."""
    clinical = words.clinical_features(report.clinical_features)
    known = {
        ("sarc_f", ""): "SARC-F",
        ("clinical", ""): clinical,
        ("means", ""): "+ predicted means",
        ("uncertainties", ""): "+ their uncertainties",
        ("clinical", "sarc_f"): f"{clinical} against SARC-F",
        ("means", "clinical"): "Predicted means added",
        ("uncertainties", "means"): "Uncertainties added",
        ("uncertainties", "clinical"): "All that the radiograph adds",
    }
    return known.get(line, " against ".join(part for part in line if part))


def _learner(table: pd.DataFrame, learner: str) -> str:
    if learner == "ridge":
        return "ridge logistic regression"
    names = table.loc[table["learner"] == learner, "algorithm"]
    return f"chosen: {str(names.iloc[0]).replace('_', ' ')}" if len(names) else learner


def _cells(own: pd.DataFrame, dataset: str, line: tuple[str, str]) -> list[str]:
    rows = own[(own["dataset"] == dataset) & (own["rung"] == line[0]) & (own["comparator"] == line[1])]
    if rows.empty:
        return [words.NOT_DEFINED] * 3
    row: dict[str, Any] = {str(name): value for name, value in rows.iloc[0].items()}
    p_value = words.p_text(float(row["p_value"])).removeprefix("p ").removeprefix("= ")
    return [f"{row['n']} ({row['n_events']})", words.estimate(row), p_value]


def _note(report: Report) -> str:
    table = report.ladder
    assert not isinstance(table, Absent)
    algorithm = _learner(table, "chosen").removeprefix("chosen: ")
    text = (
        "Each rung is learned on the training patients and tried on the test sets: by the chosen algorithm "
        f"({algorithm}) with its hyper-parameters, which were found with all features at hand and may favour the last "
        "rung; and by ridge logistic regression, which was not searched. SARC-F stands as recorded. AUROC with "
        "DeLong's interval; differences with DeLong's paired test, two-sided, not corrected for their number."
    )
    reasons = sorted({str(reason) for reason in table["na_reason"] if reason})
    return f"{text} {'; '.join(reasons).capitalize()}." if reasons else text

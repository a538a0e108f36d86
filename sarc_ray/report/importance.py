"""What the score needs: permutation importance beside SHAP, and partial dependence on the predictions of stage 1."""

from __future__ import annotations

import textwrap

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from sarc_ray.report import style, words
from sarc_ray.report.content import Absent, Dependence, Importance, Report
from sarc_ray.report.tabulate import Table

_LABEL_CHARACTERS = 24
_ENDS = ("_mu", "_uncertainty_pct")


def importance_figure(report: Report) -> style.Figure | Absent:
    """Two panels of the same features: AUROC lost without the feature, and mean absolute SHAP value."""
    table = _both(report)
    if isinstance(table, Absent):
        return table
    assert isinstance(report.importance, Importance)
    names = [textwrap.fill(words.feature(name, report.targets), _LABEL_CHARACTERS) for name in table["feature"]]
    place_F = np.arange(len(table))
    with style.canvas(6.6, 1.0 + 0.42 * len(table)) as figure:
        left, right = figure.subplots(1, 2, sharey=True)
        left.errorbar(
            table["auroc_drop"], place_F, xerr=table["auroc_drop_sd"], fmt="o", ms=6, color=style.BLUE, lw=1.4
        )
        left.axvline(0, color=style.GREY, lw=0.9, zorder=0)
        left.set(xlabel="AUROC lost (mean \u00b1 SD)", title="Feature dealt anew")
        left.set_yticks(place_F, names)
        left.set_ylim(len(table) - 0.5, -0.5)
        if table["mean_abs_shap"].notna().any():
            right.barh(place_F, table["mean_abs_shap"], height=0.55, color=style.ORANGE)
        right.set(xlabel="Mean |SHAP value|", title="SHAP")
        for axes in (left, right):
            axes.xaxis.set_major_locator(MaxNLocator(4))
            axes.tick_params(axis="y", length=0)
            axes.grid(axis="y", color=style.LIGHT, lw=0.5)
        svg = style.to_svg(figure)
    return style.Figure(
        name="permutation-importance",
        title="Permutation importance beside SHAP",
        caption=(
            f"Left: what the AUROC of {words.number(report.importance.auroc)} loses when a feature's values are dealt "
            f"anew among {report.importance.patients}, {report.importance.n_repeats} times; the SD is of these. Left "
            "of the line the model does better without the feature. Right: how far the feature moves the raw score. "
            "Features that say nearly the same stand in for each other: each may lose little, and all of them much."
        ),
        svg=svg,
        numbers=table,
    )


def importance_view(report: Report) -> Table | None:
    """The numbers of the figure, to be read; None where there is nothing to show, which the figure says."""
    table = _both(report)
    if isinstance(table, Absent) or isinstance(report.importance, Absent):
        return None
    rows = [
        (
            words.feature(str(row["feature"]), report.targets),
            words.number(float(row["auroc_drop"]), 4),
            words.number(float(row["auroc_drop_sd"]), 4),
            words.number(float(row["mean_abs_shap"]), 4),
        )
        for row in table.to_dict("records")
    ]
    return Table(
        name="importance",
        title="Importance of the features",
        groups=(),
        columns=("Feature", "AUROC lost", "SD", "Mean |SHAP|"),
        rows=tuple(rows),
        note=(
            f"AUROC lost: mean and SD over {report.importance.n_repeats} deals of the feature's values among "
            f"{report.importance.patients}. SHAP: of the raw score, before calibration."
        ),
        numbers=table,
    )


def dependence_figure(report: Report) -> style.Figure | Absent:
    """A column for each target: the mean score against its predicted value, and beneath against its uncertainty."""
    found = report.dependence
    if isinstance(found, Absent):
        return found
    targets = list(report.targets)
    curves = {str(name): curve for name, curve in found.table.groupby("feature", sort=False)}
    rows = [end for end in _ENDS if any(f"{target.name}{end}" in curves for target in targets)]
    with style.canvas(max(style.WIDTH_IN, 2.6 * len(targets)), 0.7 + 2.4 * len(rows)) as figure:
        panels = figure.subplots(len(rows), len(targets), sharey=True, squeeze=False)
        for i, end in enumerate(rows):
            panels[i, 0].set_ylabel("Mean score")
            for j, target in enumerate(targets):
                _curve(panels[i, j], found, curves.get(f"{target.name}{end}"))
                panels[i, j].set_xlabel(
                    textwrap.fill(words.feature(f"{target.name}{end}", report.targets), _LABEL_CHARACTERS + 8)
                )
        # Room beneath the lowest and above the highest point, and no zoom into nothing where all curves are flat.
        low, high = float(found.table["score"].min()), float(found.table["score"].max())
        middle, half = (low + high) / 2, max(0.6 * (high - low), 0.05)
        panels[0, 0].set_ylim(max(0.0, middle - half), min(1.0, middle + half))
        svg = style.to_svg(figure)
    return style.Figure(
        name="partial-dependence",
        title="Partial dependence on the predictions",
        caption=(
            f"Mean score of {found.patients} if all had the same value of one feature and kept the others. Each curve "
            f"has {_n_points(found)} points, the middles of groups of equal size: where they are dense, patients are. "
            "Dashed: their mean score as they are. Upper row: predicted values; lower row: their uncertainty, 100 "
            "sigma / mu. A curve moves one feature alone, also where it goes with others in real patients."
        ),
        svg=svg,
        numbers=found.table,
    )


def dependence_view(report: Report) -> Table | None:
    """Where each curve begins and ends; None where there is nothing to show, which the figure says."""
    found = report.dependence
    if isinstance(found, Absent):
        return None
    rows = []
    for name, curve in found.table.groupby("feature", sort=False):
        first, last = curve.iloc[0], curve.iloc[-1]
        rows.append(
            (
                words.feature(str(name), report.targets),
                words.number(float(first["value"]), 1),
                words.number(float(last["value"]), 1),
                words.number(float(first["score"])),
                words.number(float(last["score"])),
                words.number(float(curve["score"].min())),
                words.number(float(curve["score"].max())),
            )
        )
    ends = found.table["percentile"]
    return Table(
        name="dependence",
        title="Mean score at the ends of each curve",
        groups=(("", 1), ("Value", 2), ("Mean score", 4)),
        columns=("Feature", "Low", "High", "At low", "At high", "Least", "Most"),
        rows=tuple(rows),
        note=(
            f"Low and high: percentiles {ends.min():g} and {ends.max():g} of {found.patients}. Mean score as they are: "
            f"{words.number(found.mean_score)}."
        ),
        numbers=found.table,
    )


def _both(report: Report) -> pd.DataFrame | Absent:
    """Permutation importance with the mean absolute SHAP value of the same features."""
    if isinstance(report.importance, Absent):
        return report.importance
    table = report.importance.table
    if isinstance(report.shap, Absent):
        return table.assign(mean_abs_shap=np.nan)
    means = pd.Series(np.abs(report.shap.values_NF).mean(axis=0), index=report.shap.features.columns)
    return table.assign(mean_abs_shap=means.reindex(table["feature"]).to_numpy())


def _curve(axes: Axes, found: Dependence, curve: pd.DataFrame | None) -> None:
    if curve is None:
        axes.set_axis_off()
        return
    axes.axhline(found.mean_score, color=style.GREY, lw=1, ls="--", zorder=0)
    axes.plot(curve["value"], curve["score"], "o-", ms=3.5, color=style.BLUE)


def _n_points(found: Dependence) -> int:
    return int(found.table.groupby("feature").size().max())

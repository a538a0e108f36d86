"""Figures of stage 1: agreement with the measured values, and uncertainty.

Concordance and uncertainty spikes are the paper's Figure 3, Bland-Altman its Figure S1.

Rows of the numbers are sorted by the prediction, so that those of one target cannot be matched with another's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from sarc_ray.cohort.schema import TargetConfig
from sarc_ray.evaluation.rows import ALL_ROWS, numbers, strata
from sarc_ray.report import style, words
from sarc_ray.report.content import Absent, Report, TestSet
from sarc_ray.stats import agreement, uncertainty
from sarc_ray.stats.arrays import Interval

# More spikes than this cannot be told apart in a figure of this width.
_MAX_SPIKES = 250
_MIN_KEPT, _CURVE_POINTS = 5, 200
_COLOURS = (style.BLUE, style.VERMILION, style.GREEN, style.PURPLE, style.ORANGE)
_CURVES = (
    "Dotted: the mean error of all, which an uncertainty without information gives at every share. Gain over that, 1 "
    "for a perfect ranking of the errors"
)


def concordance_figure(report: Report, test_set: TestSet, target: TargetConfig) -> style.Figure | Absent:
    """Predicted against measured values with the line of identity."""
    rows = _rows(report, test_set, target)
    if isinstance(rows, Absent):
        return rows
    ccc = report.results.row(test_set.name, "ccc", score=f"{target.name}_mu", target=target.name)
    low = float(min(rows["measured"].min(), rows["predicted"].min()))
    high = float(max(rows["measured"].max(), rows["predicted"].max()))
    margin = 0.05 * (high - low or 1)
    text = f"CCC {words.estimate(ccc)}" + _ideal(report, test_set, target, "ccc")
    with style.canvas(style.WIDTH_IN, 4.6) as figure:
        axes = figure.subplots()
        axes.plot([low, high], [low, high], color=style.GREY, lw=1, ls="--", label="identity")
        _marks(axes, rows["measured"], rows["predicted"])
        axes.set(
            xlim=(low - margin, high + margin),
            ylim=(low - margin, high + margin),
            aspect="equal",
            xlabel=f"Measured, {target.unit}",
            ylabel=f"Predicted, {target.unit}",
            title=f"{target.label}\n{test_set.label}, n = {len(rows)}",
        )
        style.note(axes, text)
        svg = style.to_svg(figure)
    return style.Figure(
        name=f"concordance-{target.name}-{test_set.name}",
        title=f"{target.label}: concordance, {test_set.label.lower()}",
        caption=(
            "Predicted against measured value of each patient; dashed: identity. Lin's concordance correlation "
            f"coefficient with its {100 * report.confidence_level:g}% interval."
        ),
        svg=svg,
        numbers=rows[["measured", "predicted"]],
    )


def bland_altman_figure(report: Report, test_set: TestSet, target: TargetConfig) -> style.Figure | Absent:
    """Difference against mean, with bias and limits of agreement."""
    rows = _rows(report, test_set, target)
    if isinstance(rows, Absent):
        return rows
    result = agreement.bland_altman(rows["measured"], rows["predicted"], confidence_level=report.confidence_level)
    points = pd.DataFrame(
        {
            "part": "patient",
            "mean": (rows["measured"] + rows["predicted"]) / 2,
            "difference": rows["predicted"] - rows["measured"],
        }
    )
    limits = {"bias": result.bias, "loa_low": result.loa_low, "loa_high": result.loa_high}
    lines = pd.DataFrame(
        {"part": name, "difference": found.estimate, "ci_low": found.ci_low, "ci_high": found.ci_high}
        for name, found in limits.items()
    )
    with style.canvas(style.WIDTH_IN, 4.2) as figure:
        axes = figure.subplots()
        _marks(axes, points["mean"], points["difference"])
        _draw_limits(axes, limits)
        axes.set(
            xlabel=f"Mean of predicted and measured, {target.unit}",
            ylabel=f"Predicted \u2212 measured, {target.unit}",
            title=f"{target.label}\n{test_set.label}, n = {len(rows)}",
        )
        svg = style.to_svg(figure)
    return style.Figure(
        name=f"bland-altman-{target.name}-{test_set.name}",
        title=f"{target.label}: Bland-Altman, {test_set.label.lower()}",
        caption=(
            f"Average difference {words.number(result.bias.estimate, 2)} \u00b1 {words.number(result.sd, 2)} "
            f"{target.unit} (SD). Solid: bias; dashed: 95% limits of agreement; bands: their "
            f"{100 * report.confidence_level:g}% intervals."
        ),
        svg=svg,
        numbers=pd.concat([points, lines], ignore_index=True),
    )


def spikes_figure(report: Report, test_set: TestSet, target: TargetConfig) -> style.Figure | Absent:
    """Predictions in rising order with one standard deviation either way, and the measured values.

    Everything is standardised by the mean and SD of the training set's measured values, as in the paper.
    """
    rows = _rows(report, test_set, target)
    if isinstance(rows, Absent):
        return rows
    mean, sd = report.training_scale[target.name]
    drawn = pd.DataFrame(
        {
            "rank": np.arange(1, len(rows) + 1),
            "predicted": (rows["predicted"] - mean) / sd,
            "sigma": rows["sigma"] / sd,
            "measured": (rows["measured"] - mean) / sd,
        }
    )
    if len(drawn) > _MAX_SPIKES:
        drawn = drawn.iloc[np.linspace(0, len(drawn) - 1, _MAX_SPIKES).round().astype(int)].reset_index(drop=True)
    inside = float((np.abs(drawn["measured"] - drawn["predicted"]) <= drawn["sigma"]).mean())
    with style.canvas(style.WIDTH_IN, 3.5) as figure:
        axes = figure.subplots()
        low, high = drawn["predicted"] - drawn["sigma"], drawn["predicted"] + drawn["sigma"]
        axes.vlines(drawn["rank"], low, high, color=style.LIGHT, lw=1.6, zorder=1, label="predicted \u00b1 \u03c3")
        axes.plot(drawn["rank"], drawn["measured"], "o", mfc="none", mec=style.GREEN, ms=3.4, mew=0.9, label="measured")
        axes.plot(drawn["rank"], drawn["predicted"], "s", color=style.VERMILION, ms=2.6, label="predicted")
        axes.set(
            xlabel="Patients by rising prediction",
            ylabel="SD of training set",
            title=f"{target.label}\n{test_set.label}, {_shown(len(drawn), len(rows))}",
        )
        figure.legend(loc="outside lower center", ncols=3, handlelength=1.2)
        svg = style.to_svg(figure)
    coverage = report.results.row(
        test_set.name, f"coverage_{100 * report.interval_level:g}", score=f"{target.name}_mu", target=target.name
    )
    return style.Figure(
        name=f"uncertainty-{target.name}-{test_set.name}",
        title=f"{target.label}: uncertainty, {test_set.label.lower()}",
        caption=(
            f"Standardised by the training set (mean {words.number(mean, 2)}, SD {words.number(sd, 2)} {target.unit}). "
            f"Within one standard deviation of the prediction: {100 * inside:.0f}% of the measured values shown "
            "(68% if the uncertainty is right and normal). "
            f"Share inside the {100 * report.interval_level:g}% interval: {words.estimate(coverage)}."
        ),
        svg=svg,
        numbers=drawn,
    )


def risk_coverage_figure(report: Report, target: TargetConfig) -> style.Figure | Absent:
    """Mean absolute error of the most certain patients, as more and more of them are kept, in every test set."""
    drawn, told, missing = [], [], None
    with style.canvas(style.WIDTH_IN, 3.5) as figure:
        axes = figure.subplots()
        for test_set, colour in zip(report.test_sets, (style.BLUE, style.VERMILION), strict=False):
            rows = _rows(report, test_set, target)
            if isinstance(rows, Absent):
                missing = rows
                continue
            curve, gain = _risk_coverage(rows)
            _draw_curve(axes, curve, colour, test_set.label)
            drawn.append(curve.assign(test_set=test_set.name)[["test_set", *curve]])
            told.append(f"{test_set.label.lower()} {words.number(gain, 2)}")
        if not drawn:
            return missing or Absent(reason="No test set was evaluated.")
        _finish_curves(axes, target, target.label)
        figure.legend(loc="outside lower center", ncols=2, handlelength=1.8)
        svg = style.to_svg(figure)
    return style.Figure(
        name=f"risk-coverage-{target.name}",
        title=f"{target.label}: error against uncertainty",
        caption=f"{_CURVES}: {'; '.join(told)}.",
        svg=svg,
        numbers=pd.concat(drawn, ignore_index=True),
    )


def subgroup_risk_coverage_figure(report: Report, test_set: TestSet, target: TargetConfig) -> style.Figure | Absent:
    """The same within the subgroups of a test set: a panel for each column that divides it."""
    known = _rows(report, test_set, target)
    if isinstance(known, Absent):
        return known
    groups = _largest_subgroups(report, test_set, target)
    if not groups:
        least = report.evaluation.min_cell_size
        return Absent(reason=f"{target.label}, {test_set.label.lower()}: no subgroup of {least} patients or more.")
    drawn, told = [], []
    with style.canvas(style.WIDTH_IN, 0.6 + 2.7 * len(groups)) as figure:
        panels = figure.subplots(len(groups), squeeze=False, sharex=True)[:, 0]
        for axes, (column, parts) in zip(panels, groups.items(), strict=True):
            for colour, (name, rows) in zip(_COLOURS, parts.items(), strict=False):
                curve, gain = _risk_coverage(rows)
                _draw_curve(axes, curve, colour, f"{name.partition('=')[2]}, n = {len(rows)}")
                drawn.append(curve.assign(subgroup=name)[["subgroup", *curve]])
                told.append(f"{name} {words.number(gain, 2)}")
            _finish_curves(axes, target, column.replace("_", " "))
            axes.legend(loc="lower right", handlelength=1.8)
        svg = style.to_svg(figure)
    return style.Figure(
        name=f"risk-coverage-{target.name}-{test_set.name}-subgroups",
        title=f"{target.label}: error against uncertainty by subgroup, {test_set.label.lower()}",
        caption=f"{_CURVES}: {'; '.join(told)}. Of each kind the {len(_COLOURS)} largest at most.",
        svg=svg,
        numbers=pd.concat(drawn, ignore_index=True),
    )


def _largest_subgroups(report: Report, test_set: TestSet, target: TargetConfig) -> dict[str, dict[str, pd.DataFrame]]:
    """Rows of the subgroups that the results table has figures of, by column and then by name."""
    groups: dict[str, dict[str, pd.DataFrame]] = {}
    for stratum in strata(test_set.frame, report.evaluation):
        rows = _rows(report, replace(test_set, frame=stratum.frame), target)
        if stratum.name == ALL_ROWS or isinstance(rows, Absent) or len(rows) < report.evaluation.min_cell_size:
            continue
        groups.setdefault(stratum.name.partition("=")[0], {})[stratum.name] = rows
    for column, parts in groups.items():
        largest = sorted(parts, key=lambda name: len(parts[name]), reverse=True)[: len(_COLOURS)]
        groups[column] = {name: rows for name, rows in parts.items() if name in largest}
    return groups


def _risk_coverage(rows: pd.DataFrame) -> tuple[pd.DataFrame, float]:
    """Points of the curve, ``kept_percent, error``, and its gain."""
    curve = uncertainty.risk_coverage((rows["predicted"] - rows["measured"]).abs(), rows["sigma"])
    # The mean of a handful of errors says nothing of the curve.
    first = min(_MIN_KEPT, len(rows)) - 1
    shown = np.unique(np.linspace(first, len(rows) - 1, _CURVE_POINTS).round().astype(int))
    return pd.DataFrame({"kept_percent": 100 * curve.coverage_N[shown], "error": curve.risk_N[shown]}), curve.gain


def _draw_curve(axes: Axes, curve: pd.DataFrame, colour: str, label: str) -> None:
    axes.plot(curve["kept_percent"], curve["error"], color=colour, lw=1.8, label=label)
    axes.axhline(curve["error"].iloc[-1], color=colour, lw=0.9, ls=":")


def _finish_curves(axes: Axes, target: TargetConfig, title: str) -> None:
    axes.set(
        xlabel="Patients kept, the most certain first (%)",
        ylabel=f"Mean absolute error ({target.unit})",
        title=title,
        xlim=(0, 100),
    )
    axes.set_ylim(bottom=0)


def _rows(report: Report, test_set: TestSet, target: TargetConfig) -> pd.DataFrame | Absent:
    """Scored and measured patients of a target, by rising prediction: ``measured, predicted, sigma``."""
    where = f"{target.label}, {test_set.label.lower()}"
    result = report.results.row(test_set.name, "ccc", score=f"{target.name}_mu", target=target.name)
    if result is None or target.name not in test_set.frame:
        return Absent(reason=f"{where}: it was not measured in this data set.")
    if np.isnan(result["estimate"]):
        return Absent(reason=f"{where}: {result['na_reason']}.")
    columns = {"measured": target.name, "predicted": f"{target.name}_mu", "sigma": f"{target.name}_sigma"}
    rows = pd.DataFrame({name: numbers(test_set.frame, column) for name, column in columns.items()})
    rows = rows[rows.notna().all(axis=1)]
    return rows.sort_values(["predicted", "measured"], ignore_index=True)


def _marks(axes: Axes, x: pd.Series, y: pd.Series) -> None:
    axes.plot(x, y, "o", ms=4, color=style.BLUE, alpha=0.55, mec="none", rasterized=style.as_pixels(len(x)))


def _draw_limits(axes: Axes, limits: Mapping[str, Interval]) -> None:
    """Bias and limits with their bands; the value stands above each line at the right edge."""
    axes.axhline(0, color=style.LIGHT, lw=0.8, zorder=0)
    for name, line in limits.items():
        colour, dash = (style.VERMILION, "-") if name == "bias" else (style.INK, "--")
        axes.axhline(line.estimate, color=colour, ls=dash, lw=1.3, zorder=3)
        if not np.isnan(line.ci_low):
            axes.axhspan(line.ci_low, line.ci_high, color=colour, alpha=0.12, lw=0, zorder=0)
        axes.annotate(
            words.number(line.estimate, 2),
            (1, line.estimate),
            xycoords=("axes fraction", "data"),
            xytext=(-3, 3),
            textcoords="offset points",
            ha="right",
            va="bottom",
            fontsize=9,
            color=colour,
            bbox={"facecolor": style.PAPER, "edgecolor": "none", "alpha": 0.8, "pad": 1.0},
            zorder=4,
        )


def _ideal(report: Report, test_set: TestSet, target: TargetConfig, metric: str) -> str:
    row = report.results.row(test_set.name, metric, score="ideal", target=target.name) if report.simulated else None
    return "" if row is None or np.isnan(row["estimate"]) else f"\nideal predictor {words.estimate(row)}"


def _shown(n_shown: int, n: int) -> str:
    return f"n = {n}" if n_shown == n else f"{n_shown} of {n} patients, evenly spaced"

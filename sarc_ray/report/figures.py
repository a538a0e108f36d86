"""Figures of the score: receiver-operating characteristic (the paper's Figure 6) and calibration (Figure S3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from sarc_ray.evaluation.rows import numbers
from sarc_ray.report import style, words
from sarc_ray.report.content import Absent, Float, Report, TestSet
from sarc_ray.stats.calibration import calibration_curve, reliability_table
from sarc_ray.stats.discrimination import roc_curve

_N_BINS = 10
_CALIBRATION = (
    ("auroc", "AUROC", 3),
    ("brier", "Brier score", 3),
    ("citl", "calibration in the large", 2),
    ("cal_slope", "slope", 2),
    ("ici", "integrated calibration index", 3),
)
_N_SPIKES = 100
_SPIKES = {1: "spike_with", 0: "spike_without"}


def roc_figure(report: Report, test_set: TestSet) -> style.Figure | Absent:
    """ROC curve of the score, and of SARC-F where it was recorded, with the AUROCs and DeLong's p of the results.

    The ideal predictor enters with its AUROC alone: its scores belong to the truth, which only the evaluation opens.
    """
    row = report.results.row(test_set.name, "auroc")
    if row is None or np.isnan(row["estimate"]):
        return Absent(reason=why_absent(row, f"No ROC curve for the {test_set.label.lower()}"))
    curves = [("SARC-CXR", "score", style.BLUE, "-", row)]
    sarc_f = report.results.row(test_set.name, "auroc_delong", score="sarc_f")
    if sarc_f is not None and not np.isnan(sarc_f["estimate"]):
        curves.append(("SARC-F", "sarc_f", style.VERMILION, "--", sarc_f))
    parts = []
    with style.canvas(style.WIDTH_IN, 4.7) as figure:
        axes = figure.subplots()
        for label, column, colour, dash, found in curves:
            curve = roc_curve(*labelled(test_set.frame, column))
            axes.plot(
                100 * curve.fpr, 100 * curve.tpr, dash, color=colour, lw=2, label=f"{label} {words.estimate(found)}"
            )
            parts.append(
                pd.DataFrame({"score": column, "threshold": curve.threshold, "fpr": curve.fpr, "tpr": curve.tpr})
            )
        _operating_point(axes, report, test_set)
        axes.plot([0, 100], [0, 100], color=style.LIGHT, lw=1, zorder=0)
        axes.set(
            xlabel="1 \u2212 specificity",
            ylabel="Sensitivity",
            xlim=(-1.5, 101.5),
            ylim=(-1.5, 101.5),
            title=f"{test_set.label}, n = {row['n']} ({row['n_events']} with {report.outcome})",
        )
        axes.xaxis.set_major_formatter(PercentFormatter(decimals=0))
        axes.yaxis.set_major_formatter(PercentFormatter(decimals=0))
        axes.legend(loc="lower right", title="AUROC", alignment="left", title_fontsize=9)
        svg = style.to_svg(figure)
    return style.Figure(
        name=f"roc-{test_set.name}",
        title=f"ROC, {test_set.label.lower()}",
        caption=_roc_caption(report, test_set),
        svg=svg,
        numbers=pd.concat(parts, ignore_index=True),
    )


def calibration_figure(report: Report, test_set: TestSet) -> style.Figure | Absent:
    """Calibration: bins with intervals, a smooth curve, and the scores' distribution by outcome beneath."""
    row = report.results.row(test_set.name, "brier")
    if row is None or np.isnan(row["estimate"]):
        return Absent(reason=why_absent(row, f"No calibration plot for the {test_set.label.lower()}"))
    label_N, score_N = labelled(test_set.frame, "score")
    bins = pd.DataFrame(
        {
            "part": "bin",
            "probability": b.mean_probability,
            "observed": b.observed.estimate,
            "ci_low": b.observed.ci_low,
            "ci_high": b.observed.ci_high,
            "n": b.n,
            "n_events": b.n_events,
        }
        for b in reliability_table(label_N, score_N, n_bins=_N_BINS, confidence_level=report.confidence_level)
    )
    curve = calibration_curve(label_N, score_N)
    smooth = pd.DataFrame({"part": "smooth", "probability": curve.probability, "observed": curve.observed})
    smooth = smooth.drop_duplicates(ignore_index=True)
    spikes = _spikes(label_N, score_N)
    top = min(1.0, 1.05 * float(np.nanmax([score_N.max(), bins["ci_high"].max(), 0.1])))
    with style.canvas(style.WIDTH_IN, 5.2) as figure:
        upper, lower = figure.subplots(2, 1, height_ratios=(4.2, 1), sharex=True)
        _draw_calibration(upper, bins, smooth, top)
        upper.set_title(f"{test_set.label}, n = {row['n']}")
        upper.legend(loc="upper left", ncols=3, handlelength=1.4, columnspacing=1.2, bbox_to_anchor=(-0.02, 1.0))
        _draw_spikes(lower, spikes, report.outcome)
        svg = style.to_svg(figure)
    numbers_drawn = pd.concat([bins, smooth, spikes], ignore_index=True)
    return style.Figure(
        name=f"calibration-{test_set.name}",
        title=f"Calibration, {test_set.label.lower()}",
        caption=(
            f"Observed share of patients with {report.outcome} against the score. Points: up to {_N_BINS} groups of "
            f"equal size with {100 * report.confidence_level:g}% Wilson intervals. Line: lowess. Diagonal: perfect "
            f"calibration. {_calibration_text(report, test_set)}. Beneath: how many patients have which score, those "
            "with the outcome upwards, the others downwards."
        ),
        svg=svg,
        numbers=numbers_drawn.astype({"n": "Int64", "n_events": "Int64"}),
    )


def labelled(frame: pd.DataFrame, column: str) -> tuple[Float, Float]:
    """Outcome and a score of the rows that were scored and have both."""
    label_N, score_N, value_N = (numbers(frame, name) for name in ("outcome", "score", column))
    known_N = ~(np.isnan(label_N) | np.isnan(score_N) | np.isnan(value_N))
    return label_N[known_N], value_N[known_N]


def why_absent(row: Mapping[str, Any] | None, what: str) -> str:
    """The sentence in place of a figure whose result row is missing or holds no number."""
    return f"{what}: {'it was not evaluated' if row is None else row['na_reason']}."


def _operating_point(axes: Axes, report: Report, test_set: TestSet) -> None:
    sensitivity = report.results.row(test_set.name, "sensitivity")
    specificity = report.results.row(test_set.name, "specificity")
    if sensitivity is None or specificity is None:
        return
    axes.plot(
        100 * (1 - specificity["estimate"]),
        100 * sensitivity["estimate"],
        "o",
        ms=7,
        color=style.BLUE,
        mec=style.PAPER,
        label=f"threshold in force, {report.threshold:.3f}",
        zorder=4,
    )


def _roc_caption(report: Report, test_set: TestSet) -> str:
    results, dataset = report.results, test_set.name
    text = (
        f"AUROC with {100 * report.confidence_level:g}% intervals: score by bootstrap of patients, SARC-F by DeLong. "
    )
    difference = results.row(dataset, "auroc_difference", comparator="sarc_f")
    if difference is None or np.isnan(difference["estimate"]):
        sarc_f = results.row(dataset, "auroc_delong", score="sarc_f")
        reason = sarc_f["na_reason"] if sarc_f is not None and sarc_f["na_reason"] else "SARC-F was not recorded"
        text += f"No comparison with SARC-F: {reason}. "
    else:
        p = words.p_text(difference["p_value"])
        text += (
            f"SARC-CXR minus SARC-F on the {difference['n']} patients who have both: {words.estimate(difference)}"
            f"{f', DeLong {p}' if p else ''}. "
        )
    ideal = results.row(dataset, "auroc", score="ideal") if report.simulated else None
    if ideal is not None:
        text += f"The ideal predictor attains {words.estimate(ideal)}."
    return text.strip()


def _calibration_text(report: Report, test_set: TestSet) -> str:
    """The figures that pmcalplot prints into the plot (E:O, CITL, slope, AUROC), and Brier score and ICI."""
    label_N, score_N = labelled(test_set.frame, "score")
    with_outcome = float(label_N.sum())
    parts = [f"expected / observed {score_N.sum() / with_outcome:.2f}"] if with_outcome else []
    for metric, label, decimals in _CALIBRATION:
        row = report.results.row(test_set.name, metric)
        if row is not None and not np.isnan(row["estimate"]):
            parts.append(f"{label} {words.estimate(row, decimals)}")
    return ", ".join(parts)


def _draw_calibration(axes: Axes, bins: pd.DataFrame, smooth: pd.DataFrame, top: float) -> None:
    axes.plot([0, 1], [0, 1], color=style.GREY, lw=1, ls=":", label="perfect")
    axes.plot(smooth["probability"], smooth["observed"].clip(0, 1), color=style.VERMILION, label="smooth (lowess)")
    spread = np.abs(bins[["ci_low", "ci_high"]].to_numpy().T - bins["observed"].to_numpy())
    axes.errorbar(
        bins["probability"], bins["observed"], yerr=spread, fmt="o", ms=5, color=style.BLUE, lw=1.2, label="groups"
    )
    axes.set(xlim=(-0.02 * top, top), ylim=(-0.02 * top, top), ylabel="Observed share")


def _spikes(label_N: Float, score_N: Float) -> pd.DataFrame:
    """How many patients with and without the outcome have a score in each of equal bins."""
    edges = np.linspace(0, 1, _N_SPIKES + 1)
    parts = []
    for outcome in (1, 0):
        n_B, _ = np.histogram(score_N[label_N == outcome], edges)
        middle_B = (edges[:-1] + edges[1:]) / 2
        parts.append(pd.DataFrame({"part": _SPIKES[outcome], "probability": middle_B, "n": n_B})[n_B > 0])
    return pd.concat(parts, ignore_index=True)


def _draw_spikes(axes: Axes, spikes: pd.DataFrame, outcome: str) -> None:
    for value, colour, sign in ((1, style.VERMILION, 1), (0, style.BLUE, -1)):
        rows = spikes[spikes["part"] == _SPIKES[value]]
        axes.vlines(rows["probability"], 0, sign * rows["n"], color=colour, lw=2.2)
    axes.axhline(0, color=style.GREY, lw=0.8)
    axes.set(xlabel="Score (calibrated probability)", ylabel="Patients")
    most = max(1, int(spikes["n"].max()))
    axes.set_ylim(-1.1 * most, 1.1 * most)
    axes.set_yticks([-most, 0, most], [str(most), "0", str(most)])
    axes.text(0.99, 0.95, f"with {outcome}", transform=axes.transAxes, ha="right", va="top", fontsize=9)
    axes.text(0.99, 0.05, f"without {outcome}", transform=axes.transAxes, ha="right", va="bottom", fontsize=9)

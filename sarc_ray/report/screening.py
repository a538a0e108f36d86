"""Figures beyond the paper's: precision against recall, distribution of the scores, and the decision curve.

N patients, T threshold probabilities.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from sarc_ray.cohort.definitions import SARC_F_CUTOFF
from sarc_ray.report import style, words
from sarc_ray.report.content import Absent, Float, Report, TestSet
from sarc_ray.report.figures import labelled, why_absent
from sarc_ray.stats.decision import decision_curve
from sarc_ray.stats.discrimination import auprc, pr_curve

SARC_F_CUT = int(SARC_F_CUTOFF)
_N_BINS = 25
# Threshold probabilities are shown up to at least this, and up to three times the prevalence.
_TOP_AT_LEAST, _TOP_PREVALENCES = 0.5, 3.0
_CLASSES = ((1, "with", style.VERMILION, "-"), (0, "without", style.BLUE, "--"))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Shown:
    """The patients of a panel, and what its caption says of them."""

    frame: pd.DataFrame
    with_sarc_f: bool
    some_lack_it: bool
    said: str


def precision_recall_figure(report: Report, test_set: TestSet) -> style.Figure | Absent:
    """Precision-recall curve of the score, and of SARC-F where it was recorded, over the line of the prevalence."""
    row = report.results.row(test_set.name, "auprc")
    if row is None or np.isnan(row["estimate"]):
        return Absent(reason=why_absent(row, f"No precision-recall curve for the {test_set.label.lower()}"))
    shown = _shown(report, test_set)
    area = words.number(auprc(*labelled(shown.frame, "score"))) if shown.some_lack_it else words.estimate(row)
    curves = [("SARC-CXR", "score", style.BLUE, "-", area)]
    if shown.with_sarc_f:
        area = words.number(auprc(*labelled(shown.frame, "sarc_f")))
        curves.append(("SARC-F", "sarc_f", style.VERMILION, "--", area))
    label_N = labelled(shown.frame, "score")[0]
    prevalence = float(label_N.mean())
    parts = [pd.DataFrame({"score": ["prevalence"], "precision": [prevalence]})]
    with style.canvas(style.WIDTH_IN, 4.7) as figure:
        axes = figure.subplots()
        for label, column, colour, dash, text in curves:
            curve = pr_curve(*labelled(shown.frame, column))
            points = pd.DataFrame({"threshold": curve.threshold, "recall": curve.recall, "precision": curve.precision})
            parts.append(points.assign(score=column))
            recall_G, precision_G = np.append(0, curve.recall), np.append(curve.precision[0], curve.precision)
            steps = axes.step(100 * recall_G, 100 * precision_G, dash, where="pre", color=colour, lw=2)
            steps[0].set_label(f"{label} {text}")
        _operating_point(axes, report, shown.frame)
        axes.axhline(100 * prevalence, color=style.GREY, lw=1.2, ls=":", label=f"prevalence {prevalence:.3f}")
        axes.set(
            xlabel="Recall (sensitivity)",
            ylabel="Precision (PPV)",
            xlim=(-1.5, 101.5),
            ylim=(-1.5, 101.5),
            title=f"{test_set.label}, n = {label_N.size} ({label_N.sum():.0f} with {report.outcome})",
        )
        axes.xaxis.set_major_formatter(PercentFormatter(decimals=0))
        axes.yaxis.set_major_formatter(PercentFormatter(decimals=0))
        axes.legend(loc="upper right", title="AUPRC", alignment="left", title_fontsize=9)
        svg = style.to_svg(figure)
    return style.Figure(
        name=f"precision-recall-{test_set.name}",
        title=f"Precision and recall, {test_set.label.lower()}",
        caption=(
            "Of the flagged, how many have the outcome, against how many of those with the outcome are flagged. "
            f"AUPRC is step-wise average precision{_interval_said(report, shown)}. Dotted: the prevalence, which a "
            f"score without information attains at every recall.{shown.said}"
        ),
        svg=svg,
        numbers=pd.concat(parts, ignore_index=True)[["score", "threshold", "recall", "precision"]],
    )


def distribution_figure(report: Report, test_set: TestSet) -> style.Figure | Absent:
    """Distribution of the score among patients with and without the outcome, with the threshold in force."""
    label_N, score_N = labelled(test_set.frame, "score")
    if not len(score_N):
        return Absent(reason=f"No distribution of scores for the {test_set.label.lower()}: no patient has both.")
    top = max(math.ceil(20 * float(score_N.max())) / 20, 0.05)
    edges = np.linspace(0, top, _N_BINS + 1)
    parts = []
    with style.canvas(style.WIDTH_IN, 3.9) as figure:
        axes = figure.subplots()
        for outcome, word, colour, dash in _CLASSES:
            n_B, _ = np.histogram(score_N[label_N == outcome], edges)
            share_B = 100 * n_B / max(1, n_B.sum())
            bins = pd.DataFrame({"outcome": outcome, "score_from": edges[:-1], "score_to": edges[1:]})
            parts.append(bins.assign(n=n_B, percent=share_B))
            text = f"{word} {report.outcome}, n = {n_B.sum()}"
            axes.stairs(share_B, edges, color=colour, alpha=0.18, fill=True)
            axes.stairs(share_B, edges, color=colour, ls=dash, lw=1.8, label=text)
        axes.axvline(report.threshold, color=style.INK, lw=1.2, ls=":", label=f"threshold {report.threshold:.3f}")
        axes.set(xlabel="Score (calibrated probability)", ylabel="Share of the group", title=test_set.label)
        axes.set_xlim(0, top)
        axes.yaxis.set_major_formatter(PercentFormatter(decimals=0))
        figure.legend(loc="outside lower center", ncols=2)
        svg = style.to_svg(figure)
    return style.Figure(
        name=f"scores-{test_set.name}",
        title=f"Distribution of the score, {test_set.label.lower()}",
        caption=(
            f"Scores of patients with and without {report.outcome}, each group as 100%. Dotted: the threshold in "
            "force; patients at or to the right of it are flagged."
        ),
        svg=svg,
        numbers=pd.concat(parts, ignore_index=True),
    )


def decision_curve_figure(report: Report, test_set: TestSet) -> style.Figure | Absent:
    """Net benefit of the score beside testing all, testing none, and SARC-F at its usual cut-off."""
    row = report.results.row(test_set.name, "brier")
    if row is None or np.isnan(row["estimate"]):
        return Absent(reason=why_absent(row, f"No decision curve for the {test_set.label.lower()}"))
    shown = _shown(report, test_set)
    table = decision_table(*labelled(shown.frame, "score"))
    n = len(labelled(shown.frame, "score")[0])
    if shown.with_sarc_f:
        label_N, sarc_f_N = labelled(shown.frame, "sarc_f")
        table["sarc_f"] = _benefit_of_flags(label_N, sarc_f_N >= SARC_F_CUT, table["threshold"].to_numpy())
    best = float(table["model"].max())
    with style.canvas(style.WIDTH_IN, 4.2) as figure:
        axes = figure.subplots()
        percent_T = 100 * table["threshold"]
        axes.plot(percent_T, table["treat_all"], color=style.GREY, lw=1.4, ls="--", label="test all")
        axes.axhline(0, color=style.INK, lw=1.2, label="test none")
        if "sarc_f" in table:
            text = f"SARC-F \u2265 {SARC_F_CUT}"
            axes.plot(percent_T, table["sarc_f"], color=style.VERMILION, lw=1.6, ls="-.", label=text)
        axes.plot(percent_T, table["model"], color=style.BLUE, lw=2.2, label="SARC-CXR")
        axes.axvline(100 * report.threshold, color=style.INK, lw=1, ls=":", label="threshold in force")
        axes.set(
            xlabel="Threshold probability",
            ylabel="Net benefit",
            ylim=(-0.35 * max(best, 0.02), 1.15 * max(best, 0.02)),
            xlim=(0, float(percent_T.max())),
            title=f"{test_set.label}, n = {n}",
        )
        axes.xaxis.set_major_formatter(PercentFormatter(decimals=0))
        axes.legend(loc="upper right")
        svg = style.to_svg(figure)
    return style.Figure(
        name=f"decision-curve-{test_set.name}",
        title=f"Decision curve, {test_set.label.lower()}",
        caption=(
            "Net benefit TP/n \u2212 FP/n \u00b7 t/(1 \u2212 t) of testing further whoever has a score of t or more. "
            "Whoever would accept 9 tests in vain for one patient found acts at t = 10%. The uppermost line is the "
            f"best choice at that t.{_sarc_f_said(shown)} The CSV adds the benefit as a share of the "
            "prevalence, and the tests avoided per 100 patients against testing all."
        ),
        svg=svg,
        numbers=table,
    )


def decision_table(label_N: Float, score_N: Float) -> pd.DataFrame:
    """Decision curve by whole percents: ``threshold, model, treat_all, treat_none, standardised, avoided_per_100``.

    Args:
        label_N: 0 or 1.
        score_N: calibrated probabilities.
    """
    top = min(0.99, max(_TOP_AT_LEAST, _TOP_PREVALENCES * float(label_N.mean())))
    curve = decision_curve(label_N, score_N, np.arange(1, math.floor(100 * top) + 1) / 100)
    names = ("threshold", "model", "treat_all", "treat_none", "standardised", "avoided_per_100")
    return pd.DataFrame({name: getattr(curve, name) for name in names})


def _benefit_of_flags(label_N: Float, flag_N: np.ndarray, threshold_T: Float) -> Float:
    """Net benefit of a decision that does not depend on the threshold probability."""
    tp, fp = float((flag_N & (label_N == 1)).mean()), float((flag_N & (label_N == 0)).mean())
    return tp - fp * threshold_T / (1 - threshold_T)


def _shown(report: Report, test_set: TestSet) -> _Shown:
    """Where SARC-F was evaluated, the patients who have it: curves of other patients would not compare with its own."""
    row = report.results.row(test_set.name, "auroc_delong", score="sarc_f")
    if row is None or np.isnan(row["estimate"]):
        reason = str(row["na_reason"]) if row is not None and row["na_reason"] else "SARC-F was not recorded"
        return _Shown(frame=test_set.frame, with_sarc_f=False, some_lack_it=False, said=f" No SARC-F: {reason}.")
    n_all = len(labelled(test_set.frame, "score")[0])
    frame = test_set.frame[test_set.frame["sarc_f"].notna()]
    n = len(labelled(frame, "score")[0])
    said = f" All curves are of the {n:,} patients of {n_all:,} who have SARC-F." if n < n_all else ""
    return _Shown(frame=frame, with_sarc_f=True, some_lack_it=n < n_all, said=said)


def _sarc_f_said(shown: _Shown) -> str:
    return f"{f' SARC-F flags at {SARC_F_CUT} or more, whatever t.' if shown.with_sarc_f else ''}{shown.said}"


def _interval_said(report: Report, shown: _Shown) -> str:
    """The interval of the results table is of all patients."""
    if shown.some_lack_it:
        return ""
    return f" with its {100 * report.confidence_level:g}% interval by bootstrap of patients"


def _operating_point(axes: Axes, report: Report, frame: pd.DataFrame) -> None:
    """Recall and precision of the flags, where both are defined."""
    label_N, flag_N = labelled(frame, "flag")
    if not label_N.any() or not flag_N.any():
        return
    found = float((label_N * flag_N).sum())
    axes.plot(
        100 * found / label_N.sum(),
        100 * found / flag_N.sum(),
        "o",
        ms=7,
        color=style.BLUE,
        mec=style.PAPER,
        label=f"threshold in force, {report.threshold:.3f}",
        zorder=4,
    )

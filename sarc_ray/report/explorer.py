"""The threshold explorer: what any threshold would do, from counts per threshold; no patient's row leaves here.

The page recomputes everything from ``data``; the table beneath holds the named thresholds for print and for readers
without scripts, and the CSV every threshold. C thresholds ("cuts") by rising value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from sarc_ray.report import words
from sarc_ray.report.content import Absent, Float, Report, TestSet
from sarc_ray.report.figures import labelled
from sarc_ray.report.screening import SARC_F_CUT
from sarc_ray.report.tabulate import Table
from sarc_ray.stats import discrimination

PER = 10_000
_GRID = np.arange(0, 101) / 100
_SARC_F_CUTS = np.arange(0, 12, dtype=np.float64)
_RATES = ("sensitivity", "specificity", "ppv", "npv")
_SCORES = {"score": "SARC-CXR", "sarc_f": "SARC-F"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Explorer:
    """The part of the page that a reader moves.

    Attributes:
        name: of its place on the page.
        title: a few words.
        note: beneath it.
        data: plain data for the script: counts per threshold of each test set.
    """

    name: str
    title: str
    note: str
    data: Mapping[str, Any]


def explorer(report: Report) -> Explorer | Absent:
    """Counts of each test set at every threshold; :class:`Absent` where no test set has labelled scores."""
    found = [_test_set_data(report, test_set) for test_set in report.test_sets]
    sets = [data for data in found if data is not None]
    if not sets:
        return Absent(reason="No threshold to explore: no test set has patients with and without the outcome.")
    return Explorer(
        name="explorer",
        title="Threshold explorer",
        note=(
            "Counted in the test set; at another prevalence sensitivity and specificity are taken to stay as they "
            f"are, which a different mix of patients may belie. Number needed to test: flagged patients per patient "
            f"with {report.outcome} found, 1 / PPV. A threshold picked here has been picked on the test set: its "
            "figures are too good."
        ),
        data={
            "outcome": report.outcome,
            "lineage": report.lineage.hash,
            "per": PER,
            "sarc_f_cut": SARC_F_CUT,
            "sets": sets,
        },
    )


def explorer_view(report: Report) -> Table | None:
    """The named thresholds of each test set as a table; None where there is nothing to explore."""
    found = {test_set.label: explorer_counts(report, test_set) for test_set in report.test_sets}
    tables = {label: table for label, table in found.items() if table is not None}
    if not tables:
        return None
    rows: list[tuple[str, ...]] = []
    for label, table in tables.items():
        rows.append((label,))
        for line in table[table["said"] != ""].to_dict("records"):
            counts = (str(int(line[name])) for name in ("tp", "fp", "fn", "tn"))
            rates = (words.number(float(line[name])) for name in _RATES)
            cut = words.number(float(line["threshold"]), 4 if line["score"] == "score" else 0)
            alerts = words.number(float(line["alerts_per_10000"]), 0)
            rows.append(
                (str(line["said"]), cut, *counts, *rates, alerts, words.number(float(line["needed_to_test"]), 1))
            )
    return Table(
        name="threshold-explorer",
        title="The named thresholds in the test sets",
        groups=(),
        columns=(
            *("Threshold by", "At or above", "TP", "FP", "FN", "TN"),
            *("Sensitivity", "Specificity", "PPV", "NPV", f"Flagged of {PER:,}", "Number needed to test"),
        ),
        rows=tuple(rows),
        note="At the test set's own prevalence. The CSV holds every threshold of the explorer.",
        numbers=pd.concat(tables.values(), ignore_index=True),
    )


def explorer_counts(report: Report, test_set: TestSet) -> pd.DataFrame | None:
    """What every threshold does in a test set, of the score and of SARC-F where it was recorded.

    Returns:
        ``dataset, score, threshold, said, tp, fp, fn, tn, sensitivity, specificity, ppv, npv, alerts_per_10000,
        needed_to_test``; ``said`` names the thresholds that have a name. None without patients of both classes.
    """
    parts = []
    for score, cut_C, said in (("score", *_cuts(report)), ("sarc_f", _SARC_F_CUTS, {float(SARC_F_CUT): _usual()})):
        found = _counted(test_set.frame, score, cut_C)
        if found is None:
            continue
        parts.append(found.assign(dataset=test_set.name, score=score, said=[said.get(float(cut), "") for cut in cut_C]))
    if not parts or parts[0]["score"].iloc[0] != "score":
        return None
    names = ("dataset", "score", "threshold", "said", "tp", "fp", "fn", "tn", *_RATES)
    return pd.concat(parts, ignore_index=True)[[*names, "alerts_per_10000", "needed_to_test"]]


def _usual() -> str:
    return f"SARC-F, usual cut-off {SARC_F_CUT}"


def _cuts(report: Report) -> tuple[Float, dict[float, str]]:
    """Whole percents and the thresholds that rules chose; and the rules in words by threshold."""
    said: dict[float, list[str]] = {}
    for point in report.operating.points.to_dict("records"):
        rule = str(point["said"])
        text = f"{rule[:1].upper()}{rule[1:]}{' (in force)' if point['in_force'] else ''}"
        said.setdefault(float(point["threshold"]), []).append(text)
    said.setdefault(float(report.threshold), ["Threshold in force"])
    known = {cut: "; ".join(texts) for cut, texts in said.items() if np.isfinite(cut)}
    return np.unique(np.concatenate([_GRID, list(known)])), known


def _counted(frame: pd.DataFrame, score: str, cut_C: Float) -> pd.DataFrame | None:
    """The four cells at each cut, and what follows from them; None where a class is empty."""
    if score not in frame:
        return None
    label_N, score_N = labelled(frame, score)
    n_with, n_without = (np.sort(score_N[label_N == outcome]) for outcome in (1, 0))
    if not len(n_with) or not len(n_without):
        return None
    tp_C, fp_C = (len(sorted_N) - np.searchsorted(sorted_N, cut_C, side="left") for sorted_N in (n_with, n_without))
    counts = {"tp": tp_C, "fp": fp_C, "fn": len(n_with) - tp_C, "tn": len(n_without) - fp_C}
    cells = discrimination.Confusion(**{name: count.astype(np.float64) for name, count in counts.items()})
    table = pd.DataFrame({"threshold": cut_C, **counts})
    for name in _RATES:
        table[name] = getattr(discrimination, name)(cells)
    table["alerts_per_10000"] = PER * (tp_C + fp_C) / len(label_N)
    table["needed_to_test"] = 1 / table["ppv"].where(table["ppv"] > 0)
    return table


def _test_set_data(report: Report, test_set: TestSet) -> dict[str, Any] | None:
    table = explorer_counts(report, test_set)
    if table is None:
        return None
    scores: dict[str, dict[str, Any]] = {
        str(name): {
            "label": _SCORES[str(name)],
            "cuts": [float(cut) for cut in own["threshold"]],
            "tp": own["tp"].tolist(),
            "fp": own["fp"].tolist(),
            "n_with": int(own["tp"].iloc[0] + own["fn"].iloc[0]),
            "n_without": int(own["fp"].iloc[0] + own["tn"].iloc[0]),
            "named": [[int(place), str(said)] for place, said in enumerate(own["said"]) if said],
        }
        for name, own in table.groupby("score", sort=False)
    }
    return {
        "name": test_set.name,
        "label": test_set.label,
        "in_force": scores["score"]["cuts"].index(float(report.threshold)),
        "score": scores["score"],
        "sarc_f": scores.get("sarc_f"),
    }

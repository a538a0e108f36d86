"""What was decided on out-of-fold scores before any test set was looked at: calibration and threshold."""

from __future__ import annotations

import pandas as pd

from sarc_ray.report import words
from sarc_ray.report.content import Report
from sarc_ray.report.tabulate import Table

_POINT_COLUMNS = ("threshold", "sensitivity", "specificity", "ppv", "npv", "f1")
_FIGURES = (("brier", "Brier score"), ("ici", "Integrated calibration index"))


def calibration_view(report: Report) -> Table:
    """Which calibration was asked for, whether it is in force, and the figures behind it."""
    decision = report.operating.calibration
    rows = [
        (label, words.number(_known(decision[key]), 4), words.number(_known(decision[f"{key}_calibrated"]), 4))
        for key, label in _FIGURES
    ]
    return Table(
        name="calibration-decision",
        title="Calibration",
        groups=(),
        columns=("Out of fold", "Raw score", f"After {_named(str(decision['method']))}"),
        rows=tuple(rows),
        note=(
            f"{report.operating.said}. It is in force only where both figures become smaller; each patient's score was "
            "calibrated by a map that was fitted on other patients."
        ),
        numbers=pd.DataFrame([dict(decision)]),
    )


def thresholds_view(report: Report) -> Table:
    """Every rule's threshold with what it does to the training patients, and which one is in force."""
    points = report.operating.points
    rows = []
    for point in points.to_dict("records"):
        cells = [words.number(_known(point[name]), 4 if name == "threshold" else 3) for name in _POINT_COLUMNS]
        alerts = words.number(_known(point["alerts_per_10000"]), 0)
        rows.append((f"{point['said']}{' (in force)' if point['in_force'] else ''}", *cells, alerts))
    return Table(
        name="thresholds",
        title="Thresholds",
        groups=(),
        columns=("Rule", "Score", "Sensitivity", "Specificity", "PPV", "NPV", "F1", "Flagged of 10,000"),
        rows=tuple(rows),
        note=(
            "Each as it would be for patients like the training patients, at their prevalence. Counted on the "
            "out-of-fold scores on which it was chosen, so that the figures are a little too good; those of the test "
            "sets stand in Table 2."
        ),
        numbers=points,
    )


def _named(method: str) -> str:
    return "no calibration" if method == "none" else f"{method} calibration"


def _known(value: float | None) -> float:
    return float("nan") if value is None else float(value)

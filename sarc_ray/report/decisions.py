"""What was decided on out-of-fold scores before any test set was looked at: calibration and threshold."""

from __future__ import annotations

from typing import Any

import pandas as pd

from sarc_ray.evaluation.algorithm_table import CROSS_VALIDATION
from sarc_ray.report import words
from sarc_ray.report.content import Absent, Report, Search
from sarc_ray.report.tabulate import Table

_TEST_METRICS = {"auroc": "AUROC", "f1": "F1", "sensitivity": "Sens.", "specificity": "Spec."}
_CV_METRICS = ("auroc", "f1", "trials", "pruned", "seconds")
_CHOSEN_ON_TEST = (
    "Chosen by F1 in the internal test set, as the paper did (stage2.choice: internal_test_as_paper). That set's "
    "figures of the chosen model are therefore too good, here and in the rest of this report; only those of other test "
    "sets are honest."
)
_CHOSEN_BY_CV = (
    "Chosen by cross-validation alone: of the trials within one standard error of the best AUROC the one with the best "
    "F1 at its out-of-fold threshold."
)
_BY_THE_CLOCK = (
    " The search was limited in computing time (stage2.minutes_per_algorithm): another machine, or this one at another "
    "time, may try other parameters and choose otherwise."
)
_POINT_COLUMNS = ("threshold", "sensitivity", "specificity", "ppv", "npv", "f1")
_AFTER = {"none": "After no calibration", "prevalence": "After calibration, before re-basing"}
_JUDGED = (
    "It is in force only where both figures become smaller; each patient's score was calibrated by a map that was "
    "fitted on other patients."
)
_NOTES = {"none": "", "prevalence": "At the wanted prevalence nothing was measured: the figures are those before."}
_FIGURES = (("brier", "Brier score"), ("ici", "Integrated calibration index"))


def algorithms_view(report: Report) -> Table | Absent:
    """Table S1: each algorithm's best trial in cross-validation and on the test sets, with what the search cost."""
    if isinstance(report.search, Absent):
        return report.search
    table = report.search.algorithms
    lines: dict[tuple[Any, ...], dict[str, Any]] = {
        (row["algorithm"], row["dataset"], row["metric"]): {str(key): value for key, value in row.items()}
        for row in table.to_dict("records")
    }
    tests = [test_set for test_set in report.test_sets if test_set.name in set(table["dataset"])]
    rows = []
    for name, group in table.groupby("algorithm", sort=True):
        inner = {metric: lines[name, CROSS_VALIDATION, metric] for metric in _CV_METRICS}
        cells = [f"{str(name).replace('_', ' ')}{' (chosen)' if group['chosen'].any() else ''}"]
        cells += [f"{inner[metric]['estimate']:.0f}" for metric in ("trials", "pruned")]
        cells += [words.number(inner["seconds"]["estimate"] / 60.0, 1)]
        cells += [words.estimate(inner["auroc"]), words.number(inner["f1"]["estimate"])]
        cells += [words.estimate(lines.get((name, test.name, metric))) for test in tests for metric in _TEST_METRICS]
        rows.append((*cells, str(inner["auroc"]["params"])))
    cost = ("Algorithm", "Trials", "Given up", "Minutes", "AUROC", "F1")
    return Table(
        name="table-s1",
        title=f"Table S1. Five algorithms for {report.outcome}" if len(rows) == 5 else "Table S1. The algorithms",
        groups=(("", 4), ("Cross-validation", 2), *((test.label, len(_TEST_METRICS)) for test in tests), ("", 1)),
        columns=(*cost, *(label for _ in tests for label in _TEST_METRICS.values()), "Parameters"),
        rows=tuple(rows),
        note=(
            f"{_choice(report.search)} Each algorithm at its own threshold by the rule in force. Intervals: of the "
            "cross-validated AUROC from the standard error of its folds; of the test sets by bootstrap of patients. "
            "Minutes: computing time of all its trials. An algorithm without figures on the test sets ranks the "
            "training patients no better than chance, so that it gave no score."
        ),
        numbers=table,
    )


def nested_view(report: Report) -> Table | None:
    """What search, choice and calibration are worth together; None where nested cross-validation was not asked for."""
    if isinstance(report.search, Absent) or report.search.nested is None:
        return None
    table = report.search.nested
    rows = [
        (
            str(row["fold"] + 1),
            str(row["n"]),
            str(row["algorithm"]).replace("_", " "),
            *(words.number(float(row[name])) for name in ("cv_auroc", "auroc", "brier")),
        )
        for row in table.to_dict("records")
    ]
    means = [words.number(float(table[name].mean())) for name in ("cv_auroc", "auroc", "brier")]
    return Table(
        name="nested",
        title="Nested cross-validation",
        groups=(),
        columns=("Outer fold", "Patients", "Chosen within", "AUROC said within", "AUROC", "Brier score"),
        rows=(*rows, ("Mean", str(table["n"].sum()), "", *means)),
        note=(
            "The whole procedure, once per outer fold, scored on patients that took no part in it. It judges the "
            "procedure; the model in use learned from all of them."
        ),
        numbers=table,
    )


def _choice(search: Search) -> str:
    chosen = _CHOSEN_BY_CV if search.choice == "cross_validation" else _CHOSEN_ON_TEST
    return chosen + (_BY_THE_CLOCK if search.by_the_clock else "")


def calibration_view(report: Report) -> Table:
    """Which calibration was asked for, whether it is in force, and the figures behind it."""
    decision = report.operating.calibration
    method = str(decision["method"])
    rows = [
        (label, words.number(_known(decision[key]), 4), words.number(_known(decision[f"{key}_calibrated"]), 4))
        for key, label in _FIGURES
    ]
    return Table(
        name="calibration-decision",
        title="Calibration",
        groups=(),
        columns=("Out of fold", "Raw score", _AFTER.get(method, f"After {method} calibration")),
        rows=tuple(rows),
        note=f"{report.operating.said}. {_NOTES.get(method, _JUDGED)}".strip(),
        numbers=pd.DataFrame([dict(decision)]),
    )


def thresholds_view(report: Report) -> Table:
    """Every rule's threshold with what it does to the training patients, and which one is in force."""
    points = report.operating.points
    rebased = report.operating.calibration["method"] == "prevalence"
    prevalence = "the prevalence that scores are re-based to" if rebased else "their prevalence"
    rows = []
    for point in points.to_dict("records"):
        cells = [words.number(_known(point[name]), 4 if name == "threshold" else 3) for name in _POINT_COLUMNS]
        alerts = words.number(_known(point["alerts_per_10000"]), 0)
        rule = str(point["said"])
        rows.append((f"{rule[:1].upper()}{rule[1:]}{' (in force)' if point['in_force'] else ''}", *cells, alerts))
    return Table(
        name="thresholds",
        title="Thresholds",
        groups=(),
        columns=("Rule", "Score", "Sensitivity", "Specificity", "PPV", "NPV", "F1", "Flagged of 10,000"),
        rows=tuple(rows),
        note=(
            f"Each as it would be for patients like the training patients, at {prevalence}. Counted on the "
            "out-of-fold scores on which it was chosen, so that the figures are a little too good; those of the test "
            "sets stand in Table 2."
        ),
        numbers=points,
    )


def _known(value: float | None) -> float:
    return float("nan") if value is None else float(value)

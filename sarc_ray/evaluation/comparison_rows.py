"""Result rows that set the score against another one, and a subgroup against another one. Shapes: N rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sarc_ray.cohort.definitions import SARC_F_CUTOFF
from sarc_ray.evaluation.outcome_rows import (
    PROBABILITIES,
    LabelledScore,
    add_metrics,
    add_size_problem,
    key_of,
    labelled,
    one_class,
    size_problem,
    with_value,
)
from sarc_ray.evaluation.plan import IDEAL, OUTCOME_METRICS, SARC_F
from sarc_ray.evaluation.row_values import compared_values, interval_values
from sarc_ray.evaluation.rows import MISSING, Sheet, Stratum
from sarc_ray.stats import bootstrap, discrimination
from sarc_ray.stats.hypothesis import mcnemar

AUROC_GAP = "auroc_gap"
_COLUMNS = {IDEAL: "bayes_score"}
_LABELS = {SARC_F: "SARC-F"}
_BOOTSTRAPPED = ("auprc_difference", "brier_difference", "sensitivity_difference", "specificity_difference")
_Bool = npt.NDArray[np.bool_]


def add_comparator_rows(sheet: Sheet, stratum: Stratum, outcome: str, comparator: str) -> None:
    """Add the comparator's own figures, and the differences (score - comparator) on rows that have both.

    Raises:
        EvaluationError: the comparator's column holds something that is not a number.
    """
    column = _COLUMNS.get(comparator, comparator)
    known = with_value(stratum, column)
    if comparator == IDEAL:
        _add_ideal(sheet, known, outcome, column)
    else:
        _add_alone(sheet, known, outcome, column)
    _add_differences(sheet, known, outcome, comparator, column)


def add_gap_rows(sheet: Sheet, strata: Sequence[Stratum], outcome: str) -> None:
    """Add the gap of AUROCs between each level of a subgroup column and its largest level, on different patients."""
    metric = AUROC_GAP
    if metric not in sheet.plan.comparisons:
        return
    by_column: dict[str, list[Stratum]] = {}
    for stratum in strata:
        column, _, level = stratum.name.partition("=")
        if level and level != MISSING:
            by_column.setdefault(column, []).append(stratum)
    for levels in by_column.values():
        largest = max(levels, key=lambda stratum: key_of(stratum, outcome, score="score").n or 0)
        for stratum in levels:
            if stratum is not largest:
                add_gap(sheet, stratum, largest, outcome)


def add_gap(sheet: Sheet, stratum: Stratum, other: Stratum, outcome: str, *, comparator: str | None = None) -> None:
    """Add the AUROC of the score in a stratum - that in another one, by the unpaired DeLong test.

    With ``comparator``, the name of another data set, patients are others though their identifiers may be alike.
    """
    a = labelled(stratum, outcome, score="score", column="score", comparator=comparator or other.name)
    b = labelled(other, outcome, score="score", column="score")
    methods = {AUROC_GAP: sheet.plan.comparisons[AUROC_GAP]}
    too_small = size_problem(sheet, a, b)
    if too_small:
        sheet.add_missing(a.key, methods, too_small)
        return
    found = discrimination.delong_unpaired(
        a.label_N, a.score_N, b.label_N, b.score_N, confidence_level=sheet.plan.config.confidence_level
    )
    shared = comparator is None and bool(stratum.frame["patient_id"].isin(other.frame["patient_id"]).any())
    untested = _untested(a, b)
    if untested and not np.isnan(found.difference):
        sheet.add(a.key, AUROC_GAP, method=methods[AUROC_GAP], estimate=found.difference, na_reason=untested)
        return
    _add_compared(sheet, a, AUROC_GAP, found, repeated=a.repeated or b.repeated or shared, reason=_lacking(a, b))


def _untested(a: LabelledScore, b: LabelledScore) -> str:
    """Why the gap has neither interval nor p-value: an AUROC of 0 or 1 would count as known without error."""
    for whose, data in (("", a), (f"{a.key.comparator}: ", b)):
        if not discrimination.delong_variance(data.label_N, data.score_N) > 0:
            return f"{whose}interval and p-value left out: DeLong's variance of this AUROC is zero or not defined"
    return ""


def _lacking(a: LabelledScore, b: LabelledScore) -> str:
    """Why two AUROCs cannot be compared: one of the sets has one class only."""
    elsewhere = one_class(b)
    return one_class(a) or (f"{a.key.comparator}: {elsewhere}" if elsewhere else "")


def _add_ideal(sheet: Sheet, known: Stratum, outcome: str, column: str) -> None:
    methods = sheet.plan.ideal_metrics
    if known.frame.empty:
        sheet.add_missing(key_of(known, outcome, score=IDEAL), methods, "the truth has no Bayes score for these rows")
        return
    data = labelled(known, outcome, score=IDEAL, column=column)
    if not add_size_problem(sheet, data, methods):
        add_metrics(sheet, data, methods)


def _add_alone(sheet: Sheet, known: Stratum, outcome: str, column: str) -> None:
    methods = {"auroc_delong": OUTCOME_METRICS["auroc_delong"]}
    key = key_of(known, outcome, score=column)
    if key.n == 0:
        sheet.add_missing(key, methods, f"{_LABELS.get(column, column)} was not recorded")
        return
    data = labelled(known, outcome, score=column, column=column)
    if not add_size_problem(sheet, data, methods):
        add_metrics(sheet, data, methods)


def _add_differences(sheet: Sheet, known: Stratum, outcome: str, comparator: str, column: str) -> None:
    methods = {
        name: method
        for name, method in sheet.plan.comparisons.items()
        if name == "auroc_difference" or name in _BOOTSTRAPPED
    }
    key = key_of(known, outcome, score="score", comparator=comparator)
    if key.n == 0:
        sheet.add_missing(key, methods, f"no row has a label, a score and {column}")
        return
    a = labelled(known, outcome, score="score", column="score", comparator=comparator)
    if add_size_problem(sheet, a, methods):
        return
    b = labelled(known, outcome, score=comparator, column=column)
    if "auroc_difference" in methods:
        level = sheet.plan.config.confidence_level
        found = discrimination.delong_paired(a.label_N, a.score_N, b.score_N, confidence_level=level)
        _add_compared(sheet, a, "auroc_difference", found, repeated=a.repeated, reason=one_class(a))
    if methods.keys() & set(_BOOTSTRAPPED):
        _add_bootstrapped(sheet, a, b, column, {name: methods[name] for name in methods if name in _BOOTSTRAPPED})


def _add_compared(
    sheet: Sheet,
    data: LabelledScore,
    metric: str,
    found: discrimination.AurocComparison,
    *,
    repeated: bool,
    reason: str,
) -> None:
    values = compared_values(found, repeated=repeated)
    if np.isnan(found.difference):
        values["na_reason"] = reason
    sheet.add(data.key, metric, method=sheet.plan.comparisons[metric], **values)


def _add_bootstrapped(sheet: Sheet, a: LabelledScore, b: LabelledScore, column: str, methods: dict[str, str]) -> None:
    """Differences of which both scores see the same patients in each replicate."""
    assert a.flag_N is not None
    flag_N = b.score_N >= SARC_F_CUTOFF if column == SARC_F else None
    patient_N = a.patient_N if a.repeated else None
    key = a.key
    intervals = bootstrap.bootstrap_differences(
        a.label_N,
        a.score_N,
        a.flag_N,
        b.score_N if column in PROBABILITIES else _within_bounds(b.score_N),
        np.zeros(a.label_N.size, dtype=bool) if flag_N is None else flag_N,
        **sheet.bootstrap_settings(key.outcome, key.score, key.comparator, key.subgroup, patient_N=patient_N),
    )
    for metric, method in methods.items():
        name = metric.removesuffix("_difference")
        values = interval_values(intervals[name]) | _p_value(name, a, flag_N)
        if name in ("sensitivity", "specificity") and flag_N is None:
            values = {"estimate": np.nan, "na_reason": f"{key.comparator} has no threshold"}
        if name == "brier" and column not in PROBABILITIES:
            values = {"estimate": np.nan, "na_reason": f"{key.comparator} is no probability"}
        if np.isnan(values["estimate"]) and not values.get("na_reason"):
            values["na_reason"] = one_class(a)
        sheet.add(key, metric, method=method, **values)


def _p_value(name: str, a: LabelledScore, other_flag_N: _Bool | None) -> dict[str, Any]:
    """McNemar's test among the patients with the outcome (sensitivity) or without it (specificity)."""
    if name not in ("sensitivity", "specificity") or other_flag_N is None or a.repeated or a.flag_N is None:
        return {}
    of_class_N = a.label_N == (name == "sensitivity")
    first_N, second_N = a.flag_N[of_class_N], other_flag_N[of_class_N]
    if not first_N.size:
        return {}
    counts = [[int(np.sum((first_N == i) & (second_N == j))) for j in (False, True)] for i in (False, True)]
    return {"p_value": mcnemar(counts, kind="mid_p").p_value}


def _within_bounds(score_N: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The same order within [0, 1]."""
    return (score_N - score_N.min()) / (np.ptp(score_N) or 1.0)

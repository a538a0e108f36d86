"""Result rows of the outcome's score: Table 2's metrics, calibration, decisions. Shapes: N rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from sarc_ray.errors import EvaluationError
from sarc_ray.evaluation.row_values import ONE_PATIENT, analytic_values, auroc_values, interval_values
from sarc_ray.evaluation.rows import ALL_ROWS, Key, Sheet, Stratum, numbers, size_reason
from sarc_ray.stats import bootstrap, calibration, discrimination, partial_area, proportions
from sarc_ray.stats.arrays import Interval
from sarc_ray.stats.calibration_intervals import calibration_error_intervals

_N_BINS = 10
# Columns whose values are probabilities of the outcome; others only rank the patients.
PROBABILITIES = ("score", "bayes_score")
_ERRORS = ("ici", "e50", "e90", "emax")
# Why a likelihood ratio is infinite.
_INFINITE = {
    "lr_positive": "infinite: no row without the outcome is flagged",
    "lr_negative": "infinite: every row without the outcome is flagged",
}
Values = dict[str, dict[str, Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledScore:
    """A score with labels on N rows; ``flag_N`` is None for a score without a threshold in force."""

    key: Key
    label_N: npt.NDArray[np.float64]
    score_N: npt.NDArray[np.float64]
    flag_N: npt.NDArray[np.bool_] | None
    patient_N: npt.NDArray[np.int64]
    repeated: bool


def add_outcome_rows(sheet: Sheet, stratum: Stratum, outcome: str) -> None:
    """Add the planned metrics of ``score`` in one stratum of scored rows; rows without a label are left out.

    Raises:
        EvaluationError: a scored row without a flag, a label other than 0/1, or a score outside [0, 1].
    """
    methods = sheet.plan.outcome_metrics
    data = labelled(stratum, outcome, score="score", column="score")
    if not add_size_problem(sheet, data, methods):
        add_metrics(sheet, data, methods)


def add_metrics(sheet: Sheet, data: LabelledScore, methods: Mapping[str, str]) -> None:
    """Add the rows of these metrics; what none of them needs is not computed."""
    available: Values = {}
    for names, compute in _COMPUTED:
        if methods.keys() & set(names):
            available |= compute(sheet, data)
    for metric, method in methods.items():
        values: dict[str, Any] = {"method": method, **available[metric]}
        if np.isnan(values["estimate"]) and not values.get("na_reason"):
            values["na_reason"] = one_class(data)
        sheet.add(data.key, metric, **values)


def _bootstrapped(sheet: Sheet, data: LabelledScore) -> Values:
    settings = _settings(sheet, data)
    flag_N = np.zeros(data.label_N.size, dtype=bool) if data.flag_N is None else data.flag_N
    intervals = bootstrap.bootstrap_metrics(data.label_N, data.score_N, flag_N, **settings)
    columns = np.column_stack([np.square(data.score_N - data.label_N), data.label_N])
    intervals |= bootstrap.bootstrap_means(columns, _scaled_brier, ["scaled_brier"], **settings)
    return {name: interval_values(interval) for name, interval in intervals.items()}


def _settings(sheet: Sheet, data: LabelledScore, *purpose: str) -> dict[str, Any]:
    patient_N = data.patient_N if data.repeated else None
    key = data.key
    return sheet.bootstrap_settings(key.outcome, key.score, key.subgroup, *purpose, patient_N=patient_N)


def _scaled_brier(means_B2: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    spread = means_B2[:, 1] * (1 - means_B2[:, 1])
    ratio = np.divide(means_B2[:, 0], spread, out=np.full(len(means_B2), np.nan), where=spread > 0)
    return (1 - ratio)[:, None]


def _logistic(sheet: Sheet, data: LabelledScore) -> Values:
    label_N, score_N, level = data.label_N, data.score_N, sheet.plan.config.confidence_level
    n_certain = int(np.count_nonzero((score_N == 0) | (score_N == 1)))
    if n_certain:
        reason = {"estimate": np.nan, "na_reason": f"{n_certain} scores are exactly 0 or 1 and have no logit"}
        return {"citl": reason, "cal_slope": reason}
    return {
        "citl": _analytic(calibration.citl(label_N, score_N, confidence_level=level), data),
        "cal_slope": _analytic(calibration.cal_slope(label_N, score_N, confidence_level=level), data),
    }


def _calibration_tests(sheet: Sheet, data: LabelledScore) -> Values:
    tests = {
        "spiegelhalter_z": calibration.spiegelhalter(data.label_N, data.score_N),
        "hosmer_lemeshow": calibration.hosmer_lemeshow(data.label_N, data.score_N, n_bins=_N_BINS, external=True),
    }
    return {
        name: {"estimate": test.statistic, "p_value": np.nan if data.repeated else test.p_value}
        for name, test in tests.items()
    }


def _prevalence(sheet: Sheet, data: LabelledScore) -> Values:
    level = sheet.plan.config.confidence_level
    share = discrimination.wilson_interval(int(data.label_N.sum()), data.label_N.size, confidence_level=level)
    return {"prevalence": _analytic(share, data)}


def _calibration_errors(sheet: Sheet, data: LabelledScore) -> Values:
    """With intervals on all rows alone: each replicate costs as much as the figure itself."""
    if data.key.subgroup != ALL_ROWS:
        errors = calibration.calibration_errors(data.label_N, data.score_N)
        return {name: {"estimate": getattr(errors, name)} for name in _ERRORS}
    settings = _curve_settings(sheet, data, "curves")
    intervals = calibration_error_intervals(data.label_N, data.score_N, **settings)
    return {name: interval_values(interval) for name, interval in intervals.items()}


def _partial(sheet: Sheet, data: LabelledScore) -> Values:
    fpr_high = sheet.plan.config.partial_auroc_fpr

    def area(label_N: npt.NDArray[np.float64], score_N: npt.NDArray[np.float64]) -> float:
        return partial_area.partial_auroc(label_N, score_N, fpr_low=0, fpr_high=fpr_high, standardise=True)

    if data.key.subgroup != ALL_ROWS:
        return {"partial_auroc": {"estimate": area(data.label_N, data.score_N)}}
    settings = _curve_settings(sheet, data, "partial")
    interval = bootstrap.bootstrap_statistic(area, [data.label_N, data.score_N], **settings)
    return {"partial_auroc": interval_values(interval)}


def _curve_settings(sheet: Sheet, data: LabelledScore, purpose: str) -> dict[str, Any]:
    # Percentile always: the acceleration of BCa would ask for one more curve for each patient.
    curves = {"n_boot": sheet.plan.config.n_boot_curves, "kind": "percentile"}
    return _settings(sheet, data, purpose) | curves


def _decided(sheet: Sheet, data: LabelledScore) -> Values:
    """Exact intervals of shares, and likelihood ratios, at the flag."""
    level, nan = sheet.plan.config.confidence_level, float("nan")
    assert data.flag_N is not None, "planned for the score alone, which has a flag"
    cells = discrimination.confusion_from_flags(data.label_N, data.flag_N)
    tp, fp, fn, tn = (int(cell) for cell in (cells.tp, cells.fp, cells.fn, cells.tn))
    shares = {"sensitivity": (tp, tp + fn), "specificity": (tn, tn + fp), "ppv": (tp, tp + fp), "npv": (tn, tn + fn)}
    found = {
        f"{name}_exact": _analytic(proportions.exact_interval(hits, n, confidence_level=level), data)
        for name, (hits, n) in shares.items()
    }
    for name, share in found.items():
        if np.isnan(share["estimate"]):
            share["na_reason"] = (
                one_class(data) or f"nobody is {'flagged' if name == 'ppv_exact' else 'left unflagged'}"
            )
    for name, ratio in (
        ("lr_positive", proportions.positive_likelihood_ratio(cells, confidence_level=level)),
        ("lr_negative", proportions.negative_likelihood_ratio(cells, confidence_level=level)),
    ):
        if np.isinf(ratio.estimate):
            found[name] = {"estimate": nan, "na_reason": _INFINITE[name]}
        else:
            found[name] = _analytic(ratio, data)
    return found


def _auroc_delong(sheet: Sheet, data: LabelledScore) -> Values:
    level = sheet.plan.config.confidence_level
    interval = discrimination.auroc_interval(data.label_N, data.score_N, confidence_level=level)
    return {"auroc_delong": auroc_values(interval, repeated=data.repeated)}


def _analytic(interval: Interval, data: LabelledScore) -> dict[str, Any]:
    return analytic_values(interval, repeated=data.repeated)


def one_class(data: LabelledScore) -> str:
    """Why a figure that needs both classes is not defined; empty where both are there."""
    n_events = int(data.label_N.sum())
    return {0: "no row has the outcome", data.label_N.size: "every row has the outcome"}.get(n_events, "")


def add_size_problem(sheet: Sheet, data: LabelledScore, methods: Mapping[str, str]) -> bool:
    """Add rows with the reason where there are too few rows, or too few of a class, for figures; say whether so."""
    reason = size_problem(sheet, data)
    if reason:
        sheet.add_missing(data.key, methods, reason)
    return bool(reason)


def size_problem(sheet: Sheet, *sets: LabelledScore) -> str:
    """Why the first of these that is too small is too small; empty where none is. A set of another name is named."""
    config = sheet.plan.config
    for data in sets:
        n, n_events = data.label_N.size, int(data.label_N.sum())
        reason = size_reason(n, n_events, min_cell_size=config.min_cell_size, min_events=config.min_events)
        reason = reason or (ONE_PATIENT if data.patient_N.max() == 0 else "")
        if reason:
            return reason if data is sets[0] else f"{sets[0].key.comparator}: {reason}"
    return ""


def with_value(stratum: Stratum, column: str) -> Stratum:
    """Rows on which a column has a value; none where the column is absent."""
    frame = stratum.frame
    known_N = ~np.isnan(numbers(frame, column)) if column in frame else np.zeros(len(frame), dtype=bool)
    return Stratum(name=stratum.name, frame=frame[known_N])


def key_of(stratum: Stratum, outcome: str, *, score: str, comparator: str = "") -> Key:
    """What rows of this stratum are about; counts are those of rows with a label."""
    label_N = numbers(stratum.frame, "outcome")
    known_N = ~np.isnan(label_N)
    return Key(
        outcome=outcome,
        score=score,
        subgroup=stratum.name,
        n=int(known_N.sum()),
        n_events=int((label_N[known_N] == 1).sum()),
        comparator=comparator,
    )


def labelled(stratum: Stratum, outcome: str, *, score: str, column: str, comparator: str = "") -> LabelledScore:
    """The labelled rows of a stratum with one of their scores.

    Raises:
        EvaluationError: a label other than 0/1; a missing value, or one outside [0, 1], in a column of probabilities.
    """
    label_N, score_N = numbers(stratum.frame, "outcome"), numbers(stratum.frame, column)
    known_N = ~np.isnan(label_N)
    frame, label_N, score_N = stratum.frame[known_N], label_N[known_N], score_N[known_N]
    _check(label_N, score_N, column)
    patient_N = pd.factorize(frame["patient_id"])[0].astype(np.int64)
    return LabelledScore(
        key=key_of(stratum, outcome, score=score, comparator=comparator),
        label_N=label_N,
        score_N=score_N,
        flag_N=_flags(frame) if column == "score" else None,
        patient_N=patient_N,
        repeated=np.unique(patient_N).size < patient_N.size,
    )


def _check(label_N: npt.NDArray[np.float64], score_N: npt.NDArray[np.float64], column: str) -> None:
    wrong = label_N[(label_N != 0) & (label_N != 1)]
    if wrong.size:
        raise EvaluationError(f"column outcome: found {wrong[0]:g}; allowed: 0, 1 or nothing")
    if np.isnan(score_N).any():
        raise EvaluationError(f"column {column}: {np.isnan(score_N).sum()} scored rows have no value; score them again")
    outside = score_N[(score_N < 0) | (score_N > 1)] if column in PROBABILITIES else score_N[:0]
    if outside.size:
        raise EvaluationError(f"column {column}: found {outside[0]:g}; a score is a probability within [0, 1]")


def _flags(frame: pd.DataFrame) -> npt.NDArray[np.bool_]:
    flag_N = numbers(frame, "flag")
    if np.isnan(flag_N).any() or not set(np.unique(flag_N)) <= {0.0, 1.0}:
        raise EvaluationError("column flag: every scored row needs true or false (score >= threshold in force)")
    return flag_N == 1


def add_count_rows(sheet: Sheet, frame: pd.DataFrame, scored: pd.DataFrame, outcome: str) -> None:
    """Add how many rows and patients there are, and how many rows were left out and why."""
    n_unlabelled = int(np.isnan(numbers(scored, "outcome")).sum())
    counts: Iterable[tuple[str, int]] = (
        ("n_rows", len(frame)),
        ("n_patients", int(frame["patient_id"].nunique())),
        ("n_not_scored", len(frame) - len(scored)),
        ("n_label_missing", n_unlabelled),
    )
    key = Key(outcome=outcome, score="score", subgroup=ALL_ROWS, n=len(frame), n_events=None)
    for metric, count in counts:
        sheet.add(key, metric, estimate=float(count), method="count")


_COMPUTED: tuple[tuple[tuple[str, ...], Callable[[Sheet, LabelledScore], Values]], ...] = (
    ((*bootstrap.METRICS, "scaled_brier"), _bootstrapped),
    (("auroc_delong",), _auroc_delong),
    (("prevalence",), _prevalence),
    (("citl", "cal_slope"), _logistic),
    (_ERRORS, _calibration_errors),
    (("spiegelhalter_z", "hosmer_lemeshow"), _calibration_tests),
    (("partial_auroc",), _partial),
    (("sensitivity_exact", "specificity_exact", "ppv_exact", "npv_exact", "lr_positive", "lr_negative"), _decided),
)

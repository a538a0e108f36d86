"""Result rows of the outcome's score: Table 2's metrics, calibration, comparisons with SARC-F and the ideal."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from sarc_ray.errors import EvaluationError
from sarc_ray.evaluation.plan import COMPARISONS, IDEAL_OUTCOME_METRICS, OUTCOME_METRICS
from sarc_ray.evaluation.rows import ALL_ROWS, Key, Sheet, Stratum, numbers
from sarc_ray.stats import bootstrap, calibration, discrimination
from sarc_ray.stats.arrays import Interval

REPEATED = "interval left out: it assumes one row per patient, and patients repeat"
_N_BINS = 10


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
    data = _labelled(stratum, outcome, score="score", column="score")
    if _add_size_problem(sheet, data, OUTCOME_METRICS):
        return
    _add_metrics(sheet, data, OUTCOME_METRICS)


def add_ideal_outcome_rows(sheet: Sheet, stratum: Stratum, outcome: str) -> None:
    """Add the ideal reader's ``bayes_score`` where there is one, and the difference of AUROCs (score - ideal)."""
    methods = {name: OUTCOME_METRICS[name] for name in IDEAL_OUTCOME_METRICS}
    stratum = _with_value(stratum, "bayes_score")
    if stratum.frame.empty:
        sheet.add_missing(_key(stratum, outcome, score="ideal"), methods, "the truth has no Bayes score for these rows")
        return
    data = _labelled(stratum, outcome, score="ideal", column="bayes_score")
    if not _add_size_problem(sheet, data, methods):
        _add_metrics(sheet, data, methods)
    _add_difference(sheet, stratum, outcome, comparator="ideal", column="bayes_score")


def add_sarc_f_rows(sheet: Sheet, stratum: Stratum, outcome: str) -> None:
    """Add the AUROC of SARC-F, and the difference of AUROCs (score - SARC-F) on rows that have both."""
    column = "sarc_f"
    stratum = _with_value(stratum, column)
    key = _key(stratum, outcome, score=column)
    if key.n == 0:
        sheet.add(key, "auroc_delong", method=OUTCOME_METRICS["auroc_delong"], na_reason="SARC-F was not recorded")
    else:
        data, methods = _labelled(stratum, outcome, score=column, column=column), {"auroc_delong": "DeLong"}
        if not _add_size_problem(sheet, data, methods):
            sheet.add(data.key, "auroc_delong", **_auroc_delong(sheet, data))
    _add_difference(sheet, stratum, outcome, comparator=column, column=column)


def _add_metrics(sheet: Sheet, data: LabelledScore, methods: dict[str, str]) -> None:
    available = {**_bootstrapped(sheet, data), **_calibrated(sheet, data), "auroc_delong": _auroc_delong(sheet, data)}
    for metric, method in methods.items():
        values: dict[str, Any] = {"method": method, **available[metric]}
        if np.isnan(values["estimate"]) and not values.get("na_reason"):
            values["na_reason"] = _one_class(data)
        sheet.add(data.key, metric, **values)


def _bootstrapped(sheet: Sheet, data: LabelledScore) -> dict[str, dict[str, Any]]:
    config, key = sheet.plan.config, data.key
    settings: dict[str, Any] = {
        "n_boot": config.n_boot,
        "confidence_level": config.confidence_level,
        "seed": sheet.seed_of(key.outcome, key.score, key.subgroup),
        "patient": data.patient_N if data.repeated else None,
    }
    flag_N = np.zeros(key.n, dtype=bool) if data.flag_N is None else data.flag_N
    intervals = bootstrap.bootstrap_metrics(data.label_N, data.score_N, flag_N, **settings)
    columns = np.column_stack([np.square(data.score_N - data.label_N), data.label_N])
    intervals |= bootstrap.bootstrap_means(columns, _scaled_brier, ["scaled_brier"], **settings)
    return {name: interval_values(interval) for name, interval in intervals.items()}


def _scaled_brier(means_B2: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    spread = means_B2[:, 1] * (1 - means_B2[:, 1])
    ratio = np.divide(means_B2[:, 0], spread, out=np.full(len(means_B2), np.nan), where=spread > 0)
    return (1 - ratio)[:, None]


def _calibrated(sheet: Sheet, data: LabelledScore) -> dict[str, dict[str, Any]]:
    label_N, score_N, level = data.label_N, data.score_N, sheet.plan.config.confidence_level
    n_certain = int(np.count_nonzero((score_N == 0) | (score_N == 1)))
    if n_certain:
        reason = {"estimate": np.nan, "na_reason": f"{n_certain} scores are exactly 0 or 1 and have no logit"}
        logistic = {"citl": reason, "cal_slope": reason}
    else:
        logistic = {
            "citl": _analytic(calibration.citl(label_N, score_N, confidence_level=level), data),
            "cal_slope": _analytic(calibration.cal_slope(label_N, score_N, confidence_level=level), data),
        }
    errors = calibration.calibration_errors(label_N, score_N)
    tests = {
        "spiegelhalter_z": calibration.spiegelhalter(label_N, score_N),
        "hosmer_lemeshow": calibration.hosmer_lemeshow(label_N, score_N, n_bins=_N_BINS, external=True),
    }
    share = discrimination.wilson_interval(int(label_N.sum()), label_N.size, confidence_level=level)
    return {
        **logistic,
        **{name: {"estimate": getattr(errors, name)} for name in ("ici", "e50", "e90", "emax")},
        **{
            name: {"estimate": test.statistic, "p_value": np.nan if data.repeated else test.p_value}
            for name, test in tests.items()
        },
        "prevalence": _analytic(share, data),
    }


def _auroc_delong(sheet: Sheet, data: LabelledScore) -> dict[str, Any]:
    level = sheet.plan.config.confidence_level
    interval = discrimination.auroc_interval(data.label_N, data.score_N, confidence_level=level)
    values = {"method": OUTCOME_METRICS["auroc_delong"], **_analytic(interval, data)}
    return values | ({"na_reason": _one_class(data)} if np.isnan(interval.estimate) else {})


def _add_difference(sheet: Sheet, stratum: Stratum, outcome: str, *, comparator: str, column: str) -> None:
    metric, method = "auroc_difference", COMPARISONS["auroc_difference"]
    key = _key(stratum, outcome, score="score", comparator=comparator)
    if key.n == 0:
        sheet.add(key, metric, method=method, na_reason=f"no row has a label, a score and {column}")
        return
    data = _labelled(stratum, outcome, score="score", column="score", comparator=comparator)
    if _add_size_problem(sheet, data, {metric: method}):
        return
    other = _labelled(stratum, outcome, score=comparator, column=column)
    comparison = discrimination.delong_paired(
        data.label_N, data.score_N, other.score_N, confidence_level=sheet.plan.config.confidence_level
    )
    values = _analytic(
        Interval(estimate=comparison.difference, ci_low=comparison.ci_low, ci_high=comparison.ci_high), data
    )
    if np.isnan(comparison.difference):
        values["na_reason"] = _one_class(data)
    sheet.add(data.key, metric, method=method, p_value=np.nan if data.repeated else comparison.p_value, **values)


def _analytic(interval: Interval, data: LabelledScore) -> dict[str, Any]:
    return analytic_values(interval, repeated=data.repeated)


def interval_values(interval: bootstrap.BootstrapInterval) -> dict[str, Any]:
    """A bootstrap interval as row values."""
    return {
        "estimate": interval.estimate,
        "ci_low": interval.ci_low,
        "ci_high": interval.ci_high,
        "n_boot": interval.n_boot,
        "n_degenerate": interval.n_degenerate,
    }


def analytic_values(interval: Interval, *, repeated: bool) -> dict[str, Any]:
    """An analytic interval as row values; only the estimate where patients repeat."""
    if repeated:
        return {"estimate": interval.estimate, "na_reason": REPEATED}
    return {"estimate": interval.estimate, "ci_low": interval.ci_low, "ci_high": interval.ci_high}


def _one_class(data: LabelledScore) -> str:
    """Why a figure that needs both classes is not defined; empty where both are there."""
    reasons = {0: "no row has the outcome", data.key.n: "every row has the outcome"}
    return reasons.get(data.key.n_events or 0, "")


def _add_size_problem(sheet: Sheet, data: LabelledScore, methods: dict[str, str]) -> bool:
    minimum = sheet.plan.config.min_cell_size
    if data.key.n >= minimum:
        return False
    sheet.add_missing(data.key, methods, f"n = {data.key.n} is below min_cell_size = {minimum}")
    return True


def _with_value(stratum: Stratum, column: str) -> Stratum:
    """Rows on which a column has a value; none where the column is absent."""
    frame = stratum.frame
    known_N = ~np.isnan(numbers(frame, column)) if column in frame else np.zeros(len(frame), dtype=bool)
    return Stratum(name=stratum.name, frame=frame[known_N])


def _key(stratum: Stratum, outcome: str, *, score: str, comparator: str = "") -> Key:
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


def _labelled(stratum: Stratum, outcome: str, *, score: str, column: str, comparator: str = "") -> LabelledScore:
    label_N, score_N = numbers(stratum.frame, "outcome"), numbers(stratum.frame, column)
    known_N = ~np.isnan(label_N)
    frame, label_N, score_N = stratum.frame[known_N], label_N[known_N], score_N[known_N]
    _check(label_N, score_N, column)
    patient_N = pd.factorize(frame["patient_id"])[0].astype(np.int64)
    return LabelledScore(
        key=_key(stratum, outcome, score=score, comparator=comparator),
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
    outside = score_N[(score_N < 0) | (score_N > 1)] if column != "sarc_f" else score_N[:0]
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

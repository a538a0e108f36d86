"""Result rows of stage 1's predictions: agreement, error and honesty of the uncertainty. Shapes: N rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from sarc_ray.errors import EvaluationError
from sarc_ray.evaluation.row_values import ONE_PATIENT, analytic_values, interval_values
from sarc_ray.evaluation.rows import ALL_ROWS, Key, Sheet, Stratum, numbers
from sarc_ray.stats import agreement, bootstrap, discrimination, uncertainty
from sarc_ray.stats.arrays import FloatArray, Interval

# Columns of the per-row numbers whose means give the bootstrapped metrics.
_ERROR, _ABSOLUTE, _NLL, _CRPS, _VARIANCE, _CENTRED, _CENTRED_SQUARE = range(7)
_N_COLUMNS = 7
_BOOTSTRAPPED = ("explained_variance", "mae", "rmse", "nll", "crps", "sharpness")
_PARTS = ("sharpness_aleatoric", "sharpness_epistemic")


@dataclass(frozen=True, kw_only=True, slots=True)
class Predictions:
    """Measured values of one target beside a prediction, in the target's unit.

    ``parts_N2`` holds the aleatoric and the epistemic variance; None where the prediction has no such parts.
    """

    measured_N: FloatArray
    mu_N: FloatArray
    sigma_N: FloatArray
    parts_N2: FloatArray | None
    patient_N: npt.NDArray[np.int64]
    repeated: bool


def add_target_rows(sheet: Sheet, stratum: Stratum, target: str, *, with_ideal: bool) -> None:
    """Add the planned metrics of one target in one stratum of scored rows; rows without a measurement are left out.

    Args:
        sheet: takes the rows.
        stratum: scored rows, with columns ``<target>``, ``<target>_mu``, ``<target>_sigma``, and where known
            ``<target>_var_aleatoric`` and ``<target>_var_epistemic``.
        target: the target's name.
        with_ideal: also evaluate ``<target>_ideal_mu`` and ``<target>_ideal_sigma`` where known, and compare.

    Raises:
        EvaluationError: a prediction column is absent or holds something that is not a number, a scored row has no
            prediction, or a standard deviation is not positive.
    """
    methods, score = sheet.plan.target_metrics, f"{target}_mu"
    if target not in stratum.frame:
        key = Key(outcome=target, score=score, subgroup=stratum.name, n=0, n_events=None)
        sheet.add_missing(key, methods, f"the data set has no column {target}")
        return
    measured_N = numbers(stratum.frame, target)
    known_N = ~np.isnan(measured_N)
    frame, n = stratum.frame[known_N], int(known_N.sum())
    key = Key(outcome=target, score=score, subgroup=stratum.name, n=n, n_events=None)
    if stratum.name == ALL_ROWS:
        sheet.add(key, "n_measured_missing", estimate=float((~known_N).sum()), method="count")
    if n < sheet.plan.config.min_cell_size:
        reason = f"n = {n} is below min_cell_size = {sheet.plan.config.min_cell_size}"
        sheet.add_missing(key, methods, reason)
        return
    if frame["patient_id"].nunique() < 2:
        sheet.add_missing(key, methods, ONE_PATIENT)
        return
    _add_metrics(sheet, key, _predictions(frame, target, prefix=target))
    if with_ideal:
        _add_ideal(sheet, key, frame)


def _add_ideal(sheet: Sheet, key: Key, frame: pd.DataFrame) -> None:
    """The ideal reader's metrics, and the comparison with it, on the rows for which the truth has an ideal."""
    target, column = key.outcome, f"{key.outcome}_ideal_mu"
    known_N = ~np.isnan(numbers(frame, column)) if column in frame else np.zeros(len(frame), dtype=bool)
    frame, n = frame[known_N], int(known_N.sum())
    ideal_key = Key(outcome=target, score="ideal", subgroup=key.subgroup, n=n, n_events=None)
    if n < sheet.plan.config.min_cell_size:
        sheet.add_missing(ideal_key, sheet.plan.target_metrics, f"the truth has an ideal for {n} rows only")
        return
    ideal = _predictions(frame, target, prefix=f"{target}_ideal")
    _add_metrics(sheet, ideal_key, ideal)
    _add_comparison(sheet, replace(key, n=n, comparator="ideal"), _predictions(frame, target, prefix=target), ideal)


def _predictions(frame: pd.DataFrame, target: str, *, prefix: str) -> Predictions:
    patient_N = pd.factorize(frame["patient_id"])[0].astype(np.int64)
    parts = [f"{prefix}_var_aleatoric", f"{prefix}_var_epistemic"]
    known = all(name in frame for name in parts)
    return Predictions(
        measured_N=numbers(frame, target),
        mu_N=_predicted(frame, f"{prefix}_mu", above=-np.inf),
        sigma_N=_predicted(frame, f"{prefix}_sigma", above=0.0),
        parts_N2=np.column_stack([numbers(frame, name) for name in parts]) if known else None,
        patient_N=patient_N,
        repeated=np.unique(patient_N).size < patient_N.size,
    )


def _predicted(frame: pd.DataFrame, column: str, *, above: float) -> FloatArray:
    value_N = numbers(frame, column)
    n_wrong = int(np.count_nonzero(~(np.isfinite(value_N) & (value_N > above))))
    if n_wrong:
        wanted = " above 0" if above == 0.0 else ""
        raise EvaluationError(f"column {column}: {n_wrong} scored rows have no number{wanted}; score them again")
    return value_N


def _add_metrics(sheet: Sheet, key: Key, data: Predictions) -> None:
    available = _analytic(sheet, data) | _bootstrapped(sheet, key, data) | _rankings(data)
    for metric, method in sheet.plan.target_metrics.items():
        sheet.add(key, metric, method=method, **available[metric])


def _analytic(sheet: Sheet, data: Predictions) -> dict[str, dict[str, Any]]:
    level, pair = sheet.plan.config.confidence_level, (data.measured_N, data.mu_N)
    ccc = agreement.concordance(*pair, confidence_level=level)
    limits = agreement.bland_altman(*pair, confidence_level=level)
    intervals = {
        "ccc": Interval(estimate=ccc.estimate, ci_low=ccc.ci_low, ci_high=ccc.ci_high),
        "pearson": agreement.pearson(*pair, confidence_level=level),
        "bias": limits.bias,
        "loa_low": limits.loa_low,
        "loa_high": limits.loa_high,
    }
    for metric, interval_level in sheet.plan.coverage_levels.items():
        inside_N = uncertainty.inside_interval(*pair, data.sigma_N, level=interval_level)
        intervals[metric] = discrimination.wilson_interval(int(inside_N.sum()), inside_N.size, confidence_level=level)
    values = {name: analytic_values(interval, repeated=data.repeated) for name, interval in intervals.items()}
    slope = agreement.proportional_bias(*pair, confidence_level=level)
    values["proportional_bias"] = {
        **analytic_values(slope.slope, repeated=data.repeated),
        "p_value": np.nan if data.repeated else slope.p_value,
    }
    return values | {"bias_correction": {"estimate": ccc.bias_correction}}


def _bootstrapped(sheet: Sheet, key: Key, data: Predictions) -> dict[str, dict[str, Any]]:
    settings = _settings(sheet, key, data, "metrics")
    columns, names = _columns(data), list(_BOOTSTRAPPED)
    if data.parts_N2 is not None:
        columns = np.hstack([columns, data.parts_N2])
        names += _PARTS
    intervals = bootstrap.bootstrap_means(columns, _statistics, names, **settings)
    unknown = {name: {"na_reason": "the prediction has no parts of its variance"} for name in _PARTS}
    return unknown | {name: interval_values(interval) for name, interval in intervals.items()}


def _rankings(data: Predictions) -> dict[str, dict[str, Any]]:
    """Figures of all rows at once, which have no interval."""
    curve = uncertainty.risk_coverage(np.abs(data.mu_N - data.measured_N), data.sigma_N)
    error = uncertainty.interval_calibration_error(data.measured_N, data.mu_N, data.sigma_N)
    return {
        "interval_calibration_error": {"estimate": error},
        "aurc": {"estimate": curve.area},
        "aurc_gain": {"estimate": curve.gain},
    }


def _add_comparison(sheet: Sheet, key: Key, predicted: Predictions, ideal: Predictions) -> None:
    methods = sheet.plan.comparisons
    if "sigma_spearman" in methods:
        rho = agreement.spearman(predicted.sigma_N, ideal.sigma_N, confidence_level=sheet.plan.config.confidence_level)
        values = analytic_values(rho, repeated=predicted.repeated)
        if np.isnan(rho.estimate):
            values["na_reason"] = "one of the two sigmas is the same for all rows"
        sheet.add(key, "sigma_spearman", method=methods["sigma_spearman"], **values)
    names = ("explained_variance_ratio", "nll_difference")
    if not methods.keys() & set(names):
        return
    columns = np.hstack([_columns(predicted), _columns(ideal)])
    intervals = bootstrap.bootstrap_means(
        columns, _comparison_statistics, names, **_settings(sheet, key, predicted, "comparison")
    )
    for name in (name for name in names if name in methods):
        sheet.add(key, name, method=methods[name], **interval_values(intervals[name]))


def _settings(sheet: Sheet, key: Key, data: Predictions, purpose: str) -> dict[str, Any]:
    patient_N = data.patient_N if data.repeated else None
    return sheet.bootstrap_settings(key.outcome, key.score, key.subgroup, purpose, patient_N=patient_N)


def _columns(data: Predictions) -> FloatArray:
    triple = (data.measured_N, data.mu_N, data.sigma_N)
    error_N = data.mu_N - data.measured_N
    # Centred first: the variance as a difference of means then loses no digits.
    centred_N = data.measured_N - data.measured_N.mean()
    return np.column_stack(
        [
            np.square(error_N),
            np.abs(error_N),
            uncertainty.gaussian_nll(*triple),
            uncertainty.gaussian_crps(*triple),
            np.square(data.sigma_N),
            centred_N,
            np.square(centred_N),
        ]
    )


def _explained_variance(means_BK: FloatArray) -> FloatArray:
    variance = means_BK[:, _CENTRED_SQUARE] - np.square(means_BK[:, _CENTRED])
    ratio = np.divide(means_BK[:, _ERROR], variance, out=np.full(len(means_BK), np.nan), where=variance > 0)
    return 1 - ratio


def _statistics(means_BK: FloatArray) -> FloatArray:
    return np.column_stack(
        [
            _explained_variance(means_BK),
            means_BK[:, _ABSOLUTE],
            np.sqrt(means_BK[:, _ERROR]),
            means_BK[:, _NLL],
            means_BK[:, _CRPS],
            np.sqrt(means_BK[:, _VARIANCE]),
            np.sqrt(means_BK[:, _N_COLUMNS:]),
        ]
    )


def _comparison_statistics(means_BK: FloatArray) -> FloatArray:
    half = means_BK.shape[1] // 2
    predicted, ideal = means_BK[:, :half], means_BK[:, half:]
    best = _explained_variance(ideal)
    # A ratio means nothing where the ideal explains nothing.
    ratio = np.divide(_explained_variance(predicted), best, out=np.full(len(best), np.nan), where=best > 0)
    return np.column_stack([ratio, predicted[:, _NLL] - ideal[:, _NLL]])

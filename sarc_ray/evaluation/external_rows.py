"""Result rows of an external validation: how other the patients are, and what recalibration would do.

The data set is set beside a reference: patients from where the model comes who did not train it (internal test set).
Three questions. Are these other patients? A membership model tries to tell the two sets apart, and each characteristic
has its standardised difference. Are the probabilities right, and would they be after recalibration (a new intercept, or
intercept and slope)? What do the reference's sensitivity and specificity promise for predictive values here?

References:
    Debray TPA, Vergouwe Y, Koffijberg H, et al. (2015). A new framework to enhance the interpretation of external
    validation studies of clinical prediction models. Journal of Clinical Epidemiology 68:279-289. Steyerberg EW,
    Borsboom GJJM, van Houwelingen HC, et al. (2004). Validation and updating of predictive logistic regression models.

Shapes: N rows, K case-mix variables, B replicates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import expit

from sarc_ray.errors import EvaluationError
from sarc_ray.evaluation.comparison_rows import AUROC_GAP, add_gap
from sarc_ray.evaluation.outcome_rows import LabelledScore, add_metrics, labelled, size_problem
from sarc_ray.evaluation.row_values import auroc_values, interval_values
from sarc_ray.evaluation.rows import ALL_ROWS, Key, Sheet, Stratum
from sarc_ray.stage2.calibration import Calibration, log_odds
from sarc_ray.stage2.cross_validation import Fold, make_folds
from sarc_ray.stage2.local import MIN_PATIENTS, Candidate, fit
from sarc_ray.stats import bootstrap, discrimination
from sarc_ray.stats.hypothesis import smd_means, smd_shares

CASE_MIX, MEMBERSHIP, LOG_ODDS = "case_mix", "membership", "log_odds"
# Scores whose calibration is shown after recalibration, and how each is made.
RECALIBRATED: Mapping[str, Candidate] = {
    "score_intercept": "intercept",
    "score_intercept_and_slope": "intercept_and_slope",
}
# What recalibration can change. Cross-fitted scores come from several fits, so nothing is said of how they rank.
_AFTER = ("brier", "scaled_brier", "citl", "cal_slope", "ici", "e50", "e90", "emax", "spiegelhalter_z")
_MAPS = ("recalibration_intercept", "recalibration_slope")
_BESIDE_REFERENCE = (AUROC_GAP, "membership_auroc", "ppv_transported", "npv_transported")
_N_SPLITS = 10
_Float = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """Where the model comes from.

    Attributes:
        name: of its patients in the results, such as ``test_internal``.
        frame: of them, as :func:`sarc_ray.evaluation.results.evaluate_by_plan` takes it; None where they are not at
            hand, which leaves what recalibration would do.
        variables: columns that both sets have and that make up the case-mix: numbers, or a few texts.
        calibration: that all these scores went through. Log-odds are taken as ``sarc-ray recalibrate`` takes them,
            which draws in scores that may be exactly 0 or 1.
    """

    name: str
    frame: pd.DataFrame | None
    variables: tuple[str, ...]
    calibration: Calibration


def no_reference(calibration: Calibration) -> Reference:
    """The reference of a model whose own patients are not at hand."""
    return Reference(name="reference", frame=None, variables=(), calibration=calibration)


_NOT_AT_HAND = "no patients from where the model comes are at hand"


def add_external_rows(sheet: Sheet, stratum: Stratum, outcome: str, reference: Reference) -> None:
    """Add all that is planned of a data set from elsewhere; ``stratum`` holds all its scored rows.

    Raises:
        EvaluationError: a column of the reference is absent or holds something that is not allowed.
    """
    here = labelled(stratum, outcome, score="score", column="score", comparator=reference.name)
    _add_recalibrated(sheet, here, reference.calibration)
    planned = sheet.plan.comparisons | sheet.plan.external_metrics
    if reference.frame is None:
        missing = {name: planned[name] for name in _BESIDE_REFERENCE if name in planned}
        sheet.add_missing(here.key, missing, _NOT_AT_HAND)
        return
    known = Stratum(name=ALL_ROWS, frame=reference.frame[reference.frame["score"].notna()])
    there = labelled(known, outcome, score="score", column="score")
    if AUROC_GAP in planned:
        add_gap(sheet, stratum, known, outcome, comparator=reference.name)
    _add_transported(sheet, here, there, reference.name)
    _add_case_mix(sheet, stratum.frame, known.frame, reference)


def _add_recalibrated(sheet: Sheet, here: LabelledScore, calibration: Calibration) -> None:
    """Calibration after recalibration on other patients of this data set, and the maps of all of them."""
    plan = sheet.plan
    after = {name: method for name, method in plan.outcome_metrics.items() if name in _AFTER}
    maps = {name: plan.external_metrics[name] for name in _MAPS if name in plan.external_metrics}
    key, reason = replace(here.key, comparator=""), size_problem(sheet, here) or _too_few(here)
    z_N, y_N = log_odds(calibration, here.score_N), here.label_N.astype(np.int64)
    for score, method in RECALIBRATED.items():
        own = replace(key, score=score)
        if reason:
            sheet.add_missing(own, after | maps, reason)
            continue
        slope, intercept = fit(method, z_N, y_N)
        for name, value in zip(_MAPS, (intercept, slope), strict=True):
            if name in maps:
                sheet.add(own, name, method=maps[name], estimate=value)
        folds = make_folds(y_N, here.patient_N, n_splits=_N_SPLITS, n_repeats=1, seed=_seed(sheet, "recalibration"))
        crossed_N = _cross_fitted(method, z_N, y_N, folds)
        add_metrics(sheet, replace(here, key=own, score_N=crossed_N, flag_N=None), after)


def _cross_fitted(method: Candidate, z_N: _Float, y_N: npt.NDArray[np.int64], folds: list[Fold]) -> _Float:
    """Each row's probability by the map that was fitted on the patients of the other folds."""
    probability_N = np.empty_like(z_N)
    for fold in folds:
        slope, intercept = fit(method, z_N[fold.train], y_N[fold.train])
        probability_N[fold.test] = expit(slope * z_N[fold.test] + intercept)
    return probability_N


def _too_few(data: LabelledScore) -> str:
    """Why nothing is fitted; as many patients of each kind are needed as for a recalibration."""
    # As there: who has the outcome in any row has it.
    n_with = np.unique(data.patient_N[data.label_N == 1]).size
    found = {"with": n_with, "without": np.unique(data.patient_N).size - n_with}
    for which, n in found.items():
        if n < MIN_PATIENTS:
            return f"{n} patients {which} the outcome are below the {MIN_PATIENTS} that a recalibration needs"
    return ""


def _add_transported(sheet: Sheet, here: LabelledScore, there: LabelledScore, name: str) -> None:
    """Predictive values at the local prevalence by Bayes' rule, from the reference's sensitivity and specificity."""
    methods: dict[str, str] = {
        metric: sheet.plan.external_metrics[metric]
        for metric in ("ppv_transported", "npv_transported")
        if metric in sheet.plan.external_metrics
    }
    key = replace(here.key, comparator=name)
    share = sheet.plan.config.local_prevalence or (float(here.label_N.mean()) if here.label_N.size else float("nan"))
    if not methods or there.flag_N is None:
        return
    if not 0 < share < 1 or not 0 < there.label_N.mean() < 1:
        sheet.add_missing(key, methods, "one class only, here or in the reference")
        return
    too_small = size_problem(sheet, here, there)
    if too_small:
        sheet.add_missing(key, methods, too_small)
        return
    settings = sheet.bootstrap_settings(
        key.outcome, "transported", name, patient_N=there.patient_N if there.repeated else None
    )
    intervals = bootstrap.bootstrap_means(
        np.column_stack([there.flag_N & (there.label_N == 1), there.label_N, there.flag_N]).astype(np.float64),
        lambda means_B3: _predictive_values(means_B3, share),
        ["ppv_transported", "npv_transported"],
        **(settings | {"kind": "percentile"}),
    )
    for metric, method in methods.items():
        text = f"{method}; prevalence {share:.4g}"
        sheet.add(key, metric, **{"method": text, **interval_values(intervals[metric])})


def _predictive_values(means_B3: _Float, prevalence: float) -> _Float:
    """PPV and NPV at a prevalence from means of (flagged and with, with, flagged); shape (B, 2)."""
    hit_B, with_B, flagged_B = means_B3.T
    with np.errstate(divide="ignore", invalid="ignore"):
        sensitivity_B, false_alarms_B = hit_B / with_B, (flagged_B - hit_B) / (1 - with_B)
        alarms_B = sensitivity_B * prevalence + false_alarms_B * (1 - prevalence)
        ppv_B = sensitivity_B * prevalence / alarms_B
        npv_B = (1 - false_alarms_B) * (1 - prevalence) / (1 - alarms_B)
    return np.column_stack([ppv_B, npv_B])


def _add_case_mix(sheet: Sheet, here: pd.DataFrame, there: pd.DataFrame, reference: Reference) -> None:
    """Standardised differences (here - reference), spread of the log-odds, and the membership model's AUROC."""
    methods = sheet.plan.external_metrics
    both, absent = _case_mix(here, there, reference)
    inside_N = np.arange(len(both)) < len(here)
    for name in both:
        key = Key(outcome=CASE_MIX, score=str(name), subgroup=ALL_ROWS, n=0, n_events=None, comparator=reference.name)
        value_N = both[name].to_numpy(dtype=np.float64)
        a_N, b_N = (value_N[side & ~np.isnan(value_N)] for side in (inside_N, ~inside_N))
        key = replace(key, n=a_N.size)
        if "smd" in methods:
            sheet.add(key, "smd", method=methods["smd"], **_difference(a_N, b_N))
        if name == LOG_ODDS and "spread_ratio" in methods and min(a_N.size, b_N.size) > 1 and np.ptp(b_N) > 0:
            ratio = float(a_N.std(ddof=1) / b_N.std(ddof=1))
            sheet.add(key, "spread_ratio", method=methods["spread_ratio"], estimate=ratio)
    for name in absent:
        key = Key(outcome=CASE_MIX, score=name, subgroup=ALL_ROWS, n=0, n_events=None, comparator=reference.name)
        sheet.add(key, "smd", method="no interval", na_reason=f"one of the two data sets has no column {name}")
    if "membership_auroc" in methods:
        # Identifiers of two places may be alike by chance.
        owner_N = pd.factorize(pd.concat([here["patient_id"], there["patient_id"]]).astype(str) + _place(inside_N))[0]
        _add_membership(sheet, both, inside_N, owner_N, reference.name)


def _difference(a_N: _Float, b_N: _Float) -> dict[str, Any]:
    if not a_N.size or not b_N.size:
        return {"estimate": np.nan, "na_reason": "no value in one of the two data sets"}
    shares = set(np.unique(a_N)) | set(np.unique(b_N)) <= {0.0, 1.0}
    value = smd_shares(float(a_N.mean()), float(b_N.mean())) if shares else smd_means(a_N, b_N)
    return {"estimate": value, "na_reason": "" if np.isfinite(value) else "it does not vary"}


def _add_membership(
    sheet: Sheet, both: pd.DataFrame, inside_N: npt.NDArray[np.bool_], owner_N: npt.NDArray[np.int64], name: str
) -> None:
    """How well a logistic model tells the two data sets apart, on patients that it was not fitted on."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    metric = "membership_auroc"
    method = sheet.plan.external_metrics[metric]
    complete_N = both.notna().all(axis=1).to_numpy()
    x_NK, member_N = both[complete_N].to_numpy(dtype=np.float64), inside_N[complete_N].astype(np.int64)
    owner = owner_N[complete_N]
    key = Key(
        outcome=CASE_MIX,
        score=MEMBERSHIP,
        subgroup=ALL_ROWS,
        n=len(member_N),
        n_events=int(member_N.sum()),
        comparator=name,
    )
    too_small = _small_place(member_N, name, least=sheet.plan.config.min_cell_size)
    if too_small:
        sheet.add_missing(key, {metric: method}, too_small)
        return
    try:
        folds = make_folds(member_N, owner, n_splits=_N_SPLITS, n_repeats=1, seed=_seed(sheet, MEMBERSHIP))
    except EvaluationError:
        sheet.add_missing(key, {metric: method}, f"fewer than {2 * _N_SPLITS} patients with all values in one data set")
        return
    member_probability_N = np.empty(len(member_N))
    for fold in folds:
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        model.fit(x_NK[fold.train], member_N[fold.train])
        member_probability_N[fold.test] = model.predict_proba(x_NK[fold.test])[:, 1]
    level = sheet.plan.config.confidence_level
    interval = discrimination.auroc_interval(member_N, member_probability_N, confidence_level=level)
    repeated = np.unique(owner).size < owner.size
    sheet.add(key, metric, method=method, **auroc_values(interval, repeated=repeated))


def _small_place(member_N: npt.NDArray[np.int64], name: str, *, least: int) -> str:
    """Which of the two data sets has too few rows with all values; empty where neither has."""
    n_here = int(member_N.sum())
    for whose, n in (("", n_here), (f"{name}: ", len(member_N) - n_here)):
        if n < least:
            return f"{whose}{n} rows with all values are below min_cell_size = {least}"
    return ""


def _case_mix(here: pd.DataFrame, there: pd.DataFrame, reference: Reference) -> tuple[pd.DataFrame, list[str]]:
    """Variables of both sets as numbers, rows of ``here`` first, shape (N, K); and those that one of the sets lacks."""
    present = [name for name in reference.variables if name in here and name in there]
    both = pd.concat([here, there], ignore_index=True)
    columns: dict[str, Any] = {}
    for name in present:
        values = both[name]
        if pd.api.types.is_numeric_dtype(values):
            columns[name] = values.astype("float64")
            continue
        levels = sorted(str(level) for level in values.dropna().unique())
        for level in levels[1:]:
            columns[f"{name}={level}"] = (values == level).astype("float64").where(values.notna())
    columns["outcome"] = pd.to_numeric(both["outcome"]).astype("float64")
    score_N = pd.to_numeric(both["score"]).to_numpy(dtype=np.float64, na_value=np.nan)
    columns[LOG_ODDS] = log_odds(reference.calibration, score_N)
    return pd.DataFrame(columns), [name for name in reference.variables if name not in present]


def _place(inside_N: npt.NDArray[np.bool_]) -> npt.NDArray[np.str_]:
    return np.where(inside_N, "|here", "|there")


def _seed(sheet: Sheet, *names: str) -> int:
    return int(np.random.SeedSequence(sheet.seed_of(*names)).generate_state(1)[0])

"""Findings about a manifest, and the plausibility checks that look at several values at once.

What is impossible is an error and stops a run before any work. What is only odd (a body-mass index that does
not follow from height and weight, grip strength that looks like pounds) is a warning: real archives hold odd
values, and a person has to look.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

_ROWS_SHOWN = 5
_MIN_ROWS_FOR_UNITS = 20

# Largest difference between a given BMI and weight / height^2 that rounding to one decimal of each can explain.
BMI_TOLERANCE_KG_M2 = 1.0
# Appendicular lean mass is 20 to 35% of body weight in adults; above 60% one of the two is wrong.
ALM_WEIGHT_FRACTION_MAX = 0.6
# A cohort's median grip strength in kg lies near 20 to 40; a median of 60 or more is likely in pounds.
HGS_MEDIAN_MAX_KG = 55.0
# Adults walk at about 0.6 to 1.4 m/s; a median of 2 or more is likely in km/h.
GAIT_SPEED_MEDIAN_MAX_M_S = 2.0
# Median body-mass index of cohorts lies near 20 to 32; weights in pounds give a median near 55.
BMI_MEDIAN_MAX_KG_M2 = 45.0
KNOWN_VIEWS = ("AP", "PA", "LATERAL", "LL", "RL", "LLD", "RLD", "LLO", "RLO", "LAO", "RAO")


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One kind of trouble in one column of a manifest.

    Args:
        severity: an ``error`` stops a run, a ``warning`` does not.
        column: the column's name.
        count: number of rows concerned.
        rows: the first few of them, data rows counted from 1 (a CSV's header is not counted).
        found: the first value found; empty where the value is an identifier.
        allowed: what is allowed there.
        remedy: what to do about it.
    """

    severity: Literal["error", "warning"]
    column: str
    count: int
    rows: tuple[int, ...]
    found: str
    allowed: str
    remedy: str

    def __str__(self) -> str:
        where = f"row {self.rows[0]}, column {self.column}" if self.rows else f"column {self.column}"
        text = f"{where}: found {self.found}; allowed: {self.allowed}; {self.remedy}"
        if self.count > 1:
            first = ", ".join(str(row) for row in self.rows)
            text += f" ({self.count} rows in all, the first: {first})"
        return text


def make_finding(
    severity: Literal["error", "warning"],
    column: str,
    bad: pd.Series | np.ndarray,
    *,
    found: Callable[[int], str],
    allowed: str,
    remedy: str,
) -> list[Finding]:
    """One finding for the rows where ``bad`` is true; an empty list where none is.

    Args:
        severity: see :class:`Finding`.
        column: the column's name.
        bad: booleans, shape (rows,).
        found: gives the text of a value from its position.
        allowed: what is allowed.
        remedy: what to do.
    """
    positions = np.flatnonzero(np.asarray(bad, dtype=bool))
    if not positions.size:
        return []
    return [
        Finding(
            severity=severity,
            column=column,
            count=int(positions.size),
            rows=tuple(int(p) + 1 for p in positions[:_ROWS_SHOWN]),
            found=found(int(positions[0])),
            allowed=allowed,
            remedy=remedy,
        )
    ]


def check_plausibility(frame: pd.DataFrame) -> list[Finding]:
    """Warnings about values that are possible one by one but odd together.

    Args:
        frame: a manifest whose columns already have their types; columns that are absent are not checked.
    """
    checks: list[tuple[tuple[str, ...], Callable[[pd.DataFrame], list[Finding]]]] = [
        (("bmi_kg_m2", "height_m", "weight_kg"), _check_bmi),
        (("alm_kg", "weight_kg"), _check_alm),
        (("patient_id", "sex"), _check_sex_per_patient),
        (("patient_id", "split"), _check_split_per_patient),
        (("hgs_kg",), _check_grip_unit),
        (("gait_speed_m_s",), _check_gait_unit),
        (("height_m", "weight_kg"), _check_weight_unit),
        (("view",), _check_view),
        (("age_years",), _check_missing_age),
        (("sex",), _check_missing_sex),
        (("alm_kg", "body_comp_method"), _check_method),
    ]
    present = set(frame.columns)
    return [f for needed, check in checks if present.issuperset(needed) for f in check(frame)]


def _check_bmi(frame: pd.DataFrame) -> list[Finding]:
    bmi = frame["bmi_kg_m2"]
    derived = frame["weight_kg"] / frame["height_m"] ** 2
    return make_finding(
        "warning",
        "bmi_kg_m2",
        (bmi - derived).abs() > BMI_TOLERANCE_KG_M2,
        found=lambda p: f"{bmi.iloc[p]:g} where weight_kg / height_m^2 is {derived.iloc[p]:.1f}",
        allowed=f"a difference of at most {BMI_TOLERANCE_KG_M2:g} kg/m2",
        remedy="check the three values and their units",
    )


def _check_alm(frame: pd.DataFrame) -> list[Finding]:
    alm, weight = frame["alm_kg"], frame["weight_kg"]
    return make_finding(
        "warning",
        "alm_kg",
        alm > ALM_WEIGHT_FRACTION_MAX * weight,
        found=lambda p: f"{alm.iloc[p]:g} at weight_kg {weight.iloc[p]:g}",
        allowed=f"at most {ALM_WEIGHT_FRACTION_MAX:.0%} of weight_kg",
        remedy="check that this is appendicular (arms and legs), not total, lean mass, and both units",
    )


def _check_sex_per_patient(frame: pd.DataFrame) -> list[Finding]:
    return _check_constant(frame, "sex", "one sex per patient_id", "check whether two patients share an identifier")


def _check_split_per_patient(frame: pd.DataFrame) -> list[Finding]:
    return _check_constant(
        frame, "split", "one split per patient_id", "give all images of a patient the same split, or drop the column"
    )


def _check_constant(frame: pd.DataFrame, column: str, allowed: str, remedy: str) -> list[Finding]:
    n_values = frame.groupby("patient_id", sort=False)[column].transform("nunique")
    return make_finding(
        "warning",
        column,
        n_values > 1,
        found=lambda p: "several values for one patient",
        allowed=allowed,
        remedy=remedy,
    )


def _check_grip_unit(frame: pd.DataFrame) -> list[Finding]:
    return _check_median(frame["hgs_kg"], "hgs_kg", HGS_MEDIAN_MAX_KG, "kg", "looks like pounds: multiply by 0.4536")


def _check_gait_unit(frame: pd.DataFrame) -> list[Finding]:
    remedy = "looks like km/h: divide by 3.6"
    return _check_median(frame["gait_speed_m_s"], "gait_speed_m_s", GAIT_SPEED_MEDIAN_MAX_M_S, "m/s", remedy)


def _check_weight_unit(frame: pd.DataFrame) -> list[Finding]:
    bmi = frame["weight_kg"] / frame["height_m"] ** 2
    remedy = "the weights look like pounds: multiply by 0.4536"
    return _check_median(bmi, "weight_kg", BMI_MEDIAN_MAX_KG_M2, "kg/m2 of weight / height^2", remedy)


def _check_median(values: pd.Series, column: str, high: float, unit: str, remedy: str) -> list[Finding]:
    known = values.dropna()
    if len(known) < _MIN_ROWS_FOR_UNITS or not known.median() > high:
        return []
    return make_finding(
        "warning",
        column,
        values > high,
        found=lambda p: f"a median of {known.median():.1f} {unit}",
        allowed=f"a median up to {high:g}",
        remedy=remedy,
    )


def _check_view(frame: pd.DataFrame) -> list[Finding]:
    view = frame["view"]
    return make_finding(
        "warning",
        "view",
        view.notna() & ~view.isin(KNOWN_VIEWS),
        found=lambda p: repr(view.iloc[p]),
        allowed=", ".join(KNOWN_VIEWS),
        remedy="use the DICOM View Position, or leave it empty to take the header's",
    )


def _check_missing_age(frame: pd.DataFrame) -> list[Finding]:
    return _check_missing(frame, "age_years")


def _check_missing_sex(frame: pd.DataFrame) -> list[Finding]:
    return _check_missing(frame, "sex")


def _check_missing(frame: pd.DataFrame, column: str) -> list[Finding]:
    return make_finding(
        "warning",
        column,
        frame[column].isna(),
        found=lambda p: "no value",
        allowed="a value in every row",
        remedy="fill it in; else the DICOM header's is used, and without that the row is not scored",
    )


def _check_method(frame: pd.DataFrame) -> list[Finding]:
    return make_finding(
        "warning",
        "body_comp_method",
        frame["alm_kg"].notna() & frame["body_comp_method"].isna(),
        found=lambda p: "no value beside a value of alm_kg",
        allowed="bia or dxa",
        remedy="fill it in: the muscle-mass cut-off of women depends on it",
    )

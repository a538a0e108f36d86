"""Numbers and names as the page and the figures print them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from sarc_ray.cohort.schema import TargetConfig
from sarc_ray.evaluation.table_one import format_p

DASH = "\u2013"
AT_LEAST = "\u2265"
NOT_DEFINED = DASH
_SEXES = {"F": "Woman", "M": "Man"}
_CLINICAL = {
    "age_years": "Age, years",
    "sex_male": "Sex, male",
    "bmi_kg_m2": "Body-mass index, kg/m\u00b2",
    "view_ap": "View, AP",
    "height_m": "Height, m",
    "weight_kg": "Weight, kg",
}
_SHORT = {
    "age_years": "age",
    "bmi_kg_m2": "BMI",
    "height_m": "height",
    "weight_kg": "weight",
}
METRICS = {
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "f1": "F1 score",
    "mcc": "MCC",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "ppv": "PPV",
    "npv": "NPV",
    "brier": "Brier score",
}


def number(value: float, decimals: int = 3) -> str:
    """A number with fixed decimals, a true minus sign, and a dash where it is not defined.

    >>> number(0.8134), number(float("nan")) == DASH
    ('0.813', True)
    """
    if math.isnan(value):
        return NOT_DEFINED
    # Adding zero turns a rounded minus zero into zero.
    return f"{round(float(value), decimals) + 0.0:.{decimals}f}".replace("-", "\u2212")


def interval(row: Mapping[str, Any], decimals: int = 3) -> str:
    """The confidence interval of a result row; empty where it has none."""
    if math.isnan(row["ci_low"]) or math.isnan(row["ci_high"]):
        return ""
    return f"{number(row['ci_low'], decimals)} to {number(row['ci_high'], decimals)}"


def estimate(row: Mapping[str, Any] | None, decimals: int = 3) -> str:
    """Estimate and interval of a result row, such as ``0.813 (0.746 to 0.878)``; a dash without a row."""
    if row is None:
        return NOT_DEFINED
    inside = interval(row, decimals)
    return number(row["estimate"], decimals) + (f" ({inside})" if inside else "")


def p_text(p_value: float) -> str:
    """A p-value as ``p = 0.029`` or ``p < 0.001``; empty for NaN."""
    text = format_p(p_value)
    if not text:
        return ""
    return f"p < {text.removeprefix('<')}" if text.startswith("<") else f"p = {text}"


def with_unit(target: TargetConfig) -> str:
    """A target's label and unit, such as ``Handgrip strength, kg``."""
    return f"{target.label}, {target.unit}" if target.unit else target.label


def feature(name: str, targets: tuple[TargetConfig, ...]) -> str:
    """A stage-2 feature in words."""
    for target in targets:
        if name == f"{target.name}_mu":
            return f"{with_unit(target)} (predicted)"
        if name == f"{target.name}_uncertainty_pct":
            return f"{target.label}, uncertainty %"
    return _CLINICAL.get(name, name)


def person(sex: str, outcome_label: str, outcome: int) -> str:
    """A patient in a figure's title, such as ``Woman with sarcopenia``."""
    return f"{_SEXES.get(sex, sex)} {'with' if outcome else 'without'} {outcome_label}"


def count(n: int, what: str) -> str:
    """A number of things, such as ``1 image`` or ``12,345 images``."""
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"


def percent(part: float, whole: float) -> str:
    """A share in percent with one decimal; a dash where the whole is empty."""
    return f"{100 * part / whole:.1f}%" if whole else NOT_DEFINED


def clinical_features(names: Sequence[str]) -> str:
    """Clinical features in a line.

    >>> clinical_features(["age_years", "sex", "bmi_kg_m2"])
    'Age, sex, BMI'
    """
    text = ", ".join(_SHORT.get(name, name) for name in names)
    return text[:1].upper() + text[1:]

"""Definitions of sarcopenia as tables; every cut-off stands here once, with its source.

``GUIDELINES`` holds the published cut-offs, ``DEFINITIONS`` says which of them make an outcome. Each component is
1 (low), 0 (normal) or NaN (not known), and components are combined by three-valued logic (Kleene): a normal muscle
mass rules sarcopenia out even where no function was measured, and low mass with one low function confirms it; what the
measurements leave open stays NaN and is never taken for normal.

The guidelines write ASM for appendicular lean mass (ALM). What they allow beside the components below (SPPB, timed up
and go, 400 m walk) no manifest holds. AWGS 2019 also allows a gait speed below 1.0 m/s as low performance; it is left
out, as Ryu et al. 2023 did, so that ``awgs2019`` is the paper's outcome.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd

from sarc_ray.errors import ManifestError

FloatArray = npt.NDArray[np.float64]
DefinitionName = Literal[
    "awgs2019",
    "awgs2019_possible",
    "awgs2019_severe",
    "ewgsop2_2019",
    "ewgsop2_2019_probable",
    "ewgsop2_2019_severe",
    "fnih2014",
    "awgs2014",
    "column",
]
Relation = Literal["<", "<=", ">", ">="]
_RELATIONS: Mapping[Relation, Callable[[FloatArray, FloatArray], npt.NDArray[np.bool_]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
# A screening with the questionnaire is positive from here on. Malmstrom TK, Miller DK, Simonsick EM, et al. (2016).
# SARC-F: a symptom score to predict persons with sarcopenia at risk for poor functional outcomes. J Cachexia Sarcopenia
# Muscle 7:28-36.
SARC_F_CUTOFF = 4.0


@dataclass(frozen=True, slots=True)
class Quantity:
    """What a cut-off is applied to: ``formula`` of the manifest's ``columns``."""

    label: str
    unit: str
    columns: tuple[str, ...]
    formula: Callable[..., FloatArray]


@dataclass(frozen=True, slots=True)
class Cutoff:
    """A value that stands in ``relation`` to the number of the patient's sex is low, whatever way is worse.

    Attributes:
        quantity: key of ``QUANTITIES``.
        relation: of a low value to the number.
        women: the number for women, in the quantity's unit.
        men: the number for men.
        method: of body composition for which it was published; None where it is for any.
    """

    quantity: str
    relation: Relation
    women: float
    men: float
    method: Literal["bia", "dxa"] | None = None


@dataclass(frozen=True, slots=True)
class Guideline:
    """Cut-offs that were published together."""

    title: str
    reference: str
    cutoffs: tuple[Cutoff, ...]


@dataclass(frozen=True, slots=True)
class Definition:
    """An outcome: every group of quantities must be met, a group by any one of its quantities being low."""

    guideline: str
    outcome: str
    all_of: tuple[tuple[str, ...], ...]


QUANTITIES: Mapping[str, Quantity] = {
    "hgs_kg": Quantity("grip strength", "kg", ("hgs_kg",), lambda hgs_kg: hgs_kg),
    "crt_s": Quantity("chair rise test", "s", ("crt_s",), lambda crt_s: crt_s),
    "gait_speed_m_s": Quantity("usual gait speed", "m/s", ("gait_speed_m_s",), lambda gait_speed_m_s: gait_speed_m_s),
    "alm_kg": Quantity("ALM", "kg", ("alm_kg",), lambda alm_kg: alm_kg),
    "almi_kg_m2": Quantity(
        "ALM / height^2", "kg/m2", ("height_m", "alm_kg"), lambda height_m, alm_kg: alm_kg / height_m**2
    ),
    "alm_bmi_m2": Quantity("ALM / BMI", "m2", ("bmi_kg_m2", "alm_kg"), lambda bmi_kg_m2, alm_kg: alm_kg / bmi_kg_m2),
}
GUIDELINES: Mapping[str, Guideline] = {
    "awgs2019": Guideline(
        title="AWGS 2019",
        reference="Chen LK, Woo J, Assantachai P, et al. Asian Working Group for Sarcopenia: 2019 consensus update on "
        "sarcopenia diagnosis and treatment. J Am Med Dir Assoc 2020;21:300-307",
        cutoffs=(
            Cutoff("hgs_kg", "<", women=18.0, men=28.0),
            Cutoff("crt_s", ">=", women=12.0, men=12.0),
            Cutoff("almi_kg_m2", "<", women=5.7, men=7.0, method="bia"),
            Cutoff("almi_kg_m2", "<", women=5.4, men=7.0, method="dxa"),
        ),
    ),
    "ewgsop2_2019": Guideline(
        title="EWGSOP2 2019",
        reference="Cruz-Jentoft AJ, Bahat G, Bauer J, et al. Sarcopenia: revised European consensus on definition and "
        "diagnosis. Age Ageing 2019;48:16-31, with its correction in 2019;48:601",
        cutoffs=(
            Cutoff("hgs_kg", "<", women=16.0, men=27.0),
            Cutoff("crt_s", ">", women=15.0, men=15.0),
            Cutoff("alm_kg", "<", women=15.0, men=20.0),
            Cutoff("almi_kg_m2", "<", women=5.5, men=7.0),
            Cutoff("gait_speed_m_s", "<=", women=0.8, men=0.8),
        ),
    ),
    "fnih2014": Guideline(
        title="FNIH 2014",
        reference="Studenski SA, Peters KW, Alley DE, et al. The FNIH sarcopenia project: rationale, study "
        "description, conference recommendations, and final estimates. J Gerontol A Biol Sci Med Sci 2014;69:547-558",
        cutoffs=(
            Cutoff("hgs_kg", "<", women=16.0, men=26.0),
            Cutoff("alm_bmi_m2", "<", women=0.512, men=0.789),
        ),
    ),
    "awgs2014": Guideline(
        title="AWGS 2014",
        reference="Chen LK, Liu LK, Woo J, et al. Sarcopenia in Asia: consensus report of the Asian Working Group for "
        "Sarcopenia. J Am Med Dir Assoc 2014;15:95-101",
        cutoffs=(
            Cutoff("hgs_kg", "<", women=18.0, men=26.0),
            Cutoff("gait_speed_m_s", "<=", women=0.8, men=0.8),
            Cutoff("almi_kg_m2", "<", women=5.7, men=7.0, method="bia"),
            Cutoff("almi_kg_m2", "<", women=5.4, men=7.0, method="dxa"),
        ),
    ),
}
DEFINITIONS: Mapping[str, Definition] = {
    "awgs2019": Definition("awgs2019", "sarcopenia", (("almi_kg_m2",), ("hgs_kg", "crt_s"))),
    "awgs2019_possible": Definition("awgs2019", "possible_sarcopenia", (("hgs_kg", "crt_s"),)),
    "awgs2019_severe": Definition("awgs2019", "severe_sarcopenia", (("almi_kg_m2",), ("hgs_kg",), ("crt_s",))),
    "ewgsop2_2019": Definition("ewgsop2_2019", "sarcopenia", (("alm_kg", "almi_kg_m2"), ("hgs_kg", "crt_s"))),
    "ewgsop2_2019_probable": Definition("ewgsop2_2019", "probable_sarcopenia", (("hgs_kg", "crt_s"),)),
    "ewgsop2_2019_severe": Definition(
        "ewgsop2_2019", "severe_sarcopenia", (("alm_kg", "almi_kg_m2"), ("hgs_kg", "crt_s"), ("gait_speed_m_s",))
    ),
    "fnih2014": Definition("fnih2014", "sarcopenia", (("alm_bmi_m2",), ("hgs_kg",))),
    "awgs2014": Definition("awgs2014", "sarcopenia", (("almi_kg_m2",), ("hgs_kg", "gait_speed_m_s"))),
}


def cutoffs_of(guideline: str, quantity: str) -> tuple[Cutoff, ...]:
    """The cut-offs of a quantity in a guideline: one, or one per method of body composition."""
    return tuple(cutoff for cutoff in GUIDELINES[guideline].cutoffs if cutoff.quantity == quantity)


def _numbers_by_sex(cutoff: Cutoff) -> dict[str, float]:
    return {"M": cutoff.men, "F": cutoff.women}


# AWGS 2019, by sex and method, for the simulator.
AWGS2019_HGS_LOW_KG = _numbers_by_sex(cutoffs_of("awgs2019", "hgs_kg")[0])
AWGS2019_CRT_LOW_S = cutoffs_of("awgs2019", "crt_s")[0].women
AWGS2019_ALMI_LOW_KG_M2 = {str(c.method): _numbers_by_sex(c) for c in cutoffs_of("awgs2019", "almi_kg_m2")}


@dataclass(frozen=True, kw_only=True, slots=True)
class OutcomeConfig:
    """What stage 2 predicts.

    Args:
        definition: a published definition, computed from measured values (docs/reference/definitions.md), or
            ``column`` for a 0/1 column of the manifest.
        column: that column's name; null for a published definition.
    """

    definition: DefinitionName
    column: str | None

    def __post_init__(self) -> None:
        allowed = get_args(DefinitionName)
        if self.definition not in allowed:
            raise ValueError(f"definition: found {self.definition!r}, allowed: {', '.join(allowed)}")
        if self.definition == "column" and not self.column:
            raise ValueError("column: found none with definition column; name a 0/1 column of the manifest")
        if self.definition != "column" and self.column is not None:
            raise ValueError(f"column: found {self.column!r} with definition {self.definition}; set it to null")


def outcome_name(config: OutcomeConfig) -> str:
    """The outcome in tables and figures: ``sarcopenia``, ``possible_sarcopenia`` and so on, or the column's name."""
    return str(config.column) if config.definition == "column" else DEFINITIONS[config.definition].outcome


def outcome_columns(config: OutcomeConfig) -> tuple[str, ...]:
    """Manifest columns that the outcome needs (``body_comp_method`` is used where present)."""
    if config.definition == "column":
        return (str(config.column),)
    quantities = [name for group in DEFINITIONS[config.definition].all_of for name in group]
    return tuple(dict.fromkeys(["sex", *(column for name in quantities for column in QUANTITIES[name].columns)]))


def outcome_labels(frame: pd.DataFrame, config: OutcomeConfig) -> pd.Series:
    """The outcome of each row.

    Args:
        frame: a manifest as read by :func:`sarc_ray.cohort.schema.read_manifest`.
        config: which outcome.

    Returns:
        Float series ``outcome``, 1 (has it), 0 (has it not) or NaN (cannot be known), with the frame's index.

    Raises:
        ManifestError: the outcome's column is missing, or holds something other than 0, 1 or nothing.
    """
    if config.definition != "column":
        return pd.Series(_defined(frame, config.definition), index=frame.index, name="outcome")
    values = _column(frame, str(config.column))
    bad = np.flatnonzero(~np.isnan(values) & (values != 0.0) & (values != 1.0))
    if bad.size:
        raise ManifestError(
            f"row {bad[0] + 1}, column {config.column}: found {values[bad[0]]:g}; allowed: 0, 1 or empty; "
            f"code the outcome as 0 and 1 ({bad.size} rows in all)"
        )
    return pd.Series(values, index=frame.index, name="outcome")


def sarcopenia_stages(frame: pd.DataFrame) -> pd.DataFrame:
    """The three stages of AWGS 2019, each 1, 0 or NaN.

    Args:
        frame: a manifest.

    Returns:
        Columns ``possible_sarcopenia`` (low strength or low performance), ``sarcopenia`` (low mass and either)
        and ``severe_sarcopenia`` (low mass and both), with the frame's index.
    """
    names = ("awgs2019_possible", "awgs2019", "awgs2019_severe")
    return pd.DataFrame({DEFINITIONS[name].outcome: _defined(frame, name) for name in names}, index=frame.index)


def low_hgs(frame: pd.DataFrame) -> pd.Series:
    """Low handgrip strength (``hgs_kg``, ``sex``) by AWGS 2019: below 28 kg in men, 18 kg in women; 1, 0 or NaN."""
    return pd.Series(_low(frame, "awgs2019", "hgs_kg"), index=frame.index, name="low_hgs")


def low_crt(frame: pd.DataFrame) -> pd.Series:
    """Low chair rise test (``crt_s``) by AWGS 2019: 12 s or longer for five rises; 1, 0 or NaN."""
    return pd.Series(_low(frame, "awgs2019", "crt_s"), index=frame.index, name="low_crt")


def low_almi(frame: pd.DataFrame) -> pd.Series:
    """Low ALM index (``alm_kg``, ``height_m``, ``sex``, ``body_comp_method``) by AWGS 2019; 1, 0 or NaN.

    Below 7.0 kg/m2 in men; below 5.7 (BIA) or 5.4 (DXA) in women. Where the method is not known, the answer is
    given if both cut-offs agree on it, else NaN.
    """
    return pd.Series(_low(frame, "awgs2019", "almi_kg_m2"), index=frame.index, name="low_almi")


def low_muscle_function(frame: pd.DataFrame) -> pd.Series:
    """Low grip strength or low chair rise test by AWGS 2019; 1, 0 or NaN."""
    return pd.Series(_defined(frame, "awgs2019_possible"), index=frame.index, name="low_muscle_function")


def almi_kg_m2(frame: pd.DataFrame) -> pd.Series:
    """Appendicular lean mass index, ``alm_kg / height_m**2``."""
    return pd.Series(_quantity(frame, "almi_kg_m2"), index=frame.index, name="almi_kg_m2")


def _defined(frame: pd.DataFrame, name: str) -> FloatArray:
    definition = DEFINITIONS[name]
    met = np.ones(len(frame))
    for group in definition.all_of:
        any_low = np.zeros(len(frame))
        for quantity in group:
            any_low = _or(any_low, _low(frame, definition.guideline, quantity))
        met = _and(met, any_low)
    return met


def _low(frame: pd.DataFrame, guideline: str, quantity: str) -> FloatArray:
    """1, 0 or NaN; where cut-offs differ by a method that is not known, what all of them agree on."""
    values = _quantity(frame, quantity)
    by_method = {cutoff.method: _beyond(frame, values, cutoff) for cutoff in cutoffs_of(guideline, quantity)}
    first, *others = by_method.values()
    agreed = first
    for other in others:
        agreed = np.where(agreed == other, agreed, np.nan)
    if "body_comp_method" not in frame:
        return agreed
    for method, low in by_method.items():
        if method is not None:
            agreed = np.where((frame["body_comp_method"] == method).to_numpy(dtype=bool), low, agreed)
    return agreed


def _beyond(frame: pd.DataFrame, values: FloatArray, cutoff: Cutoff) -> FloatArray:
    if cutoff.women == cutoff.men:  # the answer does not depend on a sex that may be missing
        number = np.full(len(frame), cutoff.women)
    elif "sex" in frame:
        number = np.asarray(frame["sex"].map(_numbers_by_sex(cutoff)), dtype=np.float64)
    else:
        raise ManifestError("column sex: missing; cut-offs differ by sex; add it with values F and M")
    known = ~np.isnan(values) & ~np.isnan(number)
    return np.where(known, _RELATIONS[cutoff.relation](values, number), np.nan)


def _quantity(frame: pd.DataFrame, name: str) -> FloatArray:
    quantity = QUANTITIES[name]
    return quantity.formula(*(_column(frame, column) for column in quantity.columns))


def _column(frame: pd.DataFrame, name: str) -> FloatArray:
    if name not in frame:
        raise ManifestError(
            f"column {name}: missing; the outcome is computed from it; add it, or set outcome.definition to another"
        )
    return frame[name].to_numpy(dtype=np.float64)


def _and(a: FloatArray, b: FloatArray) -> FloatArray:
    """Kleene's and: false wins over unknown."""
    return np.where((a == 0) | (b == 0), 0.0, np.where((a == 1) & (b == 1), 1.0, np.nan))


def _or(a: FloatArray, b: FloatArray) -> FloatArray:
    """Kleene's or: true wins over unknown."""
    return np.where((a == 1) | (b == 1), 1.0, np.where((a == 0) & (b == 0), 0.0, np.nan))

"""What a scored row says, value by value: names, units and codes that OMOP rows and structured reports share.

A predicted quantity is not a measured one. No standard code of a measurement (handgrip by a dynamometer, lean mass by
DXA) is put on it, or predictions would turn up among measurements wherever somebody looks for these.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sarc_ray.bundle import BundleSpec
from sarc_ray.cohort.definitions import DEFINITIONS, GUIDELINES

# Unified Code for Units of Measure 2.1, of the units that targets are likely to have; the text is the code's meaning.
UCUM = {
    "kg": "kilogram",
    "s": "second",
    "1": "no units",
    "a": "year",
    "m": "meter",
    "cm": "centimeter",
    "kg/m2": "kilogram per square meter",
    "m/s": "meter per second",
}
_SPELLINGS = {"years": "a", "year": "a"}
_NO_UNIT = "1"
# Code Meaning is a Long String (PS3.5 6.2).
_MEANING_CHARACTERS = 64

Statistic = Literal["mean", "sd", "probability", "flag"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Quantity:
    """One value of a scored row.

    Attributes:
        column: of the score table.
        meaning: for people, ASCII, at most 64 characters.
        unit: UCUM where there is such a unit, else the bundle's own text; None for the flag.
        statistic: mean or standard deviation of the predictive distribution, a probability, or the flag.
    """

    column: str
    meaning: str
    unit: str | None
    statistic: Statistic


def quantities(spec: BundleSpec) -> tuple[Quantity, ...]:
    """What is exported of a scored row, in order: mu and sigma of each target, score, flag.

    Args:
        spec: of the bundle that scored.
    """
    found: list[Quantity] = []
    for target in spec.targets:
        meaning = _shortened(target.label, ", predicted from chest radiograph")
        unit = _SPELLINGS.get(target.unit, target.unit)
        found.append(Quantity(column=f"{target.name}_mu", meaning=meaning, unit=unit, statistic="mean"))
        found.append(Quantity(column=f"{target.name}_sigma", meaning=meaning, unit=unit, statistic="sd"))
    outcome = outcome_title(spec)
    probability = _shortened(f"Probability of {outcome}", ", predicted")
    flagged = _shortened(f"Probability of {outcome}", " at or above threshold")
    found.append(Quantity(column="score", meaning=probability, unit=_NO_UNIT, statistic="probability"))
    found.append(Quantity(column="flag", meaning=flagged, unit=None, statistic="flag"))
    return tuple(found)


def outcome_title(spec: BundleSpec) -> str:
    """What stage 2 predicts, for people."""
    if spec.outcome.definition == "column":
        return str(spec.outcome.column)
    definition = DEFINITIONS[spec.outcome.definition]
    return f"{definition.outcome.replace('_', ' ')} ({GUIDELINES[definition.guideline].title})"


def _shortened(text: str, tail: str) -> str:
    """ASCII, since the archive's own character set may lack other characters."""
    plain = text.encode("ascii", "replace").decode("ascii")
    return f"{plain[: _MEANING_CHARACTERS - len(tail)]}{tail}"

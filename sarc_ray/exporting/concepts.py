"""Which OMOP concept stands for what: few by default, the others from a file of the user's.

A default is there only where it could be looked up; everything else is 0, "no matching concept", as the CDM's
conventions ask. The values stand in the ``_source_value`` columns all the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sarc_ray.errors import ConfigError
from sarc_ray.exporting.quantities import Quantity
from sarc_ray.exporting.rows import read_supplied

NO_CONCEPT = 0
ANY = "*"
FLAGGED, NOT_FLAGGED = "yes", "no"
_COLUMNS = ("field", "source_value", "concept_id")
# What an integer of the CDM's databases holds.
_LAST_CONCEPT = 2**31 - 1
# Vocabularies "Type Concept" (32880, Standard algorithm) and UCUM (9529, kilogram).
_DEFAULTS = {("measurement_type_concept_id", ANY): 32880, ("unit_concept_id", "kg"): 9529}


@dataclass(frozen=True, kw_only=True, slots=True)
class Concepts:
    """Concept ids by field of MEASUREMENT and source value."""

    ids: Mapping[tuple[str, str], int]

    def of(self, field: str, source_value: str) -> int:
        """The concept of a source value, 0 where there is none."""
        return self.ids.get((field, source_value), NO_CONCEPT)


def read_concepts(uri: str | None, known: Sequence[Quantity]) -> Concepts:
    """The defaults, and over them a file with the columns ``field``, ``source_value`` and ``concept_id``.

    Args:
        uri: a ``.csv`` or ``.parquet``; None leaves the defaults.
        known: what is exported; other source values are refused, since they would be misspellings.

    Raises:
        ConfigError: a column is missing, or a field, source value or concept id is not allowed.
        ManifestError: the file is no table.
        StorageError: the file cannot be read.
    """
    ids = dict(_DEFAULTS)
    if uri is None:
        return Concepts(ids=ids)
    frame = read_supplied(uri)
    missing = [name for name in _COLUMNS if name not in frame]
    if missing:
        raise ConfigError(f"{uri}: no column {', '.join(missing)}; it needs {', '.join(_COLUMNS)}")
    allowed = allowed_source_values(known)
    for number, (field, source_value, concept_id) in enumerate(frame[list(_COLUMNS)].itertuples(index=False), start=1):
        if field not in allowed:
            raise ConfigError(f"{uri}: row {number}: field is {field!r}, allowed: {', '.join(allowed)}")
        if source_value not in allowed[field]:
            raise ConfigError(
                f"{uri}: row {number}: source_value of {field} is {source_value!r}, allowed: "
                f"{', '.join(allowed[field])}"
            )
        ids[field, source_value] = _concept_id(uri, number, concept_id)
    return Concepts(ids=ids)


def allowed_source_values(known: Sequence[Quantity]) -> dict[str, list[str]]:
    """By field of MEASUREMENT, the source values that a concept can be given to."""
    columns = [quantity.column for quantity in known]
    units = list(dict.fromkeys(quantity.unit for quantity in known if quantity.unit is not None))
    return {
        "measurement_concept_id": columns,
        "measurement_source_concept_id": columns,
        "measurement_type_concept_id": [ANY],
        "unit_concept_id": units,
        "unit_source_concept_id": units,
        "value_as_concept_id": [FLAGGED, NOT_FLAGGED],
    }


def _concept_id(uri: str, number: int, value: object) -> int:
    text = str(value).strip()
    if not text.isascii() or not text.isdigit() or int(text) > _LAST_CONCEPT:
        raise ConfigError(
            f"{uri}: row {number}: concept_id is {text!r}, allowed: a whole number up to {_LAST_CONCEPT}, 0 for none"
        )
    return int(text)

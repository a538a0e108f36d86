"""What is watched of a score table: which columns, over which rows, as numbers or as categories."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

Population = Literal["all", "scored"]
Kind = Literal["number", "category"]
GROUPINGS = ("month", "site", "device")
GROUPING_COLUMNS = {"month": "acquired_month", "site": "site", "device": "device"}
# What the model says: another model's outputs cannot be set beside these.
_OUTPUT_ENDINGS = ("_mu", "_uncertainty_pct")
_OUTPUTS = ("score", "ood_distance")
# Follow from the outputs, or name nothing that has a distribution.
_LEFT_OUT_ENDINGS = ("_sigma", "_var_aleatoric", "_var_epistemic", "_shap")
_LEFT_OUT = ("raw_score",)
# Texts are watched where they are a closed or technical list; no other text is ever counted or written.
_TEXTS = ("reason", "gate_flags", "sex", "view", "site", "device")
# Of a manifest, where one is given: what an inventory writes of each object beside what the score table has.
MANIFEST_NUMBERS = ("rows", "columns")
MANIFEST_TEXTS = ("bits_stored", "photometric", "transfer_syntax", "modality", "body_part", "manufacturer", "model")
# What an empty text means, where it means something.
EMPTY_TEXTS = {"reason": "scored", "gate_flags": "none"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Variable:
    """Something with a distribution.

    Attributes:
        name: of the column.
        kind: how it is binned.
        population: the rows that count: all, or those that were scored.
        of_model: whether another model would say something else.
    """

    name: str
    kind: Kind
    population: Population
    of_model: bool


def variables_of(schema: pa.Schema) -> tuple[Variable, ...]:
    """The variables of a table: score and uncertainty, gate, metadata; unknown texts and identifiers are none.

    Args:
        schema: of a score table, with the columns that were joined from a manifest.
    """
    found = []
    for field in schema:
        if field.name in (*_TEXTS, *MANIFEST_TEXTS):
            found.append(Variable(name=field.name, kind="category", population="all", of_model=False))
        elif field.name == "flag":
            found.append(Variable(name="flag", kind="category", population="scored", of_model=True))
        elif field.name in MANIFEST_NUMBERS:
            found.append(Variable(name=field.name, kind="number", population="all", of_model=False))
        elif pa.types.is_floating(field.type) and not _is_left_out(field.name):
            output = field.name in _OUTPUTS or field.name.endswith(_OUTPUT_ENDINGS)
            found.append(
                Variable(name=field.name, kind="number", population="scored" if output else "all", of_model=output)
            )
    return tuple(found)


def needed_columns(names: Sequence[str], schema: pa.Schema) -> list[str]:
    """The columns to keep of a table: the variables, and what groups, joins and counts its rows."""
    own = ("row_id", "patient_key", "outcome", *GROUPING_COLUMNS.values())
    return [name for name in dict.fromkeys((*own, *names)) if name in schema.names]


def _is_left_out(name: str) -> bool:
    return name in _LEFT_OUT or name.endswith(_LEFT_OUT_ENDINGS)

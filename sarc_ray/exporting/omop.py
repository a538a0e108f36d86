"""Scored rows as rows of the table MEASUREMENT of the OMOP Common Data Model, version 5.4.

Columns, types and conventions are those of OMOP_CDMv5.4_Field_Level.csv in github.com/OHDSI/CommonDataModel: an exact
number has no operator, a value without a unit has none, a category without a concept has the concept 0, and so on.

N scored rows, Q quantities of each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from sarc_ray.bundle import read_manifest_of
from sarc_ray.errors import ConfigError, ManifestError, Outcome
from sarc_ray.exporting.concepts import ANY, FLAGGED, NOT_FLAGGED, Concepts, read_concepts
from sarc_ray.exporting.persons import Days, read_days, read_persons
from sarc_ray.exporting.quantities import Quantity, quantities
from sarc_ray.exporting.rows import Exported, check_columns, check_model, iterate_rows, schema_of
from sarc_ray.exporting.writing import writing_rows

MEASUREMENT = pa.schema(
    [
        ("measurement_id", pa.int64()),
        ("person_id", pa.int64()),
        ("measurement_concept_id", pa.int64()),
        ("measurement_date", pa.date32()),
        ("measurement_datetime", pa.timestamp("s")),
        ("measurement_time", pa.string()),
        ("measurement_type_concept_id", pa.int64()),
        ("operator_concept_id", pa.int64()),
        ("value_as_number", pa.float64()),
        ("value_as_concept_id", pa.int64()),
        ("unit_concept_id", pa.int64()),
        ("range_low", pa.float64()),
        ("range_high", pa.float64()),
        ("provider_id", pa.int64()),
        ("visit_occurrence_id", pa.int64()),
        ("visit_detail_id", pa.int64()),
        ("measurement_source_value", pa.string()),
        ("measurement_source_concept_id", pa.int64()),
        ("unit_source_value", pa.string()),
        ("unit_source_concept_id", pa.int64()),
        ("value_source_value", pa.string()),
        ("measurement_event_id", pa.int64()),
        ("meas_event_field_concept_id", pa.int64()),
    ]
)
# varchar(50) of the CDM, and how much of a model's identity stands in a source value.
_SOURCE_CHARACTERS = 50
_LAST_ID = np.iinfo(np.int64).max
_MODEL_CHARACTERS = 12
_READ = ("row_id", "patient_key", "acquired_month", "outcome", "model_id")


@dataclass(frozen=True, kw_only=True, slots=True)
class OmopRequest:
    """What ``export omop`` is asked for.

    Args:
        table: a sealed score table.
        bundle: the model that scored it, for units and names.
        to: a ``.csv`` or ``.parquet``.
        persons: as :func:`sarc_ray.exporting.persons.read_persons` takes it.
        key_file: secret of the patient keys, where persons go by ``patient_id``.
        manifest: that was scored, for the days of ``acquired_on``; None leaves months.
        day_of_month: stands for a month where no day is known; None refuses these.
        concepts: file of concept ids; None for the defaults.
        first_id: of ``measurement_id``, which are counted up from it.
    """

    table: str
    bundle: str
    to: str
    persons: str
    key_file: str | None
    manifest: str | None
    day_of_month: int | None
    concepts: str | None
    first_id: int


def export_omop(request: OmopRequest) -> Exported:
    """Write the scored rows of a table as rows of MEASUREMENT: mu and sigma of each target, score, and flag.

    Rows that were not scored, of patients without a person, or without a date, are left out and counted.

    Raises:
        BundleError: there is no bundle.
        ConfigError: the bundle did not score the table, a concept, unit, id or ending is wrong, or days are missing.
        ManifestError: persons or manifest are wrong.
        StorageError: something cannot be read or written.
    """
    manifest = read_manifest_of(request.bundle)
    check_model(request.table, manifest.model_id)
    known = quantities(manifest.spec)
    columns = [*_READ, *(quantity.column for quantity in known)]
    check_columns(request.table, schema_of(request.table), columns)
    concepts = read_concepts(request.concepts, known)
    persons = read_persons(request.persons, request.key_file)
    days = read_days(request.manifest, request.day_of_month)
    left_out: Counter[str] = Counter()
    n_rows = n_known = 0
    with writing_rows(request.to, MEASUREMENT) as write:
        for part in iterate_rows(request.table, columns):
            rows = select_rows(part.to_pandas(), persons, days, left_out)
            n_known += days.n_known(rows["row_id"])
            found = measurements(rows, known, concepts, first_id=request.first_id + n_rows)
            n_rows += len(found)
            write(found)
        if n_rows and not n_known and request.manifest is not None:
            raise ManifestError(
                f"{request.manifest}: none of the rows to write is in it, so that it gives no day; name the manifest "
                "that was scored, where it lay then: row_id is made of the images' addresses"
            )
    return Exported(n_written=n_rows, left_out=dict(left_out))


def select_rows(frame: pd.DataFrame, persons: pd.Series, days: Days, left_out: Counter[str]) -> pd.DataFrame:
    """The rows that become measurements, with ``person_id`` and ``measurement_date`` (a day, datetime64).

    Args:
        frame: rows of the score table.
        persons: person by patient key.
        days: when radiographs were taken.
        left_out: is told how many rows are left out, by cause.

    Raises:
        ConfigError: of a row the month alone is known, and no day stands for it.
    """
    rows = _keep(frame, frame["outcome"] == Outcome.SCORED, "not scored", left_out)
    # Nullable: a float64 between would change persons above 2^53.
    rows = rows.assign(person_id=rows["patient_key"].map(persons.astype("Int64")).astype("Int64"))
    rows = _keep(rows, rows["person_id"].notna(), "patient without a person_id", left_out)
    day_N = days.of(rows["row_id"].to_numpy(np.int64), rows["acquired_month"])
    # A 31 February of a manifest is no date of a database either.
    date_N = pd.to_datetime(day_N, format="%Y-%m-%d", errors="coerce").astype("datetime64[s]")
    rows = rows.assign(measurement_date=date_N)
    return _keep(rows, rows["measurement_date"].notna(), "no date", left_out)


def measurements(rows: pd.DataFrame, known: Sequence[Quantity], concepts: Concepts, *, first_id: int) -> pa.Table:
    """Rows of MEASUREMENT: the Q quantities of the first row, then those of the next.

    Args:
        rows: as :func:`select_rows` gives them, shape (N, any).
        known: quantities, Q of them.
        concepts: concept ids.
        first_id: the first ``measurement_id``.

    Returns:
        N times Q rows of :data:`MEASUREMENT`.

    Raises:
        ConfigError: a name or unit does not fit into a source value, or an id into 64 bits.
    """
    n_quantities = len(known)
    parts = [_of_quantity(rows, quantity, concepts) for quantity in known]
    whole = pa.concat_tables([pa.table(part, schema=MEASUREMENT) for part in parts])
    if first_id + len(whole) - 1 > _LAST_ID:
        raise ConfigError(f"--first-id: measurement_id would pass {_LAST_ID}, its largest number; give a smaller one")
    # From one quantity after the other to one row after the other.
    order = np.arange(len(whole)).reshape(n_quantities, len(rows)).T.ravel()
    ids = pa.array(np.arange(first_id, first_id + len(whole), dtype=np.int64))
    return whole.take(pa.array(order)).set_column(0, MEASUREMENT.field("measurement_id"), ids)


def _of_quantity(rows: pd.DataFrame, quantity: Quantity, concepts: Concepts) -> dict[str, pa.Array]:
    n_rows = len(rows)
    columns = {field.name: pa.nulls(n_rows, field.type) for field in MEASUREMENT}

    def fill(name: str, value: object) -> None:
        columns[name] = pa.array([value] * n_rows, MEASUREMENT.field(name).type)

    columns["person_id"] = pa.array(rows["person_id"].to_numpy(np.int64))
    columns["measurement_date"] = pa.array(rows["measurement_date"].to_numpy("datetime64[D]"), pa.date32())
    for name in ("measurement_concept_id", "measurement_source_concept_id"):
        fill(name, concepts.of(name, quantity.column))
    fill("measurement_type_concept_id", concepts.of("measurement_type_concept_id", ANY))
    models = rows["model_id"].str.slice(0, _MODEL_CHARACTERS)
    columns["measurement_source_value"] = pa.array((quantity.column + "@" + models).map(_fitting).tolist(), pa.string())
    if quantity.unit is not None:
        for name in ("unit_concept_id", "unit_source_concept_id"):
            fill(name, concepts.of(name, quantity.unit))
        fill("unit_source_value", _fitting(quantity.unit))
    columns |= _values(rows[quantity.column], quantity, concepts)
    return columns


def _values(values: pd.Series, quantity: Quantity, concepts: Concepts) -> dict[str, pa.Array]:
    if quantity.statistic == "flag":
        texts = [FLAGGED if value else NOT_FLAGGED for value in values]
        ids = {text: concepts.of("value_as_concept_id", text) for text in (FLAGGED, NOT_FLAGGED)}
        return {
            "value_as_concept_id": pa.array([ids[text] for text in texts], pa.int64()),
            "value_source_value": pa.array(texts, pa.string()),
        }
    numbers_N: npt.NDArray[np.float64] = values.to_numpy(np.float64)
    return {
        "value_as_number": pa.array(numbers_N),
        "value_source_value": pa.array([repr(number) for number in numbers_N.tolist()], pa.string()),
    }


def _fitting(source_value: str) -> str:
    if len(source_value) > _SOURCE_CHARACTERS:
        raise ConfigError(
            f"source value {source_value!r} has {len(source_value)} characters, the CDM allows {_SOURCE_CHARACTERS}; "
            "give the target a shorter name or unit"
        )
    return source_value


def _keep(rows: pd.DataFrame, kept_N: pd.Series, cause: str, left_out: Counter[str]) -> pd.DataFrame:
    n_left_out = int((~kept_N).sum())
    if n_left_out:
        left_out[cause] += n_left_out
    return rows[kept_N].reset_index(drop=True)

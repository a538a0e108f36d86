"""Rows of MEASUREMENT: the CDM's own columns, a row for each value, a person and a day for each, or a clear error."""

import dataclasses
import datetime as dt
import json
import shutil

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from sarc_ray import exits, storage
from sarc_ray.bundle import read_manifest_of
from sarc_ray.cli import app
from sarc_ray.cohort.schema import row_id
from sarc_ray.errors import ConfigError, ManifestError
from sarc_ray.exporting import rows
from sarc_ray.exporting.concepts import allowed_source_values, read_concepts
from sarc_ray.exporting.omop import MEASUREMENT, OmopRequest, export_omop
from sarc_ray.exporting.persons import read_persons
from sarc_ray.exporting.quantities import quantities
from tests.exporting.archive import BUNDLE, COLUMNS, MODEL_ID, PATIENTS

# OMOP_CDMv5.4_Field_Level.csv of OHDSI's CommonDataModel, in its order; True where the CDM requires a value.
CDM = {
    "measurement_id": True,
    "person_id": True,
    "measurement_concept_id": True,
    "measurement_date": True,
    "measurement_datetime": False,
    "measurement_time": False,
    "measurement_type_concept_id": True,
    "operator_concept_id": False,
    "value_as_number": False,
    "value_as_concept_id": False,
    "unit_concept_id": False,
    "range_low": False,
    "range_high": False,
    "provider_id": False,
    "visit_occurrence_id": False,
    "visit_detail_id": False,
    "measurement_source_value": False,
    "measurement_source_concept_id": False,
    "unit_source_value": False,
    "unit_source_concept_id": False,
    "value_source_value": False,
    "measurement_event_id": False,
    "meas_event_field_concept_id": False,
}
KNOWN = quantities(read_manifest_of(BUNDLE).spec)


@pytest.fixture
def persons(archive, tmp_path):
    """Of all patients but the last."""
    frame = archive.frame[["patient_key"]].drop_duplicates()
    of_last = archive.frame.set_index("row_id")["patient_key"].loc[_row(archive, 5)]
    frame = frame[frame["patient_key"] != of_last].assign(person_id=lambda f: 100 + np.arange(len(f)))
    uri = str(tmp_path / "persons.csv")
    storage.write_table(uri, frame)
    return uri


def _row(archive, number):
    return row_id(archive.uris[number])


def make_request(archive, persons, to, **changes):
    usual = {
        "table": archive.table,
        "bundle": BUNDLE,
        "to": str(to),
        "persons": persons,
        "key_file": None,
        "manifest": archive.manifest,
        "day_of_month": 15,
        "concepts": None,
        "first_id": 1,
    }
    return OmopRequest(**{**usual, **changes})


@pytest.fixture
def written(archive, persons, tmp_path):
    done = export_omop(make_request(archive, persons, tmp_path / "measurement.parquet", first_id=7000))
    return done, pq.read_table(tmp_path / "measurement.parquet")


def test_the_columns_are_those_of_the_cdm(written):
    _, table = written
    assert table.schema.names == list(CDM) == MEASUREMENT.names
    for name, required in CDM.items():
        if required:
            assert table[name].null_count == 0, name
    for name in CDM:
        if name.endswith("_id"):
            assert table.schema.field(name).type == pa.int64(), name


def test_each_value_is_a_row_with_its_unit_and_its_exact_number(archive, written):
    done, table = written
    frame = table.to_pandas()
    scored = archive.frame[(archive.frame["outcome"] == "scored") & (archive.frame["row_id"] != _row(archive, 5))]
    assert done.n_written == len(frame) == len(scored) * len(COLUMNS)
    assert frame["measurement_id"].tolist() == list(range(7000, 7000 + len(frame)))
    names = frame["measurement_source_value"].str.split("@", expand=True)
    assert names[0].tolist() == list(COLUMNS) * len(scored)
    assert set(names[1]) == {MODEL_ID[:12]}
    for column in COLUMNS[:-1]:
        of_column = frame[names[0] == column]
        np.testing.assert_array_equal(of_column["value_as_number"], scored[column])
        assert [float(text) for text in of_column["value_source_value"]] == scored[column].tolist()
    units = frame.groupby(names[0])["unit_source_value"].first().dropna().to_dict()
    assert units == {"alm_kg_mu": "kg", "alm_kg_sigma": "kg", "crt_s_mu": "s", "crt_s_sigma": "s", "score": "1"}


def test_the_flag_is_a_category_without_number_and_unit(archive, written):
    _, table = written
    frame = table.to_pandas()
    flags = frame[frame["measurement_source_value"].str.startswith("flag@")]
    scored = archive.frame[(archive.frame["outcome"] == "scored") & (archive.frame["row_id"] != _row(archive, 5))]
    assert flags["value_source_value"].tolist() == ["yes" if flag else "no" for flag in scored["flag"]]
    assert set(flags["value_source_value"]) == {"yes", "no"}
    assert flags["value_as_concept_id"].tolist() == [0] * len(flags)
    assert flags[["value_as_number", "unit_concept_id", "unit_source_value"]].isna().all(axis=None)


def test_concepts_are_those_that_could_be_looked_up_and_0_elsewhere(written):
    frame = written[1].to_pandas()
    assert set(frame["measurement_concept_id"]) == {0}
    assert set(frame["measurement_type_concept_id"]) == {32880}
    units = frame.groupby("unit_source_value")["unit_concept_id"].unique().map(list).to_dict()
    assert units == {"kg": [9529], "s": [0], "1": [0]}
    assert frame["operator_concept_id"].isna().all()


def test_days_are_the_manifests_and_a_months_where_it_has_none(archive, written):
    frame = written[1].to_pandas()
    expected = {0: "2020-03-05", 1: "2020-03-05", 2: "2019-12-31", 3: "2021-07-15"}
    by_row = {_row(archive, number): dt.date.fromisoformat(day) for number, day in expected.items()}
    scored = [row for row in archive.frame["row_id"] if row in by_row]
    assert frame["measurement_date"].tolist() == [by_row[row] for row in scored for _ in COLUMNS]


def test_what_is_left_out_is_counted_by_cause(archive, written, persons, tmp_path):
    assert written[0].left_out == {"not scored": 1, "patient without a person_id": 1}
    everybody = pd.DataFrame({"patient_id": sorted(set(PATIENTS)), "person_id": range(1, 6)})
    storage.write_table(str(tmp_path / "all.csv"), everybody)
    request = make_request(
        archive, str(tmp_path / "all.csv"), tmp_path / "m.csv", key_file=archive.key_file, manifest=None
    )
    # Row 5 has a person now, but neither a month nor, without the manifest, a day.
    assert export_omop(request).left_out == {"not scored": 1, "no date": 1}


def test_persons_by_patient_id_are_the_same_persons(archive, tmp_path):
    storage.write_table(
        str(tmp_path / "ids.csv"), pd.DataFrame({"patient_id": sorted(set(PATIENTS)), "person_id": range(1, 6)})
    )
    found = read_persons(str(tmp_path / "ids.csv"), archive.key_file)
    expected = dict(zip(sorted(set(PATIENTS)), range(1, 6), strict=True))
    by_row = archive.frame.set_index("row_id")["patient_key"]
    for number, patient in enumerate(PATIENTS):
        assert found[by_row[_row(archive, number)]] == expected[patient]
    with pytest.raises(ConfigError, match="no key"):
        read_persons(str(tmp_path / "ids.csv"), None)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ({"patient_key": ["SECRET"], "person": ["1"]}, "needs the columns person_id, and patient_key or patient_id"),
        ({"patient_key": ["SECRET", "SECRET"], "person_id": ["1", "2"]}, "1 patients have two persons"),
        ({"patient_key": ["SECRET", ""], "person_id": ["1", "2"]}, "1 rows have no patient_key"),
        ({"patient_key": ["a", "b"], "person_id": ["1", "SECRET"]}, "first of them row 2, person_id is no whole"),
        ({"patient_key": ["a"], "person_id": ["0"]}, "no whole number above 0"),
    ],
)
def test_wrong_persons_are_refused_without_being_quoted(tmp_path, frame, message):
    storage.write_table(str(tmp_path / "persons.csv"), pd.DataFrame(frame))
    with pytest.raises(ManifestError, match=message) as caught:
        read_persons(str(tmp_path / "persons.csv"), None)
    assert "SECRET" not in str(caught.value)


def test_whole_numbers_that_parquet_holds_as_floats_are_persons(tmp_path):
    frame = pd.DataFrame({"patient_key": ["a", "b"], "person_id": [1.0, 2.0]})
    storage.write_table(str(tmp_path / "persons.parquet"), frame)
    assert read_persons(str(tmp_path / "persons.parquet"), None).to_dict() == {"a": 1, "b": 2}


def test_large_person_ids_stay_exact_beside_patients_without_one(archive, persons, tmp_path):
    frame = storage.read_table(persons)
    frame["person_id"] = [str(2**53 + 1 + 2 * number) for number in range(len(frame))]
    storage.write_table(persons, frame)
    done = export_omop(make_request(archive, persons, tmp_path / "m.parquet"))
    assert done.left_out["patient without a person_id"] == 1
    found = set(storage.read_table(str(tmp_path / "m.parquet"))["person_id"])
    assert found
    assert found <= {int(text) for text in frame["person_id"]}


def test_floats_of_parquet_name_the_patients_that_a_manifest_names_and_no_inexact_person(archive, tmp_path):
    for name, patients in (("floats", [17.0, 18.0]), ("texts", ["17", "18"])):
        frame = pd.DataFrame({"patient_id": patients, "person_id": [1, 2]})
        storage.write_table(str(tmp_path / f"{name}.parquet"), frame)
    floats, texts = (read_persons(str(tmp_path / f"{n}.parquet"), archive.key_file) for n in ("floats", "texts"))
    assert floats.to_dict() == texts.to_dict()
    frame = pd.DataFrame({"patient_key": ["a"], "person_id": [2.0**53 + 2]})
    storage.write_table(str(tmp_path / "persons.parquet"), frame)
    with pytest.raises(ManifestError, match="person_id is no whole number"):
        read_persons(str(tmp_path / "persons.parquet"), None)


def test_files_that_are_no_tables_are_refused_without_being_quoted(tmp_path):
    for name, data in (("rows.csv", b"a,b\n1,2\n1,2,SECRET,4\n"), ("empty.csv", b""), ("utf16.csv", b"\xff\xfeS\x00")):
        storage.write_bytes(str(tmp_path / name), data)
        with pytest.raises(ManifestError, match="not a readable table") as caught:
            read_persons(str(tmp_path / name), None)
        assert "SECRET" not in str(caught.value)
        with pytest.raises(ManifestError, match="not a readable table"):
            read_concepts(str(tmp_path / name), KNOWN)


def test_a_manifest_that_has_none_of_the_rows_gives_no_days_in_silence(archive, persons, tmp_path):
    frame = storage.read_table(archive.manifest)
    frame["image_uri"] = [f"elsewhere/{number}.dcm" for number in range(len(frame))]
    storage.write_table(str(tmp_path / "manifest.csv"), frame)
    request = make_request(archive, persons, tmp_path / "m.csv", manifest=str(tmp_path / "manifest.csv"))
    with pytest.raises(ManifestError, match="none of the rows to write is in it"):
        export_omop(request)
    assert not (tmp_path / "m.csv").exists()


def test_ids_that_no_database_holds_are_refused(archive, persons, tmp_path):
    last = 2**63 - 1
    done = export_omop(make_request(archive, persons, tmp_path / "m.parquet", first_id=last - 23))
    assert done.n_written == 24
    assert storage.read_table(str(tmp_path / "m.parquet"))["measurement_id"].iloc[-1] == last
    with pytest.raises(ConfigError, match=f"--first-id: measurement_id would pass {last}"):
        export_omop(make_request(archive, persons, tmp_path / "other.parquet", first_id=last - 22))
    assert not (tmp_path / "other.parquet").exists()


def test_a_unit_that_the_cdm_cannot_hold_is_refused(archive, persons, tmp_path, monkeypatch):
    long = [dataclasses.replace(one, unit="x" * 51) for one in KNOWN[:1]]
    monkeypatch.setattr("sarc_ray.exporting.omop.quantities", lambda spec: tuple(long))
    with pytest.raises(
        ConfigError, match="has 51 characters, the CDM allows 50; give the target a shorter name or unit"
    ):
        export_omop(make_request(archive, persons, tmp_path / "m.parquet"))


def test_a_month_alone_is_no_date_unless_a_day_stands_for_it(archive, persons, tmp_path):
    request = make_request(archive, persons, tmp_path / "m.csv", manifest=None, day_of_month=None)
    with pytest.raises(ConfigError, match=r"of 4 rows the month alone is known.*--manifest.*--day-of-month"):
        export_omop(request)
    assert not (tmp_path / "m.csv").exists()
    export_omop(make_request(archive, persons, tmp_path / "m.csv", manifest=None, day_of_month=1))
    assert set(pd.read_csv(tmp_path / "m.csv")["measurement_date"]) == {"2020-03-01", "2019-12-01", "2021-07-01"}


def test_a_manifest_without_days_is_refused(archive, persons, tmp_path):
    frame = storage.read_table(archive.manifest).drop(columns="acquired_on")
    storage.write_table(str(tmp_path / "manifest.csv"), frame)
    request = make_request(archive, persons, tmp_path / "m.csv", manifest=str(tmp_path / "manifest.csv"))
    with pytest.raises(ManifestError, match="no column acquired_on"):
        export_omop(request)


def test_csv_and_parquet_say_the_same_in_pieces_or_not(archive, persons, written, tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "ROWS_AT_ONCE", 1)
    export_omop(make_request(archive, persons, tmp_path / "pieces.csv", first_id=7000))
    found = pd.read_csv(tmp_path / "pieces.csv")
    expected = written[1].to_pandas()
    assert list(found) == list(expected)
    np.testing.assert_array_equal(found["measurement_id"], expected["measurement_id"])
    np.testing.assert_array_equal(found["value_as_number"], expected["value_as_number"])
    assert found["measurement_date"].tolist() == [day.isoformat() for day in expected["measurement_date"]]
    # A missing value is nothing at all, which a database reads as NULL, and not an empty text.
    assert '""' not in (tmp_path / "pieces.csv").read_text()


def test_concept_ids_of_a_file_stand_before_the_defaults(archive, persons, tmp_path):
    concepts = pd.DataFrame(
        [
            ("measurement_concept_id", "alm_kg_mu", "2000000001"),
            ("measurement_source_concept_id", "score", "2000000002"),
            ("unit_concept_id", "kg", "1"),
            ("unit_source_concept_id", "s", "2"),
            ("measurement_type_concept_id", "*", "3"),
            ("value_as_concept_id", "yes", "4"),
        ],
        columns=["field", "source_value", "concept_id"],
    )
    storage.write_table(str(tmp_path / "concepts.csv"), concepts)
    request = make_request(archive, persons, tmp_path / "m.parquet", concepts=str(tmp_path / "concepts.csv"))
    export_omop(request)
    frame = storage.read_table(str(tmp_path / "m.parquet"))
    name = frame["measurement_source_value"].str.partition("@")[0]
    assert set(frame.loc[name == "alm_kg_mu", "measurement_concept_id"]) == {2000000001}
    assert set(frame.loc[name != "alm_kg_mu", "measurement_concept_id"]) == {0}
    assert set(frame.loc[name == "score", "measurement_source_concept_id"]) == {2000000002}
    assert set(frame.loc[frame["unit_source_value"] == "kg", "unit_concept_id"]) == {1}
    assert set(frame.loc[frame["unit_source_value"] == "s", "unit_source_concept_id"]) == {2}
    assert set(frame["measurement_type_concept_id"]) == {3}
    flags = frame[name == "flag"].set_index("value_source_value")["value_as_concept_id"]
    assert set(flags.loc[["yes"]]) == {4}
    assert set(flags.loc[["no"]]) == {0}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("measurement_id", "score", "1"), "row 1: field is 'measurement_id', allowed: measurement_concept_id"),
        (("unit_concept_id", "lbs", "1"), "row 1: source_value of unit_concept_id is 'lbs', allowed: kg, s, 1"),
        (("unit_concept_id", "kg", "kilogram"), "row 1: concept_id is 'kilogram', allowed: a whole number"),
        (
            ("unit_concept_id", "kg", str(2**31)),
            "row 1: concept_id is '2147483648', allowed: a whole number up to 2147",
        ),
    ],
)
def test_misspelt_concepts_are_refused(tmp_path, row, message):
    uri = str(tmp_path / "concepts.csv")
    storage.write_table(uri, pd.DataFrame([row], columns=["field", "source_value", "concept_id"]))
    with pytest.raises(ConfigError, match=message):
        read_concepts(uri, KNOWN)
    storage.write_table(uri, pd.DataFrame([row], columns=["field", "value", "concept_id"]))
    with pytest.raises(ConfigError, match="no column source_value"):
        read_concepts(uri, KNOWN)


def test_every_field_of_the_concept_file_is_one_of_the_cdm():
    assert set(allowed_source_values(KNOWN)) <= set(CDM)


def test_another_models_bundle_is_refused(archive, persons, tmp_path):
    shutil.copytree(BUNDLE, tmp_path / "bundle")
    path = tmp_path / "bundle" / "bundle.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "model_id": "f" * 32}))
    request = make_request(archive, persons, tmp_path / "m.csv", bundle=str(tmp_path / "bundle"))
    with pytest.raises(ConfigError, match=f"its model_id is {'f' * 32}, but .* was scored by {MODEL_ID}"):
        export_omop(request)


def test_the_command_tells_causes_and_counts(archive, persons, tmp_path):
    to = str(tmp_path / "m.csv")
    arguments = ["export", "omop", archive.table, "--bundle", BUNDLE, "--persons", persons, "--to", to]
    result = CliRunner().invoke(app, [*arguments, "--manifest", archive.manifest, "--day-of-month", "15"])
    assert result.exit_code == 0, result.output
    assert "1 left out: patient without a person_id" in result.output
    assert f"24 measurements in {to}" in result.output
    storage.write_table(persons, pd.DataFrame({"patient_key": ["unknown"], "person_id": [1]}))
    result = CliRunner().invoke(app, [*arguments, "--manifest", archive.manifest, "--day-of-month", "15"])
    assert result.exit_code == exits.REFUSED, result.output

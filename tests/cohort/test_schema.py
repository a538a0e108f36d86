import csv
import hashlib
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sarc_ray import storage
from sarc_ray.cohort.schema import (
    COLUMNS,
    MISSING_MARKS,
    TargetConfig,
    check_manifest,
    read_manifest,
    row_id,
)
from sarc_ray.errors import ManifestError, SchemaVersionError, StorageError

NIH = Path(__file__).parents[2] / ".." / "shared" / "data" / "nih-cxr" / "manifest.csv"

ROWS = [
    {
        "image_uri": "images/a.dcm",
        "patient_id": "00000150",
        "age_years": "61.5",
        "sex": "F",
        "height_m": "1.575",
        "weight_kg": "58.1",
        "alm_kg": "15.2",
        "hgs_kg": "21",
        "crt_s": "",
        "body_comp_method": "bia",
        "diabetes": "1",
        "acquired_on": "2020-03-05",
        "ward": "007",
        "creatinine": "0.9",
    },
    {
        "image_uri": "images/b.dcm",
        "patient_id": "00000151",
        "age_years": "70",
        "sex": "M",
        "height_m": "1.7",
        "weight_kg": "70",
        "alm_kg": "NA",
        "hgs_kg": "30.1",
        "crt_s": "11.0",
        "body_comp_method": "",
        "diabetes": "0",
        "acquired_on": "2020-12-31",
        "ward": "12",
        "creatinine": "1",
    },
]


def write_csv(folder: Path, rows: list[dict[str, str]], name: str = "manifest.csv") -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    (folder / name).write_text(text.getvalue(), encoding="utf-8")
    return str(folder / name)


def typed_frame() -> pd.DataFrame:
    frame = pd.DataFrame(ROWS)
    for name in ("age_years", "height_m", "weight_kg", "alm_kg", "hgs_kg", "crt_s", "creatinine"):
        frame[name] = pd.to_numeric(frame[name], errors="coerce")
    frame["diabetes"] = frame["diabetes"] == "1"
    frame["body_comp_method"] = frame["body_comp_method"].replace("", None)
    frame["acquired_on"] = pd.to_datetime(frame["acquired_on"]).dt.date
    return frame


def changed(**cells: str) -> list[dict[str, str]]:
    return [ROWS[0], {**ROWS[1], **cells}]


def test_csv_and_parquet_give_identical_frames(tmp_path: Path) -> None:
    from_csv = read_manifest(write_csv(tmp_path, ROWS))
    typed_frame().to_parquet(tmp_path / "manifest.parquet", index=False)
    from_parquet = read_manifest(str(tmp_path / "manifest.parquet"))
    pd.testing.assert_frame_equal(from_csv, from_parquet)
    assert from_csv["patient_id"].tolist() == ["00000150", "00000151"]
    assert from_csv["ward"].tolist() == ["007", "12"]  # one code with leading zeros keeps the column text
    assert from_csv["creatinine"].dtype == np.float64
    assert from_csv["diabetes"].tolist() == [1.0, 0.0]
    assert from_csv["acquired_on"].tolist() == ["2020-03-05", "2020-12-31"]
    assert np.isnan(from_csv["crt_s"][0])
    assert np.isnan(from_csv["alm_kg"][1])


def test_folder_of_parquet_files_reads_as_one_manifest(tmp_path: Path) -> None:
    frame = typed_frame()
    frame.iloc[:1].to_parquet(tmp_path / "part-0.parquet", index=False)
    frame.iloc[1:].to_parquet(tmp_path / "part-1.parquet", index=False)
    read = read_manifest(str(tmp_path))
    assert read["image_uri"].tolist() == [str(tmp_path / "images/a.dcm"), str(tmp_path / "images/b.dcm")]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_manifests_in_object_stores(ending: str) -> None:
    uri = f"memory://bucket/{ending}/manifest.{ending}"
    storage.write_table(uri, pd.DataFrame(ROWS))
    frame = read_manifest(uri)
    assert frame["image_uri"][0] == f"memory://bucket/{ending}/images/a.dcm"
    assert frame["row_id"][0] == row_id(frame["image_uri"][0])


def test_numeric_patient_ids_and_infinite_values(tmp_path: Path) -> None:
    frame = typed_frame()
    frame["patient_id"] = [150.0, 151.0]
    frame.to_parquet(tmp_path / "ok.parquet", index=False)
    assert read_manifest(str(tmp_path / "ok.parquet"))["patient_id"].tolist() == ["150", "151"]
    frame["hgs_kg"] = [np.inf, 20.0]
    frame.to_parquet(tmp_path / "bad.parquet", index=False)
    with pytest.raises(ManifestError, match="row 1, column hgs_kg"):
        read_manifest(str(tmp_path / "bad.parquet"))


def test_uris_are_absolute_and_row_ids_are_the_hash_of_the_uri(tmp_path: Path) -> None:
    rows = [{**ROWS[0], "image_uri": "./images//a.dcm"}, {**ROWS[1], "image_uri": "s3://bucket/b.dcm"}]
    frame = read_manifest(write_csv(tmp_path, rows))
    local = str(tmp_path / "images/a.dcm")
    assert frame["image_uri"].tolist() == [local, "s3://bucket/b.dcm"]
    digest = int(hashlib.sha256(local.encode()).hexdigest(), 16) >> (256 - 63)
    assert frame["row_id"].tolist() == [digest, row_id("s3://bucket/b.dcm")]
    assert frame["row_id"].dtype == np.int64
    assert 0 <= row_id("s3://bucket/b.dcm") < 2**63


def test_bmi_is_filled_only_where_missing(tmp_path: Path) -> None:
    rows = [{**ROWS[0], "bmi_kg_m2": "23"}, {**ROWS[1], "bmi_kg_m2": ""}]
    frame = read_manifest(write_csv(tmp_path, rows), required=["bmi_kg_m2"])
    assert frame["bmi_kg_m2"].tolist() == pytest.approx([23.0, 70 / 1.7**2])
    assert read_manifest(write_csv(tmp_path, ROWS), required=["bmi_kg_m2"])["bmi_kg_m2"].notna().all()


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ({"height_m": "165"}, r"row 2, column height_m: found '165'; allowed: 0.4 to 2.6 m; .*centimetres"),
        ({"alm_kg": "15200"}, r"row 2, column alm_kg: found '15200'.*grams"),
        ({"age_years": "-1"}, r"row 2, column age_years: found '-1'; allowed: 0 to 120 years"),
        ({"hgs_kg": "strong"}, r"row 2, column hgs_kg: found 'strong'"),
        ({"hgs_kg": "1_0"}, r"row 2, column hgs_kg: found '1_0'"),
        ({"crt_s": "999"}, r"row 2, column crt_s: found '999'"),
        ({"sex": "2"}, r"row 2, column sex: found '2'; allowed: F, M; write one of"),
        ({"diabetes": "2"}, r"row 2, column diabetes: found '2'; allowed: 0 or 1"),
        ({"body_comp_method": "mri"}, r"row 2, column body_comp_method.*bia, dxa"),
        ({"acquired_on": "31.12.2020"}, r"row 2, column acquired_on.*YYYY-MM-DD"),
        ({"patient_id": " "}, r"row 2, column patient_id: found no value"),
        ({"image_uri": ""}, r"row 2, column image_uri: found no value"),
        ({"image_uri": "images/./a.dcm"}, r"row 2, column image_uri: found the same image as in row 1"),
    ],
)
def test_a_wrong_value_is_refused_with_its_place_and_remedy(
    tmp_path: Path, cells: dict[str, str], message: str
) -> None:
    with pytest.raises(ManifestError, match=message):
        read_manifest(write_csv(tmp_path, changed(**cells)))


def test_errors_of_several_columns_are_counted_together(tmp_path: Path) -> None:
    rows = [{**ROWS[0], "image_uri": f"{i}.dcm", "height_m": "160", "sex": "x"} for i in range(9)]
    with pytest.raises(ManifestError) as caught:
        read_manifest(write_csv(tmp_path, rows))
    assert "18 error(s)" in str(caught.value)
    assert "(9 rows in all, the first: 1, 2, 3, 4, 5)" in str(caught.value)


def test_messages_never_show_identifiers(tmp_path: Path) -> None:
    rows = [{**ROWS[0], "patient_id": "SECRET", "image_uri": "SECRET.dcm"}] * 2
    with pytest.raises(ManifestError) as caught:
        read_manifest(write_csv(tmp_path, rows))
    assert "SECRET" not in str(caught.value)


def test_missing_columns_and_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"column patient_id: found no such column"):
        read_manifest(write_csv(tmp_path, [{"image_uri": "a.dcm"}]))
    with pytest.raises(ManifestError, match=r"column sarc_f: found no such column"):
        read_manifest(write_csv(tmp_path, ROWS), required=["sarc_f"])
    (tmp_path / "empty.csv").write_text("image_uri,patient_id\n")
    with pytest.raises(ManifestError, match="no rows"):
        read_manifest(str(tmp_path / "empty.csv"))


def test_own_columns_asked_for_as_numbers_must_be_numbers(tmp_path: Path) -> None:
    uri = write_csv(tmp_path, changed(creatinine="high"))
    assert read_manifest(uri)["creatinine"].tolist() == ["0.9", "high"]
    with pytest.raises(ManifestError, match="row 2, column creatinine: found 'high'; allowed: a number"):
        read_manifest(uri, numeric=["creatinine"])
    assert read_manifest(write_csv(tmp_path, ROWS), numeric=["ward"])["ward"].tolist() == [7.0, 12.0]


@pytest.mark.parametrize("mark", sorted(MISSING_MARKS))
def test_every_missing_mark_is_missing(tmp_path: Path, mark: str) -> None:
    frame = read_manifest(write_csv(tmp_path, changed(age_years=mark, sex=mark, creatinine=mark)))
    assert frame[["age_years", "sex", "creatinine"]].isna().to_numpy()[1].all()
    assert frame["creatinine"].dtype == np.float64


def test_newer_schema_versions_are_refused(tmp_path: Path) -> None:
    table = pa.Table.from_pandas(typed_frame(), preserve_index=False)
    for version, name in ((b"1", "old.parquet"), (b"2", "new.parquet")):
        pq.write_table(
            table.replace_schema_metadata({**table.schema.metadata, b"schema_version": version}), tmp_path / name
        )
    assert len(read_manifest(str(tmp_path / "old.parquet"))) == 2
    with pytest.raises(SchemaVersionError, match=r"'2'.*reads up to 1"):
        read_manifest(str(tmp_path / "new.parquet"))
    with pytest.raises(SchemaVersionError, match="'3'"):
        read_manifest(write_csv(tmp_path, changed(schema_version="3")[1:]))


def test_absent_and_unreadable_manifests(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no such object"):
        read_manifest(str(tmp_path / "none.csv"))
    (tmp_path / "latin.csv").write_bytes(b"image_uri,patient_id\na.dcm,\xff\xfe\n")
    with pytest.raises(ManifestError, match="UTF-8"):
        read_manifest(str(tmp_path / "latin.csv"))
    (tmp_path / "not.parquet").write_bytes(b"no parquet")
    with pytest.raises(StorageError, match="Parquet"):
        read_manifest(str(tmp_path / "not.parquet"))


def test_read_back_frame_checks_clean_and_stays_the_same(tmp_path: Path) -> None:
    frame = read_manifest(write_csv(tmp_path, ROWS))
    frame.to_parquet(tmp_path / "again.parquet", index=False)
    pd.testing.assert_frame_equal(read_manifest(str(tmp_path / "again.parquet")), frame, check_like=True)
    assert [f for f in check_manifest(frame) if f.severity == "error"] == []


def odd_rows(n: int, **cells: object) -> pd.DataFrame:
    base = {**ROWS[0], "crt_s": "10", **{key: str(value) for key, value in cells.items()}}
    return pd.DataFrame([{**base, "image_uri": f"{i}.dcm", "patient_id": f"p{i}"} for i in range(n)])


@pytest.mark.parametrize(
    ("frame", "column", "count"),
    [
        (odd_rows(3, bmi_kg_m2=30), "bmi_kg_m2", 3),
        (odd_rows(2, alm_kg=40), "alm_kg", 2),
        (odd_rows(30, hgs_kg=62), "hgs_kg", 30),
        (odd_rows(30, weight_kg=130), "weight_kg", 30),
        (odd_rows(2, view="FRONT"), "view", 2),
        (odd_rows(2, sex=""), "sex", 2),
        (odd_rows(2, age_years=""), "age_years", 2),
        (odd_rows(2, body_comp_method=""), "body_comp_method", 2),
    ],
)
def test_odd_values_are_warnings(frame: pd.DataFrame, column: str, count: int) -> None:
    findings = check_manifest(frame)
    assert [(f.severity, f.column, f.count) for f in findings] == [("warning", column, count)]
    assert check_manifest(odd_rows(30)) == []


def test_patients_with_two_sexes_or_splits_are_warnings() -> None:
    frame = odd_rows(3)
    frame["patient_id"] = ["p0", "p0", "p1"]
    frame["sex"] = ["F", "M", "F"]
    frame["split"] = ["train", "tune", "tune"]
    findings = check_manifest(frame)
    assert [(f.column, f.rows) for f in findings] == [("sex", (1, 2)), ("split", (1, 2))]
    assert "p0" not in " ".join(str(f) for f in findings)


def test_column_table_is_sound() -> None:
    names = [spec.name for spec in COLUMNS]
    assert len(names) == len(set(names))
    for spec in COLUMNS:
        assert spec.meaning
        assert spec.describe_allowed()
        assert (spec.kind == "category") == bool(spec.allowed)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "ALM (kg)"}, "name: found"),
        ({"transform": "sqrt"}, "transform: found 'sqrt'"),
        ({"transform": "log", "positive": False}, "needs positive"),
    ],
)
def test_target_config_refuses(change: dict[str, object], message: str) -> None:
    good = {
        "name": "alm_kg",
        "label": "ALM",
        "unit": "kg",
        "higher_is_worse": False,
        "transform": "identity",
        "positive": True,
    }
    TargetConfig(**good)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=message):
        TargetConfig(**{**good, **change})  # type: ignore[arg-type]


def test_nih_manifest_is_readable() -> None:
    if not NIH.exists():
        pytest.skip("the shared NIH radiographs are not here")
    frame = read_manifest(str(NIH), required=["age_years", "sex", "view"], numeric=["any_finding"])
    assert len(frame) == 640
    assert frame["patient_id"].nunique() == 441
    assert frame["patient_id"].str.len().eq(8).all()
    assert Path(frame["image_uri"][0]).exists()
    assert [f for f in check_manifest(frame) if f.severity == "error"] == []

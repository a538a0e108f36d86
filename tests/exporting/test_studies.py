"""The verb ``export sr``: from a score table and radiographs to a report per study."""

import io
import shutil

import highdicom
import pydicom
import pytest
from typer.testing import CliRunner

from sarc_ray import exits, storage
from sarc_ray.cli import app
from sarc_ray.cohort.schema import row_id
from sarc_ray.errors import ConfigError, StorageError
from sarc_ray.exporting.studies import ReportRequest, export_reports
from tests.exporting.archive import ABSTAINED, BUNDLE, COLUMNS, STUDIES, make_archive


def make_request(archive, images, to, **changes):
    usual = {"table": archive.table, "images": tuple(images), "bundle": BUNDLE, "to": str(to)}
    return ReportRequest(**{**usual, **changes})


def test_a_report_per_study_with_the_tables_own_numbers(archive, tmp_path):
    done = export_reports(make_request(archive, archive.uris[:4], tmp_path))
    assert (done.n_written, done.left_out) == (3, {})
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == sorted(f"{row_id(archive.uris[number])}.dcm" for number in (0, 2, 3))
    by_row = archive.frame.set_index("row_id")
    for first, numbers in ((0, (0, 1)), (2, (2,)), (3, (3,))):
        data = storage.read_bytes(str(tmp_path / f"{row_id(archive.uris[first])}.dcm"))
        report = highdicom.sr.srread(io.BytesIO(data))
        assert report.StudyInstanceUID == STUDIES[first]
        groups = report.content.get_image_measurement_groups()
        found = [[measurement.value for measurement in group.get_measurements()] for group in groups]
        rows = [by_row.loc[row_id(archive.uris[number])] for number in numbers]
        assert found == [[row[column] for column in COLUMNS if column != "flag"] for row in rows]
        flags = [group.get_qualitative_evaluations()[0].value.meaning == "Yes" for group in groups]
        assert flags == [row["flag"] for row in rows]


def test_what_has_no_score_or_is_not_in_the_table_is_counted(archive, tmp_path):
    stranger = tmp_path / "stranger.dcm"
    shutil.copy(archive.uris[0], stranger)
    images = [archive.uris[2], archive.uris[ABSTAINED], str(stranger), archive.uris[2]]
    done = export_reports(make_request(archive, images, tmp_path / "out"))
    assert done.n_written == 1
    (no_score,) = [cause for cause in done.left_out if cause.startswith("no score: ")]
    assert done.left_out == {no_score: 1, "no row in the score table": 1}
    assert "body-mass index" in no_score


def test_the_order_of_the_request_makes_no_other_report(archive, tmp_path):
    first, other = (tmp_path / name for name in ("first", "other"))
    export_reports(make_request(archive, archive.uris[:2], first))
    export_reports(make_request(archive, archive.uris[1::-1], other))
    (one,), (two,) = ([*folder.iterdir()] for folder in (first, other))
    assert one.name == two.name
    assert pydicom.dcmread(one).SOPInstanceUID == pydicom.dcmread(two).SOPInstanceUID


def test_a_copy_is_reported_once_and_a_study_of_two_patients_not_at_all(tmp_path):
    """Row 1 is row 0 again under another name; row 3 lies in the study of row 2 and is of somebody else."""
    tags = {1: {"SOPInstanceUID": f"{STUDIES[0]}.1.0"}, 3: {"StudyInstanceUID": STUDIES[2]}}
    archive = make_archive(tmp_path / "archive", tags)
    done = export_reports(make_request(archive, archive.uris[:4], tmp_path / "out"))
    assert done.n_written == 1
    copies, several = done.left_out
    assert "copy of another radiograph" in copies
    assert "several Patient IDs" in several
    assert list(done.left_out.values()) == [1, 2]
    (path,) = (tmp_path / "out").iterdir()
    export_reports(make_request(archive, archive.uris[1::-1], tmp_path / "turned"))
    assert [one.name for one in (tmp_path / "turned").iterdir()] == [path.name]
    report = highdicom.sr.srread(path)
    assert report.StudyInstanceUID == STUDIES[0]
    assert len(report.content.get_image_measurement_groups()) == 1


def test_a_radiograph_that_has_changed_since_gets_no_report(archive, tmp_path):
    before = storage.read_bytes(archive.uris[3])
    dataset = pydicom.dcmread(io.BytesIO(before))
    dataset.PatientID = "another patient"
    try:
        dataset.save_as(archive.uris[3])
        done = export_reports(make_request(archive, [archive.uris[3]], tmp_path))
    finally:
        storage.write_bytes(archive.uris[3], before)
    assert (done.n_written, done.left_out) == (0, {"the object is another one than was read before": 1})
    assert list(tmp_path.iterdir()) == []


def test_wrong_requests_are_refused(archive, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="IMAGE: none given"):
        export_reports(make_request(archive, [], tmp_path))
    with pytest.raises(StorageError, match="no finished table"):
        export_reports(make_request(archive, archive.uris, tmp_path, table=str(tmp_path / "nowhere")))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'sarc-ray\[dicom\]'"):
        export_reports(make_request(archive, archive.uris, tmp_path))


def test_the_command_counts_and_ends_with_a_code_of_its_own_where_there_is_nothing(archive, tmp_path):
    arguments = ["export", "sr", archive.table, "--bundle", BUNDLE, "--to", str(tmp_path)]
    result = CliRunner().invoke(app, [*arguments, *archive.uris])
    assert result.exit_code == 0, result.output
    assert f"4 reports in {tmp_path}" in result.output
    assert "1 left out: no score" in result.output
    result = CliRunner().invoke(app, [*arguments, archive.uris[ABSTAINED]])
    assert result.exit_code == exits.REFUSED, result.output

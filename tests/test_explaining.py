"""The verb ``explain`` on real DICOM files and a real bundle: what it writes, and whom it does not name."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
from PIL import Image
from typer.testing import CliRunner

from sarc_ray import exits, explaining
from sarc_ray.bundle import load_bundle, write_bundle
from sarc_ray.cli import app
from sarc_ray.cohort.schema import row_id
from sarc_ray.errors import ConfigError, ManifestError, StorageError
from sarc_ray.imaging.isolation import read_images
from sarc_ray.inspection.request import settings_for
from sarc_ray.simulate.anatomy import Signals
from sarc_ray.simulate.detector import DEVICES, Header, to_dicom
from sarc_ray.simulate.phantom import render
from sarc_ray.stage1.saliency import grad_cam
from tests.bundle_factory import make_distilled, make_ood

BUNDLE = str(Path(__file__).parent / "golden" / "bundle" / "model")
COMMAND = str(Path(sys.executable).parent / "sarc-ray")
LIMITS = settings_for(BUNDLE, None).limits
CANARY = "CANARY"
TARGETS = ("alm_kg", "crt_s")


def make_chest(number, *, age_years):
    device = DEVICES[0]
    signals = Signals(alm=0.4 * number, hgs=0.0, crt=0.0, haze=0.3, breast=0.0, aorta=0.0)
    picture = render(signals, shape_HW=(256, round(256 * device.aspect)), rng=np.random.default_rng(number))
    header = Header(
        patient_id=f"{CANARY}-{number}",
        study_id=f"{CANARY}-STUDY-{number}",
        image_key=f"{CANARY}-{number}",
        sex="F",
        age_years=age_years,
        acquired_on="2013-04-01",
        view="PA",
        body_part="CHEST",
        site=f"{CANARY} General",
    )
    return to_dicom(picture.gray_HW, device=device, header=header)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three radiographs and one that is none, all named after their patients; a manifest and a list of them."""
    folder = tmp_path_factory.mktemp(CANARY)
    for number, age in enumerate([61.0, 72.0, None]):
        (folder / f"{CANARY}-{number}.dcm").write_bytes(make_chest(number, age_years=age))
    (folder / f"{CANARY}-3.dcm").write_bytes(b"no radiograph")
    manifest = pd.DataFrame(
        {
            "image_uri": [f"{CANARY}-{k}.dcm" for k in range(4)],
            "patient_id": [f"{CANARY}-P{k}" for k in range(4)],
            "study_id": [f"{CANARY}-S{k}" for k in range(4)],
            "site": [f"{CANARY}-site"] * 4,
            "age_years": [61.0, 72.0, np.nan, 50.0],
            "sex": ["F", "F", "F", "M"],
            "bmi_kg_m2": [22.0, 27.5, 24.0, 23.0],
        }
    )
    manifest.to_csv(folder / "manifest.csv", index=False)
    (folder / "list.txt").write_text(f"{CANARY}-2.dcm\n\n{CANARY}-3.dcm\n{CANARY}-9.dcm\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def explained(folder):
    return explaining.explain(BUNDLE, [str(folder / "manifest.csv")], str(folder / "out"), limits=LIMITS, threads=1)


def test_a_row_for_each_image_and_a_picture_for_each_target_of_those_that_can_be_read(folder, explained):
    table = pd.read_csv(folder / "out" / "explanations.csv", keep_default_na=False)
    assert table["number"].tolist() == [1, 2, 3, 4]
    assert table["row_id"].tolist() == [row_id(str(folder / f"{CANARY}-{k}.dcm")) for k in range(4)]
    assert table["outcome"].tolist() == ["scored", "scored", "abstained", "rejected"]
    assert table["reason"].tolist() == ["", "", "missing_age", "not_dicom"]
    assert [value != "" for value in table["score"]] == [True, True, False, False]
    assert [value != "" for value in table["alm_kg_mu"]] == [True, True, True, False]
    assert [value != "" for value in table["crt_s_disagreement"]] == [True, True, True, False]
    expected = {explaining.picture_name(row, target) for row in table["row_id"][:3] for target in TARGETS}
    assert {path.name for path in (folder / "out").iterdir()} == expected | {"explanations.csv"}
    assert explained.n_pictures == 6
    for name in expected:
        with Image.open(folder / "out" / name) as picture:
            assert picture.width > 1000
            assert np.asarray(picture.convert("L")).std() > 10


def test_predictions_are_the_bundles_own(folder, explained):
    bundle = load_bundle(BUNDLE)
    data = [(folder / f"{CANARY}-{k}.dcm").read_bytes() for k in range(3)]
    images_NSS = np.stack([result.image_HW for result in read_images(data, bundle.spec.preprocess, LIMITS)])
    clinical = pd.DataFrame({"age_years": [61.0, 72.0], "sex": ["F", "F"], "bmi_kg_m2": [22.0, 27.5]})
    scored = bundle.score(images_NSS[:2], clinical, device="cpu")
    for name in ("alm_kg_mu", "crt_s_sigma", "score"):
        np.testing.assert_array_equal(explained.table[name][:2].astype(float), scored[name])
    np.testing.assert_array_equal(explained.table["crt_s_mu"][:3], bundle.predict(images_NSS, device="cpu")["crt_s_mu"])
    spread = grad_cam(bundle.members[1], images_NSS, device="cpu").disagreement_NHW.mean(axis=(1, 2))
    np.testing.assert_allclose(explained.table["crt_s_disagreement"][:3].astype(float), spread, rtol=1e-6)


def test_nothing_that_is_written_names_a_patient(folder, explained, tmp_path):
    for path in (folder / "out").iterdir():
        assert CANARY not in path.name
        assert CANARY.encode() not in path.read_bytes(), path
    printed = CliRunner().invoke(app, ["explain", "--bundle", BUNDLE, str(folder / "list.txt"), "--to", str(tmp_path)])
    assert printed.exit_code == 0, printed.output
    assert CANARY not in printed.output
    # The search would find it where it is.
    assert CANARY.encode() in (folder / f"{CANARY}-0.dcm").read_bytes()


def test_overlays_become_secondary_captures_in_the_radiographs_own_studies(folder, explained, tmp_path):
    arguments = ["explain", "--bundle", BUNDLE, str(folder / "manifest.csv"), "--to", str(tmp_path)]
    result = CliRunner().invoke(app, [*arguments, "--format", "dicom"])
    assert result.exit_code == 0, result.output
    assert "6 pictures and explanations.csv" in result.output
    assert CANARY not in result.output
    rows = explained.table["row_id"][:3]
    expected = {explaining.picture_name(row, target, "dicom") for row in rows for target in TARGETS}
    assert {path.name for path in tmp_path.iterdir()} == expected | {"explanations.csv"}
    assert CANARY not in (tmp_path / "explanations.csv").read_text()
    for number, row in enumerate(rows):
        source = pydicom.dcmread(folder / f"{CANARY}-{number}.dcm")
        found = [pydicom.dcmread(tmp_path / f"{row}-{target}.dcm") for target in TARGETS]
        assert {capture.StudyInstanceUID for capture in found} == {source.StudyInstanceUID}
        assert {str(capture.PatientName) for capture in found} == {str(source.PatientName)}
        assert len({capture.SeriesInstanceUID for capture in found}) == 1
        assert [int(capture.InstanceNumber) for capture in found] == [1, 2]
        for capture in found:
            assert capture.SourceImageSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID
            assert capture.DeviceSerialNumber == load_bundle(BUNDLE).model_id
            picture = capture.pixel_array
            assert picture.shape[1] > 1000
            assert picture.std() > 10
            # A heat map is in colour.
            assert np.ptp(picture.astype(int), axis=2).max() > 50


def test_both_formats_show_the_same_but_for_the_warning(folder, explained, tmp_path):
    image = str(folder / f"{CANARY}-0.dcm")
    both = explaining.explain(BUNDLE, [image], str(tmp_path), limits=LIMITS, threads=1, formats=("png", "dicom"))
    assert both.n_pictures == 4
    name = f"{explained.table['row_id'][0]}-{TARGETS[0]}"
    capture = pydicom.dcmread(tmp_path / f"{name}.dcm").pixel_array
    with Image.open(tmp_path / f"{name}.png") as picture:
        png = np.asarray(picture.convert("RGB"))
    assert png.shape == capture.shape
    assert not np.array_equal(png, capture)


def test_a_radiograph_that_no_archive_could_file_is_told(folder, tmp_path):
    dataset = pydicom.dcmread(folder / f"{CANARY}-1.dcm")
    del dataset.StudyInstanceUID
    dataset.save_as(tmp_path / "chest.dcm")
    arguments = ["explain", "--bundle", BUNDLE, str(tmp_path / "chest.dcm"), "--to", str(tmp_path / "out")]
    result = CliRunner().invoke(app, [*arguments, "--format", "dicom"])
    assert result.exit_code == exits.REFUSED, result.output
    assert "1 without DICOM: the header has no valid StudyInstanceUID" in result.output
    assert CANARY not in result.output


def test_without_highdicom_the_extra_is_named(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'sarc-ray\[dicom\]'"):
        explaining.explain(BUNDLE, [], str(tmp_path), limits=LIMITS, threads=1, formats=("dicom",))


def test_lists_images_and_manifests_may_be_mixed_and_each_image_counts_once(folder):
    names = ("age_years", "sex", "bmi_kg_m2")
    arguments = [str(folder / f"{CANARY}-1.dcm"), str(folder / "list.txt"), str(folder / "manifest.csv")]
    rows = explaining.collect_images(arguments, names)
    assert [Path(uri).stem[-1] for uri in rows["image_uri"]] == ["1", "2", "3", "9", "0"]
    # The manifest's values, although the image was named before it.
    assert rows["bmi_kg_m2"].tolist()[:3] == [27.5, 24.0, 23.0]
    assert rows["row_id"].is_unique
    assert rows["row_id"].iloc[0] == row_id(str(folder / f"{CANARY}-1.dcm"))
    assert set(rows.columns) == {"row_id", "image_uri", *names}


def test_an_image_alone_is_scored_by_what_its_header_says_or_says_why_not(folder, tmp_path):
    explained = explaining.explain(BUNDLE, [str(folder / f"{CANARY}-0.dcm")], str(tmp_path), limits=LIMITS, threads=1)
    (row,) = explained.table.to_dict("records")
    # The simulated header has age and sex, no height and weight.
    assert (row["outcome"], row["reason"]) == ("abstained", "missing_bmi")
    assert np.isfinite(row["alm_kg_mu"])
    assert explained.n_pictures == 2


def test_more_images_than_are_held_at_once_give_the_same(folder, explained, tmp_path, monkeypatch):
    monkeypatch.setattr(explaining, "_IMAGES_AT_ONCE", 1)
    told = []
    again = explaining.explain(
        BUNDLE,
        [str(folder / "manifest.csv")],
        str(tmp_path),
        limits=LIMITS,
        threads=1,
        tell=lambda *facts: told.append(facts),
    )
    # Maps are not padded to a fixed batch, so their last digit may differ.
    tables = [pd.read_csv(place / "explanations.csv") for place in (tmp_path, folder / "out")]
    pd.testing.assert_frame_equal(*tables, rtol=1e-6)
    assert again.n_pictures == explained.n_pictures
    assert told[-1] == ("radiographs", 4, 4)


def test_wrong_requests_say_what_to_do(folder, tmp_path):
    with pytest.raises(ConfigError, match="IMAGE: none given"):
        explaining.collect_images([], ())
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(ManifestError, match="the list is empty"):
        explaining.collect_images([str(tmp_path / "empty.txt")], ())
    (tmp_path / "other.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ManifestError, match="not UTF-8"):
        explaining.collect_images([str(tmp_path / "other.txt")], ())
    with pytest.raises(StorageError):
        explaining.collect_images([str(tmp_path / "absent.txt")], ())


def test_ends_with_a_code_of_its_own_where_no_image_can_be_read(folder, tmp_path):
    arguments = ["explain", "--bundle", BUNDLE, "--to", str(tmp_path / "out"), str(folder / f"{CANARY}-3.dcm")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == exits.REFUSED, result.output
    assert re.search(r"1 rejected: the object is not a DICOM", result.output)
    table = pd.read_csv(tmp_path / "out" / "explanations.csv")
    assert table["reason"].tolist() == ["not_dicom"]


def test_the_command_starts_no_ray(folder, tmp_path):
    code = (
        "import sys\n"
        "class Forbid:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] == 'ray': raise ImportError('ray is forbidden here')\n"
        "sys.meta_path.insert(0, Forbid())\n"
        "if __name__ == '__main__':\n"
        "    from sarc_ray.cli import main\n"
        "    main()\n"
    )
    script = tmp_path / "explain.py"
    script.write_text(code)
    arguments = ["explain", "--bundle", BUNDLE, str(folder / f"{CANARY}-0.dcm"), "--to", str(tmp_path / "out")]
    result = subprocess.run([sys.executable, str(script), *arguments], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert len(list((tmp_path / "out").glob("*.png"))) == 2
    missing = subprocess.run([COMMAND, *arguments[:1], *arguments[3:]], capture_output=True, text=True)
    assert missing.returncode == exits.USAGE
    assert "--bundle" in missing.stderr
    away = subprocess.run(
        [COMMAND, "explain", "--bundle", str(tmp_path), *arguments[3:]], capture_output=True, text=True
    )
    assert away.returncode == 6


def test_a_distilled_bundle_has_maps_of_one_network_and_no_disagreement(folder, tmp_path):
    parent, parts = load_bundle(BUNDLE), make_distilled(8)
    write_bundle(
        str(tmp_path / "bundle"),
        members=parts,
        ood=make_ood(parts, 8),
        stage2=parent.stage2,
        spec=dataclasses.replace(parent.spec, stage1="distilled"),
        metrics={},
        lineage={"stage": "distill"},
    )
    found = explaining.explain(
        str(tmp_path / "bundle"),
        [str(folder / f"{CANARY}-0.dcm")],
        str(tmp_path / "out"),
        limits=LIMITS,
        threads=1,
        formats=(explaining.PNG, explaining.DICOM),
    )
    assert found.n_pictures == 4
    assert found.table["alm_kg_mu"].notna().all()
    assert found.table["alm_kg_disagreement"].isna().all()
    capture = pydicom.dcmread(tmp_path / "out" / explaining.picture_name(found.table["row_id"][0], "crt_s", "dicom"))
    assert "(gradient-weighted activations, of one network)" in capture.DerivationDescription
    drawn = Path(tmp_path, "out", explaining.picture_name(found.table["row_id"][0], "crt_s"))
    with Image.open(drawn) as picture:
        assert 500 < picture.width < 1000  # two panels of three

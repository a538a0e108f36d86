"""``sarc-ray inspect``: what it shows is what the pipeline makes of the file, and no identifier is in it."""

import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from sarc_ray import storage
from sarc_ray.cli import app
from sarc_ray.errors import REASONS, BundleError, ConfigError, Reason, StorageError
from sarc_ray.imaging.isolation import read_images
from sarc_ray.inspection import look as look_module
from sarc_ray.inspection.look import ORIGINAL_HEIGHT_PX, look_at, show_original
from sarc_ray.inspection.picture import side_by_side, to_png
from sarc_ray.inspection.request import settings_for
from sarc_ray.simulate.anatomy import Signals
from sarc_ray.simulate.detector import DEVICES, Header, to_dicom
from sarc_ray.simulate.phantom import render
from tests.dicom_factory import make_dicom

GOLDEN = Path(__file__).parents[1] / "golden" / "bundle" / "model"
COMMAND = str(Path(sys.executable).parent / "sarc-ray")
SETTINGS = settings_for(None, None)
CANARIES = ("CANARY", "Canary", "19370219", "42424242", "1937")


@pytest.fixture(scope="module")
def chest():
    """A simulated radiograph that names its patient wherever a header can."""
    device = DEVICES[0]
    signals = Signals(alm=0.0, hgs=0.0, crt=0.0, haze=0.3, breast=0.0, aorta=0.0)
    picture = render(signals, shape_HW=(300, 276), rng=np.random.default_rng(3))
    header = Header(
        patient_id="CANARY-0042",
        study_id="CANARY-STUDY",
        image_key="42424242",
        sex="F",
        age_years=71.0,
        acquired_on="2013-04-01",
        view="PA",
        body_part="CHEST",
        site="Canary General",
    )
    return to_dicom(picture.gray_HW, device=device, header=header)


def run(*arguments):
    return CliRunner().invoke(app, ["inspect", *map(str, arguments)], env={"COLUMNS": "120"})


def test_what_it_shows_is_what_the_pipeline_sees(chest, tmp_path):
    look = look_at(chest, SETTINGS.preprocess, SETTINGS.limits, with_original=True)
    (result,) = read_images([chest], SETTINGS.preprocess, SETTINGS.limits)
    assert look.reason == result.reason == Reason.NONE
    assert look.header == result.header
    assert np.array_equal(look.image_HW, result.image_HW)
    assert np.array_equal(look.original_HW, show_original(chest, SETTINGS.preprocess))
    assert look.original_HW.shape == (ORIGINAL_HEIGHT_PX, round(ORIGINAL_HEIGHT_PX * 276 / 300))
    # The same field, before and after: shrunk alike, they differ by their contrast alone.
    small = cv2.resize(look.original_HW, look.image_HW.shape, interpolation=cv2.INTER_AREA)
    assert np.corrcoef(small.ravel(), look.image_HW.ravel())[0, 1] > 0.9
    png = side_by_side(look)
    assert np.array_equal(cv2.imdecode(np.frombuffer(to_png(png), np.uint8), cv2.IMREAD_GRAYSCALE), png)
    height, width = ORIGINAL_HEIGHT_PX, look.original_HW.shape[1]
    assert np.array_equal(png[-height:, :width], look.original_HW)
    assert len(np.unique(png[-height:, -height:])) == len(np.unique(look.image_HW))


def test_the_command_shows_facts_and_writes_the_picture(chest, tmp_path):
    (tmp_path / "a.dcm").write_bytes(chest)
    done = run(tmp_path / "a.dcm", "--png", tmp_path / "out" / "seen.png")
    assert done.exit_code == 0, done.output
    for text in ("goes on to scoring", "71 years", "PA", "MONOCHROME1", "276 x 300 pixels of 10 bits", "JPEG Lossless"):
        assert text in done.output
    assert re.search(r"The manifest must give: .*bmi_kg_m2", done.output)
    assert cv2.imread(str(tmp_path / "out" / "seen.png")).shape[0] > ORIGINAL_HEIGHT_PX


def test_no_identifier_is_shown_or_written(chest, tmp_path):
    (tmp_path / "a.dcm").write_bytes(chest)
    shown = run(tmp_path / "a.dcm", "--png", tmp_path / "seen.png").output
    png = (tmp_path / "seen.png").read_bytes()
    for canary in CANARIES:
        assert canary.lower() not in shown.lower()
        assert canary.encode() not in png
    chunks = re.findall(rb"tEXt|iTXt|zTXt|eXIf|tIME", png)
    assert chunks == []
    assert "2013-04-01" not in shown
    assert "20130401" not in shown


def test_the_picture_depends_on_pixels_alone(chest, tmp_path):
    """Captions hold nothing of the header's texts: another patient's file of the same pixels gives the same PNG."""
    other = chest.replace(b"CANARY-0042", b"CANARY-9999").replace(b"Canary General", b"Elsewhere Hosp")
    assert other != chest
    pngs = []
    for name, data in (("a", chest), ("b", other)):
        (tmp_path / name).write_bytes(data)
        run(tmp_path / name, "--png", tmp_path / f"{name}.png")
        pngs.append((tmp_path / f"{name}.png").read_bytes())
    assert pngs[0] == pngs[1]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (make_dicom(ViewPosition="LL"), Reason.LATERAL_VIEW),
        (make_dicom(BodyPartExamined="HAND"), Reason.NOT_CHEST),
        (make_dicom(omit=("PixelData",)), Reason.NO_PIXELS),
        (b"a text" * 50, Reason.NOT_DICOM),
        (b"", Reason.NOT_DICOM),
        (make_dicom(np.full((64, 64), 700, dtype=np.uint16)), Reason.BLANK_IMAGE),
    ],
)
def test_a_refusal_has_its_reason_its_meaning_and_its_exit_code(tmp_path, data, reason):
    (tmp_path / "bad.dcm").write_bytes(data)
    done = run(tmp_path / "bad.dcm", "--png", tmp_path / "seen.png")
    assert done.exit_code == 4
    assert f"{REASONS[reason].outcome}: {reason}" in done.output
    assert REASONS[reason].meaning in done.output
    assert cv2.imread(str(tmp_path / "seen.png")) is not None


def test_the_original_is_shown_even_of_what_the_gate_refuses(tmp_path):
    look = look_at(make_dicom(ViewPosition="LL"), SETTINGS.preprocess, SETTINGS.limits, with_original=True)
    assert look.image_HW is None
    assert look.original_HW.std() > 20


def test_a_decoder_that_dies_or_hangs_on_the_original_costs_only_the_original(monkeypatch):
    monkeypatch.setattr(look_module, "_START_LIMIT_S", 20.0)
    monkeypatch.setattr(look_module, "_send_original", die)
    assert look_module._original_apart(b"", SETTINGS.preprocess, 1.0) is None
    monkeypatch.setattr(look_module, "_START_LIMIT_S", 1.0)
    monkeypatch.setattr(look_module, "_send_original", hang)
    assert look_module._original_apart(b"", SETTINGS.preprocess, 0.1) is None


def die(pipe, data, preprocess):
    import os

    os._exit(139)


def hang(pipe, data, preprocess):
    import time

    time.sleep(600)


def test_what_goes_wrong_with_the_original_is_not_printed(capfd):
    result = look_module._original_apart(b"CANARY" * 100, SETTINGS.preprocess, 1.0)
    assert result is None
    complaining = look_module.multiprocessing.get_context("spawn").Process(target=complain)
    complaining.start()
    complaining.join()
    assert capfd.readouterr().err == ""


def complain():
    """Memory runs out, after a codec has spoken."""
    import os

    class Pipe:
        def send_bytes(self, pixels):
            os.write(2, b"CANARY")

    def run_out(data, preprocess):
        os.write(2, b"CANARY")
        raise MemoryError

    look_module.show_original = run_out
    look_module._send_original(Pipe(), b"", SETTINGS.preprocess)


def test_a_bundle_brings_its_own_preprocessing(chest, s3_url):
    """And FILE may be any URL."""
    storage.write_bytes(f"{s3_url}/a.dcm", chest)
    done = run(f"{s3_url}/a.dcm", "--bundle", GOLDEN, "--png", f"{s3_url}/seen.png")
    assert done.exit_code == 0, done.output
    assert storage.read_bytes(f"{s3_url}/seen.png").startswith(b"\x89PNG")
    assert settings_for(str(GOLDEN), None).preprocess.size_px == 32
    assert settings_for(None, "demo").preprocess.size_px == 96
    assert SETTINGS.preprocess.size_px == 224


def test_wrong_uses_name_the_remedy(tmp_path):
    with pytest.raises(ConfigError, match="give one of them"):
        settings_for(str(GOLDEN), "paper")
    with pytest.raises(ConfigError, match=r"papier.*did you mean 'paper'"):
        settings_for(None, "papier")
    with pytest.raises(BundleError, match="no bundle here"):
        settings_for(str(tmp_path), None)
    missing = run(tmp_path / "missing.dcm")
    assert isinstance(missing.exception, StorageError)
    assert "no such object; check the path" in str(missing.exception)


def test_it_starts_neither_ray_nor_torch(chest, tmp_path):
    (tmp_path / "a.dcm").write_bytes(chest)
    code = (
        "import sys\n"
        "from sarc_ray.cli import app\n"
        f"app(['inspect', {str(tmp_path / 'a.dcm')!r}], standalone_mode=False)\n"
        "assert not {'ray', 'torch', 'sklearn'} & set(sys.modules), sorted(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "goes on to scoring" in done.stdout

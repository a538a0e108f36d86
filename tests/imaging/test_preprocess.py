import dataclasses
import hashlib
import logging
from pathlib import Path

import cv2
import numpy as np
import pytest

from sarc_ray.errors import Reason, StorageError
from sarc_ray.imaging import preprocess as module
from sarc_ray.imaging.dicom import read_radiograph
from sarc_ray.imaging.preprocess import PreprocessConfig, preprocess, process_image, resize, window
from sarc_ray.imaging.voi import VoiWindow
from tests.dicom_factory import SECRET_ID, SECRET_NAME, lut_item, make_dicom, picture
from tests.dicom_references import REFERENCES, PixelReference

NIH = Path(__file__).parents[2] / ".." / "shared" / "data" / "nih-cxr" / "images"
PAPER = PreprocessConfig(size_px=224, clahe_clip_limit=2.0, clahe_tiles=8, pixel_gate=True)
PLAIN = PreprocessConfig(size_px=64, clahe_clip_limit=0.0, clahe_tiles=8, pixel_gate=False)


def grey(config: PreprocessConfig = PLAIN, **options: object) -> np.ndarray:
    return preprocess(read_radiograph(make_dicom(**options)), config).astype(np.float64)  # type: ignore[arg-type]


@pytest.mark.parametrize("reference", REFERENCES, ids=lambda reference: reference.name)
def test_every_kind_of_file_ends_in_a_picture_or_its_reason(reference: PixelReference) -> None:
    data = reference.make()
    # What the pixels show is another question: see test_pixel_gate.py.
    result = process_image(data, dataclasses.replace(PAPER, pixel_gate=False))
    assert result.reason is reference.reason
    assert result.image_sha256 == hashlib.sha256(data).hexdigest()
    if reference.reason is Reason.NONE:
        assert result.image_HW is not None
        assert result.image_HW.shape == (224, 224)
        assert result.image_HW.dtype == np.uint8
        assert result.image_HW.std() > 20
        assert result.header is not None
    else:
        assert result.image_HW is None


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (FileNotFoundError("x"), Reason.OBJECT_MISSING),
        (PermissionError("x"), Reason.STORAGE_FAILED),
        (TimeoutError("x"), Reason.STORAGE_FAILED),
        (StorageError("x"), Reason.STORAGE_FAILED),
        (RuntimeError("x"), Reason.STORAGE_FAILED),
    ],
)
def test_fetch_errors_become_reasons(error: Exception, reason: Reason) -> None:
    result = process_image(error, PAPER)
    assert (result.reason, result.image_HW, result.image_sha256, result.header) == (reason, None, None, None)


def test_a_wrapped_missing_object_is_missing() -> None:
    error = StorageError("x")
    error.__cause__ = FileNotFoundError("x")
    assert process_image(error, PAPER).reason is Reason.OBJECT_MISSING


def test_the_unforeseen_is_an_internal_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(module, "preprocess", fail)
    result = process_image(make_dicom(), PAPER)
    assert result.reason is Reason.INTERNAL_ERROR
    assert result.header is not None


def test_refused_images_keep_their_header() -> None:
    result = process_image(make_dicom(ViewPosition="LL"), PAPER)
    assert result.header is not None
    assert result.header.age_years == 62.0


def test_nothing_is_logged_about_a_patient(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    with caplog.at_level(logging.DEBUG):
        for reference in REFERENCES:
            process_image(reference.make(), PLAIN)
    captured = capfd.readouterr()
    for text in (caplog.text, captured.out, captured.err):
        assert SECRET_NAME not in text
        assert SECRET_ID not in text
    assert captured.err == ""


def test_air_is_dark_in_both_senses() -> None:
    upright = grey()
    flipped = grey(pixels=4095 - picture(), PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_allclose(flipped, upright, atol=1)
    assert upright[0, 0] < 30 < 200 < upright[32, 32]  # corner: air; middle: mediastinum


def test_pixels_of_any_encoding_give_the_same_picture() -> None:
    plain = grey()
    shifted = (picture().astype(np.int32) - 2048).astype(np.int16)
    np.testing.assert_allclose(grey(pixels=shifted), plain, atol=1)
    np.testing.assert_allclose(grey(RescaleSlope="0.25", RescaleIntercept="-7"), plain, atol=1)
    np.testing.assert_allclose(grey(RescaleSlope="-1", RescaleIntercept="4095"), 255 - plain, atol=1)
    np.testing.assert_allclose(grey(pixels=picture(bits=8)), plain, atol=2)


def test_header_windows_apply_to_rescaled_values() -> None:
    plain = grey(WindowCenter=2048, WindowWidth=4096)
    rescaled = grey(RescaleSlope="2", RescaleIntercept="-1000", WindowCenter=3096, WindowWidth=8192)
    np.testing.assert_allclose(rescaled, plain, atol=1)
    expected = resize(picture(), 64) / 4095 * 255
    np.testing.assert_allclose(plain, expected, atol=1)


def test_windows_and_area_averaging_commute() -> None:
    voi = VoiWindow(center=2047.5, width=4095.0, sigmoid=False)
    small_first = voi.apply(resize(picture(), 32))
    windowed_first = cv2.resize(voi.apply(picture().astype(np.float32)), (32, 32), interpolation=cv2.INTER_AREA)
    np.testing.assert_allclose(small_first, windowed_first, atol=1e-5)


def test_voi_lut_changes_the_picture_as_it_says() -> None:
    negative = grey(VOILUTSequence=lut_item(np.arange(4096)[::-1], 0, 12))
    np.testing.assert_allclose(negative, 255 - grey(WindowCenter=2048, WindowWidth=4096), atol=1)


@pytest.mark.parametrize(
    ("center", "width"),
    [(-5000, 100), (60000, 100), (2048, 2), (2048, 10_000_000), (2048, 0)],
    ids=["all_white", "all_black", "threshold", "no_contrast", "zero"],
)
def test_absurd_windows_fall_back_to_percentiles(center: float, width: float) -> None:
    np.testing.assert_array_equal(grey(WindowCenter=center, WindowWidth=width), grey())


def test_percentile_window_ignores_a_bright_marker() -> None:
    marked = picture().copy()
    marked[2:6, 2:6] = 60_000 % 2**16
    values_HW = marked.astype(np.float32)
    inside = window(values_HW, None)[40:80, 20:80]
    np.testing.assert_allclose(inside, window(picture().astype(np.float32), None)[40:80, 20:80], atol=0.02)


def test_nearly_blank_pictures_are_blank() -> None:
    rng = np.random.default_rng(0)
    flat = rng.integers(700, 702, size=(64, 64)).astype(np.uint16)
    assert process_image(make_dicom(flat), PLAIN).reason is Reason.BLANK_IMAGE
    flat[:3, :3] = 4000  # a marker alone is no picture
    assert process_image(make_dicom(flat), PLAIN).reason is Reason.BLANK_IMAGE


def test_clahe_raises_local_contrast_and_zero_leaves_it_out() -> None:
    plain = grey(PLAIN)
    equalised = grey(dataclasses.replace(PLAIN, clahe_clip_limit=2.0))
    expected = cv2.createCLAHE(2.0, (8, 8)).apply(plain.astype(np.uint8))
    np.testing.assert_array_equal(equalised, expected)
    assert not np.array_equal(equalised, plain)


def test_small_pictures_are_enlarged_and_threads_do_not_matter() -> None:
    tiny = make_dicom(picture(40, 30))
    threads = cv2.getNumThreads()
    first = process_image(tiny, PAPER).image_HW
    module.use_one_thread()
    try:
        assert cv2.getNumThreads() == 1
        second = process_image(tiny, PAPER).image_HW
    finally:
        cv2.setNumThreads(threads)
    assert first is not None
    assert first.shape == (224, 224)
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    "change",
    [{"size_px": 8}, {"size_px": 4096}, {"clahe_clip_limit": -1.0}, {"clahe_tiles": 0}, {"clahe_tiles": 60}],
)
def test_config_refuses(change: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(change))}: found"):
        dataclasses.replace(PAPER, **change)


def test_real_radiographs_come_out_upright_in_grey() -> None:
    files = sorted(NIH.glob("*.dcm"))[::16] if NIH.exists() else []
    if not files:
        pytest.skip("the shared NIH radiographs are not here")
    corner, middle = [], []
    for file in files:
        result = process_image(file.read_bytes(), PAPER)
        assert result.reason is Reason.NONE, file.name
        assert result.image_HW is not None
        lung = result.image_HW[60:120, 50:80].mean()
        corner.append(lung)
        middle.append(result.image_HW[100:180, 105:120].mean())
    # Lungs hold air and are darker than the spine and heart, in MONOCHROME1 and 2 alike.
    assert np.mean(np.array(middle) > np.array(corner)) > 0.9


@pytest.mark.parametrize("size", [1, 2, 199, 201, 50_176])
def test_sorted_percentiles_are_numpys(size: int) -> None:
    values = np.random.default_rng(size).normal(2000.0, 300.0, size).astype(np.float32)
    assert module._percentiles(values) == np.percentile(values, module.PERCENTILES).tolist()

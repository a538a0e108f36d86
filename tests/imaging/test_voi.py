import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_voi, apply_windowing

from sarc_ray.imaging.dicom import read_radiograph
from sarc_ray.imaging.voi import VoiCurve, VoiWindow, read_voi
from tests.dicom_factory import lut_item, make_dicom, picture


@pytest.mark.parametrize("function", [None, "LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("center", "width"), [(2048, 4096), (1500.5, 900), (100, 2)])
def test_windows_equal_pydicoms(function: str | None, center: float, width: float) -> None:
    dataset = Dataset()
    dataset.PhotometricInterpretation, dataset.BitsStored, dataset.PixelRepresentation = "MONOCHROME2", 12, 0
    dataset.WindowCenter, dataset.WindowWidth = center, width
    if function:
        dataset.VOILUTFunction = function
    values_HW = picture()
    voi = read_voi(dataset)
    assert isinstance(voi, VoiWindow)
    theirs_HW = apply_windowing(values_HW, dataset) / 4095.0
    np.testing.assert_allclose(voi.apply(values_HW.astype(np.float32)), theirs_HW, atol=2e-4 if width == 2 else 1e-6)


def test_voi_lut_equals_pydicoms() -> None:
    entries = (np.arange(1024) ** 2 // 300).astype(np.uint16)
    radiograph = read_radiograph(make_dicom(VOILUTSequence=lut_item(entries, 500, 12), WindowCenter=5, WindowWidth=9))
    assert isinstance(radiograph.voi, VoiCurve)  # a LUT wins over a window
    dataset = Dataset()
    dataset.VOILUTSequence = lut_item(entries, 500, 12)
    dataset["VOILUTSequence"].value[0]["LUTData"].VR = "US"
    dataset.VOILUTSequence[0].LUTData = entries.tolist()
    theirs_HW = apply_voi(picture(), dataset) / entries.max()
    np.testing.assert_allclose(radiograph.voi.apply(picture().astype(np.float32)), theirs_HW, atol=1e-6)


def test_lut_of_8_bit_entries_takes_inputs_above_255() -> None:
    radiograph = read_radiograph(make_dicom(VOILUTSequence=lut_item(np.arange(4096) // 16, 0, 8)))
    assert radiograph.voi is not None
    expected_HW = (picture() // 16) / 255.0
    np.testing.assert_allclose(radiograph.voi.apply(picture().astype(np.float32)), expected_HW, atol=1e-6)


def test_lut_that_starts_below_zero() -> None:
    signed = picture().astype(np.int16) - 2048
    radiograph = read_radiograph(make_dicom(signed, VOILUTSequence=lut_item(np.arange(4096), -2048, 12)))
    assert radiograph.voi is not None
    np.testing.assert_allclose(radiograph.voi.apply(signed.astype(np.float32)), picture() / 4095.0, atol=1e-6)


def test_big_endian_lut_words_are_swapped() -> None:
    from pydicom.uid import ExplicitVRBigEndian

    sequence = lut_item(np.arange(4096), 0, 12)
    sequence[0].LUTData = np.arange(4096).astype(">u2").tobytes()
    radiograph = read_radiograph(make_dicom(syntax=ExplicitVRBigEndian, VOILUTSequence=sequence))
    assert isinstance(radiograph.voi, VoiCurve)
    np.testing.assert_array_equal(radiograph.voi.entries, np.arange(4096))


@pytest.mark.parametrize(
    "tags",
    [
        {},
        {"WindowCenter": 100},
        {"WindowCenter": 100, "WindowWidth": 0},
        {"WindowCenter": 100, "WindowWidth": 1},
        {"WindowCenter": 100, "WindowWidth": -5},
        {"WindowCenter": 100, "WindowWidth": 0, "VOILUTFunction": "LINEAR_EXACT"},
    ],
)
def test_unusable_windows_count_as_absent(tags: dict[str, object]) -> None:
    assert read_radiograph(make_dicom(**tags)).voi is None  # type: ignore[arg-type]


def test_the_first_of_several_windows_is_used() -> None:
    voi = read_radiograph(make_dicom(WindowCenter=[100, 200], WindowWidth=[50, 60])).voi
    assert voi == VoiWindow(center=99.5, width=49.0, sigmoid=False)


def test_exact_windows_may_be_narrow_because_values_may_be_rescaled_to_fractions() -> None:
    tags = {"RescaleSlope": "0.000244140625", "RescaleIntercept": "0", "WindowCenter": 0.5, "WindowWidth": 0.9}
    voi = read_radiograph(make_dicom(VOILUTFunction="LINEAR_EXACT", **tags)).voi
    assert voi == VoiWindow(center=0.5, width=0.9, sigmoid=False)
    assert read_radiograph(make_dicom(**tags)).voi is None  # LINEAR has no width below 1


@pytest.mark.parametrize(
    "tags",
    [
        {"WindowCenter": "1e39", "WindowWidth": "1e39"},
        {"WindowCenter": "2048", "WindowWidth": "1e-300", "VOILUTFunction": "SIGMOID"},
    ],
)
def test_windows_beyond_single_precision_count_as_absent(tags: dict[str, str]) -> None:
    assert read_radiograph(make_dicom(**tags)).voi is None


def test_an_unknown_function_is_linear() -> None:
    voi = read_radiograph(make_dicom(WindowCenter=100, WindowWidth=50, VOILUTFunction="CURVED")).voi
    assert voi == VoiWindow(center=99.5, width=49.0, sigmoid=False)


def test_a_voi_lut_may_start_below_zero_on_unsigned_pixels_with_an_intercept() -> None:
    sequence = lut_item(np.arange(4096), 2**16 - 1024, 12)  # -1024, in a descriptor that was written as US
    rescale = {"RescaleSlope": "1", "RescaleIntercept": "-1024"}
    voi = read_radiograph(make_dicom(VOILUTSequence=sequence, **rescale)).voi
    assert isinstance(voi, VoiCurve)
    assert voi.first == -1024
    plain = read_radiograph(make_dicom(VOILUTSequence=sequence)).voi
    assert isinstance(plain, VoiCurve)
    assert plain.first == 2**16 - 1024

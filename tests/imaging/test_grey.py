import cv2
import numpy as np
import pytest
from pydicom import uid as uids

from sarc_ray.errors import ImageError, Reason
from sarc_ray.imaging.dicom import Radiograph, read_radiograph
from sarc_ray.imaging.preprocess import PreprocessConfig, attenuation, grey_picture, preprocess, process_image
from tests import dicom_factory
from tests.dicom_factory import make_dicom, picture

PLAIN = PreprocessConfig(size_px=60, clahe_clip_limit=0.0, clahe_tiles=4, pixel_gate=False)


def small(radiograph: Radiograph) -> np.ndarray:
    return grey_picture(radiograph, PLAIN)


@pytest.mark.parametrize("value", [0, 2000, 4095])
@pytest.mark.parametrize("tags", [{}, {"PhotometricInterpretation": "MONOCHROME1"}], ids=["mono2", "mono1"])
def test_padding_is_background_and_leaves_the_window_alone(value: int, tags: dict[str, str]) -> None:
    """The unpadded two thirds look as they would without padding, whatever value stands for it."""
    radiograph = read_radiograph(dicom_factory.padded(value, **tags))
    assert radiograph.padded_HW is not None
    assert radiograph.padded_HW[:, 100:].all()
    assert radiograph.padded_HW[:, :100].mean() < 0.05
    found_HW = small(radiograph)
    # 60 pixels from 150 columns: the first 40 are picture.
    assert (found_HW[:, 40:] == 0).all()
    alone_HW = small(read_radiograph(make_dicom(**tags)))
    narrow_HW = cv2.resize(alone_HW, (40, 60), interpolation=cv2.INTER_AREA)
    assert np.abs(found_HW[:, :40] - narrow_HW).mean() < 0.01


def test_padding_does_not_bleed_into_the_picture() -> None:
    pixels = np.full((120, 120), 1000, dtype=np.uint16)
    pixels[:, :50] = np.linspace(800, 1200, 120).astype(np.uint16)[:, None]
    pixels[:, 95:] = 65535
    radiograph = read_radiograph(make_dicom(pixels, bits_stored=16, PixelPaddingValue=65535))
    found_HW = grey_picture(
        radiograph, PreprocessConfig(size_px=25, clahe_clip_limit=0.0, clahe_tiles=4, pixel_gate=False)
    )
    # 4.8 columns each: pixel 19 is 79% picture of 1000, which lies in the middle of 800 to 1200.
    np.testing.assert_allclose(found_HW[:, 19], 0.5, atol=0.02)
    assert (found_HW[:, 20:] == 0).all()


@pytest.mark.parametrize(
    ("value", "limit", "share"),
    [(4000, 4095, 1 / 3), (4095, 4000, 1 / 3), (4095, None, 1 / 3), (10, None, None), (0, 4095, None)],
    ids=["range", "range_downwards", "value", "absent_from_the_pixels", "everything"],
)
def test_ranges_of_padding(value: int, limit: int | None, share: float | None) -> None:
    pixels = picture(columns=150) // 2 + 100
    pixels[:, 100:] = 4095
    tags = {"PixelPaddingValue": value} | ({} if limit is None else {"PixelPaddingRangeLimit": limit})
    padded_HW = read_radiograph(make_dicom(pixels, **tags)).padded_HW  # type: ignore[arg-type]
    assert (None if padded_HW is None else padded_HW.mean()) == (None if share is None else pytest.approx(share))


@pytest.mark.parametrize("implicit", [False, True])
def test_negative_padding_of_either_type(implicit: bool) -> None:
    """-2000 is written as 63536 where the header takes it for unsigned, and its type is ambiguous in implicit VR."""
    pixels = picture(columns=150).astype(np.int16) - 1000
    pixels[:, 100:] = -2000
    syntax = uids.ImplicitVRLittleEndian if implicit else uids.ExplicitVRLittleEndian
    data = make_dicom(pixels, syntax=syntax, bits_stored=16, PixelPaddingValue=-2000)
    padded_HW = read_radiograph(data).padded_HW
    assert padded_HW is not None
    assert padded_HW.mean() == pytest.approx(1 / 3)


def test_palettes_are_shown_as_they_are() -> None:
    radiograph = read_radiograph(dicom_factory.palette())
    assert not radiograph.inverted
    assert radiograph.voi is None
    plain_HW = small(read_radiograph(make_dicom(picture(bits=8))))
    np.testing.assert_allclose(small(radiograph), 1 - plain_HW, atol=0.01)


def test_pixels_may_only_use_the_grey_part_of_a_palette() -> None:
    """Ultrasound and captures colour a few entries for annotations; what no pixel uses does not count."""
    tags = {"PhotometricInterpretation": "PALETTE COLOR"}
    entries = np.arange(256, dtype=np.uint16) * 257
    tinted = entries.copy()
    tinted[250:] = 0
    for name, table in (("Red", entries), ("Green", tinted), ("Blue", entries)):
        tags[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 16]  # type: ignore[assignment]
        tags[f"{name}PaletteColorLookupTableData"] = table.tobytes()  # type: ignore[assignment]
    dim = np.minimum(picture(bits=8), 240)
    found_HW = read_radiograph(make_dicom(dim, **tags)).pixels_HW  # type: ignore[arg-type]
    np.testing.assert_array_equal(found_HW, dim.astype(np.uint16) * 257)
    bright = dim.copy()
    bright[0, 0] = 252
    with pytest.raises(ImageError, match="palette of colours"):
        read_radiograph(make_dicom(bright, **tags))  # type: ignore[arg-type]


def test_grey_by_any_name_gives_the_same_picture() -> None:
    plain_HW = preprocess(read_radiograph(make_dicom(picture(bits=8))), PLAIN)
    for make in (
        dicom_factory.grey_as_rgb,
        dicom_factory.grey_as_ybr,
        dicom_factory.grey_as_ybr_422,
        dicom_factory.grey_as_rgb_by_rle,
        dicom_factory.grey_as_rgb_by_jpeg2000,
    ):
        np.testing.assert_array_equal(preprocess(read_radiograph(make()), PLAIN), plain_HW)


def test_a_single_coloured_stroke_is_colour() -> None:
    rgb = dicom_factory.as_rgb(picture(bits=8))
    rgb[50, 20:60] = (255, 255, 0)
    tags = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
    result = process_image(make_dicom(rgb, **tags), PLAIN)  # type: ignore[arg-type]
    assert result.reason is Reason.UNSUPPORTED_PIXELS


RAW = {"PresentationIntentType": "FOR PROCESSING", "PixelIntensityRelationship": "LIN"}


def transmitted(sign: int) -> np.ndarray:
    """Intensity behind a body of the factory's thickness, or its complement."""
    intensity = 4000 * np.exp(-3.0 * picture() / 4095)
    return np.round(intensity if sign > 0 else 4095 - intensity).astype(np.uint16)


@pytest.mark.parametrize("sign", [1, -1])
def test_raw_intensities_are_shown_as_attenuation(sign: int) -> None:
    """Beer and Lambert: the logarithm of a raw picture is the thickness again."""
    photometric = "MONOCHROME1" if sign > 0 else "MONOCHROME2"
    data = make_dicom(
        transmitted(sign), PixelIntensityRelationshipSign=sign, PhotometricInterpretation=photometric, **RAW
    )
    found_HW = small(read_radiograph(data))
    np.testing.assert_allclose(found_HW, small(read_radiograph(make_dicom())), atol=0.03)


@pytest.mark.parametrize(
    "change",
    [
        {"PresentationIntentType": "FOR PRESENTATION"},
        {"PixelIntensityRelationship": "LOG"},
        {"WindowCenter": 2048, "WindowWidth": 4096},
    ],
)
def test_the_relationship_alone_is_no_transformation(change: dict[str, object]) -> None:
    """Part 3 C.8.11.3.1.2: what a header says of display stands; a logarithm is only for pictures that have none."""
    window = {name: value for name, value in change.items() if name.startswith("Window")}
    found_HW = small(read_radiograph(make_dicom(transmitted(1), **(RAW | change))))  # type: ignore[arg-type]
    plain_HW = small(read_radiograph(make_dicom(transmitted(1), **window)))  # type: ignore[arg-type]
    np.testing.assert_array_equal(found_HW, plain_HW)


def test_attenuation_of_nothing_is_finite() -> None:
    dark_HW = np.zeros((4, 4), dtype=np.float32)
    dark_HW[0, 0] = 1000
    assert np.isfinite(attenuation(dark_HW, 0)).all()
    assert np.isfinite(attenuation(-dark_HW, 0)).all()
    assert np.isfinite(attenuation(dark_HW, 1000)).all()


def test_overlays_are_ignored() -> None:
    np.testing.assert_array_equal(
        preprocess(read_radiograph(dicom_factory.overlay_in_high_bits()), PLAIN),
        preprocess(read_radiograph(make_dicom()), PLAIN),
    )


def test_one_bit_pixels_are_unpacked_from_the_lowest_bit_on() -> None:
    found_HW = read_radiograph(dicom_factory.one_bit()).pixels_HW
    np.testing.assert_array_equal(found_HW, picture(bits=8) > 100)

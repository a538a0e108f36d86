from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from sarc_ray.errors import ImageError, Reason
from sarc_ray.imaging import pixel_gate
from sarc_ray.imaging.preprocess import PreprocessConfig, process_image
from sarc_ray.judging import sources, strange
from sarc_ray.judging.measure import exact_interval, untouched
from sarc_ray.judging.pictures import POSES, in_pose
from sarc_ray.simulate.detector import DEVICES, Header, to_dicom
from tests.dicom_factory import make_dicom, picture

NIH = Path(__file__).parents[2] / ".." / "shared" / "data" / "nih-cxr" / "manifest.csv"
CONFIG = PreprocessConfig(size_px=96, clahe_clip_limit=2.0, clahe_tiles=4, pixel_gate=True)
HEADER = Header(
    patient_id="P",
    study_id="S",
    image_key="K",
    sex="F",
    age_years=70.0,
    acquired_on="2020-01-01",
    view="",
    body_part="",
    site="hospital-a",
)


@pytest.fixture(scope="module")
def chests() -> np.ndarray:
    return sources.phantoms(42, seed=424242)


@pytest.fixture(scope="module")
def radiographs() -> np.ndarray:
    if not NIH.exists():
        pytest.skip("the shared NIH radiographs are not here")
    return sources.read_split(str(NIH), "test_internal").pictures_NSS


def verdict(picture_SS: np.ndarray, shape_HW: tuple[int, int] = (1, 1)) -> Reason:
    try:
        pixel_gate.check(np.ascontiguousarray(picture_SS, dtype=np.float32), shape_HW=shape_HW)
    except ImageError as error:
        return error.reason
    return Reason.NONE


def test_phantoms_pass(chests):
    assert Counter(verdict(chest) for chest in chests) == {Reason.NONE: 42}


@pytest.mark.parametrize("pose", POSES[1:])
def test_turned_and_inverted_phantoms_are_told(chests, pose):
    expected = Reason.INVERTED if pose == "inverted" else Reason.ROTATED
    found = Counter(verdict(in_pose(chest, pose)) for chest in chests)
    assert found[expected] >= 41, found


def test_a_mirrored_chest_passes_because_sides_are_not_judged(chests):
    assert all(verdict(chest[:, ::-1]) is Reason.NONE for chest in chests)


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ((2500, 2000), Reason.NONE),
        ((2000, 2500), Reason.NONE),
        ((3000, 3000), Reason.NONE),
        ((3000, 1000), Reason.ODD_ASPECT),
        ((1000, 2000), Reason.ODD_ASPECT),
    ],
)
def test_the_sides_of_the_radiograph_itself_count(chests, shape, reason):
    assert verdict(chests[0], shape) is reason


@pytest.mark.parametrize("at_end", [0.0, 1.0])
def test_a_collimated_picture_is_told_by_its_field(chests, at_end):
    def collimated(side: int) -> np.ndarray:
        framed = np.full_like(chests[1], at_end)
        first = (len(framed) - side) // 2
        framed[first : first + side, first : first + side] = chests[1][first : first + side, first : first + side]
        framed[3:9, 3:6] = 1 - at_end  # a lead marker on the shutters
        return framed

    assert pixel_gate.exposed_share(collimated(64)) == pytest.approx(0.25, abs=0.03)
    assert verdict(collimated(64)) is Reason.COLLIMATED
    assert verdict(collimated(80)) is Reason.COLLIMATED
    assert verdict(collimated(120)) is Reason.NONE


def test_a_saturated_picture_is_told(chests):
    assert verdict((chests[2] > np.median(chests[2])).astype(np.float32)) is Reason.SATURATED_IMAGE
    assert verdict(np.clip(chests[2] * 4, 0, 1)) is Reason.SATURATED_IMAGE


def test_screens_and_pages_are_told(chests):
    def found(draw, n=60):
        return Counter(verdict(draw(np.random.default_rng([5, index]))) for index in range(n))

    def with_chest(rng):
        return cv2.resize(strange.screen(600, rng, chests[0]), (224, 224), interpolation=cv2.INTER_AREA)

    assert found(lambda rng: strange.page(128, rng))[Reason.SCREENSHOT] >= 54
    assert found(lambda rng: strange.screen(128, rng))[Reason.SCREENSHOT] >= 54
    assert found(with_chest)[Reason.NONE] == 0


def test_a_few_burned_in_words_are_no_screenshot(chests):
    labelled = cv2.resize(chests[3], (512, 512), interpolation=cv2.INTER_LINEAR)
    labelled += np.random.default_rng(0).normal(0, 0.01, labelled.shape).astype(np.float32)
    for row, text in enumerate(("PORTABLE", "AP ERECT 10:45", "L")):
        strange.write(labelled, text, (20, 40 + 30 * row), scale=0.7, ink=1.0)
    assert verdict(cv2.resize(labelled, (224, 224), interpolation=cv2.INTER_AREA)) is Reason.NONE


@pytest.mark.parametrize("kind", ["lateral", "hand", "knee", "noise", "clouds", "gradient", "torn", "skull", "pelvis"])
def test_no_chest_passes_as_one(chests, kind):
    found = Counter(
        verdict(sources.not_a_chest(kind, chests[index % 42], [], np.random.default_rng([6, index])))
        for index in range(40)
    )
    assert found[Reason.NONE] <= 1, found


@pytest.mark.parametrize("device", DEVICES, ids=lambda device: device.name)
def test_a_silent_header_leaves_it_to_the_pixels(chests, device):
    def reason(gray_HW: np.ndarray) -> Reason:
        return process_image(to_dicom(np.ascontiguousarray(gray_HW), device=device, header=HEADER), CONFIG).reason

    chest = cv2.resize(chests[4], (230, 256), interpolation=cv2.INTER_AREA)
    assert reason(chest) is Reason.NONE
    assert reason(np.rot90(chest)) is Reason.ROTATED
    assert reason(chest[::-1]) is Reason.ROTATED
    assert reason(sources.part_in_any_pose("hand", np.random.default_rng(1))) is Reason.UNLIKE_CHEST


def test_a_tag_that_contradicts_the_pixels_is_inverted():
    upright = picture()
    assert process_image(make_dicom(upright), CONFIG).reason is Reason.NONE
    assert process_image(make_dicom(upright, PhotometricInterpretation="MONOCHROME1"), CONFIG).reason is Reason.INVERTED
    assert process_image(make_dicom(4095 - upright), CONFIG).reason is Reason.INVERTED
    good = process_image(make_dicom(4095 - upright, PhotometricInterpretation="MONOCHROME1"), CONFIG)
    assert good.reason is Reason.NONE


def test_the_gate_of_pixels_can_be_left_out(chests):
    turned = make_dicom(np.rint(np.rot90(chests[5]) * 4095).astype(np.uint16))
    off = PreprocessConfig(size_px=96, clahe_clip_limit=2.0, clahe_tiles=4, pixel_gate=False)
    assert process_image(turned, CONFIG).reason is Reason.ROTATED
    assert process_image(turned, off).reason is Reason.NONE


def test_at_most_one_in_a_hundred_radiographs_of_unseen_patients_is_refused(radiographs):
    everyone, ap, pa, *_ = untouched(str(NIH))
    assert everyone.n == len(radiographs) == ap.n + pa.n == 131
    assert everyone.refused <= 0.01 * everyone.n, everyone.counts


@pytest.mark.parametrize("pose", ["turned_90", "turned_180", "turned_270", "inverted"])
def test_radiographs_of_unseen_patients_are_told_when_turned_or_inverted(radiographs, pose):
    expected = Reason.INVERTED if pose == "inverted" else Reason.ROTATED
    found = Counter(verdict(in_pose(radiograph, pose)) for radiograph in radiographs)
    assert found[expected] >= 0.98 * len(radiographs), found
    assert found[Reason.NONE] == 0


def test_exact_intervals_are_those_of_the_textbook():
    # Newcombe RG. Statist Med 1998; 17: 857-872, table I, method 5 (Clopper-Pearson): 81/263, 15/148, 0/20, 1/29.
    for events, n, expected in (
        (81, 263, (0.2527, 0.3676)),
        (15, 148, (0.0578, 0.1617)),
        (0, 20, (0.0000, 0.1684)),
        (1, 29, (0.0009, 0.1776)),
    ):
        assert exact_interval(events, n) == pytest.approx(expected, abs=5e-5)
    assert exact_interval(29, 29)[1] == 1.0

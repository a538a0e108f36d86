import dataclasses

import pytest

from sarc_ray.errors import ImageError, Reason
from sarc_ray.imaging.dicom import read_radiograph
from sarc_ray.imaging.gate import check, is_lateral
from sarc_ray.imaging.header import HeaderFacts
from tests.dicom_factory import make_dicom


@pytest.fixture(scope="module")
def header() -> HeaderFacts:
    return read_radiograph(make_dicom()).header


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"modality": None, "body_part": None, "view": None},
        {"modality": "CR"},
        {"body_part": "PORT CHEST"},
        {"body_part": "THORAX"},
        {"species": "HOMO SAPIENS"},
        {"view": "AP"},
        {"view": "LLD"},
        {"view": "LATERAL DECUBITUS"},
    ],
)
def test_frontal_chest_radiographs_pass(header: HeaderFacts, change: dict[str, str | None]) -> None:
    assert check(dataclasses.replace(header, **change)) is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"modality": "CT"}, Reason.NOT_CHEST),
        ({"modality": "MG"}, Reason.NOT_CHEST),
        ({"modality": "OT"}, Reason.NOT_CHEST),
        ({"body_part": "ABDOMEN"}, Reason.NOT_CHEST),
        ({"species": "CANINE"}, Reason.NOT_CHEST),
        ({"view": "LL"}, Reason.LATERAL_VIEW),
        ({"view": "RL"}, Reason.LATERAL_VIEW),
        ({"view": "LATERAL"}, Reason.LATERAL_VIEW),
        ({"view": "XTABLE LATERAL"}, Reason.LATERAL_VIEW),
        ({"view": "RAO"}, Reason.LATERAL_VIEW),
        ({"body_part": "HAND", "view": "LL"}, Reason.NOT_CHEST),
    ],
)
def test_others_are_refused_with_their_reason(header: HeaderFacts, change: dict[str, str], reason: Reason) -> None:
    with pytest.raises(ImageError) as caught:
        check(dataclasses.replace(header, **change))  # type: ignore[arg-type]
    assert caught.value.reason is reason


def test_unknown_views_are_not_lateral() -> None:
    assert not is_lateral(None)
    assert not is_lateral("PA")

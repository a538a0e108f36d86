import dataclasses
import re
from pathlib import Path

import pytest

from sarc_ray.errors import ImageError, Reason
from sarc_ray.imaging.dicom import read_radiograph
from sarc_ray.imaging.gate import FLAGS, check, flags, is_lateral
from sarc_ray.imaging.header import HeaderFacts
from sarc_ray.imaging.preprocess import PreprocessConfig, process_image
from tests.dicom_factory import make_dicom

CONFIG = PreprocessConfig(size_px=64, clahe_clip_limit=2.0, clahe_tiles=4, pixel_gate=True)
SECONDARY = "1.2.840.10008.5.1.4.1.1.7"


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
        {"view": "AP AXIAL"},
        {"view": "LEFT LAT DEC"},
        {"view": "AP FLAT"},
        {"view": "VENTILATED"},
        {"sop_class": "1.2.840.10008.5.1.1.29", "modality": "HC"},
        {"sop_class": "1.2.840.10008.5.1.4.1.1.7.4", "modality": "OT"},
        {"body_part": "CXR"},
        {"body_part": "UNDEFINED"},
        {"modality": "OT"},
        {"sop_class": SECONDARY, "modality": "OT", "body_part": None},
        {"sop_class": SECONDARY, "modality": None},
        {"sop_class": None},
        {"sop_class": "1.2.840.10008.5.1.4.1.1.1.1.1"},
        {"sop_class": "1.3.46.670589.2.3.1.1", "modality": "DX"},
        {"body_part": "UNKNOWN"},
        {"body_part": "PULMONES"},
        {"age_years": 18.0},
        {"age_years": None},
    ],
)
def test_frontal_chest_radiographs_pass(header: HeaderFacts, change: dict[str, object]) -> None:
    assert check(dataclasses.replace(header, **change)) is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"modality": "CT"}, Reason.NOT_CHEST),
        ({"modality": "MG"}, Reason.NOT_CHEST),
        ({"modality": "PX"}, Reason.NOT_CHEST),
        ({"sop_class": SECONDARY, "modality": "CT"}, Reason.NOT_CHEST),
        ({"sop_class": "1.2.840.10008.5.1.4.1.1.2"}, Reason.NOT_CHEST),
        ({"sop_class": "1.2.840.10008.5.1.4.1.1.1.2", "modality": "DX"}, Reason.NOT_CHEST),
        ({"sop_class": "1.2.840.10008.5.1.4.1.1.104.1", "modality": None}, Reason.NOT_CHEST),
        ({"body_part": "CHESTABDOMEN"}, Reason.NOT_CHEST),
        ({"body_part": "CHESTABDPELVIS"}, Reason.NOT_CHEST),
        ({"body_part": "ABDOMEN"}, Reason.NOT_CHEST),
        ({"species": "CANINE"}, Reason.NOT_CHEST),
        ({"view": "LL"}, Reason.LATERAL_VIEW),
        ({"view": "RL"}, Reason.LATERAL_VIEW),
        ({"view": "LATERAL"}, Reason.LATERAL_VIEW),
        ({"view": "XTABLE LATERAL"}, Reason.LATERAL_VIEW),
        ({"view": "RAO"}, Reason.LATERAL_VIEW),
        ({"view": "LL ERECT"}, Reason.LATERAL_VIEW),
        ({"view": "RL_STANDING"}, Reason.LATERAL_VIEW),
        ({"view": "PROFIL GAUCHE"}, Reason.LATERAL_VIEW),
        ({"view": "PERFIL"}, Reason.LATERAL_VIEW),
        ({"body_part": "RIBS"}, Reason.NOT_CHEST),
        ({"view": "LEFT LATERAL"}, Reason.LATERAL_VIEW),
        ({"view": "SWIMMERS"}, Reason.LATERAL_VIEW),
        ({"age_years": 17.0}, Reason.PAEDIATRIC),
        ({"age_years": 0.75}, Reason.PAEDIATRIC),
        ({"body_part": "HAND", "view": "LL"}, Reason.NOT_CHEST),
        ({"view": "LL", "age_years": 9.0}, Reason.LATERAL_VIEW),
    ],
)
def test_others_are_refused_with_their_reason(header: HeaderFacts, change: dict[str, object], reason: Reason) -> None:
    with pytest.raises(ImageError) as caught:
        check(dataclasses.replace(header, **change))  # type: ignore[arg-type]
    assert caught.value.reason is reason


def test_unknown_views_are_not_lateral() -> None:
    assert not is_lateral(None)
    assert not is_lateral("PA")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"view": "PA"}, ()),
        ({"view": "AP"}, ("ap_view",)),
        ({"view": "AP LLD"}, ("ap_view",)),
        ({"view": "AP", "portable": True}, ("ap_view", "portable_ap")),
        ({"view": None, "portable": True}, ("portable_ap", "view_unknown")),
        ({"view": "PA", "portable": True}, ()),
        ({"body_part": "OTHER"}, ("body_part_unknown",)),
        ({"modality": "OT", "view": None, "body_part": None}, ("view_unknown", "body_part_unknown", "secondary")),
        ({"sop_class": SECONDARY}, ("secondary",)),
    ],
)
def test_what_is_remarked(header: HeaderFacts, change: dict[str, object], expected: tuple[str, ...]) -> None:
    found = flags(dataclasses.replace(header, **change))  # type: ignore[arg-type]
    assert found == expected
    assert set(found) <= set(FLAGS)


@pytest.mark.parametrize(
    ("tags", "portable"),
    [
        ({"StudyDescription": "XR CHEST 1 VIEW PORTABLE"}, True),
        ({"PerformedProcedureStepDescription": "CHEST (PORTABLE AP)"}, True),
        ({"SeriesDescription": "Bedside chest"}, True),
        ({"ProtocolName": "Chest port."}, True),
        ({"BodyPartExamined": "PORT CHEST"}, True),
        ({"ManufacturerModelName": "DRX-Revolution"}, True),
        ({"ManufacturerModelName": "Mobilett Mira"}, True),
        ({"StudyDescription": "Chest PA, transport by bed"}, False),
        ({"StudyDescription": "portal vein"}, False),
        ({}, False),
    ],
)
def test_mobile_units_are_told_by_words_that_stay_behind(tags: dict[str, str], portable: bool) -> None:
    result = process_image(make_dicom(ViewPosition="AP", **tags), CONFIG)
    assert result.header is not None
    assert result.header.portable == portable
    assert result.gate_flags == ("ap_view,portable_ap" if portable else "ap_view")
    assert "BEDSIDE" not in repr(result.header).upper()
    assert "(PORTABLE" not in repr(result.header)


def test_a_child_is_refused_by_whatever_tells_its_age() -> None:
    by_age = process_image(make_dicom(PatientAge="009M"), CONFIG)
    by_date = process_image(make_dicom(PatientAge="", PatientBirthDate="20100101"), CONFIG)
    assert (by_age.reason, by_date.reason) == (Reason.PAEDIATRIC, Reason.PAEDIATRIC)
    unknown = process_image(make_dicom(PatientAge="000Y"), CONFIG)
    assert unknown.reason is Reason.NONE
    assert unknown.header is not None
    assert unknown.header.age_years is None


def test_the_flags_of_the_documentation_are_the_flags() -> None:
    text = (Path(__file__).parents[2] / "docs" / "explanation" / "gate.md").read_text(encoding="utf-8")
    stated = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", text, re.MULTILINE))
    assert {name: stated.get(name) for name in FLAGS} == FLAGS

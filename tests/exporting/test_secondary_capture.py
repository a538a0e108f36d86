"""Overlays as Secondary Capture Images: filed beside the radiograph, with its pixels, and marked for what they are."""

import io

import numpy as np
import pydicom
import pytest

from sarc_ray import __version__
from sarc_ray.exporting.secondary_capture import Overlay, secondary_capture
from sarc_ray.exporting.source import FILED, read_source
from tests import canary
from tests.exporting.archive import STUDIES, make_image

PIXELS = np.random.default_rng(0).integers(0, 256, (21, 34, 3), dtype=np.uint8)


def capture(image, *, number=1, pixels=PIXELS, model_id="ab" * 16):
    overlay = Overlay(pixels_HW3=pixels, target_label="Appendicular lean mass", number=number, model_id=model_id)
    return pydicom.dcmread(io.BytesIO(secondary_capture(overlay, read_source(image))))


def test_it_holds_the_picture_pixel_by_pixel():
    found = capture(make_image(0))
    assert found.SOPClassUID == pydicom.uid.SecondaryCaptureImageStorage
    assert found.PhotometricInterpretation == "RGB"
    np.testing.assert_array_equal(found.pixel_array, PIXELS)


def test_it_belongs_to_the_radiographs_patient_and_study():
    image = make_image(2, PatientBirthDate="19400102", StudyID="S-1", ReferringPhysicianName="Roe^Ann")
    source = pydicom.dcmread(io.BytesIO(image))
    found = capture(image)
    for keyword in FILED:
        if keyword in source:
            assert found[keyword].value == source[keyword].value, keyword
    assert (found.PatientID, found.PatientName, found.AccessionNumber) == ("P-C", "Doe^Jane", "ACC-2")
    assert found.StudyInstanceUID == STUDIES[2]
    # A series of its own, and an instance of its own.
    assert found.SeriesInstanceUID != source.SeriesInstanceUID
    assert found.SOPInstanceUID != source.SOPInstanceUID


def test_that_the_patient_was_made_unknown_comes_along():
    code = pydicom.Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "113100", "DCM", "Basic Application Profile"
    found = capture(make_image(0, PatientIdentityRemoved="YES", DeidentificationMethodCodeSequence=[code]))
    assert found.PatientIdentityRemoved == "YES"
    assert found.DeidentificationMethodCodeSequence[0].CodeValue == "113100"


def test_it_says_what_it_was_made_of_by_whom_and_what_it_is_not_for():
    found = capture(make_image(2))
    (item,) = found.SourceImageSequence
    assert item.ReferencedSOPInstanceUID == f"{STUDIES[2]}.1.2"
    assert item.ReferencedSOPClassUID == pydicom.uid.DigitalXRayImageStorageForPresentation
    (purpose,) = item.PurposeOfReferenceCodeSequence
    assert (purpose.CodeValue, purpose.CodingSchemeDesignator) == ("121322", "DCM")
    (derivation,) = found.DerivationCodeSequence
    assert (derivation.CodeValue, derivation.CodingSchemeDesignator) == ("130404", "DCM")
    assert list(found.ImageType)[:2] == ["DERIVED", "SECONDARY"]
    assert found.BurnedInAnnotation == "YES"
    # A page of three panels has no left and no head.
    assert not found.PatientOrientation
    assert found.ConversionType == "SYN"
    assert found.ContentQualification == "RESEARCH"
    assert (found.Manufacturer, found.SoftwareVersions, found.DeviceSerialNumber) == (
        "SARC-Ray",
        __version__,
        "ab" * 16,
    )
    for text in (found.SeriesDescription, found.DerivationDescription, found.ImageComments):
        assert "not for diagnosis" in text
    assert "Appendicular lean mass" in found.DerivationDescription


def test_overlays_of_one_radiograph_are_one_series_and_the_same_one_again_is_the_same_instance():
    first, second = capture(make_image(0)), capture(make_image(0), number=2)
    assert first.SeriesInstanceUID == second.SeriesInstanceUID
    assert first.SOPInstanceUID != second.SOPInstanceUID
    assert [int(first.InstanceNumber), int(second.InstanceNumber)] == [1, 2]
    assert capture(make_image(0)).SOPInstanceUID == first.SOPInstanceUID
    assert capture(make_image(0), pixels=255 - PIXELS).SOPInstanceUID != first.SOPInstanceUID
    assert capture(make_image(1)).SeriesInstanceUID != first.SeriesInstanceUID
    assert capture(make_image(0), model_id="cd" * 16).SeriesInstanceUID != first.SeriesInstanceUID
    assert all(uid.is_valid for uid in (first.SeriesInstanceUID, first.SOPInstanceUID))


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        ("ISO_IR 100", "M\u00fcller^J\u00f6rg"),
        ("ISO_IR 192", "\u5c71\u7530^\u592a\u90ce"),
        (["", "ISO 2022 IR 149"], "Hong^Gildong=\u6d2a^\u5409\u6d1e=\ud64d^\uae38\ub3d9"),
        (None, "Doe^Jane"),
    ],
)
def test_names_of_all_character_sets_come_through(charset, name):
    tags = {} if charset is None else {"SpecificCharacterSet": charset}
    image = make_image(0, **tags, PatientName=name)
    found = capture(image)
    assert found.PatientName == pydicom.dcmread(io.BytesIO(image)).PatientName == name
    assert found.get("SpecificCharacterSet") == pydicom.dcmread(io.BytesIO(image)).get("SpecificCharacterSet")


def test_what_was_compressed_with_loss_stays_so():
    lossy = {"LossyImageCompression": "01", "LossyImageCompressionRatio": "12.5"}
    found = capture(make_image(0, **lossy))
    assert (found.LossyImageCompression, found.LossyImageCompressionRatio) == ("01", 12.5)
    assert "LossyImageCompression" not in capture(make_image(0, LossyImageCompression="00"))


def test_nothing_else_of_the_header_comes_along_and_nothing_is_logged(caplog, recwarn):
    with caplog.at_level("DEBUG"):
        found = capture(canary.plant(make_image(0)))
    named = {element.keyword for element in found.iterall() if canary.TAG in str(element.value)}
    assert named == {keyword for keyword in FILED if canary.TAG in str(found.get(keyword))}
    assert "PatientName" in named
    assert [token for token in canary.OF_HEADERS if token in caplog.text] == []
    assert [str(warning.message) for warning in recwarn] == []

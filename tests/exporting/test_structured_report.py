"""Reports after TID 1500, read back by highdicom's own reader."""

import dataclasses
import io

import highdicom
import pydicom
import pytest
from pydicom.sr.codedict import codes

from sarc_ray import __version__
from sarc_ray.bundle import read_manifest_of
from sarc_ray.exporting.source import FILED, read_source
from sarc_ray.exporting.structured_report import ScoredImage, structured_report, unit_code
from sarc_ray.exporting.studies import model_of
from tests import canary
from tests.exporting.archive import BUNDLE, MODEL_ID, STUDIES, make_image

MODEL = model_of(read_manifest_of(BUNDLE))
VALUES = {
    "alm_kg_mu": 17.123456789012344,
    "alm_kg_sigma": 1.75,
    "crt_s_mu": 11.5,
    "crt_s_sigma": 2.25,
    "score": 0.4321,
    "flag": True,
}


def scored(image, **changes):
    return ScoredImage(source=read_source(image), values={**VALUES, **changes})


def report(*images):
    return highdicom.sr.srread(io.BytesIO(structured_report(list(images), MODEL)))


def test_every_value_comes_back_with_its_unit_and_derivation():
    (group,) = report(scored(make_image(2))).content.get_image_measurement_groups()
    found = [
        (m.name.value, m.name.scheme_designator, m.value, m.unit.value, m.unit.scheme_designator, m.derivation)
        for m in group.get_measurements()
    ]
    mean, sd = codes.SCT.Mean, codes.SCT.StandardDeviation
    assert found == [
        ("alm_kg", "99SARCRAY", 17.123456789012344, "kg", "UCUM", mean),
        ("alm_kg", "99SARCRAY", 1.75, "kg", "UCUM", sd),
        ("crt_s", "99SARCRAY", 11.5, "s", "UCUM", mean),
        ("crt_s", "99SARCRAY", 2.25, "s", "UCUM", sd),
        ("score", "99SARCRAY", 0.4321, "1", "UCUM", None),
    ]
    meanings = {m.name.value: m.name.meaning for m in group.get_measurements()}
    assert meanings == {
        "alm_kg": "Appendicular lean mass, predicted from chest radiograph",
        "crt_s": "Chair rise test, predicted from chest radiograph",
        "score": "Probability of sarcopenia (AWGS 2019), predicted",
    }
    (evaluation,) = group.get_qualitative_evaluations()
    assert evaluation.value == codes.SCT.Yes
    assert evaluation.name.value == "flag"


def test_a_score_below_the_threshold_is_a_no():
    (group,) = report(scored(make_image(2), flag=False)).content.get_image_measurement_groups()
    assert group.get_qualitative_evaluations()[0].value == codes.SCT.No


def test_it_refers_to_the_radiograph_as_source_and_as_evidence():
    found = report(scored(make_image(2)))
    (group,) = found.content.get_image_measurement_groups()
    (image,) = group.source_images
    assert image.referenced_sop_instance_uid == f"{STUDIES[2]}.1.2"
    sop_class = pydicom.uid.DigitalXRayImageStorageForPresentation
    assert found.get_evidence() == [(STUDIES[2], f"{STUDIES[2]}.1", f"{STUDIES[2]}.1.2", sop_class)]


def test_a_radiograph_of_a_makers_own_class_is_referred_to_by_it():
    private = "1.2.840.113619.4.99"
    found = report(scored(make_image(2, SOPClassUID=private)))
    assert [sop_class for *_, sop_class in found.get_evidence()] == [private]
    (image,) = found.content.get_image_measurement_groups()[0].source_images
    assert image.referenced_sop_class_uid == private


def test_the_observer_is_the_model_and_the_document_is_unverified():
    found = report(scored(make_image(2)))
    context = found.content.get_observer_contexts()[0]
    device = context.observer_identifying_attributes
    assert context.observer_type == codes.DCM.Device
    assert device.serial_number == MODEL_ID
    assert device.name == f"SARC-Ray {__version__}"
    assert "sarcopenia (AWGS 2019)" in device.model_name
    algorithm = found.content.get_image_measurement_groups()[0][0].ContentSequence
    texts = " ".join(str(item.TextValue) for item in algorithm if "TextValue" in item)
    assert MODEL_ID in texts
    assert (found.VerificationFlag, found.PreliminaryFlag) == ("UNVERIFIED", "PRELIMINARY")
    assert found.ContentQualification == "RESEARCH"
    (comment,) = [item for item in found.ContentSequence if item.ConceptNameCodeSequence[0].CodeValue == "121106"]
    assert "not for diagnosis" in comment.TextValue
    assert repr(MODEL.threshold) in comment.TextValue
    assert "not for diagnosis" in found.SeriesDescription


def test_the_private_scheme_is_declared_and_every_other_code_is_of_the_standard():
    found = report(scored(make_image(2)))
    (scheme,) = found.CodingSchemeIdentificationSequence
    assert scheme.CodingSchemeDesignator == "99SARCRAY"
    used = {
        (element.value, item.CodingSchemeDesignator)
        for item in _code_items(found)
        for element in item
        if element.keyword in ("CodeValue", "LongCodeValue")
    }
    private = {value for value, designator in used if designator == "99SARCRAY"}
    assert private == {"alm_kg", "crt_s", "score", "flag"}
    assert {designator for _, designator in used} == {"99SARCRAY", "DCM", "SCT", "UCUM", "RFC5646"}
    known = {code.value for name in ("DCM", "SCT") for code in _standard_codes(name)}
    assert {value for value, designator in used if designator in ("DCM", "SCT")} <= known


def _code_items(dataset):
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                if "CodeMeaning" in item:
                    yield item
                yield from _code_items(item)


def _standard_codes(scheme):
    of_scheme = getattr(codes, scheme)
    return [
        code for name in of_scheme.dir() if isinstance(code := getattr(of_scheme, name, None), type(codes.DCM.Device))
    ]


def test_two_radiographs_of_a_study_are_two_groups_of_one_report():
    found = report(scored(make_image(0)), scored(make_image(1), score=0.1))
    groups = found.content.get_image_measurement_groups()
    assert [group.get_measurements()[-1].value for group in groups] == [0.4321, 0.1]
    sources = [group.source_images[0].referenced_sop_instance_uid for group in groups]
    assert sources == [f"{STUDIES[0]}.1.0", f"{STUDIES[1]}.1.1"]
    assert len(found.get_evidence()) == 2


def test_it_belongs_to_the_patient_and_study_and_takes_nothing_else(caplog, recwarn):
    with caplog.at_level("DEBUG"):
        found = report(scored(canary.plant(make_image(0))))
    assert (found.PatientName, found.StudyInstanceUID) == (canary.TAG, f"{canary.UID}.0")
    named = {element.keyword for element in found.iterall() if canary.TAG in str(element.value)}
    assert named == {keyword for keyword in FILED if canary.TAG in str(found.get(keyword))}
    assert [token for token in canary.OF_HEADERS if token in caplog.text] == []
    assert [str(warning.message) for warning in recwarn] == []


def test_the_same_scores_are_the_same_instance_and_others_another():
    first = report(scored(make_image(2)))
    assert report(scored(make_image(2))).SOPInstanceUID == first.SOPInstanceUID
    other = report(scored(make_image(2), score=0.5))
    assert other.SOPInstanceUID != first.SOPInstanceUID
    assert other.SeriesInstanceUID == first.SeriesInstanceUID
    assert first.SOPInstanceUID.is_valid


@pytest.mark.parametrize(
    ("unit", "value", "scheme"), [("kg", "kg", "UCUM"), ("1", "1", "UCUM"), ("points", "points", "99SARCRAY")]
)
def test_units_that_ucum_does_not_have_are_private(unit, value, scheme):
    found = unit_code(unit)
    assert (found.value, found.scheme_designator) == (value, scheme)


def test_long_units_and_names_in_other_scripts_are_written_as_the_standard_can_hold_them():
    assert unit_code("points " * 12).meaning == ("points " * 12)[:64]
    model = dataclasses.replace(MODEL, predicts="gr\u00f6\u00dfe", clinical_features=("\u808c_1",))
    found = pydicom.dcmread(io.BytesIO(structured_report([scored(make_image(2))], model)))
    texts = " ".join(str(element.value) for element in found.iterall() if element.keyword == "TextValue")
    assert "SARC-Ray, gr??e, bundle" in texts
    assert "the radiograph and ?_1." in texts

"""What is taken of a radiograph's header, and what is said where it cannot be."""

import hashlib
import io

import pydicom
import pytest
from pydicom.dataset import Dataset

from sarc_ray import storage
from sarc_ray.errors import ExportError
from sarc_ray.exporting.source import FILED, fetch_source, file_beside, read_source
from sarc_ray.imaging.quiet import quiet_pydicom
from tests import canary
from tests.exporting.archive import STUDIES, make_image


def test_the_stated_tags_alone_are_read_and_copied():
    source = read_source(canary.plant(make_image(0)))
    copied = Dataset()
    file_beside(copied, source)
    assert {element.keyword for element in copied} <= set(FILED)
    assert copied.PatientName == canary.TAG
    assert copied.StudyInstanceUID == f"{canary.UID}.0"
    assert "InstitutionName" not in source.header
    assert "PatientAddress" not in source.header


def test_references_are_those_of_the_radiograph():
    source = read_source(make_image(2))
    assert (source.study, source.sop_instance) == (STUDIES[2], f"{STUDIES[2]}.1.2")
    assert source.sop_class == pydicom.uid.DigitalXRayImageStorageForPresentation
    assert source.patient == "P-C"


def test_its_name_is_not_printed():
    assert repr(read_source(canary.plant(make_image(0)))) == "Source(...)"


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"])
@pytest.mark.parametrize("value", ["", "no UID of ZQTAGCANARY"])
def test_without_a_uid_nothing_can_be_filed(keyword, value):
    sink = io.BytesIO()
    with quiet_pydicom():
        data = pydicom.dcmread(io.BytesIO(make_image(0)))
        data[keyword].value = value
        data.save_as(sink, enforce_file_format=False)
    with pytest.raises(ExportError, match=f"the header has no valid {keyword}") as caught:
        read_source(sink.getvalue())
    assert canary.TAG not in str(caught.value)


def test_what_is_no_dicom_is_refused_without_being_quoted():
    with pytest.raises(ExportError, match="cannot be read") as caught:
        read_source(b"ZQTAGCANARY" * 100)
    assert canary.TAG not in str(caught.value)


def test_an_object_that_has_changed_or_gone_is_not_filed_beside(tmp_path):
    uri = str(tmp_path / f"{canary.FILE}.dcm")
    storage.write_bytes(uri, make_image(0))
    digest = hashlib.sha256(make_image(0)).hexdigest()
    assert fetch_source(uri, digest).patient == "P-A"
    storage.write_bytes(uri, make_image(1))
    with pytest.raises(ExportError, match="another one than was read"):
        fetch_source(uri, digest)
    storage.remove_tree(uri)
    with pytest.raises(ExportError, match="cannot be read") as caught:
        fetch_source(uri, digest)
    assert canary.FILE not in str(caught.value)

import io
from dataclasses import replace

import numpy as np
import pydicom
import pytest
from pydicom.uid import UID_dictionary

from sarc_ray.imaging.dicom import read_radiograph
from sarc_ray.simulate.detector import DEVICES, Header, make_uid, to_dicom

HEADER = Header(
    patient_id="D000123",
    study_id="D000123-S1",
    image_key="images/D000123_1.dcm",
    sex="F",
    age_years=62.7,
    acquired_on="2020-05-03",
    view="PA",
    body_part="CHEST",
    site="hospital-a",
)


def _gray(shape=(96, 90)) -> np.ndarray:
    rng = np.random.default_rng(1)
    ramp = np.linspace(0, 1, shape[0])[:, None] * np.linspace(0.5, 1, shape[1])
    return np.clip(ramp + 0.02 * rng.standard_normal(shape), 0, 1).astype(np.float32)


@pytest.mark.parametrize("device", DEVICES, ids=lambda device: device.name)
def test_every_device_decodes_to_what_was_drawn(device):
    gray = _gray()
    dataset = pydicom.dcmread(io.BytesIO(to_dicom(gray, device=device, header=HEADER)))
    assert dataset.file_meta.TransferSyntaxUID == device.syntax
    assert dataset.BitsStored == device.bits_stored
    top = 2**device.bits_stored - 1
    seen = dataset.pixel_array.astype(np.float64)
    assert seen.max() <= top
    if device.inverted:
        assert dataset.PhotometricInterpretation == "MONOCHROME1"
        seen = top - seen
    low, high = device.level
    np.testing.assert_allclose((seen / top - low) / (high - low), gray, atol=0.51 / (top * (high - low)))


@pytest.mark.parametrize("device", DEVICES, ids=lambda device: device.name)
def test_our_own_reader_sees_bright_bone(device):
    gray = _gray()
    radiograph = read_radiograph(to_dicom(gray, device=device, header=HEADER))
    assert radiograph.inverted == device.inverted
    sign = -1.0 if radiograph.inverted else 1.0
    assert np.corrcoef(sign * radiograph.pixels_HW.ravel().astype(float), gray.ravel())[0, 1] > 0.999
    assert radiograph.header.age_years == 62
    assert radiograph.header.sex == "F"


def test_devices_differ_as_archives_do():
    assert {device.bits_stored for device in DEVICES} >= {10, 12, 14, 16}
    assert {device.inverted for device in DEVICES} == {True, False}
    assert len({device.syntax for device in DEVICES}) == 6
    assert {device.modality for device in DEVICES} == {"CR", "DX"}
    assert len({device.name for device in DEVICES}) == len(DEVICES)


def test_header_is_plausible_and_only_simulated():
    dataset = pydicom.dcmread(io.BytesIO(to_dicom(_gray(), device=DEVICES[0], header=HEADER)))
    assert dataset.PatientAge == "062Y"
    assert dataset.StudyDate == "20200503"
    assert dataset.ViewPosition == "PA"
    assert dataset.BodyPartExamined == "CHEST"
    assert str(dataset.PatientName) == "SIM^D000123"
    assert dataset.SOPClassUID in UID_dictionary
    assert float(dataset.ImagerPixelSpacing[0]) * dataset.Rows == pytest.approx(430.0, rel=1e-4)


def test_bytes_are_reproducible_and_uids_follow_the_image():
    first, second = (to_dicom(_gray(), device=DEVICES[2], header=HEADER) for _ in range(2))
    assert first == second
    other = to_dicom(_gray(), device=DEVICES[2], header=replace(HEADER, image_key="images/D000123_2.dcm"))
    uids = [pydicom.dcmread(io.BytesIO(data)).SOPInstanceUID for data in (first, other)]
    assert uids[0] != uids[1]
    assert make_uid("a", "b").is_valid


def test_missing_age_is_empty():
    data = to_dicom(_gray(), device=DEVICES[0], header=replace(HEADER, age_years=None))
    assert pydicom.dcmread(io.BytesIO(data)).PatientAge in ("", None)

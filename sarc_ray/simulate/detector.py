"""Detectors: how a picture becomes a DICOM object.

Device and maker names are invented. Attribute names and clauses are those of DICOM PS3.3 (2025): CR Image IOD
A.2, Digital X-Ray Image IOD A.26, General Image and Image Pixel modules C.7.6.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from typing import Literal

import imagecodecs
import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

_CR_STORAGE = UID("1.2.840.10008.5.1.4.1.1.1")
_DX_STORAGE = UID("1.2.840.10008.5.1.4.1.1.1.1")
_IMPLEMENTATION = UID("2.25.173946280571236405128364120938475610239")
# Height of the detector; with the rows it gives the pixel spacing.
_PLATE_HEIGHT_MM = 430.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Device:
    """An X-ray device.

    Args:
        name: model, as in the manifest.
        maker: manufacturer.
        modality: CR or DX.
        bits_stored: 10 to 16.
        inverted: writes MONOCHROME1.
        aspect: width of the detector over its height.
        syntax: transfer syntax.
        sites: where it stands.
        level: grey values that the picture fills, as fractions of the range.
        rescale: slope and intercept (CR only), or None.
    """

    name: str
    maker: str
    modality: Literal["CR", "DX"]
    bits_stored: int
    inverted: bool
    aspect: float
    syntax: UID
    sites: tuple[str, ...]
    level: tuple[float, float]
    rescale: tuple[float, float] | None


def _device(
    name: str,
    bits_stored: int,
    syntax: UID,
    *sites: str,
    modality: Literal["CR", "DX"] = "DX",
    inverted: bool = False,
    aspect: float = 0.9,
    level: tuple[float, float] = (0.03, 0.92),
    rescale: tuple[float, float] | None = None,
) -> Device:
    return Device(
        name=name,
        maker=f"{name.split('-')[0]} Imaging (simulated)",
        modality=modality,
        bits_stored=bits_stored,
        inverted=inverted,
        aspect=aspect,
        syntax=syntax,
        sites=sites,
        level=level,
        rescale=rescale,
    )


DEVICES: tuple[Device, ...] = (
    _device("Aldera-10", 10, JPEGLosslessSV1, "hospital-a", "hospital-c", modality="CR", inverted=True, aspect=0.92),
    _device("Aldera-12", 12, ExplicitVRLittleEndian, "hospital-a", "community-b", modality="CR", rescale=(1.0, 0.0)),
    _device("Borealis-D", 12, JPEG2000Lossless, "hospital-a", "hospital-c", aspect=1.0, level=(0.05, 0.8)),
    _device("Borealis-X", 14, JPEGLSLossless, "hospital-a", "clinic-d", aspect=0.94),
    _device("Cygna-16", 16, ImplicitVRLittleEndian, "community-b", "hospital-c", inverted=True, level=(0.1, 0.7)),
    _device("Cygna-R", 12, RLELossless, "clinic-d", "hospital-a", inverted=True, aspect=0.96),
    _device("Dorado-14", 14, JPEG2000Lossless, "community-b", "clinic-d", aspect=0.9, level=(0.02, 0.6)),
)
DEVICE_BY_NAME = {device.name: device for device in DEVICES}


@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """What the header says of patient and study; all of it simulated."""

    patient_id: str
    study_id: str
    image_key: str
    sex: str
    age_years: float | None
    acquired_on: str
    view: str
    body_part: str
    site: str


def to_dicom(gray_HW: npt.NDArray[np.float32], *, device: Device, header: Header) -> bytes:
    """One picture as a DICOM Part 10 file; equal arguments give equal bytes.

    Args:
        gray_HW: in [0, 1], bone bright.
        device: decides bits, photometric interpretation and transfer syntax.
        header: simulated patient and study.
    """
    stored_HW = _to_stored(gray_HW, device)
    dataset = _dataset(device, header)
    _add_pixel_module(dataset, stored_HW, device)
    _add_display(dataset, device)
    dataset.PixelData = _encode(stored_HW, device)
    dataset["PixelData"].VR = "OW"
    if device.syntax.is_compressed:
        dataset["PixelData"].is_undefined_length = True
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _to_stored(gray_HW: npt.NDArray[np.float32], device: Device) -> npt.NDArray[np.uint16]:
    low, high = device.level
    top = float(2**device.bits_stored - 1)
    values_HW = np.rint((low + (high - low) * gray_HW) * top)
    return (top - values_HW if device.inverted else values_HW).astype(np.uint16)


def _dataset(device: Device, header: Header) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    sop_class = _CR_STORAGE if device.modality == "CR" else _DX_STORAGE
    instance = make_uid("image", header.image_key)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = sop_class
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = instance
    dataset.file_meta.TransferSyntaxUID = device.syntax
    dataset.file_meta.ImplementationClassUID = _IMPLEMENTATION
    dataset.file_meta.ImplementationVersionName = "SARC_RAY_SIM"
    dataset.StudyInstanceUID = make_uid("study", header.site, header.study_id)
    dataset.SeriesInstanceUID = make_uid("series", header.site, header.study_id)
    dataset.StudyDate = dataset.AcquisitionDate = header.acquired_on.replace("-", "")
    dataset.StudyTime = "120000"
    dataset.Modality = device.modality
    dataset.Manufacturer, dataset.ManufacturerModelName = device.maker, device.name
    dataset.InstitutionName = f"{header.site} (simulated)"
    dataset.PatientName, dataset.PatientID = f"SIM^{header.patient_id}", header.patient_id
    dataset.PatientSex, dataset.PatientBirthDate = header.sex, ""
    # PS3.5 6.2: age string, three digits and a unit.
    dataset.PatientAge = "" if header.age_years is None else f"{int(header.age_years):03d}Y"
    dataset.StudyID, dataset.SeriesNumber, dataset.InstanceNumber = header.study_id, "1", "1"
    dataset.BodyPartExamined, dataset.ViewPosition = header.body_part, header.view
    dataset.ImageType = ["ORIGINAL", "PRIMARY"]
    dataset.BurnedInAnnotation = "NO"
    dataset.ImageComments = "Simulated picture, no patient"
    return dataset


def _add_pixel_module(dataset: Dataset, stored_HW: npt.NDArray[np.uint16], device: Device) -> None:
    dataset.Rows, dataset.Columns = stored_HW.shape
    dataset.SamplesPerPixel, dataset.PixelRepresentation = 1, 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, device.bits_stored, device.bits_stored - 1
    dataset.PhotometricInterpretation = "MONOCHROME1" if device.inverted else "MONOCHROME2"
    spacing = f"{_PLATE_HEIGHT_MM / stored_HW.shape[0]:.6g}"
    dataset.ImagerPixelSpacing = [spacing, spacing]
    if device.modality == "CR":
        dataset.PixelSpacing = [spacing, spacing]


def _add_display(dataset: Dataset, device: Device) -> None:
    top = 2**device.bits_stored - 1
    low, high = (round(level * top) for level in device.level)
    if device.inverted:
        low, high = top - high, top - low
    dataset.WindowCenter, dataset.WindowWidth = str((low + high) // 2), str(high - low)
    # PS3.3 C.11.6: MONOCHROME1 goes with INVERSE.
    dataset.PresentationLUTShape = "INVERSE" if device.inverted else "IDENTITY"
    if device.rescale is not None:
        dataset.RescaleSlope, dataset.RescaleIntercept = (str(value) for value in device.rescale)
        dataset.RescaleType = "US"


def _encode(stored_HW: npt.NDArray[np.uint16], device: Device) -> bytes:
    if device.syntax == JPEG2000Lossless:
        frame = imagecodecs.jpeg2k_encode(
            stored_HW, reversible=True, level=0, codecformat="j2k", bitspersample=device.bits_stored
        )
    elif device.syntax == JPEGLSLossless:
        frame = imagecodecs.jpegls_encode(stored_HW)
    elif device.syntax == JPEGLosslessSV1:
        frame = imagecodecs.ljpeg_encode(stored_HW, bitspersample=device.bits_stored)
    elif device.syntax == RLELossless:
        frame = _rle(stored_HW)
    else:
        return stored_HW.astype("<u2").tobytes()
    return bytes(encapsulate([bytes(frame)], has_bot=True))


def _rle(stored_HW: npt.NDArray[np.uint16]) -> bytes:
    """PS3.5 annex G: a header of 16 words, then one segment per byte plane, high bytes first, row by row."""
    planes = [(stored_HW >> 8).astype(np.uint8), (stored_HW & 0xFF).astype(np.uint8)]
    segments = [b"".join(imagecodecs.packbits_encode(row.tobytes()) for row in plane) for plane in planes]
    segments = [segment + b"\x00" * (len(segment) % 2) for segment in segments]
    offsets = [2, 64, 64 + len(segments[0]), *[0] * 13]
    return np.array(offsets, dtype="<u4").tobytes() + b"".join(segments)


def make_uid(*parts: str) -> UID:
    """A UID derived from text (PS3.5 B.2: 2.25 and a 128-bit integer)."""
    digest = hashlib.sha256("/".join(parts).encode("utf-8")).digest()
    return UID(f"2.25.{int.from_bytes(digest[:16], 'big')}")

"""A heat map as DICOM Secondary Capture Image (PS3.3 A.8.1), to be filed beside the radiograph that it was made of.

H rows, W columns.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from sarc_ray import __version__
from sarc_ray.exporting.objects import (
    MANUFACTURER,
    NOT_FOR_DIAGNOSIS,
    SALIENCY_SERIES_NUMBER,
    make_uid,
    quietly,
    to_bytes,
)
from sarc_ray.exporting.source import LOSSY, Source, file_beside

SERIES_DESCRIPTION = "SARC-Ray saliency, research use only, not for diagnosis"


@dataclass(frozen=True, kw_only=True, slots=True)
class Overlay:
    """A drawn heat map.

    Attributes:
        pixels_HW3: RGB, uint8; the picture says itself that it is not for diagnosis.
        target_label: what is predicted.
        number: of the target within the bundle, from 1.
        model_id: of the bundle.
        of_ensemble: whether the maps are those of several networks, with one of their disagreement.
    """

    pixels_HW3: npt.NDArray[np.uint8]
    target_label: str
    number: int
    model_id: str
    of_ensemble: bool = True


def secondary_capture(overlay: Overlay, source: Source) -> bytes:
    """A Secondary Capture Image in the source's study, as a Part 10 file.

    All overlays of one radiograph by one model are one series. The same picture again has the same UIDs.

    Args:
        overlay: what is shown.
        source: the radiograph.
    """
    with quietly():
        image = _image(overlay, source)
        _describe(image, overlay)
        _refer(image, source)
    file_beside(image, source)
    return to_bytes(image)


def _image(overlay: Overlay, source: Source) -> Dataset:
    from highdicom.sc import SCImage

    of_series = (str(source.sop_instance), overlay.model_id, "saliency")
    picture = (str(overlay.number), hashlib.sha256(overlay.pixels_HW3.tobytes()).hexdigest())
    image = SCImage(
        pixel_array=np.ascontiguousarray(overlay.pixels_HW3),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "F"),
        study_instance_uid=source.study,
        series_instance_uid=make_uid(*of_series, "series"),
        series_number=SALIENCY_SERIES_NUMBER,
        sop_instance_uid=make_uid(*of_series, *picture),
        instance_number=overlay.number,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=MANUFACTURER,
        device_serial_number=overlay.model_id,
        software_versions=__version__,
        series_description=SERIES_DESCRIPTION,
        content_qualification="RESEARCH",
    )
    # highdicom asks for an orientation, but a page of three panels has none (PS3.3 C.7.6.1: type 2C).
    image.PatientOrientation = []
    # PS3.3 C.8.6.1: made by a program, from no other picture format.
    image.ConversionType = "SYN"
    return image


def _describe(image: Dataset, overlay: Overlay) -> None:
    from highdicom.sr import CodedConcept
    from pydicom.sr.codedict import codes

    label = overlay.target_label.encode("ascii", "replace").decode("ascii")
    whose = "mean and standard deviation over an ensemble" if overlay.of_ensemble else "of one network"
    image.DerivationDescription = (
        f"Heat map of where the predicted {label} comes from (gradient-weighted activations, {whose}); "
        f"model_id {overlay.model_id}. {NOT_FOR_DIAGNOSIS}."
    )
    image.DerivationCodeSequence = [CodedConcept.from_code(codes.DCM.Saliency)]
    image.ImageComments = f"{label}. {NOT_FOR_DIAGNOSIS}."
    # Predictions are written into the picture, and the radiograph shown in it may bring annotations of its own.
    image.BurnedInAnnotation = "YES"


def _refer(image: Dataset, source: Source) -> None:
    from highdicom.sr import CodedConcept
    from pydicom.sr.codedict import codes

    item = Dataset()
    item.ReferencedSOPClassUID = source.sop_class
    item.ReferencedSOPInstanceUID = source.sop_instance
    item.PurposeOfReferenceCodeSequence = [CodedConcept.from_code(codes.DCM.SourceImageForImageProcessingOperation)]
    image.SourceImageSequence = [item]
    for keyword in LOSSY:
        if source.header.get("LossyImageCompression") == "01" and keyword in source.header:
            setattr(image, keyword, source.header[keyword].value)

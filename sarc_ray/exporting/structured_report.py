"""Scores of one study as DICOM Comprehensive 3D SR (PS3.3 A.35.13) after TID 1500, Measurement Report (PS3.16).

Standard codes are taken from pydicom's copy of the standard's tables. What these do not have is coded in the private
scheme :data:`sarc_ray.exporting.objects.PRIVATE_SCHEME`; there is no code of a measured quantity among them (see
:mod:`sarc_ray.exporting.quantities`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydicom.dataset import Dataset
from pydicom.uid import ComputedRadiographyImageStorage

from sarc_ray import __version__
from sarc_ray.exporting.objects import (
    MANUFACTURER,
    NOT_FOR_DIAGNOSIS,
    PRIVATE_SCHEME,
    REPORT_SERIES_NUMBER,
    make_uid,
    quietly,
    to_bytes,
)
from sarc_ray.exporting.quantities import UCUM, Quantity
from sarc_ray.exporting.source import Source, file_beside

if TYPE_CHECKING:  # an extra
    from highdicom.sr import CodedConcept, Measurement, MeasurementReport, MeasurementsAndQualitativeEvaluations

SERIES_DESCRIPTION = "SARC-Ray score, research use only, not for diagnosis"
_SCHEME_NAME = "SARC-Ray predictions and scores"
_SCHEME_VERSION = "1"
_MEANING_CHARACTERS = 64
# What highdicom takes over from the radiograph, and what is put in at the end instead.
_EMPTY = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex",
    "AccessionNumber", "StudyID", "StudyDate", "StudyTime",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredImage:
    """A radiograph and what the score table says of it.

    Attributes:
        source: its header.
        values: by column of the score table; those of all quantities.
    """

    source: Source
    values: Mapping[str, float | bool]


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """What made the scores.

    Attributes:
        model_id: of the bundle, 32 hexadecimal digits.
        release: of this package, which wrote the bundle.
        predicts: the outcome, for people.
        clinical_features: that the score was made of, beside the radiograph.
        threshold: in force.
        known: the quantities of a scored row.
    """

    model_id: str
    release: str
    predicts: str
    clinical_features: tuple[str, ...]
    threshold: float
    known: tuple[Quantity, ...]


def structured_report(images: Sequence[ScoredImage], model: Model) -> bytes:
    """One report on all scored radiographs of a study, as a Part 10 file; the same content has the same UIDs.

    It is a preliminary, unverified document: nobody has looked at it.

    Args:
        images: of one study and patient, one or more; each becomes a measurement group of its own.
        model: what made the scores.
    """
    from highdicom.sr import Comprehensive3DSR

    first = images[0].source
    said = [f"{image.source.sop_instance} {sorted(image.values.items())}" for image in images]
    with quietly():
        report = Comprehensive3DSR(
            evidence=[_evidence(image.source) for image in images],
            content=_content(images, model)[0],
            series_instance_uid=make_uid(str(first.study), model.model_id, "report", "series"),
            series_number=REPORT_SERIES_NUMBER,
            sop_instance_uid=make_uid(str(first.study), model.model_id, "report", *said),
            instance_number=1,
            manufacturer=MANUFACTURER,
            manufacturer_model_name=MANUFACTURER,
            device_serial_number=model.model_id,
            software_versions=__version__,
            series_description=SERIES_DESCRIPTION,
            content_qualification="RESEARCH",
            coding_schemes=_schemes(),
            is_complete=True,
            is_final=False,
            is_verified=False,
        )
        _name_classes(report, images)
    file_beside(report, first)
    return to_bytes(report)


def private_code(value: str, meaning: str) -> CodedConcept:
    """A code of our own scheme."""
    from highdicom.sr import CodedConcept

    return CodedConcept(value=value, scheme_designator=PRIVATE_SCHEME, meaning=meaning)


def unit_code(unit: str) -> CodedConcept:
    """A unit: of UCUM where it is known to be one, else of our own scheme."""
    from highdicom.sr import CodedConcept

    if unit in UCUM:
        return CodedConcept(value=unit, scheme_designator="UCUM", meaning=UCUM[unit])
    plain = _plain(unit)
    # Code Meaning is a Long String (PS3.5 6.2).
    return private_code(plain, plain[:_MEANING_CHARACTERS])


def _plain(text: str) -> str:
    """ASCII, since the archive's own character set may lack other characters."""
    return text.encode("ascii", "replace").decode("ascii")


def _evidence(source: Source) -> Dataset:
    """What a report needs to refer to a radiograph, and nothing that tells who is on it."""
    evidence = Dataset()
    # highdicom looks up which modules this class has, and knows no private class; see _name_classes.
    evidence.SOPClassUID, evidence.SOPInstanceUID = ComputedRadiographyImageStorage, source.sop_instance
    evidence.StudyInstanceUID, evidence.SeriesInstanceUID = source.study, source.series
    for keyword in _EMPTY:
        setattr(evidence, keyword, "")
    return evidence


def _name_classes(report: Dataset, images: Sequence[ScoredImage]) -> None:
    """Put the radiographs' own classes into the list of evidence."""
    classes = {str(image.source.sop_instance): image.source.sop_class for image in images}
    for study in report.CurrentRequestedProcedureEvidenceSequence:
        for series in study.ReferencedSeriesSequence:
            for item in series.ReferencedSOPSequence:
                item.ReferencedSOPClassUID = classes[str(item.ReferencedSOPInstanceUID)]


def _schemes() -> list[Dataset]:
    from highdicom.coding_schemes import CodingSchemeIdentificationItem

    return [
        CodingSchemeIdentificationItem(
            designator=PRIVATE_SCHEME,
            name=_SCHEME_NAME,
            version=_SCHEME_VERSION,
            responsible_organization=MANUFACTURER,
        )
    ]


def _content(images: Sequence[ScoredImage], model: Model) -> MeasurementReport:
    from highdicom.sr import (
        DeviceObserverIdentifyingAttributes,
        MeasurementReport,
        ObservationContext,
        ObserverContext,
        RelationshipTypeValues,
        TextContentItem,
    )
    from pydicom.sr.codedict import codes

    device = DeviceObserverIdentifyingAttributes(
        uid=make_uid("model", model.model_id),
        name=f"{MANUFACTURER} {__version__}",
        manufacturer_name=MANUFACTURER,
        model_name=f"{MANUFACTURER}, {_plain(model.predicts)}, bundle of release {model.release}",
        serial_number=model.model_id,
    )
    observer = ObserverContext(observer_type=codes.DCM.Device, observer_identifying_attributes=device)
    content = MeasurementReport(
        observation_context=ObservationContext(observer_device_context=observer),
        procedure_reported=codes.SCT.ImagingProcedure,
        imaging_measurements=[_group(image, model) for image in images],
    )
    note = TextContentItem(
        name=codes.DCM.Comment,
        value=f"{NOT_FOR_DIAGNOSIS}. Predictions of a statistical model; nothing was measured. The score uses the "
        f"radiograph and {_plain(', '.join(model.clinical_features))}. Threshold of the score: {model.threshold!r}.",
        relationship_type=RelationshipTypeValues.CONTAINS,
    )
    content[0].ContentSequence.append(note)
    return content


def _group(image: ScoredImage, model: Model) -> MeasurementsAndQualitativeEvaluations:
    from highdicom.sr import (
        AlgorithmIdentification,
        MeasurementsAndQualitativeEvaluations,
        QualitativeEvaluation,
        SourceImageForMeasurementGroup,
        TrackingIdentifier,
    )
    from pydicom.sr.codedict import codes

    source = image.source
    flags = [quantity for quantity in model.known if quantity.statistic == "flag"]
    numbers = [quantity for quantity in model.known if quantity.statistic != "flag"]
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(
            uid=make_uid(str(source.sop_instance), model.model_id, "tracking"), identifier="SARC-Ray score"
        ),
        algorithm_id=AlgorithmIdentification(
            name=MANUFACTURER, version=__version__, parameters=[f"model_id {model.model_id}"]
        ),
        measurements=[_measurement(quantity, float(image.values[quantity.column])) for quantity in numbers],
        qualitative_evaluations=[
            QualitativeEvaluation(
                name=private_code(quantity.column, quantity.meaning),
                value=codes.SCT.Yes if image.values[quantity.column] else codes.SCT.No,
            )
            for quantity in flags
        ],
        source_images=[
            SourceImageForMeasurementGroup(
                referenced_sop_class_uid=source.sop_class, referenced_sop_instance_uid=source.sop_instance
            )
        ],
    )


def _measurement(quantity: Quantity, value: float) -> Measurement:
    from highdicom.sr import Measurement
    from pydicom.sr.codedict import codes

    derivations: dict[str, Any] = {"mean": codes.SCT.Mean, "sd": codes.SCT.StandardDeviation}
    # Mean and standard deviation of one quantity have its one name, and differ by their derivation (TID 1419).
    name = (
        quantity.column.removesuffix("_mu").removesuffix("_sigma") if quantity.statistic != "flag" else quantity.column
    )
    assert quantity.unit is not None
    return Measurement(
        name=private_code(name, quantity.meaning),
        value=value,
        unit=unit_code(quantity.unit),
        derivation=derivations.get(quantity.statistic),
    )

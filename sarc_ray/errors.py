"""Errors and the closed list of per-image reason codes.

SarcRayError
|-- ConfigError       a setting is wrong: which key, what was found, what is allowed
|-- ManifestError     a manifest's column, unit or value is wrong
|-- StorageError      an object or table could not be read or written
|   |-- TableBusyError  another run writes this table
|   +-- CredentialsError  the store does not accept the credentials, or no longer
|-- SchemaVersionError  a file was written by a newer version of this software, or by one too old
|-- BundleError       a bundle is damaged, altered or of another kind
|-- TrainingError     an ensemble member failed after all retries
|   +-- ConstantMemberError  a training ended in a network that no longer looks at its pictures
|-- EvaluationError   labels and scores cannot be brought together
|-- ExportError       a radiograph's header lacks what an archive files by
+-- ImageError        one image cannot be used; becomes an outcome row, never a crash

Messages name the thing, the value found, what is allowed and the remedy.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class SarcRayError(Exception):
    """Base of every error that this package raises on purpose."""


class ConfigError(SarcRayError, ValueError):
    """A configuration key or value is not allowed."""


class ManifestError(SarcRayError, ValueError):
    """A manifest lacks a column or holds a value that is not allowed."""


class StorageError(SarcRayError, OSError):
    """An object could not be read or written."""


class TableBusyError(StorageError):
    """Another run writes the table, or has taken it over from this one."""


class CredentialsError(StorageError):
    """A store does not accept the credentials: missing, wrong or expired."""


class SchemaVersionError(SarcRayError, ValueError):
    """A file has a schema version that this release does not know."""


class BundleError(SarcRayError, ValueError):
    """A bundle is damaged, altered, or does not fit the request."""


class TrainingError(SarcRayError, RuntimeError):
    """Ensemble members failed after all their retries."""


class ConstantMemberError(TrainingError):
    """A trained network says the same of every picture."""


class EvaluationError(SarcRayError, ValueError):
    """Scores and labels cannot be evaluated together."""


class ExportError(SarcRayError, ValueError):
    """Nothing can be filed beside a radiograph; the message quotes nothing of its header."""


class Outcome(StrEnum):
    """What became of one manifest row."""

    SCORED = "scored"
    ABSTAINED = "abstained"
    REJECTED = "rejected"


class Reason(StrEnum):
    """Why a row was not scored. The empty reason belongs to scored rows."""

    NONE = ""
    STORAGE_FAILED = "storage_failed"
    OBJECT_MISSING = "object_missing"
    NOT_DICOM = "not_dicom"
    NO_PIXELS = "no_pixels"
    UNSUPPORTED_SYNTAX = "unsupported_syntax"
    DECODE_FAILED = "decode_failed"
    IMAGE_TOO_LARGE = "image_too_large"
    UNSUPPORTED_PIXELS = "unsupported_pixels"
    NOT_CHEST = "not_chest"
    LATERAL_VIEW = "lateral_view"
    PAEDIATRIC = "paediatric"
    BLANK_IMAGE = "blank_image"
    SATURATED_IMAGE = "saturated_image"
    ODD_ASPECT = "odd_aspect"
    COLLIMATED = "collimated"
    SCREENSHOT = "screenshot"
    ROTATED = "rotated"
    INVERTED = "inverted"
    UNLIKE_CHEST = "unlike_chest"
    DECODER_CRASHED = "decoder_crashed"
    DECODER_TIMEOUT = "decoder_timeout"
    INTERNAL_ERROR = "internal_error"
    MISSING_AGE = "missing_age"
    MISSING_SEX = "missing_sex"
    MISSING_BMI = "missing_bmi"
    MISSING_VIEW = "missing_view"
    MISSING_FEATURE = "missing_feature"
    IMPLAUSIBLE_FEATURE = "implausible_feature"
    AGE_BELOW_MINIMUM = "age_below_minimum"
    OUT_OF_DISTRIBUTION = "out_of_distribution"


@dataclass(frozen=True, kw_only=True, slots=True)
class ReasonFacts:
    """Outcome that a reason leads to, whether a retry can help, and its meaning."""

    outcome: Outcome
    retryable: bool
    meaning: str


def _rejected(meaning: str, *, retryable: bool = False) -> ReasonFacts:
    return ReasonFacts(outcome=Outcome.REJECTED, retryable=retryable, meaning=meaning)


def _abstained(meaning: str) -> ReasonFacts:
    return ReasonFacts(outcome=Outcome.ABSTAINED, retryable=False, meaning=meaning)


REASONS: dict[Reason, ReasonFacts] = {
    Reason.NONE: ReasonFacts(outcome=Outcome.SCORED, retryable=False, meaning="the image was scored"),
    Reason.STORAGE_FAILED: _rejected("the object store failed after all retries", retryable=True),
    Reason.OBJECT_MISSING: _rejected("no object exists under the manifest's URI"),
    Reason.NOT_DICOM: _rejected("the object is not a DICOM Part 10 file"),
    Reason.NO_PIXELS: _rejected("the DICOM file has no pixel data"),
    Reason.UNSUPPORTED_SYNTAX: _rejected("no decoder exists for the transfer syntax"),
    Reason.DECODE_FAILED: _rejected("the pixel data is damaged or contradicts its header"),
    Reason.IMAGE_TOO_LARGE: _rejected("rows, columns, frames or bytes exceed the limits"),
    Reason.UNSUPPORTED_PIXELS: _rejected("colour, multi-frame or pixel layout of no radiograph"),
    Reason.NOT_CHEST: _rejected("the header names another kind of object, modality, body part or species"),
    Reason.LATERAL_VIEW: _rejected("the view is lateral; the score is defined on frontal radiographs"),
    Reason.PAEDIATRIC: _rejected("the patient is younger than 18 years"),
    Reason.BLANK_IMAGE: _rejected("the picture has no contrast"),
    Reason.SATURATED_IMAGE: _rejected("most of the picture is at the darkest or the brightest value"),
    Reason.ODD_ASPECT: _rejected("the sides' ratio is that of no chest radiograph"),
    Reason.COLLIMATED: _abstained("the exposed field covers too little of the picture"),
    Reason.SCREENSHOT: _rejected("text or a frame is burned into the picture, as in a screenshot"),
    Reason.ROTATED: _abstained("the chest lies on its side or upside down in the picture"),
    Reason.INVERTED: _abstained("bone is dark and air is bright, against what the header says"),
    Reason.UNLIKE_CHEST: _abstained("the pixels do not look like a frontal chest radiograph"),
    Reason.DECODER_CRASHED: _rejected("reading this image ended its process"),
    Reason.DECODER_TIMEOUT: _rejected("reading this image took longer than the limit"),
    Reason.INTERNAL_ERROR: _rejected("an unforeseen error while reading this image"),
    Reason.MISSING_AGE: _abstained("age is absent from the manifest, and absent or implausible in the header"),
    Reason.MISSING_SEX: _abstained("sex is absent from the manifest and the header"),
    Reason.MISSING_BMI: _abstained("body-mass index, or height and weight, are absent, or implausible in the header"),
    Reason.MISSING_VIEW: _abstained("the view is a feature of the bundle and is absent"),
    Reason.MISSING_FEATURE: _abstained("another clinical feature of the bundle is absent"),
    Reason.IMPLAUSIBLE_FEATURE: _abstained("a clinical feature is outside its plausible range"),
    Reason.AGE_BELOW_MINIMUM: _abstained("the patient is younger than the score's eligible age"),
    Reason.OUT_OF_DISTRIBUTION: _abstained("the picture is too unlike the training pictures"),
}


class ImageError(SarcRayError):
    """One image cannot be used.

    Args:
        reason: the code that goes into the outcome row.
        detail: for developers; must not hold patient data (it is never written to tables).
    """

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else str(reason))
        self.reason = reason

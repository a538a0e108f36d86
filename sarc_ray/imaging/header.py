"""The few facts of a DICOM header that are needed, read however archives write them.

Names, identifiers and dates of birth do not leave this module; a date of birth only serves to compute an age in
whole years. "Part 3" and so on are parts of the DICOM standard, PS3.3 and so on.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import math
import re
import unicodedata
from dataclasses import dataclass
from typing import Any

import pydicom
from pydicom import uid as uids
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

# Part 5 6.2: the longest of the texts read here (LO) has 64 characters. A damaged length can make it megabytes, which
# must not travel into a table.
TEXT_MAX = 64
AGE_PLAUSIBLE_MAX_YEARS = 120.0
# Heights in centimetres, weights in grams, 0 and 999 are found in archives; what they were meant to be is not guessed.
_HEIGHT_PLAUSIBLE_M = (1.0, 2.5)
_WEIGHT_PLAUSIBLE_KG = (20.0, 350.0)
_BMI_PLAUSIBLE_KG_M2 = (10.0, 80.0)
_AGE = re.compile(r"^(\d{1,3}(?:\.\d+)?)\s*([DWMY]?)$")
_PER_YEAR = {"": 1.0, "Y": 1.0, "M": 12.0, "W": 52.18, "D": 365.25}
_DATE = re.compile(r"^(\d{4})[.\-/]?(\d{2})[.\-/]?(\d{2})")
_VIEWS_IN_PATIENT_POSITION = ("PA", "AP", "LL", "RL", "LATERAL", "LAT")
# Spelled-out views (code meanings of Part 16 CID 4010 among them) as View Position would have them, letters alone.
_FRONTAL_VIEWS = {"PA": "PA", "AP": "AP", "POSTEROANTERIOR": "PA", "ANTEROPOSTERIOR": "AP"}
# What archives write beside PA and AP, and what does not make another view of it.
_BESIDE_A_VIEW = (
    "BEDSIDE", "CHEST", "ERECT", "HORIZONTAL", "MOBILE", "PORT", "PORTABLE", "SEMIERECT", "SITTING", "STANDING",
    "SUPINE", "THORAX", "UPRIGHT", "VIEW",
)  # fmt: skip
# Birth dates that stand for an unknown one.
_NO_BIRTH_DATES = (dt.date(1900, 1, 1),)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# Where a header tells a mobile unit: names of models, and free text of orders and protocols. Only whether one of them
# does is kept, since free text may hold anything.
_PORTABLE_TAGS = (
    "BodyPartExamined", "ViewPosition", "ManufacturerModelName", "StudyDescription", "SeriesDescription",
    "ProtocolName", "PerformedProcedureStepDescription",
)  # fmt: skip
_PORTABLE = re.compile(r"\bPORT(ABLE)?\b|\bMOBILE|MOBILETT|MOBILEDART|\bBEDSIDE\b|DRX-?REVOLUTION|OPTIMA XR2|\bAMX")


@dataclass(frozen=True, kw_only=True, slots=True)
class HeaderFacts:
    """What is kept of a header: no names, identifiers or exact dates. None where absent or implausible."""

    age_years: float | None
    sex: str | None
    bmi_kg_m2: float | None
    view: str | None
    acquired_month: str | None
    sop_class: str | None
    modality: str | None
    body_part: str | None
    species: str | None
    portable: bool
    manufacturer: str | None
    model: str | None
    photometric: str | None
    rows: int
    columns: int
    bits_stored: int
    transfer_syntax: str

    @property
    def device(self) -> str | None:
        """Manufacturer and model in one text."""
        return " ".join(part for part in (self.manufacturer, self.model) if part) or None


def read_header(dataset: Dataset) -> HeaderFacts:
    """The facts of a header; every value is optional but the transfer syntax."""
    return HeaderFacts(
        age_years=_age_years(dataset),
        sex=_one_of(tag_text(dataset, "PatientSex"), ("F", "M")),
        bmi_kg_m2=_bmi(dataset),
        view=_view(dataset),
        acquired_month=_month(dataset),
        sop_class=tag_text(dataset, "SOPClassUID"),
        modality=tag_text(dataset, "Modality"),
        body_part=_body_part(dataset),
        species=tag_text(dataset, "PatientSpeciesDescription"),
        portable=any(_PORTABLE.search(tag_text(dataset, keyword) or "") for keyword in _PORTABLE_TAGS),
        manufacturer=tag_text(dataset, "Manufacturer"),
        model=tag_text(dataset, "ManufacturerModelName"),
        photometric=tag_text(dataset, "PhotometricInterpretation"),
        rows=tag_integer(dataset, "Rows", 0),
        columns=tag_integer(dataset, "Columns", 0),
        bits_stored=tag_integer(dataset, "BitsStored", 0),
        transfer_syntax=transfer_syntax(dataset),
    )


def transfer_syntax(dataset: Dataset) -> str:
    """The transfer syntax; where the file does not name one, what its encoding shows."""
    found = getattr(dataset.file_meta, "TransferSyntaxUID", None)
    if found:
        return str(found)
    implicit, _ = dataset.original_encoding
    return str(uids.ImplicitVRLittleEndian if implicit else uids.ExplicitVRLittleEndian)


def tag_value(dataset: Dataset, keyword: str) -> Any:
    """The first value of a tag; None where it is absent, empty or not of its type."""
    try:
        value = dataset.get(keyword)
    except Exception:  # Conversion of damaged values raises nearly every type; a value that cannot be read is absent.
        return None
    if isinstance(value, pydicom.multival.MultiValue | list):
        value = value[0] if value else None
    return None if value is None or value == "" else value


def tag_text(dataset: Dataset, keyword: str) -> str | None:
    """A tag's first value as upper-case text of at most ``TEXT_MAX`` characters; None where it is absent or empty.

    Control characters become spaces: such a text is shown on terminals, and an escape sequence would be obeyed.
    """
    value = tag_value(dataset, keyword)
    return _CONTROL.sub(" ", str(value)[:TEXT_MAX]).strip().upper() or None if value is not None else None


def tag_number(dataset: Dataset, keyword: str) -> float | None:
    """A tag's first value as a finite number; None where it is absent or none."""
    try:
        value = float(tag_value(dataset, keyword))
    except (ValueError, TypeError, OverflowError):
        return None
    return value if math.isfinite(value) else None


def tag_integer(dataset: Dataset, keyword: str, default: int) -> int:
    """A tag's first value as a whole number, or the default."""
    value = tag_number(dataset, keyword)
    return default if value is None else int(value)


def _one_of(text: str | None, allowed: tuple[str, ...]) -> str | None:
    return text if text in allowed else None


def _age_years(dataset: Dataset) -> float | None:
    """Age from Patient's Age (Part 5 6.2 AS, and how archives really write it), else from two dates.

    "062Y", "009M", "81" and "9.0" are read; "000Y" and texts stand for unknown, so that the dates are asked; an age
    that cannot be is no age, whatever the dates say. The age from dates is in whole years from the first birthday on.
    """
    match = _AGE.match(tag_text(dataset, "PatientAge") or "")
    age = float(match.group(1)) / _PER_YEAR[match.group(2)] if match else 0.0
    if age == 0.0:
        age = _age_from_dates(_date(dataset, "PatientBirthDate"), _taken_on(dataset))
    return age if 0 < age <= AGE_PLAUSIBLE_MAX_YEARS else None


def _age_from_dates(birth: dt.date | None, taken: dt.date | None) -> float:
    """Whole years, a fraction before the first birthday; 0 where it cannot be told."""
    if birth is None or birth in _NO_BIRTH_DATES or taken is None or taken <= birth:
        return 0.0
    years = taken.year - birth.year - ((taken.month, taken.day) < (birth.month, birth.day))
    return float(years) or (taken - birth).days / 365.25


def _date(dataset: Dataset, keyword: str) -> dt.date | None:
    match = _DATE.match(tag_text(dataset, keyword) or "")
    if match is None:
        return None
    try:
        return dt.date(*(int(part) for part in match.groups()))
    except ValueError:
        return None


def _taken_on(dataset: Dataset) -> dt.date | None:
    # Not Content Date or Series Date: converters write the day of the conversion there.
    keywords = ("AcquisitionDate", "StudyDate")
    return next((date for date in (_date(dataset, keyword) for keyword in keywords) if date), None)


def _month(dataset: Dataset) -> str | None:
    taken = _taken_on(dataset)
    return f"{taken:%Y-%m}" if taken else None


def _bmi(dataset: Dataset) -> float | None:
    height_m, weight_kg = tag_number(dataset, "PatientSize"), tag_number(dataset, "PatientWeight")
    if not _within(height_m, _HEIGHT_PLAUSIBLE_M) or not _within(weight_kg, _WEIGHT_PLAUSIBLE_KG):
        return None
    assert height_m is not None
    assert weight_kg is not None
    bmi = weight_kg / height_m**2
    return bmi if _within(bmi, _BMI_PLAUSIBLE_KG_M2) else None


def _within(value: float | None, limits: tuple[float, float]) -> bool:
    return value is not None and limits[0] <= value <= limits[1]


def _view(dataset: Dataset) -> str | None:
    """View Position, Patient Position where it holds a view, View Code Sequence; LATERAL where rows run front to back.

    The first that says something is taken.
    """
    view = tag_text(dataset, "ViewPosition") or _one_of(
        tag_text(dataset, "PatientPosition"), _VIEWS_IN_PATIENT_POSITION
    )
    view = view or _code_meaning(dataset, "ViewCodeSequence")  # Part 3 C.8.11.5
    if view is not None:
        return _as_view_position(view)
    rows_run = tag_text(dataset, "PatientOrientation") or ""
    # Part 3 C.7.6.1.1.1: in a frontal view rows run left or right. AP and PA are no directions, but say a view.
    if rows_run[:1] in ("A", "P") and rows_run not in _FRONTAL_VIEWS:
        return "LATERAL"
    return None


def _as_view_position(text: str) -> str:
    """PA or AP where a text says nothing else ("POSTERO-ANTERIOR", "AP SUPINE"); other texts as they are."""
    words = re.split(r"[^A-Z]+", text)
    return _FRONTAL_VIEWS.get("".join(word for word in words if word not in _BESIDE_A_VIEW), text)


def _body_part(dataset: Dataset) -> str | None:
    """Body Part Examined, else the meaning of Anatomic Region Sequence, which DX objects have (Part 3 C.8.11.2).

    Archives write it in other languages, and in UTF-8 although a code string has no character set but the default one
    (Part 5 6.2): accents are left out.
    """
    text = tag_text(dataset, "BodyPartExamined") or _code_meaning(dataset, "AnatomicRegionSequence")
    if text is None or text.isascii():
        return text
    with contextlib.suppress(UnicodeError):
        value = tag_value(dataset, "BodyPartExamined")
        text = _CONTROL.sub(" ", str(value)[:TEXT_MAX].encode("latin-1").decode("utf-8")).strip().upper() or text
    apart = unicodedata.normalize("NFKD", text)
    return "".join(character for character in apart if not unicodedata.combining(character))


def _code_meaning(dataset: Dataset, keyword: str) -> str | None:
    """The meaning of the first item of a sequence of codes."""
    items = tag_value(dataset, keyword)
    return tag_text(items[0], "CodeMeaning") if isinstance(items, Sequence) and len(items) else None

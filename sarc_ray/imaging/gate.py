"""Which objects are frontal chest radiographs of adults, as far as a header can tell.

Headers lie and leave out: what is stated and wrong is refused; what is absent or vague passes, and the pixels decide
(:mod:`sarc_ray.imaging.pixel_gate`). "Part 3" and so on are parts of the DICOM standard, PS3.3 and so on.
"""

from __future__ import annotations

import re

from pydicom import uid as uids

from sarc_ray.errors import ImageError, Reason
from sarc_ray.imaging.header import HeaderFacts

ADULT_AGE_YEARS = 18.0
# Part 3 C.7.3.1.1.1: computed, digital and film radiography.
MODALITIES = ("CR", "DX", "DR", "RG")
# The same clause: other, hard copy, and XR and SC, which are no defined terms: what secondary captures, scanned films
# and converted files carry. They say nothing of what was taken.
VAGUE_MODALITIES = ("OT", "HC", "SC", "XR", "UNKNOWN")
# Part 4 B.5: what a radiograph is stored as: CR, DX, and Secondary Captures of them, whatever their Modality.
SOP_CLASSES = tuple(
    str(uid)
    for uid in (
        uids.ComputedRadiographyImageStorage,
        uids.DigitalXRayImageStorageForPresentation,
        uids.DigitalXRayImageStorageForProcessing,
        uids.SecondaryCaptureImageStorage,
        uids.MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
        uids.MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
        uids.MultiFrameTrueColorSecondaryCaptureImageStorage,  # its pixels may be grey; colour is refused later
        "1.2.840.10008.5.1.1.29",  # Hardcopy Grayscale Image Storage (retired): the class of Modality HC
    )
)
# Parts of the names under which archives file chest radiographs (Part 16 annex L: CHEST; others are local spellings).
_CHEST_WORDS = ("CHEST", "THORAX", "TORAX", "LUNG", "PULMO", "POUMON", "CXR")
# The same annex: CHESTABDOMEN, CHESTABDPELVIS and whole bodies show a chest, but not as a chest radiograph does.
_MORE_THAN_CHEST = ("ABD", "PELVI", "BODY", "BABY")
_VAGUE_BODY_PARTS = (
    "UNKNOWN", "OTHER", "OTHERS", "NONE", "UNSPECIFIED", "NOT SPECIFIED", "UNDEFINED", "DEFAULT", "ANY", "GENERAL",
    "UNK", "NA", "N/A", "-", "?",
)  # fmt: skip
# Part 3 C.8.7.1 and Part 16 CID 4010: lateral and oblique views; the rest are local spellings.
_SIDE_VIEWS = (
    "LL",
    "RL",
    "LLO",
    "RLO",
    "LAO",
    "RAO",
    "LPO",
    "RPO",
    "LLAT",
    "RLAT",
    "XLAT",
    "XTLAT",
    "SWIMMERS",
    "PERFIL",
)
_SIDE_WORDS = ("LATERAL", "OBL", "SEITLICH")
_SIDE_BEGINNINGS = ("LAT", "PROFIL")
_HUMAN = ("HUMAN", "HOMO SAPIENS")

# The closed list of what is remarked on a picture without being held against it.
FLAGS: dict[str, str] = {
    "ap_view": "the header's view is AP: the heart looks larger, the patient is often ill",
    "portable_ap": "the header tells a mobile unit, and its view is not PA",
    "view_unknown": "the header has no view: that it is frontal was seen in the pixels, if they are judged",
    "body_part_unknown": "the header names no body part, or a vague one",
    "secondary": "stored as a Secondary Capture or under a Modality that says nothing",
}


def check(header: HeaderFacts) -> None:
    """Let a header pass, or refuse it.

    Raises:
        ImageError: NOT_CHEST (another kind of object, modality, body part or species), LATERAL_VIEW (lateral or
            oblique) or PAEDIATRIC.
    """
    _check_kind(header)
    part = header.body_part
    if not _is_vague_part(part) and not _is_chest(str(part)):
        raise ImageError(Reason.NOT_CHEST, f"body part {part}")
    # Part 3 C.7.1.1: Patient Species Description is there for animals alone.
    if header.species is not None and header.species not in _HUMAN:
        raise ImageError(Reason.NOT_CHEST, f"species {header.species}")
    if is_lateral(header.view):
        raise ImageError(Reason.LATERAL_VIEW, f"view {header.view}")
    if header.age_years is not None and header.age_years < ADULT_AGE_YEARS:
        raise ImageError(Reason.PAEDIATRIC, f"younger than {ADULT_AGE_YEARS:g} years")


def flags(header: HeaderFacts) -> tuple[str, ...]:
    """Names of ``FLAGS`` that a header earns, in that order."""
    is_ap = header.view is not None and header.view.startswith("AP")
    earned = {
        "ap_view": is_ap,
        "portable_ap": header.portable and (is_ap or header.view is None or header.view.startswith("PORT")),
        "view_unknown": header.view is None,
        "body_part_unknown": _is_vague_part(header.body_part),
        "secondary": header.sop_class in SOP_CLASSES[3:] or _is_vague_modality(header.modality),
    }
    return tuple(name for name in FLAGS if earned[name])


def is_lateral(view: str | None) -> bool:
    """True for lateral and oblique views; a lateral decubitus radiograph (LLD, RLD) is a frontal view."""
    if view is None:
        return False
    words = re.split(r"[^A-Z]+", view)
    if "DECUB" in view or "DEC" in words:
        return False
    # Only whole words and beginnings of them: "flat" and "ventilated" hold LAT too.
    by_word = any(word in _SIDE_VIEWS or word.startswith(_SIDE_BEGINNINGS) for word in words)
    return by_word or any(part in view for part in _SIDE_WORDS)


def _check_kind(header: HeaderFacts) -> None:
    """Both the SOP class and the modality must allow a radiograph; neither has to prove it."""
    modality, sop_class = header.modality, header.sop_class
    if modality not in MODALITIES and not _is_vague_modality(modality):
        raise ImageError(Reason.NOT_CHEST, f"modality {modality}; allowed: {', '.join(MODALITIES)}")
    # A private or unheard-of class is a vendor's own: the modality speaks for it.
    if sop_class is not None and sop_class not in SOP_CLASSES and uids.UID(sop_class).keyword:
        raise ImageError(Reason.NOT_CHEST, f"SOP class {uids.UID(sop_class).name}")


def _is_vague_modality(modality: str | None) -> bool:
    return modality is None or modality in VAGUE_MODALITIES


def _is_vague_part(part: str | None) -> bool:
    return part is None or part in _VAGUE_BODY_PARTS


def _is_chest(part: str) -> bool:
    return any(word in part for word in _CHEST_WORDS) and not any(word in part for word in _MORE_THAN_CHEST)

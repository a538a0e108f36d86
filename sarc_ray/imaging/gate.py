"""Which objects are frontal chest radiographs of people, as far as a header can tell.

Headers lie and leave out: what is absent passes, what is stated and wrong does not.
"""

from __future__ import annotations

from sarc_ray.errors import ImageError, Reason
from sarc_ray.imaging.header import HeaderFacts

# Part 3 C.7.3.1.1.1: computed, digital and film radiography. Secondary captures keep the modality of the original.
MODALITIES = ("CR", "DX", "DR", "RG")
# Parts of the names under which archives file chest radiographs (Part 16 annex L: CHEST; others are local spellings).
_CHEST_WORDS = ("CHEST", "THORAX", "TORAX", "LUNG")
# Part 3 C.8.7.1.1.1 and C.8.11.7: lateral and oblique views.
_LATERAL_OR_OBLIQUE = ("LL", "RL", "LLO", "RLO", "LAO", "RAO", "LPO", "RPO")
_HUMAN = ("HUMAN", "HOMO SAPIENS")


def check(header: HeaderFacts) -> None:
    """Let a header pass, or refuse it.

    Raises:
        ImageError: NOT_CHEST (another modality, body part or species) or LATERAL_VIEW (lateral or oblique).
    """
    if header.modality is not None and header.modality not in MODALITIES:
        raise ImageError(Reason.NOT_CHEST, f"modality {header.modality}; allowed: {', '.join(MODALITIES)}")
    if header.body_part is not None and not any(word in header.body_part for word in _CHEST_WORDS):
        raise ImageError(Reason.NOT_CHEST, f"body part {header.body_part}")
    if header.species is not None and header.species not in _HUMAN:
        raise ImageError(Reason.NOT_CHEST, f"species {header.species}")
    if is_lateral(header.view):
        raise ImageError(Reason.LATERAL_VIEW, f"view {header.view}")


def is_lateral(view: str | None) -> bool:
    """True for lateral and oblique views; a lateral decubitus radiograph (LLD, RLD) is a frontal view."""
    if view is None or "DECUB" in view:
        return False
    return view in _LATERAL_OR_OBLIQUE or "LAT" in view or "OBL" in view

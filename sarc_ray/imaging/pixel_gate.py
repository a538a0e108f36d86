"""Which pictures are upright frontal chest radiographs, as far as their pixels can tell.

Headers leave out views and body parts, and tell wrong senses of grey. So the windowed picture is looked at before its
contrast is equalised: a few plain rules first, then the small network of :mod:`sarc_ray.imaging.judge`. The limits were
set on training and tuning patients; docs/explanation/gate.md has what they let through and what they refuse.

Shape suffixes: H rows, W columns.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from sarc_ray.errors import ImageError, Reason
from sarc_ray.imaging.judge import CLASSES, OTHER, shipped_judge

FloatArray = npt.NDArray[np.float32]

# Width over height. Cassettes and detectors are 35 x 43 cm either way, or square: 0.81 to 1.23; cut edges add to it.
ASPECT_LIMITS = (0.55, 1.8)
# A row or column without exposure: all of it but a marker is at one end of the grey scale.
_UNEXPOSED = 0.03
_MARKER_SHARE = 0.05
FIELD_MIN = 0.45
# Share of the picture at one value, the end of the grey scale. Black borders and open air around the body reach 0.3.
_END = 0.004
BRIGHT_MAX = 0.5
SATURATED_MAX = 0.8
# The rules of borders and screenshots look at a picture of at most this size.
_SIZE_PX = 128
# Detectors have noise everywhere but near the ends of the scale; the ground of a window on a screen has none.
_NEAR_END = 20
PLAIN_MAX = 0.12
# Letters are strokes a few pixels wide, far brighter or darker than what is around them.
_STROKE_PX, _STROKE_STEP = 5, 90
STROKES_MAX = 0.035
PLAIN_AROUND_STROKES_MAX = 0.2
# A picture passes where the judge gives its being upright and frontal at least this probability. Chosen on tuning
# patients and on phantoms; see docs/explanation/gate.md.
UPRIGHT_MIN = 0.25


def check(grey_HW: FloatArray, *, shape_HW: tuple[int, int]) -> None:
    """Let a picture pass, or refuse it.

    Args:
        grey_HW: windowed, float32 in 0..1, square whatever the radiograph's sides, air dark and bone bright.
        shape_HW: rows and columns of the radiograph itself.

    Raises:
        ImageError: ODD_ASPECT, COLLIMATED, SATURATED_IMAGE, SCREENSHOT, ROTATED, INVERTED or UNLIKE_CHEST.
    """
    aspect = shape_HW[1] / max(shape_HW[0], 1)
    if not ASPECT_LIMITS[0] <= aspect <= ASPECT_LIMITS[1]:
        raise ImageError(Reason.ODD_ASPECT, f"width / height {aspect:.2f}; allowed: {ASPECT_LIMITS}")
    small_HW = _small(grey_HW)
    field = exposed_share(small_HW)
    if field < FIELD_MIN:
        raise ImageError(Reason.COLLIMATED, f"exposed: {field:.2f} of the picture; allowed: {FIELD_MIN} or more")
    dark, bright = (float(np.mean(at_end)) for at_end in (grey_HW <= _END, grey_HW >= 1 - _END))
    if bright > BRIGHT_MAX or dark + bright > SATURATED_MAX:
        raise ImageError(Reason.SATURATED_IMAGE, f"{dark:.2f} of the picture is black, {bright:.2f} is white")
    plain, around, strokes = screen_marks(small_HW)
    if plain > PLAIN_MAX or (strokes > STROKES_MAX and around > PLAIN_AROUND_STROKES_MAX):
        raise ImageError(Reason.SCREENSHOT, f"{plain:.2f} of the picture is one plain grey, {strokes:.3f} is strokes")
    _judge(grey_HW)


def _small(grey_HW: FloatArray) -> FloatArray:
    if min(grey_HW.shape) <= _SIZE_PX:
        return grey_HW
    return np.asarray(cv2.resize(grey_HW, (_SIZE_PX, _SIZE_PX), interpolation=cv2.INTER_AREA), dtype=np.float32)


def exposed_share(grey_HW: FloatArray) -> float:
    """Share of the picture that is left when rows and columns without exposure are cut off its four sides."""
    shares = []
    for axis in (0, 1):
        low, high = np.quantile(grey_HW, (_MARKER_SHARE, 1 - _MARKER_SHARE), axis=1 - axis)
        exposed = np.flatnonzero((high > _UNEXPOSED) & (low < 1 - _UNEXPOSED))
        shares.append((exposed[-1] - exposed[0] + 1) / grey_HW.shape[axis] if len(exposed) else 0.0)
    return float(shares[0] * shares[1])


def screen_marks(small_HW: FloatArray) -> tuple[float, float, float]:
    """What screens and pages have and radiographs lack, as shares of the picture.

    Args:
        small_HW: at most ``_SIZE_PX`` a side: in larger pictures letters are thicker than a stroke.

    Returns:
        The largest plain ground of one grey, the darkest and the brightest greys left out; plain ground of any grey;
        strokes as letters have them.
    """
    byte_HW = np.rint(np.clip(small_HW, 0.0, 1.0) * 255.0).astype(np.uint8)
    kernel = np.ones((3, 3), np.uint8)
    is_plain_HW = cv2.dilate(byte_HW, kernel) == cv2.erode(byte_HW, kernel)
    count = np.bincount(byte_HW[is_plain_HW], minlength=256)
    darkest, brightest = int(byte_HW.min()), int(byte_HW.max())
    within = count[darkest + _NEAR_END : max(brightest - _NEAR_END + 1, darkest + _NEAR_END)]
    wide = np.ones((_STROKE_PX, _STROKE_PX), np.uint8)
    strokes = [
        float(np.mean(cv2.morphologyEx(byte_HW, operation, wide) > _STROKE_STEP))
        for operation in (cv2.MORPH_TOPHAT, cv2.MORPH_BLACKHAT)
    ]
    plain = float(within.max() / byte_HW.size) if len(within) else 0.0
    return plain, float(is_plain_HW.mean()), max(strokes)


def _judge(grey_HW: FloatArray) -> None:
    probability = shipped_judge().probabilities(grey_HW)
    upright, inverted, other = (probability[name] for name in (CLASSES[0], "inverted", OTHER))
    if upright >= UPRIGHT_MIN:
        return
    turned = 1.0 - upright - inverted - other
    reasons = {Reason.ROTATED: turned, Reason.INVERTED: inverted, Reason.UNLIKE_CHEST: other}
    likeliest = max(reasons, key=reasons.__getitem__)
    raise ImageError(likeliest, f"upright and frontal with probability {upright:.3f}; allowed: {UPRIGHT_MIN} or more")

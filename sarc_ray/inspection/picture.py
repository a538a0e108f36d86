"""The original and the small picture side by side.

Shape suffixes: H rows, W columns.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from sarc_ray.inspection.look import ORIGINAL_HEIGHT_PX, Look

ByteArray = npt.NDArray[np.uint8]

_CAPTION_PX = 36
_GAP_PX = 12
_LETTER_PX = 9
_TEXT_SCALE = 0.5
_BLACK, _GREY, _WHITE = 0, 96, 255


def side_by_side(look: Look) -> ByteArray:
    """Before and after: uint8, shape (H, W). What cannot be shown is a grey field with its reason.

    The captions hold sizes and the reason code, nothing of the header's texts.
    """
    header = look.header
    size = "" if header is None else f"{header.columns} x {header.rows}, "
    before = _panel(look.original_HW, f"original, {size}windowed", "cannot be shown")
    side_px = "" if look.image_HW is None else f"{look.image_HW.shape[1]} x {look.image_HW.shape[0]}, "
    after = _panel(look.image_HW, f"what the networks see, {side_px}equalised", f"refused: {look.reason}")
    gap = np.full((before.shape[0], _GAP_PX), _WHITE, dtype=np.uint8)
    return np.hstack([before, gap, after])


def to_png(picture_HW: ByteArray) -> bytes:
    """As PNG, without any text chunk."""
    found, data = cv2.imencode(".png", picture_HW)
    assert found, "OpenCV has its own PNG encoder"
    return bytes(data)


def _panel(picture_HW: ByteArray | None, caption: str, otherwise: str) -> ByteArray:
    if picture_HW is None:
        shown_HW = np.full((ORIGINAL_HEIGHT_PX, ORIGINAL_HEIGHT_PX), _GREY, dtype=np.uint8)
        _write(shown_HW, otherwise, (ORIGINAL_HEIGHT_PX - _LETTER_PX * len(otherwise)) // 2, ORIGINAL_HEIGHT_PX // 2)
    else:
        # Pixels as they are: nobody should take what interpolation smooths for what the networks see.
        width_px = round(ORIGINAL_HEIGHT_PX * picture_HW.shape[1] / picture_HW.shape[0])
        size = (width_px, ORIGINAL_HEIGHT_PX)
        shown_HW = np.asarray(cv2.resize(picture_HW, size, interpolation=cv2.INTER_NEAREST), dtype=np.uint8)
    head_HW = np.full((_CAPTION_PX, shown_HW.shape[1]), _BLACK, dtype=np.uint8)
    _write(head_HW, caption, _GAP_PX, _CAPTION_PX - _GAP_PX)
    return np.vstack([head_HW, shown_HW])


def _write(picture_HW: ByteArray, text: str, left_px: int, base_px: int) -> None:
    cv2.putText(
        picture_HW, text, (left_px, base_px), cv2.FONT_HERSHEY_SIMPLEX, _TEXT_SCALE, _WHITE, lineType=cv2.LINE_AA
    )

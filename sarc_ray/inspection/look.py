"""One object on its way through the pipeline: what is read of it, what it is refused for, and what it looks like.

Shape suffixes: H rows, W columns.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
from dataclasses import dataclass
from multiprocessing.connection import Connection

import cv2
import numpy as np
import numpy.typing as npt

from sarc_ray.errors import ImageError, Reason
from sarc_ray.imaging import dicom, gate
from sarc_ray.imaging.header import HeaderFacts
from sarc_ray.imaging.isolation import ReadLimits, read_images
from sarc_ray.imaging.preprocess import PreprocessConfig, grey_picture

# Of the original as it is shown: large enough for a person to see what it is, small enough for a screen.
ORIGINAL_HEIGHT_PX = 640
_ASPECT_SHOWN = (0.25, 2.0)
# Imports of a fresh process on a busy machine.
_START_LIMIT_S = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """What the pipeline makes of one object.

    Args:
        reason: why there is no picture; ``Reason.NONE`` where there is one.
        header: the header facts that are used; None where they could not be read.
        flags: names of :data:`sarc_ray.imaging.gate.FLAGS` that the header earns.
        n_bytes: size of the object.
        image_HW: uint8, what the networks see; None where there is a reason.
        original_HW: uint8, the whole field in its own sides' ratio, windowed as a viewer shows it; None where it
            cannot be shown or was not asked for.
    """

    reason: Reason
    header: HeaderFacts | None
    flags: tuple[str, ...]
    n_bytes: int
    image_HW: npt.NDArray[np.uint8] | None
    original_HW: npt.NDArray[np.uint8] | None


def look_at(data: bytes, preprocess: PreprocessConfig, limits: ReadLimits, *, with_original: bool) -> Look:
    """Read one object as ``prepare`` and ``score`` do, isolated as there; never raises for an image.

    Args:
        data: the object's bytes.
        preprocess: size and contrast of the small picture.
        limits: time and memory for reading it.
        with_original: decode it in full too, in a process of its own.
    """
    (result,) = read_images([data], preprocess, limits)
    original_HW = None
    if with_original and result.header is not None:
        original_HW = _original_apart(data, preprocess, limits.seconds_per_image)
    return Look(
        reason=result.reason,
        header=result.header,
        flags=() if result.header is None else gate.flags(result.header),
        n_bytes=len(data),
        image_HW=result.image_HW,
        original_HW=original_HW,
    )


def show_original(data: bytes, preprocess: PreprocessConfig) -> npt.NDArray[np.uint8]:
    """A radiograph as a viewer shows it, whatever the gate says of it: shape (``ORIGINAL_HEIGHT_PX``, W).

    Args:
        data: the object's bytes.
        preprocess: that of the small picture, of which neither size nor equalisation is used.

    Raises:
        ImageError: it cannot be decoded, or is blank.
    """
    radiograph = dicom.read_radiograph(data)
    grey_HW = grey_picture(radiograph, dataclasses.replace(preprocess, size_px=ORIGINAL_HEIGHT_PX))
    aspect = radiograph.header.columns / radiograph.header.rows
    width_px = round(ORIGINAL_HEIGHT_PX * float(np.clip(aspect, *_ASPECT_SHOWN)))
    shown_HW = cv2.resize(grey_HW, (width_px, ORIGINAL_HEIGHT_PX), interpolation=cv2.INTER_AREA)
    return np.rint(shown_HW * 255.0).astype(np.uint8)


def _original_apart(data: bytes, preprocess: PreprocessConfig, limit_s: float) -> npt.NDArray[np.uint8] | None:
    """:func:`show_original` in a process that may die or hang, since the gate has kept this one from its pixels."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_send_original, args=(theirs, data, preprocess), daemon=True)
    process.start()
    theirs.close()
    try:
        pixels = ours.recv_bytes() if ours.poll(_START_LIMIT_S + limit_s) else b""
    except EOFError:  # it died
        pixels = b""
    finally:
        process.kill()
        process.join()
        ours.close()
    if not pixels:
        return None
    return np.frombuffer(pixels, dtype=np.uint8).reshape(ORIGINAL_HEIGHT_PX, -1)


def _send_original(pipe: Connection, data: bytes, preprocess: PreprocessConfig) -> None:
    # What codecs complain of, and a traceback, can quote the file.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    try:
        pixels = show_original(data, preprocess).tobytes()
    except (ImageError, MemoryError):
        pixels = b""
    pipe.send_bytes(pixels)

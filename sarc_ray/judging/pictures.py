"""From one radiograph to its variants: what a picture shows, and what the judge should say of it.

Pictures are float32 in [0, 1], shape (S, S), air dark and bone bright unless they are inverted on purpose. A mirrored
chest counts as upright: left and right are not judged.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from sarc_ray.imaging.judge import CLASSES, OTHER
from sarc_ray.judging.strange import write

Field = npt.NDArray[np.float32]
POSES = CLASSES[:-1]


def in_pose(picture_SS: Field, pose: str) -> Field:
    """An upright radiograph in one of ``POSES``: turned counter-clockwise, and inverted where the name says so."""
    turns = int(pose.removesuffix("_inverted").removeprefix("turned_") or 0) // 90 if "turned" in pose else 0
    turned_SS = np.rot90(picture_SS, turns)
    return np.ascontiguousarray(1.0 - turned_SS if pose.endswith("inverted") else turned_SS)


def as_taken(picture_SS: Field, rng: np.random.Generator) -> Field:
    """The radiograph as another technologist, detector or window might have given it; still upright and frontal."""
    size_px = picture_SS.shape[0]
    picture_SS = picture_SS[:, ::-1] if rng.random() < 0.5 else picture_SS
    picture_SS = _moved(picture_SS, rng)
    picture_SS = _toned(picture_SS, rng)
    if rng.random() < 0.3:
        tiles = int(rng.integers(2, 9))
        byte_SS = np.rint(picture_SS * 255).astype(np.uint8)
        equalised = cv2.createCLAHE(float(rng.uniform(1, 4)), (tiles, tiles)).apply(byte_SS)
        picture_SS = equalised.astype(np.float32) / np.float32(255)
    if rng.random() < 0.3:
        picture_SS = np.asarray(cv2.GaussianBlur(picture_SS, (0, 0), float(rng.uniform(0.3, 1.8))), np.float32)
    if rng.random() < 0.4:
        noise_SS = rng.standard_normal(picture_SS.shape, dtype=np.float32)
        picture_SS = picture_SS + np.float32(rng.uniform(0.005, 0.06)) * noise_SS
    picture_SS = np.ascontiguousarray(np.clip(picture_SS, 0, 1), dtype=np.float32)
    _mark(picture_SS, rng, size_px)
    return picture_SS


def _moved(picture_SS: Field, rng: np.random.Generator) -> Field:
    """Turned a little, nearer or farther, wider or narrower, off the middle."""
    size_px = picture_SS.shape[0]
    matrix = cv2.getRotationMatrix2D((size_px / 2, size_px / 2), float(rng.uniform(-12, 12)), 1.0)
    zoom, stretch = np.exp(rng.uniform(-0.22, 0.22)), np.exp(rng.uniform(-0.14, 0.14))
    scale = np.diag([zoom * stretch, zoom / stretch])
    middle = np.full(2, size_px / 2)
    linear = scale @ matrix[:, :2]
    shift = middle - linear @ middle + rng.uniform(-0.07, 0.07, 2) * size_px
    border = cv2.BORDER_CONSTANT if rng.random() < 0.5 else cv2.BORDER_REPLICATE
    moved = cv2.warpAffine(
        picture_SS, np.column_stack([linear, shift]), (size_px, size_px), flags=cv2.INTER_LINEAR, borderMode=border
    )
    return np.asarray(moved, dtype=np.float32)


def _toned(picture_SS: Field, rng: np.random.Generator) -> Field:
    """Another tone curve, and a field that is brighter on one side."""
    picture_SS = np.power(np.clip(picture_SS, 0, 1), np.float32(np.exp(rng.uniform(-0.6, 0.6))))
    if rng.random() < 0.4:
        ramp = np.linspace(-1, 1, picture_SS.shape[0], dtype=np.float32)
        slope_x, slope_y = rng.uniform(-0.25, 0.25, 2).astype(np.float32)
        picture_SS = picture_SS * (1 + slope_x * ramp[None, :] + slope_y * ramp[:, None])
    if rng.random() < 0.3:
        low, high = rng.uniform(0.0, 0.15), rng.uniform(0.8, 1.0)
        picture_SS = np.clip((picture_SS - low) / (high - low), 0, 1)
    return np.asarray(picture_SS, dtype=np.float32)


def _mark(picture_SS: Field, rng: np.random.Generator, size_px: int) -> None:
    """Collimated borders, a side marker, a line of text, a cable: what lies on ordinary radiographs."""
    if rng.random() < 0.25:
        for axis in (0, 1):
            first, last = (int(v) for v in rng.uniform(0, 0.13, 2) * size_px)
            view = picture_SS if axis == 0 else picture_SS.T
            view[:first] = 0.0
            view[size_px - last :] = 0.0
    for _ in range(int(rng.integers(0, 3))):
        where = (int(rng.uniform(0, 0.8) * size_px), int(rng.uniform(0.04, 0.98) * size_px))
        text = str(rng.choice(["L", "R", "AP", "PORTABLE", "ERECT", "SUPINE 10:45"]))
        write(picture_SS, text, where, scale=size_px / 400, ink=1.0)
    if rng.random() < 0.15:
        points = (rng.uniform(0.1, 0.9, (4, 2)) * size_px).astype(np.int32)
        cv2.polylines(picture_SS, [points], False, float(rng.uniform(0.7, 1.0)), 1, cv2.LINE_AA)


def cropped(picture_SS: Field, rng: np.random.Generator) -> Field:
    """Too little of a chest: one lung, its apices, its base and the belly, a stripe, or a small part, enlarged."""
    size_px = picture_SS.shape[0]
    kind = rng.integers(5)
    if kind == 0:  # one side
        width, x0 = rng.uniform(0.38, 0.5), 0.0
        box = (x0 if rng.random() < 0.5 else 1 - width, rng.uniform(0, 0.15), width, rng.uniform(0.7, 0.85))
    elif kind == 1:  # neck and shoulders
        box = (rng.uniform(0, 0.1), 0.0, 0.9, rng.uniform(0.2, 0.36))
    elif kind == 2:  # bases and belly
        height = rng.uniform(0.2, 0.36)
        box = (rng.uniform(0, 0.1), 1 - height, 0.9, height)
    elif kind == 3:  # a stripe from top to bottom
        width = rng.uniform(0.15, 0.35)
        box = (rng.uniform(0, 1 - width), 0.0, width, 1.0)
    else:
        side = rng.uniform(0.2, 0.45)
        box = (rng.uniform(0, 1 - side), rng.uniform(0, 1 - side), side, side)
    x0, y0, x1, y1 = (round(v * size_px) for v in (box[0], box[1], box[0] + box[2], box[1] + box[3]))
    return np.asarray(cv2.resize(picture_SS[y0:y1, x0:x1], (size_px, size_px), interpolation=cv2.INTER_LINEAR))


def torn(picture_SS: Field, rng: np.random.Generator) -> Field:
    """A chest's own texture without its anatomy: tiles in disorder, unrolled around a point, or twice side by side."""
    size_px = picture_SS.shape[0]
    kind = rng.integers(3)
    if kind == 0:
        n = int(rng.integers(2, 6))
        side = size_px // n
        tiles = [picture_SS[r * side : (r + 1) * side, c * side : (c + 1) * side] for r in range(n) for c in range(n)]
        order = rng.permutation(len(tiles))
        turned = [[np.rot90(tiles[order[r * n + c]], int(rng.integers(4))) for c in range(n)] for r in range(n)]
        mixed = np.block(turned)
    elif kind == 1:
        middle = (float(rng.uniform(0.2, 0.8) * size_px), float(rng.uniform(0.2, 0.8) * size_px))
        inverse = cv2.WARP_INVERSE_MAP if rng.random() < 0.5 else 0
        flags = cv2.INTER_LINEAR | cv2.WARP_FILL_OUTLIERS | inverse
        mixed = cv2.warpPolar(picture_SS, (size_px, size_px), middle, size_px * 0.6, flags)
    else:
        half = cv2.resize(picture_SS, (size_px // 2, size_px), interpolation=cv2.INTER_AREA)
        other = half[:, ::-1] if rng.random() < 0.5 else np.roll(half, size_px // 4, axis=0)
        mixed = np.hstack([half, other])
    return np.asarray(cv2.resize(np.ascontiguousarray(mixed), (size_px, size_px)), dtype=np.float32)


def label_of(name: str) -> int:
    """Index of a class of the judge; anything that is no pose is ``OTHER``."""
    return CLASSES.index(name) if name in POSES else CLASSES.index(OTHER)

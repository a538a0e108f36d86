"""Radiographs that are no frontal chest: drawn for what an archive holds beside them, and to try the gate with.

A lateral chest, a hand, a knee, a skull and a pelvis, each in a few strokes: soft tissue, bone with a dense cortex,
air. Like a detector's pictures they are float32 in [0, 1], air dark and bone bright, shape (H, W). They are no
phantoms: nothing is measured on them.

Coordinates: the picture's height is 1, ``x`` runs from its middle to the right, ``y`` from its top downwards.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

Field = npt.NDArray[np.float32]
Part = Literal["lateral", "hand", "knee", "skull", "pelvis"]
Point = tuple[float, float]

# Drawn at this height and enlarged; noise is added at full size.
_GRID_ROWS_MAX = 320
_NOISE = (0.008, 0.025)


def render_part(part: Part, *, shape_HW: tuple[int, int], rng: np.random.Generator) -> Field:
    """Draw one radiograph.

    Args:
        part: what it shows.
        shape_HW: rows and columns.
        rng: for build, pose, exposure and noise.

    Returns:
        float32 in [0, 1], shape (H, W).
    """
    height, width = shape_HW
    scale = min(1.0, _GRID_ROWS_MAX / height)
    canvas = _Canvas((max(round(height * scale), 8), max(round(width * scale), 8)))
    _DRAWERS[part](canvas, rng)
    dense_HW = cv2.GaussianBlur(canvas.dense_HW, (0, 0), max(0.004 * canvas.height, 0.5))
    contrast, middle = rng.uniform(2.4, 4.0), rng.uniform(0.45, 0.65)
    gray_HW = 1.0 / (1.0 + np.exp(-contrast * 1.6 * (dense_HW - middle)))
    gray_HW *= 0.2 + 0.8 * np.clip(dense_HW / 0.12, 0.0, 1.0)
    if rng.random() < 0.5:
        gray_HW = gray_HW[:, ::-1]
    gray_HW = cv2.resize(gray_HW.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    sd = rng.uniform(*_NOISE)
    gray_HW += sd * (0.35 + gray_HW) * rng.standard_normal(shape_HW, dtype=np.float32)
    return np.asarray(np.clip(gray_HW, 0.0, 1.0), dtype=np.float32)


class _Canvas:
    """Attenuation, 0 for air and about 1 for a trunk, and brushes for it."""

    def __init__(self, shape_HW: tuple[int, int]) -> None:
        self.height, self.width = shape_HW
        self.dense_HW: Field = np.zeros(shape_HW, np.float32)
        self.x = ((np.arange(self.width, dtype=np.float32) + 0.5 - self.width / 2) / self.height)[None, :]
        self.y = ((np.arange(self.height, dtype=np.float32) + 0.5) / self.height)[:, None]

    def ellipsoid(self, middle: Point, half: Point, depth: float, *, turn: float = 0.0) -> None:
        """Add a body that is thickest in its middle; a negative depth takes away."""
        square = self._square(middle, half, turn)
        self.dense_HW += (depth * np.sqrt(np.clip(1.0 - square, 0.0, None))).astype(np.float32)

    def shell(self, middle: Point, half: Point, depth: float, *, wall: float, turn: float = 0.0) -> None:
        """Add a hollow body: dense where the beam runs along its wall."""
        outer = np.sqrt(np.clip(1.0 - self._square(middle, half, turn), 0.0, None))
        smaller = (half[0] * (1 - wall), half[1] * (1 - wall))
        inner = (1 - wall) * np.sqrt(np.clip(1.0 - self._square(middle, smaller, turn), 0.0, None))
        self.dense_HW += (depth * (outer - inner)).astype(np.float32)

    def limb(self, points: list[Point], half: float, depth: float) -> None:
        """Add soft tissue around a line of points."""
        mask_HW = np.zeros_like(self.dense_HW)
        cv2.polylines(mask_HW, [self._pixels(points)], False, 1.0, self._thickness(half))
        blurred_HW = cv2.GaussianBlur(mask_HW, (0, 0), max(0.3 * half * self.height, 0.5))
        self.dense_HW = np.maximum(self.dense_HW, depth * blurred_HW)

    def bone(self, points: list[Point], half: float, depth: float) -> None:
        """Add a long bone along a line of points: a dense cortex around a less dense middle, and wider ends."""
        layer_HW = np.zeros_like(self.dense_HW)
        line = self._pixels(points)
        cv2.polylines(layer_HW, [line], False, depth, self._thickness(half))
        for end in (line[0], line[-1]):
            cv2.circle(layer_HW, (int(end[0]), int(end[1])), max(round(1.25 * half * self.height), 1), depth, -1)
        cv2.polylines(layer_HW, [line], False, 0.55 * depth, self._thickness(0.55 * half))
        self.dense_HW += layer_HW

    def _square(self, middle: Point, half: Point, turn: float) -> Field:
        u, v = self.x - middle[0], self.y - middle[1]
        along, across = u * np.cos(turn) + v * np.sin(turn), v * np.cos(turn) - u * np.sin(turn)
        return np.asarray(np.square(along / half[0]) + np.square(across / half[1]), dtype=np.float32)

    def _pixels(self, points: list[Point]) -> npt.NDArray[np.int32]:
        return np.array([[x * self.height + self.width / 2, y * self.height] for x, y in points]).astype(np.int32)

    def _thickness(self, half: float) -> int:
        return max(round(2 * half * self.height), 1)


def _lateral(canvas: _Canvas, rng: np.random.Generator) -> None:
    """A chest from the side: sternum in front, spine behind, heart in front of the domes, arms raised."""
    build, lean = rng.uniform(0.85, 1.15), rng.uniform(-0.04, 0.04)
    front, back = -0.25 * build + lean, 0.25 * build + lean
    canvas.limb([(0.0, -0.05), (0.0, 0.25)], 0.13 * build, 0.75)  # neck and raised arms
    canvas.ellipsoid((lean, 0.68), (0.33 * build, 0.62), 1.05)
    lung = rng.uniform(0.55, 0.75)
    canvas.ellipsoid((lean + 0.02, 0.44), (0.23 * build, 0.33), -lung, turn=rng.uniform(-0.1, 0.1))
    # The domes and what lies under them fill the lower part again.
    dome_y = rng.uniform(0.68, 0.76)
    canvas.ellipsoid((lean - 0.02, dome_y + 0.26), (0.30 * build, 0.27), 0.55)
    canvas.ellipsoid((front + 0.12, dome_y - 0.13), (0.11, 0.14), rng.uniform(0.35, 0.5), turn=0.5)
    for step in range(14):
        y = 0.08 + 0.07 * step
        bend = 0.05 * np.sin(np.pi * y) + 0.13 * build
        canvas.ellipsoid((lean + bend, y), (0.042, 0.031), rng.uniform(0.3, 0.42))
        canvas.bone([(back - 0.02, y), (front + 0.1, y + rng.uniform(0.10, 0.16))], 0.007, 0.07)
    canvas.bone([(front + 0.035, 0.22), (front + 0.01, 0.62)], 0.012, 0.2)


def _hand(canvas: _Canvas, rng: np.random.Generator) -> None:
    """A hand, fingers up: five rays of four bones, two rows of carpal bones, the ends of radius and ulna."""
    wrist: Point = (rng.uniform(-0.05, 0.05), rng.uniform(0.70, 0.78))
    spread, size = rng.uniform(0.75, 1.25), rng.uniform(0.85, 1.1)
    canvas.limb([(wrist[0], wrist[1] - 0.14 * size), (wrist[0], 1.05)], 0.10 * size, 0.45)
    for ray, reach in enumerate((0.60, 0.86, 0.92, 0.88, 0.74)):
        angle = spread * (ray - 2) * 0.17 + (-0.35 if ray == 0 else 0.0)
        joints = [
            (
                wrist[0] + 0.03 * (ray - 2) + size * 0.66 * reach * part * np.sin(angle),
                wrist[1] - 0.05 - size * 0.66 * reach * part * np.cos(angle),
            )
            for part in (0.0, 0.45, 0.70, 0.87, 1.0)
        ]
        canvas.limb(joints, 0.034 * size, 0.38)
        for start, end in itertools.pairwise(joints):
            shorter = (start[0] + 0.12 * (end[0] - start[0]), start[1] + 0.12 * (end[1] - start[1]))
            canvas.bone([shorter, end], 0.011 * size, rng.uniform(0.35, 0.5))
    for row, column in ((row, column) for row in (0, 1) for column in range(4)):
        middle = (wrist[0] + 0.032 * (column - 1.5), wrist[1] - 0.02 + 0.032 * row)
        canvas.ellipsoid(middle, (0.017, 0.017), 0.4)
    for side in (-0.032, 0.036):
        canvas.bone([(wrist[0] + side, wrist[1] + 0.06), (wrist[0] + 0.8 * side, 1.05)], 0.024 * size, 0.4)


def _knee(canvas: _Canvas, rng: np.random.Generator) -> None:
    """One long limb from edge to edge: femur above, tibia and fibula below."""
    tilt, joint_y, size = rng.uniform(-0.12, 0.12), rng.uniform(0.42, 0.58), rng.uniform(0.8, 1.2)
    middle: Point = (rng.uniform(-0.06, 0.06), joint_y)
    above: Point = (middle[0] - tilt, -0.05)
    below: Point = (middle[0] + rng.uniform(-0.08, 0.08), 1.05)
    canvas.limb([above, middle, below], 0.16 * size, rng.uniform(0.5, 0.7))
    canvas.bone([above, (middle[0], joint_y - 0.06)], 0.05 * size, rng.uniform(0.4, 0.55))
    canvas.bone([(middle[0], joint_y + 0.06), below], 0.045 * size, rng.uniform(0.4, 0.55))
    canvas.bone([(middle[0] + 0.09 * size, joint_y + 0.11), (below[0] + 0.08 * size, 1.05)], 0.016 * size, 0.35)
    for side in (-0.05, 0.05):
        canvas.ellipsoid((middle[0] + side * size, joint_y - 0.05), (0.055 * size, 0.05 * size), 0.35)
        canvas.ellipsoid((middle[0] + side * size, joint_y + 0.05), (0.055 * size, 0.04 * size), 0.35)
    canvas.ellipsoid((middle[0], joint_y - 0.1), (0.04 * size, 0.045 * size), 0.2)


def _skull(canvas: _Canvas, rng: np.random.Generator) -> None:
    """A skull from the front: vault, orbits, nose, teeth, jaw and neck."""
    size, top = rng.uniform(0.85, 1.1), rng.uniform(0.36, 0.44)
    canvas.limb([(0.0, 0.8), (0.0, 1.05)], 0.16 * size, 0.5)
    canvas.ellipsoid((0.0, top + 0.08), (0.33 * size, 0.42 * size), 0.6)
    canvas.shell((0.0, top), (0.30 * size, 0.32 * size), 1.6, wall=0.07)
    canvas.shell((0.0, top + 0.28), (0.17 * size, 0.2 * size), 1.2, wall=0.12)
    for side in (-1, 1):
        canvas.ellipsoid((side * 0.11 * size, top + 0.08), (0.075 * size, 0.065 * size), -0.3)
        canvas.shell((side * 0.11 * size, top + 0.08), (0.08 * size, 0.07 * size), 0.7, wall=0.15)
        canvas.ellipsoid((side * 0.1 * size, top + 0.2), (0.05 * size, 0.06 * size), -0.2)
    canvas.ellipsoid((0.0, top + 0.19), (0.035 * size, 0.07 * size), -0.3)
    for tooth in range(-4, 5):
        canvas.ellipsoid((0.028 * tooth * size, top + 0.32), (0.013, 0.04 * size), 0.5)


def _pelvis(canvas: _Canvas, rng: np.random.Generator) -> None:
    """A pelvis: iliac wings, sacrum, the ring with its two holes, hips and thighs; gas above."""
    size, y = rng.uniform(0.85, 1.05), rng.uniform(0.40, 0.48)
    canvas.ellipsoid((0.0, 0.35), (0.52 * size, 0.75), 0.85)
    canvas.bone([(0.0, -0.05), (0.0, y - 0.05)], 0.05 * size, 0.3)
    canvas.ellipsoid((0.0, y + 0.02), (0.075 * size, 0.13), 0.4)
    for side in (-1.0, 1.0):
        canvas.limb([(side * 0.30 * size, y + 0.2), (side * 0.27 * size, 1.05)], 0.14 * size, 0.75)
        canvas.shell((side * 0.23 * size, y - 0.06), (0.17 * size, 0.16 * size), 0.9, wall=0.2, turn=side * 0.5)
        canvas.shell((side * 0.11 * size, y + 0.26), (0.08 * size, 0.07 * size), 1.1, wall=0.3)
        canvas.ellipsoid((side * 0.29 * size, y + 0.16), (0.06 * size, 0.06 * size), 0.5)
        canvas.bone([(side * 0.37 * size, y + 0.22), (side * 0.31 * size, 1.05)], 0.045 * size, 0.5)
    for _ in range(6):
        middle = (float(rng.uniform(-0.2, 0.2)), float(rng.uniform(0.02, 0.3)))
        canvas.ellipsoid(middle, (float(rng.uniform(0.02, 0.06)), float(rng.uniform(0.015, 0.04))), -0.25)


_DRAWERS: dict[Part, Callable[[_Canvas, np.random.Generator], None]] = {
    "lateral": _lateral,
    "hand": _hand,
    "knee": _knee,
    "skull": _skull,
    "pelvis": _pelvis,
}

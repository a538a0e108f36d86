"""The picture: an analytic projection of the anatomy, as a detector would record it.

Geometry is computed on a grid of at most 640 rows and enlarged; quantum noise is added at full size, so that a
large picture costs little more than its noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from sarc_ray.simulate.anatomy import RIB_CAGE_HALF_WIDTH, Anatomy, Grid, Signals, attenuation

_GRID_ROWS_MAX = 640
# The chest wall below the axilla, in the anatomy's coordinates.
_WALL_Y = (0.36, 1.02)

Box = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Exposure:
    """How a picture was taken.

    Args:
        contrast: slope of the tone curve.
        middle: attenuation that is shown as mid-grey.
        noise: SD of the quantum noise behind soft tissue, as a fraction of the range, at 2000 rows.
        border_fraction: width of the collimated border, of the height; 0 for none.
        marker: draws a side marker.
    """

    contrast: float
    middle: float
    noise: float
    border_fraction: float
    marker: bool

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Exposure:
        """An ordinary exposure."""
        border = float(rng.uniform(0.004, 0.014)) if rng.random() < 0.4 else 0.0
        return cls(
            contrast=float(rng.uniform(2.1, 2.9)),
            middle=float(rng.uniform(0.58, 0.72)),
            noise=float(rng.uniform(0.010, 0.022)),
            border_fraction=border,
            marker=bool(rng.random() < 0.7),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """A rendered picture and where its channels are.

    Args:
        gray_HW: float32 in [0, 1], MONOCHROME2 sense: air dark, bone bright.
        boxes: per target, boxes (x0, y0, x1, y1) as fractions of width and height.
    """

    gray_HW: npt.NDArray[np.float32]
    boxes: dict[str, tuple[Box, ...]]


def render(signals: Signals, *, shape_HW: tuple[int, int], rng: np.random.Generator) -> Picture:
    """Draw a chest radiograph.

    Args:
        signals: what the patient shows.
        shape_HW: rows and columns; geometry scales with the rows.
        rng: for anatomy that differs between people, exposure and noise.
    """
    anatomy, exposure = Anatomy.draw(rng), Exposure.draw(rng)
    height, width = shape_HW
    scale = min(1.0, _GRID_ROWS_MAX / height)
    grid_shape = (round(height * scale), round(width * scale))
    dense_HW = attenuation(Grid.of(grid_shape, anatomy), signals, anatomy)
    gray_HW = 1.0 / (1.0 + np.exp(-exposure.contrast * (dense_HW - exposure.middle) * 1.6))
    gray_HW = gray_HW * (0.25 + 0.75 * np.clip(dense_HW / 0.12, 0.0, 1.0))
    if scale < 1.0:
        gray_HW = cv2.resize(gray_HW, (width, height), interpolation=cv2.INTER_CUBIC)
    gray_HW = _add_noise(gray_HW.astype(np.float32), exposure, rng)
    _collimate(gray_HW, exposure)
    return Picture(gray_HW=np.clip(gray_HW, 0.0, 1.0), boxes=channel_boxes(signals, anatomy, shape_HW))


def _add_noise(
    gray_HW: npt.NDArray[np.float32], exposure: Exposure, rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Quantum noise: relative noise of the exposure grows with the root of the attenuation (few quanta behind bone).

    Larger pixels collect more quanta; a floor keeps the noise of small pictures visible.
    """
    sd = exposure.noise * max(gray_HW.shape[0] / 2000.0, 0.45)
    noise_HW = rng.standard_normal(gray_HW.shape, dtype=np.float32)
    noise_HW *= sd * (0.35 + gray_HW)
    noise_HW += gray_HW
    return noise_HW


def _collimate(gray_HW: npt.NDArray[np.float32], exposure: Exposure) -> None:
    height, width = gray_HW.shape
    border = round(exposure.border_fraction * height)
    if border:
        gray_HW[:border] = gray_HW[-border:] = 0.0
        gray_HW[:, :border] = gray_HW[:, -border:] = 0.0
    if exposure.marker:
        # The lead letter at the patient's left: two bars.
        top, left, long, thick = (round(f * height) for f in (0.05, 0.045, 0.028, 0.006))
        thick = max(thick, 1)
        gray_HW[top : top + long, width - left : width - left + thick] = 1.0
        gray_HW[top + long - thick : top + long, width - left : width - left + round(0.6 * long)] = 1.0


def channel_boxes(signals: Signals, anatomy: Anatomy, shape_HW: tuple[int, int]) -> dict[str, tuple[Box, ...]]:
    """Where each channel is drawn: boxes (x0, y0, x1, y1) as fractions of width and height, per target."""
    outer = RIB_CAGE_HALF_WIDTH + signals.wall
    heart_x, half = 0.35 * signals.heart_half_width + 0.012, signals.heart_half_width
    walls = [(-outer - 0.02, -RIB_CAGE_HALF_WIDTH + 0.02), (RIB_CAGE_HALF_WIDTH - 0.02, outer + 0.02)]
    heart_y = (anatomy.base_y - 0.26, anatomy.base_y - 0.02)
    belly_y = (anatomy.base_y - 0.15, anatomy.base_y + 0.10)
    parts = {
        "alm_kg": [(x0, _WALL_Y[0], x1, _WALL_Y[1]) for x0, x1 in walls],
        "hgs_kg": [(heart_x - half - 0.02, heart_y[0], heart_x + half + 0.02, heart_y[1])],
        "crt_s": [(-0.27, belly_y[0], 0.27, belly_y[1])],
    }
    return {name: tuple(_to_fraction(box, anatomy, shape_HW) for box in boxes) for name, boxes in parts.items()}


def _to_fraction(box: Box, anatomy: Anatomy, shape_HW: tuple[int, int]) -> Box:
    aspect = shape_HW[1] / shape_HW[0]
    x0, x1 = (0.5 + (anatomy.zoom * x + anatomy.shift_x) / aspect for x in (box[0], box[2]))
    y0, y1 = (0.5 + anatomy.zoom * (y - 0.5) + anatomy.shift_y for y in (box[1], box[3]))
    return (max(x0, 0.0), max(y0, 0.0), min(x1, 1.0), min(y1, 1.0))


def boxes_to_mask(boxes: tuple[Box, ...], shape_HW: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """The boxes of one target as a mask of pixels."""
    mask_HW = np.zeros(shape_HW, dtype=bool)
    height, width = shape_HW
    for x0, y0, x1, y1 in boxes:
        mask_HW[round(y0 * height) : round(y1 * height), round(x0 * width) : round(x1 * width)] = True
    return mask_HW

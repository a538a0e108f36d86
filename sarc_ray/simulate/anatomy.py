"""The analytic anatomy of the phantom: every organ as a smooth function of two coordinates.

Coordinates: the picture's height is 1. ``x`` runs from the spine to the right of the picture (the patient's
left), ``a`` is its absolute value, ``y`` runs downwards from 0 to 1. All fields are float32, shape (H, W), in
units of one body depth of soft tissue; a projection adds them up (Beer-Lambert, log of the exposure).

The three channels sit where the paper's Grad-CAM looks: the soft tissue of the chest wall (ALM) and the contour
of the heart (HGS); dome of the diaphragm and gastric bubble (CRT).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Field = npt.NDArray[np.float32]

RIB_CAGE_HALF_WIDTH = 0.305
_APEX_Y = 0.115
_SQUASH = 2.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Signals:
    """What the cohort draws into a picture; all but haze have about unit variance.

    Args:
        alm: channel of ALM.
        hgs: channel of HGS.
        crt: channel of CRT.
        haze: 0 clear to 1 hazy lungs; sets the channels' noise.
        breast: trait of sex.
        aorta: trait of age.
    """

    alm: float
    hgs: float
    crt: float
    haze: float
    breast: float
    aorta: float

    @property
    def wall(self) -> float:
        """Thickness of the chest wall's soft tissue."""
        return 0.058 + 0.040 * _squash(self.alm)

    @property
    def heart_half_width(self) -> float:
        """Half the width of the heart."""
        return 0.122 + 0.048 * _squash(self.hgs)

    @property
    def dome(self) -> float:
        """Height of the diaphragm's domes over the costophrenic angles."""
        return 0.075 + 0.055 * _squash(self.crt)

    @property
    def bubble_radius(self) -> float:
        """Radius of the gastric bubble: small under a high dome."""
        return 0.034 - 0.018 * _squash(self.crt)


@dataclass(frozen=True, kw_only=True, slots=True)
class Anatomy:
    """What differs between people and says nothing about the targets."""

    zoom: float
    shift_x: float
    shift_y: float
    base_y: float
    rib_phase: float
    rib_spacing: float
    rib_strength: float
    clavicle_tilt: float
    clavicle_y: float
    spine_bend: float
    trachea_shift: float
    heart_tilt: float
    scapula: float
    shoulder_y: float
    texture_seed: int

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Anatomy:
        """A person's anatomy, uniform within ranges that leave the channels readable."""

        def between(low: float, high: float) -> float:
            return float(rng.uniform(low, high))

        return cls(
            zoom=between(0.95, 1.05),
            shift_x=between(-0.012, 0.012),
            shift_y=between(-0.015, 0.015),
            base_y=between(0.725, 0.765),
            rib_phase=between(0.0, 1.0),
            rib_spacing=between(0.064, 0.074),
            rib_strength=between(0.7, 1.2),
            clavicle_tilt=between(0.1, 0.34),
            clavicle_y=between(0.165, 0.2),
            spine_bend=between(-0.012, 0.012),
            trachea_shift=between(-0.008, 0.008),
            heart_tilt=between(0.35, 0.65),
            scapula=between(0.05, 0.12),
            shoulder_y=between(-0.02, 0.02),
            texture_seed=int(rng.integers(2**31)),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """Coordinates of a picture's pixels, ``x`` of shape (1, W) and ``y`` of (H, 1), and the width of a sharp edge.

    Kept apart, what depends on one of them alone costs a line, not a picture.
    """

    x: Field
    y: Field
    edge: float

    @property
    def shape_px(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.y.shape[0], self.x.shape[1]

    def above(self, y: float) -> Grid:
        """The rows above a height: what ends there need not be computed below."""
        rows = int(np.searchsorted(self.y[:, 0], y))
        return Grid(x=self.x, y=self.y[: max(rows, 1)], edge=self.edge)

    @property
    def a(self) -> Field:
        """Distance from the midline."""
        return np.abs(self.x)

    @classmethod
    def of(cls, shape_HW: tuple[int, int], anatomy: Anatomy) -> Grid:
        """The grid of a picture in a person's coordinates."""
        height, width = shape_HW
        u = (np.arange(width, dtype=np.float32) + 0.5 - width / 2.0) / height
        v = (np.arange(height, dtype=np.float32) + 0.5) / height
        x = ((u - anatomy.shift_x) / anatomy.zoom)[None, :].astype(np.float32)
        y = ((v - 0.5 - anatomy.shift_y) / anatomy.zoom + 0.5)[:, None].astype(np.float32)
        return cls(x=x, y=y, edge=max(0.6 / height, 0.0025))


def _squash(value: float) -> float:
    """Keeps a standard normal value within anatomical range, invertibly."""
    return math.tanh(value / _SQUASH)


def _step(distance: npt.NDArray[np.floating], width: float) -> Field:
    """Smooth step from 0 to 1 across an edge where ``distance`` is 0."""
    t = np.clip(np.float32(0.3 / width) * distance.astype(np.float32) + np.float32(0.5), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def _depth(square: Field) -> Field:
    """Depth of an ellipsoid where ``square`` is the squared relative radius."""
    return np.sqrt(np.clip(1.0 - square, 0.0, None)).astype(np.float32)


def attenuation(grid: Grid, signals: Signals, anatomy: Anatomy) -> Field:
    """Sum of all organs along the beam; air around the body is 0, mediastinum and abdomen about 1."""
    inside = _skin(grid, signals, anatomy)
    diaphragm_y = _diaphragm(grid, signals, anatomy)
    heart = _heart(grid, signals, anatomy)
    lungs = _lungs(grid, diaphragm_y, anatomy)
    air = lungs * (1.0 - 0.97 * heart) * (0.74 - 0.24 * signals.haze)
    marks = _vessels(grid, anatomy) + _interstitium(grid, signals, anatomy)
    below = _step(grid.y - diaphragm_y, 2 * grid.edge)
    total = 0.99 * inside - air + marks * lungs * (1.0 - heart)
    total += 0.05 * heart + _bones(grid, anatomy, below) * np.minimum(inside * 2.0, 1.0)
    total += _mediastinum(grid, signals, anatomy) + _breasts(grid, signals) + 0.06 * below * inside
    return np.maximum(total - _gas(grid, signals, diaphragm_y), 0.0).astype(np.float32)


def _skin(grid: Grid, signals: Signals, anatomy: Anatomy) -> Field:
    """Depth of the body: trunk as wide as rib cage plus wall, shoulders and neck above."""
    y = grid.y[:, 0]
    trunk = RIB_CAGE_HALF_WIDTH + signals.wall + 0.012 * (y - 0.5)
    shoulder_y = 0.13 + anatomy.shoulder_y
    slope = np.clip((y - shoulder_y + 0.17) / 0.20, 0.0, 1.0)
    shoulder = 0.085 + 0.56 * slope**1.7
    open_axilla = 1.0 / (1.0 + np.exp((y - 0.39) / 0.028))
    half_width = np.where(y < 0.25, shoulder, trunk + (shoulder - trunk) * open_axilla).astype(np.float32)
    relative = grid.a / half_width[:, None]
    soft = _step(half_width[:, None] - grid.a, 1.5 * grid.edge)
    depth = np.power(np.clip(1.0 - relative * relative * relative, 0.0, 1.0), 0.5)
    thickness = 0.72 + 0.28 * _step(grid.y - 0.3, 0.12)
    return (soft * (0.2 + 0.8 * depth) * thickness).astype(np.float32)


def _cage_half_width(grid: Grid) -> Field:
    """Inner half-width of the rib cage at each height."""
    y = grid.y[:, :1]
    top = np.clip((y - _APEX_Y) / 0.36, 0.0, 1.0)
    return (0.075 + (RIB_CAGE_HALF_WIDTH - 0.075) * np.sqrt(1.0 - (1.0 - top) ** 2.2)).astype(np.float32)


def _diaphragm(grid: Grid, signals: Signals, anatomy: Anatomy) -> Field:
    """Height of the diaphragm under each pixel: two domes, the patient's right one a little higher."""
    right = np.where(grid.x < 0, 0.018, 0.0)
    square = np.square((grid.a - 0.15) / 0.18)
    return (anatomy.base_y + 0.02 - (signals.dome + right) * np.clip(1.0 - square, -0.25, None)).astype(np.float32)


def _lungs(grid: Grid, diaphragm_y: Field, anatomy: Anatomy) -> Field:
    """Depth of air in both lungs."""
    outer = _cage_half_width(grid)
    inner = 0.032 + 0.012 * _step(grid.y - 0.35, 0.1)
    middle, half = (outer + inner) / 2.0, (outer - inner) / 2.0
    across = np.minimum(np.abs((grid.a - middle) / half), 1.2)
    profile = np.power(np.clip(1.0 - across**4, 0.0, 1.0), 0.6)
    edges = _step(outer - grid.a, 1.5 * grid.edge) * _step(grid.a - inner, 0.008)
    apex = _step(grid.y - _APEX_Y - 0.6 * np.square(grid.a - 0.12), 0.012)
    base = _step(diaphragm_y - grid.y, 2.0 * grid.edge)
    fading = 1.0 - 0.18 * np.clip((grid.y - 0.5) / 0.3, -1.0, 1.0) ** 2
    return ((0.3 + 0.7 * profile) * edges * apex * base * fading).astype(np.float32)


def _heart(grid: Grid, signals: Signals, anatomy: Anatomy) -> Field:
    """Silhouette of the heart, 0 to 1: a tilted ellipse, its apex to the patient's left."""
    half = signals.heart_half_width
    x = grid.x - 0.35 * half - 0.012
    y = grid.y - (anatomy.base_y - 0.13)
    tilted = y - anatomy.heart_tilt * 0.5 * x
    square = np.square(x / half) + np.square(tilted / 0.125)
    radius = np.sqrt(square)
    return _step((1.0 - radius) * half, 2.2 * grid.edge)


def _vessels(grid: Grid, anatomy: Anatomy) -> Field:
    """Hilar shadows and branching vessels."""
    rng = np.random.default_rng(anatomy.texture_seed)
    height, width = grid.shape_px
    canvas = np.zeros((height, width), np.float32)
    to_pixel = _to_pixel(grid)
    for side in (-1.0, 1.0):
        for angle in np.linspace(-1.25, 1.35, 11) + rng.uniform(-0.12, 0.12, 11):
            _branch(canvas, to_pixel, rng, side=side, angle=float(angle), level=0, start=(side * 0.065, 0.405))
    sigma = max(0.0028 * height, 0.5)
    lines = cv2.GaussianBlur(canvas, (0, 0), sigma)
    hilum = np.exp(-np.square((grid.a - 0.07) / 0.03) - np.square((grid.y - 0.415) / 0.06))
    return (0.17 * lines + 0.20 * hilum).astype(np.float32)


def _to_pixel(grid: Grid) -> tuple[float, float, float, float]:
    """Offset and pixels per unit of x and y."""
    height, width = grid.shape_px
    per_x = (width - 1) / float(grid.x[0, -1] - grid.x[0, 0])
    per_y = (height - 1) / float(grid.y[-1, 0] - grid.y[0, 0])
    return -float(grid.x[0, 0]) * per_x, per_x, -float(grid.y[0, 0]) * per_y, per_y


def _branch(
    canvas: Field,
    to_pixel: tuple[float, float, float, float],
    rng: np.random.Generator,
    *,
    side: float,
    angle: float,
    level: int,
    start: tuple[float, float],
) -> None:
    """One vessel and its two daughters, thinner and fainter."""
    offset_x, per_x, offset_y, per_y = to_pixel
    length = (0.085, 0.06, 0.045)[level] * rng.uniform(0.8, 1.2)
    end = (start[0] + side * length * np.cos(angle), start[1] + length * np.sin(angle))
    # cv2 takes fixed-point coordinates: 4 fractional bits.
    ends = [(round(16 * (offset_x + per_x * x)), round(16 * (offset_y + per_y * y))) for x, y in (start, end)]
    thickness = max(round((0.009, 0.006, 0.004)[level] * per_y), 1)
    cv2.line(canvas, ends[0], ends[1], (0.8, 0.6, 0.4)[level], thickness, cv2.LINE_AA, 4)
    if level < 2:
        for turn in (-0.3, 0.3):
            _branch(
                canvas,
                to_pixel,
                rng,
                side=side,
                angle=angle + turn * rng.uniform(0.5, 1.5),
                level=level + 1,
                start=end,
            )


def _interstitium(grid: Grid, signals: Signals, anatomy: Anatomy) -> Field:
    """Lung markings, coarser and stronger where the lungs are hazy."""
    rng = np.random.default_rng(anatomy.texture_seed + 1)
    blobs = rng.standard_normal((40, 40), dtype=np.float32)
    coarse = cv2.resize(blobs, grid.shape_px[::-1], interpolation=cv2.INTER_CUBIC)
    return (0.010 + 0.05 * signals.haze) * coarse


def _bones(grid: Grid, anatomy: Anatomy, below: Field) -> Field:
    """Ribs, clavicles, scapulae and humeral heads."""
    cage = _cage_half_width(grid) + 0.012
    within = _step(cage - grid.a, 0.006) * _step(grid.a - 0.035, 0.012) * _step(grid.y - 0.085, 0.01)
    posterior = (grid.y - 0.16 * grid.a - 3.2 * grid.a**3) / anatomy.rib_spacing + anatomy.rib_phase
    front = (grid.y + 0.62 * grid.a - 0.9 * grid.a**2) / (1.16 * anatomy.rib_spacing) + 1.7 * anatomy.rib_phase
    ribs = 0.135 * _ridge(posterior, 0.19) + 0.075 * _ridge(front, 0.20) * _step(grid.a - 0.11, 0.02)
    ribs *= within * anatomy.rib_strength * (1.0 - 0.55 * below) * _step(0.86 - grid.y, 0.03)
    lateral = np.exp(-np.square((cage - 0.006 - grid.a) / 0.009)) * _step(grid.y - 0.17, 0.03) * (1 - 0.4 * below)
    bones = ribs + 0.05 * lateral
    upper = grid.above(0.5)
    bones[: len(upper.y)] += _clavicles(upper, anatomy) + _shoulder_bones(upper, anatomy)
    return bones.astype(np.float32)


def _ridge(phase: Field, half: float) -> Field:
    """A band per unit of phase, with the bright edges of cortical bone."""
    offset = np.abs(phase - np.floor(phase) - 0.5)
    body = _step(half - offset, 0.05)
    cortex = np.exp(-np.square((offset - half + 0.05) / 0.05))
    return (0.7 * body + 0.45 * cortex).astype(np.float32)


def _clavicles(grid: Grid, anatomy: Anatomy) -> Field:
    bow = 0.014 * np.sin(np.clip(grid.a / 0.3, 0.0, 1.3) * 2 * np.pi)
    offset = np.abs(grid.y - (anatomy.clavicle_y - anatomy.clavicle_tilt * (grid.a - 0.03) + bow))
    half = 0.013
    body = _step(half - offset, 0.004) + 0.5 * np.exp(-np.square((offset - half + 0.004) / 0.004))
    return 0.13 * body * _step(grid.a - 0.03, 0.006) * _step(0.37 - grid.a, 0.01)


def _shoulder_bones(grid: Grid, anatomy: Anatomy) -> Field:
    top = 0.17 + anatomy.shoulder_y
    border = grid.a - (0.225 + 0.12 * (grid.y - 0.2))
    blade = _step(border, 0.006) * _step(0.36 - grid.a, 0.03)
    blade *= _step(grid.y - top, 0.02) * _step(0.43 - 0.5 * np.abs(grid.a - 0.27) - grid.y, 0.012)
    rim = np.exp(-np.square(border / 0.006)) * _step(grid.y - top, 0.02) * _step(0.43 - grid.y, 0.012)
    humerus = _step(0.055 - np.hypot(grid.a - 0.405, grid.y - top - 0.045), 0.006)
    shaft = _step(0.028 - np.abs(grid.a - 0.43 - 0.15 * (grid.y - 0.25)), 0.005) * _step(grid.y - top - 0.06, 0.02)
    shaft *= _step(0.36 - grid.y, 0.05)
    bones = anatomy.scapula * (blade + 0.5 * rim) + 0.14 * np.maximum(humerus, shaft)
    return bones.astype(np.float32)


def _mediastinum(grid: Grid, signals: Signals, anatomy: Anatomy) -> Field:
    """Spine, the aorta (wider with its trait), and the airways before them."""
    bend = grid.x - anatomy.spine_bend * np.sin(np.pi * grid.y)
    discs = 0.85 + 0.15 * np.cos(2 * np.pi * grid.y / 0.052)
    spine = 0.10 * discs * _step(0.034 - np.abs(bend), 0.007)
    spine += 0.05 * np.exp(-np.square(bend / 0.006)) * (discs > 0.9)
    width = 0.026 + 0.014 * _squash(signals.aorta)
    knob = _step(width - np.hypot(grid.x - 0.032 - 0.3 * width, grid.y - 0.30), 0.006)
    descent = _step(width - np.abs(grid.x - 0.018 - 0.2 * width), 0.008) * _step(grid.y - 0.3, 0.01)
    aorta = np.maximum(knob, descent * _step(0.85 - grid.y, 0.1))
    total = spine + 0.20 * aorta * _step(0.62 - grid.y, 0.08)
    upper = grid.above(0.42)
    total[: len(upper.y)] -= _airways(upper, anatomy)
    return total.astype(np.float32)


def _airways(grid: Grid, anatomy: Anatomy) -> Field:
    """Air of the trachea and of the two main bronchi."""
    windpipe_x = grid.x - anatomy.trachea_shift * grid.y / 0.3
    windpipe = _step(0.017 - np.abs(windpipe_x), 0.006) * _step(0.335 - grid.y, 0.015)
    fork = np.abs(grid.a - 0.9 * (grid.y - 0.32))
    bronchi = _step(0.011 - fork, 0.005) * _step(grid.y - 0.325, 0.01) * _step(0.375 - grid.y, 0.012)
    return (0.17 * windpipe + 0.09 * bronchi).astype(np.float32)


def _breasts(grid: Grid, signals: Signals) -> Field:
    """Breast shadows, denser towards their lower edge."""
    strength = 0.30 / (1.0 + math.exp(-1.5 * signals.breast))
    y = grid.y - 0.58
    square = np.square((grid.a - 0.18) / 0.13) + np.square(y / 0.125)
    return (strength * _depth(square) * (0.55 + 0.45 * _step(y, 0.05))).astype(np.float32)


def _gas(grid: Grid, signals: Signals, diaphragm_y: Field) -> Field:
    """Gastric bubble under the patient's left dome."""
    radius = signals.bubble_radius
    centre_y = diaphragm_y + 0.03 + radius
    square = np.square((grid.x - 0.14) / (1.5 * radius)) + np.square((grid.y - centre_y) / radius)
    return 0.34 * _depth(square)

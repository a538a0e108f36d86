"""Pictures that are no radiographs: pages of text, screens, noise, clouds, gradients, shapes, gratings.

All are float32 in [0, 1], shape (S, S), drawn from a generator alone.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

Field = npt.NDArray[np.float32]
_LETTERS = list("ABCDEFGHIKLMNOPRSTUVWXYZabcdeghiklmnoprstuvwxyz0123456789:/.- ")


def page(size_px: int, rng: np.random.Generator) -> Field:
    """Lines of text on a plain ground, as a report saved as a picture."""
    ground = rng.uniform(0.85, 1.0) if rng.random() < 0.6 else rng.uniform(0.0, 0.15)
    picture_SS = np.full((size_px, size_px), ground, np.float32)
    ink = 0.0 if ground > 0.5 else 1.0
    step = int(rng.integers(size_px // 22, size_px // 9))
    left = int(rng.integers(2, size_px // 8))
    for y in range(step, size_px, step):
        if rng.random() < 0.85:
            _write(picture_SS, (left, y), step * 0.6, ink, rng, letters=int(rng.integers(5, 40)))
    return picture_SS


def screen(size_px: int, rng: np.random.Generator, inset_SS: Field | None = None) -> Field:
    """A window of a viewer: bars, panels, a frame, text; ``inset_SS`` (or clouds) is what it shows."""
    base = float(rng.uniform(0.0, 0.35)) if rng.random() < 0.7 else float(rng.uniform(0.6, 0.95))
    ink = 1.0 if base < 0.5 else 0.0
    picture_SS = np.full((size_px, size_px), base, np.float32)
    for _ in range(int(rng.integers(1, 5))):
        x, y = rng.integers(0, size_px, 2)
        corner = (int(x + rng.integers(size_px // 6, size_px)), int(y + rng.integers(size_px // 12, size_px // 2)))
        cv2.rectangle(picture_SS, (int(x), int(y)), corner, float(rng.uniform(0, 1)), -1)
    side = int(size_px * rng.uniform(0.35, 0.68))
    x, y = (int(v) for v in rng.integers(2, size_px - side - 1, 2))
    shown_SS = clouds(size_px, rng) if inset_SS is None else inset_SS
    picture_SS[y : y + side, x : x + side] = cv2.resize(shown_SS, (side, side), interpolation=cv2.INTER_AREA)
    cv2.rectangle(picture_SS, (x - 1, y - 1), (x + side, y + side), ink, 1)
    height = size_px * float(rng.uniform(0.03, 0.05))
    for _ in range(int(rng.integers(10, 24))):
        where = (int(rng.integers(0, size_px * 3 // 4)), int(rng.integers(0, size_px)))
        _write(picture_SS, where, height, ink, rng, letters=int(rng.integers(4, 16)))
    return picture_SS


def noise(size_px: int, rng: np.random.Generator) -> Field:
    """Independent pixels, more or less blurred."""
    picture_SS = rng.standard_normal((size_px, size_px), dtype=np.float32)
    if rng.random() < 0.5:
        picture_SS = np.asarray(cv2.GaussianBlur(picture_SS, (0, 0), float(rng.uniform(0.5, 4.0))), np.float32)
    return _stretch(picture_SS)


def clouds(size_px: int, rng: np.random.Generator) -> Field:
    """Noise at all scales, as textures have it."""
    picture_SS = np.zeros((size_px, size_px), np.float32)
    power = rng.uniform(0.4, 0.8)
    for octave in range(1, 7):
        side = min(2**octave + 1, size_px)
        layer = rng.standard_normal((side, side), dtype=np.float32)
        picture_SS += power**octave * cv2.resize(layer, (size_px, size_px), interpolation=cv2.INTER_CUBIC)
    return _stretch(picture_SS)


def gradient(size_px: int, rng: np.random.Generator) -> Field:
    """Brightness that rises along a line or from a point."""
    y, x = np.mgrid[0 : 1 : size_px * 1j, 0 : 1 : size_px * 1j].astype(np.float32)
    if rng.random() < 0.5:
        angle = rng.uniform(0, 2 * np.pi)
        field = np.cos(angle) * x + np.sin(angle) * y
    else:
        field = np.hypot(x - rng.uniform(0, 1), y - rng.uniform(0, 1)) * rng.choice((-1.0, 1.0))
    return _stretch(field + 0.01 * rng.standard_normal((size_px, size_px)))


def shapes(size_px: int, rng: np.random.Generator) -> Field:
    """Ellipses and boxes of any brightness, as a test phantom has them."""
    picture_SS = np.full((size_px, size_px), float(rng.uniform(0, 0.6)), np.float32)
    for _ in range(int(rng.integers(3, 14))):
        middle = tuple(int(v) for v in rng.integers(0, size_px, 2))
        axes = tuple(int(v) for v in rng.integers(size_px // 20, size_px // 3, 2))
        grey = float(rng.uniform(0, 1))
        if rng.random() < 0.6:
            cv2.ellipse(picture_SS, middle, axes, float(rng.uniform(0, 180)), 0, 360, grey, -1)
        else:
            cv2.rectangle(picture_SS, middle, (middle[0] + axes[0], middle[1] + axes[1]), grey, -1)
    blurred_SS = cv2.GaussianBlur(picture_SS, (0, 0), float(rng.uniform(0.4, 5.0)))
    return np.asarray(np.clip(blurred_SS, 0, 1), dtype=np.float32)


def grating(size_px: int, rng: np.random.Generator) -> Field:
    """Bars, checks or rings, as a test pattern has them."""
    y, x = np.mgrid[-1 : 1 : size_px * 1j, -1 : 1 : size_px * 1j].astype(np.float32)
    frequency, angle = rng.uniform(2, 12), rng.uniform(0, np.pi)
    along = np.cos(angle) * x + np.sin(angle) * y
    across = np.cos(angle) * y - np.sin(angle) * x
    kind = rng.integers(3)
    if kind == 0:
        wave = np.sin(np.pi * frequency * along)
    elif kind == 1:
        wave = np.sign(np.sin(np.pi * frequency * along) * np.sin(np.pi * frequency * across))
    else:
        wave = np.sin(np.pi * frequency * np.hypot(x, y))
    return _stretch(wave + 0.02 * rng.standard_normal((size_px, size_px)))


DRAWERS: dict[str, Callable[[int, np.random.Generator], Field]] = {
    "page": page,
    "screen": screen,
    "noise": noise,
    "clouds": clouds,
    "gradient": gradient,
    "shapes": shapes,
    "grating": grating,
}


def write(picture_SS: Field, text: str, where: tuple[int, int], *, scale: float, ink: float) -> None:
    """Write over a picture, in place; at scale 1 letters are 22 pixels high."""
    # OpenCV writes on bytes alone.
    mask_SS = np.zeros(picture_SS.shape, np.uint8)
    cv2.putText(mask_SS, text, where, cv2.FONT_HERSHEY_SIMPLEX, scale, 255, 1, cv2.LINE_AA)
    weight_SS = mask_SS.astype(np.float32) / np.float32(255)
    picture_SS += weight_SS * (np.float32(ink) - picture_SS)


def _write(
    picture_SS: Field, where: tuple[int, int], height_px: float, ink: float, rng: np.random.Generator, *, letters: int
) -> None:
    write(picture_SS, "".join(rng.choice(_LETTERS, letters)), where, scale=height_px / 22.0, ink=ink)


def _stretch(field: npt.NDArray[np.floating]) -> Field:
    low, high = field.min(), field.max()
    return ((field - low) / max(float(high - low), 1e-6)).astype(np.float32)

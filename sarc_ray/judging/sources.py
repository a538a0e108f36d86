"""Where the judge's radiographs, phantoms and photographs come from, as square grey pictures.

Real radiographs come from a manifest with a column ``split`` (by patient): ``train`` to learn from, ``tune`` to stop
early and to choose the threshold, ``test_internal`` to measure. Shapes: N pictures, S rows and columns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd

from sarc_ray import storage
from sarc_ray.cohort.schema import read_manifest
from sarc_ray.errors import ManifestError
from sarc_ray.imaging.preprocess import PreprocessConfig, process_image
from sarc_ray.judging import strange
from sarc_ray.judging.pictures import cropped, in_pose, torn
from sarc_ray.simulate.anatomy import Signals
from sarc_ray.simulate.detector import DEVICES, Device
from sarc_ray.simulate.other_parts import Part, render_part
from sarc_ray.simulate.phantom import render

Field = npt.NDArray[np.float32]
# Pictures are kept at this size, and made smaller by the judge itself.
SIZE_PX = 128
_PLAIN = PreprocessConfig(size_px=SIZE_PX, clahe_clip_limit=0.0, clahe_tiles=1, pixel_gate=False)
_PARTS: tuple[Part, ...] = ("lateral", "hand", "knee")
# Kinds that the judge never learns from: they show how it takes what it does not know.
HELD_OUT_PARTS: tuple[Part, ...] = ("skull", "pelvis")
HELD_OUT_STRANGE = ("grating",)
_STRANGE = tuple(name for name in strange.DRAWERS if name not in HELD_OUT_STRANGE)
KINDS = ("cropped", "torn", *_PARTS, *_STRANGE, "photo")


@dataclass(frozen=True, kw_only=True, slots=True)
class Radiographs:
    """Real frontal radiographs of one split.

    Args:
        pictures_NSS: float32 in 0..1, shape (N, S, S), not equalised.
        frame: their N rows of the manifest.
    """

    pictures_NSS: Field
    frame: pd.DataFrame


def read_split(manifest_uri: str, split: str) -> Radiographs:
    """Read the radiographs of one split of a manifest.

    Raises:
        ManifestError: no column ``split``, no such rows, or a radiograph that cannot be read.
    """
    frame = read_manifest(manifest_uri)
    if "split" not in frame or not (frame["split"] == split).any():
        raise ManifestError(f"{manifest_uri}: no rows whose column 'split' is {split!r}; give each patient a split")
    frame = frame[frame["split"] == split].reset_index(drop=True)
    pictures = []
    for uri, data in zip(frame["image_uri"], storage.read_many(frame["image_uri"].tolist()), strict=True):
        result = process_image(data, _PLAIN)
        if result.image_HW is None:
            raise ManifestError(f"{uri}: {result.reason}; the judge learns from radiographs that can be read alone")
        pictures.append(result.image_HW.astype(np.float32) / np.float32(255))
    return Radiographs(pictures_NSS=np.stack(pictures), frame=frame)


def phantoms(n: int, *, seed: int, size_px: int = SIZE_PX, rows: int = 256) -> Field:
    """Frontal phantoms of the simulator's devices, as the demo draws them: float32, shape (n, S, S)."""
    drawn = (phantom(index, seed=seed, rows=rows)[1] for index in range(n))
    return np.stack([cv2.resize(gray_HW, (size_px, size_px), interpolation=cv2.INTER_AREA) for gray_HW in drawn])


def phantom(index: int, *, seed: int, rows: int) -> tuple[Device, Field]:
    """One of them before it is resized, and its device; devices take turns by ``index``."""
    device, rng = DEVICES[index % len(DEVICES)], np.random.default_rng([seed, index])
    alm, hgs, crt, breast, aorta = rng.standard_normal(5)
    signals = Signals(alm=alm, hgs=hgs, crt=crt, haze=float(rng.random()), breast=breast, aorta=aorta)
    return device, render(signals, shape_HW=(rows, round(rows * device.aspect)), rng=rng).gray_HW


def photographs() -> list[Field]:
    """The two photographs that come with scikit-learn, grey."""
    from sklearn.datasets import load_sample_images

    return [grey_of(image_HWC) for image_HWC in load_sample_images().images]


def grey_of(image_HWC: npt.NDArray[np.uint8]) -> Field:
    """A colour picture in grey, 0..1."""
    return np.asarray(cv2.cvtColor(image_HWC[..., :3], cv2.COLOR_RGB2GRAY).astype(np.float32) / np.float32(255))


def photo(photographs_: list[Field], rng: np.random.Generator) -> Field:
    """A part of a photograph, turned by quarters."""
    image_HW = photographs_[int(rng.integers(len(photographs_)))]
    height, width = (int(side * rng.uniform(0.2, 1.0)) for side in image_HW.shape)
    y = int(rng.integers(image_HW.shape[0] - height + 1))
    x = int(rng.integers(image_HW.shape[1] - width + 1))
    part = cv2.resize(image_HW[y : y + height, x : x + width], (SIZE_PX, SIZE_PX), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(np.rot90(part, int(rng.integers(4))), dtype=np.float32)


def part_in_any_pose(part: Part, rng: np.random.Generator) -> Field:
    """A drawn radiograph of another part, upright or turned, sometimes inverted."""
    shape = (160, int(160 * rng.uniform(0.75, 1.15)))
    drawn_HW = render_part(part, shape_HW=shape, rng=rng)
    square = np.asarray(cv2.resize(drawn_HW, (SIZE_PX, SIZE_PX), interpolation=cv2.INTER_AREA), np.float32)
    pose = "turned_90" if rng.random() < 0.15 else "turned_270" if rng.random() < 0.15 else "upright"
    return in_pose(square, pose) if rng.random() < 0.8 else np.asarray(1.0 - square, dtype=np.float32)


def not_a_chest(kind: str, chest_SS: Field, photographs_: list[Field], rng: np.random.Generator) -> Field:
    """A picture of one of ``KINDS`` or of the kinds that are held out.

    Args:
        kind: what it shows.
        chest_SS: a frontal chest, for the kinds that are made of one.
        photographs_: what ``photo`` cuts from.
        rng: for everything else.
    """
    makers: dict[str, Callable[[], Field]] = {
        "cropped": lambda: cropped(chest_SS, rng),
        "torn": lambda: torn(chest_SS, rng),
        "photo": lambda: photo(photographs_, rng),
        "screen": lambda: strange.screen(SIZE_PX, rng, chest_SS if rng.random() < 0.5 else None),
    }
    for part in (*_PARTS, *HELD_OUT_PARTS):
        makers[part] = lambda part=part: part_in_any_pose(part, rng)  # type: ignore[misc]
    maker = makers.get(kind)
    return maker() if maker else strange.DRAWERS[kind](SIZE_PX, rng)

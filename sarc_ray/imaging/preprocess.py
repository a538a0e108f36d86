"""From a decoded radiograph to the picture that the networks see; and the whole way, without ever raising.

The paper's order: extract the pixels, resize, then CLAHE. The window comes between the two: rescaling and a linear
window commute with area averaging, so the small picture is windowed.

Shape suffixes: H rows, W columns.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from sarc_ray.errors import ImageError, Reason
from sarc_ray.imaging import dicom, gate, pixel_gate
from sarc_ray.imaging.codecs import Sampling
from sarc_ray.imaging.dicom import Radiograph
from sarc_ray.imaging.header import HeaderFacts, read_header
from sarc_ray.imaging.voi import Voi, VoiWindow
from sarc_ray.instruments import Stopwatch

# Without a usable window, these percentiles of the resized picture become black and white: robust to a lead marker
# and to a black border, which cover little of the field.
PERCENTILES = (0.5, 99.5)
# A header's window is not used when it leaves less than this share of the picture between black and white, or
# squeezes the middle 99% of it into less than this share of the grey scale.
UNSATURATED_MIN = 0.10
SPREAD_MIN = 1.0 / 16.0
# A picture whose middle 99% differs by no more than one stored value has no contrast.
BLANK_SPREAD_MAX = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class PreprocessConfig:
    """How a radiograph becomes a small picture.

    Args:
        size_px: side of the square picture (the paper: 224; the aspect ratio is not kept).
        clahe_clip_limit: OpenCV's clip limit, in multiples of a flat histogram; 0 leaves CLAHE out.
        clahe_tiles: tiles per side.
        pixel_gate: refuse pictures whose pixels are not those of an upright frontal chest radiograph.
    """

    size_px: int
    clahe_clip_limit: float
    clahe_tiles: int
    pixel_gate: bool

    def __post_init__(self) -> None:
        if not 16 <= self.size_px <= 2048:
            raise ValueError(f"size_px: found {self.size_px}, allowed: 16 to 2048")
        if not 0 <= self.clahe_clip_limit <= 256:
            raise ValueError(f"clahe_clip_limit: found {self.clahe_clip_limit}, allowed: 0 (off) to 256")
        if not 1 <= self.clahe_tiles <= self.size_px // 4:
            raise ValueError(f"clahe_tiles: found {self.clahe_tiles}, allowed: 1 to size_px / 4")


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageResult:
    """What became of one object.

    Args:
        reason: ``Reason.NONE`` where there is a picture.
        image_HW: uint8, shape (size_px, size_px), air dark and bone bright; None where there is a reason.
        image_sha256: of the object's bytes, hexadecimal; None where there are none.
        header: what the header says; None where it could not be read.
        gate_flags: what the gate remarked (:data:`sarc_ray.imaging.gate.FLAGS`), with commas between; may be empty.
        seconds: wall-clock time by part of the way (:data:`sarc_ray.instruments.PARTS`); no part of the result.
    """

    reason: Reason
    image_HW: npt.NDArray[np.uint8] | None
    image_sha256: str | None
    header: HeaderFacts | None
    gate_flags: str
    seconds: Mapping[str, float] = field(default_factory=dict, compare=False)


def use_one_thread() -> None:
    """Keep OpenCV to one thread; for the start of a worker process, where the engine does the parallel work."""
    cv2.setNumThreads(1)


def process_image(data: bytes | Exception, config: PreprocessConfig) -> ImageResult:
    """The whole way from an object's bytes to a picture or a reason; never raises.

    Args:
        data: the bytes, or the exception that fetching them ended in.
        config: how to preprocess.
    """
    if isinstance(data, Exception):
        # A folder is no object; in an object store its name does not even exist.
        absent = (FileNotFoundError, IsADirectoryError, NotADirectoryError)
        missing = any(isinstance(error, absent) for error in (data, data.__cause__))
        return _refused(Reason.OBJECT_MISSING if missing else Reason.STORAGE_FAILED)
    try:
        return process_object(data, config)
    except MemoryError:  # Sizes that can be told beforehand are refused before.
        return _refused(Reason.IMAGE_TOO_LARGE, hashlib.sha256(data).hexdigest())


def process_object(data: bytes, config: PreprocessConfig) -> ImageResult:
    """:func:`process_image` of what was fetched, for a process with a limit of memory.

    Raises:
        MemoryError: there is not enough of it. Nothing else is raised.
    """
    digest = hashlib.sha256(data).hexdigest()
    header = None
    watch = Stopwatch()
    try:
        with dicom.quiet_pydicom():
            with watch.part("decode"):
                dataset = dicom.open_dataset(data)
                header = read_header(dataset)
            with watch.part("gate"):
                gate.check(header)
            with watch.part("decode"):
                radiograph = dicom.decode(dataset, header, min_side_px=config.size_px)
            image_HW = preprocess(radiograph, config, watch)
    except ImageError as error:
        return _refused(error.reason, digest, header, watch)
    except MemoryError:
        raise
    except Exception as error:  # One image must never stop an archive; the reason says that we did not foresee it.
        if isinstance(error, cv2.error) and error.code == cv2.Error.StsNoMem:
            raise MemoryError from error
        return _refused(Reason.INTERNAL_ERROR, digest, header, watch)
    return _result(Reason.NONE, digest, header, image_HW, watch)


def _refused(
    reason: Reason, digest: str | None = None, header: HeaderFacts | None = None, watch: Stopwatch | None = None
) -> ImageResult:
    return _result(reason, digest, header, None, watch or Stopwatch())


def _result(
    reason: Reason,
    digest: str | None,
    header: HeaderFacts | None,
    image_HW: npt.NDArray[np.uint8] | None,
    watch: Stopwatch,
) -> ImageResult:
    return ImageResult(
        reason=reason,
        image_HW=image_HW,
        image_sha256=digest,
        header=header,
        gate_flags="" if header is None else ",".join(gate.flags(header)),
        seconds=watch.seconds,
    )


def preprocess(
    radiograph: Radiograph, config: PreprocessConfig, watch: Stopwatch | None = None
) -> npt.NDArray[np.uint8]:
    """Resize, window, turn to MONOCHROME2's sense, look at it, equalise.

    Args:
        radiograph: decoded.
        config: sizes, CLAHE and whether the pixels are judged.
        watch: counts the time of the gate and of the rest.

    Returns:
        uint8, shape (size_px, size_px), air dark and bone bright.

    Raises:
        ImageError: BLANK_IMAGE, or a reason of :func:`sarc_ray.imaging.pixel_gate.check`.
    """
    watch = watch or Stopwatch()
    with watch.part("preprocess"):
        grey_HW = grey_picture(radiograph, config)
    if config.pixel_gate:
        with watch.part("gate"):
            pixel_gate.check(grey_HW, shape_HW=(radiograph.header.rows, radiograph.header.columns))
    with watch.part("preprocess"):
        return equalise(grey_HW, config)


def grey_picture(radiograph: Radiograph, config: PreprocessConfig) -> npt.NDArray[np.float32]:
    """Resize, window and turn to MONOCHROME2's sense.

    Returns:
        float32 in 0..1, shape (size_px, size_px), air dark and bone bright; padding is background, and dark.

    Raises:
        ImageError: BLANK_IMAGE.
    """
    small_HW, inside_HW = _resized(radiograph, config.size_px)
    seen = small_HW if inside_HW is None else small_HW[inside_HW]
    low, high = _percentiles(seen)
    if high - low <= BLANK_SPREAD_MAX:
        raise ImageError(Reason.BLANK_IMAGE, f"the middle 99% of the stored values spans {high - low:g}")
    if radiograph.no_intensity is not None:
        small_HW = attenuation(small_HW, radiograph.no_intensity)
    values_HW = small_HW * np.float32(radiograph.slope) + np.float32(radiograph.intercept)
    grey_HW = window(values_HW, radiograph.voi, inside_HW)
    grey_HW = 1.0 - grey_HW if radiograph.inverted else grey_HW
    # Part 3 C.7.5.1.1.2: padding is no part of the picture, whatever its value would be shown as.
    return grey_HW if inside_HW is None else np.where(inside_HW, grey_HW, np.float32(0.0))


def _resized(radiograph: Radiograph, size_px: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_] | None]:
    """The small picture, and where it is no padding: means are taken of picture alone."""
    header, sampling = radiograph.header, radiograph.sampling
    if sampling.step_px > 1:
        return resize_reduced(radiograph.pixels_HW, (header.rows, header.columns), sampling, size_px), None
    if radiograph.padded_HW is None:
        return resize(radiograph.pixels_HW, size_px), None
    weights_HW = resize((~radiograph.padded_HW).astype(np.uint8), size_px)
    picture_HW = resize(np.where(radiograph.padded_HW, 0, radiograph.pixels_HW), size_px)
    inside_HW = weights_HW > 0.5
    return (picture_HW / np.maximum(weights_HW, np.float32(1e-6))).astype(np.float32), inside_HW


def equalise(grey_HW: npt.NDArray[np.float32], config: PreprocessConfig) -> npt.NDArray[np.uint8]:
    """Contrast limited adaptive histogram equalisation of a picture in 0..1, shape (H, W).

    References:
        Zuiderveld K. Contrast limited adaptive histogram equalization. Graphics Gems IV, 1994, 474-485.
    """
    image_HW = np.rint(grey_HW * 255.0).astype(np.uint8)
    if config.clahe_clip_limit == 0:
        return image_HW
    tiles = (config.clahe_tiles, config.clahe_tiles)
    return np.asarray(cv2.createCLAHE(config.clahe_clip_limit, tiles).apply(image_HW), dtype=np.uint8)


def resize(pixels_HW: npt.NDArray[np.integer[Any]], size_px: int) -> npt.NDArray[np.float32]:
    """Resize to a square: area averaging where the picture shrinks, else linear interpolation."""
    shrinks = min(pixels_HW.shape) >= size_px
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    small_HW = cv2.resize(pixels_HW.astype(np.float32), (size_px, size_px), interpolation=interpolation)
    return np.asarray(small_HW, dtype=np.float32)


def resize_reduced(
    pixels_HW: npt.NDArray[np.integer[Any]], full_shape: tuple[int, int], sampling: Sampling, size_px: int
) -> npt.NDArray[np.float32]:
    """Area averaging of a picture that was decoded reduced, with its samples where they lie in the full one.

    Args:
        pixels_HW: reduced, shape (H, W), at least as large as the result.
        full_shape: rows and columns of the full picture.
        sampling: where its samples lie.
        size_px: side of the result.
    """
    rows, columns = (
        _area_weights(full_px, count, sampling, size_px)
        for full_px, count in zip(full_shape, pixels_HW.shape, strict=True)
    )
    return np.asarray(rows @ pixels_HW.astype(np.float32) @ columns.T, dtype=np.float32)


@functools.lru_cache(maxsize=16)  # an archive has few detectors; one entry is at most a few megabytes
def _area_weights(full_px: int, count: int, sampling: Sampling, size_px: int) -> npt.NDArray[np.float32]:
    """Share of each sample in each pixel of the result, shape (size_px, count); rows sum to 1."""
    edges = np.clip(sampling.first_px + np.arange(count + 1.0) * sampling.step_px, 0.0, full_px)
    edges[-1] = full_px
    borders = np.linspace(0.0, full_px, size_px + 1)
    overlap = np.minimum(edges[None, 1:], borders[1:, None]) - np.maximum(edges[None, :-1], borders[:-1, None])
    overlap = np.maximum(overlap, 0.0)
    weights = (overlap / overlap.sum(axis=1, keepdims=True)).astype(np.float32)
    weights.flags.writeable = False  # it is kept for other pictures
    return weights


def attenuation(pixels_HW: npt.NDArray[np.float32], no_intensity: int) -> npt.NDArray[np.float32]:
    """Logarithm of X-ray intensity (Beer and Lambert), in the direction of the stored values.

    Args:
        pixels_HW: proportional to intensity, shape (H, W).
        no_intensity: 0, or the largest stored value where larger values mean less (Part 3 C.8.11.3.1.2).
    """
    sign = np.float32(-1 if no_intensity else 1)
    intensity_HW = sign * (pixels_HW - np.float32(no_intensity))
    # A thousandth of the open beam is as little as detectors tell from none.
    floor = max(float(np.percentile(intensity_HW, PERCENTILES[1])) * 1e-3, 1e-6)
    return np.asarray(sign * np.log(np.maximum(intensity_HW, floor)), dtype=np.float32)


def window(
    values_HW: npt.NDArray[np.float32], voi: Voi | None, inside_HW: npt.NDArray[np.bool_] | None = None
) -> npt.NDArray[np.float32]:
    """Map values to 0..1 by the header's LUT or window, or by percentiles where it has none that can be used.

    Args:
        values_HW: rescaled values, shape (H, W), not blank.
        voi: the header's, or None.
        inside_HW: where percentiles are taken; None for everywhere.
    """
    inside = slice(None) if inside_HW is None else inside_HW
    if voi is not None:
        grey_HW = voi.apply(values_HW)
        seen = grey_HW[inside]
        low, high = _percentiles(seen)
        unsaturated = float(np.mean((seen > 0.001) & (seen < 0.999)))
        if unsaturated >= UNSATURATED_MIN and high - low >= SPREAD_MIN:
            return grey_HW
    low, high = _percentiles(values_HW[inside])
    spread = float(high - low)
    return VoiWindow(center=float(low) + spread / 2, width=spread, sigmoid=False).apply(values_HW)


def _percentiles(values: npt.NDArray[np.float32]) -> list[np.float64]:
    """``np.percentile`` at ``PERCENTILES``, to the bit, in a quarter of its time: sorting floats is vectorised."""
    ordered = np.sort(values, axis=None)
    found = []
    for percent in PERCENTILES:
        place = percent / 100.0 * (ordered.size - 1)
        below = math.floor(place)
        low, high = ordered[below], ordered[min(below + 1, ordered.size - 1)]
        share = np.float64(place - below)
        step = high - low
        found.append(low + step * share if share < 0.5 else high - step * (1.0 - share))
    return found

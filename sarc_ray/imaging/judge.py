"""A small network that looks at a picture and says whether it is an upright frontal chest radiograph.

Five convolutions and two layers, 64 x 64 pixels in, evaluated with NumPy: no framework is needed where pictures are
prepared. The weights are in ``judge.safetensors`` beside this file; ``python -m sarc_ray.judging.train`` makes them,
and their hash stands here. The picture's grey values are replaced by their ranks first, so that windows and tone
curves, which keep the order of grey values, change nothing.

H rows, W columns; C channels; K classes.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.resources
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view
from safetensors.numpy import load

FloatArray = npt.NDArray[np.float32]

OTHER = "other"
# Turned counter-clockwise by so many degrees; inverted: bone dark, air bright.
CLASSES = (
    "upright",
    "turned_90",
    "turned_180",
    "turned_270",
    "inverted",
    "turned_90_inverted",
    "turned_180_inverted",
    "turned_270_inverted",
    OTHER,
)
SIZE_PX = 64
# Strides of the convolutions; all have kernels of 3 x 3 and zero padding of 1.
STRIDES = (2, 2, 1, 2, 2)
WEIGHTS = "judge.safetensors"
WEIGHTS_SHA256 = "52ff24356c78b27b316ba49814af8a9d31d3456f801332ce101156a822c4830e"


@dataclass(frozen=True, kw_only=True, slots=True)
class Judge:
    """The network's weights.

    Args:
        convolutions: per layer, kernels of shape (C_out, C_in, 3, 3) and biases of shape (C_out,).
        layers: per fully connected layer, weights of shape (out, in) and biases of shape (out,).
    """

    convolutions: tuple[tuple[FloatArray, FloatArray], ...]
    layers: tuple[tuple[FloatArray, FloatArray], ...]

    def probabilities(self, grey_HW: FloatArray) -> dict[str, float]:
        """Probability of each of ``CLASSES``.

        Args:
            grey_HW: float32 in 0..1, any shape, air dark and bone bright if all is well.
        """
        x_CHW = standardise(grey_HW)[None]
        for (kernel, bias), stride in zip(self.convolutions, STRIDES, strict=True):
            x_CHW = np.maximum(_convolve(x_CHW, kernel, bias, stride), 0.0)
        x = x_CHW.reshape(-1)
        for index, (weight, bias) in enumerate(self.layers):
            x = weight @ (np.maximum(x, 0.0) if index else x) + bias
        exponent_K = np.exp(x - x.max())
        return dict(zip(CLASSES, (exponent_K / exponent_K.sum()).tolist(), strict=True))


def standardise(grey_HW: FloatArray) -> FloatArray:
    """The picture at 64 x 64, its grey values replaced by their ranks; about -1.7 to 1.7, shape (64, 64)."""
    interpolation = cv2.INTER_AREA if min(grey_HW.shape) >= SIZE_PX else cv2.INTER_LINEAR
    small_HW = cv2.resize(grey_HW, (SIZE_PX, SIZE_PX), interpolation=interpolation)
    ranks_HW = cv2.equalizeHist(np.rint(np.clip(small_HW, 0.0, 1.0) * 255.0).astype(np.uint8))
    # A uniform variable on 0..1 has a standard deviation of 0.289.
    return (ranks_HW.astype(np.float32) / np.float32(255.0) - np.float32(0.5)) / np.float32(0.289)


def warm_up() -> None:
    """Read the judge and let it look once: what its arithmetic keeps in memory is then there before any limit is."""
    shipped_judge().probabilities(np.zeros((SIZE_PX, SIZE_PX), np.float32))


@functools.cache
def shipped_judge() -> Judge:
    """The judge that comes with the package, read once per process.

    Raises:
        RuntimeError: the file is not the one whose hash stands in this module.
    """
    data = importlib.resources.files("sarc_ray.imaging").joinpath(WEIGHTS).read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != WEIGHTS_SHA256:
        raise RuntimeError(f"{WEIGHTS}: expected sha256 {WEIGHTS_SHA256}, found {found}; install the package again")
    return judge_from_bytes(data)


def judge_from_bytes(data: bytes) -> Judge:
    """Read weights as :func:`sarc_ray.judging.train` writes them (safetensors, half precision)."""
    tensors = {name: np.ascontiguousarray(tensor, dtype=np.float32) for name, tensor in load(data).items()}

    def pairs(prefix: str) -> tuple[tuple[FloatArray, FloatArray], ...]:
        n = sum(name.startswith(prefix) for name in tensors) // 2
        return tuple((tensors[f"{prefix}{k}.weight"], tensors[f"{prefix}{k}.bias"]) for k in range(n))

    return Judge(convolutions=pairs("convolution"), layers=pairs("layer"))


def _convolve(x_CHW: FloatArray, kernel: FloatArray, bias: FloatArray, stride: int) -> FloatArray:
    padded = np.pad(x_CHW, ((0, 0), (1, 1), (1, 1)))
    windows = sliding_window_view(padded, (3, 3), axis=(1, 2))[:, ::stride, ::stride]
    channels, height, width = windows.shape[:3]
    columns = windows.transpose(0, 3, 4, 1, 2).reshape(channels * 9, height * width)
    return (kernel.reshape(len(kernel), -1) @ columns + bias[:, None]).reshape(-1, height, width)

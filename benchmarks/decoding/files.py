"""Makes the radiographs of the decode benchmark: phantoms at detector size, one file per transfer syntax.

What decides the time of a lossless codec is the noise in the picture. The phantom's quantum noise is white; a real
detector's light spreads before it is recorded, which takes away half of the fine noise. With that blur JPEG 2000 packs
the 12 bit pictures about 3:1 against their 16 bit words, as is reported of computed radiography.

Shape suffixes: H rows, W columns.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
from pydicom import dcmread
from pydicom import uid as uids
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate

from sarc_ray.simulate.anatomy import Signals
from sarc_ray.simulate.detector import DEVICE_BY_NAME, Header, to_dicom
from sarc_ray.simulate.phantom import render

# Rows and columns of common detectors: imaging plates of 35 x 43 cm, panels of 35 x 43 and 43 x 43 cm.
SHAPES_HW = ((2800, 2400), (3056, 2544), (2500, 2048), (2880, 2880))
# SD of the detector's spread of light, in pixels; see above.
BLUR_PX = 0.8
# 12 bits stored in 16, explicit little endian, MONOCHROME2, with a window and a rescale of 1 and 0.
_DEVICE = DEVICE_BY_NAME["Aldera-12"]

Encode = Callable[[Dataset, np.ndarray], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class File:
    """One file of the benchmark."""

    path: Path
    syntax: str
    shape_HW: tuple[int, int]


def _frame(syntax: uids.UID, encode: Callable[[np.ndarray], bytes]) -> Encode:
    def write(dataset: Dataset, stored_HW: np.ndarray) -> None:
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.PixelData = encapsulate([bytes(encode(stored_HW))])
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True

    return write


def _plain(syntax: uids.UID) -> Encode:
    def write(dataset: Dataset, stored_HW: np.ndarray) -> None:
        dataset.file_meta.TransferSyntaxUID = syntax

    return write


def _rle(dataset: Dataset, stored_HW: np.ndarray) -> None:
    dataset.compress(uids.RLELossless, encoding_plugin="pylibjpeg", generate_instance_uid=False)


def _eight_bits(dataset: Dataset, stored_HW: np.ndarray) -> None:
    eight_HW = (stored_HW >> 4).astype(np.uint8)
    _frame(uids.JPEGBaseline8Bit, lambda pixels_HW: imagecodecs.jpeg8_encode(pixels_HW, level=90))(dataset, eight_HW)
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.WindowCenter, dataset.WindowWidth = (str(float(value) / 16) for value in _window(dataset))


def _window(dataset: Dataset) -> tuple[float, float]:
    return float(dataset.WindowCenter), float(dataset.WindowWidth)


# Five levels of decomposition are what OpenJPEG writes unless it is told otherwise, and so do the programs built on it.
SYNTAXES: dict[str, Encode] = {
    "implicit little endian": _plain(uids.ImplicitVRLittleEndian),
    "explicit little endian": _plain(uids.ExplicitVRLittleEndian),
    "deflated": _plain(uids.DeflatedExplicitVRLittleEndian),
    "RLE": _rle,
    "JPEG lossless SV1": _frame(
        uids.JPEGLosslessSV1, lambda pixels_HW: imagecodecs.ljpeg_encode(pixels_HW, bitspersample=12)
    ),
    "JPEG-LS": _frame(uids.JPEGLSLossless, imagecodecs.jpegls_encode),
    "JPEG 2000 lossless": _frame(
        uids.JPEG2000Lossless,
        lambda pixels_HW: imagecodecs.jpeg2k_encode(
            pixels_HW, reversible=True, level=0, codecformat="j2k", bitspersample=12, resolutions=6
        ),
    ),
    "HTJ2K lossless": _frame(
        uids.HTJ2KLossless, lambda pixels_HW: imagecodecs.htj2k_encode(pixels_HW, reversible=True)
    ),
    "JPEG baseline 8 bit": _eight_bits,
    "JPEG extended 12 bit": _frame(
        uids.JPEGExtended12Bit, lambda pixels_HW: imagecodecs.jpeg8_encode(pixels_HW, level=90, bitspersample=12)
    ),
}
# Files per syntax among twenty of the archive. No census of hospital archives was found: this mix is assumed. Lossless
# syntaxes that conformance statements list most often have the most; each syntax has its own row for another mix.
MIX = {
    "JPEG 2000 lossless": 8,
    "explicit little endian": 4,
    "implicit little endian": 2,
    "JPEG lossless SV1": 3,
    "RLE": 1,
    "JPEG-LS": 1,
    "JPEG extended 12 bit": 1,
}


def draw(shape_HW: tuple[int, int], *, seed: int) -> Dataset:
    """A radiograph of 12 bits, uncompressed; another patient for each seed."""
    rng = np.random.default_rng(seed)
    names = ("alm", "hgs", "crt", "haze", "breast", "aorta")
    signals = Signals(**dict(zip(names, rng.normal(size=6) * (1, 1, 1, 0, 1, 1) + (0, 0, 0, 0.3, 0, 0), strict=True)))
    gray_HW = cv2.GaussianBlur(render(signals, shape_HW=shape_HW, rng=rng).gray_HW, (0, 0), BLUR_PX)
    header = Header(
        patient_id=f"bench-{seed}",
        study_id=f"bench-{seed}",
        image_key=f"bench-{seed}",
        sex="F",
        age_years=70.0,
        acquired_on="2020-03-05",
        view="PA",
        body_part="CHEST",
        site="bench",
    )
    return dcmread(io.BytesIO(to_dicom(gray_HW, device=_DEVICE, header=header)))


def write_syntaxes(folder: Path, *, n_pictures: int, seed: int) -> list[File]:
    """Each of the first pictures in each syntax."""
    files = []
    for index in range(n_pictures):
        dataset = draw(SHAPES_HW[index % len(SHAPES_HW)], seed=seed + index)
        files += [_write(dataset, syntax, folder / f"{index}-{number}.dcm") for number, syntax in enumerate(SYNTAXES)]
    return files


def write_archive(folder: Path, *, n_files: int, seed: int) -> list[File]:
    """A mixed archive: another picture per file, syntaxes by ``MIX``, shapes in turn within each syntax."""
    total = sum(MIX.values())
    if n_files % total:
        raise ValueError(f"files of the archive: found {n_files}, allowed: multiples of {total}")
    entries = [
        (syntax, SHAPES_HW[place % len(SHAPES_HW)])
        for syntax, share in MIX.items()
        for place in range(share * n_files // total)
    ]
    return [
        _write(draw(shape_HW, seed=seed + number), syntax, folder / f"archive-{number}.dcm")
        for number, (syntax, shape_HW) in enumerate(entries)
    ]


def _write(drawn: Dataset, syntax: str, path: Path) -> File:
    dataset = copy.deepcopy(drawn)
    stored_HW = np.frombuffer(dataset.PixelData, dtype="<u2").reshape(dataset.Rows, dataset.Columns)
    SYNTAXES[syntax](dataset, stored_HW)
    dataset.save_as(path, enforce_file_format=True)
    return File(path=path, syntax=syntax, shape_HW=stored_HW.shape)

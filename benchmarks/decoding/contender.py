"""One contender of the decode benchmark, in a process of its own: paths in, seconds out.

    python contender.py NAME        (NAME of CONTENDERS; the interpreter decides which libraries there are)

Reads lines of JSON, {"path": file, "picture": null or file}, and answers each with one. With "picture" the small
picture is written as .npy, floats in 0..1 where the contender has a scale, and nothing is timed.

Imports nothing of the package unless the contender is our own: peers run in environments without it.
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

SIZE_PX = 224

Read = Callable[[str], np.ndarray]


def sarc_ray(*, equalised: bool, whole: bool = False, isolated: bool = False) -> Read:
    """The preset `paper`; not equalised (to compare pictures), decoded at full size first, or in a child process."""
    import dataclasses

    from sarc_ray.config import load_preset
    from sarc_ray.imaging import dicom, isolation, preprocess

    preprocess.use_one_thread()
    preset = load_preset("paper")
    config = preprocess.PreprocessConfig(**preset["preprocess"])
    limits = isolation.ReadLimits(
        **{name: preset["engine"][name] for name in ("seconds_per_image", "mebibytes_per_image")}
    )
    if not equalised:
        config = dataclasses.replace(config, clahe_clip_limit=0.0)

    def read(path: str) -> np.ndarray:
        data = Path(path).read_bytes()
        if isolated:
            (result,) = isolation.read_images([data], config, limits)
        else:
            result = preprocess.process_image(data, config)
        if result.image_HW is None:
            raise ValueError(f"reason {result.reason}")
        return result.image_HW / 255.0

    def read_whole(path: str) -> np.ndarray:
        """As read, but for the levels left out."""
        radiograph = dicom.read_radiograph(Path(path).read_bytes())
        return preprocess.grey_picture(radiograph, config)

    return read_whole if whole else read


def pydicom_usual() -> Read:
    """What most scripts do: the whole picture as floats, then small."""
    import cv2
    import pydicom
    from pydicom.pixels import apply_modality_lut, apply_voi_lut

    cv2.setNumThreads(1)

    def read(path: str) -> np.ndarray:
        dataset = pydicom.dcmread(path)
        values_HW = apply_voi_lut(apply_modality_lut(dataset.pixel_array, dataset), dataset)
        small_HW = cv2.resize(values_HW, (SIZE_PX, SIZE_PX), interpolation=cv2.INTER_AREA)
        return small_HW / (2.0**dataset.BitsStored - 1.0)

    return read


def monai(reader: str) -> Read:
    """LoadImage and Resize."""
    import torch
    from monai.transforms import LoadImage, Resize

    torch.set_num_threads(1)
    load = LoadImage(reader=reader, image_only=True, ensure_channel_first=True)
    resize = Resize((SIZE_PX, SIZE_PX))

    def read(path: str) -> np.ndarray:
        picture = load(path)
        if picture.ndim == 4:  # ITK reads a file as a volume of one slice.
            picture = picture[..., 0]
        return resize(picture)[0].numpy()

    return read


def torchxrayvision() -> Read:
    """The DICOM reader with its scale of -1024 to 1024, and XRayResizer with its faster engine."""
    import cv2
    import torch
    from torchxrayvision.datasets import XRayResizer
    from torchxrayvision.utils import read_xray_dcm

    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    resize = XRayResizer(SIZE_PX, engine="cv2")
    return lambda path: resize(read_xray_dcm(path)[None])[0]


CONTENDERS: dict[str, Callable[[], Read]] = {
    "sarc-ray": lambda: sarc_ray(equalised=True),
    "sarc-ray, isolated": lambda: sarc_ray(equalised=True, isolated=True),
    "sarc-ray, not equalised": lambda: sarc_ray(equalised=False),
    "sarc-ray, full size": lambda: sarc_ray(equalised=False, whole=True),
    "pydicom": pydicom_usual,
    "MONAI (pydicom)": lambda: monai("PydicomReader"),
    "MONAI (ITK)": lambda: monai("ITKReader"),
    "torchxrayvision": torchxrayvision,
}


def cpu_seconds() -> float:
    """CPU time of this process and of its living children, all threads."""
    total = time.process_time()
    for children in Path("/proc/self/task").glob("*/children"):
        for pid in children.read_text().split():
            total += time.clock_gettime((~int(pid) << 3) | 2)  # clock_getcpuclockid(3)
    return total


def answer(read: Read, request: dict[str, str | None]) -> dict[str, object]:
    path, picture = request["path"], request["picture"]
    cpu_s, wall_s = cpu_seconds(), time.perf_counter()
    try:
        picture_HW = read(str(path))
    except Exception as error:
        return {"error": f"{type(error).__name__}: {str(error).strip() or '-'}".splitlines()[-1][:200]}
    wall_s, cpu_s = time.perf_counter() - wall_s, cpu_seconds() - cpu_s
    if picture is not None:
        np.save(picture, np.asarray(picture_HW, dtype=np.float32))
    return {"cpu_s": cpu_s, "wall_s": wall_s}


def main() -> None:
    # Codecs print to standard output, in C; the answers get a channel of their own.
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    try:
        read = CONTENDERS[sys.argv[1]]()
    except ImportError as error:
        print(json.dumps({"error": f"not installed: {error}"}), file=channel, flush=True)
        return
    print(json.dumps({"ready": True}), file=channel, flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(read, json.loads(line))), file=channel, flush=True)


if __name__ == "__main__":
    main()

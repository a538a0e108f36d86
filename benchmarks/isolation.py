"""Time what reading in a child process costs: isolated against in-process, image by image in turn, in one run.

Printed per kind of image: medians of wall-clock and CPU time (this process and the child together), and their ratios;
then how long a child takes to start, and to be replaced after a crash.

    python benchmarks/isolation.py --repeats 50
"""

from __future__ import annotations

import argparse
import io
import os
import signal
import statistics
import time
from pathlib import Path

# As in a child: one thread for the linear algebra. Read when NumPy is loaded.
os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

import imagecodecs
import numpy as np
from pydicom import uid as uids
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filewriter import dcmwrite

from sarc_ray.imaging import isolation
from sarc_ray.imaging.preprocess import PreprocessConfig, process_image, use_one_thread

CONFIG = PreprocessConfig(size_px=224, clahe_clip_limit=2.0, clahe_tiles=8, pixel_gate=True)
LIMITS = isolation.ReadLimits(seconds_per_image=60.0, mebibytes_per_image=1024)


def picture(rows, columns, *, rng):
    """A chest in three strokes with detector noise, 12 bits; noise sets the size of a lossless codestream."""
    y, x = np.linspace(-1, 1, rows)[:, None], np.linspace(-1, 1, columns)[None, :]
    body = 1 / (1 + np.exp(20 * (np.hypot(x * 1.2, y * 0.8) - 0.9)))
    lungs = sum(np.exp(-(((x - side) / 0.2) ** 2) - (y / 0.4) ** 2) for side in (-0.4, 0.4))
    grey = 0.05 + 0.85 * body * (1 - 0.8 * np.minimum(lungs, 1)) + rng.normal(0, 0.004, (rows, columns))
    return np.clip(np.round(grey * 4095), 0, 4095).astype(np.uint16)


def dicom(pixels, syntax=uids.ExplicitVRLittleEndian, frame=None):
    dataset = Dataset()
    dataset.SOPClassUID = uids.DigitalXRayImageStorageForPresentation
    dataset.SOPInstanceUID = "1.2.826.0.1.3680043.8.498.1"
    dataset.Modality, dataset.BodyPartExamined, dataset.ViewPosition = "DX", "CHEST", "PA"
    dataset.PatientAge = "062Y"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PixelRepresentation = 1, "MONOCHROME2", 0
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelData = pixels.tobytes() if frame is None else encapsulate([frame])
    dataset["PixelData"].VR = "OW" if frame is None else "OB"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = syntax
    sink = io.BytesIO()
    dcmwrite(sink, dataset, enforce_file_format=True)
    return sink.getvalue()


def files():
    rng = np.random.default_rng(1)
    large, small = picture(2500, 2000, rng=rng), picture(256, 256, rng=rng)
    frame = imagecodecs.jpeg2k_encode(large, codecformat="j2k", reversible=True, level=0, bitspersample=12)
    return {
        "uncompressed, 2500 x 2000, 12 bits": dicom(large),
        "JPEG 2000 lossless, 2500 x 2000, 12 bits": dicom(large, uids.JPEG2000Lossless, frame),
        "uncompressed, 256 x 256, 12 bits": dicom(small),
    }


def child_cpu_seconds(pid):
    """Time that another process (of one thread) has run so far, as the scheduler counts it."""
    return int(Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()[0]) / 1e9


def compare(data, repeats):
    """Seconds per image as {way: (wall median, CPU median)}; the two ways take turns."""
    ways = {
        "in process": lambda: process_image(data, CONFIG),
        "isolated": lambda: isolation.read_images([data], CONFIG, LIMITS)[0],
    }
    assert {way().reason for way in ways.values()} == {""}
    wall = {name: [] for name in ways}
    cpu = {name: [] for name in ways}
    pid = isolation.idle_pids()[0]
    for _ in range(repeats):
        for name, way in ways.items():
            cpu_begin = time.process_time() + child_cpu_seconds(pid)
            begin = time.perf_counter()
            way()
            wall[name].append(time.perf_counter() - begin)
            cpu[name].append(time.process_time() + child_cpu_seconds(pid) - cpu_begin)
    assert isolation.idle_pids() == [pid]
    return {name: (statistics.median(wall[name]), statistics.median(cpu[name])) for name in ways}


def start_and_replace(data, repeats):
    """Medians of the seconds from nothing to the first result, and of a read whose warm child is found dead."""
    start, replace = [], []
    for _ in range(repeats):
        isolation.end_idle()
        begin = time.perf_counter()
        isolation.read_images([data], CONFIG, LIMITS)
        start.append(time.perf_counter() - begin)
        os.kill(isolation.idle_pids()[0], signal.SIGKILL)
        begin = time.perf_counter()
        isolation.read_images([data], CONFIG, LIMITS)
        replace.append(time.perf_counter() - begin)
    return statistics.median(start), statistics.median(replace)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=50)
    options = parser.parse_args()
    use_one_thread()
    made = files()
    print("| image | MB | in process, ms | isolated, ms | ratio | CPU in process, ms | CPU isolated, ms | ratio |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, data in made.items():
        found = compare(data, options.repeats)
        (wall, cpu), (isolated_wall, isolated_cpu) = found["in process"], found["isolated"]
        print(
            f"| {name} | {len(data) / 1e6:.1f} | {wall * 1e3:.1f} | {isolated_wall * 1e3:.1f} "
            f"| {isolated_wall / wall:.2f} | {cpu * 1e3:.1f} | {isolated_cpu * 1e3:.1f} | {isolated_cpu / cpu:.2f} |"
        )
    start, replace = start_and_replace(next(reversed(made.values())), 7)
    print(f"\nfrom no child to the first result: {start:.2f} s; after a child was killed: {replace:.2f} s")


if __name__ == "__main__":
    main()

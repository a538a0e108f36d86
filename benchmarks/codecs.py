"""Time every decoder that could read a transfer syntax, on one 12-bit radiograph-like picture (8 bit where it must).

All candidates of a syntax run in this process in turn, over the same encoded frame. The median processor time over
repeats (all threads together) is printed as a Markdown table, with the mean difference from the full picture in percent
of its range, both averaged to 224 pixels as block means. docs/explanation/decoding.md holds the table that decided.

    OMP_NUM_THREADS=1 python benchmarks/codecs.py
    OMP_NUM_THREADS=1 python benchmarks/codecs.py --placing
"""

from __future__ import annotations

import argparse
import io
import statistics
import time
import zlib

import cv2
import imagecodecs
import numpy as np
import openjpeg
from libjpeg import decode_pixel_data as libjpeg_decode
from PIL import Image
from pydicom.pixels.decoders.rle import _rle_decode_frame
from rle import encode_pixel_data as encode_rle_frame
from rle.rle import decode_frame as decode_rle_frame

from sarc_ray.imaging import codecs, codestream
from sarc_ray.imaging.preprocess import resize_reduced

SIZE_PX = 224


def radiograph(rows, columns, bits, *, seed):
    """A dark field, a bright body, dark lungs, ribs, a lead marker and quantum noise."""
    rng = np.random.default_rng(seed)
    y, x = np.linspace(-1, 1, rows)[:, None], np.linspace(-1, 1, columns)[None, :]
    body = 1 / (1 + np.exp(20 * (np.hypot(x * 1.2, y * 0.8) - 0.9)))
    lungs = sum(np.exp(-(((x - side) / 0.2) ** 2) - (y / 0.4) ** 2) for side in (-0.4, 0.4))
    grey = 0.05 + 0.8 * body * (1 - 0.8 * lungs * (1 - 0.2 * (np.sin(40 * y) > 0.7)))
    grey += rng.normal(size=grey.shape) * 0.006 * np.sqrt(grey)
    grey[rows // 20 : rows // 14, columns // 20 : columns // 10] = 1
    return np.clip(np.rint(grey * (2**bits - 1)), 0, 2**bits - 1).astype(np.uint16 if bits > 8 else np.uint8)


def libjpeg(data):
    facts = codestream.read_jpeg(data)
    dtype = np.uint8 if facts.bits <= 8 else np.uint16
    return np.frombuffer(libjpeg_decode(data, version=2), dtype).reshape(facts.rows, facts.columns)


def sarc_ray_rle(data, picture):
    rows, columns = picture.shape
    layout = codecs.Layout(
        rows=rows, columns=columns, samples=1, photometric="MONOCHROME2", planar=False, bits_allocated=16,
        bits_stored=12, high_bit=11, signed=False, big_endian=False, words=True,
    )  # fmt: skip
    return codecs.decode_frame("1.2.840.10008.1.2.5", data, layout).pixels


def pillow(data, reduce=0):
    image = Image.open(io.BytesIO(data))
    image.reduce = reduce  # sides are multiples of 8 here, whose halves Pillow rounds as the standard does
    return np.asarray(image)


def pillow_draft(data, factor):
    image = Image.open(io.BytesIO(data))
    image.draft("L", (image.width // factor, image.height // factor))
    return np.asarray(image)


def opencv(data, flags):
    return cv2.imdecode(np.frombuffer(data, np.uint8), flags)


def candidates(picture, small):
    """Syntax -> (reference picture, encoded frame, {candidate: function of the frame})."""
    shape, pixels = picture.shape, picture.size
    j2k = {
        "pylibjpeg-openjpeg": lambda d: np.asarray(openjpeg.decode(d)),
        "imagecodecs jpeg2k": imagecodecs.jpeg2k_decode,
    }
    j2k |= {f"Pillow, {n} levels fewer": lambda d, n=n: pillow(d, n) for n in range(4)}
    scales = (cv2.IMREAD_GRAYSCALE, cv2.IMREAD_REDUCED_GRAYSCALE_2, cv2.IMREAD_REDUCED_GRAYSCALE_4)
    scales += (cv2.IMREAD_REDUCED_GRAYSCALE_8,)
    j2k |= {f"OpenCV 1/{2**n}": lambda d, f=f: opencv(d, f | cv2.IMREAD_ANYDEPTH) for n, f in enumerate(scales)}
    ht = {
        f"imagecodecs htj2k, {n} levels fewer": lambda d, n=n: imagecodecs.htj2k_decode(d, skipres=n) for n in range(4)
    }
    ht |= {f"Pillow, {n} levels fewer": lambda d, n=n: pillow(d, n) for n in range(4)}
    jpeg = {
        "imagecodecs jpeg8": imagecodecs.jpeg8_decode,
        "pylibjpeg-libjpeg": libjpeg,
    }
    jpeg |= {f"OpenCV 1/{2**n}": lambda d, f=f: opencv(d, f) for n, f in enumerate(scales)}
    jpeg |= {f"Pillow 1/{n}": lambda d, n=n: pillow_draft(d, n) for n in (1, 2, 4, 8)}
    lossless = {
        "imagecodecs jpeg8": imagecodecs.jpeg8_decode,
        "imagecodecs ljpeg": imagecodecs.ljpeg_decode,
        "imagecodecs jpegsof3": imagecodecs.jpegsof3_decode,
        "pylibjpeg-libjpeg": libjpeg,
    }
    jls = {
        "imagecodecs jpegls (CharLS)": imagecodecs.jpegls_decode,
        "pylibjpeg-libjpeg": libjpeg,
    }
    runs = {
        "imagecodecs dicomrle": lambda d: np.frombuffer(imagecodecs.dicomrle_decode(d, "<u2"), "<u2").reshape(shape),
        "pylibjpeg-rle": lambda d: np.frombuffer(decode_rle_frame(d, pixels, 16, "<"), "<u2").reshape(shape),
        "ours: imagecodecs packbits, segments checked": lambda d: sarc_ray_rle(d, picture),
        "pydicom": lambda d: np.frombuffer(_rle_decode_frame(d, *shape, 1, 16), "<u2").reshape(shape),
    }
    plain = picture.tobytes()
    inflate = {
        "zlib": lambda d: np.frombuffer(zlib.decompress(d, -15), "<u2").reshape(shape),
        "imagecodecs deflate (libdeflate)": lambda d: np.frombuffer(
            imagecodecs.deflate_decode(d, raw=True, out=len(plain)), "<u2"
        ).reshape(shape),
    }
    twelve = {name: jpeg[name] for name in ("imagecodecs jpeg8", "pylibjpeg-libjpeg", "Pillow 1/1", "OpenCV 1/1")}
    jxl = {"imagecodecs jpegxl": lambda d: imagecodecs.jpegxl_decode(d, numthreads=1)}
    frames = encoded(picture, small)
    decoders = {"JPEG 2000 lossless (.90)": j2k, "JPEG 2000 lossy (.91)": j2k, "HTJ2K lossless (.201)": ht}
    decoders |= {"HTJ2K lossy (.203)": ht, "JPEG 8 bit (.50)": jpeg, "JPEG 12 bit (.51)": twelve}
    decoders |= {"JPEG lossless (.70)": lossless, "JPEG-LS (.80)": jls, "RLE (.5)": runs}
    decoders |= {"JPEG XL lossless (.110)": jxl, "Deflated (.1.99)": inflate}
    return {name: (small if "8 bit" in name else picture, frames[name], decoders[name]) for name in decoders}


def encoded(picture, small):
    """Syntax -> encoded frame."""
    wavelets = {"codecformat": "j2k", "bitspersample": 12, "resolutions": 6}
    plain = picture.tobytes()
    rle = {"rows": picture.shape[0], "columns": picture.shape[1], "samples_per_pixel": 1, "bits_allocated": 16}
    return {
        "JPEG 2000 lossless (.90)": imagecodecs.jpeg2k_encode(picture, reversible=True, level=0, **wavelets),
        "JPEG 2000 lossy (.91)": imagecodecs.jpeg2k_encode(picture, reversible=False, level=50, **wavelets),
        "HTJ2K lossless (.201)": imagecodecs.htj2k_encode(picture, reversible=True),
        "HTJ2K lossy (.203)": imagecodecs.htj2k_encode(picture, reversible=False, level=0.0005),
        "JPEG 8 bit (.50)": imagecodecs.jpeg8_encode(small, level=90),
        "JPEG 12 bit (.51)": imagecodecs.jpeg8_encode(picture, level=90, bitspersample=12),
        "JPEG lossless (.70)": imagecodecs.jpeg8_encode(picture, lossless=True, predictor=1, bitspersample=12),
        "JPEG-LS (.80)": imagecodecs.jpegls_encode(picture),
        "RLE (.5)": encode_rle_frame(plain, byteorder="<", **rle),
        "JPEG XL lossless (.110)": imagecodecs.jpegxl_encode(picture, lossless=True, bitspersample=12),
        "Deflated (.1.99)": zlib.compress(plain, 6)[2:-4],
    }


def small_float(pixels):
    return cv2.resize(np.asarray(pixels).astype(np.float32), (SIZE_PX, SIZE_PX), interpolation=cv2.INTER_AREA)


def difference_percent(picture, decoded):
    """Mean absolute difference of the small pictures in percent of the full one's range, in one scale."""
    reference, found = small_float(picture), small_float(decoded)
    found *= 2.0 ** (round(np.log2(reference.mean() / found.mean())))
    return 100 * float(np.abs(found - reference).mean()) / float(np.ptp(picture))


def median_seconds(function, frame, repeats):
    times = []
    for _ in range(repeats):
        begin = time.process_time()
        decoded = function(frame)
        times.append(time.process_time() - begin)
    return statistics.median(times), decoded


def print_placing(picture, sizes=(96, 224, 512)):
    """Reduced wavelet pictures against the full one: samples taken for block means, and where they really lie."""
    print("| syntax | side | levels fewer | as block means, % of range | where they lie, % of range |")
    print("| --- | ---: | ---: | ---: | ---: |")
    frames = {name: frame for name, frame in encoded(picture, picture).items() if "JPEG 2000" in name}
    for name, frame in frames.items():
        for size_px in sizes:
            full = cv2.resize(picture.astype(np.float32), (size_px, size_px), interpolation=cv2.INTER_AREA)
            scale = 100 / float(np.ptp(picture))
            for levels in range(1, 6):
                reduced = pillow(frame, levels) >> 4
                if min(reduced.shape) < 1.2 * size_px:
                    break
                blocks = cv2.resize(reduced.astype(np.float32), (size_px, size_px), interpolation=cv2.INTER_AREA)
                sampling = codecs.Sampling(step_px=2**levels, first_px=0.5 - 2**levels / 2)
                placed = resize_reduced(reduced, picture.shape, sampling, size_px)
                off = [scale * float(np.abs(small - full).mean()) for small in (blocks, placed)]
                print(f"| {name} | {size_px} | {levels} | {off[0]:.3f} | {off[1]:.3f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2800)
    parser.add_argument("--columns", type=int, default=2400)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", default="", help="part of a syntax's name")
    parser.add_argument("--placing", action="store_true", help="print what the place of wavelet samples is worth")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    picture = radiograph(options.rows, options.columns, 12, seed=1)
    if options.placing:
        print_placing(picture)
        return
    print("| syntax | decoder | ms | difference, % of range |\n| --- | --- | ---: | ---: |")
    for syntax, (reference, frame, decoders) in candidates(picture, (picture >> 4).astype(np.uint8)).items():
        if options.only not in syntax:
            continue
        for name, function in decoders.items():
            try:
                seconds, decoded = median_seconds(function, frame, options.repeats)
                difference = difference_percent(reference, decoded)
            except Exception as error:
                print(f"| {syntax} | {name} | - | {type(error).__name__} |")
                continue
            print(f"| {syntax} | {name} | {1000 * seconds:.1f} | {difference:.2f} |")


if __name__ == "__main__":
    main()

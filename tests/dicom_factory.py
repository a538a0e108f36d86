"""Synthetic DICOM bytes of every syntax and kind of pixels (no patient data).

``tests/dicom_hostile.py`` makes those that lie, break off or want to harm; ``tests/dicom_references.py`` lists all of
them with the outcomes that are right.
"""

from __future__ import annotations

import io
import struct
from typing import Any

import imagecodecs
import numpy as np
from pydicom import uid as uids
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filewriter import dcmwrite
from pydicom.sequence import Sequence

PROGRESSIVE_JPEG_RETIRED = uids.UID("1.2.840.10008.1.2.4.55")
JPEG_XL_LOSSLESS = uids.UID("1.2.840.10008.1.2.4.110")
JPEG_XL_OF_JPEG = uids.UID("1.2.840.10008.1.2.4.111")
JPEG_XL = uids.UID("1.2.840.10008.1.2.4.112")
SECRET_NAME = "Doe^Jane"
SECRET_ID = "MRN-4711"


def picture(rows: int = 120, columns: int = 100, bits: int = 12) -> np.ndarray:
    """A frontal chest in three strokes: dark field, bright body, dark lungs; asymmetric, smooth, noise-free."""
    y = np.linspace(-1, 1, rows)[:, None]
    x = np.linspace(-1, 1, columns)[None, :]
    body = 1 / (1 + np.exp(20 * (np.hypot(x * 1.2, y * 0.8) - 0.9)))
    lungs = np.exp(-(((x + 0.4) / 0.2) ** 2) - (y / 0.4) ** 2) + 0.8 * np.exp(
        -(((x - 0.4) / 0.2) ** 2) - (y / 0.4) ** 2
    )
    grey = 0.05 + 0.85 * body * (1 - 0.8 * lungs)
    return np.round(grey * (2**bits - 1)).astype(np.uint16 if bits > 8 else np.uint8)


def signed_picture() -> np.ndarray:
    """The same with values around zero."""
    return picture().astype(np.int16) - 2048


def make_dicom(
    pixels: np.ndarray | None = None,
    *,
    syntax: uids.UID = uids.ExplicitVRLittleEndian,
    frames: list[bytes] | None = None,
    omit: tuple[str, ...] = (),
    bits_stored: int = 12,
    **tags: Any,
) -> bytes:
    """A DICOM Part 10 file.

    Args:
        pixels: stored values, shape (H, W); ``picture()`` if None.
        syntax: transfer syntax.
        frames: encoded frames, for encapsulated syntaxes.
        omit: keywords to leave out.
        bits_stored: Bits Stored; High Bit follows unless it is given.
        tags: further tags by keyword, over the defaults.
    """
    pixels = picture() if pixels is None else pixels
    dataset = _base_dataset(pixels, bits_stored)
    if frames is not None:
        dataset.PixelData = encapsulate(frames)
        dataset["PixelData"].VR = "OB"
    else:
        big = syntax == uids.ExplicitVRBigEndian
        dataset.PixelData = pixels.astype(pixels.dtype.newbyteorder(">" if big else "<")).tobytes()
        dataset["PixelData"].VR = "OW" if pixels.dtype.itemsize == 2 else "OB"
    for keyword, value in tags.items():
        setattr(dataset, keyword, value)
    for keyword in omit:
        delattr(dataset, keyword)
    return to_bytes(dataset, syntax)


def to_bytes(dataset: Dataset, syntax: uids.UID) -> bytes:
    """Write a data set as a Part 10 file."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = uids.DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = uids.UID("1.2.826.0.1.3680043.8.498.1")
    # pydicom writes no syntax that it does not know; one of the same length and encoding holds its place.
    meta.TransferSyntaxUID = syntax if syntax.is_transfer_syntax else uids.MPEG2MPML
    dataset.file_meta = meta
    sink = io.BytesIO()
    dcmwrite(sink, dataset, enforce_file_format=True)
    return sink.getvalue().replace(meta.TransferSyntaxUID.encode(), syntax.encode(), 1)


def _base_dataset(pixels: np.ndarray, bits_stored: int) -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID = uids.DigitalXRayImageStorageForPresentation
    dataset.SOPInstanceUID = uids.UID("1.2.826.0.1.3680043.8.498.1")
    dataset.PatientName = SECRET_NAME
    dataset.PatientID = SECRET_ID
    dataset.PatientSex = "F"
    dataset.PatientAge = "062Y"
    dataset.StudyDate = "20200305"
    dataset.Modality = "DX"
    dataset.BodyPartExamined = "CHEST"
    dataset.ViewPosition = "PA"
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.BitsAllocated = pixels.dtype.itemsize * 8
    dataset.BitsStored = min(bits_stored, dataset.BitsAllocated)
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(np.issubdtype(pixels.dtype, np.signedinteger))
    return dataset


def lut_item(entries: np.ndarray, first: int, bits: int) -> Sequence:
    """A LUT sequence of one item with 16-bit words."""
    item = Dataset()
    item.add_new("LUTDescriptor", "US" if first >= 0 else "SS", [len(entries) % 2**16, first, bits])
    item.add_new("LUTData", "OW", entries.astype("<u2").tobytes())
    return Sequence([item])


def jpeg2000(pixels: np.ndarray | None = None, **tags: Any) -> bytes:
    pixels = picture() if pixels is None else pixels
    frame = imagecodecs.jpeg2k_encode(pixels, codecformat="j2k", reversible=True, level=0, bitspersample=12)
    return make_dicom(pixels, syntax=uids.JPEG2000Lossless, frames=[frame], **tags)


def htj2k(syntax: uids.UID = uids.HTJ2KLossless) -> bytes:
    pixels = picture()
    frame = imagecodecs.htj2k_encode(pixels, reversible=True)
    return make_dicom(pixels, syntax=syntax, frames=[frame], bits_stored=16)


def htj2k_lossy() -> bytes:
    frame = imagecodecs.htj2k_encode(picture(), level=0.0005, reversible=False)
    return make_dicom(syntax=uids.HTJ2K, frames=[frame])


def jpeg2000_lossy() -> bytes:
    frame = imagecodecs.jpeg2k_encode(picture(), codecformat="j2k", reversible=False, level=60, bitspersample=12)
    return make_dicom(syntax=uids.JPEG2000, frames=[frame])


def jpeg_xl(syntax: uids.UID = JPEG_XL_LOSSLESS, **options: Any) -> bytes:
    return make_dicom(syntax=syntax, frames=[imagecodecs.jpegxl_encode(picture(), bitspersample=12, **options)])


def jpeg_xl_of_jpeg() -> bytes:
    pixels = picture(bits=8)
    return make_dicom(pixels, syntax=JPEG_XL_OF_JPEG, frames=[imagecodecs.jpegxl_encode(pixels, lossless=True)])


def jpeg_ls() -> bytes:
    return make_dicom(syntax=uids.JPEGLSLossless, frames=[imagecodecs.jpegls_encode(picture())], bits_stored=16)


def jpeg_ls_near() -> bytes:
    return make_dicom(syntax=uids.JPEGLSNearLossless, frames=[imagecodecs.jpegls_encode(picture(), level=3)])


def jpeg_lossless(predictor: int = 1, syntax: uids.UID = uids.JPEGLosslessSV1) -> bytes:
    frame = imagecodecs.jpeg8_encode(picture(), lossless=True, predictor=predictor, bitspersample=12)
    return make_dicom(syntax=syntax, frames=[frame])


def jpeg_lossless_signed() -> bytes:
    """Signed values as the bit patterns of their 12 bits: JPEG knows no sign."""
    patterns = signed_picture().view(np.uint16) & 0x0FFF
    frame = imagecodecs.jpeg8_encode(patterns, lossless=True, predictor=1, bitspersample=12)
    return make_dicom(signed_picture(), syntax=uids.JPEGLosslessSV1, frames=[frame])


def jpeg2000_signed_patterns() -> bytes:
    """An unsigned codestream of 12 bits under a header that says signed."""
    patterns = signed_picture().view(np.uint16) & 0x0FFF
    frame = imagecodecs.jpeg2k_encode(patterns, codecformat="j2k", reversible=True, level=0, bitspersample=12)
    return make_dicom(signed_picture(), syntax=uids.JPEG2000Lossless, frames=[frame])


def jpeg2000_signed() -> bytes:
    frame = imagecodecs.jpeg2k_encode(signed_picture(), codecformat="j2k", reversible=True, level=0)
    return make_dicom(signed_picture(), syntax=uids.JPEG2000Lossless, frames=[frame])


def jpeg2000_with_junk() -> bytes:
    junk = (np.arange(picture().size, dtype=np.uint16).reshape(picture().shape) % 16) << 12
    frame = imagecodecs.jpeg2k_encode(picture() | junk, codecformat="j2k", reversible=True, level=0)
    return make_dicom(syntax=uids.JPEG2000Lossless, frames=[frame])


def jpeg_lossy_12_bits() -> bytes:
    frame = imagecodecs.jpeg8_encode(picture(), level=95, bitspersample=12)
    return make_dicom(syntax=uids.JPEGExtended12Bit, frames=[frame])


def jpeg_baseline() -> bytes:
    pixels = picture(bits=8)
    return make_dicom(pixels, syntax=uids.JPEGBaseline8Bit, frames=[imagecodecs.jpeg8_encode(pixels, level=95)])


def rle() -> bytes:
    pixels = picture()
    frame = rle_frame(pixels)
    return make_dicom(pixels, syntax=uids.RLELossless, frames=[frame])


def rle_with_wrong_table() -> bytes:
    frame = bytearray(rle_frame(picture()))
    frame[8:12] = struct.pack("<L", 2**31)
    return make_dicom(syntax=uids.RLELossless, frames=[bytes(frame)])


def rle_frame(pixels: np.ndarray) -> bytes:
    """RLE of 16-bit pixels: two segments, high bytes first."""
    return _rle_segments([pixels >> 8, pixels & 0xFF])


def _rle_segments(planes: list[np.ndarray]) -> bytes:
    """RLE as literal runs only (Part 5 annex G)."""
    segments = []
    for plane in planes:
        rows = [row.astype(np.uint8).tobytes() for row in plane]
        runs = [row[start : start + 128] for row in rows for start in range(0, len(row), 128)]
        segment = b"".join(bytes([len(run) - 1]) + run for run in runs)
        segments.append(segment + b"\0" * (len(segment) % 2))
    starts = [64 + sum(len(segment) for segment in segments[:index]) for index in range(len(segments))]
    header = struct.pack("<16L", len(segments), *starts, *[0] * (15 - len(segments)))
    return header + b"".join(segments)


def as_rgb(pixels: np.ndarray) -> np.ndarray:
    return np.stack([pixels] * 3, axis=-1)


def colour() -> bytes:
    rgb = as_rgb(picture(bits=8))
    rgb[..., 1] //= 2
    return make_dicom(rgb, SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0)


def grey_as_rgb(planar: bool = False) -> bytes:
    rgb = as_rgb(picture(bits=8))
    pixels = np.moveaxis(rgb, -1, 0) if planar else rgb
    tags = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": int(planar)}
    return make_dicom(rgb, PixelData=pixels.tobytes(), **tags)


def grey_as_rgb_by_rle() -> bytes:
    rgb = as_rgb(picture(bits=8))
    segments = _rle_segments([rgb[..., channel] for channel in range(3)])
    return make_dicom(
        rgb, syntax=uids.RLELossless, frames=[segments], SamplesPerPixel=3, PhotometricInterpretation="RGB"
    )


def _ybr() -> np.ndarray:
    luminance = picture(bits=8)
    return np.stack([luminance, np.full_like(luminance, 128), np.full_like(luminance, 128)], axis=-1)


def grey_as_ybr() -> bytes:
    return make_dicom(_ybr(), SamplesPerPixel=3, PhotometricInterpretation="YBR_FULL", PlanarConfiguration=0)


def grey_as_ybr_422() -> bytes:
    ybr = _ybr()
    pairs = np.stack([ybr[:, 0::2, 0], ybr[:, 1::2, 0], ybr[:, 0::2, 1], ybr[:, 0::2, 2]], axis=-1)
    tags = {"SamplesPerPixel": 3, "PhotometricInterpretation": "YBR_FULL_422", "PlanarConfiguration": 0}
    return make_dicom(ybr, PixelData=pairs.tobytes(), **tags)


def grey_as_ybr_by_jpeg() -> bytes:
    frame = imagecodecs.jpeg8_encode(as_rgb(picture(bits=8)), level=95)
    tags = {"SamplesPerPixel": 3, "PhotometricInterpretation": "YBR_FULL_422", "PlanarConfiguration": 0}
    return make_dicom(as_rgb(picture(bits=8)), syntax=uids.JPEGBaseline8Bit, frames=[frame], **tags)


def colour_by_jpeg() -> bytes:
    rgb = as_rgb(picture(bits=8))
    rgb[..., 1] //= 2
    frame = imagecodecs.jpeg8_encode(rgb, level=95)
    tags = {"SamplesPerPixel": 3, "PhotometricInterpretation": "YBR_FULL_422", "PlanarConfiguration": 0}
    return make_dicom(rgb, syntax=uids.JPEGBaseline8Bit, frames=[frame], **tags)


def grey_as_rgb_by_jpeg2000() -> bytes:
    frame = imagecodecs.jpeg2k_encode(as_rgb(picture(bits=8)), codecformat="j2k", reversible=True, level=0)
    tags = {"SamplesPerPixel": 3, "PhotometricInterpretation": "YBR_RCT", "PlanarConfiguration": 0}
    return make_dicom(as_rgb(picture(bits=8)), syntax=uids.JPEG2000Lossless, frames=[frame], **tags)


def palette(green: float = 1.0, n_bytes: int = 2) -> bytes:
    """Indices into a reversed grey palette; ``green`` below 1 tints it."""
    tags: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for name, share in (("Red", 1.0), ("Green", green), ("Blue", 1.0)):
        entries = np.round(np.arange(256)[::-1] * share * (257 if n_bytes == 2 else 1))
        tags[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 8 * n_bytes]
        tags[f"{name}PaletteColorLookupTableData"] = entries.astype(f"<u{n_bytes}").tobytes()
    return make_dicom(picture(bits=8), **tags)


def multi_frame(**tags: Any) -> bytes:
    """Two frames, of which the second is blank."""
    pixels = picture()
    return make_dicom(pixels, PixelData=np.stack([pixels, pixels * 0]).tobytes(), NumberOfFrames=2, **tags)


def multi_frame_jpeg2000(offset_table: bool = True, pieces: int = 1) -> bytes:
    """Two frames in fragments; the second is blank, and smaller."""
    whole = [
        imagecodecs.jpeg2k_encode(pixels, codecformat="j2k", reversible=True, level=0, bitspersample=12)
        for pixels in (picture(), picture() * 0)
    ]
    value = encapsulate(whole, fragments_per_frame=pieces, has_bot=offset_table)
    return make_dicom(syntax=uids.JPEG2000Lossless, frames=whole, NumberOfFrames=2, PixelData=value)


def fragments(table: bytes, n_fragments: int = 5) -> bytes:
    """One frame in several fragments, under an offset table of any content."""
    frame = imagecodecs.jpeg2k_encode(picture(), codecformat="j2k", reversible=True, level=0, bitspersample=12)
    value = encapsulate([frame], fragments_per_frame=n_fragments, has_bot=False)
    value = struct.pack("<2HL", 0xFFFE, 0xE000, len(table)) + table + value[8:]
    return make_dicom(syntax=uids.JPEG2000Lossless, frames=[frame], PixelData=value)


def encapsulated_uncompressed() -> bytes:
    frame = picture().tobytes()
    return make_dicom(syntax=uids.UID("1.2.840.10008.1.2.1.98"), frames=[frame])


def big_endian_words_of_bytes() -> bytes:
    """8-bit pixels in words, whose bytes big endian swaps."""
    pixels = picture(bits=8)
    swapped = pixels.reshape(-1, 2)[:, ::-1].tobytes()
    dataset = _base_dataset(pixels, 8)
    dataset.add_new("PixelData", "OW", swapped)
    # Written as it is: the words were swapped above.
    return to_bytes(dataset, uids.ExplicitVRBigEndian)


def one_bit() -> bytes:
    pixels = picture(bits=8) > 100
    packed = np.packbits(pixels.reshape(-1), bitorder="little").tobytes()
    return make_dicom(pixels.astype(np.uint8), PixelData=packed, BitsAllocated=1, BitsStored=1, HighBit=0)


def thirty_two_bits() -> bytes:
    return make_dicom(picture().astype(np.uint32) * 100_000, bits_stored=32)


def few_bits(stored: int) -> np.ndarray:
    return (picture() >> (12 - stored)).astype(np.uint8 if stored <= 8 else np.uint16)


def overlay_in_high_bits() -> bytes:
    """An overlay plane in bit 12 (Part 3 C.9.2, retired use), and another in a group of its own."""
    marked = picture().copy()
    marked[10:20, 10:40] |= 0x1000
    dataset = _base_dataset(marked, 12)
    dataset.PixelData = marked.tobytes()
    dataset["PixelData"].VR = "OW"
    for group, allocated, position in ((0x6000, 16, 12), (0x6002, 1, 0)):
        dataset.add_new((group, 0x0010), "US", 120)
        dataset.add_new((group, 0x0011), "US", 100)
        dataset.add_new((group, 0x0040), "CS", "G")
        dataset.add_new((group, 0x0050), "SS", [1, 1])
        dataset.add_new((group, 0x0100), "US", allocated)
        dataset.add_new((group, 0x0102), "US", position)
    dataset.add_new((0x6002, 0x3000), "OW", b"\xff" * 1500)
    return to_bytes(dataset, uids.ExplicitVRLittleEndian)


def padded(value: int = 4095, **tags: Any) -> bytes:
    """A third of the columns is padding."""
    pixels = np.pad(picture(), ((0, 0), (0, 50)), constant_values=value)
    return make_dicom(pixels, PixelPaddingValue=value, **tags)


def junk_above_high_bit() -> bytes:
    junk = np.arange(picture().size, dtype=np.uint16).reshape(picture().shape) % 16
    return make_dicom(picture() | (junk << 12))


def left_aligned_bits() -> bytes:
    return make_dicom((picture() << 4) | 5, HighBit=15)


def signed_with_junk() -> bytes:
    """Signed 12-bit values whose upper four bits are zero instead of the sign."""
    return make_dicom((signed_picture().view(np.uint16) & 0x0FFF).view(np.int16))

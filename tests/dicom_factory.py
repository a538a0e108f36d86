"""Synthetic DICOM bytes, and the one table of pixel references (no patient data).

``REFERENCES`` lists every kind of file that the reader meets, each with the outcome that is right and, where the
pixels must come out exactly, the stored values.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import imagecodecs
import numpy as np
from PIL import Image
from pydicom import uid as uids
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.filereader import dcmread
from pydicom.filewriter import dcmwrite
from pydicom.sequence import Sequence

from sarc_ray.errors import Reason

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
    patterns = _signed().view(np.uint16) & 0x0FFF
    frame = imagecodecs.jpeg8_encode(patterns, lossless=True, predictor=1, bitspersample=12)
    return make_dicom(_signed(), syntax=uids.JPEGLosslessSV1, frames=[frame])


def jpeg2000_signed_patterns() -> bytes:
    """An unsigned codestream of 12 bits under a header that says signed."""
    patterns = _signed().view(np.uint16) & 0x0FFF
    frame = imagecodecs.jpeg2k_encode(patterns, codecformat="j2k", reversible=True, level=0, bitspersample=12)
    return make_dicom(_signed(), syntax=uids.JPEG2000Lossless, frames=[frame])


def jpeg2000_signed() -> bytes:
    frame = imagecodecs.jpeg2k_encode(_signed(), codecformat="j2k", reversible=True, level=0)
    return make_dicom(_signed(), syntax=uids.JPEG2000Lossless, frames=[frame])


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
    signed = picture().astype(np.int16) - 2048
    return make_dicom((signed.view(np.uint16) & 0x0FFF).view(np.int16))


def deflated_bomb(n_mib: int) -> bytes:
    """A small deflated data set that inflates to ``n_mib`` mebibytes of zeros."""
    whole = make_dicom(syntax=uids.DeflatedExplicitVRLittleEndian)
    start = 144 + struct.unpack("<L", whole[140:144])[0]
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    block = b"\0" * 2**20
    body = b"".join(packer.compress(block) for _ in range(n_mib)) + packer.flush()
    return whole[:start] + body


def nested_sequences(depth: int = 20_000) -> bytes:
    """Sequences in sequences, each of undefined length: a parser that recurses runs out of stack."""
    whole = make_dicom(omit=("PixelData",))
    sequence = struct.pack("<2H2sHL", 0x0040, 0xA730, b"SQ", 0, 0xFFFFFFFF)
    item = struct.pack("<2HL", 0xFFFE, 0xE000, 0xFFFFFFFF)
    return whole + (sequence + item) * depth


def claims_gigabytes() -> bytes:
    return make_dicom(Rows=65535, Columns=65535, PixelData=b"\0" * 64)


def codestream_claims_gigabytes() -> bytes:
    """A header of 120 x 100 over a JPEG 2000 codestream that says 60000 x 60000."""
    frame = bytearray(imagecodecs.jpeg2k_encode(picture(), codecformat="j2k", reversible=True, level=0))
    frame[8:16] = struct.pack(">2L", 60_000, 60_000)
    return make_dicom(syntax=uids.JPEG2000Lossless, frames=[bytes(frame)])


def resized_codestream(frame: bytes, rows: int, columns: int) -> bytes:
    """A codestream whose own header says another size: SIZ of JPEG 2000, the frame header of JPEG and JPEG-LS."""
    damaged = bytearray(frame)
    if damaged[:2] == b"\xff\x4f":
        damaged[8:16] = struct.pack(">2L", columns, rows)
        return bytes(damaged)
    place = next(k for k in range(2, len(damaged)) if damaged[k] == 0xFF and damaged[k + 1] in (0xC0, 0xC3, 0xF7))
    damaged[place + 5 : place + 9] = struct.pack(">2H", rows, columns)
    return bytes(damaged)


def lying_codestream(make: Callable[[], bytes], rows: int = 65_000, columns: int = 65_000) -> bytes:
    """A header of 120 x 100 over a codestream that says gigabytes."""
    dataset = dcmread(io.BytesIO(make()))
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    dataset.PixelData = encapsulate([resized_codestream(frame, rows, columns)])
    return to_bytes(dataset, dataset.file_meta.TransferSyntaxUID)


def jpeg2000_of_many_tiles() -> bytes:
    """64 megapixels, in the header too, in tiles of one pixel each."""
    frame = bytearray(imagecodecs.jpeg2k_encode(picture(), codecformat="j2k", reversible=True, level=0))
    frame[8:16] = struct.pack(">2L", 4_000, 16_000)
    frame[24:32] = struct.pack(">2L", 1, 1)
    return make_dicom(syntax=uids.JPEG2000Lossless, frames=[bytes(frame)], Rows=16_000, Columns=4_000)


def jpeg2000_of_many_components() -> bytes:
    """One grey sample a pixel by its header, 16384 by its codestream."""
    frame = bytearray(imagecodecs.jpeg2k_encode(picture(), codecformat="j2k", reversible=True, level=0))
    frame[4:6], frame[40:42] = struct.pack(">H", 38 + 3 * 16_384), struct.pack(">H", 16_384)
    frame[42:45] = bytes(frame[42:45]) * 16_384
    return make_dicom(syntax=uids.JPEG2000Lossless, frames=[bytes(frame)])


def jpeg_of_two_sizes() -> bytes:
    """A frame header that agrees, and behind it one of 65000 x 65000."""
    frame = imagecodecs.jpeg8_encode(picture(bits=8), level=95)
    place = frame.find(b"\xff\xc0")
    first = frame[place : place + 2 + int.from_bytes(frame[place + 2 : place + 4], "big")]
    second = resized_codestream(b"\xff\xd8" + first, 65_000, 65_000)[2:]
    whole = frame[:place] + first + second + frame[place + len(first) :]
    return make_dicom(picture(bits=8), syntax=uids.JPEGBaseline8Bit, frames=[whole])


def rle_bomb() -> bytes:
    """A megabyte of runs for a picture of 12 kB."""
    header = struct.pack("<16L", 1, 64, *[0] * 14)
    return make_dicom(picture(bits=8), syntax=uids.RLELossless, frames=[header + b"\x81\0" * 2**19])


def with_element(element: bytes) -> bytes:
    """A whole file with an encoded element (group 0028) before its pixels."""
    whole = make_dicom()
    place = whole.rfind(b"\xe0\x7f\x10\x00")
    return whole[:place] + element + whole[place:]


def nested_voi(depth: int = 2_000) -> bytes:
    """VOI LUT Sequences in each other, with lengths; a tag that the reader does open."""
    body = b""
    for _ in range(depth):
        item = struct.pack("<2HL", 0xFFFE, 0xE000, len(body)) + body
        body = struct.pack("<2H2sHL", 0x0028, 0x3010, b"SQ", 0, len(item)) + item
    return with_element(body)


def wide_voi(n_items: int) -> bytes:
    """A VOI LUT Sequence of empty items, eight bytes each: a reader in Python takes seconds for each megabyte."""
    head = struct.pack("<2H2sHL", 0x0028, 0x3010, b"SQ", 0, 8 * n_items)
    return with_element(head + struct.pack("<2HL", 0xFFFE, 0xE000, 0) * n_items)


def jpeg_of_many_scans(n_scans: int) -> bytes:
    """A progressive JPEG of 88 megapixels of nothing; a scan of some kB costs libjpeg a quarter of a second."""
    frame = imagecodecs.jpeg8_encode(np.zeros((8_000, 11_000), np.uint8), level=75)
    sink = io.BytesIO()
    Image.open(io.BytesIO(frame)).save(sink, "JPEG", progressive=True)
    frame = sink.getvalue()
    last = frame[frame.rfind(b"\xff\xda") : frame.rfind(b"\xff\xd9")]
    pixels = np.zeros((2, 2), np.uint8)
    frames = [frame[:-2] + last * n_scans + b"\xff\xd9"]
    return make_dicom(pixels, syntax=uids.JPEGBaseline8Bit, frames=frames, Rows=8_000, Columns=11_000)


def long_texts() -> bytes:
    """A manufacturer of 60 kB."""
    whole = make_dicom(Manufacturer="Acme")
    place = whole.find(b"\x08\0\x70\0LO")
    return whole[: place + 6] + struct.pack("<H", 60_000) + b"A" * 60_000 + whole[place + 12 :]


def lying_length(keyword: bytes, length: int) -> bytes:
    """An element of two bytes that says it had more."""
    whole = make_dicom()
    place = whole.find(keyword)
    return whole[: place + 6] + struct.pack("<H", length) + whole[place + 8 :]


def without_prefix(data: bytes) -> bytes:
    """A file that begins with its meta information."""
    return data[132:]


def bare_data_set(data: bytes) -> bytes:
    """A file that begins with its data set."""
    return data[144 + int.from_bytes(data[140:144], "little") :]


def zip_file() -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr("image.dcm", make_dicom())
    return sink.getvalue()


@dataclass(frozen=True, kw_only=True)
class PixelReference:
    """One kind of file.

    Args:
        name: for test identifiers.
        make: gives the bytes.
        reason: the outcome that is right for the whole way.
        stored: stored values that must come out; None where there are none.
        tolerance: largest difference allowed, for lossy syntaxes.
        inverted: whether low values are shown bright.
    """

    name: str
    make: Callable[[], bytes]
    reason: Reason = Reason.NONE
    stored: Callable[[], np.ndarray] | None = None
    tolerance: int = 0
    inverted: bool = False


def _good(name: str, make: Callable[[], bytes], **facts: Any) -> PixelReference:
    return PixelReference(name=name, make=make, **{"stored": picture, **facts})


def _bad(name: str, make: Callable[[], bytes], reason: Reason) -> PixelReference:
    return PixelReference(name=name, make=make, reason=reason)


def _signed() -> np.ndarray:
    return picture().astype(np.int16) - 2048


def _cut(make: Callable[[], bytes]) -> bytes:
    """A whole file around a frame of which a third is missing."""
    dataset = dcmread(io.BytesIO(make()))
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    dataset.PixelData = encapsulate([frame[: len(frame) // 3 * 2]])
    return to_bytes(dataset, dataset.file_meta.TransferSyntaxUID)


REFERENCES: tuple[PixelReference, ...] = (
    _good("explicit_le", make_dicom),
    _good("implicit_le", lambda: make_dicom(syntax=uids.ImplicitVRLittleEndian)),
    _good("explicit_be", lambda: make_dicom(syntax=uids.ExplicitVRBigEndian)),
    _good("deflated", lambda: make_dicom(syntax=uids.DeflatedExplicitVRLittleEndian)),
    _good("eight_bits", lambda: make_dicom(picture(bits=8)), stored=lambda: picture(bits=8)),
    _good("encapsulated_uncompressed", encapsulated_uncompressed),
    _good("big_endian_words_of_bytes", big_endian_words_of_bytes, stored=lambda: picture(bits=8)),
    _good("rle", rle),
    _good("jpeg2000", jpeg2000),
    _good("jpeg2000_lossy", jpeg2000_lossy, tolerance=60),
    _good("jpeg2000_signed", jpeg2000_signed, stored=lambda: _signed()),
    _good("jpeg2000_signed_patterns", jpeg2000_signed_patterns, stored=lambda: _signed()),
    _good("jpeg2000_with_junk", jpeg2000_with_junk),
    _good("htj2k", htj2k),
    _good("htj2k_rpcl", lambda: htj2k(uids.HTJ2KLosslessRPCL)),
    _good("htj2k_lossy", htj2k_lossy, tolerance=60),
    _good("jpeg_xl_lossless", lambda: jpeg_xl(lossless=True)),
    _good("jpeg_xl_container", lambda: jpeg_xl(lossless=True, usecontainer=True)),
    _good("jpeg_xl_of_jpeg", jpeg_xl_of_jpeg, stored=lambda: picture(bits=8)),
    _good("jpeg_xl_lossy", lambda: jpeg_xl(JPEG_XL, distance=1.0), tolerance=200),
    _good("jpeg_ls", jpeg_ls),
    _good("jpeg_ls_near", jpeg_ls_near, tolerance=3),
    _good("jpeg_lossless", jpeg_lossless),
    _good("jpeg_lossless_process_14", lambda: jpeg_lossless(6, uids.JPEGLossless)),
    _good("jpeg_lossless_signed", jpeg_lossless_signed, stored=lambda: _signed()),
    _good("jpeg_of_another_process", lambda: jpeg_lossless(1, uids.JPEGBaseline8Bit)),
    *(_good(f"jpeg_lossless_predictor_{n}", lambda n=n: jpeg_lossless(n, uids.JPEGLossless)) for n in (2, 4, 7)),
    _good("jpeg_lossy_12_bits", jpeg_lossy_12_bits, tolerance=60),
    _good("jpeg_baseline", jpeg_baseline, stored=lambda: picture(bits=8), tolerance=6),
    _good("signed", lambda: make_dicom(_signed()), stored=_signed),
    _good("signed_with_junk", signed_with_junk, stored=_signed),
    _good("junk_above_high_bit", junk_above_high_bit),
    _good("left_aligned_bits", left_aligned_bits),
    _good("monochrome1", lambda: make_dicom(PhotometricInterpretation="MONOCHROME1"), inverted=True),
    _good("inverse_lut_shape", lambda: make_dicom(PresentationLUTShape="INVERSE"), inverted=True),
    _good(
        "monochrome1_and_inverse",
        lambda: make_dicom(PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="INVERSE"),
        inverted=True,
    ),
    _good(
        "modality_lut",
        lambda: make_dicom(ModalityLUTSequence=lut_item(np.arange(4096)[::-1] * 3, 0, 16)),
        stored=lambda: (4095 - picture()) * 3,
    ),
    _good("thirty_two_bits", thirty_two_bits, stored=lambda: picture().astype(np.uint32) * 100_000),
    *(
        _good(f"{n}_bits_stored", lambda n=n: make_dicom(few_bits(n), bits_stored=n), stored=lambda n=n: few_bits(n))
        for n in (2, 4, 6, 7, 9, 10, 11)
    ),
    _good("sixteen_bits_stored", lambda: make_dicom(picture() << 4, bits_stored=16), stored=lambda: picture() << 4),
    _good("overlays", overlay_in_high_bits),
    _good("grey_as_rgb", grey_as_rgb, stored=lambda: picture(bits=8)),
    _good("grey_as_planar_rgb", lambda: grey_as_rgb(planar=True), stored=lambda: picture(bits=8)),
    _good("grey_as_rgb_by_rle", grey_as_rgb_by_rle, stored=lambda: picture(bits=8)),
    _good("grey_as_ybr", grey_as_ybr, stored=lambda: picture(bits=8)),
    _good("grey_as_ybr_422", grey_as_ybr_422, stored=lambda: picture(bits=8)),
    _good("grey_as_ybr_by_jpeg", grey_as_ybr_by_jpeg, stored=lambda: picture(bits=8), tolerance=6),
    _good("grey_as_rgb_by_jpeg2000", grey_as_rgb_by_jpeg2000, stored=lambda: picture(bits=8)),
    _good("grey_palette", palette, stored=lambda: (255 - picture(bits=8).astype(np.uint16)) * 257),
    _good("grey_palette_of_bytes", lambda: palette(n_bytes=1), stored=lambda: 255 - picture(bits=8)),
    _good("multi_frame", multi_frame),
    _good("multi_frame_jpeg2000", multi_frame_jpeg2000),
    _good("multi_frame_without_table", lambda: multi_frame_jpeg2000(offset_table=False)),
    _good("multi_frame_in_pieces", lambda: multi_frame_jpeg2000(pieces=2)),
    _good("multi_frame_in_pieces_without_table", lambda: multi_frame_jpeg2000(offset_table=False, pieces=2)),
    _good("fragments", lambda: fragments(b"")),
    _good("fragments_under_a_wrong_table", lambda: fragments(struct.pack("<3L", 0, 77, 2**31))),
    _good("padded", padded, stored=None),
    _good("missing_bits", lambda: make_dicom(omit=("HighBit", "SamplesPerPixel"))),
    _good("secondary_capture", lambda: make_dicom(SOPClassUID=uids.SecondaryCaptureImageStorage, Modality="CR")),
    _good("bare_header", lambda: make_dicom(omit=("Modality", "BodyPartExamined", "ViewPosition", "PatientAge"))),
    _bad("zero_bytes", lambda: b"", Reason.NOT_DICOM),
    _bad("text", lambda: b"404 not found " * 100, Reason.NOT_DICOM),
    _bad("zip", zip_file, Reason.NOT_DICOM),
    _bad("no_pixel_data", lambda: make_dicom(omit=("PixelData",)), Reason.NO_PIXELS),
    _bad("empty_pixel_data", lambda: make_dicom(PixelData=b""), Reason.NO_PIXELS),
    _bad("truncated", lambda: make_dicom()[:-5000], Reason.DECODE_FAILED),
    _bad("truncated_jpeg2000", lambda: jpeg2000()[:-1500], Reason.DECODE_FAILED),
    _bad("cut_before_the_pixels", lambda: make_dicom()[:400], Reason.NO_PIXELS),
    _bad(
        "truncated_deflate", lambda: make_dicom(syntax=uids.DeflatedExplicitVRLittleEndian)[:500], Reason.DECODE_FAILED
    ),
    _bad("nested_sequences", nested_sequences, Reason.DECODE_FAILED),
    _bad("claims_gigabytes", claims_gigabytes, Reason.IMAGE_TOO_LARGE),
    _bad("codestream_claims_gigabytes", codestream_claims_gigabytes, Reason.DECODE_FAILED),
    _bad("no_rows", lambda: make_dicom(omit=("Rows",)), Reason.DECODE_FAILED),
    _bad("bits_contradict", lambda: make_dicom(BitsStored=17), Reason.DECODE_FAILED),
    _bad(
        "retired_syntax",
        lambda: make_dicom(syntax=PROGRESSIVE_JPEG_RETIRED, frames=[b"\xff\xd8"]),
        Reason.UNSUPPORTED_SYNTAX,
    ),
    _bad("colour", colour, Reason.UNSUPPORTED_PIXELS),
    _bad("colour_by_jpeg", colour_by_jpeg, Reason.UNSUPPORTED_PIXELS),
    _bad(
        "palette_without_tables",
        lambda: make_dicom(PhotometricInterpretation="PALETTE COLOR"),
        Reason.UNSUPPORTED_PIXELS,
    ),
    _bad("palette_of_colours", lambda: palette(green=0.5), Reason.UNSUPPORTED_PIXELS),
    _bad("no_photometric", lambda: make_dicom(omit=("PhotometricInterpretation",)), Reason.UNSUPPORTED_PIXELS),
    _bad("cine", lambda: multi_frame(FrameTime="33"), Reason.UNSUPPORTED_PIXELS),
    _bad("frames_of_no_modality", lambda: multi_frame(omit=("Modality",)), Reason.UNSUPPORTED_PIXELS),
    _bad("one_bit", one_bit, Reason.BLANK_IMAGE),
    _bad("sixty_four_bits", lambda: make_dicom(BitsAllocated=64), Reason.UNSUPPORTED_PIXELS),
    _bad("rle_with_wrong_table", rle_with_wrong_table, Reason.DECODE_FAILED),
    _bad("truncated_jpeg", lambda: _cut(jpeg_baseline), Reason.DECODE_FAILED),
    _bad("truncated_jpeg_12_bits", lambda: _cut(jpeg_lossy_12_bits), Reason.DECODE_FAILED),
    _bad("truncated_jpeg_lossless", lambda: _cut(jpeg_lossless), Reason.DECODE_FAILED),
    _bad("truncated_jpeg_ls", lambda: _cut(jpeg_ls), Reason.DECODE_FAILED),
    _bad("truncated_htj2k", lambda: _cut(htj2k), Reason.DECODE_FAILED),
    _bad("truncated_jpeg_xl", lambda: _cut(lambda: jpeg_xl(lossless=True)), Reason.DECODE_FAILED),
    _bad("truncated_rle", lambda: _cut(rle), Reason.DECODE_FAILED),
    _good("long_texts", long_texts),
    _good("number_of_400_digits", lambda: with_element(struct.pack("<2H2sH", 0x28, 8, b"IS", 400) + b"9" * 400)),
    _good("nested_voi", nested_voi),
    _good("table_of_megabytes", lambda: make_dicom(VOILUTSequence=lut_item(np.arange(2**20) % 65_536, 0, 16))),
    _good("empty_table", lambda: make_dicom(VOILUTSequence=lut_item(np.arange(0), 0, 16))),
    _bad("prefix_and_nothing", lambda: b"\0" * 128 + b"DICM", Reason.DECODE_FAILED),
    _bad("claims_frames", lambda: make_dicom(NumberOfFrames=2**31 - 1), Reason.IMAGE_TOO_LARGE),
    _bad("claims_samples", lambda: make_dicom(SamplesPerPixel=65_535), Reason.IMAGE_TOO_LARGE),
    _bad("rows_of_another_length", lambda: lying_length(b"\x28\0\x10\0US", 60_000), Reason.NO_PIXELS),
    _bad("jpeg_claims_gigabytes", lambda: lying_codestream(jpeg_baseline), Reason.DECODE_FAILED),
    _bad("jpeg_lossless_claims_gigabytes", lambda: lying_codestream(jpeg_lossless), Reason.DECODE_FAILED),
    _bad("jpeg_ls_claims_gigabytes", lambda: lying_codestream(jpeg_ls), Reason.DECODE_FAILED),
    _bad("htj2k_claims_gigabytes", lambda: lying_codestream(htj2k), Reason.DECODE_FAILED),
    _bad("jpeg_of_two_sizes", jpeg_of_two_sizes, Reason.DECODE_FAILED),
    _bad("jpeg2000_of_many_tiles", jpeg2000_of_many_tiles, Reason.DECODE_FAILED),
    _bad("jpeg2000_of_many_components", jpeg2000_of_many_components, Reason.DECODE_FAILED),
    _bad("rle_bomb", rle_bomb, Reason.DECODE_FAILED),
    _bad("blank", lambda: make_dicom(np.full((64, 64), 700, dtype=np.uint16)), Reason.BLANK_IMAGE),
    _bad("lateral", lambda: make_dicom(ViewPosition="LL"), Reason.LATERAL_VIEW),
    _bad("computed_tomography", lambda: make_dicom(Modality="CT"), Reason.NOT_CHEST),
    _bad("hand", lambda: make_dicom(BodyPartExamined="HAND"), Reason.NOT_CHEST),
    _bad("dog", lambda: make_dicom(BodyPartExamined="THORAX", PatientSpeciesDescription="Canine"), Reason.NOT_CHEST),
)

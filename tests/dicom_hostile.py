"""Synthetic DICOM bytes that lie, break off, or want time and memory (no patient data)."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable

import imagecodecs
import numpy as np
from PIL import Image
from pydicom import uid as uids
from pydicom.encaps import encapsulate, get_frame
from pydicom.filereader import dcmread

from tests.dicom_factory import make_dicom, picture, to_bytes


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


def cut_frame(make: Callable[[], bytes]) -> bytes:
    """A whole file around a frame of which a third is missing."""
    dataset = dcmread(io.BytesIO(make()))
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    dataset.PixelData = encapsulate([frame[: len(frame) // 3 * 2]])
    return to_bytes(dataset, dataset.file_meta.TransferSyntaxUID)

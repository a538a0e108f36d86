"""What encoded frames say of themselves, read before a codec is let loose on them.

Codecs allocate what a codestream claims, whatever the header says; several of them hand back half a picture where the
codestream breaks off. So its size is compared with the header's, and its end is looked for, first.

"Part 5" is PS3.5 of the DICOM standard.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from sarc_ray.errors import ImageError, Reason

_END = b"\xff\xd9"  # EOI of JPEG and JPEG-LS, EOC of JPEG 2000
# Part 5 A.4 pads a frame to even length; some writers pad to a block.
_PADDING_MAX_BYTES = 65_536
_SOF_LOSSLESS, _SOF_JPEG_LS = 0xC3, 0xF7


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamFacts:
    """The size and kind of a codestream.

    Args:
        rows: H.
        columns: W.
        components: samples per pixel.
        bits: per sample.
        signed: whether samples are two's complement (JPEG 2000 only).
        levels: how often the picture can be halved by leaving out resolution levels (JPEG 2000 only).
        high_throughput: whether it is HTJ2K.
        reversible: whether its transform loses nothing (JPEG 2000 only).
        process: the start-of-frame marker of a JPEG stream; 0 for others.
    """

    rows: int
    columns: int
    components: int
    bits: int
    signed: bool
    levels: int
    high_throughput: bool
    reversible: bool
    process: int

    @property
    def lossless_jpeg(self) -> bool:
        """True for JPEG process 14 (ISO 10918-1 annex H)."""
        return self.process == _SOF_LOSSLESS

    @property
    def jpeg_ls(self) -> bool:
        """True for JPEG-LS (ISO 14495-1)."""
        return self.process == _SOF_JPEG_LS


def read_jpeg(frame: bytes | memoryview) -> StreamFacts:
    """The frame header (SOF) of a complete JPEG or JPEG-LS codestream (ISO 10918-1 B.2.2, ISO 14495-1 C.2.2).

    Raises:
        ImageError: DECODE_FAILED where there is none, or the end (EOI) is missing.
    """
    data = bytes(frame[-_PADDING_MAX_BYTES:])
    if _END not in data:
        raise ImageError(Reason.DECODE_FAILED, "the JPEG codestream breaks off")
    for marker, body in _segments(frame, 2):
        is_frame_header = 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)
        if (is_frame_header or marker == _SOF_JPEG_LS) and len(body) >= 6:
            bits, rows, columns, components = struct.unpack(">B2HB", body[:6])
            return StreamFacts(
                rows=rows,
                columns=columns,
                components=components,
                bits=bits,
                signed=False,
                levels=0,
                high_throughput=False,
                reversible=False,
                process=marker,
            )
    raise ImageError(Reason.DECODE_FAILED, "no frame header in the JPEG codestream")


def read_jpeg2000(frame: bytes | memoryview) -> StreamFacts:
    """The main header of a complete JPEG 2000 or HTJ2K codestream (ISO 15444-1 A.5.1, A.6.1, A.6.2).

    Raises:
        ImageError: DECODE_FAILED where there is none, or the codestream breaks off.
    """
    # Part 5 A.4.4 wants bare codestreams; some writers leave the boxes of a JP2 file around it.
    start = bytes(frame[:4096]).find(b"\xff\x4f\xff\x51")
    if start < 0:
        raise ImageError(Reason.DECODE_FAILED, "no JPEG 2000 codestream")
    size: tuple[int, ...] | None = None
    levels: list[int] = []
    high_throughput = reversible = False
    position = start + 2
    for marker, body in _segments(frame, position):
        if marker == 0x90:  # SOT: the first tile-part
            break
        if marker == 0x51 and len(body) >= 39:  # SIZ
            size = struct.unpack(">H8LH3B", body[:39])
        elif marker == 0x50:  # CAP (ISO 15444-15 A.2)
            high_throughput = True
        elif marker == 0x52 and len(body) >= 10:  # COD
            levels.append(body[5])
            reversible = body[9] == 1
        elif marker == 0x53 and len(body) >= 9:  # COC, components counted in one byte
            levels.append(body[2])
        position += 4 + len(body)
    if size is None or not levels:
        raise ImageError(Reason.DECODE_FAILED, "no SIZ or COD segment in the JPEG 2000 codestream")
    _check_tile_parts(frame, position)
    _, x_end, y_end, x_start, y_start, *_, components, depth, x_step, y_step = size
    # Away from the reference grid's origin the low-resolution samples lie elsewhere.
    plain = (x_start, y_start, x_step, y_step) == (0, 0, 1, 1)
    return StreamFacts(
        rows=y_end - y_start,
        columns=x_end - x_start,
        components=components,
        bits=(depth & 0x7F) + 1,
        signed=bool(depth & 0x80),
        levels=min(levels) if plain else 0,
        high_throughput=high_throughput,
        reversible=reversible,
        process=0,
    )


def _check_tile_parts(frame: bytes | memoryview, position: int) -> None:
    """Walk from tile-part to tile-part by their lengths (Psot, ISO 15444-1 A.4.2) to the end of the codestream."""
    while bytes(frame[position : position + 2]) == b"\xff\x90":
        if position + 12 > len(frame):
            break
        (length,) = struct.unpack(">L", frame[position + 6 : position + 10])
        if length == 0:  # the last tile-part, up to EOC
            if _END not in bytes(frame[-_PADDING_MAX_BYTES:]):
                break
            return
        position += max(length, 12)
    # A missing EOC alone loses nothing.
    if not 0 < position <= len(frame) or bytes(frame[position : position + 2]) == b"\xff\x90":
        raise ImageError(Reason.DECODE_FAILED, "the JPEG 2000 codestream breaks off")


def _segments(frame: bytes | memoryview, position: int) -> Iterator[tuple[int, bytes]]:
    """Marker code and body of each marker segment from a position on (ISO 10918-1 B.1.1)."""
    while position + 4 <= len(frame) and frame[position] == 0xFF:
        marker = frame[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        length = int.from_bytes(frame[position + 2 : position + 4], "big")
        yield marker, bytes(frame[position + 4 : position + 2 + length])
        position += 2 + max(length, 2)


def read_jpeg_xl(frame: bytes | memoryview) -> StreamFacts:
    """The size header of a JPEG XL codestream, bare or in a container (ISO 18181-1 annex D, ISO 18181-2 clause 9).

    Components and bits are the decoder's to tell: 0 here.

    Raises:
        ImageError: DECODE_FAILED where there is none.
    """
    head = bytes(frame[:4096])
    start = 0 if head.startswith(b"\xff\x0a") else max(head.find(b"jxlc\xff\x0a"), head.find(b"jxlp")) + 4
    start = start if head[start : start + 2] == b"\xff\x0a" else start + 4  # jxlp boxes begin with their number
    if head[start : start + 2] != b"\xff\x0a" or len(head) < start + 16:
        raise ImageError(Reason.DECODE_FAILED, "no JPEG XL codestream")
    bits = _LowBitsFirst(int.from_bytes(head[start + 2 : start + 16], "little"))
    eighths = bits.take(1)
    rows = bits.side(eighths)
    ratio = bits.take(3)
    columns = rows * _RATIOS[ratio][0] // _RATIOS[ratio][1] if ratio else bits.side(eighths)
    return StreamFacts(
        rows=rows,
        columns=columns,
        components=0,
        bits=0,
        signed=False,
        levels=0,
        high_throughput=False,
        reversible=False,
        process=0,
    )


# ISO 18181-1 table D.3: fixed ratios of width to height.
_RATIOS = {1: (1, 1), 2: (12, 10), 3: (4, 3), 4: (3, 2), 5: (16, 9), 6: (5, 4), 7: (2, 1)}


class _LowBitsFirst:
    """Reads the bit fields of a JPEG XL header."""

    def __init__(self, value: int) -> None:
        self._value = value

    def take(self, count: int) -> int:
        field = self._value & ((1 << count) - 1)
        self._value >>= count
        return field

    def side(self, eighths: int) -> int:
        """A side in pixels: a multiple of eight in 5 bits, or 9, 13, 18 or 30 bits."""
        return 8 * (1 + self.take(5)) if eighths else 1 + self.take((9, 13, 18, 30)[self.take(2)])

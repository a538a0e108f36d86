"""The bytes of one frame out of Pixel Data: native, or in fragments (Part 5 A.4).

"Part 5" is PS3.5 of the DICOM standard.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from sarc_ray.errors import ImageError, Reason

_ITEM, _DELIMITER = 0xE000FFFE, 0xE0DDFFFE
_UNDEFINED = 0xFFFFFFFF
# The codes that end a JPEG, JPEG-LS or JPEG 2000 codestream; one byte of padding may follow.
_ENDS = (b"\xff\xd9", b"\xff\xd9\x00", b"\xff\xd9\xff")


def first_frame(value: memoryview, n_frames: int, extended_offsets: Sequence[int] | None = None) -> bytes | memoryview:
    """The first encoded frame; a view where it is one fragment.

    Args:
        value: Pixel Data's value: items, of which the first is the Basic Offset Table.
        n_frames: Number of Frames.
        extended_offsets: Extended Offset Table (Part 3 C.7.6.3.1.8), where there is one.

    Raises:
        ImageError: DECODE_FAILED where the items break off or cannot be told apart.
    """
    items = _items(value)
    if len(items) < 2:
        raise ImageError(Reason.DECODE_FAILED, "no fragments")
    (table_start, table_end), *fragments = items
    if n_frames <= 1:
        # All fragments are the one frame's, whatever the offset table says (Part 5 A.4: a frame may span several).
        return _joined(value, fragments)
    if len(fragments) == n_frames:
        return _joined(value, fragments[:1])
    offsets = list(extended_offsets or ())
    if not offsets:
        table = bytes(value[table_start:table_end])
        offsets = list(struct.unpack(f"<{len(table) // 4}L", table[: len(table) // 4 * 4]))
    if len(offsets) == n_frames and offsets[0] == 0:
        # Offsets count from the first fragment's item tag.
        begin = fragments[0][0] - 8
        own = [fragment for fragment in fragments if fragment[0] - 8 - begin < offsets[1]]
        if len(own) < len(fragments) and fragments[len(own)][0] - 8 - begin == offsets[1]:
            return _joined(value, own)
    # No table, or a wrong one: the first fragment that ends a codestream ends the frame.
    for count, (start, end) in enumerate(fragments, start=1):
        if bytes(value[max(start, end - 3) : end]).endswith(_ENDS):
            return _joined(value, fragments[:count])
    raise ImageError(Reason.DECODE_FAILED, f"{len(fragments)} fragments for {n_frames} frames, and no offset table")


def _joined(value: memoryview, fragments: Sequence[tuple[int, int]]) -> bytes | memoryview:
    if len(fragments) == 1:
        return value[slice(*fragments[0])]
    return b"".join(value[start:end] for start, end in fragments)


def _items(value: memoryview) -> list[tuple[int, int]]:
    """Start and end of each item's bytes, up to the Sequence Delimitation Item."""
    found: list[tuple[int, int]] = []
    position = 0
    while position + 8 <= len(value):
        tag, length = struct.unpack("<2L", value[position : position + 8])
        if tag == _DELIMITER:
            return found
        end = position + 8 + length
        if tag != _ITEM or length == _UNDEFINED or end > len(value):
            raise ImageError(Reason.DECODE_FAILED, "the fragments break off")
        found.append((position + 8, end))
        position = end
    return found

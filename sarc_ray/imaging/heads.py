"""Headers without their pixels: a few kilobytes of an object tell whether it is worth reading whole.

The first bytes of many objects are asked for at once. The parser steps over values that nobody needs without having
them, and says which bytes it lacks; these are asked for in further rounds, again for all objects at once. A header
that ends within ``HEAD_BYTES``, as nearly all do, costs one request.

Patient ID and Study Instance UID are read here alone, and leave as keyed hashes.
"""

from __future__ import annotations

import io
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from pydicom import uid as uids
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_dataset, read_partial
from pydicom.tag import BaseTag

from sarc_ray import storage
from sarc_ray.errors import REASONS, ImageError, Reason
from sarc_ray.imaging import dicom, gate
from sarc_ray.imaging.header import HeaderFacts, read_header, tag_value
from sarc_ray.imaging.layout import check_layout
from sarc_ray.privacy import pseudonyms

HEAD_BYTES = 64 * 1024
# Each round asks for twice as much, so that a header of 50 MB ends within these rounds. Nothing medical comes near it.
_ROUNDS_MAX = 12
_STEP_MAX_BYTES = 4 * 2**20
_INFLATED_MAX_BYTES = 16 * 2**20

_IDENTIFIERS = ("PatientID", "StudyInstanceUID")
# Lookup tables and offsets are needed for the pixels alone.
_NEEDLESS = ("LUTSequence", "LookupTableData", "OffsetTable", "OffsetTableLengths", "PixelData")
_TAGS: list[BaseTag | int] = [
    tag
    for name in (*dicom.TAGS, *_IDENTIFIERS)
    if not name.endswith(_NEEDLESS) and (tag := tag_for_keyword(name)) is not None
]
_PIXEL_DATA = 0x7FE00010
_UNCOMPRESSED = (uids.ImplicitVRLittleEndian, uids.ExplicitVRLittleEndian, uids.ExplicitVRBigEndian)


HEAD_SCHEMA = pa.schema(
    [
        ("row_id", pa.int64()),
        ("outcome", pa.string()),
        ("reason", pa.string()),
        ("retryable", pa.bool_()),
        ("image_uri", pa.string()),
        ("bytes", pa.int64()),
        ("patient_id", pa.string()),
        ("patient_known", pa.bool_()),
        ("study_id", pa.string()),
        ("gate_flags", pa.string()),
        ("age_years", pa.float64()),
        ("sex", pa.string()),
        ("bmi_kg_m2", pa.float64()),
        ("view", pa.string()),
        ("device", pa.string()),
        ("acquired_on", pa.string()),
        ("modality", pa.string()),
        ("body_part", pa.string()),
        ("photometric", pa.string()),
        ("rows", pa.int64()),
        ("columns", pa.int64()),
        ("bits_stored", pa.int64()),
        ("transfer_syntax", pa.string()),
    ]
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Head:
    """What the header of one object says.

    Args:
        reason: why the object cannot be scored, as far as its header tells; ``Reason.NONE`` where nothing speaks
            against it.
        header: the facts; None where they could not be read.
        patient_key: keyed hash of Patient ID; None where it is absent.
        study_key: keyed hash of Study Instance UID; None where it is absent.
    """

    reason: Reason
    header: HeaderFacts | None
    patient_key: str | None
    study_key: str | None


class BytesWantedError(Exception):
    """The parser has come to bytes that were not fetched yet."""

    def __init__(self, start: int, end: int) -> None:
        super().__init__(start, end)
        self.start = start
        self.end = end


class _SparseFile:
    """An object of which only some pieces are here; seeking is free, reading beyond them says what is wanted."""

    def __init__(self, pieces: Sequence[tuple[int, bytes]], size: int) -> None:
        self._pieces = pieces
        self._size = size
        self._position = 0

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = 0) -> int:
        self._position = offset + {0: 0, 1: self._position, 2: self._size}[whence]
        return self._position

    def read(self, n: int = -1) -> bytes:
        start = self._position
        end = self._size if n < 0 else min(start + n, self._size)
        if end <= start:
            return b""
        for first, data in self._pieces:
            if first <= start and end <= first + len(data):
                self._position = end
                return data[start - first : end - first]
        raise BytesWantedError(start, end)


class _PixelElement:
    """Where Pixel Data lies and how long it says it is."""

    def __init__(self) -> None:
        self.found = False
        self.start = 0
        self.length = 0

    def stop_in(self, file: _SparseFile) -> Callable[[BaseTag, str | None, int], bool]:
        """For pydicom: end the parse at Pixel Data of the data set itself, and note it."""

        def stop_when(tag: BaseTag, vr: str | None, length: int) -> bool:
            self.found = int(tag) == _PIXEL_DATA
            self.start, self.length = file.tell(), length
            return self.found

        return stop_when


def head_rows(
    row_ids: Sequence[int],
    uris: Sequence[str],
    sizes: Sequence[int],
    *,
    key: bytes,
    seconds_per_fetch: float | None = None,
) -> pa.Table:
    """Headers of a batch of objects as rows of ``HEAD_SCHEMA``.

    Args:
        row_ids: shape (N,), the rows' keys.
        uris: shape (N,), absolute.
        sizes: shape (N,), bytes of each object, as its store lists it.
        key: secret of the patient and study keys. An object without a Patient ID counts as a patient of its own.
        seconds_per_fetch: as for :func:`sarc_ray.storage.read_ranges`.

    Raises:
        CredentialsError: the store does not accept the credentials.
    """
    heads = read_heads(uris, sizes, key=key, seconds_per_fetch=seconds_per_fetch)
    rows = [_row(head) for head in heads]
    for row, row_id, uri, size, own in zip(
        rows, row_ids, uris, sizes, pseudonyms(uris, key=key, purpose="object"), strict=True
    ):
        row |= {"row_id": row_id, "image_uri": uri, "bytes": size, "patient_id": row["patient_id"] or own}
    return pa.Table.from_pylist(rows, schema=HEAD_SCHEMA)


def _row(head: Head) -> dict[str, Any]:
    facts = REASONS[head.reason]
    row: dict[str, Any] = {
        "outcome": str(facts.outcome),
        "reason": str(head.reason),
        "retryable": facts.retryable,
        "patient_id": head.patient_key,
        "patient_known": head.patient_key is not None,
        "study_id": head.study_key,
    }
    if head.header is not None:
        row |= {name: getattr(head.header, name) for name in HEAD_SCHEMA.names if hasattr(head.header, name)}
        row |= {"acquired_on": head.header.acquired_month, "gate_flags": ",".join(gate.flags(head.header))}
    return row


def read_heads(
    uris: Sequence[str], sizes: Sequence[int], *, key: bytes, seconds_per_fetch: float | None = None
) -> list[Head]:
    """Read the headers of many objects by ranged reads; never raises for an object.

    Args:
        uris: shape (N,), absolute.
        sizes: shape (N,), bytes of each object, as its store lists it.
        key: secret of the patient and study keys.
        seconds_per_fetch: as for :func:`sarc_ray.storage.read_ranges`.
    """
    heads: dict[int, Head] = {}
    pieces: dict[int, list[tuple[int, bytes | Exception]]] = {index: [] for index in range(len(uris))}
    # Most stores refuse to read a range of nothing, and nothing is no DICOM object.
    wanted = {index: (0, HEAD_BYTES) for index in pieces if sizes[index] > 0}
    step = HEAD_BYTES
    for _ in range(_ROUNDS_MAX):
        data = _fetch(uris, wanted, seconds_per_fetch)
        for index, (start, _) in list(wanted.items()):
            del wanted[index]
            pieces[index].append((start, data[index]))
            try:
                heads[index] = read_head(pieces[index], sizes[index], key=key)
            except BytesWantedError as lack:
                wanted[index] = (lack.start, max(lack.end, lack.start + step))
        if not wanted:
            break
        step = min(2 * step, _STEP_MAX_BYTES)
    left = {index: Reason.IMAGE_TOO_LARGE if index in wanted else Reason.NOT_DICOM for index in pieces}
    return [heads.get(index) or _refused(reason) for index, reason in left.items()]


def _fetch(
    uris: Sequence[str], wanted: Mapping[int, tuple[int, int]], seconds_per_fetch: float | None
) -> dict[int, bytes | Exception]:
    starts, ends = [start for start, _ in wanted.values()], [end for _, end in wanted.values()]
    found = storage.read_ranges([uris[k] for k in wanted], starts, ends, seconds_per_fetch=seconds_per_fetch)
    return dict(zip(wanted, found, strict=True))


def read_head(pieces: Sequence[tuple[int, bytes | Exception]], size: int, *, key: bytes) -> Head:
    """Read a header from the pieces of an object that were fetched so far.

    Args:
        pieces: each its first byte and its data, the object's beginning among them; an exception stands for a piece
            that could not be fetched.
        size: bytes of the whole object.
        key: secret of the patient and study keys.

    Raises:
        BytesWantedError: more of the object is needed.
    """
    known: list[tuple[int, bytes]] = []
    for start, data in pieces:
        if isinstance(data, Exception):
            return _refused(Reason.OBJECT_MISSING if storage.is_missing(data) else Reason.STORAGE_FAILED)
        known.append((start, data))
    header, patient_key, study_key = None, None, None
    try:
        with dicom.quiet_pydicom():
            dataset, pixels = _open(known, size)
            header = read_header(dataset)
            patient_key, study_key = _keys(dataset, key)
            gate.check(header)
            _check_pixels(dataset, header, pixels, size)
        reason = Reason.NONE
    except BytesWantedError:
        raise
    except ImageError as error:
        reason = error.reason
    except Exception:  # One object must never stop an inventory; the reason says that we did not foresee it.
        reason = Reason.INTERNAL_ERROR
    return Head(reason=reason, header=header, patient_key=patient_key, study_key=study_key)


def _refused(reason: Reason) -> Head:
    return Head(reason=reason, header=None, patient_key=None, study_key=None)


def _keys(dataset: Dataset, key: bytes) -> tuple[str | None, str | None]:
    """Keyed hashes of the two identifiers; the only place that reads them."""
    texts = [str(tag_value(dataset, name) or "").strip(" \0") or None for name in _IDENTIFIERS]
    (patient,) = pseudonyms(texts[:1], key=key, purpose="patient")
    (study,) = pseudonyms(texts[1:], key=key, purpose="study")
    return patient, study


def _open(pieces: Sequence[tuple[int, bytes]], size: int) -> tuple[Dataset, _PixelElement]:
    """The tags of ``_TAGS``, and where Pixel Data lies."""
    if size > dicom.MAX_OBJECT_BYTES:
        raise ImageError(Reason.IMAGE_TOO_LARGE, f"{size} bytes; allowed: {dicom.MAX_OBJECT_BYTES}")
    pixels = _PixelElement()
    try:
        dataset = _open_deflated(pieces, size, pixels) or _open_plain(pieces, size, pixels)
    except InvalidDicomError as error:
        raise ImageError(Reason.NOT_DICOM, "no DICM prefix") from error
    except (BytesWantedError, ImageError, MemoryError):
        raise
    except Exception as error:  # Damaged files make pydicom raise nearly every type, RecursionError among them.
        raise ImageError(Reason.DECODE_FAILED, f"header: {type(error).__name__}") from error
    # pydicom hands back an empty data set where the file ends in the middle of an element.
    if not len(dataset) and not pixels.found:
        raise ImageError(Reason.DECODE_FAILED, "the file breaks off")
    return dataset, pixels


def _open_plain(pieces: Sequence[tuple[int, bytes]], size: int, pixels: _PixelElement) -> Dataset:
    file: Any = _SparseFile(pieces, size)
    bare = dicom.is_bare(pieces[0][1])
    return read_partial(file, stop_when=pixels.stop_in(file), force=bare, specific_tags=_TAGS)


def _open_deflated(pieces: Sequence[tuple[int, bytes]], size: int, pixels: _PixelElement) -> Dataset | None:
    """A deflated data set (Part 5 A.5), of which the beginning is inflated; None where it is none."""
    start = dicom.deflated_start(pieces[0][1])
    if start is None:
        return None
    data = b"".join(piece for _, piece in pieces)  # what is lacking of a stream is always what comes next
    try:
        stream = zlib.decompressobj(-zlib.MAX_WBITS)
        inflated = stream.decompress(data[start:], _INFLATED_MAX_BYTES)
    except zlib.error as error:
        raise ImageError(Reason.DECODE_FAILED, "deflated data set is damaged") from error
    file: Any = _SparseFile([(0, inflated)], len(inflated) if stream.eof else sys.maxsize)
    dataset = read_partial(io.BytesIO(data[:start]))
    try:
        dataset.update(read_dataset(file, False, True, stop_when=pixels.stop_in(file), specific_tags=_TAGS))
    except BytesWantedError:
        if len(inflated) >= _INFLATED_MAX_BYTES:
            raise ImageError(Reason.IMAGE_TOO_LARGE, f"header inflates to {len(inflated)} bytes and more") from None
        if len(data) >= size:
            raise ImageError(Reason.DECODE_FAILED, "the file breaks off") from None
        raise BytesWantedError(len(data), len(data) + 1) from None
    return dataset


def _check_pixels(dataset: Dataset, header: HeaderFacts, pixels: _PixelElement, size: int) -> None:
    if not pixels.found or pixels.length == 0:
        raise ImageError(Reason.NO_PIXELS)
    layout = check_layout(dataset, header)
    if header.transfer_syntax in _UNCOMPRESSED and layout.samples == 1:
        needed = layout.rows * layout.columns * layout.bits_allocated // 8
        there = min(pixels.length, size - pixels.start)
        if there < needed:
            raise ImageError(Reason.DECODE_FAILED, f"{there} bytes of pixels, {needed} are needed")

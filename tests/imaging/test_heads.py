"""Headers by ranged reads: the same facts and reasons as from the whole object, at one small request each."""

import dataclasses
import hashlib
import hmac
import io
import json
import zlib

import numpy as np
import pytest
import s3fs
from pydicom import dcmread
from pydicom import uid as uids
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from sarc_ray import storage
from sarc_ray.config import from_mapping, load_preset
from sarc_ray.errors import Reason
from sarc_ray.imaging import heads
from sarc_ray.imaging.heads import HEAD_BYTES, BytesWantedError, read_head, read_heads
from sarc_ray.imaging.preprocess import PreprocessConfig, process_image
from tests import dicom_factory, dicom_hostile
from tests.dicom_factory import make_dicom
from tests.dicom_hostile import bare_data_set, without_prefix
from tests.dicom_references import REFERENCES

KEY = b"0123456789abcdef"
# The factory's pictures are no chests to the pixel gate, and no header tells what it will say.
CONFIG = from_mapping(PreprocessConfig, load_preset("demo")["preprocess"] | {"pixel_gate": False})
# What a header must tell; the rest may show in the pixels alone.
OF_THE_HEADER = {
    *(Reason.NOT_DICOM, Reason.NO_PIXELS, Reason.UNSUPPORTED_SYNTAX),
    *(Reason.NOT_CHEST, Reason.LATERAL_VIEW, Reason.PAEDIATRIC),
}


def read_whole(data):
    return read_head([(0, data)], len(data), key=KEY)


def read_in_steps(data, first=300, step=200):
    """Feed an object piece by piece, as the rounds of requests do; how many pieces it took comes with the head."""
    pieces = [(0, data[:first])]
    while True:
        try:
            return read_head(pieces, len(data), key=KEY), len(pieces)
        except BytesWantedError as lack:
            if lack.start >= len(data):
                raise ValueError("asked for what is not there") from lack
            pieces.append((lack.start, data[lack.start : max(lack.end, lack.start + step)]))


@pytest.fixture(scope="module")
def objects():
    return {reference.name: reference.make() for reference in REFERENCES}


@pytest.mark.parametrize("name", [reference.name for reference in REFERENCES])
def test_the_header_says_what_the_whole_object_says_or_nothing(objects, name):
    data = objects[name]
    whole = process_image(data, CONFIG)
    head = read_whole(data)
    assert head.reason == whole.reason or (head.reason == Reason.NONE and whole.reason not in OF_THE_HEADER)
    if whole.header is not None:
        assert head.header == whole.header


def test_nearly_every_refusal_is_known_from_the_header(objects):
    refused = [name for name, data in objects.items() if process_image(data, CONFIG).reason != Reason.NONE]
    known = [name for name in refused if read_whole(objects[name]).reason != Reason.NONE]
    assert {"text", "zip", "no_pixel_data", "retired_syntax", "hand", "lateral", "claims_gigabytes"} <= set(known)
    assert len(known) > 0.5 * len(refused)


@pytest.mark.parametrize("name", [r.name for r in REFERENCES if r.name != "zero_bytes"])
def test_pieces_tell_the_same_as_the_whole(objects, name):
    head, _ = read_in_steps(objects[name])
    assert head == read_whole(objects[name])


def with_private_values(values, syntax=uids.ExplicitVRLittleEndian):
    """A radiograph whose private values lie between the tags that are wanted."""
    plain = dcmread(io.BytesIO(make_dicom()))
    dataset = Dataset()
    dataset.update(plain)
    for number, value in enumerate(values):
        dataset.private_block(0x0009 + 2 * number, "HOUSE", create=True).add_new(0x01, "OB", value)
    return dicom_factory.to_bytes(dataset, syntax)


@pytest.mark.parametrize("syntax", [uids.ExplicitVRLittleEndian, uids.ImplicitVRLittleEndian])
def test_values_that_nobody_needs_are_stepped_over(tmp_path, monkeypatch, syntax):
    data = with_private_values([b"x" * 400_000] * 3, syntax)
    uri = str(tmp_path / "big.dcm")
    storage.write_bytes(uri, data)
    fetched = []
    monkeypatch.setattr(heads.storage, "read_ranges", counting(storage.read_ranges, fetched))
    (head,) = read_heads([uri], [len(data)], key=KEY)
    assert head == read_whole(data)
    assert head.reason == Reason.NONE
    assert sum(fetched) < 0.7 * len(data)


def test_a_deflated_header_is_fetched_on_until_its_pixels_begin(tmp_path):
    noise = np.random.default_rng(1).bytes(300_000)
    data = with_private_values([noise], uids.DeflatedExplicitVRLittleEndian)
    assert len(data) > 4 * HEAD_BYTES
    uri = str(tmp_path / "deflated.dcm")
    storage.write_bytes(uri, data)
    (head,) = read_heads([uri], [len(data)], key=KEY)
    assert head == read_whole(data)
    assert (head.reason, head.header.rows) == (Reason.NONE, 120)


def test_a_deflated_header_without_end_is_refused():
    plain = make_dicom(syntax=uids.DeflatedExplicitVRLittleEndian)
    start = heads.dicom.deflated_start(plain)
    body = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    private = b"\x09\x00\x10\x10OB\0\0" + (2**31).to_bytes(4, "little")
    data = plain[:start] + b"".join([body.compress(private), *(body.compress(b"\0" * 2**20) for _ in range(40))])
    head, n_pieces = read_in_steps(data + body.flush(), first=HEAD_BYTES)
    assert head.reason == Reason.IMAGE_TOO_LARGE
    assert n_pieces < 5


def counting(read_ranges, fetched):
    def counted(uris, starts, ends, **options):
        found = read_ranges(uris, starts, ends, **options)
        fetched.extend(len(data) for data in found if isinstance(data, bytes))
        return found

    return counted


def test_one_request_of_64_kib_for_each_object(s3_url, monkeypatch):
    """Counted at the S3 client: no listing, no HEAD, one ranged GET for each object that is not empty."""
    pixels = np.random.default_rng(2).integers(0, 4096, (400, 300), dtype=np.uint16)
    data = make_dicom(pixels)
    uris = [f"{s3_url}/{number}.dcm" for number in range(20)]
    for uri in uris:
        storage.write_bytes(uri, data)
    storage.write_bytes(f"{s3_url}/empty", b"")
    calls, fetched = [], []
    call = s3fs.S3FileSystem._call_s3

    async def counted(self, method, *arguments, **options):
        calls.append((method, options.get("Range")))
        return await call(self, method, *arguments, **options)

    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", counted)
    monkeypatch.setattr(heads.storage, "read_ranges", counting(storage.read_ranges, fetched))
    found = read_heads([*uris, f"{s3_url}/empty", f"{s3_url}/gone"], [len(data)] * 20 + [0, 9], key=KEY)
    assert [head.reason for head in found] == [""] * 20 + [Reason.NOT_DICOM, Reason.OBJECT_MISSING]
    assert calls == [("get_object", f"bytes=0-{HEAD_BYTES - 1}")] * 21
    assert sum(fetched) == 20 * HEAD_BYTES < 20 * len(data) / 3


def test_a_store_that_fails_is_no_fault_of_the_object():
    head = read_head([(0, OSError("503 slow down"))], 1000, key=KEY)
    assert head.reason == Reason.STORAGE_FAILED
    assert read_heads(["/nowhere/at/all.dcm"], [10], key=KEY)[0].reason == Reason.OBJECT_MISSING


def test_a_header_without_end_is_given_up(tmp_path):
    """A chain of values of 4 MiB, each of which needs a request of its own to step over."""
    element = b"\x09\x00\x10\x10OB\0\0" + (4 * 2**20).to_bytes(4, "little") + bytes(4 * 2**20)
    path = tmp_path / "endless.dcm"
    path.write_bytes(make_dicom(omit=("PixelData",)) + element * 20)
    (head,) = read_heads([str(path)], [path.stat().st_size], key=KEY)
    assert head.reason == Reason.IMAGE_TOO_LARGE


CANARIES = {
    "PatientName": "Canary^Nora",
    "PatientID": "CANARY-0042",
    "PatientBirthDate": "19370219",
    "StudyInstanceUID": "1.2.3.42424242",
    "AccessionNumber": "CANARY-ACC",
    "InstitutionName": "Canary General",
    "OtherPatientIDs": "CANARY-OTHER",
    "PatientAddress": "Canary Lane 1",
    "ReferringPhysicianName": "Canary^Doctor",
    "StudyDate": "20200305",
    "StudyDescription": "canary",
}


def test_identifiers_leave_as_keyed_hashes_alone():
    item = Dataset()
    item.PatientID = "CANARY-NESTED"
    data = make_dicom(**CANARIES, OtherPatientIDsSequence=Sequence([item]))
    for cut in (data, data[:-9000]):
        head = read_whole(cut)
        text = json.dumps(dataclasses.asdict(head)).upper()
        assert "CANARY" not in text
        assert not any(value in text for value in ("19370219", "42424242", "20200305", "1937"))
        assert head.patient_key == hmac.new(KEY, b"patient\0CANARY-0042", hashlib.sha256).hexdigest()[:32]
        assert head.study_key == hmac.new(KEY, b"study\x001.2.3.42424242", hashlib.sha256).hexdigest()[:32]
    assert read_whole(make_dicom(omit=("PatientID",))).patient_key is None


@pytest.mark.parametrize("syntax", [uids.ExplicitVRLittleEndian, uids.ImplicitVRLittleEndian, uids.ExplicitVRBigEndian])
def test_a_file_without_preamble_is_read_in_whole_and_by_its_header(syntax):
    data = make_dicom(syntax=syntax)
    with_meta, without_meta = without_prefix(data), bare_data_set(data)
    whole = process_image(data, CONFIG)
    for bare in (with_meta,) if syntax == uids.ExplicitVRBigEndian else (with_meta, without_meta):
        result = process_image(bare, CONFIG)
        assert result.reason is Reason.NONE
        np.testing.assert_array_equal(result.image_HW, whole.image_HW)
        assert result.header == whole.header
        assert read_whole(bare).header == whole.header
        assert read_in_steps(bare)[0] == read_whole(bare)


def test_a_compressed_file_without_preamble_is_read_too():
    result = process_image(without_prefix(dicom_factory.jpeg2000()), CONFIG)
    assert result.reason is Reason.NONE


def test_a_bomb_without_preamble_is_not_inflated():
    bomb = without_prefix(dicom_hostile.deflated_bomb(32))
    assert process_image(bomb, CONFIG).reason is Reason.NOT_DICOM
    assert read_whole(bomb).reason is Reason.NOT_DICOM

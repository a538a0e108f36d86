"""Objects that were made, or happen to be, against the reader: each has its reason, and the caller keeps its memory."""

import resource
import sys
import time
from pathlib import Path

import pytest

from sarc_ray import storage
from sarc_ray.errors import Reason
from sarc_ray.imaging import isolation
from sarc_ray.imaging.batch import prepare_rows
from sarc_ray.imaging.dicom import MAX_OBJECT_BYTES
from sarc_ray.imaging.isolation import ReadLimits, read_images
from sarc_ray.imaging.preprocess import PreprocessConfig
from tests.dicom_factory import make_dicom
from tests.dicom_hostile import deflated_bomb, jpeg_of_many_scans, long_texts, nested_sequences, wide_voi, zip_file
from tests.dicom_references import REFERENCES
from tests.engine import READ_LIMITS

PLAIN = PreprocessConfig(size_px=64, clahe_clip_limit=0.0, clahe_tiles=8, pixel_gate=False)
GOOD = make_dicom()


def write_objects(folder):
    """Objects under names that all end in .dcm, each with its reason."""
    expected = {"good.dcm": Reason.NONE, "missing.dcm": Reason.OBJECT_MISSING, "good.dcm/x.dcm": Reason.OBJECT_MISSING}
    for name, data, reason in (
        ("good.dcm", GOOD, Reason.NONE),
        ("empty.dcm", b"", Reason.NOT_DICOM),
        ("text.dcm", b"<html>404 not found</html>", Reason.NOT_DICOM),
        ("zip.dcm", zip_file(), Reason.NOT_DICOM),
        ("folder.dcm/inside.dcm", GOOD, Reason.NONE),
        ("odd [1]?*.dcm", GOOD, Reason.NONE),
    ):
        storage.write_bytes(storage.join(folder, name), data)
        expected[name] = reason
    return expected | {"folder.dcm": Reason.OBJECT_MISSING}


@pytest.mark.parametrize("store", ["local", "s3"])
def test_every_kind_of_object_has_its_reason(store, tmp_path, request):
    folder = str(tmp_path) if store == "local" else request.getfixturevalue("s3_url")
    expected = write_objects(folder)
    uris = [storage.join(folder, name) for name in expected]
    rows = prepare_rows(list(range(len(uris))), uris, PLAIN, READ_LIMITS).to_pylist()
    assert {name: row["reason"] for name, row in zip(expected, rows, strict=True)} == expected
    assert not any(row["retryable"] for row in rows)


def peak_bytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_gigabytes_are_not_fetched(tmp_path):
    with (tmp_path / "five-gigabytes.dcm").open("wb") as file:
        file.truncate(5 * 10**9)
    before = peak_bytes()
    row = prepare_rows([1], [str(tmp_path / "five-gigabytes.dcm")], PLAIN, READ_LIMITS).to_pylist()[0]
    assert (row["reason"], row["image_sha256"]) == (Reason.IMAGE_TOO_LARGE, None)
    assert peak_bytes() - before < 2 * MAX_OBJECT_BYTES


def test_no_more_than_the_limit_is_fetched_from_a_store(s3_url):
    uri = f"{s3_url}/large.dcm"
    storage.write_bytes(uri, bytes(MAX_OBJECT_BYTES + 1000))
    (found,) = storage.read_bounded([uri], 1_000_001)
    row = prepare_rows([1], [uri], PLAIN, READ_LIMITS).to_pylist()[0]
    storage.remove_tree(uri)
    assert len(found) == 1_000_001
    assert row["reason"] == Reason.IMAGE_TOO_LARGE


@pytest.mark.parametrize("store", ["local", "s3"])
def test_bounded_reads_give_beginnings(store, tmp_path, request):
    folder = str(tmp_path) if store == "local" else request.getfixturevalue("s3_url")
    uris = [storage.join(folder, name) for name in ("empty", "short", "missing", "long")]
    for uri, data in zip(uris, (b"", b"123", None, b"1234567"), strict=True):
        if data is not None:
            storage.write_bytes(uri, data)
    empty, short, missing, long = storage.read_bounded(uris, 5)
    assert (empty, short, long) == (b"", b"123", b"12345")
    assert storage.is_missing(missing)


def test_what_cannot_be_refused_beforehand_is_stopped():
    """A sequence that takes Python minutes, and a picture of nothing that takes libjpeg minutes."""
    limits = ReadLimits(seconds_per_image=1.0, mebibytes_per_image=1024)
    isolation.end_idle()
    for data in (wide_voi(2**20), jpeg_of_many_scans(400)):
        begin = time.monotonic()
        (stopped,) = read_images([data], PLAIN, limits)
        assert stopped.reason is Reason.DECODER_TIMEOUT
        assert time.monotonic() - begin < 60
        assert read_images([GOOD], PLAIN, READ_LIMITS)[0].reason is Reason.NONE


def test_bombs_are_refused_within_the_memory_of_one_image():
    found = read_images([deflated_bomb(170), nested_sequences(500_000), GOOD], PLAIN, READ_LIMITS)
    assert [result.reason for result in found] == [Reason.IMAGE_TOO_LARGE, Reason.DECODE_FAILED, Reason.NONE]
    (pid,) = isolation.idle_pids()
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    assert peak * 1024 < READ_LIMITS.mebibytes_per_image * 2**20


def test_a_header_text_never_fills_a_table():
    (result,) = read_images([long_texts()], PLAIN, READ_LIMITS)
    assert result.reason is Reason.NONE
    assert result.header.manufacturer == "A" * 64


def test_the_table_of_references_knows_the_hostile_ones():
    names = {reference.name for reference in REFERENCES}
    assert {"zero_bytes", "text", "zip", "nested_sequences", "claims_gigabytes", "jpeg2000_of_many_tiles"} <= names


@pytest.mark.slow
def test_damaged_files_each_have_one_outcome(monkeypatch):
    """A part of benchmarks/fuzz.py, whose full run is in docs/explanation/hostile-input.md."""
    import importlib.util

    path = Path(__file__).parents[2] / "benchmarks" / "fuzz.py"
    spec = importlib.util.spec_from_file_location("fuzz", path)
    fuzz = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "fuzz", fuzz)  # its dataclasses look for the module that they are in
    spec.loader.exec_module(fuzz)
    tally = fuzz.run(3300, seed=2)
    assert sum(tally.counts.values()) == 3300
    assert [finding for finding in tally.findings if finding[3] == Reason.INTERNAL_ERROR] == []
    assert tally.caller_growth_bytes < 64 * 2**20
    assert tally.child_peak_bytes < (256 + 128) * 2**20

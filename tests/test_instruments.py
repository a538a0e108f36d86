"""Seconds and memory of the workers: measured, carried along, and left out of what is sealed."""

import os
import time

import pyarrow as pa
import pytest

from sarc_ray import instruments
from sarc_ray.imaging.batch import IMAGE_SCHEMA, prepare_and_time, prepare_rows
from sarc_ray.imaging.preprocess import PreprocessConfig
from tests import dicom_factory
from tests.engine import READ_LIMITS

CONFIG = PreprocessConfig(size_px=32, clahe_clip_limit=2.0, clahe_tiles=4, pixel_gate=True)


def fail_after_a_moment(watch):
    with watch.part("decode"):
        time.sleep(0.02)
        raise ValueError("broken")


def test_a_stopwatch_adds_up_and_counts_what_fails():
    watch = instruments.Stopwatch()
    for _ in range(2):
        with watch.part("gate"):
            time.sleep(0.01)
    with pytest.raises(ValueError, match="broken"):
        fail_after_a_moment(watch)
    assert set(watch.seconds) == {"gate", "decode"}
    assert 0.02 <= watch.seconds["gate"] < 1.0
    assert watch.seconds["decode"] >= 0.02


def test_columns_are_added_carried_and_taken_away():
    table = pa.table({"row_id": pa.array([1, 2], pa.int64())})
    timed = instruments.with_seconds(table, {"fetch": 3.0, "decode": [0.1, 0.2]})
    assert timed["watch_seconds_fetch"].to_pylist() == [1.5, 1.5]
    assert timed["watch_seconds_decode"].to_pylist() == [0.1, 0.2]
    timed = instruments.with_peak(instruments.with_peak(timed, 7), 5)
    assert timed["watch_peak_bytes"].to_pylist() == [7, 7]
    other = instruments.with_carried(pa.table({"score": [0.1, 0.2]}), timed)
    assert other.column_names == ["score", *timed.column_names[1:]]
    assert instruments.without_instruments(timed).equals(table)
    assert instruments.with_seconds(table.slice(0, 0), {"fetch": 0.0}).num_rows == 0


def test_memory_is_told_in_bytes():
    mine = instruments.peak_bytes()
    assert 10 * 2**20 < mine < 2**40
    if os.path.exists("/proc/meminfo"):
        assert instruments.peak_bytes([os.getpid()]) > mine
        here = instruments.memory_here()
        assert 0 < here["used"] <= here["total"]
    assert instruments.peak_bytes([2**30]) >= mine  # a process that is gone


def test_what_each_image_took_is_known_and_changes_nothing(tmp_path):
    (tmp_path / "chest.dcm").write_bytes(dicom_factory.jpeg2000())
    (tmp_path / "text.dcm").write_bytes(b"no DICOM")
    uris = [str(tmp_path / name) for name in ("chest.dcm", "text.dcm", "absent.dcm")]
    timed = prepare_and_time([1, 2, 3], uris, CONFIG, READ_LIMITS)
    plain = prepare_rows([1, 2, 3], uris, CONFIG, READ_LIMITS)
    assert plain.schema.names == IMAGE_SCHEMA.names
    assert timed.select(IMAGE_SCHEMA.names).equals(plain)
    seconds = {part: timed[instruments.seconds_column(part)].to_pylist() for part in ("decode", "gate", "preprocess")}
    assert seconds["decode"][0] > seconds["decode"][1] >= 0
    assert [value > 0 for value in seconds["preprocess"]] == [True, False, False]
    assert [value > 0 for value in seconds["gate"]] == [True, False, False]
    assert [value > 0 for value in timed["watch_seconds_isolate"].to_pylist()] == [True, True, False]
    assert all(value > 0 for value in timed["watch_seconds_fetch"].to_pylist())
    assert timed["watch_fetched_bytes"].to_pylist() == [(tmp_path / "chest.dcm").stat().st_size, 8, 0]
    assert timed["watch_peak_bytes"][0].as_py() > instruments.peak_bytes()  # the reading process is counted too

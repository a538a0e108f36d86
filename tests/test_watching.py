"""What a run shows of itself: pace, progress file, summary. The engine is left out; parts are written by hand."""

import json

import numpy as np
import pyarrow as pa
import pytest

from sarc_ray import instruments, storage, tables, versions, watching
from sarc_ray.errors import CredentialsError, StorageError


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def part_of(row_ids, *, seconds=True):
    n = len(row_ids)
    table = pa.table(
        {
            "row_id": pa.array(row_ids, pa.int64()),
            "outcome": ["rejected" if number % 4 == 3 else "scored" for number in row_ids],
            "reason": ["not_dicom" if number % 4 == 3 else "" for number in row_ids],
            "retryable": [False] * n,
        }
    )
    if seconds:
        table = instruments.with_seconds(table, {"fetch": 0.5 * n, "decode": 0.25 * n})
        table = table.append_column(instruments.BYTES_COLUMN, pa.array([100] * n, pa.int64()))
        table = instruments.with_peak(table, 1000 + max(row_ids))
    return table


def write_part(uri, name, row_ids, **options):
    storage.write_table(storage.join(tables.parts_uri(uri, "v1"), name), part_of(row_ids, **options))


def progress_of(uri):
    return json.loads(storage.read_bytes(watching.progress_uri(uri)))


def test_the_pace_is_that_of_the_last_minute():
    clock = Clock()
    pace = watching.Pace(clock)
    assert pace.rows_per_second() is None
    for second in range(0, 300, 10):
        clock.now = float(second)
        pace.update(second * (1 if second < 150 else 3) - (0 if second < 150 else 300))
    assert pace.rows_per_second() == pytest.approx(3.0)
    assert pace.seconds_left(300) == pytest.approx(100.0)


def test_a_run_that_stands_still_promises_nothing():
    clock = Clock()
    pace = watching.Pace(clock)
    for second in range(0, 300, 10):
        clock.now = float(second)
        pace.update(min(second, 100))
    assert pace.rows_per_second() is None
    assert pace.seconds_left(10) is None


def test_progress_and_summary_of_a_run(tmp_path):
    uri = str(tmp_path / "scores")
    write_part(uri, "kept-0.parquet", [0, 1], seconds=False)  # taken over from the version before
    snapshots, counted = [], []
    watch = watching.Watch(
        uri,
        version="v1",
        run="weekend",
        n_rows=8,
        progress=lambda done, total: counted.append((done, total)),
        watcher=snapshots.append,
    )
    tally = watching.Tally()
    with watch.told():
        assert progress_of(uri)["state"] == "running"
        watch.look()
        assert (counted[-1], snapshots[-1].rows_per_second) == ((2, 8), None)
        write_part(uri, "a.parquet", [2, 3, 4])
        (tmp_path / "scores" / "work" / "v1" / "parts" / "b.parquet").write_bytes(b"PAR1 half writt")
        watch.look()
        assert snapshots[-1].outcomes == {"scored": 4, "rejected": 1}
        assert snapshots[-1].rows_per_second > 0
        write_part(uri, "b.parquet", [5, 6, 7])
        watch.finish_looking()
        watch.write("sealing")
        now = progress_of(uri)
        assert (now["state"], now["rows_done"], now["rows_of_this_run"], now["rows"]) == ("sealing", 8, 6, 8)
        lineage = {"run_id": "weekend-1", "model_id": "m"}
        tables.seal(
            uri,
            version="v1",
            expected_row_ids=np.arange(8),
            lineage=lineage,
            guard=lambda: watch.summarise(tally, lineage=lineage, n_taken_over=2),
            passing=tally.strip,
        )
    assert counted[-1] == (8, 8)
    sealed = tables.read(uri)
    assert sealed.columns.tolist() == ["row_id", "outcome", "reason", "retryable"]
    ended = progress_of(uri)
    assert (ended["state"], ended["outcomes"], ended["seconds_left"]) == ("finished", {"scored": 6, "rejected": 2}, 0.0)
    assert (ended["run"], ended["error"], ended["reasons"]) == ("weekend", None, {"not_dicom": 2})
    assert ended["memory"]["largest_worker_peak_bytes"] == 1007
    assert ended["memory"]["driver_peak_bytes"] > 2**20
    summary = storage.read_json(watching.summary_uri(uri, tables.read_pointer(uri).version))
    assert (summary["rows"], summary["rows_taken_over"], summary["rows_of_this_run"]) == (8, 2, 6)
    assert (summary["outcomes"], summary["reasons"]) == (ended["outcomes"], ended["reasons"])
    assert (summary["rows_timed"], summary["fetched_bytes"]) == (6, 600)
    assert summary["parts"]["fetch"] == {
        "worker_seconds": 3.0,
        "seconds_per_row": 0.5,
        "rows_per_worker_second": 2.0,
    }
    assert summary["lineage"]["model_id"] == "m"
    assert summary["lineage"]["versions"] == versions.installed_versions()
    assert summary["lineage"]["git_commit"] == versions.git_commit()


def test_parts_are_read_side_by_side_and_what_fails_is_read_next_time(tmp_path, monkeypatch):
    uri, clock, read_many = str(tmp_path), Clock(), storage.read_many
    for number in range(130):
        write_part(uri, f"{number:03d}.parquet", [number])
    asked, written = [], []

    def read_slowly(uris):
        asked.append(len(uris))
        clock.now += 6.0
        failing = {0} if len(asked) == 1 else set()
        return [TimeoutError("slow") if k in failing else data for k, data in enumerate(read_many(uris))]

    monkeypatch.setattr(watching.time, "monotonic", clock)
    monkeypatch.setattr(storage, "read_many", read_slowly)
    monkeypatch.setattr(storage, "write_json", lambda uri, value: written.append(value["rows_done"]))
    watch = watching.Watch(uri, version="v1", run="r", n_rows=130)
    watch.look()
    assert asked == [64, 64, 2]
    assert written == [63, 127, 129]  # the file stays fresh between two chunks
    watch.look()
    assert asked[3:] == [1]
    assert watch.snapshot().done == 130


def test_credentials_that_expire_while_looking_are_for_the_writers_to_tell(tmp_path, monkeypatch):
    uri = str(tmp_path)
    write_part(uri, "a.parquet", [0, 1])

    def refuse(uris):
        raise CredentialsError("renew them")

    watch = watching.Watch(uri, version="v1", run="r", n_rows=2)
    with monkeypatch.context() as patched:
        patched.setattr(storage, "read_many", refuse)
        watch.look()
        assert watch.snapshot().done == 0
    watch.look()
    assert watch.snapshot().done == 2


def test_the_progress_file_stays_fresh_between_two_looks(tmp_path, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(watching.time, "monotonic", clock)
    watch = watching.Watch(str(tmp_path), version="v1", run="r", n_rows=3)
    written = []
    monkeypatch.setattr(storage, "write_json", lambda uri, value: written.append(value["state"]))
    with watch.told():
        for second in range(1, 12):
            clock.now = float(second)
            watch.beat()
    assert written == ["running", "running", "running", "finished"]  # at 0, 5 and 10 s


def test_what_is_shown_in_a_line():
    now = watching.Snapshot(
        done=447,
        total=500,
        outcomes={"rejected": 7, "scored": 1440},
        rows_per_second=92.125,
        seconds_left=3725.2,
        memory={"used": 2**30, "total": 4 * 2**30},
    )
    assert now.describe() == "scored 1,440, rejected 7; 92.1/s, 1:02:05 left; memory 1.0 of 4.0 GiB here"
    nothing = watching.Snapshot(done=0, total=1, outcomes={}, rows_per_second=None, seconds_left=None, memory={})
    assert nothing.describe() == ""


@pytest.mark.parametrize(
    ("error", "state"), [(StorageError("s3://bucket/secret.dcm: gone"), "failed"), (KeyboardInterrupt(), "interrupted")]
)
def test_an_end_before_the_end_is_told_without_its_message(tmp_path, error, state):
    watch = watching.Watch(str(tmp_path), version="v1", run="r", n_rows=3)
    with pytest.raises(type(error)), watch.told():
        raise error
    found = progress_of(str(tmp_path))
    assert (found["state"], found["error"]) == (state, type(error).__name__)
    assert "secret" not in storage.read_text(watching.progress_uri(str(tmp_path)))


def test_a_store_that_refuses_the_progress_file_ends_no_run(tmp_path, monkeypatch):
    def refuse(uri, value):
        raise StorageError("no space")

    monkeypatch.setattr(storage, "write_json", refuse)
    watch = watching.Watch(str(tmp_path), version="v1", run="r", n_rows=3)
    done = []
    with watch.told():
        done.append("work")
    assert done == ["work"]
    assert not storage.exists(watching.progress_uri(str(tmp_path)))


def test_a_commit_is_told_of_a_checkout_alone(tmp_path, monkeypatch):
    found = versions.git_commit()
    assert found is None or len(found.rstrip("+")) == 40
    monkeypatch.setattr(versions, "__file__", str(tmp_path / "site-packages" / "sarc_ray" / "versions.py"))
    versions.git_commit.cache_clear()
    try:
        assert versions.git_commit() is None
    finally:
        versions.git_commit.cache_clear()

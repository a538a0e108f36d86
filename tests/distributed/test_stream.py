"""What a second run on a table does; the engine itself is left out, its maps are called directly."""

import io

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from sarc_ray import storage, table_lock, tables
from sarc_ray.distributed import stream
from sarc_ray.errors import CredentialsError, StorageError, TableBusyError
from sarc_ray.table_reuse import RowInputs, row_hashes
from tests.engine import engine_config


class Work:
    """Stands for Ray Data: writes an outcome for each row of the input, and remembers which rows it was given."""

    def __init__(self, monkeypatch):
        self.failing = ()
        self.interrupt_after = None
        self.seen = []
        monkeypatch.setattr(stream, "_stream", self.run)

    def run(self, uri, version, *, build, engine, n_rows, progress):
        rows = pq.read_table(io.BytesIO(storage.read_bytes(tables.input_uri(uri, version)))).to_pandas()
        self.seen.append(rows["row_id"].tolist())
        part = pd.DataFrame(
            {
                "row_id": rows["row_id"],
                "outcome": "scored",
                "age_years": rows["age_years"],
                "retryable": rows["row_id"].isin(self.failing),
            }
        )
        storage.write_table(storage.join(tables.parts_uri(uri, version), "0.parquet"), part.head(self.interrupt_after))
        if self.interrupt_after is not None:
            raise KeyboardInterrupt


@pytest.fixture
def work(monkeypatch):
    return Work(monkeypatch)


def manifest(row_ids, age=50.0):
    return pd.DataFrame({"row_id": np.array(row_ids, dtype=np.int64), "age_years": age})


def score(rows, uri, *, version, recipe="bundle-a", retry=False):
    inputs = RowInputs(recipe=recipe, row_id_N=rows["row_id"].to_numpy(), hash_N=row_hashes(rows))
    return stream.stream_to_table(
        rows,
        uri,
        build=lambda dataset: dataset,
        engine=engine_config(),
        version=version,
        lineage={"run_id": "r"},
        inputs=inputs,
        retry=retry,
    )


def test_a_grown_manifest_costs_its_new_rows_alone(work, tmp_path):
    uri = str(tmp_path)
    score(manifest([1, 2]), uri, version="v1")
    pointer = score(manifest([1, 2, 3]), uri, version="v2")
    assert work.seen == [[1, 2], [3]]
    assert (pointer.version, pointer.n_rows, pointer.lineage["n_taken_over"]) == ("v2", 3, 2)
    assert score(manifest([1, 2, 3]), uri, version="v2") == pointer
    assert len(work.seen) == 2
    assert not storage.exists(table_lock.lock_uri(uri))


def test_a_manifest_that_only_shrank_costs_nothing(work, tmp_path):
    uri = str(tmp_path)
    score(manifest([1, 2]), uri, version="v1")
    assert score(manifest([2]), uri, version="v2").n_rows == 1
    assert work.seen == [[1, 2]]


def test_another_bundle_scores_all_rows_anew(work, tmp_path):
    uri = str(tmp_path)
    score(manifest([1, 2]), uri, version="v1")
    assert score(manifest([1, 2]), uri, version="w1", recipe="bundle-b").lineage["n_taken_over"] == 0
    assert work.seen == [[1, 2], [1, 2]]


def test_an_interrupted_run_on_a_grown_manifest_gives_the_table_of_an_undisturbed_one(work, tmp_path):
    undisturbed, disturbed = str(tmp_path / "a"), str(tmp_path / "b")
    for uri in (undisturbed, disturbed):
        score(manifest([1, 2]), uri, version="v1")
    grown = pd.concat([manifest([1]), manifest([2], age=60.0), manifest([3, 4])], ignore_index=True)
    expected = score(grown, undisturbed, version="v2")
    work.interrupt_after = 1
    with pytest.raises(KeyboardInterrupt):
        score(grown, disturbed, version="v2")
    assert tables.read_pointer(disturbed).version == "v1"
    work.interrupt_after = None
    assert score(grown, disturbed, version="v2") == expected
    pd.testing.assert_frame_equal(tables.read(disturbed), tables.read(undisturbed))


def test_a_retry_reads_retryable_rows_alone(work, tmp_path):
    uri = str(tmp_path)
    work.failing = (2,)
    score(manifest([1, 2]), uri, version="v1")
    work.failing = ()
    pointer = score(manifest([1, 2, 3]), uri, version="v2", retry=True)
    assert work.seen == [[1, 2], [2]]
    assert (pointer.n_rows, pointer.n_retryable) == (2, 0)
    assert score(manifest([1, 2, 3]), uri, version="v2", retry=True) == pointer
    assert score(manifest([1, 2, 3]), uri, version="v2").n_rows == 3
    assert work.seen[2:] == [[3]]


def test_the_second_of_two_runs_is_refused_and_leaves_the_first_ones_work_alone(work, tmp_path):
    uri = str(tmp_path)
    with table_lock.hold(uri, run="weekend"):
        storage.write_bytes(tables.input_uri(uri, "v0"), b"of the first run")
        with pytest.raises(TableBusyError, match=r"the run 'weekend' on .* is writing this table"):
            score(manifest([1]), uri, version="v1")
        assert storage.read_bytes(tables.input_uri(uri, "v0")) == b"of the first run"
    assert work.seen == []


def test_a_finished_table_is_read_beside_a_run_that_writes_the_next_one(work, tmp_path):
    uri = str(tmp_path)
    pointer = score(manifest([1]), uri, version="v1")
    with table_lock.hold(uri, run="weekend"):
        assert score(manifest([1]), uri, version="v1") == pointer


def test_a_run_that_was_taken_over_seals_nothing(work, tmp_path, monkeypatch):
    uri = str(tmp_path)
    run = work.run

    def run_and_lose(*arguments, **named):
        run(*arguments, **named)
        storage.remove_tree(table_lock.lock_uri(uri))

    monkeypatch.setattr(stream, "_stream", run_and_lose)
    with pytest.raises(TableBusyError, match="nothing was sealed"):
        score(manifest([1]), uri, version="v1")
    assert tables.read_pointer(uri) is None


class EngineError(Exception):
    """As Ray wraps what a worker raised."""

    def __init__(self, cause):
        super().__init__("a traceback of many lines")
        self.cause = cause


@pytest.mark.parametrize(
    ("cause", "kind", "told"),
    [
        (CredentialsError("renew them"), CredentialsError, r"^renew them$"),
        (PermissionError("the token has expired"), CredentialsError, r"^t: cannot be written, because the credentials"),
        (OSError(28, "No space left on device"), StorageError, r"^t: cannot be written \(.*No space left.*free space"),
        (PermissionError("Access Denied"), StorageError, r"^t: cannot be written \(Access Denied\)"),
        (ZeroDivisionError("a bug"), EngineError, "a traceback of many lines"),
    ],
)
def test_what_failed_in_a_worker_is_told_in_our_words_and_bugs_keep_their_traceback(cause, kind, told):
    with pytest.raises(kind, match=told), stream._failures_told("t"):
        raise EngineError(cause)

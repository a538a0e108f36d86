import numpy as np
import pandas as pd
import pytest

from sarc_ray import storage, tables
from sarc_ray.errors import SchemaVersionError, StorageError


def write_part(uri, name, row_ids, value=0.0, version="v1"):
    frame = pd.DataFrame(
        {"row_id": np.array(row_ids, dtype=np.int64), "outcome": "scored", "retryable": False, "x": value}
    )
    storage.write_table(storage.join(tables.parts_uri(uri, version), f"{name}.parquet"), frame)


def test_seals_each_row_once_and_moves_the_pointer_last(tmp_path):
    uri = str(tmp_path / "table")
    write_part(uri, "a", [3, 1])
    write_part(uri, "b", [1, 2])  # row 1 was written twice, as a killed task leaves it
    assert tables.read_pointer(uri) is None
    pointer = tables.seal(uri, version="v1", expected_row_ids=np.array([1, 2, 3]), lineage={"run_id": "r"})
    assert (pointer.n_rows, pointer.counts) == (3, {"scored": 3})
    assert tables.read(uri)["row_id"].tolist() == [1, 2, 3]
    assert storage.list_files(tables.work_uri(uri)) == []


@pytest.mark.parametrize(("rows", "message"), [([1, 2], "1 of 3 manifest rows"), ([1, 2, 3, 4], "1 outcomes have")])
def test_does_not_seal_what_does_not_reconcile(tmp_path, rows, message):
    uri = str(tmp_path / "table")
    write_part(uri, "a", rows)
    with pytest.raises(StorageError, match=message):
        tables.seal(uri, version="v1", expected_row_ids=np.array([1, 2, 3]), lineage={})
    assert tables.read_pointer(uri) is None


def test_a_reader_sees_the_old_table_until_the_new_one_is_whole(tmp_path):
    uri = str(tmp_path / "table")
    write_part(uri, "a", [1], value=1.0)
    tables.seal(uri, version="v1", expected_row_ids=np.array([1]), lineage={})
    write_part(uri, "a", [1], value=2.0, version="v2")
    assert tables.read(uri)["x"].tolist() == [1.0]
    tables.seal(uri, version="v2", expected_row_ids=np.array([1]), lineage={})
    assert tables.read(uri)["x"].tolist() == [2.0]


def test_refuses_a_newer_schema_and_a_table_that_is_not_there(tmp_path):
    uri = str(tmp_path / "table")
    with pytest.raises(StorageError, match="no finished table"):
        tables.read(uri)
    write_part(uri, "a", [1])
    tables.seal(uri, version="v1", expected_row_ids=np.array([1]), lineage={})
    pointer_uri = storage.join(uri, "current.json")
    storage.write_json(pointer_uri, storage.read_json(pointer_uri) | {"schema_version": 99})
    with pytest.raises(SchemaVersionError, match="schema version 99"):
        tables.read(uri)


def test_a_pointer_without_a_fact_is_refused_by_its_name(tmp_path):
    storage.write_json(f"{tmp_path}/current.json", {"schema_version": 1, "version": "a", "files": [], "n_rows": 0})
    with pytest.raises(SchemaVersionError, match="has no sha256, n_retryable, counts, lineage; an earlier release"):
        tables.read_pointer(str(tmp_path))


@pytest.mark.parametrize("content", [[], {}, {"schema_version": "1"}, "x"])
def test_a_pointer_that_is_none_is_refused(tmp_path, content):
    storage.write_json(f"{tmp_path}/current.json", content)
    with pytest.raises(StorageError, match=r"current\.json: no pointer of a sealed table"):
        tables.read_pointer(str(tmp_path))


def seal_rows(uri, version, row_ids, **changes):
    write_part(uri, "a", row_ids, version=version)
    arguments = {"expected_row_ids": np.array(row_ids), "lineage": {}} | changes
    return tables.seal(uri, version=version, **arguments)


def test_a_name_is_given_once_and_an_interrupted_version_goes_on_under_its_own(tmp_path):
    uri = str(tmp_path / "table")
    assert tables.version_to_write(uri, "v") == "v"
    seal_rows(uri, "v", [1])
    assert tables.version_to_write(uri, "v") == "v+1"
    seal_rows(uri, "w", [1])
    assert tables.version_to_write(uri, "v") == "v+1"
    assert tables.base_of("v+1") == "v"
    storage.write_bytes(tables.input_uri(uri, "v+1"), b"rows")
    storage.write_bytes(storage.join(uri, "versions/v+1/part-00000.parquet"), b"half a seal")
    assert tables.version_to_write(uri, "v") == "v+1"


def test_a_seal_removes_what_an_interrupted_one_left_and_never_touches_a_sealed_version(tmp_path):
    uri = str(tmp_path / "table")
    storage.write_bytes(storage.join(uri, "versions/v1/part-00007.parquet"), b"half a seal")
    seal_rows(uri, "v1", [1])
    assert [path.name for path in (tmp_path / "table/versions/v1").iterdir()] == ["part-00000.parquet"]
    with pytest.raises(ValueError, match="v1 is sealed and immutable"):
        seal_rows(uri, "v1", [1])


def test_parts_of_another_version_never_mix_with_those_of_this_one(tmp_path):
    uri = str(tmp_path / "table")
    write_part(uri, "late", [1, 2], value=9.0, version="v0")  # from a run that was taken for dead
    seal_rows(uri, "v1", [1])
    assert tables.read(uri)["x"].tolist() == [0.0]


def test_what_the_guard_raises_keeps_the_old_table(tmp_path):
    uri = str(tmp_path / "table")
    seal_rows(uri, "v1", [1])

    def refuse():
        raise StorageError("taken over")

    with pytest.raises(StorageError, match="taken over"):
        seal_rows(uri, "v2", [1, 2], guard=refuse)
    assert tables.read_pointer(uri).version == "v1"
    assert tables.read(uri)["row_id"].tolist() == [1]


def test_a_part_that_breaks_off_is_left_out_and_its_rows_are_asked_for(tmp_path, caplog):
    uri = str(tmp_path / "table")
    write_part(uri, "a", [1, 2])
    write_part(uri, "b", [3])
    half = storage.join(tables.parts_uri(uri, "v1"), "b.parquet")
    storage.write_bytes(half, storage.read_bytes(half)[:-20])
    with pytest.raises(StorageError, match="1 of 3 manifest rows"):
        tables.seal(uri, version="v1", expected_row_ids=np.array([1, 2, 3]), lineage={})
    assert "left out, since it breaks off" in caplog.text
    write_part(uri, "c", [3])
    assert tables.seal(uri, version="v1", expected_row_ids=np.array([1, 2, 3]), lineage={}).n_rows == 3


def test_a_file_that_is_not_what_was_sealed_is_not_read(tmp_path):
    uri = str(tmp_path / "table")
    pointer = seal_rows(uri, "v1", [1, 2])
    path = tmp_path / "table" / pointer.files[0]
    storage.write_table(str(path), tables.read(uri).assign(x=5.0))
    with pytest.raises(StorageError, match=f"{pointer.files[0]}: damaged or altered since it was sealed: expected sha"):
        tables.read(uri)


def test_rows_that_came_twice_or_that_nobody_expects(tmp_path):
    """Whatever the order of the parts and the sign of the ids; above all expected ones, between them and below."""
    uri = str(tmp_path / "table")
    write_part(uri, "a", [5, -7, 5])
    write_part(uri, "b", [3, -7], value=9.0)
    pointer = tables.seal(uri, version="v1", expected_row_ids=np.array([5, 3, -7]), lineage={})
    assert pointer.n_rows == 3
    assert tables.read(uri)[["row_id", "x"]].to_numpy().tolist() == [[-7, 0.0], [3, 9.0], [5, 0.0]]
    for strange in (-9, 0, 4, 99):
        write_part(uri, "a", [5, 3, -7, strange, strange], version="v2")
        with pytest.raises(StorageError, match="0 of 3 manifest rows have no outcome and 1 outcomes have"):
            tables.seal(uri, version="v2", expected_row_ids=np.array([5, 3, -7]), lineage={})
    write_part(uri, "a", [1], version="v3")
    with pytest.raises(StorageError, match="0 of 0 manifest rows have no outcome and 1 outcomes have"):
        tables.seal(uri, version="v3", expected_row_ids=np.array([], dtype=np.int64), lineage={})

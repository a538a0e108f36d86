import numpy as np
import pandas as pd
import pytest

from sarc_ray import storage, tables
from sarc_ray.errors import SchemaVersionError, StorageError


def write_part(uri, name, row_ids, value=0.0):
    frame = pd.DataFrame(
        {"row_id": np.array(row_ids, dtype=np.int64), "outcome": "scored", "retryable": False, "x": value}
    )
    storage.write_table(storage.join(tables.work_uri(uri), "parts", f"{name}.parquet"), frame)


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
    write_part(uri, "a", [1], value=2.0)
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

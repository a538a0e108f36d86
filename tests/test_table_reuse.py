"""What is taken over from a sealed table, and what is worked on again."""

import numpy as np
import pandas as pd
import pytest

from sarc_ray import storage, table_reuse, tables
from sarc_ray.errors import StorageError
from sarc_ray.table_reuse import RowInputs, plan_all, plan_retry, row_hashes


def manifest(row_ids, age=50.0):
    return pd.DataFrame({"row_id": np.array(row_ids, dtype=np.int64), "age_years": age, "site": "north"})


def inputs_of(rows, recipe="bundle-a"):
    return RowInputs(recipe=recipe, row_id_N=rows["row_id"].to_numpy(), hash_N=row_hashes(rows))


def write(uri, rows, *, version, recipe="bundle-a", retryable=(), attempt="first"):
    """What a run does, without the engine: plan, work on what is to do, seal. Returns the plan."""
    inputs = inputs_of(rows, recipe)
    plan = plan_all(uri, inputs.row_id_N, version=version, inputs=inputs)
    return carry_out(uri, plan, retryable=retryable, attempt=attempt)


def carry_out(uri, plan, *, retryable=(), attempt="first"):
    name = tables.version_to_write(uri, plan.base)
    table_reuse.copy_rows(uri, plan.kept, version=name)
    part = pd.DataFrame(
        {"row_id": plan.todo, "outcome": attempt, "retryable": np.isin(plan.todo, np.array(retryable, dtype=np.int64))}
    )
    storage.write_table(storage.join(tables.parts_uri(uri, name), "part.parquet"), part)
    table_reuse.write_inputs(uri, name, plan.inputs)
    tables.seal(uri, version=name, expected_row_ids=plan.expected, lineage={"recipe": plan.inputs.recipe})
    return plan


@pytest.fixture(params=["local", "s3"])
def uri(request, tmp_path):
    return str(tmp_path / "table") if request.param == "local" else request.getfixturevalue("s3_url")


def test_the_first_run_works_on_all_rows(uri):
    plan = write(uri, manifest([3, 1, 2]), version="v1")
    assert sorted(plan.todo) == sorted(plan.expected) == [1, 2, 3]
    assert len(plan.kept) == 0


def test_of_a_grown_manifest_only_new_changed_and_retryable_rows_are_worked_on(uri):
    write(uri, manifest([1, 2, 3, 4]), version="v1", retryable=[4])
    grown = manifest([5, 1, 2, 3, 4])
    grown.loc[grown["row_id"] == 2, "age_years"] = 51.0
    plan = write(uri, grown, version="v2", attempt="second")
    assert plan.todo.tolist() == [2, 4, 5]
    table = tables.read(uri)
    assert table["row_id"].tolist() == [1, 2, 3, 4, 5]
    assert table["outcome"].tolist() == ["first", "second", "first", "second", "second"]
    assert tables.read_pointer(uri).version == "v2"


def test_a_missing_cell_that_stays_missing_is_no_change(uri):
    rows = manifest([1, 2])
    rows.loc[0, ["age_years", "site"]] = [np.nan, None]
    write(uri, rows, version="v1")
    again = pd.concat([rows, manifest([3])], ignore_index=True)
    assert write(uri, again, version="v2").todo.tolist() == [3]


def test_rows_that_left_the_manifest_leave_the_table_and_come_back_anew(uri):
    write(uri, manifest([1, 2, 3]), version="v1")
    plan = write(uri, manifest([1, 3]), version="v2", attempt="second")
    assert (plan.todo.tolist(), tables.read(uri)["row_id"].tolist()) == ([], [1, 3])
    assert write(uri, manifest([1, 2, 3]), version="v1", attempt="third").todo.tolist() == [2]
    assert tables.read_pointer(uri).version == "v1+1"  # versions/v1 is immutable, and another reader may be at it
    assert tables.read(uri)["outcome"].tolist() == ["first", "third", "first"]


@pytest.mark.parametrize("lose", ["recipe", "inputs"])
def test_another_bundle_or_an_unknown_past_takes_nothing_over(uri, lose):
    write(uri, manifest([1, 2]), version="v1")
    if lose == "inputs":
        storage.remove_tree(storage.join(uri, "inputs"))
    recipe = "bundle-b" if lose == "recipe" else "bundle-a"
    plan = write(uri, manifest([1, 2]), version="v2", recipe=recipe, attempt="second")
    assert plan.todo.tolist() == [1, 2]
    assert tables.read(uri)["outcome"].tolist() == ["second", "second"]


def test_without_inputs_only_the_same_content_is_taken_over(uri):
    write(uri, manifest([1, 2]), version="v1", retryable=[2])
    ids = np.array([1, 2])
    assert plan_all(uri, ids, version="v1", inputs=None).todo.tolist() == [2]
    assert plan_all(uri, ids, version="v2", inputs=None).todo.tolist() == [1, 2]


def test_a_retry_touches_retryable_rows_alone_whatever_the_manifest_has_become(uri):
    write(uri, manifest([1, 2, 3]), version="v1", retryable=[2, 3])
    grown = inputs_of(manifest([1, 2, 4], age=60.0))  # 3 has left it, 4 is new, and all ages are others
    plan = plan_retry(uri, grown.row_id_N, version="v2", inputs=grown)
    assert (plan.todo.tolist(), plan.kept.tolist()) == ([2], [1, 3])
    assert plan.base.startswith("v1-")
    carry_out(uri, plan, attempt="second")
    assert tables.read(uri)["outcome"].tolist() == ["first", "second", "first"]
    assert tables.read_pointer(uri).n_retryable == 1
    # What was read with the new age is kept by the next run on the new manifest, and only that.
    assert write(uri, manifest([1, 2, 4], age=60.0), version="v2").todo.tolist() == [1, 4]


def test_a_retry_of_the_same_manifest_is_the_next_version_of_the_same_content(uri):
    rows = manifest([1, 2, 3])
    write(uri, rows, version="v1", retryable=[2])
    plan = plan_retry(uri, rows["row_id"].to_numpy(), version="v1", inputs=inputs_of(rows))
    carry_out(uri, plan, attempt="second")
    assert plan.todo.tolist() == [2]
    assert tables.read_pointer(uri).version == "v1+1"


def test_a_retry_needs_a_table_of_the_same_bundle(uri):
    rows = manifest([1, 2])
    with pytest.raises(StorageError, match="no finished table whose rows"):
        plan_retry(uri, rows["row_id"].to_numpy(), version="v1", inputs=inputs_of(rows))
    write(uri, rows, version="v1", retryable=[2])
    with pytest.raises(StorageError, match="another bundle, other settings or another release"):
        plan_retry(uri, rows["row_id"].to_numpy(), version="v2", inputs=inputs_of(rows, "bundle-b"))


def test_large_hashes_survive_the_round_trip(uri):
    hashes = np.array([0, 2**64 - 1], dtype=np.uint64)
    write(uri, manifest([1, 2]), version="v1")
    table_reuse.write_inputs(uri, "v1", RowInputs(recipe="bundle-a", row_id_N=np.array([1, 2]), hash_N=hashes))
    same = RowInputs(recipe="bundle-a", row_id_N=np.array([2, 1]), hash_N=hashes[::-1])
    assert plan_all(uri, same.row_id_N, version="v2", inputs=same).kept.tolist() == [1, 2]

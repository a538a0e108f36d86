"""A reference file: counts only, none of them small, and the same comparison as from the counts themselves."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from sarc_ray import storage
from sarc_ray.drift.counting import count_groups, make_binnings
from sarc_ray.drift.snapshot import Snapshot, read_snapshot, to_keep, write_snapshot
from sarc_ray.drift.variables import variables_of
from sarc_ray.errors import ConfigError, SchemaVersionError
from tests.drift import population


def take(frame, *, at_least=10):
    table = population.to_arrow(frame)
    binnings = make_binnings(table, variables_of(table.schema), grid_cells=200, at_least=at_least)
    source = {"version": "v1", "sha256": "0" * 64, "model_id": population.MODEL}
    return Snapshot(binnings=binnings, groups=count_groups(table, binnings), source=source, multiple_of=1)


@pytest.fixture(scope="module")
def counted():
    frame = population.draw(np.random.default_rng(5), 6000, sites=("north", "south", "east"))
    frame.loc[:3, "bmi_kg_m2"] = np.nan
    few = population.draw(np.random.default_rng(6), 40, sites=("tiny",), first=10**6)
    return take(pd.concat([frame, few], ignore_index=True))


@pytest.fixture(scope="module")
def kept(counted):
    return to_keep(counted, multiple_of=10, min_patients=200)


def test_every_number_of_a_kept_snapshot_is_a_multiple(kept, tmp_path):
    write_snapshot(str(tmp_path / "reference.json"), kept)
    plain = json.loads((tmp_path / "reference.json").read_text())
    for group in plain["groups"]:
        numbers = [*group["rows"].values(), *group["patients"].values(), *group["patients_effective"].values()]
        numbers += [count for counts in group["counts"].values() for count in counts]
        assert all(number % 10 == 0 and number >= 0 for number in numbers)


def test_no_patient_and_no_small_group_is_in_the_file(counted, kept, tmp_path):
    write_snapshot(str(tmp_path / "reference.json"), kept)
    text = (tmp_path / "reference.json").read_text()
    assert "k0000" not in text
    assert "tiny" in [one.level for one in counted.groups]
    assert "tiny" not in [one.level for one in kept.groups]
    assert "month" not in {one.grouping for one in kept.groups}
    assert {one.level for one in kept.groups if one.grouping == "site"} == {"north", "south", "east"}


def test_rounding_moves_no_share_by_more_than_it_says(counted, kept):
    """Half the multiple over n, for the distribution function of a number and the share of a level."""
    for group in kept.groups:
        exact = counted.group(group.grouping, group.level)
        for name, counts in group.cells.items():
            before, after = exact.cells[name][:-1], counts[:-1]
            if counted.binnings[name].kind == "number":
                before, after = before.cumsum(), after.cumsum()
            assert np.abs(before - after).max() <= 5, name


def test_a_snapshot_comes_back_as_it_was_written(kept, tmp_path):
    uri = str(tmp_path / "reference.json")
    write_snapshot(uri, kept)
    found = read_snapshot(uri)
    assert found.binnings == kept.binnings
    assert (found.source, found.multiple_of) == (kept.source, 10)
    for one, other in zip(found.groups, kept.groups, strict=True):
        assert one.n_effective == other.n_effective
        assert (one.grouping, one.level, one.n_rows, one.n_patients) == (
            other.grouping,
            other.level,
            other.n_rows,
            other.n_patients,
        )
        assert {name: cells.tolist() for name, cells in one.cells.items()} == {
            name: cells.tolist() for name, cells in other.cells.items()
        }


def test_exact_numbers_of_the_lineage_stay_at_home(counted):
    source = {**counted.source, "lineage": {"run_id": "run-1", "n_taken_over": 5999, "recipe": "ab"}}
    found = to_keep(replace(counted, source=source), multiple_of=10, min_patients=200).source
    assert found == {**counted.source, "lineage": {"run_id": "run-1", "recipe": "ab"}}


def test_rounding_can_be_switched_off(counted):
    kept = to_keep(counted, multiple_of=0, min_patients=200)
    assert kept.multiple_of == 1
    assert kept.whole.cells["score"].tolist() == counted.whole.cells["score"].tolist()


def test_what_is_no_reference_is_refused(kept, tmp_path):
    uri = str(tmp_path / "x.json")
    with pytest.raises(ConfigError, match=r"name a file that ends in \.json"):
        write_snapshot(str(tmp_path / "x.csv"), kept)
    storage.write_json(uri, {"kind": "another"})
    with pytest.raises(ConfigError, match="is no reference; make one with"):
        read_snapshot(uri)
    write_snapshot(uri, kept)
    content = storage.read_json(uri)
    storage.write_json(uri, {**content, "schema_version": 99})
    with pytest.raises(SchemaVersionError, match="schema version 99"):
        read_snapshot(uri)
    damaged = [{name: value for name, value in content.items() if name != "groups"}, {**content, "groups": []}]
    whole = content["groups"][0]
    damaged.append({**content, "groups": [{**whole, "counts": {**whole["counts"], "score": [10, 20]}}]})
    for one in damaged:
        storage.write_json(uri, one)
        with pytest.raises(ConfigError, match="is damaged"):
            read_snapshot(uri)

"""Counts of a score table are those of pandas."""

import numpy as np
import pytest

from sarc_ray.drift.counting import count_groups, make_binnings
from sarc_ray.drift.variables import variables_of
from tests.drift import population


@pytest.fixture(scope="module")
def counted():
    frame = population.draw(np.random.default_rng(1), 3000)
    table = population.to_arrow(frame)
    binnings = make_binnings(table, variables_of(table.schema), grid_cells=50, at_least=10)
    return frame, binnings, {(one.grouping, one.level): one for one in count_groups(table, binnings)}


def test_what_is_watched():
    found = {
        one.name: one for one in variables_of(population.to_arrow(population.draw(np.random.default_rng(0), 9)).schema)
    }
    assert set(found) == {
        *("score", "flag", "alm_kg_mu", "crt_s_mu", "alm_kg_uncertainty_pct", "crt_s_uncertainty_pct", "ood_distance"),
        *("reason", "gate_flags", "age_years", "sex", "bmi_kg_m2", "view", "site", "device"),
    }
    assert {name for name, one in found.items() if one.of_model} == {
        *("score", "flag", "alm_kg_mu", "crt_s_mu", "alm_kg_uncertainty_pct", "crt_s_uncertainty_pct", "ood_distance")
    }
    assert {one.population for one in found.values() if one.of_model} == {"scored"}


def test_rows_and_patients_of_each_group(counted):
    frame, _, groups = counted
    assert set(groups) == {
        ("all", "all"),
        *(("month", f"2025-0{k}") for k in (1, 2, 3, 4)),
        *((g, s) for g, s in (("site", "north"), ("site", "south"), ("device", "north-dr"), ("device", "south-dr"))),
    }
    for (grouping, level), group in groups.items():
        own = frame if grouping == "all" else frame[frame[{"month": "acquired_month"}.get(grouping, grouping)] == level]
        scored = own[own["outcome"] == "scored"]
        assert group.n_rows == {"all": len(own), "scored": len(scored)}
        assert group.n_patients == {"all": own["patient_key"].nunique(), "scored": scored["patient_key"].nunique()}
        assert group.n_patients["all"] < group.n_rows["all"]


def test_patients_with_more_rows_are_worth_fewer_patients_of_one_row():
    frame = population.draw(np.random.default_rng(4), 12, months=("2025-01",), sites=("north",))
    frame["patient_key"] = ["a"] * 9 + ["b", "c", "d"]
    table = population.to_arrow(frame)
    whole, month, *_ = count_groups(table, {})
    assert whole.n_patients["all"] == 4
    assert whole.n_effective["all"] == month.n_effective["all"] == 12**2 / (9**2 + 3)
    (whole, *_) = count_groups(population.to_arrow(frame.assign(patient_key=list("abcdefghijkl"))), {})
    assert whole.n_effective["all"] == whole.n_patients["all"] == 12


def test_a_row_of_an_unknown_patient_is_one_of_its_own():
    frame = population.draw(np.random.default_rng(4), 12, months=("2025-01",), sites=("north",))
    frame["patient_key"] = ["a"] * 4 + ["b"] * 3 + [None] * 5
    (whole, *_) = count_groups(population.to_arrow(frame), {})
    assert whole.n_patients["all"] == 7


def test_cells_of_numbers_and_categories(counted):
    frame, binnings, groups = counted
    south = frame[frame["site"] == "south"]
    edges = [-np.inf, *binnings["score"].edges, np.inf]
    expected = np.histogram(-south["score"].dropna(), bins=[-edge for edge in reversed(edges)])[0][::-1]
    assert groups["site", "south"].cells["score"].tolist() == [*expected, 0]
    bmi = groups["site", "south"].cells["bmi_kg_m2"]
    assert bmi[-1] == south["bmi_kg_m2"].isna().sum() > 0
    assert bmi.sum() == len(south)
    assert binnings["reason"].levels == ("missing_bmi", "scored")
    n_missing = (south["reason"] == "missing_bmi").sum()
    assert groups["site", "south"].cells["reason"].tolist() == [n_missing, len(south) - n_missing, 0, 0]
    assert binnings["flag"].levels == ("false", "true")
    assert groups["site", "south"].cells["flag"][1] == south["flag"].sum()


def test_the_grid_is_made_of_quantiles_and_its_ends_are_open(counted):
    frame, binnings, groups = counted
    assert 40 <= len(binnings["alm_kg_mu"].edges) <= 49
    counts = groups["all", "all"].cells["alm_kg_mu"][:-1]
    assert counts.min() > 0.5 * counts.mean()
    edges = binnings["alm_kg_mu"].edges
    assert frame["alm_kg_mu"].min() < edges[0]
    assert frame["alm_kg_mu"].max() > edges[-1]
    assert all(edge == float(f"{edge:.4g}") for edge in edges)


@pytest.mark.parametrize("value", [3000.0, 2022.5, 1000.0, 0.3, 1.0, 21.73, 0.0, -5.0, -1000.0, 123456.7])
def test_a_value_that_most_rows_have_shares_its_cell_with_no_smaller_and_no_larger_one(value):
    frame = population.draw(np.random.default_rng(6), 1000).assign(bmi_kg_m2=value)
    frame.loc[:99, "bmi_kg_m2"] = value + 7
    table = population.to_arrow(frame)
    binning = make_binnings(table, variables_of(table.schema), grid_cells=200, at_least=10)["bmi_kg_m2"]
    assert all(edge == float(f"{edge:.4g}") for edge in binning.edges)
    step = max(1e-3, abs(value) * 1e-2)
    others = [value - step, value - 1e6, value + step, value + 1e6]
    moved = [population.to_arrow(frame.assign(bmi_kg_m2=other)) for other in (value, *others)]
    cells = [int(np.argmax(count_groups(one, {"bmi_kg_m2": binning})[0].cells["bmi_kg_m2"])) for one in moved]
    assert cells[0] not in cells[1:]


def test_a_value_of_one_patient_with_many_rows_gets_no_cell_of_its_own():
    frame = population.draw(np.random.default_rng(7), 2000)
    frame.loc[:299, ["bmi_kg_m2", "patient_key"]] = [31.47, "k-often"]
    cells = []
    for key in ("k-often", None):
        table = population.to_arrow(frame if key else frame.assign(patient_key=frame["row_id"].astype(str)))
        edges = make_binnings(table, variables_of(table.schema), grid_cells=50, at_least=10)["bmi_kg_m2"].edges
        cells.append(31.46 in edges and 31.47 in edges)
    assert cells == [False, True]


def test_few_rows_have_few_cells_and_rare_levels_share_one():
    frame = population.draw(np.random.default_rng(2), 400)
    frame.loc[:4, "view"] = "LATERAL"
    table = population.to_arrow(frame)
    binnings = make_binnings(table, variables_of(table.schema), grid_cells=200, at_least=10)
    assert len(binnings["score"].edges) <= 19
    assert binnings["view"].levels == ("AP", "PA")
    (whole, *_) = count_groups(table, binnings)
    assert whole.cells["view"].tolist()[-2:] == [5, 0]


def test_a_table_without_sites_has_no_groups_of_them():
    table = population.to_arrow(population.draw(np.random.default_rng(3), 300).assign(site=None, device=None))
    binnings = make_binnings(table, variables_of(table.schema), grid_cells=20, at_least=10)
    assert {one.grouping for one in count_groups(table, binnings)} == {"all", "month"}
    assert "site" not in binnings

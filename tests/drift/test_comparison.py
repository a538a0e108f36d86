"""Drift that was put there is found where it is, and none where there is none."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from sarc_ray.config import from_mapping, load_preset
from sarc_ray.drift.comparison import DRIFTED, JUDGED, compare
from sarc_ray.drift.counting import count_groups
from sarc_ray.drift.settings import DriftConfig
from sarc_ray.drift.snapshot import Snapshot, to_keep
from sarc_ray.stats.drift import distance_p_value
from tests.drift import population
from tests.drift.test_snapshot import take

CONFIG = from_mapping(DriftConfig, load_preset("paper")["drift"])
BEFORE = population.draw(np.random.default_rng(10), 12000)
REFERENCE = to_keep(take(BEFORE), multiple_of=10, min_patients=CONFIG.min_patients)


def beside(frame, reference=REFERENCE, *, model=population.MODEL, config=CONFIG):
    groups = count_groups(population.to_arrow(frame), reference.binnings)
    current = Snapshot(binnings=reference.binnings, groups=groups, source={"model_id": model}, multiple_of=1)
    return compare(reference, current, config, small_cells_below=10)


def later(seed, n=4000, **changes):
    return population.draw(np.random.default_rng(seed), n, months=("2025-05", "2025-06"), first=10**6, **changes)


def drifted(table):
    rows = table[table["status"] == DRIFTED]
    return set(zip(rows["grouping"], rows["level"], rows["variable"], strict=True))


def test_where_nothing_has_moved_there_is_no_alarm_in_many_comparisons():
    """100 comparisons of about 100 variables and groups each; the family's rate is 1%."""
    tables = [beside(later(seed, n=2000)) for seed in range(100, 200)]
    assert min(table["status"].isin(JUDGED).sum() for table in tables) > 90
    alarms = sum(not table[table["status"].isin(["watch", "drifted"])].empty for table in tables)
    assert alarms <= 3


def test_a_small_reference_that_was_rounded_raises_no_alarm_either():
    """Two sites of some 250 patients each, whose tenths were rounded to 20 and 30, beside large tables."""
    alarms = 0
    for seed in range(300, 330):
        small = take(population.draw(np.random.default_rng(seed), 600))
        table = beside(later(seed, n=6000), to_keep(small, multiple_of=10, min_patients=200))
        assert (table["against"] == "site").any()
        alarms += table["status"].isin(["watch", "drifted"]).any()
    assert alarms <= 1


def with_many_images_of_some(seed, n_patients, **changes):
    """One row a patient at first; then most keep one, and a few have dozens, as on an intensive care unit."""
    rng = np.random.default_rng(seed)
    frame = population.draw(rng, n_patients, **changes)
    frame["patient_key"] = [f"k{patient:08d}" for patient in frame["row_id"]]
    frame = frame.loc[frame.index.repeat(rng.zipf(1.9, n_patients).clip(max=80))].reset_index(drop=True)
    return frame.assign(row_id=np.arange(len(frame)))


def test_a_few_patients_with_most_of_the_images_raise_no_alarm():
    """Their rows move shares together; taken for as many patients as there are, they would in every comparison."""
    frame = with_many_images_of_some(1, 6000)
    n_rows = np.sort(frame["patient_key"].value_counts())[::-1]
    assert n_rows[:600].sum() > 0.5 * len(frame)
    reference = to_keep(take(frame), multiple_of=10, min_patients=200)
    assert reference.whole.n_effective["all"] < 0.3 * reference.whole.n_patients["all"]
    alarms = 0
    for seed in range(400, 420):
        table = beside(with_many_images_of_some(seed, 2500, months=("2025-05", "2025-06"), first=10**6), reference)
        assert table["status"].isin(JUDGED).sum() > 90
        alarms += table["status"].isin(["watch", "drifted"]).any()
    assert alarms <= 1


def test_significance_alone_raises_no_alarm():
    """In large tables the smallest move is significant; it is not large."""
    large = population.draw(np.random.default_rng(7), 60000)
    reference = to_keep(take(large), multiple_of=10, min_patients=200)
    moved = population.draw(np.random.default_rng(8), 60000)
    moved["crt_s_mu"] *= 1.02
    table = beside(moved, reference)
    row = table[(table["grouping"] == "all") & (table["variable"] == "crt_s_mu")].iloc[0]
    assert row["ks_p_adjusted"] < 1e-6
    assert row["ks"] < 0.1
    assert row["status"] == "stable"


def test_size_alone_raises_no_alarm():
    """A single small month may stray; without its p-value the index would cry wolf."""
    strict = replace(CONFIG, min_patients=20, psi_watch=0.02, psi_drift=0.05, ks_watch=0.03, ks_drift=0.06)
    table = beside(later(11, n=150), config=strict)
    assert (table["psi"] > 0.05).sum() > 5
    assert drifted(table) == set()


def test_a_new_detector_at_one_site_is_found_there_alone():
    frame = later(12)
    south = frame["site"] == "south"
    frame.loc[south, "alm_kg_mu"] += 2.5
    frame.loc[south, "ood_distance"] *= 1.25
    found = drifted(beside(frame))
    assert {("site", "south", "alm_kg_mu"), ("device", "south-dr", "ood_distance")} <= found
    assert not any(level in ("north", "north-dr") for _, level, _ in found)
    assert {name for _, _, name in found} == {"alm_kg_mu", "ood_distance"}


def test_one_month_is_found_by_its_name():
    frame = later(13)
    june = frame["acquired_month"] == "2025-06"
    frame.loc[june, "age_years"] = (frame.loc[june, "age_years"] + 8).clip(upper=99)
    found = drifted(beside(frame))
    assert ("month", "2025-06", "age_years") in found
    assert ("month", "2025-05", "age_years") not in found


def test_a_gate_that_rejects_more_is_found_by_its_reason():
    frame = later(14)
    population.reject(frame, np.random.default_rng(1).random(len(frame)) < 0.3, "out_of_distribution")
    table = beside(frame)
    row = table[(table["grouping"] == "all") & (table["variable"] == "reason")].iloc[0]
    assert row["status"] == DRIFTED
    assert row["change"].startswith(("(other) 0.0% -> 3", "(other) 0.0% -> 2"))


@pytest.mark.parametrize(
    ("now", "change"),
    [(2000.0, "median 3000 -> up to 2999"), (4000.0, "median 3000 -> above 3000"), (3000.0, "median 3000 -> 3000")],
)
def test_a_value_that_all_rows_had_is_missed_whichever_way_it_goes(now, change):
    """Such as the rows of one detector's pictures."""
    small = population.draw(np.random.default_rng(3), 1500).assign(bmi_kg_m2=3000.0)
    reference = to_keep(take(small), multiple_of=10, min_patients=200)
    table = beside(later(23, n=1500).assign(bmi_kg_m2=now), reference)
    row = table[table["grouping"] == "all"].set_index("variable").loc["bmi_kg_m2"]
    assert row["status"] == ("stable" if now == 3000 else DRIFTED)
    assert row["change"] == change


def test_missing_values_and_shares_of_sites_are_found():
    frame = later(15)
    frame.loc[np.random.default_rng(2).random(len(frame)) < 0.4, "bmi_kg_m2"] = np.nan
    many = later(16, n=8000, sites=("south",)).assign(row_id=lambda x: x["row_id"] + 10**7)
    table = beside(pd.concat([frame, many], ignore_index=True))
    whole = table[table["grouping"] == "all"].set_index("variable")
    assert whole.loc["site", "status"] == DRIFTED
    assert "south" in whole.loc["site", "change"] or "north" in whole.loc["site", "change"]
    sites = table[(table["grouping"] == "site") & (table["level"] == "north")].set_index("variable")
    assert sites.loc["bmi_kg_m2", "status"] == DRIFTED
    assert sites.loc["bmi_kg_m2", "change"].startswith("missing ")
    assert "site" not in sites.index


def test_index_and_distance_are_those_of_the_samples():
    """From a file of rounded counts on a grid, beside scipy on the values themselves."""
    frame = later(17)
    frame["score"] = frame["score"] ** 0.9
    row = beside(frame).set_index(["grouping", "variable"]).loc[("all", "score")]
    a, b = BEFORE["score"].dropna(), frame["score"].dropna()
    exact = stats.ks_2samp(a, b).statistic
    assert row["ks"] - 5 / len(a) <= exact <= row["ks"] + row["ks_margin"] + 5 / len(a)
    assert row["ks_margin"] < 0.012
    edges = np.quantile(a, np.arange(1, 10) / 10)
    p, q = (np.bincount(np.searchsorted(edges, x), minlength=10) / len(x) for x in (a, b))
    assert row["psi"] == pytest.approx(stats.entropy(p, q) + stats.entropy(q, p), rel=0.1)


def test_sites_are_compared_with_themselves_and_new_ones_with_all():
    frame = later(18, sites=("south", "west"))
    table = beside(frame)
    by_site = table[table["grouping"] == "site"].groupby("level")["against"].first()
    assert by_site.to_dict() == {"south": "site", "west": "all"}
    assert set(table.loc[table["grouping"] == "month", "against"]) == {"all"}
    assert not {"site", "device"} & set(table.loc[table["level"] == "west", "variable"])


def test_groups_with_few_patients_are_named_and_not_judged():
    frame = later(19)
    frame.loc[:6, "site"] = "tiny"
    frame.loc[7:60, "site"] = "small"
    table = beside(frame)
    few = table[table["status"] == "too_few"].set_index("level")
    assert {"tiny", "small"} <= set(few.index)
    assert few.loc["small", "n"] == 54
    assert pd.isna(few.loc["tiny", "n"])
    assert few["psi"].isna().all()


def test_another_model_is_not_compared_but_its_patients_are():
    table = beside(later(20), model="model-2")
    judged = set(table.loc[table["status"].isin(JUDGED), "variable"])
    assert {"age_years", "sex", "reason"} <= judged
    assert not {"score", "alm_kg_mu", "ood_distance", "flag"} & judged
    assert set(table.loc[table["status"] == "other_model", "variable"]) >= {"score", "alm_kg_mu", "flag"}


def test_of_a_table_with_very_few_patients_no_number_is_told():
    table = population.to_arrow(later(21, n=6)).drop_columns(["bmi_kg_m2"])
    groups = count_groups(table, REFERENCE.binnings)
    current = Snapshot(binnings=REFERENCE.binnings, groups=groups, source={}, multiple_of=1)
    found = compare(REFERENCE, current, CONFIG, small_cells_below=10)
    assert {"too_few", "absent"} <= set(found["status"])
    assert found[["n", "n_patients"]].isna().all(axis=None)


def test_a_variable_that_has_gone_is_told():
    table = population.to_arrow(later(21)).drop_columns(["bmi_kg_m2"])
    current = Snapshot(
        binnings=REFERENCE.binnings,
        groups=count_groups(table, REFERENCE.binnings),
        source={"model_id": population.MODEL},
        multiple_of=1,
    )
    found = compare(REFERENCE, current, CONFIG, small_cells_below=10)
    assert found.loc[found["status"] == "absent", "variable"].tolist() == ["bmi_kg_m2"]


def of_one_variable(frame, reference, name):
    """Its row for all rows together; there is no other group, so that two p-values are adjusted in all."""
    alone = replace(reference, binnings={name: reference.binnings[name]})
    table = beside(frame.assign(acquired_month=None, site=None, device=None), alone)
    return table.set_index("variable").loc[name]


def test_missing_values_do_not_count_as_patients_of_a_distance():
    frame = later(24, n=3000)
    frame.loc[np.random.default_rng(3).random(len(frame)) < 0.9, "bmi_kg_m2"] = np.nan
    frame["bmi_kg_m2"] += 0.8
    row = of_one_variable(frame, take(BEFORE), "bmi_kg_m2")
    n_reference, n_current = (int(one["bmi_kg_m2"].notna().sum()) for one in (BEFORE, frame))
    alone = distance_p_value(row["ks"], n_reference=n_reference, n_current=n_current)
    assert alone < row["ks_p_adjusted"] < 1.0


def test_a_rounded_reference_is_trusted_less():
    exact = take(population.draw(np.random.default_rng(25), 600))
    rounded = to_keep(exact, multiple_of=10, min_patients=200)
    frame = later(26, n=3000)
    frame["age_years"] += 1.5
    one, other = (of_one_variable(frame, ref, "age_years") for ref in (replace(rounded, multiple_of=1), rounded))
    assert (one["psi"], one["ks"]) == (other["psi"], other["ks"])
    for name in ("psi_p_adjusted", "ks_p_adjusted"):
        assert 0 < one[name] < other[name] < 1, name


def test_levels_that_are_rare_on_both_sides_count_together():
    before, after = BEFORE.copy(), later(27)
    for frame, n in ((before, 60), (after, 15)):
        frame.loc[: n - 1, "view"] = [f"R{k % 5}" for k in range(n)]
    several = of_one_variable(after, take(before), "view")
    pooled = [frame.assign(view=frame["view"].str[:1]) for frame in (after, before)]
    together = of_one_variable(pooled[0], take(pooled[1]), "view")
    assert several["psi"] == pytest.approx(together["psi"], rel=1e-9)
    assert several["psi_p_adjusted"] == pytest.approx(together["psi_p_adjusted"], rel=1e-9)


def test_repeated_images_of_the_same_patients_prove_nothing_more():
    """Each row ten times is ten times the rows and no patient more: p-values stay."""
    frame = later(22, n=400)
    frame["age_years"] += 2
    table = beside(frame)
    repeated = beside(pd.concat([frame] * 10, ignore_index=True))
    columns = ["psi_p_adjusted", "ks_p_adjusted", "n_patients"]
    whole = [one[one["variable"] == "age_years"][columns].iloc[0].astype(float) for one in (table, repeated)]
    np.testing.assert_allclose(whole[0], whole[1], rtol=0.3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"psi_watch": 0.3}, "psi_watch, psi_drift: found 0.3 and 0.25"),
        ({"ks_watch": 0.0}, "ks_watch, ks_drift: found 0.0 and 0.2"),
        ({"false_alarm_rate": 1.0}, "false_alarm_rate: found 1.0"),
        ({"min_patients": 5}, "min_patients: found 5"),
        ({"grid_cells": 3}, "grid_cells: found 3"),
    ],
)
def test_thresholds_that_make_no_sense_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **change)

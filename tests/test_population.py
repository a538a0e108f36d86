"""The summary of a scored population: right counts, and no small cell that can be read or computed from it."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from scipy.optimize import linprog
from typer.testing import CliRunner

from sarc_ray import storage, tables
from sarc_ray.cli import app
from sarc_ray.errors import ConfigError
from sarc_ray.population import COLUMNS, COUNTS, load_run_for, summarise, suppress_small_cells, write_summary


def seal(uri, frame):
    """As two parts of a table."""
    frame = frame.assign(row_id=np.arange(len(frame)), retryable=False)
    half = len(frame) // 2
    for name, part in (("a", frame.iloc[:half]), ("b", frame.iloc[half:])):
        storage.write_table(storage.join(tables.parts_uri(uri, "v1"), f"{name}.parquet"), part)
    tables.seal(uri, version="v1", expected_row_ids=frame["row_id"].to_numpy(), lineage={})


@pytest.fixture
def table(tmp_path):
    """300 rows: site C has 4 of them; 20 were not scored; nobody younger than 65 in site B is flagged."""
    rng = np.random.default_rng(1)
    n = 300
    frame = pd.DataFrame(
        {
            "outcome": np.where(np.arange(n) < 20, "rejected", "scored"),
            "sex": np.where(rng.random(n) < 0.4, "M", "F"),
            "age_years": rng.uniform(41, 90, n),
            "site": np.array(["A"] * 180 + ["B"] * 116 + ["C"] * 4)[rng.permutation(n)],
            "score": rng.random(n),
        }
    )
    frame.loc[frame["outcome"] != "scored", "score"] = np.nan
    frame.loc[5, "sex"] = None
    frame["flag"] = (frame["score"] > 0.7).where(frame["score"].notna(), None).astype("boolean")
    uri = str(tmp_path / "scores")
    seal(uri, frame)
    return uri, frame


def cell(summary, grouping, level):
    (row,) = summary[(summary["grouping"] == grouping) & (summary["level"] == level)].to_dict("records")
    return row


def test_counts_are_those_of_the_table(table):
    uri, frame = table
    summary = summarise(uri, age_band_edges_years=[65, 75], n_people=10)
    assert set(summary["grouping"]) == {"all", "sex", "age_band", "site"}
    whole = cell(summary, "all", "all")
    assert (whole["n_rows"], whole["n_scored"]) == (300, 280)
    assert whole["n_flagged"] == int(frame["flag"].sum())
    assert whole["score_mean"] == pytest.approx(frame["score"].mean())
    old = frame[frame["age_years"] >= 75]
    found = cell(summary, "age_band", ">=75")
    assert (found["n_rows"], found["n_flagged"]) == (len(old), int(old["flag"].sum()))
    assert found["score_mean"] == pytest.approx(old["score"].mean())
    assert cell(summary, "site", "C")["n_rows"] == 4
    assert cell(summary, "sex", "unknown")["n_rows"] == 1
    for grouping in ("sex", "age_band", "site"):
        assert summary.loc[summary["grouping"] == grouping, "n_rows"].sum() == 300


def test_a_bundle_without_sex_and_age_has_no_such_groups(tmp_path):
    frame = pd.DataFrame({"outcome": ["scored"] * 30, "score": 0.5, "flag": False, "site": None})
    seal(str(tmp_path), frame)
    assert summarise(str(tmp_path), age_band_edges_years=[65], n_people=10)["grouping"].tolist() == ["all"]


def make(grouping_counts):
    """A summary from (grouping, level, n_rows, n_scored, n_flagged)."""
    frame = pd.DataFrame(grouping_counts, columns=["grouping", "level", *COUNTS])
    return frame.assign(score_mean=0.5, suppressed=False)


def test_small_cells_and_what_would_tell_them_are_left_out():
    shown = suppress_small_cells(
        make(
            [
                ("all", "all", 300, 280, 80),
                ("site", "A", 180, 170, 50),
                ("site", "B", 116, 106, 30),
                ("site", "C", 4, 4, 0),
                ("sex", "F", 200, 190, 60),
                ("sex", "M", 100, 90, 20),
            ]
        ),
        below=10,
    )
    assert shown["n_rows"].isna().tolist() == [False, False, True, True, False, False]  # 300 - 180 - 116 would tell C
    assert shown["n_scored"].isna().tolist() == [False, False, True, True, False, False]
    assert shown["score_mean"].isna().tolist() == [False, False, True, True, False, False]
    assert shown["suppressed"].tolist() == [False, False, True, True, False, False]
    assert shown.loc[4, "n_flagged"] == 60


@pytest.mark.parametrize(
    ("counts", "hidden"),
    [
        ((100, 95, 20), "n_scored"),  # five were not scored
        ((100, 80, 3), "n_flagged"),
        ((100, 80, 77), "n_flagged"),  # three were not flagged
    ],
)
def test_a_difference_within_a_row_is_a_cell_too(counts, hidden):
    shown = suppress_small_cells(make([("all", "all", *counts)]), below=10)
    assert shown[hidden].isna().all()
    assert shown["n_rows"].notna().all()
    assert shown["suppressed"].all()


def deducible(shown):
    """Every count of a level, and every difference within it, that what is shown leaves only one value for."""
    n_levels = len(shown) - 1
    place = {(name, level): 3 * level + k for level in range(n_levels) for k, name in enumerate(COUNTS)}
    known_A, known_b = [], []
    for name in COUNTS:
        for row, value in enumerate(shown[name]):
            if pd.notna(value):
                members = range(n_levels) if row == 0 else [row - 1]
                known_A.append(np.isin(np.arange(3 * n_levels), [place[name, level] for level in members]) * 1.0)
                known_b.append(float(value))
    ordered_A = np.zeros((2 * n_levels, 3 * n_levels))
    for level in range(n_levels):
        for k in range(2):
            ordered_A[2 * level + k, [3 * level + k, 3 * level + k + 1]] = -1.0, 1.0
    for quantity_C in (*np.eye(3 * n_levels), *-ordered_A):
        low, high = (
            sign
            * linprog(
                sign * quantity_C,
                A_ub=ordered_A,
                b_ub=np.zeros(len(ordered_A)),
                A_eq=np.array(known_A) if known_A else None,
                b_eq=known_b or None,
                bounds=(0, 10_000),
            ).fun
            for sign in (1.0, -1.0)
        )
        if high - low < 1e-6:
            yield round(low)


KNOWN_HOLES = [
    [(100, 95, 20), (200, 0, 0)],  # beside a zero, one hidden level is the total
    [(25, 25, 20), (200, 100, 0)],
    [(100, 95, 50), (50, 50, 25), (500, 400, 200)],  # five unscored, of two levels together
]


@pytest.mark.parametrize("seed", range(40 + len(KNOWN_HOLES)))
def test_nothing_small_can_be_deduced_from_what_is_shown(seed):
    """By linear programming: whatever the table, no count and no difference of 1 to 9 has only one possible value."""
    rng = np.random.default_rng(seed)
    n_rows_L = rng.integers(0, 60, rng.integers(2, 6)) * rng.integers(1, 4)
    n_scored_L = rng.binomial(n_rows_L, rng.choice([0.8, 0.95, 1.0]))
    n_flagged_L = rng.binomial(n_scored_L, 0.3)
    counts_LC = np.stack([n_rows_L, n_scored_L, n_flagged_L], axis=1)
    if seed >= 40:
        counts_LC = np.array(KNOWN_HOLES[seed - 40])
    rows = [("all", "all", *counts_LC.sum(axis=0))]
    rows += [("site", str(k), *counts) for k, counts in enumerate(counts_LC)]
    shown = suppress_small_cells(make(rows), below=10)
    assert not [value for value in deducible(shown) if 1 <= value <= 9], (counts_LC, shown)


def test_what_hidden_levels_lack_together_is_no_small_number_either():
    """Five unscored of the first; the second has none, so that both together would tell the five."""
    levels = KNOWN_HOLES[2]
    rows = [("all", "all", *np.sum(levels, axis=0)), *(("site", str(k), *counts) for k, counts in enumerate(levels))]
    assert suppress_small_cells(make(rows), below=10)["n_scored"].isna().tolist() == [False, True, True, True]


def test_a_file_that_knows_no_site_counts_as_unknown(table, monkeypatch):
    uri, _ = table
    (whole,) = [pa.concat_tables(tables.iterate(uri))]
    blind = whole.slice(200).to_pandas().assign(site=None)
    files = [whole.slice(0, 200), pa.Table.from_pandas(blind, schema=whole.schema, preserve_index=False)]
    monkeypatch.setattr(tables, "iterate", lambda uri: iter(files))
    summary = summarise(uri, age_band_edges_years=[65, 75], n_people=10)
    assert cell(summary, "site", "unknown")["n_rows"] == 100
    assert summary.loc[summary["grouping"] == "site", "n_rows"].sum() == 300
    monkeypatch.setattr(tables, "iterate", lambda uri: iter(files[1:]))
    assert "site" not in set(summarise(uri, age_band_edges_years=[65, 75], n_people=10)["grouping"])


def shown_of(tmp_path, frame):
    seal(str(tmp_path / "scores"), frame)
    summary = summarise(str(tmp_path / "scores"), age_band_edges_years=[65], n_people=10)
    return suppress_small_cells(summary, below=10)


def several_images_each(n_patients):
    """Rows of a table in which everybody has one image, in sites of a hundred; a third is flagged."""
    n = sum(n_patients.values())
    site = np.repeat(list(n_patients), list(n_patients.values()))
    keys = [f"k{number}" for number in range(n)]
    return pd.DataFrame(
        {"outcome": "scored", "patient_key": keys, "site": site, "score": 0.3, "flag": np.arange(n) % 3 == 0}
    )


def test_forty_radiographs_of_one_patient_are_a_small_cell(tmp_path):
    frame = several_images_each({"A": 100, "B": 60, "C": 1})
    shown = shown_of(tmp_path, frame.loc[frame.index.repeat(np.where(frame["site"] == "C", 40, 1))])
    assert cell(shown, "all", "all")["n_rows"] == 200
    assert shown.loc[shown["level"].isin(["B", "C"]), [*COUNTS, "score_mean"]].isna().all(axis=None)
    assert cell(shown, "site", "A")["n_rows"] == 100
    assert set(shown) == set(COLUMNS)


@pytest.mark.parametrize(("n_with", "told"), [(9, False), (10, True)])
def test_patients_count_once_over_files_and_among_the_unscored_and_unflagged(tmp_path, n_with, told):
    """The rows of each patient lie in both files."""
    one = several_images_each({"A": 200}).assign(flag=False)
    for column, value in (("outcome", "abstained"), ("flag", True)):
        frame = one.copy()
        frame.loc[: n_with - 1, column] = value
        shown = shown_of(tmp_path / column, pd.concat([frame] * 3, ignore_index=True))
        whole = cell(shown, "all", "all")
        assert whole["n_rows"] == 600
        of_column = {"outcome": "n_scored", "flag": "n_flagged"}[column]
        assert pd.notna(whole[of_column]) == told
        assert not told or whole[of_column] in (3 * n_with, 600 - 3 * n_with)


def test_patients_who_are_in_several_hidden_levels_count_once(tmp_path):
    """Eight patients have been at B and at C; together these are eight still, so that D is left out too."""
    frame = several_images_each({"A": 200, "B": 8, "C": 8, "D": 150})
    frame.loc[frame["site"] == "C", "patient_key"] = frame.loc[frame["site"] == "B", "patient_key"].to_numpy()
    shown = shown_of(tmp_path, frame.assign(flag=True))
    assert shown.set_index("level")["n_rows"].isna().to_dict() == {
        "all": False,
        "A": False,
        "B": True,
        "C": True,
        "D": True,
    }


def test_suppression_can_be_switched_off():
    summary = make([("all", "all", 9, 5, 1)])
    for below in (0, 1):
        shown = suppress_small_cells(summary, below=below)
        assert shown[list(COUNTS)].to_numpy().tolist() == [[9, 5, 1]]
        assert not shown["suppressed"].any()


def test_the_command_writes_what_others_may_see(table, tmp_path):
    uri, _ = table
    to = str(tmp_path / "summary.csv")
    result = CliRunner().invoke(app, ["summary", uri, "--to", to])
    assert result.exit_code == 0, result.output
    assert "with counts left out" in result.output
    written = storage.read_table(to).set_index(["grouping", "level"])
    assert written.loc[("site", "C"), "n_rows"] == ""
    assert written.loc[("site", "A"), "n_rows"] == "180"
    assert set(written.loc[("site", "C")]) == {"", "True"}
    result = CliRunner().invoke(app, ["summary", uri, "--to", to, "--set", "score.small_cells_below=0"])
    assert result.exit_code == 0, result.output
    assert storage.read_table(to).set_index(["grouping", "level"]).loc[("site", "C"), "n_rows"] == "4"


def test_what_cannot_be_written_is_told(table, tmp_path):
    seal(str(tmp_path / "images"), pd.DataFrame({"outcome": ["scored"] * 30}))
    with pytest.raises(ConfigError, match="images: no score table: it has no score, flag"):
        write_summary(str(tmp_path / "images"), "summary.csv", load_run_for(table[0], []))
    with pytest.raises(ConfigError, match=r"'summary\.xlsx'; name a file that ends in"):
        write_summary(table[0], "summary.xlsx", load_run_for(table[0], []))
    with pytest.raises(ConfigError, match="small_cells_below: found -1"):
        load_run_for(table[0], ["score.small_cells_below=-1"])

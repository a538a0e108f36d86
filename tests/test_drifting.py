"""The command drift: a reference kept, a later table beside it, exit codes, what is written."""

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from sarc_ray import exits, storage, tables
from sarc_ray.cli import app
from sarc_ray.cohort.schema import row_id
from sarc_ray.drift.comparison import COLUMNS
from sarc_ray.drifting import DriftRequest, load_run_for, watch
from sarc_ray.errors import ConfigError, ManifestError, StorageError
from tests.drift import population


@pytest.fixture(scope="module")
def tables_of(tmp_path_factory):
    """A table of four months, and later ones: like it, and moved."""
    folder = tmp_path_factory.mktemp("drift")
    same = population.draw(np.random.default_rng(2), 3000, months=("2025-05", "2025-06"), first=10**6)
    moved = same.copy()
    moved.loc[moved["acquired_month"] == "2025-06", "alm_kg_uncertainty_pct"] *= 1.4
    return {
        "before": population.seal(str(folder / "before"), population.draw(np.random.default_rng(1), 6000)),
        "same": population.seal(str(folder / "same"), same),
        "moved": population.seal(str(folder / "moved"), moved),
    }


@pytest.fixture(scope="module")
def reference(tables_of, tmp_path_factory):
    uri = str(tmp_path_factory.mktemp("reference") / "reference.json")
    result = CliRunner().invoke(app, ["drift", tables_of["before"], "--save-reference", uri])
    assert result.exit_code == 0, result.output
    assert "counts in multiples of 10" in result.output
    return uri


def request_for(table, **changes):
    values = dict.fromkeys(("reference", "save_reference", "to", "manifest", "since", "until"))
    return DriftRequest(table=table, **(values | changes))


def test_a_table_that_has_not_moved_ends_with_0(tables_of, reference, tmp_path):
    result = CliRunner().invoke(app, ["drift", tables_of["same"], "--reference", reference, "--to", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "watch 0, drifted 0" in result.output
    table = storage.read_table(str(tmp_path / "drift.parquet"))
    assert tuple(table.columns) == COLUMNS
    assert len(pd.read_csv(tmp_path / "drift.csv")) == len(table)
    assert b"<svg" in (tmp_path / "drift.svg").read_bytes()


def test_one_that_has_moved_ends_with_its_own_code_and_says_where(tables_of, reference, tmp_path):
    result = CliRunner().invoke(app, ["drift", tables_of["moved"], "--reference", reference, "--to", str(tmp_path)])
    assert result.exit_code == exits.DRIFTED == 9, result.output
    assert "month 2025-06" in result.output
    assert "alm_kg_uncertainty_pct" in result.output
    table = storage.read_table(str(tmp_path / "drift.parquet"))
    assert ("month", "2025-06") in set(
        table.loc[table["status"] == "drifted", ["grouping", "level"]].itertuples(index=False, name=None)
    )


def test_months_can_be_chosen_and_a_table_can_be_the_reference(tables_of):
    run = load_run_for(request_for(tables_of["moved"], reference=tables_of["before"]), [])
    may = watch(request_for(tables_of["moved"], reference=tables_of["before"], until="2025-05"), run)
    assert not may.drifted
    assert set(may.comparison.loc[may.comparison["grouping"] == "month", "level"]) == {"2025-05"}
    june = watch(request_for(tables_of["moved"], reference=tables_of["before"], since="2025-06"), run)
    assert june.drifted
    assert set(june.comparison.loc[june.comparison["grouping"] == "month", "level"]) == {"2025-06"}


def test_a_table_as_reference_has_the_groups_that_a_file_of_it_has(tmp_path):
    """No month of it, and no site of too few patients: its later rows are compared with the whole."""
    before = population.draw(np.random.default_rng(5), 3000)
    before.loc[:99, ["site", "device"]] = ["new", "new-dr"]
    after = population.draw(np.random.default_rng(6), 4000, sites=("north", "new"), first=10**6)
    table = population.seal(str(tmp_path / "after"), after)
    own = population.seal(str(tmp_path / "before"), before)
    exact = load_run_for(request_for(own, reference=own), ["score.small_cells_below=0"])
    watch(request_for(own, save_reference=str(tmp_path / "r.json")), exact)
    by_file = watch(request_for(table, reference=str(tmp_path / "r.json")), exact).comparison
    by_table = watch(request_for(table, reference=own), exact).comparison
    keys = ["grouping", "level", "variable"]
    same = [found.sort_values(keys, ignore_index=True) for found in (by_table, by_file)]
    pd.testing.assert_frame_equal(*same)
    assert set(by_table.loc[by_table["grouping"] == "month", "against"]) == {"all"}
    of_new = by_table[(by_table["grouping"] == "site") & (by_table["level"] == "new")]
    assert set(of_new["against"]) == {"all"}


def test_a_reference_that_is_replaced_is_compared_with_first(tables_of, tmp_path):
    uri = str(tmp_path / "reference.json")
    assert CliRunner().invoke(app, ["drift", tables_of["before"], "--save-reference", uri]).exit_code == 0
    both = ["drift", tables_of["moved"], "--reference", uri, "--save-reference", uri]
    first = storage.read_json(uri)
    assert CliRunner().invoke(app, both).exit_code == exits.DRIFTED
    assert storage.read_json(uri) != first


def test_where_nothing_can_be_judged_there_is_a_code_for_that(reference, tmp_path):
    few = population.seal(str(tmp_path / "few"), population.draw(np.random.default_rng(7), 150))
    result = CliRunner().invoke(app, ["drift", few, "--reference", reference])
    assert result.exit_code == exits.REFUSED, result.output
    assert "nothing could be judged" in result.output


def test_names_of_sites_are_printed_as_they_are(reference, tmp_path):
    frame = population.draw(np.random.default_rng(8), 3000, first=10**6)
    frame["site"] = frame["site"].map({"north": "ward [red] [/b] $x_{$", "south": "south"})
    frame["ood_distance"] *= 1.5
    table = population.seal(str(tmp_path / "table"), frame)
    result = CliRunner().invoke(app, ["drift", table, "--reference", reference, "--to", str(tmp_path / "out")])
    assert result.exit_code == exits.DRIFTED, result.output
    assert "site ward [red] [/b] $x_{$" in result.output


def test_thresholds_are_configuration(tables_of, reference):
    arguments = ["drift", tables_of["moved"], "--reference", reference]
    settings = ["--set", "drift.psi_drift=9", "--set", "drift.ks_drift=0.99"]
    result = CliRunner().invoke(app, [*arguments, *settings])
    assert result.exit_code == 0, result.output
    assert "drifted 0" in result.output
    assert "watch 0" not in result.output


def test_the_reference_says_where_it_comes_from(tables_of, reference):
    source = storage.read_json(reference)["source"]
    assert (source["version"], source["model_id"], source["lineage"]["run_id"]) == ("v1", "model-1", "run-1")
    assert len(source["sha256"]) == 64
    again = watch(
        request_for(tables_of["before"], save_reference=reference), load_run_for(request_for("x", reference="y"), [])
    )
    assert again.kept.source["sha256"] == source["sha256"]


def test_what_an_inventory_knows_is_watched_too(tmp_path):
    """Rows, columns and the transfer syntax come from the manifest by row_id."""
    rng = np.random.default_rng(3)
    tables = {}
    for name, size in (("before", 2000), ("after", 3000)):
        frame = population.draw(rng, 1500)
        uris = [str(tmp_path / f"{name}-{k}.dcm") for k in range(len(frame))]
        frame["row_id"] = [row_id(uri) for uri in uris]
        population.seal(str(tmp_path / name), frame)
        manifest = pd.DataFrame(
            {"image_uri": uris, "patient_id": frame["patient_key"], "rows": size, "bits_stored": 12}
        )
        storage.write_table(str(tmp_path / f"{name}.parquet"), manifest.assign(operator_name="never"))
        tables[name] = (str(tmp_path / name), str(tmp_path / f"{name}.parquet"))
    reference = str(tmp_path / "reference.json")
    table, manifest = tables["before"]
    kept = watch(request := request_for(table, manifest=manifest, save_reference=reference), load_run_for(request, []))
    assert "operator_name" not in kept.kept.binnings
    table, manifest = tables["after"]
    request = request_for(table, manifest=manifest, reference=reference)
    found = watch(request, load_run_for(request, [])).comparison
    whole = found[found["grouping"] == "all"].set_index("variable")
    assert whole.loc["rows", "status"] == "drifted"
    assert whole.loc["bits_stored", "status"] == "stable"
    with pytest.raises(ManifestError, match="none of its 1500 rows is in the score table"):
        watch(request_for(table, manifest=tables["before"][1], reference=reference), load_run_for(request, []))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "neither is given"),
        ({"save_reference": "x.csv"}, r"'x\.csv'; name a file that ends in \.json"),
        ({"save_reference": "x.json", "to": "out"}, "--to: nothing is compared"),
    ],
)
def test_requests_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        request_for("scores", **changes)


def test_what_cannot_be_compared_is_told(tables_of, reference, tmp_path):
    def run_with(table, **changes):
        request = request_for(table, **({"reference": reference} | changes))
        return watch(request, load_run_for(request, []))

    with pytest.raises(StorageError, match="no finished score table here"):
        run_with(str(tmp_path / "nothing"))
    with pytest.raises(ConfigError, match="--since: found '2025-13', allowed: a month as YYYY-MM"):
        run_with(tables_of["same"], since="2025-13")
    with pytest.raises(ConfigError, match="no row of these months; the table has 3000 rows"):
        run_with(tables_of["same"], since="2031-01")
    images = storage.read_table(storage.join(tables_of["same"], "versions/v1")).drop(columns=["score", "flag"])
    storage.write_table(storage.join(tables.parts_uri(str(tmp_path / "images"), "v1"), "a.parquet"), images)
    tables.seal(str(tmp_path / "images"), version="v1", expected_row_ids=images["row_id"].to_numpy(), lineage={})
    with pytest.raises(ConfigError, match="images: no score table: it has no score, flag"):
        run_with(str(tmp_path / "images"))
    few = population.seal(str(tmp_path / "few"), population.draw(np.random.default_rng(4), 100))
    with pytest.raises(ConfigError, match="84 patients are too few to refer to"):
        run_with(few, reference=None, save_reference=str(tmp_path / "x.json"))

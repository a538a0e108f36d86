"""Chosen columns of a score table: what stands in the file is what stands in the table."""

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from sarc_ray import exits, storage, tables
from sarc_ray.cli import app
from sarc_ray.errors import ConfigError, StorageError
from sarc_ray.exporting import rows
from sarc_ray.exporting.plain import export_plain, usual_columns


def test_chosen_columns_come_in_their_order_with_their_values(archive, tmp_path):
    names = ["score", "row_id", "site", "flag"]
    done = export_plain(archive.table, str(tmp_path / "scores.csv"), columns=names)
    found = pd.read_csv(tmp_path / "scores.csv")
    assert done.n_written == len(found) == len(archive.frame)
    assert list(found) == names
    np.testing.assert_array_equal(found["score"], archive.frame["score"])
    np.testing.assert_array_equal(found["row_id"], archive.frame["row_id"])
    known = archive.frame["flag"].notna()
    assert found["flag"][known].tolist() == archive.frame["flag"][known].tolist()
    assert found["flag"][~known].isna().all()
    assert set(found["site"]) == {'north, "old"'}


def test_parquet_keeps_the_types_of_the_table(archive, tmp_path):
    done = export_plain(archive.table, str(tmp_path / "scores.parquet"), scored_only=True)
    found = storage.read_table(str(tmp_path / "scores.parquet"))
    expected = archive.frame[archive.frame["outcome"] == "scored"].reset_index(drop=True)
    assert done.left_out == {"not scored": 1}
    sealed = tables.read(archive.table)[list(found)]
    sealed = sealed[sealed["outcome"] == "scored"].reset_index(drop=True)
    pd.testing.assert_frame_equal(found, sealed.astype({"flag": bool}))
    np.testing.assert_array_equal(found["alm_kg_mu"], expected["alm_kg_mu"])


def test_what_only_developers_want_is_left_out_unless_it_is_named(archive):
    usual = usual_columns(list(archive.frame))
    assert {"row_id", "patient_key", "outcome", "reason", "alm_kg_mu", "alm_kg_sigma", "score", "flag"} <= set(usual)
    assert {"model_id"} <= set(usual)
    assert not {"image_sha256", "raw_score", "alm_kg_var_epistemic", "alm_kg_uncertainty_pct"} & set(usual)


def test_pieces_make_no_difference(archive, tmp_path, monkeypatch):
    export_plain(archive.table, str(tmp_path / "whole.csv"))
    monkeypatch.setattr(rows, "ROWS_AT_ONCE", 1)
    export_plain(archive.table, str(tmp_path / "pieces.csv"))
    assert (tmp_path / "pieces.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_wrong_requests_are_refused_and_write_nothing(archive, tmp_path):
    to = str(tmp_path / "scores.csv")
    with pytest.raises(ConfigError, match=r"no column hgs_kg_mu; it has row_id, patient_key"):
        export_plain(archive.table, to, columns=["score", "hgs_kg_mu"])
    with pytest.raises(ConfigError, match="score named twice"):
        export_plain(archive.table, to, columns=["score", "score"])
    with pytest.raises(ConfigError, match=r"ends in \.csv or \.parquet"):
        export_plain(archive.table, str(tmp_path / "scores.xlsx"))
    with pytest.raises(StorageError, match="no finished table"):
        export_plain(str(tmp_path / "nowhere"), to)
    assert list(tmp_path.iterdir()) == []


def test_a_runs_image_table_is_no_score_table(tmp_path):
    uri = str(tmp_path / "images")
    part = pd.DataFrame({"row_id": [1], "outcome": ["scored"], "retryable": [False], "image": [b"\xff"]})
    storage.write_table(storage.join(tables.parts_uri(uri, "v1"), "a.parquet"), part)
    tables.seal(uri, version="v1", expected_row_ids=part["row_id"].to_numpy(), lineage={})
    with pytest.raises(ConfigError, match="images: no score table: it has no score, flag; name a folder"):
        export_plain(uri, str(tmp_path / "out.csv"))
    assert not (tmp_path / "out.csv").exists()


def test_a_failure_on_the_way_leaves_the_old_file(archive, tmp_path, monkeypatch):
    to = tmp_path / "scores.csv"
    export_plain(archive.table, str(to), columns=["score"])
    before = to.read_bytes()

    def broken(*_, **__):
        yield from ()
        raise StorageError("the store is away")

    monkeypatch.setattr("sarc_ray.exporting.plain.iterate_rows", broken)
    with pytest.raises(StorageError, match="away"):
        export_plain(archive.table, str(to), columns=["row_id"])
    assert to.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["scores.csv"]


def test_the_command_says_what_it_wrote_and_left_out(archive, tmp_path):
    to = str(tmp_path / "scores.csv")
    arguments = ["export", "csv", archive.table, "--to", to, "--column", "score", "--scored"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "1 left out: not scored" in result.output
    assert f"5 rows in {to}" in result.output
    assert len(pd.read_csv(to)) == 5


def test_no_row_to_write_has_an_exit_code_of_its_own(archive, tmp_path):
    uri = str(tmp_path / "scores")
    part = archive.frame[archive.frame["outcome"] != "scored"]
    storage.write_table(storage.join(tables.parts_uri(uri, "v1"), "a.parquet"), part.astype({"flag": "boolean"}))
    tables.seal(uri, version="v1", expected_row_ids=part["row_id"].to_numpy(), lineage={})
    result = CliRunner().invoke(app, ["export", "csv", uri, "--to", str(tmp_path / "out.csv"), "--scored"])
    assert result.exit_code == exits.REFUSED, result.output

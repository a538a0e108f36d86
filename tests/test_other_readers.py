"""DuckDB and Polars read a sealed score table by the queries of the reference, and find what we find."""

import json
import math
import re
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from sarc_ray import tables
from tests.drift import population

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "score-table.md"
PLACE = "runs/demo/scores/archive"


@pytest.fixture(scope="module")
def sealed(tmp_path_factory):
    """A table of two files, and one of an older version beside them that nobody must read."""
    uri = str(tmp_path_factory.mktemp("readers") / "scores")
    rng = np.random.default_rng(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "_FILE_BYTES", 10_000)
        population.seal(uri, population.draw(rng, 50), version="v0")
        frame = population.draw(rng, 600)
        frame.loc[:9, ["site", "device"]] = None
        frame.loc[:4, "gate_flags"] = "portable_ap"
        population.seal(uri, frame)
    assert len(tables.read_pointer(uri).files) == 2
    return uri


def page_code(language):
    """The one block of this language on the page that reads the table, with the table's place."""
    (block,) = [text for text in re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.S) if "parquet(" in text]
    return block


def test_the_query_for_duckdb_counts_as_we_do(sealed):
    with duckdb.connect() as connection:
        rows = connection.execute(page_code("sql").replace(PLACE, sealed)).fetchall()
    ours = tables.read(sealed)
    expected = ours.groupby(["outcome", "reason"])
    assert {(outcome, reason): n for outcome, reason, n, *_ in rows} == expected.size().to_dict()
    assert sum(n for _, _, n, *_ in rows) == 600
    by_reason = {reason: (mean, flagged) for _, reason, _, mean, flagged in rows}
    assert by_reason[""][0] == pytest.approx(ours["score"].mean(), rel=1e-12)
    assert by_reason[""][1] == ours["flag"].eq(True).sum() > 0
    assert by_reason["missing_bmi"] == (None, 0)


def test_the_lines_for_polars_run_as_they_stand(sealed, capsys):
    names = {}
    exec(page_code("python").replace(PLACE, sealed), names)
    assert "flagged" in capsys.readouterr().out
    found = {row["site"]: row for row in names["by_site"].collect().to_dicts()}
    ours = tables.read(sealed)
    flagged = ours[ours["flag"].eq(True)]
    assert set(found) == {None, "north", "south"}
    for site, row in found.items():
        own = flagged[flagged["site"].isna()] if site is None else flagged[flagged["site"] == site]
        assert row["flagged"] == len(own)
        assert row["score"] == pytest.approx(own["score"].mean(), rel=1e-12)


def read_by_duckdb(sealed):
    files = [f"{sealed}/{name}" for name in tables.read_pointer(sealed).files]
    with duckdb.connect() as connection:
        relation = connection.read_parquet(files).order("row_id")
        kinds = dict(zip(relation.columns, map(str, relation.types), strict=True))
        columns = zip(*relation.fetchall(), strict=True)
        return kinds, {name: list(values) for name, values in zip(relation.columns, columns, strict=True)}


def read_by_polars(sealed):
    files = json.loads(Path(sealed, "current.json").read_text())["files"]
    frame = pl.read_parquet([f"{sealed}/{name}" for name in files]).sort("row_id")
    return {name: str(kind) for name, kind in frame.schema.items()}, frame.to_dict(as_series=False)


KINDS = {
    read_by_duckdb: {"int64": "BIGINT", "string": "VARCHAR", "double": "DOUBLE", "bool": "BOOLEAN"},
    read_by_polars: {"int64": "Int64", "string": "String", "double": "Float64", "bool": "Boolean"},
}


@pytest.mark.parametrize("reader", [read_by_duckdb, read_by_polars])
def test_every_cell_and_type_is_the_same(sealed, reader):
    """Against Arrow, which knows nulls from NaN; and the values against our own reader."""
    kinds, found = reader(sealed)
    ours = pa.concat_tables(tables.iterate(sealed)).sort_by("row_id")
    assert kinds == {field.name: KINDS[reader][str(field.type)] for field in ours.schema}
    for name in ours.column_names:
        assert found[name] == ours[name].to_pylist(), name
    values = [value for column in found.values() for value in column if isinstance(value, float)]
    assert not any(math.isnan(value) for value in values)
    assert found["score"].count(None) == tables.read(sealed)["score"].isna().sum() > 0
    assert found["site"].count(None) == 10
    pd.testing.assert_series_equal(
        pd.Series(found["score"], dtype=float), tables.read(sealed)["score"], check_names=False, check_exact=True
    )

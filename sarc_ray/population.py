"""A scored population in numbers that may leave the house: by sex, age band and site, without small cells.

A small number of people in a cell can tell who they are, to somebody who knows the place. So a count of 1 to
``below - 1`` is left out, and so is what it could be computed from: a count's complement within its row, and a second
cell where the others of a grouping would add up to it. Zero is told. The evaluation's own tables are not touched.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd

from sarc_ray import storage, tables
from sarc_ray.errors import ConfigError, Outcome
from sarc_ray.run import Run, load_run

GROUPINGS = ("sex", "age_band", "site")
COUNTS = ("n_rows", "n_scored", "n_flagged")
# What each count is a part of.
_WHOLE = {"n_rows": "n_rows", "n_scored": "n_rows", "n_flagged": "n_scored"}
COLUMNS = ("grouping", "level", *COUNTS, "score_mean", "suppressed")
_UNKNOWN = "unknown"
_READ = ["outcome", "flag", "score", "sex", "age_years", "site"]


def load_run_for(table: str, overrides: Sequence[str]) -> Run:
    """A run that gives the age bands and the smallest cell: those of the preset ``paper``.

    Args:
        table: the score table.
        overrides: ``a.b=c`` assignments.
    """
    own = ["run.name=summary", f"run.directory={table}", f"data.derivation={table}"]
    return load_run("paper", [*own, *overrides])


def write_summary(table: str, to: str, run: Run) -> pd.DataFrame:
    """Summarise a score table for others, small cells left out, into a ``.csv`` or ``.parquet``.

    Raises:
        ConfigError: another ending, or the table is none of scores.
        StorageError: there is no sealed table, or the summary cannot be written.
    """
    if not to.endswith((".csv", ".parquet")):
        raise ConfigError(f"--to: found {to!r}; name a file that ends in .csv or .parquet")
    summary = summarise(table, age_band_edges_years=run.config.evaluation.age_band_edges_years)
    shown = suppress_small_cells(summary, below=run.config.score.small_cells_below)
    storage.write_table(to, shown)
    return shown


def summarise(uri: str, *, age_band_edges_years: Sequence[float]) -> pd.DataFrame:
    """Rows, scored rows, flagged rows and mean score of a score table, as a whole and by each of ``GROUPINGS``.

    Args:
        uri: a sealed score table, read file by file. Groupings that its bundle does not know are left out.
        age_band_edges_years: ascending; ages at an edge belong to the upper band.

    Returns:
        Shape (levels + 1, ``COLUMNS``), nothing suppressed.

    Raises:
        ConfigError: the table is none of scores.
        StorageError: there is no sealed table.
    """
    sums: dict[tuple[str, str], pd.Series] = {}
    for table in tables.iterate(uri):
        tables.check_scores(uri, table.column_names)
        frame = table.select([name for name in _READ if name in table.column_names]).to_pandas()
        for group, found in _sums(frame, age_band_edges_years).items():
            sums[group] = sums[group] + found if group in sums else found
    for grouping in GROUPINGS:
        # A column that no file fills says nothing; one that some files lack makes rows of "unknown".
        if {level for name, level in sums if name == grouping} == {_UNKNOWN}:
            del sums[grouping, _UNKNOWN]
    rows = [_row(grouping, level, found) for (grouping, level), found in sums.items()]
    order = {name: place for place, name in enumerate(("all", *GROUPINGS))}
    rows.sort(key=lambda row: (order[str(row["grouping"])], str(row["level"])))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def suppress_small_cells(summary: pd.DataFrame, *, below: int) -> pd.DataFrame:
    """Leave out counts of 1 to ``below - 1``, and what they could be computed from.

    Args:
        summary: as :func:`summarise` gives it.
        below: 0 or 1 leaves everything in.

    Returns:
        The same rows; counts become missing where they are left out, and ``suppressed`` says where any of a row did.
    """
    hidden_NC = pd.DataFrame(
        {name: _is_small(summary[name], below) for name in COUNTS}, index=summary.index, dtype=bool
    )
    # A count and the one that it is part of give the rest, which may be small.
    for whole, part in (("n_rows", "n_scored"), ("n_scored", "n_flagged")):
        hidden_NC[part] |= hidden_NC[whole] | _is_small(summary[whole] - summary[part], below)
    of_grouping = (summary["grouping"] != "all").to_numpy()
    for name in COUNTS:
        for grouping in summary.loc[of_grouping, "grouping"].unique():
            _hide_more(summary[summary["grouping"] == grouping], hidden_NC, name, below)
        for whole, part in (("n_rows", "n_scored"), ("n_scored", "n_flagged")):
            hidden_NC[part] |= hidden_NC[whole]
    shown = summary.copy()
    for name in COUNTS:
        shown[name] = summary[name].astype("Int64").mask(hidden_NC[name])
    shown["score_mean"] = summary["score_mean"].mask(hidden_NC["n_scored"])
    shown["suppressed"] = hidden_NC.any(axis=1)
    return shown


def _is_small(counts: pd.Series, below: int) -> pd.Series:
    return (counts > 0) & (counts < below)


def _hide_more(levels: pd.DataFrame, hidden_NC: pd.DataFrame, name: str, below: int) -> None:
    """Hide the next smallest levels until the total less those shown tells neither one level nor a small number.

    Zeros come last: who knows that nobody is there learns the one that is hidden beside them. And what all hidden
    levels lack of what they are part of must not be small either.
    """
    counts, whole = levels[name], levels[_WHOLE[name]]
    hidden = hidden_NC.loc[levels.index, name].copy()
    if not hidden.any():
        return
    free = levels[~hidden & (whole > 0)]
    for level in free.assign(zero=free[name] == 0).sort_values(["zero", name], kind="stable").index:
        rest = (whole - counts)[hidden].sum()
        if hidden[whole > 0].sum() > 1 and counts[hidden].sum() >= below and not 0 < rest < below:
            break
        hidden[level] = hidden_NC.loc[level, name] = True


def _sums(frame: pd.DataFrame, edges_years: Sequence[float]) -> dict[tuple[str, str], pd.Series]:
    scored = frame["outcome"] == Outcome.SCORED
    parts = pd.DataFrame(
        {
            "n_rows": 1,
            "n_scored": scored.astype(int),
            "n_flagged": (scored & frame["flag"].eq(True)).astype(int),
            "score_sum": frame["score"].where(scored, 0.0).fillna(0.0),
        }
    )
    sums = {("all", "all"): parts.sum()}
    levels = {"sex": frame.get("sex"), "site": frame.get("site")}
    if "age_years" in frame:
        levels["age_band"] = _age_bands(frame["age_years"], edges_years)
    for grouping, values in levels.items():
        if values is None:
            continue
        known = values.astype(object).where(values.notna(), _UNKNOWN).astype(str)
        for level, found in parts.groupby(known).sum().iterrows():
            sums[grouping, str(level)] = found
    return sums


def _age_bands(ages: pd.Series, edges_years: Sequence[float]) -> pd.Series:
    names = [f"<{edges_years[0]:g}"] if len(edges_years) else ["all ages"]
    names += [f"{low:g}-{high:g}" for low, high in itertools.pairwise(edges_years)]
    names += [f">={edges_years[-1]:g}"] if len(edges_years) else []
    place_N = np.searchsorted(np.asarray(edges_years, dtype=float), ages.to_numpy(dtype=float), side="right")
    return pd.Series(np.asarray(names, dtype=object)[place_N], index=ages.index).where(ages.notna(), None)


def _row(grouping: str, level: str, found: pd.Series) -> dict[str, object]:
    n_scored = int(found["n_scored"])
    return {
        "grouping": grouping,
        "level": level,
        **{name: int(found[name]) for name in COUNTS},
        "score_mean": float(found["score_sum"]) / n_scored if n_scored else float("nan"),
        "suppressed": False,
    }

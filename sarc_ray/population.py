"""A scored population in numbers that may leave the house: by sex, age band and site, without small cells.

A small number of people in a cell can tell who they are, to somebody who knows the place. So a count of rows of 1 to
``below - 1`` patients is left out, and so is what it could be computed from: a count's complement within its row, and a
second cell where the others of a grouping would add up to it. Forty radiographs of one patient are one patient. Zero is
told. The evaluation's own tables are not touched.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterator, Sequence

import numpy as np
import pandas as pd

from sarc_ray import storage, tables
from sarc_ray.config import assignment
from sarc_ray.errors import ConfigError, Outcome
from sarc_ray.run import Run, load_run

GROUPINGS = ("sex", "age_band", "site")
COUNTS = ("n_rows", "n_scored", "n_flagged")
# What each count is a part of.
_WHOLE = {"n_rows": "n_rows", "n_scored": "n_rows", "n_flagged": "n_scored"}
COLUMNS = ("grouping", "level", *COUNTS, "score_mean", "suppressed")
_PAIRS = (("n_rows", "n_scored"), ("n_scored", "n_flagged"))
# What a count leaves of the one that it is part of.
_REST = {"n_scored": "n_unscored", "n_flagged": "n_unflagged"}
_PARTS = (*COUNTS, *_REST.values())
# Of a summary that is not for others yet: patients behind each count, as many as it takes to see that they are enough.
PEOPLE = tuple(f"patients_{name}" for name in _PARTS)
_UNKNOWN = "unknown"
_READ = ["row_id", "patient_key", "outcome", "flag", "score", "sex", "age_years", "site"]


def load_run_for(table: str, overrides: Sequence[str]) -> Run:
    """A run that gives the age bands and the smallest cell: those of the preset ``paper``.

    Args:
        table: the score table.
        overrides: ``a.b=c`` assignments.
    """
    own = [assignment("run.directory", table), assignment("data.derivation", table)]
    return load_run("paper", ["run.name=summary", *own, *overrides])


def write_summary(table: str, to: str, run: Run) -> pd.DataFrame:
    """Summarise a score table for others, small cells left out, into a ``.csv`` or ``.parquet``.

    Raises:
        ConfigError: another ending, or the table is none of scores.
        StorageError: there is no sealed table, or the summary cannot be written.
    """
    if not to.endswith((".csv", ".parquet")):
        raise ConfigError(f"--to: found {to!r}; name a file that ends in .csv or .parquet")
    below = run.config.score.small_cells_below
    summary = summarise(table, age_band_edges_years=run.config.evaluation.age_band_edges_years, n_people=below)
    shown = suppress_small_cells(summary, below=below)
    storage.write_table(to, shown)
    return shown


def summarise(uri: str, *, age_band_edges_years: Sequence[float], n_people: int) -> pd.DataFrame:
    """Rows, scored rows, flagged rows and mean score of a score table, as a whole and by each of ``GROUPINGS``.

    Args:
        uri: a sealed score table, read file by file. Groupings that its bundle does not know are left out.
        age_band_edges_years: ascending; ages at an edge belong to the upper band.
        n_people: how many patients of each count to name at most; a row whose patient is not known is one of its own.

    Returns:
        Shape (levels + 1, ``COLUMNS`` and ``PEOPLE``), nothing suppressed.

    Raises:
        ConfigError: the table is none of scores.
        StorageError: there is no sealed table.
    """
    sums: dict[tuple[str, str], pd.Series] = {}
    people: dict[tuple[str, str], list[frozenset[Hashable]]] = {}
    for table in tables.iterate(uri):
        tables.check_scores(uri, table.column_names)
        frame = table.select([name for name in _READ if name in table.column_names]).to_pandas()
        for group, found, known in _sums(frame, age_band_edges_years, n_people):
            sums[group] = sums[group] + found if group in sums else found
            before = people.get(group, [frozenset()] * len(_PARTS))
            people[group] = [_first(one | other, n_people) for one, other in zip(before, known, strict=True)]
    for grouping in GROUPINGS:
        # A column that no file fills says nothing; one that some files lack makes rows of "unknown".
        if {level for name, level in sums if name == grouping} == {_UNKNOWN}:
            del sums[grouping, _UNKNOWN]
    rows = [_row(*group, found) | dict(zip(PEOPLE, people[group], strict=True)) for group, found in sums.items()]
    order = {name: place for place, name in enumerate(("all", *GROUPINGS))}
    rows.sort(key=lambda row: (order[str(row["grouping"])], str(row["level"])))
    return pd.DataFrame(rows, columns=[*COLUMNS, *PEOPLE])


def suppress_small_cells(summary: pd.DataFrame, *, below: int) -> pd.DataFrame:
    """Leave out counts of 1 to ``below - 1`` patients, and what they could be computed from.

    Args:
        summary: as :func:`summarise` gives it; without its sets of patients each row counts as a patient.
        below: 0 or 1 leaves everything in.

    Returns:
        The same rows, ``COLUMNS``; counts become missing where they are left out, and ``suppressed`` says where any of
        a row did.
    """
    people_NP = _people(summary, below)
    small_NP = people_NP.map(lambda known: 0 < len(known) < below)
    hidden_NC = small_NP[list(COUNTS)].astype(bool)
    # A count and the one that it is part of give the rest, which may be small.
    for whole, part in _PAIRS:
        hidden_NC[part] |= hidden_NC[whole] | small_NP[_REST[part]]
    of_grouping = (summary["grouping"] != "all").to_numpy()
    for name in COUNTS:
        for grouping in summary.loc[of_grouping, "grouping"].unique():
            _hide_more(summary[summary["grouping"] == grouping], people_NP, hidden_NC, name, below)
        for whole, part in _PAIRS:
            hidden_NC[part] |= hidden_NC[whole]
    shown = summary[list(COLUMNS)].copy()
    for name in COUNTS:
        shown[name] = summary[name].astype("Int64").mask(hidden_NC[name])
    shown["score_mean"] = summary["score_mean"].mask(hidden_NC["n_scored"])
    shown["suppressed"] = hidden_NC.any(axis=1)
    return shown


def _people(summary: pd.DataFrame, below: int) -> pd.DataFrame:
    """Up to ``below`` patients behind each count and each rest, as sets; shape (levels + 1, ``_PARTS``)."""
    if PEOPLE[0] in summary:
        return summary[list(PEOPLE)].set_axis(list(_PARTS), axis=1)
    sizes = {name: summary[name] for name in COUNTS}
    sizes |= {_REST[part]: summary[whole] - summary[part] for whole, part in _PAIRS}
    return pd.DataFrame(
        {
            name: pd.Series(
                [frozenset((level, k) for k in range(min(size, below))) for level, size in sizes[name].items()],
                index=summary.index,
                dtype=object,
            )
            for name in _PARTS
        }
    )


def _hide_more(levels: pd.DataFrame, people_NP: pd.DataFrame, hidden_NC: pd.DataFrame, name: str, below: int) -> None:
    """Hide the next smallest levels until the total less those shown tells neither one level nor a small number.

    Zeros come last: who knows that nobody is there learns the one that is hidden beside them. And what all hidden
    levels lack of what they are part of must not be small either.
    """
    whole = levels[_WHOLE[name]]
    hidden = hidden_NC.loc[levels.index, name].copy()
    if not hidden.any():
        return
    free = levels[~hidden & (whole > 0)]
    for level in free.assign(zero=free[name] == 0).sort_values(["zero", name], kind="stable").index:
        chosen = people_NP.loc[hidden[hidden].index]
        rest = _union(chosen[_REST[name]]) if name in _REST else frozenset()
        if hidden[whole > 0].sum() > 1 and len(_union(chosen[name])) >= below and not 0 < len(rest) < below:
            break
        hidden[level] = hidden_NC.loc[level, name] = True


def _union(sets: pd.Series) -> frozenset[Hashable]:
    return frozenset().union(*sets)


def _sums(
    frame: pd.DataFrame, edges_years: Sequence[float], n_people: int
) -> Iterator[tuple[tuple[str, str], pd.Series, list[frozenset[Hashable]]]]:
    """Of each level: its sums, and patients of each of ``_PARTS``."""
    scored = frame["outcome"] == Outcome.SCORED
    flagged = scored & frame["flag"].eq(True)
    parts = pd.DataFrame(
        {
            "n_rows": 1,
            "n_scored": scored.astype(int),
            "n_flagged": flagged.astype(int),
            "score_sum": frame["score"].where(scored, 0.0).fillna(0.0),
        }
    )
    # Numbers for texts: a million of these would take their time to be told apart twenty times.
    code_N, names = pd.factorize(_patients(frame))
    people = pd.Series(code_N, index=frame.index)
    masks = {"n_rows": scored | True, "n_scored": scored, "n_flagged": flagged}
    masks |= {"n_unscored": ~scored, "n_unflagged": scored & ~flagged}
    levels = {"all": pd.Series("all", index=frame.index), "sex": frame.get("sex"), "site": frame.get("site")}
    if "age_years" in frame:
        levels["age_band"] = _age_bands(frame["age_years"], edges_years)
    for grouping, values in levels.items():
        if values is None:
            continue
        known = values.astype(object).where(values.notna(), _UNKNOWN).astype(str)
        named = [_named(known[masks[name]], people[masks[name]], n_people) for name in _PARTS]
        for level, found in parts.groupby(known).sum().iterrows():
            yield (grouping, str(level)), found, [frozenset(names[one.get(str(level), [])]) for one in named]


def _patients(frame: pd.DataFrame) -> pd.Series:
    rows = "row " + frame["row_id"].astype(str)
    return frame["patient_key"].where(frame["patient_key"].notna(), rows) if "patient_key" in frame else rows


def _named(level_N: pd.Series, patient_N: pd.Series, n_people: int) -> dict[str, list[int]]:
    """The first patients of each level."""
    pairs = pd.DataFrame({"level": level_N, "patient": patient_N}).drop_duplicates()
    return {str(level): found.head(n_people).tolist() for level, found in pairs.groupby("level")["patient"]}


def _first(known: frozenset[Hashable], n_people: int) -> frozenset[Hashable]:
    return frozenset(itertools.islice(known, n_people))


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

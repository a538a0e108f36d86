"""The verb ``drift``: a scored population beside a reference, without labels.

Reads the score table, counts, compares, writes ``drift.parquet``, ``drift.csv`` and ``drift.svg``; or keeps the counts
as a reference for later. See :mod:`sarc_ray.drift`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sarc_ray import storage
from sarc_ray.config import assignment
from sarc_ray.drift.comparison import DRIFTED, JUDGED, WATCH, compare
from sarc_ray.drift.counting import count_groups, make_binnings
from sarc_ray.drift.reading import Scores, read_scores
from sarc_ray.drift.snapshot import ENDING, Snapshot, read_snapshot, to_keep, write_snapshot
from sarc_ray.drift.variables import variables_of
from sarc_ray.errors import ConfigError
from sarc_ray.report.drift import drift_svg
from sarc_ray.run import Run, load_run

_SHOWN = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class DriftRequest:
    """What to look at.

    Attributes:
        table: a sealed score table.
        reference: a snapshot (``.json``) or another score table; None compares nothing.
        save_reference: where to keep the table's counts (``.json``); None keeps none.
        to: folder for the comparison; None writes none.
        manifest: manifest that was scored, for what the table does not have; None for none.
        since: first month (YYYY-MM) of the table to look at; None from the beginning.
        until: last month.
    """

    table: str
    reference: str | None
    save_reference: str | None
    to: str | None
    manifest: str | None
    since: str | None
    until: str | None

    def __post_init__(self) -> None:
        if self.reference is None and self.save_reference is None:
            raise ConfigError("--reference, --save-reference: neither is given; name what to compare with, or to keep")
        if self.save_reference is not None and not self.save_reference.endswith(ENDING):
            raise ConfigError(f"--save-reference: found {self.save_reference!r}; name a file that ends in {ENDING}")
        if self.to is not None and self.reference is None:
            raise ConfigError("--to: nothing is compared; add --reference, or leave --to out")


@dataclass(frozen=True, kw_only=True, slots=True)
class Watched:
    """What came of it.

    Attributes:
        comparison: as :func:`sarc_ray.drift.comparison.compare` gives it; None where nothing was compared.
        kept: the snapshot that was written; None where none was.
    """

    comparison: pd.DataFrame | None
    kept: Snapshot | None

    @property
    def drifted(self) -> bool:
        """Whether any variable of any group has."""
        return self.comparison is not None and bool((self.comparison["status"] == DRIFTED).any())

    @property
    def unjudged(self) -> bool:
        """Whether a comparison was asked for, and no variable of any group could be judged."""
        return self.comparison is not None and not self.comparison["status"].isin(list(JUDGED)).any()


def load_run_for(request: DriftRequest, overrides: Sequence[str]) -> Run:
    """A run that gives the thresholds: those of the preset ``paper``.

    Args:
        request: what to look at.
        overrides: ``a.b=c`` assignments, for example ``drift.psi_drift=0.3``.
    """
    own = [assignment("run.directory", request.to or request.table), assignment("data.derivation", request.table)]
    return load_run("paper", ["run.name=drift", *own, *overrides])


def watch(request: DriftRequest, run: Run) -> Watched:
    """Count, keep, compare, write.

    Raises:
        ConfigError: the reference is none, months are none, or there are too few patients to refer to.
        ManifestError: the manifest does not belong to the table.
        StorageError: a table cannot be read, or a result not be written.
    """
    scores = read_scores(request.table, manifest=request.manifest, since=request.since, until=request.until)
    # Before anything is kept: it may be kept in the reference's place, for the next time.
    reference = None if request.reference is None else _reference(request.reference, run)
    kept = None
    if request.save_reference is not None:
        kept = to_keep(
            _counted(scores, run, request.table),
            multiple_of=run.config.score.small_cells_below,
            min_patients=run.config.drift.min_patients,
        )
        write_snapshot(request.save_reference, kept)
    if reference is None:
        return Watched(comparison=None, kept=kept)
    current = Snapshot(
        binnings=reference.binnings,
        groups=count_groups(scores.rows, reference.binnings),
        source=scores.source,
        multiple_of=1,
    )
    below = run.config.score.small_cells_below
    comparison = compare(reference, current, run.config.drift, small_cells_below=below)
    if request.to is not None:
        _write(request.to, comparison)
    return Watched(comparison=comparison, kept=kept)


def print_watched(console: Console, watched: Watched, request: DriftRequest) -> None:
    """Counts by verdict, the largest moves, and what was written."""
    if watched.kept is not None:
        n_patients = watched.kept.whole.n_patients["all"]
        groups = f"{len(watched.kept.groups) - 1} sites and devices"
        console.print(
            f"wrote {request.save_reference}: {n_patients} patients, {groups}; counts in multiples of "
            f"{watched.kept.multiple_of}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    comparison = watched.comparison
    if comparison is None:
        return
    counts = comparison["status"].value_counts()
    told = ", ".join(f"{name} {counts.get(name, 0)}" for name in JUDGED)
    further = ", ".join(f"{name} {count}" for name, count in counts.items() if name not in JUDGED)
    console.print(f"variables by group: {told}" + (f" (not judged: {further})" if further else ""), highlight=False)
    moved = comparison[comparison["status"].isin([WATCH, DRIFTED])].sort_values("psi", ascending=False)
    if len(moved):
        console.print(_table_of(moved.head(_SHOWN)))
    if len(moved) > _SHOWN:
        console.print(f"and {len(moved) - _SHOWN} more")
    if watched.unjudged:
        console.print("nothing could be judged: take more months, or keep a new reference of this model")
    if request.to is not None:
        text = f"wrote {storage.join(request.to, 'drift')}.parquet, .csv, .svg"
        console.print(text, markup=False, highlight=False, soft_wrap=True)


def _reference(uri: str, run: Run) -> Snapshot:
    if uri.endswith(ENDING):
        return read_snapshot(uri)
    scores = read_scores(uri, manifest=None, since=None, until=None)
    # The groups that a file of it would have: a month of it is no reference, nor is a site of a few patients.
    return to_keep(_counted(scores, run, uri), multiple_of=1, min_patients=run.config.drift.min_patients)


def _counted(scores: Scores, run: Run, uri: str) -> Snapshot:
    binnings = make_binnings(
        scores.rows,
        variables_of(scores.rows.schema),
        grid_cells=run.config.drift.grid_cells,
        at_least=max(1, run.config.score.small_cells_below),
    )
    counted = Snapshot(
        binnings=binnings, groups=count_groups(scores.rows, binnings), source=scores.source, multiple_of=1
    )
    n_patients = counted.whole.n_patients["all"]
    if n_patients < run.config.drift.min_patients:
        raise ConfigError(
            f"{uri}: {n_patients} patients are too few to refer to; drift.min_patients asks for "
            f"{run.config.drift.min_patients}: take more months, or lower it"
        )
    return counted


def _write(to: str, comparison: pd.DataFrame) -> None:
    for ending in ("parquet", "csv"):
        storage.write_table(storage.join(to, f"drift.{ending}"), comparison)
    picture = drift_svg(comparison)
    if picture is not None:
        storage.write_bytes(storage.join(to, "drift.svg"), picture)


def _table_of(moved: pd.DataFrame) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("group", "variable", "psi", "ks", "change", "status"):
        table.add_column(name, justify="right" if name in ("psi", "ks") else "left", no_wrap=name != "change")
    for row in moved.to_dict("records"):
        group = "all" if row["grouping"] == "all" else f"{row['grouping']} {row['level']}"
        ks = "" if pd.isna(row["ks"]) else f"{row['ks']:.2f}"
        cells = (group, str(row["variable"]), f"{row['psi']:.2f}", ks, str(row["change"]), str(row["status"]))
        # As text: names of sites and levels may hold what rich takes for markup.
        table.add_row(*(Text(cell) for cell in cells))
    return table

"""A reference: what a population looked like, as counts that may be kept and shared; no patient's row is in it.

Every count of a snapshot file is a multiple of ``score.small_cells_below``: those of categories each for itself, those
of numbers summed up from below. So no count is small, and neither is a difference of two known to better than that
multiple. The price: a share, and a distribution function at an edge, is off by half the multiple over n at most.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sarc_ray import storage
from sarc_ray.drift.counting import ALL, Binning, Group, IntArray
from sarc_ray.errors import ConfigError, SchemaVersionError

SCHEMA_VERSION = 1
KIND = "sarc-ray drift reference"
ENDING = ".json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """Counts of a population.

    Attributes:
        binnings: cells of each variable.
        groups: the whole, and its months, sites and devices.
        source: of which table: version, SHA-256 of its files, model, months, lineage.
        multiple_of: of what each count is a multiple; 1 where nothing was rounded.
    """

    binnings: Mapping[str, Binning]
    groups: tuple[Group, ...]
    source: Mapping[str, Any]
    multiple_of: int

    def group(self, grouping: str, level: str) -> Group | None:
        """One of the groups, or None."""
        return next((one for one in self.groups if (one.grouping, one.level) == (grouping, level)), None)

    @property
    def whole(self) -> Group:
        """All rows."""
        return next(one for one in self.groups if one.grouping == ALL)


def to_keep(snapshot: Snapshot, *, multiple_of: int, min_patients: int) -> Snapshot:
    """The snapshot as it may leave the house: counts rounded, groups of few patients and single months left out.

    Args:
        snapshot: as counted.
        multiple_of: 0 or 1 rounds nothing.
        min_patients: of a site or device that is kept.
    """
    step = max(1, multiple_of)
    kept = [
        one
        for one in snapshot.groups
        if one.grouping == ALL or (one.grouping != "month" and one.n_patients["all"] >= min_patients)
    ]
    return Snapshot(
        binnings=snapshot.binnings,
        groups=tuple(_rounded(one, snapshot.binnings, step) for one in kept),
        source=snapshot.source if step == 1 else _without_numbers(snapshot.source),
        multiple_of=step,
    )


def _without_numbers(source: Mapping[str, Any]) -> dict[str, Any]:
    """A table's lineage counts rows exactly, of which two references would tell the difference."""
    lineage = source.get("lineage", {})
    return {**source, "lineage": {name: value for name, value in lineage.items() if not isinstance(value, int | float)}}


def write_snapshot(uri: str, snapshot: Snapshot) -> None:
    """Write a snapshot as JSON.

    Raises:
        ConfigError: another ending.
        StorageError: it cannot be written.
    """
    if not uri.endswith(ENDING):
        raise ConfigError(f"--save-reference: found {uri!r}; name a file that ends in {ENDING}")
    content = {
        "kind": KIND,
        "schema_version": SCHEMA_VERSION,
        "source": dict(snapshot.source),
        "multiple_of": snapshot.multiple_of,
        "variables": {name: _binning_to_plain(one) for name, one in snapshot.binnings.items()},
        "groups": [_group_to_plain(one) for one in snapshot.groups],
    }
    storage.write_json(uri, content)


def read_snapshot(uri: str) -> Snapshot:
    """Read a snapshot that :func:`write_snapshot` wrote.

    Raises:
        ConfigError: the file is no snapshot.
        SchemaVersionError: written by a newer release.
        StorageError: it cannot be read.
    """
    found = storage.read_json(uri)
    if not isinstance(found, dict) or found.get("kind") != KIND:
        raise ConfigError(f"--reference: {uri} is no reference; make one with 'sarc-ray drift TABLE --save-reference'")
    if found.get("schema_version", 0) > SCHEMA_VERSION:
        raise SchemaVersionError(
            f"{uri}: schema version {found['schema_version']}, this release reads up to {SCHEMA_VERSION}; "
            "install a newer sarc-ray"
        )
    try:
        snapshot = Snapshot(
            binnings={name: _binning_of_plain(one) for name, one in found["variables"].items()},
            groups=tuple(_group_of_plain(one) for one in found["groups"]),
            source=found["source"],
            multiple_of=found["multiple_of"],
        )
        _check(snapshot)
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"--reference: {uri} is damaged ({type(error).__name__}: {error}); write it again") from error
    return snapshot


def _check(snapshot: Snapshot) -> None:
    """Raises ValueError where counts are not those of the cells, or there is no whole."""
    if sum(one.grouping == ALL for one in snapshot.groups) != 1:
        raise ValueError("no group, or several, of all rows")
    for group in snapshot.groups:
        for name, counts in group.cells.items():
            if counts.shape != (snapshot.binnings[name].n_cells + 1,) or counts.min() < 0:
                raise ValueError(f"counts of {name} that are not those of its cells")


def _rounded(group: Group, binnings: Mapping[str, Binning], step: int) -> Group:
    def nearest(counts: Any) -> IntArray:
        return (np.round(np.asarray(counts, dtype=np.float64) / step) * step).astype(np.int64)

    cells = {}
    for name, counts in group.cells.items():
        ends = nearest(np.cumsum(counts[:-1])) if binnings[name].kind == "number" else nearest(counts[:-1]).cumsum()
        cells[name] = np.append(np.diff(ends, prepend=0), nearest(counts[-1]))
    return Group(
        grouping=group.grouping,
        level=group.level,
        n_rows={name: int(nearest(n)) for name, n in group.n_rows.items()},
        n_patients={name: int(nearest(n)) for name, n in group.n_patients.items()},
        n_effective={name: n if step == 1 else float(nearest(n)) for name, n in group.n_effective.items()},
        cells=cells,
    )


def _binning_to_plain(one: Binning) -> dict[str, Any]:
    cells = {"edges": list(one.edges)} if one.kind == "number" else {"levels": list(one.levels)}
    return {"kind": one.kind, "rows": one.population, "of_model": one.of_model, **cells}


def _binning_of_plain(plain: Mapping[str, Any]) -> Binning:
    return Binning(
        kind=plain["kind"],
        population=plain["rows"],
        of_model=plain["of_model"],
        edges=tuple(float(edge) for edge in plain.get("edges", ())),
        levels=tuple(str(level) for level in plain.get("levels", ())),
    )


def _group_to_plain(one: Group) -> dict[str, Any]:
    return {
        "grouping": one.grouping,
        "level": one.level,
        "rows": dict(one.n_rows),
        "patients": dict(one.n_patients),
        "patients_effective": dict(one.n_effective),
        # Cells in the variable's order, then (categories) those of other levels, then missing values.
        "counts": {name: counts.tolist() for name, counts in one.cells.items()},
    }


def _group_of_plain(plain: Mapping[str, Any]) -> Group:
    return Group(
        grouping=plain["grouping"],
        level=plain["level"],
        n_rows=plain["rows"],
        n_patients=plain["patients"],
        n_effective=plain["patients_effective"],
        cells={name: np.asarray(counts, dtype=np.int64) for name, counts in plain["counts"].items()},
    )

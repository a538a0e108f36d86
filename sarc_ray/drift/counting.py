"""From a score table to counts: every variable over one set of cells, as a whole and by month, site and device.

N rows, K cells of a variable, G levels of a grouping. The last place of a variable's counts is that of missing values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sarc_ray.drift.variables import EMPTY_TEXTS, GROUPING_COLUMNS, GROUPINGS, Kind, Population, Variable
from sarc_ray.errors import Outcome

IntArray = npt.NDArray[np.int64]
ALL = "all"
OTHER = "(other)"
# An edge is a quantile, and so may be one patient's own value: rounded it is no longer.
_EDGE_DIGITS = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Binning:
    """How a variable's values become cells.

    Attributes:
        kind: ``number`` or ``category``.
        population: the rows that count.
        of_model: whether another model would say something else.
        edges: of a number, ascending; a value at an edge belongs to the cell below it. Both ends are open. A value
            that makes up a cell by itself has edges on both sides.
        levels: of a category; what is not among them falls into one last cell.
    """

    kind: Kind
    population: Population
    of_model: bool
    edges: tuple[float, ...]
    levels: tuple[str, ...]

    @property
    def n_cells(self) -> int:
        """Cells without that of missing values."""
        return len(self.edges if self.kind == "number" else self.levels) + 1

    def names(self) -> tuple[str, ...]:
        """Of the cells of a category."""
        return (*self.levels, OTHER)


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Counts of some rows.

    Attributes:
        grouping: ``all``, or one of ``GROUPINGS``.
        level: which month, site or device.
        n_rows: by population.
        n_patients: by population.
        n_effective: by population; as many patients with one row each say as much. With w rows of a patient it is
            (sum of w)^2 / sum of w^2 (Kish 1965), so where a few patients have most of the rows, it is far below
            ``n_patients``.
        cells: by variable, shape (K + 1,), missing values last.

    References:
        Kish L (1965). Survey Sampling. Wiley. 8.2, 11.7.
    """

    grouping: str
    level: str
    n_rows: Mapping[Population, int]
    n_patients: Mapping[Population, int]
    n_effective: Mapping[Population, float]
    cells: Mapping[str, IntArray]


def make_binnings(
    table: pa.Table, variables: Sequence[Variable], *, grid_cells: int, at_least: int
) -> dict[str, Binning]:
    """Cells by the table's own distribution: quantiles of numbers, levels of categories.

    Args:
        table: score rows.
        variables: of its columns.
        grid_cells: most cells of a number; fewer where these would hold less than twice ``at_least`` patients each.
        at_least: levels with fewer patients fall into the last cell.
    """
    scored = _scored(table)
    patient_N = pa.chunked_array([pa.array(_patients(table))])
    made = {}
    for variable in variables:
        column, patients = table[variable.name], patient_N
        if variable.population == "scored":
            column, patients = column.filter(scored), patients.filter(scored)
        edges: tuple[float, ...] = ()
        levels: tuple[str, ...] = ()
        if variable.kind == "number":
            edges = _quantiles(column, patients, grid_cells, at_least)
        else:
            levels = _levels(column, patients, variable.name, at_least)
        if edges or levels:
            made[variable.name] = Binning(
                kind=variable.kind,
                population=variable.population,
                of_model=variable.of_model,
                edges=edges,
                levels=levels,
            )
    return made


def count_groups(table: pa.Table, binnings: Mapping[str, Binning]) -> tuple[Group, ...]:
    """Counts of the whole table and of each of its months, sites and devices.

    Args:
        table: score rows; columns of ``binnings`` that it lacks are left out.
        binnings: of the variables.
    """
    known = {name: binning for name, binning in binnings.items() if name in table.column_names}
    cells = {name: _cells(table[name], name, binning) for name, binning in known.items()}
    rows = {"all": np.ones(len(table), dtype=bool), "scored": _scored(table).to_numpy(zero_copy_only=False)}
    patient_N = _patients(table)
    groups: list[Group] = []
    for grouping in (ALL, *GROUPINGS):
        level_N, levels = _level_codes(table, grouping)
        n_rows, n_patients, n_effective = {}, {}, {}
        for population, mask_N in rows.items():
            kept_N = mask_N & (level_N >= 0)
            n_rows[population] = np.bincount(level_N[kept_N], minlength=len(levels))
            n_patients[population], n_effective[population] = _patients_of(
                level_N[kept_N], patient_N[kept_N], len(levels)
            )
        counts = {}
        for name, binning in known.items():
            kept_N = rows[binning.population] & (level_N >= 0)
            width = binning.n_cells + 1
            flat = np.bincount(level_N[kept_N] * width + cells[name][kept_N], minlength=len(levels) * width)
            counts[name] = flat.reshape(len(levels), width).astype(np.int64)
        for place, level in enumerate(levels):
            groups.append(
                Group(
                    grouping=grouping,
                    level=level,
                    n_rows={name: int(found[place]) for name, found in n_rows.items()},  # type: ignore[misc]
                    n_patients={name: int(found[place]) for name, found in n_patients.items()},  # type: ignore[misc]
                    n_effective={name: float(found[place]) for name, found in n_effective.items()},  # type: ignore[misc]
                    cells={name: found[place] for name, found in counts.items()},
                )
            )
    return tuple(groups)


def _scored(table: pa.Table) -> pa.ChunkedArray:
    return pc.fill_null(pc.equal(table["outcome"], str(Outcome.SCORED)), False)


def _quantiles(column: pa.ChunkedArray, patients: pa.ChunkedArray, grid_cells: int, at_least: int) -> tuple[float, ...]:
    value_N = _floats(column)
    known_N = ~np.isnan(value_N)
    value_N, patient_N = value_N[known_N], patients.to_numpy()[known_N]
    n_cells = min(grid_cells, len(np.unique(patient_N)) // max(1, 2 * at_least))
    if n_cells < 2:
        return ()
    found = np.quantile(value_N, np.arange(1, n_cells) / n_cells, method="inverted_cdf")
    filling = {float(value) for value in found[1:][found[1:] == found[:-1]]}
    # A value of few patients with many rows is their own: no cell is made for it.
    heavy = {value for value in filling if len(np.unique(patient_N[value_N == value])) >= at_least}
    edges = {_rounded(value) for value in found.tolist() if value not in heavy}
    return tuple(sorted(edges.union(*(_around(value) for value in heavy))))


def _rounded(value: float) -> float:
    return float(f"{value:.{_EDGE_DIGITS}g}")


def _around(value: float) -> tuple[float, float]:
    """The nearest edges of few digits, one below the value and one at or above it.

    Without the lower one, pictures that all had 3,000 rows and now have 2,000 would stay in the same cell.
    """
    # Zero has no digits to go by.
    step = 10.0 ** (np.floor(np.log10(abs(value))) - _EDGE_DIGITS + 1) if value else 10.0**-_EDGE_DIGITS
    near = [_rounded(value + move * step) for move in (-2, -1, 0, 1, 2)]
    return max(edge for edge in near if edge < value), min(edge for edge in near if edge >= value)


def _levels(column: pa.ChunkedArray, patients: pa.ChunkedArray, name: str, at_least: int) -> tuple[str, ...]:
    pairs = pa.table({"level": _texts(column, name), "patient": patients})
    counted = pairs.group_by("level").aggregate([("patient", "count_distinct")]).to_pylist()
    return tuple(
        sorted(
            one["level"] for one in counted if one["level"] is not None and one["patient_count_distinct"] >= at_least
        )
    )


def _cells(column: pa.ChunkedArray, name: str, binning: Binning) -> IntArray:
    """The cell of each row, shape (N,); K for missing values."""
    if binning.kind == "number":
        value_N = _floats(column)
        cell_N = np.searchsorted(np.asarray(binning.edges), value_N, side="left")
        return np.where(np.isnan(value_N), binning.n_cells, cell_N).astype(np.int64)
    texts = _texts(column, name)
    place = pc.fill_null(pc.index_in(texts, pa.array(binning.levels, pa.string())), len(binning.levels))
    cells = pc.if_else(pc.is_null(texts), binning.n_cells, place)
    return cells.to_numpy().astype(np.int64)


def _floats(column: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    """Missing and infinite values as NaN."""
    value_N = np.asarray(column.cast(pa.float64()).to_numpy(), dtype=np.float64)
    return np.where(np.isfinite(value_N), value_N, np.nan)


def _texts(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    texts = column.cast(pa.string())
    empty = EMPTY_TEXTS.get(name)
    return pc.if_else(pc.equal(texts, ""), pa.scalar(empty, pa.string()), texts)


def _level_codes(table: pa.Table, grouping: str) -> tuple[IntArray, list[str]]:
    """The level of each row, shape (N,), -1 where it has none; and the levels' names, shape (G,)."""
    if grouping == ALL:
        return np.zeros(len(table), dtype=np.int64), [ALL]
    column = GROUPING_COLUMNS[grouping]
    if column not in table.column_names:
        return np.full(len(table), -1, dtype=np.int64), []
    texts = _texts(table[column], column)
    levels = sorted(value for value in pc.unique(texts).to_pylist() if value is not None)
    codes = pc.fill_null(pc.index_in(texts, pa.array(levels, pa.string())), -1)
    return codes.to_numpy().astype(np.int64), levels


def _patients(table: pa.Table) -> IntArray:
    """A number per patient, shape (N,); a row whose patient is not known is one of its own."""
    n_rows = len(table)
    if "patient_key" not in table.column_names:
        return np.arange(n_rows, dtype=np.int64)
    keys = table["patient_key"].combine_chunks()
    codes = pc.fill_null(keys.dictionary_encode().indices, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    return np.where(codes < 0, n_rows + np.arange(n_rows), codes)


def _patients_of(level_N: IntArray, patient_N: IntArray, n_levels: int) -> tuple[IntArray, npt.NDArray[np.float64]]:
    """Patients of each level, and how many of one row each they are worth; both of shape (G,)."""
    if not len(level_N):
        return np.zeros(n_levels, dtype=np.int64), np.zeros(n_levels)
    span = int(patient_N.max()) + 1
    pairs, rows = np.unique(level_N * span + patient_N, return_counts=True)
    n_rows, n_squared = (np.bincount(pairs // span, weights=rows**power, minlength=n_levels) for power in (1, 2))
    return np.bincount(pairs // span, minlength=n_levels), n_rows**2 / np.maximum(1.0, n_squared)

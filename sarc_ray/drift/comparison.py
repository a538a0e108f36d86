"""A population beside a reference: how far each variable has moved in each group, and whether that counts.

An alarm needs two things. The move is large: a stability index or a distance at its threshold. And chance does not make
it: its p-value, adjusted by Holm for all p-values of the comparison, is at or below the false alarm rate. So however
many months, sites, devices and variables there are, the chance of any alarm stays below that rate where nothing has
moved. Patients, not images, count as units: where some have many images, as many fewer as Kish's design effect says.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from sarc_ray.drift.counting import ALL, Binning, Group
from sarc_ray.drift.settings import DriftConfig
from sarc_ray.drift.snapshot import Snapshot
from sarc_ray.drift.variables import GROUPING_COLUMNS
from sarc_ray.stats.arrays import FloatArray
from sarc_ray.stats.drift import coarse_cells, distance_p_value, grid_distance, stability_index, stability_p_value
from sarc_ray.stats.hypothesis import holm

STABLE, WATCH, DRIFTED = "stable", "watch", "drifted"
TOO_FEW, OTHER_MODEL, ABSENT = "too_few", "other_model", "absent"
JUDGED = (STABLE, WATCH, DRIFTED)
COLUMNS = (
    "grouping",
    "level",
    "against",
    "variable",
    "kind",
    "n",
    "n_patients",
    "n_reference_patients",
    "psi",
    "psi_p_adjusted",
    "ks",
    "ks_margin",
    "ks_p_adjusted",
    "change",
    "status",
)
# Tenths of the reference, as the thresholds of the index are meant (Siddiqi 2006).
_INDEX_CELLS = 10
# A chi-square distribution is near enough from five expected (Cochran 1954).
_RARE = 5.0


@dataclass(frozen=True, kw_only=True, slots=True)
class _Pair:
    """One variable of one group, beside the group that it is compared with."""

    name: str
    binning: Binning
    group: Group
    reference: Group

    @property
    def n_patients(self) -> tuple[int, int]:
        """Of the reference, and of the group."""
        population = self.binning.population
        return int(self.reference.n_patients[population]), int(self.group.n_patients[population])

    @property
    def n_effective(self) -> tuple[float, float]:
        """Of the reference, and of the group: patients of one row each that would say as much."""
        population = self.binning.population
        return max(1.0, self.reference.n_effective[population]), max(1.0, self.group.n_effective[population])


def compare(reference: Snapshot, current: Snapshot, config: DriftConfig, *, small_cells_below: int) -> pd.DataFrame:
    """Compare every group of ``current`` with the reference.

    A site or device is compared with itself in the reference where that knows it, else with the whole reference, as
    months are.

    Args:
        reference: as kept.
        current: counted over the cells of the reference.
        config: thresholds.
        small_cells_below: numbers of rows and patients below it are left out, in groups that are too small to judge.

    Returns:
        One row per group and variable, ``COLUMNS``; a group with too few patients has one row in all.
    """
    same_model = reference.source.get("model_id") == current.source.get("model_id")
    rows = []
    for group in current.groups:
        if group.n_patients["all"] < config.min_patients:
            rows.append(_unjudged(group, TOO_FEW, below=small_cells_below))
            continue
        for pair in _pairs(reference, group):
            if pair.binning.of_model and not same_model:
                rows += [_unjudged(group, OTHER_MODEL, pair)] if group.grouping == ALL else []
            elif min(pair.n_patients) < config.min_patients:
                rows.append(_unjudged(group, TOO_FEW, pair, below=small_cells_below))
            else:
                rows.append(_measured(pair, reference.multiple_of))
    absent = [name for name in reference.binnings if name not in current.whole.cells]
    rows += [{**_unjudged(current.whole, ABSENT, below=small_cells_below), "variable": name} for name in absent]
    return _with_verdicts(pd.DataFrame(rows, columns=list(COLUMNS)), config)


def _pairs(reference: Snapshot, group: Group) -> Iterator[_Pair]:
    own = reference.group(group.grouping, group.level) or reference.whole
    # Within a site the site says nothing, and which devices it has says little beside the whole reference.
    idle = {GROUPING_COLUMNS.get(group.grouping)}
    if group.grouping in ("site", "device") and own is reference.whole:
        idle |= {"site", "device"}
    for name, binning in reference.binnings.items():
        if name in group.cells and name in own.cells and name not in idle:
            yield _Pair(name=name, binning=binning, group=group, reference=own)


def _unjudged(group: Group, status: str, pair: _Pair | None = None, *, below: int = 0) -> dict[str, Any]:
    population = "all" if pair is None else pair.binning.population
    counts = {"n": group.n_rows[population], "n_patients": group.n_patients[population]}
    shown = {name: None if 0 < count < below else count for name, count in counts.items()}
    name, kind = ("", "") if pair is None else (pair.name, pair.binning.kind)
    texts = {"grouping": group.grouping, "level": group.level, "against": "", "variable": name, "kind": kind}
    return {**texts, **shown, "change": "", "status": status}


def _measured(pair: _Pair, multiple_of: int) -> dict[str, Any]:
    """A row that is stable until the p-values of all rows are adjusted."""
    reference_K, current_K = (
        np.asarray(one.cells[pair.name], dtype=np.float64) for one in (pair.reference, pair.group)
    )
    n_reference, n_current = pair.n_patients
    before_B, after_B = _fold_rare(*(_index_cells(pair, counts_K) for counts_K in (reference_K, current_K)))
    index = stability_index(before_B, after_B)
    row = {
        "grouping": pair.group.grouping,
        "level": pair.group.level,
        "against": pair.reference.grouping,
        "variable": pair.name,
        "kind": pair.binning.kind,
        "n": pair.group.n_rows[pair.binning.population],
        "n_patients": n_current,
        "n_reference_patients": n_reference,
        "psi": index,
        "psi_p_adjusted": _index_p_value(index, pair, before_B, after_B, multiple_of),
        "change": _change(pair.binning, reference_K, current_K),
        "status": STABLE,
    }
    if pair.binning.kind == "number":
        found = grid_distance(reference_K[:-1], current_K[:-1])
        known = [
            max(1.0, n * (1 - _missing(counts_K)))
            for n, counts_K in zip(pair.n_effective, (reference_K, current_K), strict=True)
        ]
        sure = found.distance - _rounding(multiple_of) / max(1.0, reference_K[:-1].sum())
        row |= {
            "ks": found.distance,
            "ks_margin": found.margin,
            "ks_p_adjusted": distance_p_value(max(0.0, sure), n_reference=known[0], n_current=known[1]),
        }
    return row


def _index_p_value(index: float, pair: _Pair, before_B: FloatArray, after_B: FloatArray, multiple_of: int) -> float:
    """Rounding adds step^2 / 6 to the variance of a cell's rows, sampling of patients rows^2 / (cells n) to it.

    So it is as if n were smaller by the quotient.
    """
    n_reference, n_current = pair.n_effective
    n_cells = int(((before_B + after_B) > 0).sum())
    added = 2 * _rounding(multiple_of) ** 2 / 3 * n_cells * n_reference / max(1.0, before_B.sum()) ** 2
    return stability_p_value(index, n_reference=n_reference / (1 + added), n_current=n_current, n_cells=n_cells)


def _rounding(multiple_of: int) -> float:
    """By how much a count of the reference may be off."""
    return multiple_of / 2 if multiple_of > 1 else 0.0


def _index_cells(pair: _Pair, counts_K: FloatArray) -> FloatArray:
    """Tenths of the reference and missing values, or the levels of a category and missing values."""
    reference_K = pair.reference.cells[pair.name][:-1]
    if pair.binning.kind == "category" or not reference_K.sum():
        return counts_K
    coarse_K = coarse_cells(reference_K, _INDEX_CELLS)
    return np.append(np.bincount(coarse_K, weights=counts_K[:-1]), counts_K[-1])


def _fold_rare(before_B: FloatArray, after_B: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Cells in which fewer than five are expected and found become one; where that is rare too, part of the largest."""
    if before_B.sum() == 0 or after_B.sum() == 0:
        return before_B, after_B
    before_B, after_B = before_B.copy(), after_B.copy()
    rare_B = _is_rare(before_B, after_B)
    pooled = np.array([before_B[rare_B].sum(), after_B[rare_B].sum()])
    before_B[rare_B] = after_B[rare_B] = 0.0
    before_B, after_B = np.append(before_B, pooled[0]), np.append(after_B, pooled[1])
    if _is_rare(before_B, after_B)[-1]:
        largest = int(np.argmax(before_B[:-1]))
        for counts_B, n in ((before_B, pooled[0]), (after_B, pooled[1])):
            counts_B[largest] += n
            counts_B[-1] = 0.0
    return before_B, after_B


def _is_rare(before_B: FloatArray, after_B: FloatArray) -> Any:
    return (before_B / before_B.sum() * after_B.sum() < _RARE) & (after_B < _RARE)


def _missing(counts_K: FloatArray) -> float:
    return float(counts_K[-1] / counts_K.sum()) if counts_K.sum() else 0.0


def _change(binning: Binning, before_K: FloatArray, after_K: FloatArray) -> str:
    """What moved most, in words: the median of a number, the share of one cell of a category, or missing values."""
    if not before_K.sum() or not after_K.sum():
        return ""
    p_K, q_K = before_K / before_K.sum(), after_K / after_K.sum()
    names = ("",) * binning.n_cells if binning.kind == "number" else binning.names()
    gaps_K = np.abs(q_K - p_K)
    if binning.kind == "number" and gaps_K[-1] <= grid_distance(before_K[:-1], after_K[:-1]).distance:
        return f"median {_median(binning, before_K)} -> {_median(binning, after_K)}"
    most = len(gaps_K) - 1 if binning.kind == "number" else int(np.argmax(gaps_K))
    name = (*names, "missing")[most]
    return f"{name} {100 * p_K[most]:.1f}% -> {100 * q_K[most]:.1f}%"


def _median(binning: Binning, counts_K: FloatArray) -> str:
    """The upper edge of the cell that holds it; the two outer cells are open."""
    place = int(np.searchsorted(np.cumsum(counts_K[:-1]), counts_K[:-1].sum() / 2))
    if place == len(binning.edges):
        return f"above {binning.edges[-1]:.4g}"
    return f"{binning.edges[place]:.4g}" if place else f"up to {binning.edges[0]:.4g}"


def _with_verdicts(frame: pd.DataFrame, config: DriftConfig) -> pd.DataFrame:
    measures = ["psi", "psi_p_adjusted", "ks", "ks_margin", "ks_p_adjusted"]
    frame[measures] = frame[measures].astype(float)
    for name in ("n", "n_patients", "n_reference_patients"):
        frame[name] = frame[name].astype("Int64")
    p_names = ["psi_p_adjusted", "ks_p_adjusted"]
    adjusted = holm(frame[p_names].to_numpy().ravel()).reshape(-1, 2)
    frame[p_names] = adjusted
    judged = frame["status"] == STABLE
    for status, psi_from, ks_from in (
        (WATCH, config.psi_watch, config.ks_watch),
        (DRIFTED, config.psi_drift, config.ks_drift),
    ):
        index = (frame["psi"] >= psi_from) & (frame["psi_p_adjusted"] <= config.false_alarm_rate)
        distance = (frame["ks"] >= ks_from) & (frame["ks_p_adjusted"] <= config.false_alarm_rate)
        frame.loc[judged & (index | distance), "status"] = status
    return frame

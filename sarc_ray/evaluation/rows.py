"""The results table's rows: fixed columns, one place that fills them, and the split into strata."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from sarc_ray.errors import EvaluationError
from sarc_ray.evaluation.plan import BANDS, EvaluationConfig, EvaluationPlan
from sarc_ray.stats.bootstrap import MapBlocks
from sarc_ray.stats.hypothesis import holm

ALL_ROWS = "all"
MISSING = "missing"
# Values of a column that make subgroups. Measurements and identifiers have more.
_MAX_LEVELS = 100
_TEXT = (
    "dataset",
    "outcome",
    "score",
    "comparator",
    "metric",
    "subgroup",
    "method",
    "na_reason",
    "plan_hash",
    "run_id",
)
_FIGURES = ("estimate", "ci_low", "ci_high", "p_value", "p_adjusted")
_COUNTS = ("n", "n_events", "n_boot", "n_degenerate")
COLUMNS = (
    "dataset",
    "outcome",
    "score",
    "comparator",
    "metric",
    "subgroup",
    "estimate",
    "ci_low",
    "ci_high",
    "confidence_level",
    "p_value",
    "p_adjusted",
    "n",
    "n_events",
    "n_boot",
    "n_degenerate",
    "method",
    "na_reason",
    "plan_hash",
    "run_id",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Stratum:
    """Rows of one subgroup; ``name`` is ``all`` or ``column=value``."""

    name: str
    frame: pd.DataFrame


@dataclass(frozen=True, kw_only=True, slots=True)
class Key:
    """What a row is about, and how many rows and events it rests on; None where nothing was counted."""

    outcome: str
    score: str
    subgroup: str
    n: int | None
    n_events: int | None
    comparator: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sheet:
    """Collects the rows of one data set; ``seed_of`` gives each computation a stream of its own.

    ``map_blocks`` spreads the blocks of a bootstrap's replicates; as :func:`map`.
    """

    dataset: str
    plan: EvaluationPlan
    run_id: str
    seed: int
    map_blocks: MapBlocks = map
    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, key: Key, metric: str, **values: Any) -> None:
        """Append one row; an estimate that is NaN must carry, or gets, a reason."""
        row: dict[str, Any] = dict.fromkeys(_TEXT, "")
        row |= dict.fromkeys(_FIGURES, np.nan) | dict.fromkeys(_COUNTS, pd.NA)
        row |= {"dataset": self.dataset, "metric": metric, "run_id": self.run_id, "plan_hash": self.plan.plan_hash}
        row["confidence_level"] = self.plan.config.confidence_level
        row |= {"outcome": key.outcome, "score": key.score, "comparator": key.comparator, "subgroup": key.subgroup}
        row |= {"n": pd.NA if key.n is None else key.n, "n_events": pd.NA if key.n_events is None else key.n_events}
        row |= values
        if np.isnan(row["estimate"]) and not row["na_reason"]:
            row["na_reason"] = "not defined for these rows"
        self.rows.append(row)

    def add_missing(self, key: Key, methods: Mapping[str, str], reason: str) -> None:
        """Append one row without a figure for every planned metric."""
        for metric, method in methods.items():
            self.add(key, metric, method=method, na_reason=reason)

    def seed_of(self, *names: str) -> list[int]:
        """Entropy that depends on the run's seed and on what is computed, not on what else the plan holds."""
        return seed_of(self.seed, self.dataset, *names)

    def bootstrap_settings(self, *names: str, patient_N: npt.NDArray[np.int64] | None) -> dict[str, Any]:
        """What every bootstrap of the plan shares, for the computation of these names.

        ``patient_N`` is None where every row is a patient of its own.
        """
        return {
            "n_boot": self.plan.config.n_boot,
            "confidence_level": self.plan.config.confidence_level,
            "kind": self.plan.config.interval,
            "seed": self.seed_of(*names),
            "patient": patient_N,
            "map_blocks": self.map_blocks,
        }

    def to_frame(self) -> pd.DataFrame:
        """The rows as a table with the columns ``COLUMNS``; counts are nullable integers.

        P-values of comparisons with the outcome are adjusted for their number in this data set, where the plan says so.
        """
        table = pd.DataFrame(self.rows, columns=list(COLUMNS))
        if self.plan.config.multiplicity == "holm":
            family_N = ((table["comparator"] != "") & (table["outcome"] == self.plan.outcome_name)).to_numpy()
            table.loc[family_N, "p_adjusted"] = holm(table.loc[family_N, "p_value"].to_numpy(dtype=np.float64))
        numbers = [name for name in COLUMNS if name not in _TEXT and name not in _COUNTS]
        return table.astype(
            dict.fromkeys(_TEXT, "str") | dict.fromkeys(_COUNTS, "Int64") | dict.fromkeys(numbers, "float64")
        )


def seed_of(seed: int, *names: str) -> list[int]:
    """Entropy of what bears these names: for each of them another stream of the same seed.

    >>> seed_of(1, "a")[0], seed_of(1, "a") == seed_of(1, "b")
    (1, False)
    """
    digest = hashlib.sha256("\n".join(names).encode("utf-8")).digest()
    return [seed, int.from_bytes(digest[:8], "big")]


def strata(frame: pd.DataFrame, config: EvaluationConfig) -> Iterable[Stratum]:
    """Yield all rows, then each value of each subgroup column in sorted order; missing values are a stratum too.

    Columns that make no subgroups are left out here; see :func:`absent_subgroups`.
    """
    yield Stratum(name=ALL_ROWS, frame=frame)
    absent = absent_subgroups(frame, config)
    for column in (name for name in config.subgroups if name not in absent):
        levels = _levels(frame, column, config).to_numpy(dtype=object)
        for level, rows in sorted(pd.Series(levels).groupby(levels).indices.items()):
            yield Stratum(name=f"{column}={level}", frame=frame.iloc[rows])


def absent_subgroups(frame: pd.DataFrame, config: EvaluationConfig) -> dict[str, str]:
    """Planned columns that make no subgroups of this frame, and why.

    The frame lacks them (``age_band`` needs ``age_years``, ``bmi_band`` ``bmi_kg_m2``), or they have so many values
    that each stands for hardly anybody.
    """
    reasons: dict[str, str] = {}
    for name in config.subgroups:
        column = BANDS[name][0] if name in BANDS else name
        if column in frame and name not in BANDS and frame[column].nunique() > _MAX_LEVELS:
            reasons[name] = (
                f"the column {column} has {frame[column].nunique():,} values, and {_MAX_LEVELS} at most make "
                "subgroups; group them in a column of their own"
            )
        if column not in frame:
            made_of = f", of which {name} is made" if column != name else ""
            reasons[name] = (
                f"the data set has no column {column}{made_of}; add it to the manifest, or leave the subgroup {name} "
                "out of the plan"
            )
    return reasons


def empty_bands(frame: pd.DataFrame, config: EvaluationConfig) -> dict[str, str]:
    """Planned bands, named as their strata, into which no row falls, and that this is why they have no figures."""
    reasons: dict[str, str] = {}
    for column in (name for name in config.subgroups if name in BANDS):
        if column not in absent_subgroups(frame, config):
            found = set(_levels(frame, column, config))
            empty = [name for name in _band_names(column, config) if name not in found]
            reasons |= {f"{column}={name}": "no scored row falls into this band" for name in empty}
    return reasons


def size_reason(n: int, n_events: int, *, min_cell_size: int, min_events: int) -> str:
    """Why so many rows, of which so many with the outcome, get no figures of the outcome; empty where they do.

    >>> size_reason(30, 2, min_cell_size=20, min_events=5)
    '2 rows with the outcome are below min_events = 5'
    """
    if n < min_cell_size:
        return f"n = {n} is below min_cell_size = {min_cell_size}"
    for which, found in (("with", n_events), ("without", n - n_events)):
        if found < min_events:
            return f"{found} rows {which} the outcome are below min_events = {min_events}"
    return ""


def numbers(frame: pd.DataFrame, column: str) -> npt.NDArray[np.float64]:
    """A column as float64 with NaN for missing values.

    Raises:
        EvaluationError: the column is absent or holds something that is not a number, or not a finite one.
    """
    if column not in frame:
        raise EvaluationError(f"column {column}: missing; evaluation needs it; columns found: {list(frame.columns)}")
    try:
        values = pd.to_numeric(frame[column]).to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise EvaluationError(f"column {column}: expected numbers or nothing: {error}") from error
    if np.isinf(values).any():
        raise EvaluationError(f"column {column}: {np.isinf(values).sum()} values are infinite; leave them empty")
    return values


def _levels(frame: pd.DataFrame, column: str, config: EvaluationConfig) -> pd.Series:
    if column not in BANDS:
        return frame[column].map(lambda value: MISSING if pd.isna(value) else _text(value))
    source, setting = BANDS[column]
    names, value_N = _band_names(column, config), numbers(frame, source)
    band_N = np.searchsorted(np.asarray(getattr(config, setting)), value_N, side="right")
    levels = [MISSING if np.isnan(value) else names[b] for value, b in zip(value_N, band_N, strict=True)]
    return pd.Series(levels, index=frame.index, dtype="str")


def _band_names(column: str, config: EvaluationConfig) -> list[str]:
    edges = getattr(config, BANDS[column][1])
    return [f"<{edges[0]:g}", *(f"{a:g}-<{b:g}" for a, b in itertools.pairwise(edges)), f">={edges[-1]:g}"]


def _text(value: Any) -> str:
    """A level as text; numbers in full, since a rounded code would be another one's."""
    if not isinstance(value, float | np.floating):
        return str(value)
    return str(int(value)) if value.is_integer() else repr(float(value))

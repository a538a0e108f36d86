"""The paper's Table 1 for any cohort: characteristics of patients with and without the outcome."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from sarc_ray.cohort import definitions
from sarc_ray.errors import EvaluationError
from sarc_ray.evaluation.rows import numbers
from sarc_ray.stats import hypothesis
from sarc_ray.stats.arrays import FloatArray

GROUPS = ("with", "without")
_NUMBERS = ("n", "n_missing", "mean", "sd", "median", "q1", "q3", "count", "percent")
COLUMNS = (
    "variable",
    "with",
    "without",
    "p",
    "p_value",
    "test",
    "smd",
    "n_missing",
    *(f"{name}_{group}" for group in GROUPS for name in _NUMBERS),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class TableVariable:
    """One row of Table 1.

    Args:
        column: of the frame, or one of the derived ones (``low_hgs``, ``low_crt``, ``low_almi``,
            ``low_muscle_function``, ``almi_kg_m2``).
        label: as printed, with the unit.
        summary: ``mean`` (mean and SD, t-test), ``median`` (median and quartiles, Wilcoxon rank-sum) or ``count``
            (n and percent, chi-square).
        level: for ``count``, the value counted.
    """

    column: str
    label: str
    summary: Literal["mean", "median", "count"]
    level: str | float | None = None


# The rows of the paper's Table 1 in its order (Ryu et al. 2023).
PAPER_VARIABLES = (
    TableVariable(column="age_years", label="Age, years", summary="mean"),
    TableVariable(column="sex", label="Women, n (%)", summary="count", level="F"),
    TableVariable(column="bmi_kg_m2", label="BMI, kg/m2", summary="mean"),
    TableVariable(column="hgs_kg", label="HGS, kg", summary="mean"),
    TableVariable(column="low_hgs", label="Low HGS, n (%)", summary="count", level=1.0),
    TableVariable(column="crt_s", label="CRT, s", summary="median"),
    TableVariable(column="low_crt", label="Low CRT, n (%)", summary="count", level=1.0),
    TableVariable(column="low_muscle_function", label="Low muscle function, n (%)", summary="count", level=1.0),
    TableVariable(column="almi_kg_m2", label="ALMI, kg/m2", summary="mean"),
    TableVariable(column="low_almi", label="Low ALMI, n (%)", summary="count", level=1.0),
    TableVariable(column="osteoporosis", label="Osteoporosis, n (%)", summary="count", level=1.0),
    TableVariable(column="previous_fracture", label="Previous fracture, n (%)", summary="count", level=1.0),
    TableVariable(column="hypertension", label="Hypertension, n (%)", summary="count", level=1.0),
    TableVariable(column="diabetes", label="Diabetes, n (%)", summary="count", level=1.0),
)
# Derived column -> the columns it is computed from, and how.
_DERIVED: dict[str, tuple[tuple[str, ...], Callable[[pd.DataFrame], pd.Series]]] = {
    "low_hgs": (("hgs_kg", "sex"), definitions.low_hgs),
    "low_crt": (("crt_s",), definitions.low_crt),
    "low_muscle_function": (("hgs_kg", "crt_s", "sex"), definitions.low_muscle_function),
    "almi_kg_m2": (("alm_kg", "height_m"), definitions.almi_kg_m2),
    "low_almi": (("alm_kg", "height_m", "sex"), definitions.low_almi),
}


def table_one(
    frame: pd.DataFrame, *, by: str = "outcome", variables: Sequence[TableVariable] = PAPER_VARIABLES
) -> pd.DataFrame:
    """Describe patients with and without the outcome.

    Args:
        frame: ``by`` is 0, 1 or missing. Of the rows with one ``patient_id`` the first stands for the patient, before
            it the first whose ``by`` is known; without such a column every row is a patient. Patients without ``by``
            are left out; the first row of the table counts them in ``n_missing``.
        by: the grouping column.
        variables: rows of the table; those whose columns the frame lacks, or that hold no value, are left out.

    Returns:
        Columns ``COLUMNS``: printed texts ``with``, ``without`` and ``p``, then ``p_value``, ``test``, ``smd``
        (with - without, standardised), ``n_missing``, and the numbers of each group (``n_with``, ``mean_with``, ...;
        NaN where they do not apply). SD has ddof 1; quartiles interpolate linearly. Tests are two-sided and use the
        rows that have a value: pooled t-test, Wilcoxon rank-sum, Pearson's chi-square without Yates's correction.
        p is empty where a test is not defined.

    Raises:
        EvaluationError: ``by`` is absent or holds something other than 0, 1 or nothing.
    """
    label_N = numbers(frame, by)
    wrong = label_N[~np.isnan(label_N) & (label_N != 0) & (label_N != 1)]
    if wrong.size:
        raise EvaluationError(f"column {by}: found {wrong[0]:g}; allowed: 0, 1 or nothing")
    if "patient_id" in frame:
        order = np.argsort(np.isnan(label_N), kind="stable")
        first_N = ~frame["patient_id"].iloc[order].duplicated().to_numpy()
        frame, label_N = frame.iloc[order[first_N]], label_N[order[first_N]]
    groups = {"with": frame[label_N == 1], "without": frame[label_N == 0]}
    lines = [_patients_line(groups, n_missing=int(np.isnan(label_N).sum()))]
    for variable in variables:
        values = {name: _values(group, variable) for name, group in groups.items()}
        if values["with"] is not None and values["without"] is not None:
            line = _line(variable, values["with"], values["without"])
            lines += [] if line is None else [line]
    return pd.DataFrame(lines, columns=list(COLUMNS))


def format_p(p_value: float) -> str:
    """Print a p-value as the paper does: three places, ``<0.001`` below; empty for NaN.

    >>> format_p(0.0451), format_p(0.0002)
    ('0.045', '<0.001')
    """
    if np.isnan(p_value):
        return ""
    return "<0.001" if p_value < 0.001 else f"{p_value:.3f}"


def _patients_line(groups: dict[str, pd.DataFrame], *, n_missing: int) -> dict[str, Any]:
    total = sum(len(group) for group in groups.values())
    line: dict[str, Any] = {"variable": "Patients, n (%)", "p": "", "test": "", "n_missing": n_missing}
    for name, group in groups.items():
        percent = 100 * len(group) / total if total else np.nan
        line |= {name: f"{len(group)} ({percent:.0f})", f"n_{name}": len(group), f"n_missing_{name}": 0}
        line |= {f"count_{name}": len(group), f"percent_{name}": percent}
    return line


def _values(group: pd.DataFrame, variable: TableVariable) -> FloatArray | None:
    """The variable's values with NaN for missing; for ``count`` 1 where the level is met. None: column absent."""
    column = variable.column
    if column in group:
        series = group[column]
    elif column in _DERIVED and set(_DERIVED[column][0]) <= set(group.columns):
        series = _DERIVED[column][1](group)
    else:
        return None
    if variable.summary == "count":
        met = (series == variable.level).astype(np.float64).to_numpy(dtype=np.float64, na_value=np.nan)
        return np.where(series.isna().to_numpy(dtype=bool), np.nan, met)
    return numbers(series.to_frame(column), column)


def _line(variable: TableVariable, with_N: FloatArray, without_N: FloatArray) -> dict[str, Any] | None:
    missing = {"with": int(np.isnan(with_N).sum()), "without": int(np.isnan(without_N).sum())}
    known = {"with": with_N[~np.isnan(with_N)], "without": without_N[~np.isnan(without_N)]}
    if known["with"].size + known["without"].size == 0:
        return None
    line: dict[str, Any] = {"variable": variable.label, "n_missing": sum(missing.values())}
    for name, values in known.items():
        text, figures = _summary(variable.summary, values)
        line |= {name: text, f"n_{name}": values.size, f"n_missing_{name}": missing[name]}
        line |= {f"{figure}_{name}": value for figure, value in figures.items()}
    if min(values.size for values in known.values()) == 0:
        return line | {"p": "", "p_value": np.nan, "test": "", "smd": np.nan}
    test, smd = _compare(variable.summary, known["with"], known["without"])
    return line | {"p": format_p(test.p_value), "p_value": test.p_value, "test": test.name, "smd": smd}


def _summary(summary: str, values: FloatArray) -> tuple[str, dict[str, float]]:
    if values.size == 0:
        return "", {}
    if summary == "mean":
        mean, sd = float(values.mean()), float(values.std(ddof=1)) if values.size > 1 else float("nan")
        return f"{mean:.1f} +/- {sd:.1f}", {"mean": mean, "sd": sd}
    if summary == "median":
        q1, median, q3 = (float(value) for value in np.quantile(values, [0.25, 0.5, 0.75]))
        return f"{median:.1f} [{q1:.1f}-{q3:.1f}]", {"median": median, "q1": q1, "q3": q3}
    count, percent = float(values.sum()), float(100 * values.mean())
    return f"{count:.0f} ({percent:.0f})", {"count": count, "percent": percent}


def _compare(summary: str, with_N: FloatArray, without_N: FloatArray) -> tuple[hypothesis.GroupTest, float]:
    if summary == "mean":
        return hypothesis.t_test(with_N, without_N), hypothesis.smd_means(with_N, without_N)
    if summary == "median":
        return hypothesis.rank_sum(with_N, without_N), hypothesis.smd_means(with_N, without_N)
    hits = [with_N.sum(), without_N.sum()]
    test = hypothesis.chi_square([[hits[0], with_N.size - hits[0]], [hits[1], without_N.size - hits[1]]])
    return test, hypothesis.smd_shares(float(with_N.mean()), float(without_N.mean()))

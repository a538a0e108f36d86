"""The learning goals of the ``proof`` run: how near the ideal predictor a trained one must come.

The ideal is the joint posterior given everything that was drawn into the simulated pictures, on the same patients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from sarc_ray.errors import EvaluationError
from sarc_ray.evaluation.rows import ALL_ROWS


@dataclass(frozen=True, kw_only=True, slots=True)
class Goal:
    """A bound on one figure of the results table.

    Args:
        outcome: a target or the outcome of stage 2, as the results table names it; None stands for the latter.
        metric: of the results table, or ``auroc_ratio``: the score's AUROC over the Bayes score's.
        low: smallest figure allowed, or None.
        high: largest figure allowed, or None.
        n_min: fewest patients that the figure must rest on.
    """

    outcome: str | None
    metric: str
    low: float | None
    high: float | None
    n_min: int


def _of_targets(names: Sequence[str], metric: str, low: float | None, high: float | None) -> list[Goal]:
    return [Goal(outcome=name, metric=metric, low=low, high=high, n_min=2000) for name in names]


GOALS: tuple[Goal, ...] = (
    *_of_targets(["alm_kg"], "explained_variance_ratio", 0.93, None),
    *_of_targets(["hgs_kg"], "explained_variance_ratio", 0.90, None),
    *_of_targets(["alm_kg", "hgs_kg"], "nll_difference", None, 0.05),
    *_of_targets(["alm_kg", "hgs_kg"], "coverage_90", 0.87, 0.93),
    *_of_targets(["alm_kg"], "sigma_spearman", 0.6, None),
    Goal(outcome=None, metric="auroc_ratio", low=0.95, high=None, n_min=5000),
)


def check_goals(results: pd.DataFrame, *, dataset: str, goals: Sequence[Goal] = GOALS) -> pd.DataFrame:
    """Compare a results table with goals.

    Args:
        results: long form, of an evaluation that had the simulator's truth.
        dataset: its rows that count.
        goals: what to reach.

    Returns:
        A row per goal: ``outcome, metric, found, ci_low, ci_high, allowed, n, met``. A figure that rests on fewer
        patients than the goal asks for does not meet it.

    Raises:
        EvaluationError: a figure is absent, as where the truth was not given.
    """
    overall = results[(results["dataset"] == dataset) & (results["subgroup"] == ALL_ROWS)]
    return pd.DataFrame([_compared(overall, goal, dataset) for goal in goals])


def _compared(overall: pd.DataFrame, goal: Goal, dataset: str) -> dict[str, object]:
    found = _auroc_ratio(overall, dataset) if goal.metric == "auroc_ratio" else _row(overall, goal, dataset)
    estimate = float(found["estimate"])
    low, high = goal.low, goal.high
    inside = (low is None or estimate >= low) and (high is None or estimate <= high)
    return {
        "outcome": found["outcome"],
        "metric": goal.metric,
        "found": estimate,
        "ci_low": found["ci_low"],
        "ci_high": found["ci_high"],
        "allowed": _allowed(goal),
        "n": int(found["n"]),
        "met": bool(inside and found["n"] >= goal.n_min),
    }


def _row(overall: pd.DataFrame, goal: Goal, dataset: str) -> pd.Series:
    rows = overall[(overall["outcome"] == goal.outcome) & (overall["metric"] == goal.metric)]
    rows = rows[rows["score"] == f"{goal.outcome}_mu"]
    return _only(rows, f"{goal.outcome}, {goal.metric}", dataset)


def _auroc_ratio(overall: pd.DataFrame, dataset: str) -> pd.Series:
    """The ratio has no interval of its own: its terms come from the same patients."""
    # Empty in a table of ours, missing in one read back from CSV.
    auroc = overall[(overall["metric"] == "auroc") & (overall["comparator"].fillna("") == "")]
    own = _only(auroc[auroc["score"] == "score"], "auroc of score", dataset)
    ideal = _only(auroc[auroc["score"] == "ideal"], "auroc of ideal", dataset)
    return pd.Series({**own, "estimate": own["estimate"] / ideal["estimate"], "ci_low": None, "ci_high": None})


def _only(rows: pd.DataFrame, what: str, dataset: str) -> pd.Series:
    if len(rows) != 1 or rows["estimate"].isna().any():
        raise EvaluationError(
            f"results of {dataset}: found {len(rows)} usable rows of {what}, needed is 1; evaluate simulated patients "
            "with data.truth set"
        )
    return rows.iloc[0]


def _allowed(goal: Goal) -> str:
    bounds = [f">= {goal.low:g}"] if goal.low is not None else []
    bounds += [f"<= {goal.high:g}"] if goal.high is not None else []
    return f"{' and '.join(bounds)}, n >= {goal.n_min}"

"""The ladder's table: AUROC of each rung, and what each rung adds to the one before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from sarc_ray.evaluation.row_values import auroc_values, compared_values
from sarc_ray.evaluation.rows import numbers, size_reason
from sarc_ray.stats.discrimination import auroc_interval, delong_paired

AUROC, DIFFERENCE = "auroc", "auroc_difference"
COLUMNS = (
    "dataset",
    "learner",
    "algorithm",
    "rung",
    "comparator",
    "metric",
    "estimate",
    "ci_low",
    "ci_high",
    "confidence_level",
    "p_value",
    "n",
    "n_events",
    "method",
    "na_reason",
    "run_id",
)
_METHODS = {AUROC: "DeLong", DIFFERENCE: "DeLong paired, two-sided"}


@dataclass(frozen=True, kw_only=True, slots=True)
class LadderPlan:
    """What is stated of every row of one ladder.

    Attributes:
        dataset: name in the results.
        learner: ``chosen``, or the second opinion's name.
        algorithm: key of ``ALGORITHMS``.
        confidence_level: of the intervals.
        min_cell_size: fewer rows get no figures.
        min_events: fewer rows with the outcome, or without, get none.
        run_id: of the evaluating run.
    """

    dataset: str
    learner: str
    algorithm: str
    confidence_level: float
    min_cell_size: int
    min_events: int
    run_id: str


def ladder_rows(frame: pd.DataFrame, rungs: Sequence[str], *, plan: LadderPlan) -> pd.DataFrame:
    """AUROC of each rung, its difference from the rung before it, and of the last rung from the first learned one.

    A difference is of the rows that have both scores. Analytic intervals and tests assume one row per patient: where
    patients repeat they are left out with the reason.

    Args:
        frame: one row per image: ``patient_id``, ``outcome`` (0, 1 or missing), and a column of scores for each rung,
            NaN where a row has none.
        rungs: their columns, lowest first.
        plan: what the rows state.

    Returns:
        Columns ``COLUMNS``; the difference is rung - comparator.

    Raises:
        EvaluationError: a column is absent or holds something else.
    """
    labelled = frame[~np.isnan(numbers(frame, "outcome"))]
    rows = [_row(labelled, plan, rung, "") for rung in rungs]
    pairs = list(zip(rungs[1:], rungs[:-1], strict=True))
    learned = [rung for rung in rungs if rung != "sarc_f"]
    if len(learned) > 2:
        pairs.append((learned[-1], learned[0]))
    rows += [_row(labelled, plan, rung, comparator) for rung, comparator in pairs]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    return table.astype({"estimate": "float64", "ci_low": "float64", "ci_high": "float64", "p_value": "float64"})


def _row(labelled: pd.DataFrame, plan: LadderPlan, rung: str, comparator: str) -> dict[str, Any]:
    columns = [rung, *([comparator] if comparator else [])]
    rows = labelled[labelled[columns].notna().all(axis=1)]
    label_N = numbers(rows, "outcome")
    metric = DIFFERENCE if comparator else AUROC
    return {
        "dataset": plan.dataset,
        "learner": plan.learner,
        "algorithm": plan.algorithm,
        "rung": rung,
        "comparator": comparator,
        "metric": metric,
        "confidence_level": plan.confidence_level,
        "n": len(rows),
        "n_events": int(label_N.sum()),
        "method": _METHODS[metric],
        "run_id": plan.run_id,
        **_figures(rows, label_N, columns, plan),
    }


def _figures(
    rows: pd.DataFrame, label_N: npt.NDArray[np.float64], columns: list[str], plan: LadderPlan
) -> dict[str, Any]:
    nothing = {"estimate": np.nan, "ci_low": np.nan, "ci_high": np.nan, "p_value": np.nan}
    least = {"min_cell_size": plan.min_cell_size, "min_events": plan.min_events}
    too_small = size_reason(len(rows), int(label_N.sum()), **least)
    if too_small:
        return nothing | {"na_reason": too_small}
    if label_N.min() == label_N.max():
        return nothing | {"na_reason": "every row has the outcome" if label_N.max() else "no row has the outcome"}
    score, repeated = [numbers(rows, name) for name in columns], bool(rows["patient_id"].duplicated().any())
    level = plan.confidence_level
    if len(score) == 1:
        values = auroc_values(auroc_interval(label_N, score[0], confidence_level=level), repeated=repeated)
    else:
        values = compared_values(delong_paired(label_N, *score, confidence_level=level), repeated=repeated)
    return {**nothing, "na_reason": "", **values}

"""What each part brings: stage 2 learned on more and more of its features, and the AUROC of each rung on the test sets.

The rungs: SARC-F as recorded, which nothing is learned for; the clinical features; with the predicted means; with their
uncertainties. The paper does not show it. See docs/explanation/reasons.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from sarc_ray import intake, stages
from sarc_ray.bundle import read_manifest_of
from sarc_ray.evaluation.ladder import LadderPlan, ladder_rows
from sarc_ray.evaluation.plan import EvaluationConfig
from sarc_ray.evaluation.rows import numbers
from sarc_ray.run import Run
from sarc_ray.run_stage2 import features_of, mu_only, problem_of, stage2_frame
from sarc_ray.stage2.rungs import RIDGE, Rung, learn_rungs, rung_columns

CHOSEN, SECOND = "chosen", "ridge"
SARC_F = "sarc_f"


def climb(run: Run, datasets: Sequence[str], evaluation: EvaluationConfig) -> pd.DataFrame:
    """Learn every rung on the training patients, and evaluate it on each test set.

    Two learners: the chosen algorithm with its chosen hyper-parameters, which were found with all features at hand and
    so may favour the last rung; and ridge logistic regression, which no search has touched. Of the chosen one the last
    rung is the bundle's own model.

    Args:
        run: tuned and scored.
        datasets: ``test_internal``, ``test_external``.
        evaluation: of the plan in force.

    Returns:
        The table, with the columns of :mod:`sarc_ray.evaluation.ladder`.

    Raises:
        StorageError: predictions, bundle or scores are missing.
    """
    config = run.config
    stage2 = read_manifest_of(run.path("bundle")).stage2
    problem = problem_of(run, stage2_frame(run))
    names = [target.name for target in config.targets]
    columns = rung_columns(config.clinical_features, names, mu_only=mu_only(config))
    learners = {CHOSEN: (str(stage2["algorithm"]), stage2["params"]), SECOND: RIDGE}
    learned = {
        learner: learn_rungs(name, params, problem.features, problem.outcome_N, columns=columns, seed=config.run.seed)
        for learner, (name, params) in learners.items()
    }
    parts = []
    for dataset in datasets:
        frame = intake.scored_rows(run, dataset)
        for learner, rungs in learned.items():
            scored = _scored(run, frame, rungs, own_score=learner == CHOSEN)
            plan = _plan(run, evaluation, dataset, learner=learner, algorithm=learners[learner][0])
            parts.append(ladder_rows(scored, _present(scored, rungs), plan=plan))
    return pd.concat(parts, ignore_index=True)


def _scored(run: Run, frame: pd.DataFrame, rungs: dict[str, Rung], *, own_score: bool) -> pd.DataFrame:
    """A column of raw scores for each rung, and SARC-F."""
    features = features_of(run, frame)
    columns: dict[str, Any] = {name: rung.raw_score(features) for name, rung in rungs.items()}
    if own_score:
        columns[list(rungs)[-1]] = frame["raw_score"].to_numpy(dtype=np.float64)
    columns[SARC_F] = numbers(frame, SARC_F) if SARC_F in frame else np.full(len(frame), np.nan)
    return frame[["patient_id", "outcome"]].assign(**columns)


def _present(scored: pd.DataFrame, rungs: dict[str, Rung]) -> list[str]:
    """The rungs, from SARC-F where the cohort has it."""
    return [*([SARC_F] if scored[SARC_F].notna().any() else []), *rungs]


def _plan(run: Run, evaluation: EvaluationConfig, dataset: str, *, learner: str, algorithm: str) -> LadderPlan:
    return LadderPlan(
        dataset=dataset,
        learner=learner,
        algorithm=algorithm,
        confidence_level=evaluation.confidence_level,
        min_cell_size=evaluation.min_cell_size,
        min_events=evaluation.min_events,
        run_id=stages.run_id(run),
    )

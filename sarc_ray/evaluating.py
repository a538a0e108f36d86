"""The verb ``evaluate``: scores beside labels, by a plan that lies beside the results."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pandas as pd

from sarc_ray import intake, stages, storage
from sarc_ray.bundle import read_stage2
from sarc_ray.cohort.splits import TEST_EXTERNAL, TEST_INTERNAL
from sarc_ray.distributed import cluster
from sarc_ray.distributed.bootstrap import map_blocks
from sarc_ray.evaluation.external_rows import Reference
from sarc_ray.evaluation.plan import EvaluationPlan
from sarc_ray.evaluation.plan_file import write_plan
from sarc_ray.evaluation.results import by_plan, evaluate_by_plan, headline_table
from sarc_ray.evaluation.table_one import table_one
from sarc_ray.ladder import climb
from sarc_ray.plans import PLAN, plan_of
from sarc_ray.run import Run
from sarc_ray.run_stage2 import finalists_table
from sarc_ray.stats.bootstrap import MapBlocks

Tell = Callable[[str, int, int], None]
Record = dict[str, Any]


def evaluate(run: Run, tell: Tell) -> Record:
    """Plan, results table, Table 1, headline figures, finalists and ladder of every scored data set that has labels.

    Raises:
        ConfigError: the plan asks for something that is not there to be evaluated.
        StorageError: the plan or a score table cannot be read.
    """
    datasets = stages.labelled_datasets(run.config)
    for dataset in datasets:
        stages.finished(run, f"score-{dataset}")

    def work() -> Record:
        plan = plan_of(run)
        frames = {dataset: intake.labelled_scores(run, dataset) for dataset in datasets}
        storage.write_text(run.path("results", PLAN), write_plan(plan))
        table = results_of(run, plan, frames, tell)
        run.write_result("results", table)
        for dataset, frame in frames.items():
            storage.write_table(run.path("results", f"table_one_{dataset}.csv"), by_plan(table_one(frame), plan))
        made = {
            "headline": headline_table(table, interval_level=plan.config.interval_level),
            "algorithms": finalists_table(run, datasets, plan.config),
            "ladder": climb(run, datasets, plan.config),
        }
        for name, of_plan in made.items():
            run.write_result(name, by_plan(of_plan, plan))
        return {"rows": len(table), "plan": plan.plan_hash[:16]}

    outputs = ("results/results.parquet", "results/ladder.parquet", f"results/{PLAN}")
    return run.stage("evaluate", fingerprint=stages.fingerprint(run, "evaluate"), work=work, outputs=outputs)


def results_of(run: Run, plan: EvaluationPlan, frames: Mapping[str, pd.DataFrame], tell: Tell) -> pd.DataFrame:
    """The results table of all data sets; the external one is set beside the internal one.

    Args:
        run: gives seed, truth and the engine's settings.
        plan: what to compute.
        frames: labels beside scores, by data set.
        tell: progress.
    """
    parts = []
    for number, (dataset, frame) in enumerate(frames.items()):
        reference = _reference(run, frames) if dataset == TEST_EXTERNAL else None
        truth = _truth(run, dataset)
        parts.append(evaluate_frame(run, plan, frame, dataset=dataset, truth=truth, reference=reference))
        tell("data sets", number + 1, len(frames))
    return pd.concat(parts, ignore_index=True)


def evaluate_frame(
    run: Run,
    plan: EvaluationPlan,
    frame: pd.DataFrame,
    *,
    dataset: str,
    truth: pd.DataFrame | None = None,
    reference: Reference | None = None,
) -> pd.DataFrame:
    """One data set's results, on the engine where it has more rows than ``evaluation.rows_on_engine``."""
    with _spread(run, len(frame)) as spread:
        return evaluate_by_plan(
            frame,
            plan,
            dataset=dataset,
            seed=run.config.run.seed,
            run_id=stages.run_id(run),
            truth=truth,
            reference=reference,
            map_blocks=spread,
        )


@contextlib.contextmanager
def _spread(run: Run, n_rows: int) -> Iterator[MapBlocks]:
    limit = run.config.evaluation.rows_on_engine
    if limit is None or n_rows <= limit:
        yield map
        return
    with cluster.session(run.config.engine):
        yield map_blocks


def _reference(run: Run, frames: Mapping[str, pd.DataFrame]) -> Reference:
    return Reference(
        name=TEST_INTERNAL,
        frame=frames[TEST_INTERNAL],
        variables=run.config.clinical_features,
        calibration=read_stage2(run.path("bundle")).calibration,
    )


def _truth(run: Run, dataset: str) -> pd.DataFrame | None:
    """The simulator's truth of a test set; opened by the evaluation alone."""
    if run.config.data.truth is None:
        return None
    name = "derivation" if dataset == TEST_INTERNAL else "external"
    return storage.read_table(storage.join(run.config.data.truth, f"{name}.parquet"))

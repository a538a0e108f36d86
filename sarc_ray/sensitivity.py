"""The surroundings of a sensitivity analysis: a run within a run, and the two compared on the same test patients."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pandas as pd

from sarc_ray import intake, stages, storage
from sarc_ray.errors import ConfigError
from sarc_ray.evaluation.results import by_plan
from sarc_ray.evaluation.sensitivity import (
    ANALYSES,
    Analysis,
    compare,
    restricted,
    sensitivity_table,
    training_patients,
)
from sarc_ray.plans import plan_in_force
from sarc_ray.run import Run

_FOLDER = "sensitivity"


def analysis_named(name: str) -> Analysis:
    """The analysis of a name.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in ANALYSES:
        raise ConfigError(f"--analysis: found {name!r}, allowed: {', '.join(ANALYSES)}")
    return ANALYSES[name]


def analysis_run(run: Run, name: str) -> Run:
    """The run of an analysis, in a folder within the run's; writes its manifest.

    Its settings are the run's but for the patients that it learns from; its test patients are the same.

    Raises:
        ConfigError: no analysis of that name, or the run was made with other settings or data.
        StorageError: the run has not scored its test sets yet.
    """
    analysis = analysis_named(name)
    config = run.config
    for dataset in stages.labelled_datasets(config):
        stages.finished(run, f"score-{dataset}")
    uri = run.path(_FOLDER, name, "manifest.parquet")
    storage.write_table(uri, restricted(intake.read_cohort(run, "derivation"), analysis))
    return Run(
        config=replace(
            config,
            run=replace(config.run, name=f"{config.run.name}-{name}", directory=run.path(_FOLDER, name)),
            data=replace(config.data, derivation=uri, archive=None),
        )
    )


def comparison(run: Run, other: Run, name: str) -> pd.DataFrame:
    """As :func:`compared`; written beside the run's results as ``sensitivity_<name>.csv``."""
    table = compared(run, other, name)
    storage.write_table(_table_of(run, name), table)
    return table


def compared_again(run: Run) -> Iterator[tuple[str, pd.DataFrame]]:
    """Tables of the analyses that were made, by place, from the scores of both models as they lie there now."""
    for name in ANALYSES:
        if storage.exists(_table_of(run, name)):
            config = run.config
            other = Run(config=replace(config, run=replace(config.run, directory=run.path(_FOLDER, name))))
            yield _table_of(run, name), compared(run, other, name)


def compared(run: Run, other: Run, name: str) -> pd.DataFrame:
    """Both models on each test set.

    Args:
        run: that learned from all.
        other: of :func:`analysis_run`, scored.
        name: of the analysis.
    """
    plan = plan_in_force(run)
    rows = [
        compare(
            intake.labelled_scores(run, dataset),
            intake.labelled_scores(other, dataset),
            dataset=dataset,
            config=plan.config,
        )
        for dataset in stages.labelled_datasets(run.config)
    ]
    table = sensitivity_table(
        name,
        rows,
        training_patients=training_patients(intake.read_cohort(other, "derivation")),
        training_patients_all=training_patients(intake.read_cohort(run, "derivation")),
    )
    return by_plan(table, plan)


def _table_of(run: Run, name: str) -> str:
    return run.path("results", f"sensitivity_{name}.csv")

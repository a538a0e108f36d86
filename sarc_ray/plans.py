"""Which evaluation plan a run asks for, and which one its results were made by."""

from __future__ import annotations

from dataclasses import replace

from sarc_ray import storage
from sarc_ray.cohort.definitions import outcome_name
from sarc_ray.evaluation.plan import EvaluationPlan, make_plan
from sarc_ray.evaluation.plan_file import read_plan
from sarc_ray.run import Run

PLAN = "plan.yaml"


def plan_of(run: Run) -> EvaluationPlan:
    """What the configuration wants evaluated: by its own plan, or by the keys of ``evaluation``.

    Raises:
        ConfigError: the plan is wrong.
        StorageError: it cannot be read.
    """
    uri = run.config.evaluation.plan
    return _derived(run) if uri is None else read_plan(storage.read_text(uri), _derived(run), where=uri)


def plan_in_force(run: Run) -> EvaluationPlan:
    """The plan by which the run's results were made, whatever the configuration says now; before that, the latter's.

    Raises:
        ConfigError: the plan is of another version.
        StorageError: it cannot be read.
    """
    uri = run.path("results", PLAN)
    if not storage.exists(uri):
        return plan_of(run)
    return read_plan(storage.read_text(uri), _derived(run), where=uri)


def whole_plan(run: Run) -> EvaluationPlan:
    """The plan in force, with every outcome and metric that there is."""
    plan, derived = plan_in_force(run), _derived(run)
    return replace(plan, outcomes=derived.outcomes, metrics=derived.metrics)


def _derived(run: Run) -> EvaluationPlan:
    config = run.config
    names = [target.name for target in config.targets]
    return make_plan(config.evaluation, names, outcome_name=outcome_name(config.outcome))

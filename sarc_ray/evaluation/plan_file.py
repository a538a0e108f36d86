"""The evaluation plan as a YAML that people write before they look, and that lies beside the results.

A plan states what it wants to state; the rest is as the configuration has it. What was in force is written out whole,
and read again it gives the same plan, to the last bit of its hash.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import yaml

from sarc_ray.config import from_mapping, merge, to_mapping
from sarc_ray.errors import ConfigError
from sarc_ray.evaluation.plan import (
    COMPARISONS,
    EXTERNAL_METRICS,
    METRICS,
    NOT_OF_THE_PLAN,
    OUTCOME_METRICS,
    PLAN_VERSION,
    TARGET_METRICS,
    EvaluationConfig,
    EvaluationPlan,
    in_order,
)

_OWN = ("version", "outcomes", "comparators", "metrics")
_NO_COMPARATORS = ("score", "raw_score", "flag", "outcome", "row_id", "patient_id", "patient_key", "all")
_HEAD = "# What was evaluated, and how; sha256 {hash}\n"


def read_plan(text: str, derived: EvaluationPlan, *, where: str) -> EvaluationPlan:
    """Lay a plan's YAML on the plan that the configuration stands for.

    Args:
        text: ``version``, ``outcomes``, ``comparators``, ``metrics``, and keys of ``evaluation``; each may be left out.
        derived: the configuration's plan, which says what outcomes there are.
        where: name of the file, for messages.

    Raises:
        ConfigError: not a mapping, an unknown key, outcome or metric, a name twice, a plan of another version, or a
            value that the configuration would not take either.
    """
    stated = _mapping(text, where)
    settings = [field.name for field in fields(EvaluationConfig) if field.name not in NOT_OF_THE_PLAN]
    for key in stated:
        if key not in (*_OWN, *settings):
            raise ConfigError(f"{where}: unknown key {key!r}{_near(str(key), (*_OWN, *settings))}")
    version = stated.get("version", PLAN_VERSION)
    if version != PLAN_VERSION:
        raise ConfigError(
            f"{where}: version: found {version!r}, this release evaluates by version {PLAN_VERSION}: what a metric "
            "means has changed; read the changelog, then write the version anew"
        )
    own = {key: value for key, value in stated.items() if key not in _OWN}
    comparators = _names(stated, "comparators", derived.comparators, allowed=None, where=where)
    _refuse_comparators(comparators, where)
    config = from_mapping(EvaluationConfig, merge(to_mapping(derived.config), own), where=where)
    outcomes = _names(stated, "outcomes", derived.outcomes, allowed=derived.outcomes, where=where)
    metrics = _names(stated, "metrics", derived.metrics, allowed=METRICS, where=where)
    if not outcomes or not metrics:
        raise ConfigError(f"{where}: outcomes, metrics: name at least one of each, or leave the key out for all")
    applicable = [*(TARGET_METRICS if set(outcomes) - {derived.outcome_name} else ()), *COMPARISONS]
    applicable += [*OUTCOME_METRICS, *EXTERNAL_METRICS] if derived.outcome_name in outcomes else []
    if not set(metrics) & set(applicable):
        raise ConfigError(
            f"{where}: metrics: none of {', '.join(metrics)} is a metric of {', '.join(outcomes)}; nothing would be "
            "evaluated; name metrics of these outcomes"
        )
    return EvaluationPlan(
        config=config,
        outcome_name=derived.outcome_name,
        outcomes=outcomes,
        comparators=comparators,
        metrics=in_order(metrics),
    )


def write_plan(plan: EvaluationPlan) -> str:
    """The whole plan as YAML, with its hash in the first line."""
    content = {
        "version": PLAN_VERSION,
        "outcomes": list(plan.outcomes),
        "comparators": list(plan.comparators),
        "metrics": list(plan.metrics),
        **plan.settings(),
    }
    return _HEAD.format(hash=plan.plan_hash) + yaml.safe_dump(content, sort_keys=False)


def _mapping(text: str, where: str) -> Mapping[str, Any]:
    try:
        stated = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(stated, Mapping) or not stated:
        raise ConfigError(f"{where}: expected 'key: value' lines, for example 'subgroups: [sex, site]'")
    return stated


def _names(
    stated: Mapping[str, Any], key: str, derived: tuple[str, ...], *, allowed: Sequence[str] | None, where: str
) -> tuple[str, ...]:
    names = stated.get(key, list(derived))
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"{where}: {key}: found {names!r}; allowed: a list of names")
    if len(set(names)) < len(names):
        raise ConfigError(f"{where}: {key}: found {names}; name each once")
    for name in names:
        if name != name.strip() or not name:
            raise ConfigError(f"{where}: {key}: found {name!r}; write the name without spaces around it")
        if allowed is not None and name not in allowed:
            raise ConfigError(f"{where}: {key}: {name!r} is not known{_near(name, allowed)}")
    return tuple(names)


def _refuse_comparators(names: Sequence[str], where: str) -> None:
    """What the score is made of, or judged by, compares with nothing."""
    for name in names:
        if name in _NO_COMPARATORS:
            raise ConfigError(
                f"{where}: comparators: found {name!r}, which is the score's own, or an identifier; name a column of "
                "numbers that speak for the outcome the higher they are"
            )


def _near(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(map(repr, near))}?" if near else f"; allowed: {', '.join(known)}"

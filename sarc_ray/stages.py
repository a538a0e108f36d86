"""What decides each stage of a run, from its own settings back to the manifests.

A stage is done once for the same inputs. Inputs name the stage before by its own inputs, so that a change anywhere
upstream is seen here, and a stage never builds on what other settings left in the run's folder.
"""

from __future__ import annotations

from typing import Any

from sarc_ray import __version__, bundle, storage
from sarc_ray.cohort.splits import TEST_EXTERNAL, TEST_INTERNAL
from sarc_ray.config import to_mapping
from sarc_ray.errors import ConfigError
from sarc_ray.evaluation.plan import PLAN_VERSION, TABLES_VERSION
from sarc_ray.run import Run, RunConfig, fingerprint_of
from sarc_ray.stage2.settings import Stage2Config

# Keys of stage 2 (or how they begin) that decide no trial, and those that only say how many there are: a search with a
# larger budget goes on from the trials of the smaller one.
_NOT_OF_THE_SEARCH = ("calibration", "prevalence", "threshold", "choice", "nested", "trials_per_algorithm", "minutes")
_PRESET_WEIGHTS = ("random", "imagenet")


def inputs_of(run: Run, stage: str) -> Any:
    """All that decides the result of a stage, as plain data and configuration objects."""
    config = run.config
    if stage == "prepare":
        return _prepare_inputs(config)
    if stage == "train":
        return [fingerprint_of_members(run), config.ensemble]
    if stage == "tune":
        from sarc_ray.stage2 import persist

        settings = (config.ood, config.stage2, config.clinical_features, config.outcome)
        return [fingerprint(run, "train"), *settings, config.run.seed, persist.SCHEMA_VERSION, bundle.SCHEMA_VERSION]
    if stage == "score-archive":
        return [fingerprint(run, "tune"), _content(config.data.archive), *_of_scores(config)]
    if stage.startswith("score-"):
        return [fingerprint(run, "tune"), stage, *_of_scores(config)]
    assert stage == "evaluate", stage
    scores = [fingerprint(run, f"score-{name}") for name in labelled_datasets(config)]
    plan = _content(config.evaluation.plan)
    made = (PLAN_VERSION, TABLES_VERSION)
    return [scores, config.evaluation, plan, config.targets, _content(config.data.truth), config.run.seed, made]


def _of_scores(config: RunConfig) -> tuple[Any, ...]:
    return config.score.reasons, config.score.precision


def fingerprint(run: Run, stage: str) -> str:
    """Short hash of a stage's inputs and of this release."""
    return fingerprint_of([__version__, inputs_of(run, stage)])


def fingerprint_of_members(run: Run) -> str:
    """Short hash of what decides the trained members; another recalibration, say, trains none of them anew."""
    config = run.config
    settings = (config.targets, config.network, config.augment, config.fit)
    dealt: tuple[Any, ...] = (config.ensemble.members, config.ensemble.training_features)
    if config.ensemble.heads != "one_target":  # members of runs from before there was a choice stay what they are
        dealt = (*dealt, config.ensemble.heads)
    inputs = [fingerprint(run, "prepare"), *settings, *dealt, _weights(config), config.run.seed]
    from sarc_ray.stage1 import checkpoint  # imports torch

    # A member of an older schema is trained anew, not kept for a later stage to refuse.
    inputs.append(checkpoint.SCHEMA_VERSION)
    return fingerprint_of([__version__, inputs])


def fingerprint_of_search(run: Run) -> str:
    """Short hash of what decides each trial; another calibration or threshold, say, searches nothing anew."""
    config = run.config
    inputs = [
        fingerprint(run, "train"),
        settings_of_search(config.stage2),
        config.clinical_features,
        config.outcome,
        config.run.seed,
    ]
    return fingerprint_of([__version__, inputs])


def settings_of_search(config: Stage2Config) -> dict[str, Any]:
    """Those settings of stage 2 that decide what a trial is and what comes of it."""
    return {key: value for key, value in to_mapping(config).items() if not key.startswith(_NOT_OF_THE_SEARCH)}


def finished(run: Run, stage: str) -> dict[str, Any]:
    """The record of a stage that was finished with the present settings and data.

    Raises:
        StorageError: it has not finished.
        ConfigError: it was finished with other settings or data.
    """
    record = run.finished(stage)
    if record["fingerprint"] != fingerprint(run, stage):
        verb = stage.replace("score-", "score --dataset ")
        raise ConfigError(
            f"{run.config.run.directory}: settings or data have changed since the stage '{stage}' finished; run "
            f"'sarc-ray {verb}' again, or give the same settings (--set) as then"
        )
    return record


def lineage(run: Run, stage: str, inputs: Any) -> dict[str, Any]:
    """What a table or bundle says of where it comes from."""
    return {"run_id": run_id(run), "stage": stage, "inputs": fingerprint_of(inputs), "sarc_ray": __version__}


def run_id(run: Run) -> str:
    """Names the run in tables: its name and its configuration. The same run on another engine has the same id."""
    left_out = ("distill", "drift", "engine", "plan")
    decisive = {key: value for key, value in to_mapping(run.config).items() if key not in left_out}
    return f"{run.config.run.name}-{fingerprint_of(decisive)[:8]}"


def labelled_datasets(config: RunConfig) -> list[str]:
    """The test sets of a run."""
    return [TEST_INTERNAL, *([TEST_EXTERNAL] if config.data.external else [])]


def _prepare_inputs(config: RunConfig) -> Any:
    return [
        {"derivation": _content(config.data.derivation), "external": _content(config.data.external)},
        *(config.eligibility, config.split, config.outcome, config.clinical_features, config.preprocess),
        [target.name for target in config.targets],
        config.run.seed,
    ]


def _content(uri: str | None) -> list[str] | None:
    """Where and what: relative image URIs depend on the manifest's place."""
    return None if uri is None else [storage.canonical_uri(uri), storage.content_id(uri)]


def _weights(config: RunConfig) -> list[str] | None:
    return None if config.network.weights in _PRESET_WEIGHTS else _content(config.network.weights)

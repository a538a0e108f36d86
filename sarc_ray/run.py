"""A run: its resolved configuration, its folder, and the record of which stages are finished.

Layout of a run's folder (any fsspec URL; training checkpoints want a folder that all nodes see)::

    config.yaml            resolved configuration
    stages/<stage>.json    written last by each stage; a stage whose inputs are unchanged is not run again
    cohort/                selected patients with split and outcome, and the flow of their selection
    images/                image table of the training and tuning patients
    members/               one file per ensemble member, and its predictions; reference of the training pictures
    predictions.parquet    stage-1 predictions (training patients: by members that never saw them)
    stage2/                trials of the search, feature check
    bundle/                the model
    distilled/             one network that answers for its ensembles, where it was asked for, as a bundle of its own
    scores/<dataset>/      score tables
    results/               results, headline, algorithms, ladder, table_one_<dataset>; as Parquet and CSV
    report/                index.html with its figures
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import yaml

from sarc_ray import config, storage
from sarc_ray.cohort.definitions import OutcomeConfig, outcome_columns
from sarc_ray.cohort.schema import TargetConfig
from sarc_ray.cohort.selection import EligibilityConfig
from sarc_ray.cohort.splits import SplitConfig
from sarc_ray.distributed.settings import EngineConfig, PlanConfig
from sarc_ray.drift.settings import DriftConfig
from sarc_ray.errors import ConfigError, StorageError
from sarc_ray.evaluation.plan import EvaluationConfig
from sarc_ray.imaging.preprocess import PreprocessConfig
from sarc_ray.simulate.cohort import SimulateConfig
from sarc_ray.stage1.settings import (
    PRECISIONS,
    AugmentConfig,
    DistillConfig,
    EnsembleConfig,
    FitConfig,
    NetworkConfig,
    OodConfig,
    Precision,
)
from sarc_ray.stage2.settings import Stage2Config

# Known of every patient, and not measured for the outcome though its cut-offs take them into account.
_OF_ANYBODY = frozenset({"sex", "height_m", "bmi_kg_m2"})


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSection:
    """Name, folder and seed of a run."""

    name: str
    directory: str
    seed: int


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """Manifests of the cohorts, as fsspec URLs or paths.

    Attributes:
        derivation: training, tuning and internal test patients, with labels.
        external: external test patients, with labels; or null.
        archive: unlabelled radiographs to score; or null.
        truth: folder of the simulator's truth, read by ``evaluate`` alone; null for real patients.
    """

    derivation: str
    external: str | None
    archive: str | None
    truth: str | None

    def scored_datasets(self) -> list[str]:
        """Names of the data sets that a run with these manifests scores."""
        external = ["test_external"] if self.external else []
        return ["test_internal", *external, *(["archive"] if self.archive else [])]


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreConfig:
    """How scores are written.

    Attributes:
        key_file: file with the secret for patient and study keys; the variable ``SARC_RAY_KEY`` comes first.
        reasons: how many of the features that move a patient's raw score most each row names, with their SHAP values
            (3, say); 0 leaves these columns out.
        precision: ``bfloat16`` computes the networks' convolutions in mixed precision, for GPUs; what follows them
            stays float32. Scores differ a little from those of ``float32``, so that they make a table of their own.
        small_cells_below: counts of fewer patients are left out of the summary for others (``sarc-ray summary``), and
            so is what they could be computed from; 0 leaves them in.
    """

    key_file: str | None
    reasons: int
    precision: Precision
    small_cells_below: int

    def __post_init__(self) -> None:
        if self.reasons < 0:
            raise ValueError(f"reasons: found {self.reasons}, allowed: 0 (none) or more, for example 3")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision: found {self.precision!r}, allowed: {', '.join(PRECISIONS)}")
        if self.small_cells_below < 0:
            raise ValueError(f"small_cells_below: found {self.small_cells_below}, allowed: 0 (off) or more")


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """Everything that decides a run, composed of the configurations of the rooms."""

    run: RunSection
    data: DataConfig
    simulate: SimulateConfig
    eligibility: EligibilityConfig
    split: SplitConfig
    targets: tuple[TargetConfig, ...]
    outcome: OutcomeConfig
    clinical_features: tuple[str, ...]
    preprocess: PreprocessConfig
    network: NetworkConfig
    augment: AugmentConfig
    fit: FitConfig
    ensemble: EnsembleConfig
    ood: OodConfig
    distill: DistillConfig
    stage2: Stage2Config
    score: ScoreConfig
    evaluation: EvaluationConfig
    drift: DriftConfig
    engine: EngineConfig
    plan: PlanConfig

    def __post_init__(self) -> None:
        names = [target.name for target in self.targets]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"targets: found {names}; name one or more, each once")
        both = sorted(set(names) & set(self.clinical_features))
        if both:
            raise ValueError(
                f"clinical_features: {both[0]} is a target too; a target is never also a feature, remove it from one"
            )
        told = sorted((set(outcome_columns(self.outcome)) & set(self.clinical_features)) - _OF_ANYBODY)
        if told:
            raise ValueError(
                f"clinical_features: the outcome is made of {told[0]}, so that it would tell what is to be predicted; "
                "remove it"
            )
        if self.ensemble.heads == "all_targets" and self.network.trainable == "head":
            raise ValueError(
                "ensemble.heads: found all_targets with network.trainable: head; frozen convolutions are shared "
                "anyway, and run once per picture; set ensemble.heads: one_target"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """A run's configuration together with its folder."""

    config: RunConfig

    def path(self, *parts: str) -> str:
        """URL of something in the run's folder."""
        return storage.join(self.config.run.directory, *parts)

    def save_config(self) -> None:
        """Write the resolved configuration beside the results."""
        text = yaml.safe_dump(config.to_mapping(self.config), sort_keys=False)
        storage.write_text(self.path("config.yaml"), text)

    def write_result(self, name: str, table: pd.DataFrame) -> None:
        """Write a table of the results, once as Parquet and once as CSV."""
        for ending in ("parquet", "csv"):
            storage.write_table(self.path("results", f"{name}.{ending}"), table)

    def stage(
        self, name: str, *, fingerprint: str, work: Callable[[], dict[str, Any]], outputs: Sequence[str] = ()
    ) -> dict[str, Any]:
        """Do a stage's work unless it was finished before from the same inputs and its outputs are still there.

        Args:
            name: of the stage.
            fingerprint: of all that decides its result.
            work: does it; returns what later stages or people want to know of it (plain data). Where that has a
                ``retryable`` above 0, the stage is not finished yet: the same command tries those rows again.
            outputs: paths within the run's folder.

        Returns:
            The record: ``fingerprint``, ``seconds``, ``skipped`` and what ``work`` returned as ``facts``.
        """
        record_uri = self.path("stages", f"{name}.json")
        if storage.exists(record_uri):
            record: dict[str, Any] = storage.read_json(record_uri)
            if record["fingerprint"] == fingerprint and all(storage.exists(self.path(path)) for path in outputs):
                return {**record, "skipped": True}
            # From here on the outputs are a mixture until the work is done.
            storage.remove_tree(record_uri)
        self.save_config()
        started = time.perf_counter()
        facts = work()
        record = {"fingerprint": fingerprint, "seconds": round(time.perf_counter() - started, 1), "facts": facts}
        if not facts.get("retryable"):
            storage.write_json(record_uri, record)
        return {**record, "skipped": False}

    def finished(self, name: str) -> dict[str, Any]:
        """The record of a finished stage, whatever settings it was finished with.

        Raises:
            StorageError: the stage has not finished in this run.
        """
        record_uri = self.path("stages", f"{name}.json")
        if not storage.exists(record_uri):
            verb = name.split("-")[0]
            raise StorageError(
                f"{self.config.run.directory}: the stage '{name}' has not finished; run 'sarc-ray {verb}' first"
            )
        record: dict[str, Any] = storage.read_json(record_uri)
        return record


def load_run(path: str, overrides: Sequence[str] = ()) -> Run:
    """Read a run's YAML, or start from a preset's bare name.

    Args:
        path: a YAML file (any fsspec URL), or the name of a preset.
        overrides: ``a.b=c`` assignments.

    Raises:
        ConfigError: unknown or missing keys, wrong values.
    """
    if path in config.PRESETS:
        text = f"preset: {path}"
    else:
        try:
            text = storage.read_text(path)
        except StorageError as error:
            presets = ", ".join(config.PRESETS)
            raise ConfigError(f"{error}; give a YAML file, or the name of a preset ({presets})") from error
    mapping = config.resolve(text, where=path, overrides=overrides)
    return Run(config=config.from_mapping(RunConfig, mapping))


def fingerprint_of(value: Any) -> str:
    """Short hash of plain data or configuration objects; equal content gives equal text."""
    text = json.dumps(config.to_mapping(value), sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]

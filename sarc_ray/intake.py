"""From manifests to selected, split and labelled patients, and back again for the later stages."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from sarc_ray import storage, tables
from sarc_ray.bundle import read_manifest_of
from sarc_ray.cohort.definitions import outcome_columns, outcome_labels
from sarc_ray.cohort.schema import read_manifest
from sarc_ray.cohort.selection import Selection, select
from sarc_ray.cohort.splits import TEST_EXTERNAL, TEST_INTERNAL, assign_splits
from sarc_ray.errors import EvaluationError, ManifestError, Outcome, Reason
from sarc_ray.imaging.batch import stack_images
from sarc_ray.run import Run, RunConfig
from sarc_ray.scoring import TEXT_FEATURES, clinical_reasons, resolve_clinical

# Columns of the score table that say what the manifest says.
_CARRIED = ("site", "device", "view")


def select_derivation(run: Run) -> pd.DataFrame:
    """Read, select, split and label the derivation cohort; writes it and the flow of its selection."""
    config = run.config
    manifest = read_manifest(
        config.data.derivation, required=config.clinical_features, numeric=_numeric_columns(config)
    )
    selection = select(manifest, config.eligibility, outcome=config.outcome)
    labels = outcome_labels(selection.frame, config.outcome)
    frame = assign_splits(selection.frame, config.split, labels=labels, seed=config.run.seed).assign(outcome=labels)
    _write_cohort(run, "derivation", frame, selection)
    return frame


def select_external(run: Run) -> pd.DataFrame:
    """The same for the external cohort, which is a test set as a whole (paper: complete ALM data required)."""
    config = run.config
    assert config.data.external is not None
    numbers = _numeric_columns(config)
    manifest = read_manifest(config.data.external, required=config.clinical_features, numeric=numbers)
    require_alm = any(target.name == "alm_kg" for target in config.targets)
    selection = select(manifest, config.eligibility, outcome=config.outcome, require_alm=require_alm)
    frame = selection.frame.assign(split=TEST_EXTERNAL, outcome=outcome_labels(selection.frame, config.outcome))
    _write_cohort(run, "external", frame, selection)
    return frame


def label_columns(config: RunConfig) -> list[str]:
    """Columns of measured values that training and evaluation need: the targets, and what the outcome is made of."""
    known = {"alm_kg", "hgs_kg", "crt_s", "gait_speed_m_s"}
    columns = [target.name for target in config.targets]
    columns += [name for name in outcome_columns(config.outcome) if name in known or config.outcome.column == name]
    return list(dict.fromkeys(columns))


def _numeric_columns(config: RunConfig) -> list[str]:
    numbers = [name for name in config.clinical_features if name not in TEXT_FEATURES]
    return list(dict.fromkeys([*label_columns(config), *numbers]))


def _write_cohort(run: Run, name: str, frame: pd.DataFrame, selection: Selection) -> None:
    storage.write_table(run.path("cohort", f"{name}.parquet"), frame)
    storage.write_table(run.path("cohort", f"{name}_flow.csv"), selection.flow_table())


def read_cohort(run: Run, name: str) -> pd.DataFrame:
    """A selected cohort: ``derivation`` or ``external``."""
    return storage.read_table(run.path("cohort", f"{name}.parquet"))


def internal_rows(run: Run) -> pd.DataFrame:
    """Patients of the internal test set."""
    cohort = read_cohort(run, "derivation")
    return cohort[cohort["split"] == TEST_INTERNAL].reset_index(drop=True)


def external_rows(run: Run) -> pd.DataFrame:
    """Patients of the external test set."""
    return read_cohort(run, "external")


def archive_rows(run: Run) -> pd.DataFrame:
    """Every row of the archive's manifest; none is left out before it is scored."""
    assert run.config.data.archive is not None
    return read_manifest(run.config.data.archive)


def labelled_scores(run: Run, dataset: str) -> pd.DataFrame:
    """Labels of a test set beside its scores: one row per image of the test set, scored or not.

    Clinical features are those of the manifest. A row that lacks one there may have been scored by its header's:
    :func:`scored_rows` has these.

    Args:
        run: scored.
        dataset: ``test_internal`` or ``test_external``.
    """
    features = read_manifest_of(run.path("bundle")).spec.clinical_features
    return _beside_scores(run, dataset, ("scores", dataset), from_manifest=(*_CARRIED, *features))


def scored_rows(run: Run, dataset: str, *, table: tuple[str, ...] | None = None) -> pd.DataFrame:
    """Scored rows of a test set with their labels, and with clinical features as stage 2 saw them.

    Args:
        run: scored.
        dataset: ``test_internal`` or ``test_external``.
        table: where in the run's folder the scores lie; by default where ``score`` leaves them.
    """
    features = read_manifest_of(run.path("bundle")).spec.clinical_features
    carried = [name for name in _CARRIED if name not in features]
    frame = _beside_scores(run, dataset, table or ("scores", dataset), from_manifest=carried)
    return frame[frame["score"].notna()].reset_index(drop=True)


def _beside_scores(run: Run, dataset: str, table: tuple[str, ...], *, from_manifest: Sequence[str]) -> pd.DataFrame:
    require_own_scores(run, *table)
    labels = internal_rows(run) if dataset == TEST_INTERNAL else external_rows(run)
    # ``outcome`` is the patient's in the labels and the row's in the score table.
    scores = tables.read(run.path(*table)).rename(columns={"outcome": "row_outcome"})
    made = set(scores.columns) - set(from_manifest)
    # A manifest may carry columns of an earlier scoring; what this run's bundle says comes first.
    known = labels[[name for name in labels.columns if name == "row_id" or name not in made]]
    own = [name for name in scores.columns if name == "row_id" or name not in known.columns]
    return known.merge(scores[own], on="row_id", how="left", validate="one_to_one")


def require_own_scores(run: Run, *table: str) -> None:
    """Refuse scores by another bundle than the run's own: ``score --bundle ... --to ...`` writes wherever it is told.

    Args:
        run: scored.
        table: where in the run's folder the scores lie.

    Raises:
        EvaluationError: names both models.
    """
    pointer = tables.read_pointer(run.path(*table))
    found = None if pointer is None else pointer.lineage.get("model_id")
    if found is None:
        return
    own = read_manifest_of(run.path("bundle")).model_id
    if found != own:
        name, record = table[-1], run.path("stages", f"score-{table[-1]}.json")
        raise EvaluationError(
            f"{run.path(*table)}: scores of model {found}, the run's bundle is {own}; remove {record}, run 'sarc-ray "
            f"score --dataset {name}' with the run's YAML, and keep scores of other bundles in folders of their own"
        )


def features_known(frame: pd.DataFrame, config: RunConfig) -> pd.Series:
    """Rows whose clinical features stage 2 can use, as in scoring: none missing, no view but AP and PA."""
    clinical = resolve_clinical(frame, config.clinical_features)
    return clinical_reasons(clinical, age_min_years=config.eligibility.age_min_years) == Reason.NONE


def refuse_shared_images(derivation: pd.DataFrame, external: pd.DataFrame) -> None:
    """An image in both cohorts would be trained on and called an external test.

    Raises:
        ManifestError: says how many are shared.
    """
    shared = int(external["row_id"].isin(derivation["row_id"]).sum())
    if shared:
        raise ManifestError(
            f"data.external: {shared} of {len(external)} images are in the derivation cohort too; an external test set "
            "must be of other patients; give another manifest, or set data.external to null"
        )


def training_images(run: Run) -> tuple[pd.DataFrame, np.ndarray]:
    """Cohort rows whose picture could be read, in ``row_id`` order, and their pictures (N, S, S)."""
    cohort = read_cohort(run, "derivation")
    images = tables.read(run.path("images"), columns=["row_id", "outcome", "image"])
    usable = images[images["outcome"] == Outcome.SCORED]
    frame = cohort[cohort["row_id"].isin(usable["row_id"])].sort_values("row_id", ignore_index=True)
    return frame, stack_images(usable["image"].to_list(), run.config.preprocess.size_px)

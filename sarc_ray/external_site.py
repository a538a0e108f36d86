"""External validation as an act: a model on the patients of a site that has no part in its run.

The site scores its manifest with the bundle (``sarc-ray score --bundle ... --manifest ... --to ...``), then sets its
labels beside the scores. What it gets is what the run's own external test set gets, in a folder of its own.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from sarc_ray import evaluating, intake, stages, storage, tables
from sarc_ray.bundle import BundleManifest, read_manifest_of
from sarc_ray.cohort.definitions import OutcomeConfig, outcome_labels
from sarc_ray.cohort.schema import read_manifest
from sarc_ray.cohort.selection import index_images
from sarc_ray.cohort.splits import TEST_INTERNAL
from sarc_ray.errors import ConfigError, ManifestError
from sarc_ray.evaluation.external_rows import NO_REFERENCE, Reference
from sarc_ray.evaluation.plan import EvaluationPlan
from sarc_ray.evaluation.plan_file import write_plan
from sarc_ray.evaluation.results import headline_table
from sarc_ray.evaluation.table_one import table_one
from sarc_ray.plans import PLAN, plan_of
from sarc_ray.run import Run, load_run

SITE = "site"
# In the names of columns that hold predictions.
_PREDICTED = ("_mu", "_sigma", "_var_", "_uncertainty_pct")


@dataclass(frozen=True, kw_only=True, slots=True)
class SiteRequest:
    """What to evaluate, and where to.

    Attributes:
        table: the site's manifest, with what the outcome is made of, or a 0/1 column.
        scores: the score table that was made of it.
        to: folder of the results.
        bundle: that scored it; None takes that of the run.
        label: 0/1 column of the manifest; None takes the outcome that the bundle predicts.
    """

    table: str
    scores: str
    to: str
    bundle: str | None
    label: str | None


def read_request(
    table: str | None, scores: str | None, to: str | None, *, bundle: str | None, label: str | None, config: str | None
) -> SiteRequest | None:
    """The request that the options make; None where none of them is given.

    Raises:
        ConfigError: some are missing.
    """
    given = {"--table": table, "--scores": scores, "--to": to}
    if not any((*given.values(), bundle, label)):
        return None
    missing = [name for name, value in given.items() if not value]
    if missing:
        raise ConfigError(f"{', '.join(given)} belong together: {' and '.join(missing)} not given; add what is missing")
    if bundle is None and config is None:
        raise ConfigError("--table: whose model was it? Name the run that made it (CONFIG), or its bundle (--bundle)")
    return SiteRequest(table=str(table), scores=str(scores), to=str(to), bundle=bundle, label=label)


def load_model_run(request: SiteRequest, config: str | None, overrides: Sequence[str]) -> Run:
    """The run that the model comes from; without one, the settings of the preset ``paper``.

    Args:
        request: names the bundle where there is no run.
        config: the run's YAML, or None.
        overrides: ``a.b=c`` assignments.
    """
    if config is not None:
        return load_run(config, overrides)
    own = ["run.name=site", f"run.directory={request.to}", f"data.derivation={request.table}"]
    return load_run("paper", [*own, *overrides])


def site_run(request: SiteRequest, run: Run) -> Run:
    """The run whose results are the site's: its folder, and what the bundle predicts from what.

    Raises:
        BundleError: there is no bundle.
    """
    spec = _bundle(request, run).spec
    config = run.config
    outcome = OutcomeConfig(definition="column", column=request.label) if request.label else spec.outcome
    return Run(
        config=replace(
            config,
            run=replace(config.run, directory=request.to),
            data=replace(config.data, external=None, archive=None, truth=None),
            targets=spec.targets,
            outcome=outcome,
            clinical_features=spec.clinical_features,
        )
    )


def evaluate_site(request: SiteRequest, model_run: Run, tell: evaluating.Tell) -> dict[str, Any]:
    """Evaluate the site's scores by the plan of ``model_run``, whose internal test set is the reference.

    Args:
        request: what to evaluate.
        model_run: as :func:`load_model_run` gives it. With ``bundle`` there is no reference.
        tell: progress.

    Returns:
        A record as the verbs of :mod:`sarc_ray.pipeline` give it.

    Raises:
        BundleError: there is no bundle.
        ConfigError: the plan is wrong.
        ManifestError: a column is missing, or the scores are another bundle's.
        StorageError: a table cannot be read.
    """
    started = time.perf_counter()
    run = site_run(request, model_run)
    plan = plan_of(run)
    frame = labelled_site(request, run, _bundle(request, model_run))
    reference = _reference(model_run) if request.bundle is None else NO_REFERENCE
    table = evaluating.evaluate_frame(run, plan, frame, dataset=SITE, reference=reference)
    _write(run, plan, table, frame)
    tell("data sets", 1, 1)
    facts = {"rows": len(table), "images": len(frame), "plan": plan.plan_hash[:16], "to": run.path("results")}
    return {"skipped": False, "seconds": time.perf_counter() - started, "facts": facts}


def labelled_site(request: SiteRequest, run: Run, bundle: BundleManifest) -> pd.DataFrame:
    """The site's labels beside its scores, one row per index image.

    Args:
        request: names the tables.
        run: as :func:`site_run` gives it.
        bundle: that shall have made the scores.

    Raises:
        ManifestError: a column is missing, the scores are another bundle's, or belong to other images.
    """
    manifest = read_manifest(request.table, numeric=[request.label] if request.label else [])
    if run.config.eligibility.one_image_per_patient:
        manifest = index_images(manifest)
    manifest = manifest.assign(outcome=outcome_labels(manifest, run.config.outcome))
    scores = tables.read(request.scores).rename(columns={"outcome": "row_outcome"})
    others = sorted({str(name) for name in scores["model_id"].dropna()} - {bundle.model_id})
    if others:
        raise ManifestError(
            f"{request.scores}: scores of model {others[0]}, the bundle is {bundle.model_id}; score the manifest "
            "with this bundle first, or name the bundle that scored it"
        )
    if not scores["row_id"].isin(manifest["row_id"]).any():
        raise ManifestError(
            f"{request.scores}: none of its {len(scores)} rows belongs to an image of {request.table}; give the "
            "manifest that was scored, from where it lay then: row_id is made of the images' addresses"
        )
    # What the manifest says of a patient comes first; a score or a prediction in it would be an earlier one.
    columns = [str(name) for name in scores]
    made = {"score", "flag", "raw_score", *(name for name in columns if any(part in name for part in _PREDICTED))}
    known = manifest[[name for name in map(str, manifest.columns) if name not in made]]
    own = ["row_id", *(name for name in columns if name not in known.columns)]
    return known.merge(scores[own], on="row_id", how="left", validate="one_to_one")


def _bundle(request: SiteRequest, run: Run) -> BundleManifest:
    return read_manifest_of(request.bundle or run.path("bundle"))


def _reference(model_run: Run) -> Reference:
    stages.finished(model_run, f"score-{TEST_INTERNAL}")
    return Reference(
        name=TEST_INTERNAL,
        frame=intake.labelled_scores(model_run, TEST_INTERNAL),
        variables=model_run.config.clinical_features,
    )


def _write(run: Run, plan: EvaluationPlan, table: pd.DataFrame, frame: pd.DataFrame) -> None:
    storage.write_text(run.path("results", PLAN), write_plan(plan))
    run.write_result("results", table)
    run.write_result("headline", headline_table(table, interval_level=plan.config.interval_level))
    storage.write_table(run.path("results", f"table_one_{SITE}.csv"), table_one(frame))

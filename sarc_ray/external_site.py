"""External validation as an act: a model on the patients of a site that has no part in its run.

The site scores its manifest with the bundle (``sarc-ray score --bundle ... --manifest ... --to ...``), then sets its
labels beside the scores. What it gets is what the run's own external test set gets, in a folder of its own.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import pandas as pd

from sarc_ray import __version__, evaluating, intake, reporting, stages, storage, tables
from sarc_ray.bundle import BundleManifest, read_manifest_of, read_stage2
from sarc_ray.cohort.definitions import OutcomeConfig, outcome_columns, outcome_labels
from sarc_ray.cohort.schema import read_manifest
from sarc_ray.cohort.selection import FlowStep, Selection, flow_step, select
from sarc_ray.cohort.splits import TEST_INTERNAL
from sarc_ray.config import assignment
from sarc_ray.errors import REASONS, ConfigError, ManifestError, Reason
from sarc_ray.evaluation.external_rows import Reference, no_reference
from sarc_ray.evaluation.plan import EvaluationPlan
from sarc_ray.evaluation.plan_file import write_plan
from sarc_ray.evaluation.results import by_plan, headline_table, with_unplanned
from sarc_ray.evaluation.table_one import table_one
from sarc_ray.plans import PLAN, plan_of, whole_plan
from sarc_ray.run import Run, fingerprint_of, load_run
from sarc_ray.site_figures import site_content, site_files

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
    own = [assignment("run.directory", request.to), assignment("data.derivation", request.table)]
    return load_run("paper", ["run.name=site", *own, *overrides])


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
    plan, bundle = plan_of(run), _bundle(request, model_run)
    frame, flow = labelled_site(request, run, bundle)
    reference = _reference(request, model_run)
    table = evaluating.evaluate_frame(run, plan, frame, dataset=SITE, reference=reference)
    _write(run, plan, table, frame)
    storage.write_table(run.path("results", f"{SITE}_flow.csv"), pd.DataFrame([asdict(step) for step in flow]))
    tell("steps", 1, 2)
    shown, lineage = with_unplanned(table, plan, whole_plan(run)), _lineage(request, plan, bundle)
    content = site_content(run, plan, bundle, results=shown, frame=frame, flow=flow, lineage=lineage)
    for path, data in site_files(content).items():
        storage.write_bytes(run.path(path), data)
    tell("steps", 2, 2)
    left_out = {step.label: step.excluded_images for step in flow if step.excluded_images}
    facts = {"rows": len(table), "images": len(frame), "screened": flow[0].n_images, "left out by": left_out}
    facts |= {"plan": plan.plan_hash[:16], "to": run.path("results")}
    return {"skipped": False, "seconds": time.perf_counter() - started, "facts": facts}


def labelled_site(request: SiteRequest, run: Run, bundle: BundleManifest) -> tuple[pd.DataFrame, tuple[FlowStep, ...]]:
    """The site's labels beside its scores, one row per eligible image, and how its patients came to be evaluated.

    Args:
        request: names the tables.
        run: as :func:`site_run` gives it; its rules of eligibility are those of the training and test patients.
        bundle: that shall have made the scores.

    Raises:
        ManifestError: a column is missing, nobody is eligible, the scores are another bundle's, or belong to other
            images.
    """
    manifest = read_manifest(request.table, numeric=[request.label] if request.label else [])
    scores = _scores_of(request, manifest, bundle)
    selection = _eligible(request, run, manifest)
    manifest = selection.frame.assign(outcome=outcome_labels(selection.frame, run.config.outcome))
    # What the manifest says of a patient comes first; a score or a prediction in it would be an earlier one.
    columns = [str(name) for name in scores]
    made = {"score", "flag", "raw_score", *(name for name in columns if any(part in name for part in _PREDICTED))}
    known = manifest[[name for name in map(str, manifest.columns) if name not in made]]
    own = ["row_id", *(name for name in columns if name not in known.columns)]
    frame = known.merge(scores[own], on="row_id", how="left", validate="one_to_one")
    reasons = dict(zip(scores["row_id"], scores["reason"], strict=True))
    return frame, (*selection.flow, *_after_scoring(frame, reasons))


def _eligible(request: SiteRequest, run: Run, manifest: pd.DataFrame) -> Selection:
    """As the external cohort of a run is selected. Lean mass must be measured where the outcome is made of it."""
    config = run.config
    predicted = "alm_kg" in {target.name for target in config.targets}
    require_alm = predicted and "alm_kg" in outcome_columns(config.outcome)
    selection = select(manifest, config.eligibility, outcome=config.outcome, require_alm=require_alm)
    if selection.frame.empty:
        steps = "; ".join(f"{step.label}: {step.n_images}" for step in selection.flow)
        raise ManifestError(
            f"{request.table}: no image is left to evaluate ({steps}); give a manifest of eligible patients, or "
            "change the rules (--set eligibility...)"
        )
    return selection


def _after_scoring(frame: pd.DataFrame, reasons: Mapping[int, str]) -> list[FlowStep]:
    """What the scores left and took away, reason by reason, and then the outcomes that are not known."""
    steps, left = [], frame
    scored_N = frame["score"].notna()
    why = frame["row_id"].map(lambda row: str(reasons.get(row, "not in the score table"))).mask(scored_N, "")
    for reason in why[~scored_N].value_counts().index:
        before, left = left, left[why.loc[left.index] != reason]
        known = reason in set(Reason)
        said = f"not refused as {reason}: {REASONS[Reason(reason)].meaning}" if known else "in the score table"
        steps.append(flow_step(said, before, left))
    if left["outcome"].isna().any():
        before, left = left, left[left["outcome"].notna()]
        steps.append(flow_step("outcome known", before, left))
    return [*steps, flow_step("evaluated", left, left)]


def _scores_of(request: SiteRequest, manifest: pd.DataFrame, bundle: BundleManifest) -> pd.DataFrame:
    """The score table, after a look whether it is this bundle's and of this manifest."""
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
    return scores


def _bundle(request: SiteRequest, run: Run) -> BundleManifest:
    return read_manifest_of(request.bundle or run.path("bundle"))


def _reference(request: SiteRequest, model_run: Run) -> Reference:
    if request.bundle is not None:
        return no_reference(read_stage2(request.bundle).calibration)
    stages.finished(model_run, f"score-{TEST_INTERNAL}")
    return Reference(
        name=TEST_INTERNAL,
        frame=intake.labelled_scores(model_run, TEST_INTERNAL),
        variables=model_run.config.clinical_features,
        calibration=read_stage2(model_run.path("bundle")).calibration,
    )


def _write(run: Run, plan: EvaluationPlan, table: pd.DataFrame, frame: pd.DataFrame) -> None:
    storage.write_text(run.path("results", PLAN), write_plan(plan))
    run.write_result("results", table)
    run.write_result("headline", by_plan(headline_table(table, interval_level=plan.config.interval_level), plan))
    storage.write_table(run.path("results", f"table_one_{SITE}.csv"), by_plan(table_one(frame), plan))


def _lineage(request: SiteRequest, plan: EvaluationPlan, bundle: BundleManifest) -> str:
    """Short hash of all that decides the site's figures."""
    pointer = tables.read_pointer(request.scores)
    return fingerprint_of(
        {
            "table": storage.content_id(request.table),
            "scores": None if pointer is None else pointer.version,
            "plan": plan.plan_hash,
            "model": bundle.model_id,
            "sarc_ray": __version__,
            "report": reporting.REPORT_VERSION,
        }
    )

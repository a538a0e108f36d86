"""The verb ``report``: gather a finished run's tables, explain its model, and have the report room draw them."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import yaml

from sarc_ray import __version__, held_out, intake, storage, tables
from sarc_ray.bundle import Bundle, BundleManifest, load_bundle, read_manifest_of
from sarc_ray.cohort.definitions import outcome_name
from sarc_ray.cohort.selection import FlowStep
from sarc_ray.cohort.splits import TEST_EXTERNAL, TEST_INTERNAL, TRAIN, TUNE
from sarc_ray.errors import REASONS, BundleError, StorageError
from sarc_ray.evaluation.results import with_unplanned
from sarc_ray.evaluation.rows import numbers
from sarc_ray.evaluation.sensitivity import ANALYSES
from sarc_ray.evaluation.table_one import table_one
from sarc_ray.imaging.preprocess import process_image
from sarc_ray.model_card import said_of_calibration, said_of_rule, said_of_threshold
from sarc_ray.plans import plan_in_force, whole_plan
from sarc_ray.report.content import (
    Absent,
    Archive,
    Cohort,
    Example,
    Lineage,
    Operating,
    Report,
    Results,
    Retrained,
    Search,
    TestSet,
)
from sarc_ray.report.explanations import choose_examples
from sarc_ray.report.html import PAGE, write_report
from sarc_ray.run import Run, fingerprint_of

Tell = Callable[[str, int, int], None]
# Raised when the page shows something else for the same results.
REPORT_VERSION = 8
_NOBODY = "no such patient was scored"
_LABELS = {TEST_INTERNAL: "Internal test set", TEST_EXTERNAL: "External test set"}
_PARTS = {TRAIN: "Training", TUNE: "Tuning", TEST_INTERNAL: "Internal test"}
_TABLE_ONE_TEXTS = ("variable", "with", "without", "p", "test")
_SENSITIVITY_TEXTS = ("analysis", "dataset", "method", "na_reason")
_STAGES = ("simulate", "prepare", "train", "tune", f"score-{TEST_INTERNAL}", f"score-{TEST_EXTERNAL}", "score-archive")


def report(run: Run, tell: Tell | None = None) -> dict[str, Any]:
    """Write the run's report: one folder with ``index.html``, figures and their numbers.

    A report that lacks pictures because their store was away is drawn again when asked for again.

    Raises:
        StorageError: the run was not evaluated, or its folder cannot be written.
    """
    evaluated = run.finished("evaluate")
    config = run.config
    archive = _record(run, "score-archive")
    # The records, not the data behind them: a report can be drawn again where the object store is away.
    fingerprint = fingerprint_of(
        [
            evaluated["fingerprint"],
            run.finished("tune")["facts"]["model_id"],
            archive["fingerprint"] if config.data.archive and archive else None,
            {name: storage.content_id(uri) for name, uri in _analyses_made(run).items()},
            REPORT_VERSION,
        ]
    )
    earlier = _record(run, "report")
    if earlier and (earlier["facts"]["pictures_unread"] or not storage.exists(run.path("report", PAGE))):
        storage.remove_tree(run.path("stages", "report.json"))

    def work() -> dict[str, Any]:
        content = gather(run)
        if tell:
            tell("steps", 1, 2)
        facts = write_report(run.path("report"), content)
        if tell:
            tell("steps", 2, 2)
        return {**facts, "pictures_unread": unread(content), "lineage": content.lineage.hash}

    return run.stage("report", fingerprint=fingerprint, work=work)


def gather(run: Run) -> Report:
    """Read what a finished run holds, and explain its model on the internal test set.

    Raises:
        StorageError: a table of the run is missing.
    """
    config, plan = run.config, plan_in_force(run)
    evaluation, evaluated = plan.config, storage.read_table(run.path("results", "results.parquet"))
    results = Results(table=with_unplanned(evaluated, plan, whole_plan(run)))
    names = [str(name) for name in results.table["dataset"].unique()]
    test_sets = tuple(
        TestSet(name=name, label=_LABELS.get(name, name), frame=intake.labelled_scores(run, name)) for name in names
    )
    cohort = intake.read_cohort(run, "derivation")
    outcome = outcome_name(config.outcome)
    manifest = read_manifest_of(run.path("bundle"))
    try:
        bundle: Bundle | Absent = load_bundle(run.path("bundle"))
    except BundleError as error:
        bundle = Absent(reason=f"The bundle cannot be used: {error}.")
    internal = next((test_set for test_set in test_sets if test_set.name == TEST_INTERNAL), None)
    explained = _explained(bundle, internal, seed=config.run.seed)
    return Report(
        title=config.run.name,
        run_id=str(results.table["run_id"].iloc[0]),
        simulated=config.data.truth is not None,
        outcome=str(outcome).replace("_", " "),
        threshold=manifest.threshold,
        interval_level=evaluation.interval_level,
        confidence_level=evaluation.confidence_level,
        evaluation=evaluation,
        targets=config.targets,
        clinical_features=config.clinical_features,
        training_scale=_training_scale(cohort, [target.name for target in config.targets]),
        cohorts=_cohorts(run, cohort),
        test_sets=test_sets,
        table_one=_tables_one(run, cohort, names),
        results=results,
        operating=operating_of(manifest),
        search=_search(run),
        ladder=_ladder(run),
        retrained=_retrained(run, names),
        **explained,
        examples=_examples(run, bundle, internal),
        archive=_archive(run),
        lineage=_lineage(run, results),
    )


def _training_scale(cohort: pd.DataFrame, names: list[str]) -> dict[str, tuple[float, float]]:
    """Mean and SD (ddof 0, as in stage 1) of the measured values of the training patients."""
    training = cohort[cohort["split"] == TRAIN]
    return {name: (float(training[name].mean()), float(training[name].std(ddof=0))) for name in names}


def _cohorts(run: Run, derivation: pd.DataFrame) -> tuple[Cohort, ...]:
    sizes = derivation.groupby("split")["patient_id"].nunique()
    parts = {label: int(sizes[name]) for name, label in _PARTS.items() if name in sizes}
    found = [Cohort(name="derivation", label="Derivation cohort", flow=_flow(run, "derivation"), parts=parts)]
    if run.config.data.external is not None:
        flow = _flow(run, "external")
        external = {_LABELS[TEST_EXTERNAL]: flow[-1].n_patients}
        found.append(Cohort(name="external", label="External cohort", flow=flow, parts=external))
    return tuple(found)


def _flow(run: Run, name: str) -> tuple[FlowStep, ...]:
    table = storage.read_table(run.path("cohort", f"{name}_flow.csv"))
    return tuple(
        FlowStep(
            label=str(row["label"]),
            n_images=int(row["n_images"]),
            n_patients=int(row["n_patients"]),
            excluded_images=int(row["excluded_images"]),
            excluded_patients=int(row["excluded_patients"]),
        )
        for row in table.to_dict("records")
    )


def _tables_one(run: Run, cohort: pd.DataFrame, names: list[str]) -> dict[str, pd.DataFrame]:
    """The derivation cohort as a whole, as in the paper, then the evaluated test sets from the results."""
    found = {"Derivation cohort": table_one(cohort)}
    for name in names:
        uri = run.path("results", f"table_one_{name}.csv")
        if storage.exists(uri):
            found[_LABELS.get(name, name)] = _read_csv(uri, texts=_TABLE_ONE_TEXTS)
    return found


def _read_csv(uri: str, *, texts: tuple[str, ...]) -> pd.DataFrame:
    """A table of one plan with numbers in all other columns; a CSV file holds texts alone, empty ones for nothing."""
    table = storage.read_table(uri).drop(columns="plan_hash", errors="ignore")  # every page names the plan
    for name in table.columns.difference(list(texts)):
        table[name] = pd.to_numeric(table[name].replace("", np.nan))
    return table


def _explained(bundle: Bundle | Absent, internal: TestSet | None, *, seed: int) -> dict[str, Any]:
    """What the score uses, by three methods on the same patients."""
    if isinstance(bundle, Absent):
        return dict.fromkeys(("shap", "importance", "dependence"), bundle)
    people = held_out.held_out(bundle, internal)
    return {
        "shap": held_out.shap_of(bundle, people),
        "importance": held_out.importance_of(bundle, people, seed=seed),
        "dependence": held_out.dependence_of(bundle, people),
    }


def operating_of(manifest: BundleManifest) -> Operating:
    """What a bundle decided about calibration and threshold."""
    points = pd.DataFrame(list(manifest.thresholds))
    points.insert(2, "said", [said_of_rule(point) for point in manifest.thresholds])
    return Operating(calibration=manifest.calibration, said=said_of_calibration(manifest.calibration), points=points)


def _search(run: Run) -> Search | Absent:
    uri, nested = run.path("results", "algorithms.parquet"), run.path("stage2", "nested.csv")
    if not storage.exists(uri):
        return Absent(reason="The algorithms were not compared; run 'sarc-ray evaluate' again.")
    config = run.config.stage2
    return Search(
        algorithms=storage.read_table(uri),
        choice=config.choice,
        by_the_clock=config.minutes_per_algorithm is not None,
        nested=pd.read_csv(io.BytesIO(storage.read_bytes(nested))) if config.nested_splits else None,
    )


def _ladder(run: Run) -> pd.DataFrame | Absent:
    uri = run.path("results", "ladder.parquet")
    if not storage.exists(uri):
        return Absent(reason="The ladder of models was not climbed; run 'sarc-ray evaluate' again.")
    return storage.read_table(uri)


def _analyses_made(run: Run) -> dict[str, str]:
    """Tables of the sensitivity analyses that were made, by name."""
    found = {name: run.path("results", f"sensitivity_{name}.csv") for name in ANALYSES}
    return {name: uri for name, uri in found.items() if storage.exists(uri)}


def _retrained(run: Run, names: list[str]) -> tuple[Retrained, ...] | Absent:
    made = _analyses_made(run)
    if not made:
        return Absent(reason="No sensitivity analysis was made; 'sarc-ray sensitivity' makes the paper's.")
    return tuple(
        Retrained(
            name=name,
            label=ANALYSES[name].label,
            table=_read_csv(uri, texts=_SENSITIVITY_TEXTS),
            scores={dataset: both for dataset in names if (both := _both_scores(run, name, dataset)) is not None},
        )
        for name, uri in made.items()
    )


def _both_scores(run: Run, name: str, dataset: str) -> pd.DataFrame | None:
    """Scores of the run's model and of an analysis's beside the outcome; None where the analysis's are away."""
    config = run.config
    other = Run(config=replace(config, run=replace(config.run, directory=run.path("sensitivity", name))))
    try:
        some = tables.read(other.path("scores", dataset))[["row_id", "score"]]
    except StorageError:
        return None
    both = intake.labelled_scores(run, dataset)[["row_id", "outcome", "score"]].merge(
        some, on="row_id", suffixes=("_all", "_analysis"), validate="one_to_one"
    )
    columns = {column: numbers(both, column) for column in ("outcome", "score_all", "score_analysis")}
    known_N = ~np.isnan(np.column_stack(list(columns.values()))).any(axis=1)
    return pd.DataFrame({column: values[known_N] for column, values in columns.items()})


def _examples(run: Run, bundle: Bundle | Absent, internal: TestSet | None) -> tuple[Example, ...] | Absent:
    """A typical patient of each sex and outcome, with heat maps; pictures come from the manifest's own store."""
    if isinstance(bundle, Absent):
        return bundle
    if internal is None or "sex" not in internal.frame:
        return Absent(reason="The internal test set has no column sex, or was not evaluated: no patients were chosen.")
    chosen = choose_examples(internal.frame)
    rows = {
        row_id: internal.frame[internal.frame["row_id"] == row_id].iloc[0]
        for _, _, row_id in chosen
        if row_id is not None
    }
    objects = dict(zip(rows, storage.read_many([str(row["image_uri"]) for row in rows.values()]), strict=True))
    return tuple(
        _without_picture(sex, outcome, float("nan"), _NOBODY)
        if row_id is None
        else _example(run, bundle, sex, outcome, rows[row_id], objects[row_id])
        for sex, outcome, row_id in chosen
    )


def _example(run: Run, bundle: Bundle, sex: str, outcome: int, row: pd.Series, found: bytes | Exception) -> Example:
    from sarc_ray.stage1.saliency import grad_cam  # imports torch

    result = process_image(found, run.config.preprocess)
    score = float(row["score"])
    if result.image_HW is None:
        why = f"the radiograph could not be read again: {REASONS[result.reason].meaning}"
        return _without_picture(sex, outcome, score, why)
    config = run.config.fit
    maps = {
        target.name: grad_cam(members, result.image_HW[None], device=config.device, threads=config.threads)
        for target, members in zip(bundle.spec.targets, bundle.members, strict=True)
    }
    return Example(
        sex=sex,
        outcome=outcome,
        image_HW=result.image_HW,
        heat_HW={name: heat.mean_NHW[0] for name, heat in maps.items()},
        disagreement_HW={name: heat.disagreement_NHW[0] for name, heat in maps.items()},
        predicted={name: (float(row[f"{name}_mu"]), float(row[f"{name}_sigma"])) for name in maps},
        score=score,
        absent="",
    )


def _without_picture(sex: str, outcome: int, score: float, why: str) -> Example:
    return Example(
        sex=sex,
        outcome=outcome,
        image_HW=None,
        heat_HW={},
        disagreement_HW={},
        predicted={},
        score=score,
        absent=why,
    )


def unread(content: Report) -> int:
    """Pictures that another call may find."""
    if isinstance(content.examples, Absent):
        return 0
    return sum(example.image_HW is None and example.absent != _NOBODY for example in content.examples)


def _archive(run: Run) -> Archive | Absent:
    """Counts of the archive's score table, file by file: an archive need not fit into memory."""
    if run.config.data.archive is None:
        return Absent(reason="No archive: the run's configuration names none (data.archive).")
    uri = run.path("scores", "archive")
    pointer = tables.read_pointer(uri)
    if pointer is None:
        return Absent(reason="The archive was not scored yet; run 'sarc-ray score' with '--dataset archive'.")
    intake.require_own_scores(run, "scores", "archive")
    keys = ["outcome", "reason", "retryable"]
    counts, n_flagged = [], 0
    for part in tables.iterate(uri, columns=[*keys, "flag"]):
        frame = part.to_pandas()
        n_flagged += int((numbers(frame, "flag") == 1).sum())
        counts.append(frame.groupby(keys).size())
    total = pd.concat(counts).groupby(level=keys).sum().rename("n").reset_index()
    return Archive(counts=total, n_rows=pointer.n_rows, n_flagged=n_flagged)


def lineage_hash(run: Run, results: pd.DataFrame) -> str:
    """Short hash of all that decides the report's figures: model, plan, scores, evaluation and release.

    Args:
        run: evaluated.
        results: its results table.

    Raises:
        StorageError: the run was not evaluated.
    """
    pointers = {name: tables.read_pointer(run.path("scores", name)) for name in (*_LABELS, "archive")}
    return fingerprint_of(
        {
            "run": str(results["run_id"].iloc[0]),
            "plan": str(results["plan_hash"].iloc[0]),
            "model": read_manifest_of(run.path("bundle")).model_id,
            "evaluate": run.finished("evaluate")["fingerprint"],
            "scores": {name: pointer.version for name, pointer in pointers.items() if pointer is not None},
            "sarc_ray": __version__,
            "report": REPORT_VERSION,
        }
    )


def _lineage(run: Run, results: Results) -> Lineage:
    manifest = read_manifest_of(run.path("bundle"))
    records = {name: _record(run, name) for name in (*_STAGES, "evaluate")}
    stages = pd.DataFrame(
        {
            "stage": name,
            "fingerprint": record["fingerprint"],
            "seconds": record["seconds"],
            "facts": ", ".join(f"{key}: {_plain(value)}" for key, value in record["facts"].items()),
        }
        for name, record in records.items()
        if record
    )
    lineage, configuration = lineage_hash(run, results.table), storage.read_text(run.path("config.yaml"))
    facts = {
        "Lineage": f"{lineage}, a hash of run, model, plan, scores, evaluation and release; in every figure and table",
        "Run": str(results.table["run_id"].iloc[0]),
        "Model": manifest.model_id,
        "Evaluation plan": str(results.table["plan_hash"].iloc[0]),
        "SARC-Ray": __version__,
        "Stage 2": str(manifest.stage2["algorithm"]).replace("_", " "),
        "Calibration": said_of_calibration(manifest.calibration),
        "Threshold": f"{manifest.threshold:.4f} ({said_of_threshold(manifest.thresholds)})",
        "Outcome": run.config.outcome.column or run.config.outcome.definition,
        "Clinical features": ", ".join(run.config.clinical_features) or "none",
        "Packages of the model": ", ".join(f"{name} {version}" for name, version in manifest.packages.items()),
    }
    for name in (TEST_INTERNAL, TEST_EXTERNAL, "archive"):
        pointer = tables.read_pointer(run.path("scores", name))
        if pointer is not None:
            facts[f"Score table {name}"] = f"version {pointer.version}, {pointer.n_rows:,} rows"
    return Lineage(
        hash=lineage,
        facts=facts,
        stages=stages,
        configuration=configuration,
        settings=yaml.safe_load(configuration),
    )


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{name} {_plain(item)}" for name, item in value.items())
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _record(run: Run, stage: str) -> dict[str, Any] | None:
    """A stage's record, or None where it has not finished."""
    uri = run.path("stages", f"{stage}.json")
    if not storage.exists(uri):
        return None
    record: dict[str, Any] = storage.read_json(uri)
    return record

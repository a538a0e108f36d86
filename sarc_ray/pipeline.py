"""One function per verb: where the pure rooms meet the engine.

Every verb takes a :class:`~sarc_ray.run.Run` and a ``tell`` callback for progress, leaves its results in the run's
folder, and returns the record of its stage. A verb whose inputs have not changed does nothing.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from sarc_ray import __version__, evaluating, intake, stages, storage, tables
from sarc_ray.bundle import read_manifest_of, require_preprocessing
from sarc_ray.bundle_scoring import score_rows_with_bundle
from sarc_ray.cohort.splits import TEST_EXTERNAL, TEST_INTERNAL, TRAIN, TUNE
from sarc_ray.distributed import cluster
from sarc_ray.distributed.ood import pooled_features_of
from sarc_ray.distributed.prepare import prepare_images
from sarc_ray.distributed.simulate import simulate_cohorts
from sarc_ray.distributed.train import train_members
from sarc_ray.errors import EvaluationError
from sarc_ray.privacy import load_key
from sarc_ray.run import Run, RunConfig, fingerprint_of
from sarc_ray.run_stage2 import (
    OOD_FILE,
    choose_as_paper,
    problem_of,
    stage2_frame,
    write_feature_check,
    write_run_bundle,
)
from sarc_ray.stage1.checkpoint import member_from_bytes
from sarc_ray.stage1.holdout import MemberPlan, plan_members
from sarc_ray.stage1.member import MemberResult, MemberTask
from sarc_ray.stage1.ood import fit_reference, reference_to_bytes
from sarc_ray.stage1.predictions import predict_patients
from sarc_ray.stage1.shortfall import FailedMember, member_name, require_members
from sarc_ray.telling import Tell, counted, silent
from sarc_ray.tuning import Problem, fit_finalists, nested_cross_validation, search_stage2, write_search

Record = dict[str, Any]


@contextlib.contextmanager
def engine(run: Run) -> Iterator[None]:
    """Hold the engine for several verbs in a row; starting it takes seconds."""
    with cluster.session(run.config.engine):
        yield


def simulate(run: Run, uri: str, tell: Tell = silent) -> Record:
    """Write the built-in cohorts under ``uri``; see :mod:`sarc_ray.simulate`."""
    config = run.config

    def work() -> Record:
        with cluster.session(config.engine):
            simulate_cohorts(config.simulate, uri, seed=config.run.seed, progress=counted(tell, "patients"))
        return {"under": uri}

    fingerprint = fingerprint_of([__version__, config.simulate, config.run.seed, uri])
    return run.stage("simulate", fingerprint=fingerprint, work=work)


def prepare(run: Run, tell: Tell = silent) -> Record:
    """Select and split the cohorts, and write the image table of the training and tuning patients."""
    config = run.config
    fingerprint = stages.fingerprint(run, "prepare")

    def work() -> Record:
        cohort = intake.select_derivation(run)
        if config.data.external is not None:
            intake.refuse_shared_images(cohort, intake.select_external(run))
        rows = cohort[cohort["split"].isin([TRAIN, TUNE])]
        storage.require_known_schemes(rows["image_uri"])
        with cluster.session(config.engine):
            pointer = prepare_images(
                rows,
                run.path("images"),
                preprocess=config.preprocess,
                engine=config.engine,
                version=fingerprint_of([__version__, config.preprocess, sorted(rows["row_id"].tolist())]),
                lineage=stages.lineage(run, "prepare", fingerprint),
                progress=counted(tell, "radiographs"),
            )
        return {"splits": cohort["split"].value_counts().to_dict(), "images": pointer.counts, **_retryable(pointer)}

    outputs = ("cohort/derivation.parquet", "images/current.json")
    return run.stage("prepare", fingerprint=fingerprint, work=work, outputs=outputs)


def train(run: Run, tell: Tell = silent) -> Record:
    """Train the ensembles, and predict the training patients (as ``training_features`` says) and tuning patients."""
    config = run.config
    stages.finished(run, "prepare")
    fingerprint = stages.fingerprint(run, "train")

    def work() -> Record:
        frame, images_NSS = intake.training_images(run)
        plan = plan_of(config, frame)
        tasks = _member_tasks(config, frame, plan)
        with cluster.session(config.engine):
            trained = train_members(
                tasks,
                images_NSS,
                uri=run.path("members"),
                engine=config.engine,
                fingerprint=stages.fingerprint_of_members(run),
                progress=counted(tell, "members"),
            )
            require_members(trained.failed, config.ensemble)
            first = next(found for members in trained.members if (found := members.get(config.targets[0].name)))
            distance_N = _ood_distances(run, frame, images_NSS, first.data)
        columns, recalibrations = predict_patients(
            frame,
            trained.members,
            targets=config.targets,
            speaks_IN=plan.speaks_IN,
            tune_N=(frame["split"] == TUNE).to_numpy(),
            recalibration=config.ensemble.recalibration,
            seed=config.run.seed,
        )
        # Without those for whom too few members can speak, as happens where members are missing.
        predictions = (
            frame[["row_id", "patient_id", "split"]].assign(ood_distance=distance_N).join(columns, how="inner")
        )
        storage.write_table(run.path("predictions.parquet"), predictions)
        return {
            "members": len(tasks),
            "training_features": config.ensemble.training_features,
            "training_patients": _n_training(frame),
            "recalibration": {name: asdict(found) for name, found in recalibrations.items()},
            **_started_twice(trained.members),
            **_missing(trained.failed, n_left_out=_n_training(frame) - _n_training(predictions)),
        }

    return run.stage("train", fingerprint=fingerprint, work=work, outputs=("predictions.parquet", OOD_FILE))


def tune(run: Run, tell: Tell = silent) -> Record:
    """Search, choose, calibrate and fit stage 2 on the training patients, and write the bundle."""
    stages.finished(run, "train")
    fingerprint = stages.fingerprint(run, "tune")

    def work() -> Record:
        frame = stage2_frame(run)
        problem, config, seed = problem_of(run, frame), run.config.stage2, run.config.run.seed
        n_patients = len(np.unique(problem.patient_N))
        with cluster.session(run.config.engine):
            searched = search_stage2(
                problem,
                config,
                seed=seed,
                uri=run.path("stage2", stages.fingerprint_of_search(run)),
                engine=run.config.engine,
                tell=tell,
            )
            models = fit_finalists(problem, searched, config, seed=seed, tell=tell)
            nested = _nested(run, problem, tell)
        name = searched.chosen.spec.algorithm

        def write(algorithm: str) -> str:
            record = searched.finalists[algorithm]
            return write_run_bundle(
                run, run.path("bundle"), models[algorithm], record, n_patients=n_patients, extra=nested
            )

        model_id = write(name)
        if config.choice == "internal_test_as_paper":
            _score_for_the_choice(run, tell)
            name = choose_as_paper(run, models)
            model_id = write(name)
        write_search(run.path("stage2"), searched, models, chosen=name)
        write_feature_check(run, frame)
        model, chosen = models[name], searched.finalists[name]
        return {
            "algorithm": name,
            "choice": config.choice,
            "cv_auroc": chosen.cv_auroc_mean,
            "cv_auroc_se": chosen.cv_auroc_se,
            **nested,
            "threshold": model.threshold,
            "threshold_rule": model.in_force,
            "calibration": asdict(model.decision),
            "model_id": model_id,
            "patients": n_patients,
        }

    return run.stage("tune", fingerprint=fingerprint, work=work, outputs=("bundle/bundle.json",))


def _nested(run: Run, problem: Problem, tell: Tell) -> Record:
    """Figures of the nested cross-validation, where one is asked for; its folds become ``stage2/nested.csv``."""
    config = run.config
    if not config.stage2.nested_splits:
        return {}
    table = nested_cross_validation(
        problem,
        config.stage2,
        seed=config.run.seed,
        uri=run.path("stage2", stages.fingerprint_of_search(run)),
        engine=config.engine,
        tell=tell,
    )
    storage.write_table(run.path("stage2", "nested.csv"), table)
    return {
        "nested_auroc": float(table["auroc"].mean()),
        "nested_auroc_sd": float(table["auroc"].std(ddof=1)),
        "nested_splits": config.stage2.nested_splits,
    }


def _score_for_the_choice(run: Run, tell: Tell) -> None:
    """The internal test set through the members; any of the finalists can then be tried on what they say."""
    score_rows_with_bundle(
        intake.internal_rows(run),
        bundle_uri=run.path("bundle"),
        table_uri=run.path("stage2", "choosing"),
        key=load_key(run.config.score.key_file),
        run=run,
        tell=tell,
    )


def score(run: Run, dataset: str, tell: Tell = silent, *, retry: bool = False) -> Record:
    """Score one of the run's data sets (``test_internal``, ``test_external`` or ``archive``) with its bundle.

    With ``retry`` only the retryable rows of its table are touched; whether the stage is done is left to the next call
    without, which knows the manifest as a whole.
    """
    config = run.config
    sources = {
        TEST_INTERNAL: (config.data.derivation, intake.internal_rows),
        TEST_EXTERNAL: (config.data.external, intake.external_rows),
        "archive": (config.data.archive, intake.archive_rows),
    }
    if dataset not in sources:
        raise EvaluationError(f"dataset: found {dataset!r}, allowed: {', '.join(sources)}")
    uri, read_rows = sources[dataset]
    if uri is None:
        raise EvaluationError(f"data.{dataset.removeprefix('test_')}: no manifest is configured; add its URI")
    stages.finished(run, "tune")

    def work() -> Record:
        require_preprocessing(read_manifest_of(run.path("bundle")).spec, config.preprocess)
        key = load_key(config.score.key_file)
        pointer = score_rows_with_bundle(
            read_rows(run),
            bundle_uri=run.path("bundle"),
            table_uri=run.path("scores", dataset),
            key=key,
            run=run,
            tell=tell,
            retry=retry,
            manifest_uri=uri,
        )
        return {"counts": pointer.counts, "n_rows": pointer.n_rows, **_taken_over(pointer), **_retryable(pointer)}

    if retry:
        started = time.perf_counter()
        return {"facts": work(), "skipped": False, "seconds": time.perf_counter() - started}
    name = f"score-{dataset}"
    outputs = (f"scores/{dataset}/current.json",)
    return run.stage(name, fingerprint=stages.fingerprint(run, name), work=work, outputs=outputs)


def evaluate(run: Run, tell: Tell = silent) -> Record:
    """Compare scores with labels by the evaluation plan; see :mod:`sarc_ray.evaluating`."""
    return evaluating.evaluate(run, tell)


def _n_training(frame: pd.DataFrame) -> int:
    return int(frame.loc[frame["split"] == TRAIN, "patient_id"].nunique())


def _started_twice(members: Sequence[Mapping[str, MemberResult]]) -> Record:
    """Members whose first start said the same of every picture, so that another seed made them."""
    names = [
        member_name(target, index)
        for index, by_target in enumerate(members)
        for target, member in by_target.items()
        if member.discarded_seeds
    ]
    return {"members_started_twice": names} if names else {}


def _missing(failed: Sequence[FailedMember], *, n_left_out: int) -> Record:
    """What the records of a training, and of all that is built on it, say of members that it had to do without."""
    if not failed:
        return {}
    return {"failed_members": [member.name for member in failed], "patients_left_out_of_stage2": n_left_out}


def plan_of(config: RunConfig, frame: pd.DataFrame) -> MemberPlan:
    """Who learns from whom, and who speaks for whom, of the rows of :func:`sarc_ray.intake.training_images`."""
    return plan_members(
        config.ensemble.training_features,
        members=config.ensemble.members,
        patient_N=frame["patient_id"].to_numpy(),
        y_N=frame["outcome"].to_numpy(dtype=np.float64),
        training_N=(frame["split"] == TRAIN).to_numpy(),
        seed=config.run.seed,
    )


def _member_tasks(config: RunConfig, frame: pd.DataFrame, plan: MemberPlan) -> list[MemberTask]:
    """One task per member index."""
    training_N = (frame["split"] == TRAIN).to_numpy()
    y_TN = np.stack([frame[target.name].to_numpy(dtype=np.float64) for target in config.targets])
    return [
        MemberTask(
            index=index,
            seed=config.run.seed,
            fit_N=training_N & ~held_out_N,
            tune_N=(frame["split"] == TUNE).to_numpy(),
            targets=config.targets,
            y_TN=y_TN,
            network=config.network,
            augment=config.augment,
            fit=config.fit,
            heads=config.ensemble.heads,
        )
        for index, held_out_N in enumerate(plan.held_out_IN)
    ]


def _ood_distances(run: Run, frame: pd.DataFrame, images_NSS: np.ndarray, member: bytes) -> np.ndarray:
    """Learn where the training pictures lie in one member's features, and how far from there every picture is."""
    features_NF = pooled_features_of(member, images_NSS, fit=run.config.fit, engine=run.config.engine)
    training_N = (frame["split"] == TRAIN).to_numpy()
    reference = fit_reference(features_NF[training_N], backbone_hash=member_from_bytes(member).backbone_hash)
    storage.write_bytes(run.path(OOD_FILE), reference_to_bytes(reference))
    return reference.distance(features_NF)


def _retryable(pointer: tables.Pointer) -> Record:
    """Rows that the store failed on: the stage stays unfinished, and the same command tries them again."""
    return {"retryable": pointer.n_retryable} if pointer.n_retryable else {}


def _taken_over(pointer: tables.Pointer) -> Record:
    """Rows that an earlier version of the table had already."""
    n_rows = pointer.lineage.get("n_taken_over")
    return {"taken_over": n_rows} if n_rows else {}

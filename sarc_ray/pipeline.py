"""One function per verb: where the pure rooms meet the engine.

Every verb takes a :class:`~sarc_ray.run.Run` and a ``tell`` callback for progress, leaves its results in the run's
folder, and returns the record of its stage. A verb whose inputs have not changed does nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from sarc_ray import __version__, intake, stages, storage, tables
from sarc_ray.bundle import BundleSpec, read_manifest_of, require_preprocessing, verify_bundle, write_bundle
from sarc_ray.cohort.splits import TEST_EXTERNAL, TEST_INTERNAL, TRAIN, TUNE
from sarc_ray.config import to_mapping
from sarc_ray.distributed import cluster
from sarc_ray.distributed.ood import pooled_features_of
from sarc_ray.distributed.prepare import prepare_images
from sarc_ray.distributed.score import score_manifest
from sarc_ray.distributed.simulate import simulate_cohorts
from sarc_ray.distributed.train import train_members
from sarc_ray.distributed.tune import TrialRecord, search
from sarc_ray.errors import EvaluationError
from sarc_ray.evaluation.results import evaluate_dataset, headline_table
from sarc_ray.evaluation.table_one import table_one
from sarc_ray.privacy import load_key, pseudonyms
from sarc_ray.run import Run, RunConfig, fingerprint_of
from sarc_ray.stage1.checkpoint import member_from_bytes
from sarc_ray.stage1.holdout import MemberPlan, plan_members
from sarc_ray.stage1.member import MemberTask
from sarc_ray.stage1.ood import alarm_threshold, false_alarm_rate_held, fit_reference, reference_to_bytes
from sarc_ray.stage1.predictions import predict_patients
from sarc_ray.stage1.shortfall import FailedMember, member_name, require_members
from sarc_ray.stage2.cross_validation import Fold, choose, make_folds
from sarc_ray.stage2.features import build_features
from sarc_ray.stage2.model import fit_final
from sarc_ray.stage2.search import RoundSearch
from sarc_ray.stats.hypothesis import smd_means

_OOD_FILE = "members/ood.safetensors"
# Facts of the training's record that the bundle passes on.
_TOLD_BY_TRAINING = ("training_features", "failed_members", "patients_left_out_of_stage2")
# (what is counted, done, in all)
Tell = Callable[[str, int, int], None]
Record = dict[str, Any]


@contextlib.contextmanager
def engine(run: Run) -> Iterator[None]:
    """Hold the engine for several verbs in a row; starting it takes seconds."""
    with cluster.session(run.config.engine):
        yield


def silent(what: str, done: int, total: int) -> None:
    """The ``tell`` of callers that show no progress."""


def simulate(run: Run, uri: str, tell: Tell = silent) -> Record:
    """Write the built-in cohorts under ``uri``; see :mod:`sarc_ray.simulate`."""
    config = run.config

    def work() -> Record:
        with cluster.session(config.engine):
            simulate_cohorts(config.simulate, uri, seed=config.run.seed, progress=_counted(tell, "patients"))
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
        with cluster.session(config.engine):
            pointer = prepare_images(
                rows,
                run.path("images"),
                preprocess=config.preprocess,
                engine=config.engine,
                version=fingerprint_of([__version__, config.preprocess, sorted(rows["row_id"].tolist())]),
                lineage=_lineage(run, "prepare", fingerprint),
                progress=_counted(tell, "radiographs"),
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
        plan = _plan(config, frame)
        tasks = _member_tasks(config, frame, plan)
        with cluster.session(config.engine):
            trained = train_members(
                tasks,
                images_NSS,
                uri=run.path("members"),
                engine=config.engine,
                fingerprint=stages.fingerprint_of_members(run),
                progress=_counted(tell, "members"),
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
            **_missing(trained.failed, n_left_out=_n_training(frame) - _n_training(predictions)),
        }

    return run.stage("train", fingerprint=fingerprint, work=work, outputs=("predictions.parquet", _OOD_FILE))


def tune(run: Run, tell: Tell = silent) -> Record:
    """Search, choose, calibrate and fit stage 2 on the training patients, and write the bundle."""
    config = run.config
    stages.finished(run, "train")
    fingerprint = stages.fingerprint(run, "tune")

    def work() -> Record:
        frame = _stage2_frame(run)
        in_training = (frame["split"] == TRAIN) & frame["outcome"].notna()
        known = intake.features_known(frame, config)
        training = frame[in_training & known].reset_index(drop=True)
        names = [target.name for target in config.targets]
        features = build_features(training, config.clinical_features, names, mu_only=_mu_only(config))
        outcome_N = training["outcome"].to_numpy(dtype=np.int64)
        folds = make_folds(
            outcome_N,
            training["patient_id"].to_numpy(),
            n_splits=config.stage2.n_splits,
            n_repeats=config.stage2.n_repeats,
            seed=config.run.seed,
        )
        records = _search(run, features, outcome_N, folds, tell=tell)
        chosen = records[choose(records)]
        _write_trials(run, records, chosen)
        name, params, seed = chosen.spec.algorithm, chosen.spec.params, config.run.seed
        model = fit_final(name, params, features, outcome_N, folds, config=config.stage2, seed=seed, n_jobs=1)
        _write_feature_check(run, frame[known])
        model_id = _write_bundle(run, model, chosen, n_patients=training["patient_id"].nunique())
        return {
            "algorithm": name,
            "cv_auroc": chosen.cv_auroc_mean,
            "cv_auroc_se": chosen.cv_auroc_se,
            "threshold": model.threshold,
            "threshold_rule": model.in_force,
            "calibration": asdict(model.decision),
            "model_id": model_id,
            "patients": training["patient_id"].nunique(),
        }

    return run.stage("tune", fingerprint=fingerprint, work=work, outputs=("bundle/bundle.json",))


def score(run: Run, dataset: str, tell: Tell = silent) -> Record:
    """Score one of the run's data sets (``test_internal``, ``test_external`` or ``archive``) with its bundle."""
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
        )
        return {"counts": pointer.counts, "n_rows": pointer.n_rows, **_retryable(pointer)}

    name = f"score-{dataset}"
    outputs = (f"scores/{dataset}/current.json",)
    return run.stage(name, fingerprint=stages.fingerprint(run, name), work=work, outputs=outputs)


def score_rows_with_bundle(
    manifest: pd.DataFrame, *, bundle_uri: str, table_uri: str, key: bytes, run: Run, tell: Tell = silent
) -> tables.Pointer:
    """Score any manifest with any bundle into any table.

    Args:
        manifest: as ``read_manifest`` gives it.
        bundle_uri: a bundle; verified before use.
        table_uri: the score table.
        key: secret of the patient and study keys.
        run: gives the engine's settings and the run's name.
        tell: progress.
    """
    spec = verify_bundle(bundle_uri)
    carried = ["row_id", "image_uri", "site", "device", "view", "age_years", *spec.spec.clinical_features]
    rows = manifest[[name for name in dict.fromkeys(carried) if name in manifest]].copy()
    rows["patient_key"] = pseudonyms(_texts(manifest["patient_id"]), key=key, purpose="patient")
    if "study_id" in manifest:
        rows["study_key"] = pseudonyms(_texts(manifest["study_id"]), key=key, purpose="study")
    content = pd.util.hash_pandas_object(rows, index=False).to_numpy().tobytes().hex()
    version = fingerprint_of([__version__, spec.model_id, content, run.config.score.reasons])
    with cluster.session(run.config.engine):
        return score_manifest(
            rows,
            table_uri,
            bundle_uri=bundle_uri,
            preprocess=spec.spec.preprocess,
            engine=run.config.engine,
            version=version,
            lineage={**_lineage(run, "score", version), "model_id": spec.model_id},
            n_reasons=run.config.score.reasons,
            progress=_counted(tell, "radiographs"),
        )


def evaluate(run: Run, tell: Tell = silent) -> Record:
    """Results table, Table 1 and headline figures of every scored data set that has labels."""
    config = run.config
    datasets = stages.labelled_datasets(config)
    for dataset in datasets:
        stages.finished(run, f"score-{dataset}")

    def work() -> Record:
        results = []
        for number, dataset in enumerate(datasets):
            frame = intake.labelled_scores(run, dataset)
            results.append(
                evaluate_dataset(
                    frame,
                    dataset=dataset,
                    targets=config.targets,
                    config=config.evaluation,
                    seed=config.run.seed,
                    truth=_truth(run, dataset),
                    run_id=_run_id(run),
                    outcome_name=config.outcome.column or "sarcopenia",
                )
            )
            storage.write_table(run.path("results", f"table_one_{dataset}.csv"), table_one(frame))
            tell("data sets", number + 1, len(datasets))
        table = pd.concat(results, ignore_index=True)
        for name in ("results.parquet", "results.csv"):
            storage.write_table(run.path("results", name), table)
        headline = headline_table(table, interval_level=config.evaluation.interval_level)
        for name in ("headline.parquet", "headline.csv"):
            storage.write_table(run.path("results", name), headline)
        return {"rows": len(table)}

    fingerprint = stages.fingerprint(run, "evaluate")
    return run.stage("evaluate", fingerprint=fingerprint, work=work, outputs=("results/results.parquet",))


def _n_training(frame: pd.DataFrame) -> int:
    return int(frame.loc[frame["split"] == TRAIN, "patient_id"].nunique())


def _missing(failed: Sequence[FailedMember], *, n_left_out: int) -> Record:
    """What the records of a training, and of all that is built on it, say of members that it had to do without."""
    if not failed:
        return {}
    return {"failed_members": [member.name for member in failed], "patients_left_out_of_stage2": n_left_out}


def _plan(config: RunConfig, frame: pd.DataFrame) -> MemberPlan:
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
        )
        for index, held_out_N in enumerate(plan.held_out_IN)
    ]


def _ood_distances(run: Run, frame: pd.DataFrame, images_NSS: np.ndarray, member: bytes) -> np.ndarray:
    """Learn where the training pictures lie in one member's features, and how far from there every picture is."""
    features_NF = pooled_features_of(member, images_NSS, fit=run.config.fit, engine=run.config.engine)
    training_N = (frame["split"] == TRAIN).to_numpy()
    reference = fit_reference(features_NF[training_N], backbone_hash=member_from_bytes(member).backbone_hash)
    storage.write_bytes(run.path(_OOD_FILE), reference_to_bytes(reference))
    return reference.distance(features_NF)


def _mu_only(config: RunConfig) -> list[str]:
    """Targets that may be zero or less have no relative uncertainty to serve as a feature."""
    return [target.name for target in config.targets if not target.positive]


def _stage2_frame(run: Run) -> pd.DataFrame:
    predictions = storage.read_table(run.path("predictions.parquet")).drop(columns=["patient_id", "split"])
    cohort = intake.read_cohort(run, "derivation")
    own = cohort.columns.difference(predictions.columns).union(["row_id"])
    return cohort[own].merge(predictions, on="row_id", validate="one_to_one")


def _search(
    run: Run, features: pd.DataFrame, outcome_N: np.ndarray, folds: list[Fold], *, tell: Tell
) -> list[TrialRecord]:
    config = run.config
    plan = RoundSearch(
        algorithms=config.stage2.algorithms,
        trials_per_algorithm=config.stage2.trials_per_algorithm,
        trials_per_round=config.stage2.trials_per_round,
        seed=config.run.seed,
    )
    with cluster.session(config.engine):
        return search(
            features,
            outcome_N,
            plan=plan,
            folds=folds,
            seed=config.run.seed,
            uri=run.path("stage2", stages.fingerprint_of_search(run)),
            engine=config.engine,
            progress=_counted(tell, "trials"),
        )


def _write_trials(run: Run, records: list[TrialRecord], chosen: TrialRecord) -> None:
    rows = [
        {
            "algorithm": record.spec.algorithm,
            "number": record.spec.number,
            "cv_auroc_mean": record.cv_auroc_mean,
            "cv_auroc_se": record.cv_auroc_se,
            "oof_f1": record.oof_f1,
            "seconds": record.seconds,
            "chosen": record is chosen,
            "params": str(record.spec.params),
            "auroc_per_fold": list(record.auroc_per_fold),
        }
        for record in records
    ]
    storage.write_table(run.path("stage2", "trials.parquet"), pd.DataFrame(rows))


def _write_feature_check(run: Run, frame: pd.DataFrame) -> None:
    """Features of training patients against those of tuning patients: they should look alike."""
    names = [target.name for target in run.config.targets]
    by_split = {
        split: build_features(
            frame[frame["split"] == split], run.config.clinical_features, names, mu_only=_mu_only(run.config)
        )
        for split in (TRAIN, TUNE)
    }
    rows = [
        {
            "feature": name,
            "train_mean": float(by_split[TRAIN][name].mean()),
            "tune_mean": float(by_split[TUNE][name].mean()),
            "smd": smd_means(by_split[TRAIN][name], by_split[TUNE][name]),
        }
        for name in by_split[TRAIN].columns
    ]
    storage.write_table(run.path("stage2", "feature_check.csv"), pd.DataFrame(rows))


def _write_bundle(run: Run, model: Any, chosen: TrialRecord, *, n_patients: int) -> str:
    config = run.config
    facts = run.finished("train")["facts"]
    members = {
        target.name: [
            storage.read_bytes(run.path("members", target.name, f"member-{index:02d}.safetensors"))
            for index in range(config.ensemble.members)
            if member_name(target.name, index) not in facts.get("failed_members", [])
        ]
        for target in config.targets
    }
    recalibration = facts["recalibration"]
    predictions = storage.read_table(run.path("predictions.parquet"))
    tune_distance_N = predictions.loc[predictions["split"] == TUNE, "ood_distance"].to_numpy()
    manifest = write_bundle(
        run.path("bundle"),
        members=members,
        ood=storage.read_bytes(run.path(_OOD_FILE)),
        stage2=model,
        spec=BundleSpec(
            targets=config.targets,
            clinical_features=config.clinical_features,
            preprocess=config.preprocess,
            age_min_years=config.eligibility.age_min_years,
            outcome=config.outcome,
            batch_size=config.fit.batch_size,
            sigma_scale=tuple(float(recalibration[target.name]["scale"]) for target in config.targets),
            ood_threshold=alarm_threshold(tune_distance_N, config.ood.false_alarm_rate),
        ),
        metrics={
            "cv_auroc_mean": chosen.cv_auroc_mean,
            "cv_auroc_se": chosen.cv_auroc_se,
            "oof_f1": chosen.oof_f1,
            "training_patients": n_patients,
            "recalibration": recalibration,
            "ood_false_alarm_rate": false_alarm_rate_held(len(tune_distance_N), config.ood.false_alarm_rate),
            "ood_false_alarm_rate_asked": config.ood.false_alarm_rate,
            "ood_tuning_images": len(tune_distance_N),
        },
        lineage=_lineage(run, "tune", chosen.spec.key)
        | {name: facts[name] for name in _TOLD_BY_TRAINING if name in facts},
    )
    return str(manifest["model_id"])


def _truth(run: Run, dataset: str) -> pd.DataFrame | None:
    """The simulator's truth of a test set; opened by the evaluation alone."""
    if run.config.data.truth is None:
        return None
    name = "derivation" if dataset == TEST_INTERNAL else "external"
    return storage.read_table(storage.join(run.config.data.truth, f"{name}.parquet"))


def _retryable(pointer: tables.Pointer) -> Record:
    """Rows that the store failed on: the stage stays unfinished, and the same command tries them again."""
    return {"retryable": pointer.n_retryable} if pointer.n_retryable else {}


def _lineage(run: Run, stage: str, inputs: Any) -> dict[str, Any]:
    return {"run_id": _run_id(run), "stage": stage, "inputs": fingerprint_of(inputs), "sarc_ray": __version__}


def _run_id(run: Run) -> str:
    """Names the run in tables: its name and its configuration. The same run on another engine has the same id."""
    decisive = {key: value for key, value in to_mapping(run.config).items() if key != "engine"}
    return f"{run.config.run.name}-{fingerprint_of(decisive)[:8]}"


def _counted(tell: Tell, what: str) -> Callable[[int, int], None]:
    def progress(done: int, total: int) -> None:
        tell(what, done, total)

    return progress


def _texts(values: pd.Series) -> list[str | None]:
    return [None if pd.isna(value) else str(value) for value in values]

"""Stage 2 of a run: what it learns from, its bundle, and its finalists on the test sets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from sarc_ray import intake, stages, storage
from sarc_ray.bundle import BundleSpec, write_bundle
from sarc_ray.cohort.splits import TEST_INTERNAL, TRAIN, TUNE
from sarc_ray.errors import EvaluationError
from sarc_ray.evaluation.algorithm_table import algorithm_table, cross_validated
from sarc_ray.evaluation.plan import EvaluationConfig
from sarc_ray.run import Run, RunConfig
from sarc_ray.stage1.ood import alarm_threshold, false_alarm_rate_held
from sarc_ray.stage1.shortfall import member_name
from sarc_ray.stage2.features import build_features
from sarc_ray.stage2.model import Stage2Model
from sarc_ray.stage2.search import TrialRecord
from sarc_ray.stats.discrimination import confusion_from_flags, f1
from sarc_ray.stats.hypothesis import smd_means
from sarc_ray.tuning import Problem, read_finalists

OOD_FILE = "members/ood.safetensors"
# Facts of the training's record that the bundle passes on.
_TOLD_BY_TRAINING = ("training_features", "members_started_twice", "failed_members", "patients_left_out_of_stage2")


def mu_only(config: RunConfig) -> list[str]:
    """Targets that may be zero or less have no relative uncertainty to serve as a feature."""
    return [target.name for target in config.targets if not target.positive]


def stage2_frame(run: Run) -> pd.DataFrame:
    """Cohort and stage-1 predictions of the training and tuning patients whose clinical features are known."""
    predictions = storage.read_table(run.path("predictions.parquet")).drop(columns=["patient_id", "split"])
    cohort = intake.read_cohort(run, "derivation")
    own = cohort.columns.difference(predictions.columns).union(["row_id"])
    frame = cohort[own].merge(predictions, on="row_id", validate="one_to_one")
    return frame[intake.features_known(frame, run.config)]


def problem_of(run: Run, frame: pd.DataFrame) -> Problem:
    """What stage 2 learns from: training patients with a label, from :func:`stage2_frame`."""
    training = frame[(frame["split"] == TRAIN) & frame["outcome"].notna()].reset_index(drop=True)
    return Problem(
        features=features_of(run, training),
        outcome_N=training["outcome"].to_numpy(dtype=np.int64),
        patient_N=training["patient_id"].to_numpy(),
    )


def features_of(run: Run, frame: pd.DataFrame) -> pd.DataFrame:
    """The run's feature table of rows that hold clinical columns and predictions."""
    config = run.config
    names = [target.name for target in config.targets]
    return build_features(frame, config.clinical_features, names, mu_only=mu_only(config))


def write_feature_check(run: Run, frame: pd.DataFrame) -> None:
    """Features of training patients against those of tuning patients: they should look alike."""
    by_split = {split: features_of(run, frame[frame["split"] == split]) for split in (TRAIN, TUNE)}
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


def write_run_bundle(
    run: Run, uri: str, model: Stage2Model, chosen: TrialRecord, *, n_patients: int, extra: Mapping[str, Any]
) -> str:
    """Write a bundle of the run's members and a stage-2 model.

    Args:
        run: with finished members.
        uri: folder of the bundle.
        model: the classifier.
        chosen: its trial.
        n_patients: that it learned from.
        extra: further figures for the bundle's ``metrics``.

    Returns:
        The ``model_id``.
    """
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
        uri,
        members=members,
        ood=storage.read_bytes(run.path(OOD_FILE)),
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
            **extra,
        },
        lineage=stages.lineage(run, "tune", chosen.spec.key)
        | {name: facts[name] for name in _TOLD_BY_TRAINING if name in facts}
        | {"choice": config.stage2.choice},
    )
    return str(manifest["model_id"])


def choose_as_paper(run: Run, models: Mapping[str, Stage2Model]) -> str:
    """The algorithm with the best F1 in the internal test set, whose scores lie in ``stage2/choosing``.

    That is how the paper chose (Ryu et al. 2023, "Performance of sarcopenia prediction models"). Figures of that test
    set are too good afterwards: it has been used to choose.

    Raises:
        EvaluationError: no scored patient of the test set has a label.
    """
    frame = _labelled(intake.scored_rows(run, TEST_INTERNAL, table=("stage2", "choosing")))
    if frame.empty:
        raise EvaluationError(
            "stage2.choice: internal_test_as_paper needs scored patients with a label in the internal test set, found "
            "none; choose by cross_validation"
        )
    features, label_N = features_of(run, frame), frame["outcome"].to_numpy(dtype=np.float64)
    found = {
        name: float(f1(confusion_from_flags(label_N, model.flag(model.predict(features)[1]))))
        for name, model in models.items()
    }
    return max(found, key=lambda name: found[name] if np.isfinite(found[name]) else -1.0)


def finalists_table(run: Run, datasets: list[str], evaluation: EvaluationConfig) -> pd.DataFrame:
    """The paper's Table S1: each algorithm's best trial in cross-validation and on the test sets, with intervals.

    Args:
        run: tuned, and with the data sets scored.
        datasets: names of the test sets.
        evaluation: of the plan in force.

    Returns:
        Long form, see :func:`sarc_ray.evaluation.algorithm_table.algorithm_table`; ``choice`` is the rule by which one
        of the algorithms was chosen (``stage2.choice``).
    """
    trials = storage.read_table(run.path("stage2", "trials.parquet"))
    parts = [cross_validated(trials, confidence_level=evaluation.confidence_level)]
    models, chosen = read_finalists(run.path("stage2")), trials.loc[trials["chosen"], "algorithm"].item()
    for dataset in datasets:
        frame = _labelled(intake.scored_rows(run, dataset))
        features = features_of(run, frame)
        for name, model in models.items():
            score_N = model.predict(features)[1]
            parts.append(
                algorithm_table(
                    frame.assign(score=score_N, flag=model.flag(score_N)),
                    algorithm=name,
                    chosen=name == chosen,
                    dataset=dataset,
                    config=evaluation,
                    seed=run.config.run.seed,
                )
            )
    # Figures of the internal test set are too good where it was used to choose: whoever reads the table has to know.
    return pd.concat(parts, ignore_index=True).assign(choice=run.config.stage2.choice)


def _labelled(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[frame["outcome"].notna()].reset_index(drop=True)

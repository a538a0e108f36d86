"""The verb ``distill``: one network taught to answer for a finished run's ensembles, as a bundle of its own.

N images of the training and tuning patients; T targets.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from sarc_ray import __version__, intake, run_stage2, stages, storage
from sarc_ray.bundle import Bundle, load_bundle, read_manifest_of, write_bundle
from sarc_ray.bundle_parts import member_path
from sarc_ray.cohort.splits import TRAIN, TUNE
from sarc_ray.distributed import cluster
from sarc_ray.distributed.distill import DistillTask, distil_on_engine
from sarc_ray.distributed.finished import read_finished
from sarc_ray.distributed.ood import pooled_features_of
from sarc_ray.errors import ConfigError, StorageError
from sarc_ray.pipeline import plan_of
from sarc_ray.run import Run, RunConfig, fingerprint_of
from sarc_ray.stage1.answers import distilled_columns
from sarc_ray.stage1.checkpoint import member_from_bytes, trained_from_bytes
from sarc_ray.stage1.distillation import ensemble_answers
from sarc_ray.stage1.ensemble import Mixture, distilled_from_features
from sarc_ray.stage1.joint import require_learning_backbone
from sarc_ray.stage1.member import MemberResult
from sarc_ray.stage1.ood import alarm_threshold, false_alarm_rate_held, fit_reference, reference_to_bytes
from sarc_ray.stage1.recalibration import Recalibration, not_wanted, recalibrate
from sarc_ray.stage1.runtime import ByteArray, derive_seed
from sarc_ray.stage1.shortfall import spoken_for
from sarc_ray.stats.agreement import spearman
from sarc_ray.stats.uncertainty import gaussian_nll

FOLDER = "distilled"
_WORK = "distilling"
# Sets the network's seed apart from those of members.
_OF_DISTILLATION = 2
_MIN_IMAGES = 3  # below, no agreement is stated

Tell = Callable[[str, int, int], None]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Taught:
    """The network and what it says.

    Attributes:
        files: its parts, by target.
        ood: reference of the training pictures in its own features.
        distance_N: of all N images from there.
        said: by target, of all N images.
        n_epochs: that it was trained for.
    """

    files: dict[str, bytes]
    ood: bytes
    distance_N: FloatArray
    said: dict[str, Mixture]
    n_epochs: int


def distill(run: Run, tell: Tell) -> dict[str, Any]:
    """Teach one network what the run's ensembles say, and write it as a bundle under ``distilled`` in the run's folder.

    Stage 2, its calibration and thresholds are the parent's; the reference of training pictures and the threshold of
    distances are made anew in the network's own features.

    Args:
        run: tuned.
        tell: progress.

    Raises:
        BundleError: the run's bundle is damaged.
        ConfigError: the ensembles have said nothing of patients unseen by their members (``in_sample``), or they share
            frozen convolutions already; or no node has the GPUs or threads of a member.
        StorageError: the run is not tuned yet, or its members are no longer those of its bundle.
    """
    stages.finished(run, "tune")
    config = run.config
    if config.ensemble.training_features == "in_sample":
        raise ConfigError(
            "ensemble.training_features: found in_sample; every member has learned from every training patient, so "
            "that there are no answers for unseen pictures to learn from. Train with repeated_folds"
        )
    require_learning_backbone(config.network, "distill")
    # Not by settings alone: members that were trained again, elsewhere, may differ from earlier ones of the same run.
    parent_id = read_manifest_of(run.path("bundle")).model_id
    fingerprint = fingerprint_of([__version__, stages.fingerprint(run, "tune"), config.distill, parent_id])

    def work() -> dict[str, Any]:
        parent = load_bundle(run.path("bundle"))
        tell("networks", 0, 1)
        with cluster.session(config.engine):
            frame, taught = _teach(run, parent, fingerprint)
        tell("networks", 1, 1)
        decisions = _recalibrations(config, frame, taught.said, parent)
        model_id = _write(run, parent, frame, taught, decisions, fingerprint)
        storage.remove_tree(run.path(_WORK))
        return {
            "model_id": model_id,
            "parent_model_id": parent.model_id,
            "instead_of": sum(len(of_target) for of_target in parent.members),
            "epochs": taught.n_epochs,
        }

    return run.stage("distill", fingerprint=fingerprint, work=work, outputs=(f"{FOLDER}/bundle.json",))


def _teach(run: Run, parent: Bundle, fingerprint: str) -> tuple[pd.DataFrame, _Taught]:
    """The rows that the ensembles can speak for, and the network."""
    config = run.config
    names = [target.name for target in config.targets]
    frame, images_NSS = intake.training_images(run)
    plan = plan_of(config, frame)
    of_run = stages.fingerprint_of_members(run)
    members = [read_finished(run.path("members"), names, i, fingerprint=of_run) for i in range(len(plan.speaks_IN))]
    known_N = spoken_for(members, plan.speaks_IN, names)
    _require_teachers(run, parent, members, frame.loc[known_N, "row_id"])
    answers = ensemble_answers(members, config.targets, plan.speaks_IN, known_N)
    frame, images_NSS = frame[known_N].reset_index(drop=True), images_NSS[known_N]
    training_N = (frame["split"] == TRAIN).to_numpy()
    task = DistillTask(
        train_N=training_N,
        tune_N=(frame["split"] == TUNE).to_numpy(),
        answers=answers,
        targets=config.targets,
        n_members=tuple(len(of_target) for of_target in parent.members),
        network=config.network,
        augment=config.augment,
        fit=config.fit,
        config=config.distill,
        seed=derive_seed(config.run.seed, 0, 0, _OF_DISTILLATION),
    )
    uri = run.path(_WORK, f"{fingerprint}.state")
    files = distil_on_engine(task, images_NSS, uri=uri, engine=config.engine)
    return frame, _examine(run, dict(zip(names, files, strict=True)), images_NSS, training_N)


def _require_teachers(
    run: Run, parent: Bundle, members: Sequence[Mapping[str, MemberResult]], row_ids: pd.Series
) -> None:
    """Refuse answers of others than the bundle's members, and for others than stage 2 has learned from.

    Raises:
        StorageError: says what differs.
    """
    scoring = members[: run.config.ensemble.members]
    remedy = (
        f"remove {run.path('stages', 'train.json')} and {run.path('stages', 'tune.json')}, and run 'sarc-ray train' "
        "and 'sarc-ray tune' again; members that are there are kept"
    )
    for name in (target.name for target in run.config.targets):
        found = [hashlib.sha256(by_target[name].data).hexdigest() for by_target in scoring if name in by_target]
        of_parent = sum(path.startswith(f"stage1/{name}/") for path in parent.manifest.files)
        if found != [parent.manifest.files[member_path(name, k)] for k in range(of_parent)]:
            raise StorageError(
                f"{run.path('members')}: found {len(found)} members of {name}, which are not the {of_parent} of the "
                f"bundle {parent.model_id}, so that they cannot answer for it; {remedy}"
            )
    predicted = storage.read_table(run.path("predictions.parquet"))["row_id"]
    if set(predicted) != set(row_ids):
        raise StorageError(
            f"{run.path('members')}: these members can speak for {len(row_ids)} images, those that were trained spoke "
            f"for {len(predicted)}; {remedy}"
        )


def _examine(run: Run, files: dict[str, bytes], images_NSS: ByteArray, training_N: npt.NDArray[np.bool_]) -> _Taught:
    """What the network says of every picture, and where the training pictures lie in its features."""
    first = next(iter(files.values()))
    features_NF = pooled_features_of(first, images_NSS, fit=run.config.fit, engine=run.config.engine)
    members = {name: member_from_bytes(data) for name, data in files.items()}
    reference = fit_reference(features_NF[training_N], backbone_hash=member_from_bytes(first).backbone_hash)
    return _Taught(
        files=files,
        ood=reference_to_bytes(reference),
        distance_N=reference.distance(features_NF),
        said={
            name: distilled_from_features(member, features_NF, threads=run.config.fit.threads)
            for name, member in members.items()
        },
        n_epochs=len(trained_from_bytes(first).history),
    )


def _recalibrations(
    config: RunConfig, frame: pd.DataFrame, said: Mapping[str, Mixture], parent: Bundle
) -> dict[str, Recalibration]:
    """Whether a factor on top of the parent's makes sigma better; the network's means have errors of their own."""
    tune_N = (frame["split"] == TUNE).to_numpy()
    decisions = {}
    for number, target in enumerate(config.targets):
        if config.ensemble.recalibration != "scale":
            decisions[target.name] = not_wanted()
            continue
        columns = _columns(parent, number, said[target.name], 1.0)
        decisions[target.name] = recalibrate(
            frame.loc[tune_N, target.name],
            columns[f"{target.name}_mu"][tune_N],
            columns[f"{target.name}_sigma"][tune_N],
            patient_N=frame.loc[tune_N, "patient_id"],
            seed=config.run.seed,
        )
    return decisions


def _columns(parent: Bundle, number: int, said: Mixture, factor: float) -> dict[str, FloatArray]:
    """Columns of one target, with the parent's factor of sigma and another one on top of it."""
    target = parent.spec.targets[number]
    return distilled_columns(
        target.name,
        said,
        n_members=len(parent.members[number]),
        positive=target.positive,
        sigma_scale=parent.spec.sigma_scale[number] * factor,
    )


def _write(
    run: Run,
    parent: Bundle,
    frame: pd.DataFrame,
    taught: _Taught,
    decisions: Mapping[str, Recalibration],
    fingerprint: str,
) -> str:
    config, spec = run.config, parent.spec
    tune_distance_N = taught.distance_N[(frame["split"] == TUNE).to_numpy()]
    columns: dict[str, FloatArray] = {}
    for number, (name, decision) in enumerate(decisions.items()):
        columns |= _columns(parent, number, taught.said[name], decision.scale)
    predicted = pd.DataFrame(columns).assign(row_id=frame["row_id"].to_numpy())
    factors = [decisions[target.name].scale for target in spec.targets]
    origin = {
        "parent_model_id": parent.model_id,
        # Stays when this bundle becomes the parent of a recalibrated one.
        "distilled_from_model_id": parent.model_id,
        "stage": "distill",
        "stage1": "distilled",
        "inputs": fingerprint,
        "sarc_ray": __version__,
    }
    written = write_bundle(
        run.path(FOLDER),
        members={name: [data] for name, data in taught.files.items()},
        ood=taught.ood,
        stage2=parent.stage2,
        spec=replace(
            spec,
            stage1="distilled",
            sigma_scale=tuple(own * factor for own, factor in zip(spec.sigma_scale, factors, strict=True)),
            ood_threshold=alarm_threshold(tune_distance_N, config.ood.false_alarm_rate),
        ),
        metrics={
            **parent.manifest.metrics,
            "recalibration": {name: asdict(decision) for name, decision in decisions.items()},
            "ood_false_alarm_rate": false_alarm_rate_held(len(tune_distance_N), config.ood.false_alarm_rate),
            "distillation": agreement(run_stage2.stage2_frame(run), predicted, parent),
        },
        lineage={**parent.manifest.lineage, **origin},
    )
    return str(written["model_id"])


def agreement(frame: pd.DataFrame, predicted: pd.DataFrame, parent: Bundle) -> dict[str, Any]:
    """How far the network says what its parent says, on the tuning patients.

    Neither has learned from these; both were stopped by them, the members by measurements, the network by the members'
    answers.

    Args:
        frame: cohort with the parent's columns, as :func:`sarc_ray.run_stage2.stage2_frame` gives it.
        predicted: ``row_id`` and the network's columns.
        parent: the ensembles' bundle.

    Returns:
        ``images``; per target under ``targets``: ``mu_explained`` (share of the variance of the parent's means),
        ``sigma_spearman``, ``sigma_ratio`` (of the mean sigmas), ``epistemic_spearman``, ``epistemic_ratio`` (of the
        mean variances), ``nll_parent`` and ``nll`` (measured patients, in nats, the target's unit); under ``score``
        ``spearman`` and ``mean_difference`` (absolute). Empty with fewer than three images.
    """
    tuning = frame[frame["split"] == TUNE].reset_index(drop=True)
    rows = predicted.set_index("row_id").loc[tuning["row_id"]].reset_index(drop=True)
    if len(tuning) < _MIN_IMAGES:
        return {}
    own = tuning.drop(columns=rows.columns.intersection(tuning.columns)).join(rows)
    scores = [parent.stage2.predict(parent.features(table))[1] for table in (tuning, own)]
    return {
        "images": len(tuning),
        "targets": {target.name: _agreement_of(target.name, tuning, own) for target in parent.spec.targets},
        "score": {
            "spearman": _spearman(*scores),
            "mean_difference": float(np.abs(scores[1] - scores[0]).mean()),
        },
    }


def _agreement_of(name: str, tuning: pd.DataFrame, own: pd.DataFrame) -> dict[str, float]:
    mu, sigma, epistemic = (
        [table[f"{name}_{part}"].to_numpy(dtype=np.float64) for table in (tuning, own)]
        for part in ("mu", "sigma", "var_epistemic")
    )
    known_N = tuning[name].notna().to_numpy()
    measured_N = tuning.loc[known_N, name].to_numpy(dtype=np.float64)
    nll = [
        float(gaussian_nll(measured_N, mu_N[known_N], sigma_N[known_N]).mean()) if known_N.any() else float("nan")
        for mu_N, sigma_N in zip(mu, sigma, strict=True)
    ]
    return {
        "mu_explained": float(1.0 - np.square(mu[1] - mu[0]).mean() / mu[0].var()),
        "sigma_spearman": _spearman(*sigma),
        "sigma_ratio": float(sigma[1].mean() / sigma[0].mean()),
        "epistemic_spearman": _spearman(*epistemic),
        "epistemic_ratio": float(epistemic[1].mean() / epistemic[0].mean()),
        "nll_parent": nll[0],
        "nll": nll[1],
    }


def _spearman(first: Sequence[float] | FloatArray, second: Sequence[float] | FloatArray) -> float:
    return float(spearman(first, second, confidence_level=0.95).estimate)

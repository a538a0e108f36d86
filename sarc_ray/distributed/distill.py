"""The training of a distilled network as one task of the engine, which goes on where an earlier one was interrupted."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import ray

from sarc_ray import storage
from sarc_ray.cohort.schema import TargetConfig
from sarc_ray.distributed.settings import EngineConfig
from sarc_ray.distributed.train import member_slots
from sarc_ray.stage1.checkpoint import member_to_bytes
from sarc_ray.stage1.distillation import Answers, distil
from sarc_ray.stage1.loop import EpochRecord
from sarc_ray.stage1.runtime import ByteArray, PictureRows
from sarc_ray.stage1.settings import AugmentConfig, DistillConfig, FitConfig, NetworkConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class DistillTask:
    """What a distilled network learns from; N images, T targets.

    Attributes:
        train_N: shape (N,), True for images that it learns from.
        tune_N: shape (N,), True for images that decide when it stops.
        answers: the ensemble's, for all N images.
        targets: in order.
        n_members: per target, of the ensemble that scores.
        network, augment, fit: as for a member.
        config: what is different.
        seed: its own.
    """

    train_N: np.ndarray
    tune_N: np.ndarray
    answers: Answers
    targets: tuple[TargetConfig, ...]
    n_members: tuple[int, ...]
    network: NetworkConfig
    augment: AugmentConfig
    fit: FitConfig
    config: DistillConfig
    seed: int


def distil_on_engine(task: DistillTask, images_NSS: ByteArray, *, uri: str, engine: EngineConfig) -> list[bytes]:
    """Train where there is room, on a GPU where members have one.

    Args:
        task: what to learn.
        images_NSS: uint8 pictures of all N images.
        uri: file for the state of an unfinished training, seen by all nodes; its folder is left to the caller.
        engine: GPUs and retries of a member, seconds between states.

    Returns:
        Files of the network's parts, one for each target, as :func:`distil` gives them in this process.

    Raises:
        ConfigError: more GPUs or threads asked for than any node has; a task would wait for them without a word.
    """
    member_slots(task.fit.threads, engine)
    gpus = {"num_gpus": engine.gpus_per_member} if engine.gpus_per_member > 0 else {}
    work = ray.remote(num_cpus=task.fit.threads, max_retries=engine.member_retries, **gpus)(_distil)
    images_ref = ray.put(np.ascontiguousarray(images_NSS))
    files: list[bytes] = ray.get(work.remote(task, images_ref, uri, engine.checkpoint_interval_s))
    return files


def _distil(task: DistillTask, images_NSS: ByteArray, uri: str, interval_s: float) -> list[bytes]:
    state = storage.read_bytes(uri) if storage.exists(uri) else None
    trained = distil(
        x_train_NHW=PictureRows(table_NHW=images_NSS, rows_K=np.flatnonzero(task.train_N)),
        train=task.answers.of(task.train_N),
        x_tune_NHW=PictureRows(table_NHW=images_NSS, rows_K=np.flatnonzero(task.tune_N)),
        tune=task.answers.of(task.tune_N),
        targets=task.targets,
        n_members=task.n_members,
        network=task.network,
        augment=task.augment,
        fit=task.fit,
        config=task.config,
        seed=task.seed,
        state=state,
        on_epoch=_keeper(uri, interval_s),
    )
    return [member_to_bytes(member) for member in trained]


def _keeper(uri: str, interval_s: float) -> Callable[[EpochRecord, Callable[[], bytes]], None]:
    last = time.monotonic()

    def keep(record: EpochRecord, snapshot: Callable[[], bytes]) -> None:
        nonlocal last
        if time.monotonic() - last >= interval_s:
            storage.write_bytes(uri, snapshot())
            last = time.monotonic()

    return keep

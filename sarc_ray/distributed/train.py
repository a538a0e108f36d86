"""Stage 1 on Ray Train: one single-worker trainer per member index, as many at once as the resources allow.

``ray.train.report`` is a barrier across the workers of one trainer and any worker's error restarts all of them, so
members never share a trainer. Each trainer has its own retries and checkpoints. Its worker trains the members of its
index for all targets in turn, and keeps each as soon as it is finished; a target that fails does not keep the next
ones from being trained.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.train
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from sarc_ray import storage
from sarc_ray.distributed.cluster import node_resources
from sarc_ray.distributed.finished import (
    forget_notes,
    is_finished,
    note_begin,
    read_failure,
    read_finished,
    times_begun,
    write_failure,
    write_finished,
)
from sarc_ray.distributed.settings import EngineConfig
from sarc_ray.distributed.stream import Progress
from sarc_ray.errors import ConfigError, SarcRayError
from sarc_ray.stage1.features import FeatureArray, extract_features
from sarc_ray.stage1.loop import EpochRecord
from sarc_ray.stage1.member import MemberResult, MemberTask, train_unit
from sarc_ray.stage1.network import build_network
from sarc_ray.stage1.runtime import ByteArray, derive_seed
from sarc_ray.stage1.shortfall import FailedMember

# Pictures whose convolutions one task runs. Fixed, since the variations of a chunk are drawn from its own seed.
_CHUNK_IMAGES = 32
# Beside the training states in a checkpoint: by target, which nodes trained it, and from which epoch on.
_ATTEMPTS = "attempts.json"
_ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainedMembers:
    """What came of a training.

    Attributes:
        members: one mapping of target name to member per task; failed members are absent.
        failed: those, in order of index and target.
    """

    members: list[dict[str, MemberResult]]
    failed: tuple[FailedMember, ...]


def train_members(
    tasks: Sequence[MemberTask],
    images_NSS: ByteArray,
    *,
    uri: str,
    engine: EngineConfig,
    fingerprint: str,
    progress: Progress | None = None,
) -> TrainedMembers:
    """Train every task's members in parallel workers.

    Args:
        tasks: one per member index, with the same targets and settings.
        images_NSS: uint8 pictures, shared through the object store without copies per worker on a node.
        uri: folder for finished members and, while they train, their checkpoints; seen by all nodes.
        engine: resources, retries, checkpoints.
        fingerprint: of all inputs; finished members of another fingerprint are trained anew.
        progress: called with (member indices finished, indices in all).

    Returns:
        The members, equal to what :func:`train_member` gives in this process, and the names of those that failed
        after all retries. While any failed, checkpoints stay, and the same call trains the failed ones alone.

    Raises:
        ConfigError: more GPUs or threads asked for than any node has.
    """
    targets = [target.name for target in tasks[0].targets]

    def members_of(task: MemberTask) -> dict[str, MemberResult]:
        return read_finished(uri, targets, task.index, fingerprint=fingerprint)

    done = {task.index: members_of(task) for task in tasks}
    waiting = [task for task in tasks if len(done[task.index]) < len(targets)]
    errors: dict[int, BaseException] = {}
    if waiting:
        slots = member_slots(tasks[0].fit.threads, engine)
        images_ref = ray.put(np.ascontiguousarray(images_NSS))
        features_ref = _shared_features(tasks[0], images_ref, len(images_NSS))
        refs = {"images": images_ref, **({"features": features_ref} if features_ref is not None else {})}

        def fit(task: MemberTask) -> None:
            forget_notes(uri, targets, task.index)
            _run_trainer(task, refs, uri=uri, engine=engine, fingerprint=fingerprint)

        def tell(n_finished: int) -> None:
            if progress is not None:
                progress(len(tasks) - len(waiting) + n_finished, len(tasks))

        errors = _fit_all(waiting, fit, slots=slots, tell=tell)
        done |= {task.index: members_of(task) for task in waiting}
    failed = tuple(
        FailedMember(target_name=name, index=task.index, error=_why(uri, name, task.index, errors.get(task.index)))
        for task in tasks
        for name in targets
        if name not in done[task.index]
    )
    if not failed:
        storage.remove_tree(storage.join(uri, "work"))
    return TrainedMembers(members=[done[task.index] for task in tasks], failed=failed)


def _fit_all(
    tasks: Sequence[MemberTask], fit: Callable[[MemberTask], None], *, slots: int, tell: Callable[[int], None]
) -> dict[int, BaseException]:
    """Errors of trainers by index. Bounded: a worker group that finds no room times out and retries for ever."""
    pool = ThreadPoolExecutor(slots, thread_name_prefix="member")
    errors: dict[int, BaseException] = {}
    try:
        futures: dict[Future[None], int] = {pool.submit(fit, task): task.index for task in tasks}
        for n_ended, future in enumerate(as_completed(futures), start=1):
            error = future.exception()
            if error is not None:
                errors[futures[future]] = error
            tell(n_ended - len(errors))
    finally:
        # On Ctrl-C the trainers that run are ended by leaving Ray, not waited for.
        pool.shutdown(wait=False, cancel_futures=True)
    return errors


def _why(uri: str, target_name: str, index: int, error: BaseException | None) -> str:
    """The member's own error where its worker could note one, else the last line of its trainer's."""
    noted = read_failure(uri, target_name, index)
    if noted is not None:
        return noted
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__


def member_slots(threads: int, engine: EngineConfig) -> int:
    """Members at once: as many as the nodes have room for, none of them on two nodes.

    Raises:
        ConfigError: more GPUs or threads asked for than any node has.
    """
    if engine.members_at_once is not None and engine.address != "local":
        return engine.members_at_once  # a cluster that grows on demand does not have its nodes yet
    nodes = node_resources()
    room = sum(_room(node, threads, engine.gpus_per_member) for node in nodes)
    if room < 1:
        cpus = max((node.get("CPU", 0.0) for node in nodes), default=0.0)
        gpus = max((node.get("GPU", 0.0) for node in nodes), default=0.0)
        grows = "or set engine.members_at_once where the cluster grows on demand"
        if engine.gpus_per_member > gpus:
            raise ConfigError(
                f"engine.gpus_per_member: {engine.gpus_per_member} asked for, the largest node has {gpus:g} GPUs; "
                f"set it to 0 to train on CPUs, {grows}"
            )
        raise ConfigError(
            f"fit.threads: {threads} asked for, the largest node has {cpus:g} CPUs; set it to at most that, {grows}"
        )
    return min(room, engine.members_at_once or room)


def _room(node: Mapping[str, float], threads: int, gpus_per_member: float) -> int:
    """Members that fit on a node; a fraction of a GPU is of one GPU, never of two."""
    by_cpu = int(node.get("CPU", 0.0) // threads)
    if gpus_per_member == 0:
        return by_cpu
    gpus = node.get("GPU", 0.0)
    if gpus_per_member < 1:
        by_gpu = int(gpus) * int(1.0 / gpus_per_member + _ROUNDING)
    else:
        by_gpu = int(gpus // gpus_per_member)
    return min(by_cpu, by_gpu)


def _scaling(threads: int, engine: EngineConfig) -> ray.train.ScalingConfig:
    """One worker; it reserves as many CPUs as torch will use threads."""
    gpus = {"GPU": engine.gpus_per_member} if engine.gpus_per_member > 0 else {}
    return ray.train.ScalingConfig(num_workers=1, use_gpu=bool(gpus), resources_per_worker={"CPU": threads, **gpus})


def _run_trainer(
    task: MemberTask, refs: Mapping[str, Any], *, uri: str, engine: EngineConfig, fingerprint: str
) -> None:
    fs, path = storage.arrow_filesystem(storage.join(uri, "work"))
    fs.create_dir(path, recursive=True)
    trainer = DataParallelTrainer(
        _worker,
        train_loop_config={
            "task": task,
            "refs": dict(refs),
            "uri": uri,
            "fingerprint": fingerprint,
            "checkpoint_interval_s": engine.checkpoint_interval_s,
        },
        scaling_config=_scaling(task.fit.threads, engine),
        run_config=ray.train.RunConfig(
            name=f"{fingerprint}-m{task.index:02d}",
            storage_path=path,
            storage_filesystem=fs,
            failure_config=ray.train.FailureConfig(max_failures=engine.member_retries),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=1),
        ),
    )
    trainer.fit()


def _worker(config: dict[str, Any]) -> None:
    """In the trainer's process: one target after another, or all as one, each from where an earlier worker left it.

    The least begun come first: where training one target ends its worker's process each time (memory, a broken
    library), no error can be caught, and the other targets would never have their turn.
    """
    task: MemberTask = config["task"]
    uri, fingerprint = config["uri"], config["fingerprint"]
    images_NSS = ray.get(config["refs"]["images"])
    features_KNF = ray.get(config["refs"]["features"]) if "features" in config["refs"] else None
    log = _Log(config["checkpoint_interval_s"])
    lost: list[BaseException] = []
    names = {unit: [task.targets[number].name for number in unit] for unit in task.units()}
    begun = {unit: max(times_begun(uri, name, task.index) for name in of_unit) for unit, of_unit in names.items()}
    for unit in sorted(names, key=begun.__getitem__):
        if all(is_finished(uri, name, task.index, fingerprint=fingerprint) for name in names[unit]):
            continue
        for name in names[unit]:
            note_begin(uri, name, task.index)
        try:
            _train_and_keep(task, unit, images_NSS, features_KNF, log, uri=uri, fingerprint=fingerprint)
        except Exception as error:  # whatever it is, the targets that follow are other members
            for name in names[unit]:
                write_failure(uri, name, task.index, error)
            # What our own code refuses, it will refuse again; anything else may be the machine's fault.
            if not isinstance(error, SarcRayError | ValueError):
                lost.append(error)
    if lost:
        raise lost[0]


def _train_and_keep(
    task: MemberTask,
    unit: tuple[int, ...],
    images_NSS: ByteArray,
    features_KNF: FeatureArray | None,
    log: _Log,
    *,
    uri: str,
    fingerprint: str,
) -> None:
    """Train what is trained as one; its first target's name stands for it in checkpoints."""
    key = task.targets[unit[0]].name
    results = train_unit(
        task, unit, images_NSS, features_KNF=features_KNF, state=log.states.get(key), on_epoch=log.epoch_of(key)
    )
    for name, result in results.items():
        write_finished(uri, name, task.index, result, fingerprint=fingerprint, attempts=log.attempts.get(key, []))
    log.states.pop(key, None)


class _Log:
    """What a worker knows of earlier workers, and tells the next one: training states, and who trained from when."""

    def __init__(self, interval_s: float) -> None:
        self.interval_s = interval_s
        self.states: dict[str, bytes] = {}
        self.attempts: dict[str, list[dict[str, Any]]] = {}
        self.last_report = time.monotonic()
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is not None:
            with checkpoint.as_directory() as folder:
                self.states = {path.stem: path.read_bytes() for path in sorted(Path(folder).glob("*.state"))}
                self.attempts = json.loads(Path(folder, _ATTEMPTS).read_text(encoding="utf-8"))

    def epoch_of(self, target_name: str) -> Callable[[EpochRecord, Callable[[], bytes]], None]:
        """The ``on_epoch`` of a target: from time to time its state becomes the checkpoint."""
        began = False

        def on_epoch(record: EpochRecord, snapshot: Callable[[], bytes]) -> None:
            nonlocal began
            if not began:
                node = ray.get_runtime_context().get_node_id()
                self.attempts.setdefault(target_name, []).append({"node": node, "epoch": record.epoch})
                began = True
            if time.monotonic() - self.last_report >= self.interval_s:
                self.states[target_name] = snapshot()
                self._report({"epoch": record.epoch, "tune_nll": record.tune_nll})
                self.last_report = time.monotonic()

        return on_epoch

    def _report(self, metrics: dict[str, Any]) -> None:
        with tempfile.TemporaryDirectory(prefix="sarc-ray-member-") as folder:
            for target_name, state in self.states.items():
                Path(folder, f"{target_name}.state").write_bytes(state)
            Path(folder, _ATTEMPTS).write_text(json.dumps(self.attempts), encoding="utf-8")
            ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))


def _shared_features(task: MemberTask, images_ref: Any, n_images: int) -> Any | None:
    """Features of frozen convolutions, computed once for all members and targets, in chunks over the cluster."""
    if not task.fit.cache_features or task.network.weights == "random":
        return None
    resources: dict[str, Any] = {"num_cpus": task.fit.threads}
    chunk = ray.remote(**resources)(_extract_chunk)
    parts = [chunk.remote(task, images_ref, start) for start in _starts(n_images)]
    return ray.put(np.concatenate(ray.get(parts), axis=1))


def _starts(n_images: int) -> Iterator[int]:
    yield from range(0, n_images, _CHUNK_IMAGES)


def _extract_chunk(task: MemberTask, images_NSS: ByteArray, start: int) -> FeatureArray:
    return extract_features(
        build_network(task.network, seed=derive_seed(task.seed)),
        images_NSS[start : start + _CHUNK_IMAGES],
        config=task.augment,
        copies=task.augment.copies,
        seed=derive_seed(task.seed, start),
        batch_size=task.fit.batch_size,
        threads=task.fit.threads,
        device=task.fit.device,
    )

"""Stage 1 on Ray Train: one single-worker trainer per member index, as many at once as the resources allow.

``ray.train.report`` is a barrier across the workers of one trainer and any worker's error restarts all of them, so
members never share a trainer. Each has its own retries, checkpoints and a record that says it is finished.
"""

from __future__ import annotations

import io
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.train
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from sarc_ray import storage
from sarc_ray.distributed.cluster import cpu_count, gpu_count
from sarc_ray.distributed.settings import EngineConfig
from sarc_ray.distributed.stream import Progress
from sarc_ray.errors import ConfigError, TrainingError
from sarc_ray.stage1.features import FeatureArray, extract_features
from sarc_ray.stage1.fit import EpochRecord
from sarc_ray.stage1.member import MemberResult, MemberTask, train_member
from sarc_ray.stage1.network import build_network
from sarc_ray.stage1.runtime import ByteArray, derive_seed

# Pictures whose convolutions one task runs. Fixed, since the variations of a chunk are drawn from its own seed.
_CHUNK_IMAGES = 32


def train_members(
    tasks: Sequence[MemberTask],
    images_NSS: ByteArray,
    *,
    uri: str,
    engine: EngineConfig,
    fingerprint: str,
    progress: Progress | None = None,
) -> list[dict[str, MemberResult]]:
    """Train every task's members in parallel workers.

    Args:
        tasks: one per member index.
        images_NSS: uint8 pictures, shared through the object store without copies per worker on a node.
        uri: folder for finished members and, while they train, their checkpoints; seen by all nodes.
        engine: resources, retries, checkpoints.
        fingerprint: of all inputs; finished members of another fingerprint are trained anew.
        progress: called with (member indices finished, indices in all).

    Returns:
        One mapping of target name to member per task, equal to what :func:`train_member` gives in this process.

    Raises:
        TrainingError: members failed after all retries; names them. The others' work is kept.
        ConfigError: more GPUs or threads asked for than the cluster has.
    """
    done = {task.index: _read_finished(uri, task, fingerprint) for task in tasks}
    waiting = [task for task in tasks if done[task.index] is None]
    if waiting:
        slots = _slots(tasks[0].fit.threads, engine)
        images_ref = ray.put(np.ascontiguousarray(images_NSS))
        features_ref = _shared_features(tasks[0], images_ref, len(images_NSS))
        refs = {"images": images_ref, **({"features": features_ref} if features_ref is not None else {})}

        def fit(task: MemberTask) -> dict[str, MemberResult]:
            return _run_trainer(task, refs, uri=uri, engine=engine, fingerprint=fingerprint)

        _fit_all(waiting, fit, slots=slots, done=done, progress=progress)
        storage.remove_tree(storage.join(uri, "work"))
    return [finished for task in tasks if (finished := done[task.index]) is not None]


def _fit_all(
    tasks: Sequence[MemberTask],
    fit: Callable[[MemberTask], dict[str, MemberResult]],
    *,
    slots: int,
    done: dict[int, dict[str, MemberResult] | None],
    progress: Progress | None,
) -> None:
    """Bounded: a worker group that finds no room times out and retries for ever."""
    pool = ThreadPoolExecutor(slots, thread_name_prefix="member")
    failures: dict[int, BaseException] = {}
    try:
        futures: dict[Future[dict[str, MemberResult]], int] = {pool.submit(fit, task): task.index for task in tasks}
        for future in as_completed(futures):
            error = future.exception()
            if error is not None:
                failures[futures[future]] = error
            else:
                done[futures[future]] = future.result()
            if progress is not None:
                progress(sum(result is not None for result in done.values()), len(done))
    finally:
        # On Ctrl-C the trainers that run are ended by leaving Ray, not waited for.
        pool.shutdown(wait=False, cancel_futures=True)
    if failures:
        first = failures[min(failures)]
        names = ", ".join(str(index) for index in sorted(failures))
        raise TrainingError(
            f"ensemble member(s) {names} failed after all retries ({type(first).__name__}: {first}); the finished "
            "members are kept: mend the cause and run the same command again"
        ) from first


def _slots(threads: int, engine: EngineConfig) -> int:
    if engine.members_at_once is not None and engine.address != "local":
        return engine.members_at_once  # a cluster that grows on demand does not have its nodes yet
    if engine.gpus_per_member > 0:
        room = int(gpu_count() / engine.gpus_per_member)
        if room < 1:
            raise ConfigError(
                f"engine.gpus_per_member: {engine.gpus_per_member} asked for, the cluster has {gpu_count():g} GPUs; "
                "set it to 0 to train on CPUs, or set engine.members_at_once where the cluster grows on demand"
            )
    else:
        room = cpu_count() // threads
        if room < 1:
            raise ConfigError(
                f"fit.threads: {threads} asked for, the cluster has {cpu_count()} CPUs; set it to at most that, "
                "or set engine.members_at_once where the cluster grows on demand"
            )
    return min(room, engine.members_at_once or room)


def _run_trainer(
    task: MemberTask, refs: Mapping[str, Any], *, uri: str, engine: EngineConfig, fingerprint: str
) -> dict[str, MemberResult]:
    fs, path = storage.arrow_filesystem(storage.join(uri, "work"))
    fs.create_dir(path, recursive=True)
    trainer = DataParallelTrainer(
        _worker,
        train_loop_config={"task": task, "refs": dict(refs), "checkpoint_interval_s": engine.checkpoint_interval_s},
        scaling_config=ray.train.ScalingConfig(
            num_workers=1,
            use_gpu=engine.gpus_per_member > 0,
            resources_per_worker={
                "CPU": task.fit.threads,
                **({"GPU": engine.gpus_per_member} if engine.gpus_per_member > 0 else {}),
            },
        ),
        run_config=ray.train.RunConfig(
            name=f"{fingerprint}-m{task.index:02d}",
            storage_path=path,
            storage_filesystem=fs,
            failure_config=ray.train.FailureConfig(max_failures=engine.member_retries),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=1),
        ),
    )
    checkpoint = trainer.fit().checkpoint
    assert checkpoint is not None  # the worker's last report carries one
    with checkpoint.as_directory() as folder:
        finished, _ = _read_checkpoint(Path(folder))
    _write_finished(uri, task, finished, fingerprint)
    return finished


def _worker(config: dict[str, Any]) -> None:
    """In the trainer's process: unpack, one pure call that reports as it goes, last report with all members."""
    task: MemberTask = config["task"]
    images_NSS = ray.get(config["refs"]["images"])
    features_KNF = ray.get(config["refs"]["features"]) if "features" in config["refs"] else None
    finished: dict[str, MemberResult] = {}
    states: dict[str, bytes] = {}
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            finished, states = _read_checkpoint(Path(folder))
    last_report = time.monotonic()

    def on_epoch(target: str, record: EpochRecord, snapshot: Callable[[], bytes]) -> None:
        nonlocal last_report
        if time.monotonic() - last_report >= config["checkpoint_interval_s"]:
            _report(finished, {target: snapshot()}, {"epoch": record.epoch, "tune_nll": record.tune_nll})
            last_report = time.monotonic()

    def on_member(target: str, result: MemberResult) -> None:
        finished[target] = result

    results = train_member(
        task,
        images_NSS,
        features_KNF=features_KNF,
        finished=finished,
        states=states,
        on_epoch=on_epoch,
        on_member=on_member,
    )
    _report(results, {}, {"members": len(results)})


def _report(finished: Mapping[str, MemberResult], states: Mapping[str, bytes], metrics: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory(prefix="sarc-ray-member-") as folder:
        for target, result in finished.items():
            for name, data in _pack(result).items():
                Path(folder, f"{target}.{name}").write_bytes(data)
        for target, state in states.items():
            Path(folder, f"{target}.state").write_bytes(state)
        ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))


def _read_checkpoint(folder: Path) -> tuple[dict[str, MemberResult], dict[str, bytes]]:
    finished = {
        path.name.removesuffix(".safetensors"): _unpack(
            {name: path.with_name(path.name.replace(".safetensors", f".{name}")).read_bytes() for name in _PARTS}
        )
        for path in sorted(folder.glob("*.safetensors"))
    }
    states = {path.name.removesuffix(".state"): path.read_bytes() for path in sorted(folder.glob("*.state"))}
    return finished, states


# A finished member as files: itself, what it says of every image, and its training history.
_PARTS = ("safetensors", "npz", "json")


def _pack(result: MemberResult) -> dict[str, bytes]:
    predictions = io.BytesIO()
    np.savez(predictions, mu_N=result.mu_N, sigma_N=result.sigma_N)
    history = json.dumps([asdict(record) for record in result.history])
    return {"safetensors": result.data, "npz": predictions.getvalue(), "json": history.encode()}


def _unpack(parts: Mapping[str, bytes]) -> MemberResult:
    predictions = np.load(io.BytesIO(parts["npz"]), allow_pickle=False)
    return MemberResult(
        data=parts["safetensors"],
        mu_N=predictions["mu_N"],
        sigma_N=predictions["sigma_N"],
        history=tuple(EpochRecord(**record) for record in json.loads(parts["json"])),
    )


def _member_uri(uri: str, task: MemberTask, target: str, part: str) -> str:
    return storage.join(uri, target, f"member-{task.index:02d}.{part}")


def _write_finished(uri: str, task: MemberTask, finished: Mapping[str, MemberResult], fingerprint: str) -> None:
    # Until the record is there again, the files may be of two trainings.
    storage.remove_tree(storage.join(uri, f"done-{task.index:02d}.json"))
    for target, result in finished.items():
        for part, data in _pack(result).items():
            storage.write_bytes(_member_uri(uri, task, target, part), data)
    storage.write_json(storage.join(uri, f"done-{task.index:02d}.json"), {"fingerprint": fingerprint})


def _read_finished(uri: str, task: MemberTask, fingerprint: str) -> dict[str, MemberResult] | None:
    record_uri = storage.join(uri, f"done-{task.index:02d}.json")
    if not storage.exists(record_uri) or storage.read_json(record_uri)["fingerprint"] != fingerprint:
        return None
    return {
        target.name: _unpack({p: storage.read_bytes(_member_uri(uri, task, target.name, p)) for p in _PARTS})
        for target in task.targets
    }


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

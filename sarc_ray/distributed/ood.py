"""Pooled features of many pictures by one member, in chunks over the cluster."""

from __future__ import annotations

import numpy as np
import ray

from sarc_ray.distributed.settings import EngineConfig
from sarc_ray.stage1.checkpoint import member_from_bytes
from sarc_ray.stage1.ensemble import pooled_features
from sarc_ray.stage1.features import FeatureArray
from sarc_ray.stage1.runtime import ByteArray
from sarc_ray.stage1.settings import FitConfig

# Batches per task: enough to make reading the member small beside the convolutions.
_BATCHES_PER_TASK = 16


def pooled_features_of(member: bytes, images_NSS: ByteArray, *, fit: FitConfig, engine: EngineConfig) -> FeatureArray:
    """Pooled features of every picture, equal to what :func:`pooled_features` gives in this process.

    Args:
        member: a member file.
        images_NSS: uint8 pictures of the size that it knows.
        fit: batch size, threads and device; a task reserves what a member's trainer does.
        engine: GPUs of a member.

    Returns:
        Shape (N, F), float32.
    """
    gpus = {"num_gpus": engine.gpus_per_member} if engine.gpus_per_member > 0 else {}
    pool = ray.remote(num_cpus=fit.threads, **gpus)(_pool_chunk)
    member_ref, images_ref = ray.put(member), ray.put(np.ascontiguousarray(images_NSS))
    step = fit.batch_size * _BATCHES_PER_TASK
    parts = [pool.remote(member_ref, images_ref, start, step, fit) for start in range(0, len(images_NSS), step)]
    return np.concatenate(ray.get(parts))


def _pool_chunk(member: bytes, images_NSS: ByteArray, start: int, step: int, fit: FitConfig) -> FeatureArray:
    return pooled_features(
        member_from_bytes(member),
        images_NSS[start : start + step],
        batch_size=fit.batch_size,
        device=fit.device,
        threads=fit.threads,
    )

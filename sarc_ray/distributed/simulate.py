"""The built-in cohorts, written in parallel."""

from __future__ import annotations

from typing import Any

import ray

from sarc_ray.distributed.stream import Progress
from sarc_ray.simulate.cohort import SimulateConfig
from sarc_ray.simulate.writer import Chunk, WrittenChunk, plan_chunks, write_chunk, write_manifests


def simulate_cohorts(
    config: SimulateConfig, uri: str, *, seed: int, progress: Progress | None = None
) -> dict[str, Any]:
    """Write all cohorts under ``uri``; equal, byte for byte, to :func:`sarc_ray.simulate.writer.simulate`.

    Args:
        config: sizes.
        uri: target folder, any fsspec URL that all nodes reach.
        seed: of the simulation.
        progress: called with (patients written, patients in all).

    Returns:
        URL of each cohort's manifest.
    """
    chunks = plan_chunks(config, seed=seed)
    total = sum(chunk.stop - chunk.start for chunk in chunks)
    task = ray.remote(_write)
    waiting = [task.remote(chunk, uri) for chunk in chunks]
    written: list[WrittenChunk] = []
    while waiting:
        (ready, *_), waiting = ray.wait(waiting, num_returns=1)
        written.append(ray.get(ready))
        if progress is not None:
            progress(sum(len(part.manifest) for part in written), total)
    return {str(cohort): manifest for cohort, manifest in write_manifests(written, uri=uri).items()}


def _write(chunk: Chunk, uri: str) -> WrittenChunk:
    return write_chunk(chunk, uri=uri)

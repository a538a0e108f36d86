"""Blocks of a bootstrap's replicates, spread over the cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import ray

from sarc_ray.stats.arrays import FloatArray
from sarc_ray.stats.resampling import Block

Replicate = Callable[[Block], FloatArray]


def map_blocks(replicate: Replicate, blocks: Sequence[Block]) -> Iterator[FloatArray]:
    """As :func:`map`, in the order of the blocks, each block on a CPU of its own.

    Every block brings its own random stream, so the answer is that of :func:`map`, whatever the number of workers. The
    rows travel once to each node, with ``replicate``, and are shared by its workers.

    Args:
        replicate: computes a block; whatever it holds can be pickled.
        blocks: as :func:`sarc_ray.stats.resampling.plan_blocks` makes them.
    """
    task = ray.remote(num_cpus=1)(_compute)
    shared = ray.put(replicate)
    for reference in [task.remote(shared, block) for block in blocks]:
        yield ray.get(reference)


def _compute(replicate: Replicate, block: Block) -> FloatArray:
    return replicate(block)

"""A sample of radiographs on their whole way, timed on one node under the load of a real run.

The same functions as in :mod:`sarc_ray.distributed.score`, with as many readers as the node has cores: decoding alone
on an idle machine would promise more than a full one keeps.
"""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pyarrow as pa
import ray
from ray.exceptions import GetTimeoutError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sarc_ray.distributed.cluster import largest_node
from sarc_ray.distributed.prepare import read_limits
from sarc_ray.distributed.score import Scorer, prepare_batch
from sarc_ray.distributed.settings import EngineConfig
from sarc_ray.errors import ConfigError
from sarc_ray.imaging.isolation import read_images
from sarc_ray.imaging.preprocess import PreprocessConfig
from sarc_ray.instruments import busy_core_seconds
from sarc_ray.stage1.settings import Precision

# As many objects as a reader asks for at once: with fewer, waiting for the store would be spread over too few.
_ROWS_PER_WORKER_MIN = 16
_NO_RUN = "plan"
# Far more than an import, a bundle and one image take; a process that gets no core or GPU would be waited for for ever.
_WARM_UP_LIMIT_S = 600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class TimedSample:
    """What became of a sample, and what it took.

    Attributes:
        table: rows of the score table with the columns of :mod:`sarc_ray.instruments`.
        n_readers: processes that read at once, one per core.
        n_scorers: ensembles that scored at once.
        start_seconds: until readers and scorers were warm.
        core_seconds: that the cores of the node worked meanwhile, for the store or the engine too where these share it.
        reader_cpu_seconds: of the readers' own processes: requests, and the hand-over to the process that decodes.
        on_gpu: the networks ran on a GPU.
    """

    table: pa.Table
    n_readers: int
    n_scorers: int
    start_seconds: float
    core_seconds: float
    reader_cpu_seconds: float
    on_gpu: bool


def time_sample(
    rows: pd.DataFrame,
    *,
    bundle_uri: str,
    preprocess: PreprocessConfig,
    engine: EngineConfig,
    n_reasons: int,
    precision: Precision,
) -> TimedSample:
    """Fetch, decode, gate, preprocess and score rows of a manifest on the largest node that is up.

    Args:
        rows: as in :func:`sarc_ray.distributed.score.score_manifest`, one or more.
        bundle_uri: readable from every node.
        preprocess: the bundle's.
        engine: GPUs and threads of a scorer, limits of reading.
        n_reasons: as in scoring.
        precision: as in scoring.

    Raises:
        ConfigError: ``engine.gpus_per_scorer`` asks for GPUs that no node has, or other jobs hold the node's cores or
            GPUs.
    """
    batch = pa.Table.from_pandas(rows, preserve_index=False)
    of_scorer = {"bundle_uri": bundle_uri, "run_id": _NO_RUN, "n_reasons": n_reasons}
    of_scorer |= {"threads": engine.scorer_threads, "precision": precision}
    started = time.perf_counter()
    images, reader_cpu_s, readers = _read(batch, preprocess, engine)
    table, on_gpu, scorers = _score(images, engine, of_scorer)
    return TimedSample(
        table=table,
        n_readers=readers.n,
        n_scorers=scorers.n,
        start_seconds=time.perf_counter() - started - readers.seconds - scorers.seconds,
        core_seconds=readers.core_seconds + scorers.core_seconds,
        reader_cpu_seconds=reader_cpu_s,
        on_gpu=on_gpu,
    )


@dataclass(frozen=True, slots=True)
class _AtWork:
    """How many processes worked at once, how long by the clock once they were warm, and what the node's cores did."""

    n: int
    seconds: float
    core_seconds: float


def _read(batch: pa.Table, preprocess: PreprocessConfig, engine: EngineConfig) -> tuple[pa.Table, float, _AtWork]:
    """Image rows; CPU seconds of the readers; the readers."""
    node = largest_node()
    n_readers = _workers(int(node["Resources"].get("CPU", 1)), len(batch))
    reader = ray.remote(num_cpus=1, scheduling_strategy=_on(node))(_Reader)
    readers = [reader.remote(preprocess, engine) for _ in range(n_readers)]
    shares = _slices(batch, n_readers)
    _wait_until_warm(readers, shares, resource="CPU", each=1.0)
    calls = [functools.partial(worker.read.remote, share) for worker, share in zip(readers, shares, strict=True)]
    read, at_work = _timed(readers, node, calls)
    _end(readers)
    return pa.concat_tables([table for table, _ in read]), sum(cpu_s for _, cpu_s in read), at_work


def _timed(
    workers: Sequence[Any], node: dict[str, Any], calls: Sequence[Callable[[], Any]]
) -> tuple[list[Any], _AtWork]:
    """What a call to each worker gives, all at once, and what that took."""
    worked = ray.get(workers[0].busy_core_seconds.remote())
    started = time.perf_counter()
    given = ray.get([call() for call in calls])
    seconds = time.perf_counter() - started
    worked = ray.get(workers[0].busy_core_seconds.remote()) - worked
    # A node may be part of a larger machine, where others work too; its own cores can have done no more than this.
    most = seconds * node["Resources"].get("CPU", 1.0)
    return given, _AtWork(len(workers), seconds, min(worked, most))


def _score(images: pa.Table, engine: EngineConfig, of_scorer: dict[str, Any]) -> tuple[pa.Table, bool, _AtWork]:
    """Score rows; whether a GPU made them; the scorers."""
    node = largest_node("GPU" if engine.gpus_per_scorer > 0 else "CPU")
    n_scorers = _workers(scorers_of_node(node["Resources"], engine), len(images))
    scorer = ray.remote(num_cpus=0, num_gpus=engine.gpus_per_scorer, scheduling_strategy=_on(node))(_TimedScorer)
    scorers = [scorer.remote(of_scorer) for _ in range(n_scorers)]
    first = images.slice(0, engine.rows_per_block)
    _wait_until_warm(scorers, [first] * n_scorers, resource="GPU", each=engine.gpus_per_scorer)
    shares = _slices(images, n_scorers)
    calls = [
        functools.partial(worker.score.remote, share, engine.rows_per_block)
        for worker, share in zip(scorers, shares, strict=True)
    ]
    scored, at_work = _timed(scorers, node, calls)
    on_gpu = any(ray.get([worker.on_gpu.remote() for worker in scorers]))
    _end(scorers)
    return pa.concat_tables(scored), on_gpu, at_work


def scorers_of_node(resources: Mapping[str, float], engine: EngineConfig) -> int:
    """How many ensembles a node holds at once in a run; at least one.

    Raises:
        ConfigError: GPUs are asked for, and the node has too few.
    """
    if engine.gpus_per_scorer > 0:
        gpus = resources.get("GPU", 0.0)
        if gpus < engine.gpus_per_scorer:
            raise ConfigError(
                f"engine.gpus_per_scorer: {engine.gpus_per_scorer:g} asked for, no node that is up has so many "
                f"(found {gpus:g}); start one, or set it to 0 to score on CPUs"
            )
        return min(engine.scorers or int(gpus / engine.gpus_per_scorer), int(gpus / engine.gpus_per_scorer))
    cpus = max(1, int(resources.get("CPU", 1)))
    return min(engine.scorers or max(1, cpus // 2), cpus)


class _OfANode:
    """A process that can tell what its node's cores have done."""

    def busy_core_seconds(self) -> float:
        """See :func:`sarc_ray.instruments.busy_core_seconds`."""
        return busy_core_seconds()


class _Reader(_OfANode):
    """One process that fetches and reads, as a task of a run does."""

    def __init__(self, preprocess: PreprocessConfig, engine: EngineConfig) -> None:
        self._preprocess = preprocess
        self._engine = engine

    def warm_up(self, batch: pa.Table) -> None:
        """Read one image and something that is none, so that clients and the decoding process are there."""
        self._prepare(batch.slice(0, 1))
        # Where that object is missing nobody has waited for the decoding process yet.
        read_images([b"no image"], self._preprocess, read_limits(self._engine))

    def read(self, batch: pa.Table) -> tuple[pa.Table, float]:
        """Image rows, and the CPU seconds of this process, that of the decoding one left out."""
        started = time.process_time()
        return self._prepare(batch), time.process_time() - started

    def _prepare(self, batch: pa.Table) -> pa.Table:
        return prepare_batch(
            batch,
            preprocess=self._preprocess,
            limits=read_limits(self._engine),
            carried=[name for name in batch.column_names if name != "image_uri"],
            seconds_per_fetch=self._engine.seconds_per_fetch,
        )


class _TimedScorer(_OfANode):
    """One ensemble, as an actor of a run."""

    def __init__(self, of_scorer: dict[str, Any]) -> None:
        self._scorer = Scorer(**of_scorer)

    def warm_up(self, batch: pa.Table) -> None:
        """Score a batch that is not counted."""
        self._scorer(batch)

    def score(self, images: pa.Table, rows_per_block: int) -> pa.Table:
        """Rows of the score table, batch by batch as in a run."""
        starts = range(0, max(len(images), 1), rows_per_block)
        return pa.concat_tables([self._scorer(images.slice(start, rows_per_block)) for start in starts])

    def on_gpu(self) -> bool:
        """True where the networks run on a GPU."""
        from sarc_ray.stage1.runtime import pick_device

        return pick_device("auto").type == "cuda"


def _wait_until_warm(workers: Sequence[Any], batches: Sequence[pa.Table], *, resource: str, each: float) -> None:
    """Let each worker work on a batch that is not counted; end all of them where not all get what they need."""
    warm_ups = [worker.warm_up.remote(batch) for worker, batch in zip(workers, batches, strict=True)]
    try:
        ray.get(warm_ups, timeout=_WARM_UP_LIMIT_S if each else None)
    except GetTimeoutError as error:
        _end(workers)
        raise ConfigError(
            f"engine.address: the sample needs {each * len(workers):g} {resource}s of the largest node at once and did "
            f"not get them within {_WARM_UP_LIMIT_S:g} s: another job holds them; plan again when it has ended"
        ) from error


def _on(node: dict[str, Any]) -> NodeAffinitySchedulingStrategy:
    return NodeAffinitySchedulingStrategy(node_id=node["NodeID"], soft=False)


def _workers(slots: int, n_rows: int) -> int:
    return max(1, min(slots, n_rows // _ROWS_PER_WORKER_MIN))


def _slices(table: pa.Table, n: int) -> list[pa.Table]:
    edges = [len(table) * k // n for k in range(n + 1)]
    return [table.slice(low, high - low) for low, high in itertools.pairwise(edges)]


def _end(workers: Sequence[Any]) -> None:
    """Give back what they hold, at once."""
    for worker in workers:
        ray.kill(worker)

"""From what a sample took to hours, cost and bottleneck of a whole manifest on a cluster; pure arithmetic.

Four things can hold a run up, and the slowest does: the store (requests, or bytes), the processes that read pictures,
the ensembles, and the cores that all of them share.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Bottleneck = Literal["storage", "decode", "network"]

READING = ("isolate", "decode", "gate", "preprocess")
SCORING = ("ensemble", "stage2")
_SECONDS_PER_HOUR = 3600.0
_MEGABYTE = 1e6
_Z95 = 1.959964


@dataclass(frozen=True, kw_only=True, slots=True)
class RowCost:
    """What one row of the manifest takes on average, every kind of row among them.

    Attributes:
        seconds: wall-clock seconds by part (:data:`sarc_ray.instruments.PARTS`) in the process that does it.
        request_cpu_seconds: CPU of the requests and of the hand-over, in the reader's own process.
        core_seconds: that the node's cores worked for it, for whomever: what the parts leave out (the store where it
            shares the node, the system, the hand-over between processes) is in it. 0 where the system does not tell.
        n_bytes: read from the store.
        error_share: half width of the 95% interval of the reading seconds, or of the share of rows that the networks
            see, as a share of the mean; the larger of the two: the sample's error.
        on_gpu: the networks ran on a GPU.
        threads: of an ensemble on a CPU.
    """

    seconds: Mapping[str, float]
    request_cpu_seconds: float
    core_seconds: float
    n_bytes: float
    error_share: float
    on_gpu: bool
    threads: int

    def reading_seconds(self) -> float:
        """From bytes to picture."""
        return sum(self.seconds.get(part, 0.0) for part in READING)

    def scoring_seconds(self) -> float:
        """From picture to row."""
        return sum(self.seconds.get(part, 0.0) for part in SCORING)

    def cpu_seconds(self) -> dict[Bottleneck, float]:
        """Of the cores that all share, by what uses them."""
        ensemble_s = 0.0 if self.on_gpu else self.seconds.get("ensemble", 0.0) * self.threads
        return {
            "storage": self.request_cpu_seconds,
            "decode": self.reading_seconds(),
            "network": ensemble_s + self.seconds.get("stage2", 0.0),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    """What there is to compute with.

    Attributes:
        nodes: of one kind.
        cpus: of all of them.
        gpus: of all of them.
        scorers: ensembles at once.
        node_megabytes_per_second: limit of one node; None for none.
        store_megabytes_per_second: limit of the store; None for none.
        price_per_node_hour: None where it is not known.
    """

    nodes: int
    cpus: int
    gpus: float
    scorers: int
    node_megabytes_per_second: float | None
    store_megabytes_per_second: float | None
    price_per_node_hour: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """What a run would come to.

    Attributes:
        cluster: on which.
        rows_per_second: once it runs.
        limits: rows per second that each thing would allow by itself; the smallest counts.
        seconds: in all, the start among them.
        seconds_low: at the lower end of the sample's error.
        seconds_high: at its upper end.
        cost: of all nodes; None where no price is known.
        bottleneck: what holds the run up.
        why: in words.
    """

    cluster: Cluster
    rows_per_second: float
    limits: dict[str, float]
    seconds: float
    seconds_low: float
    seconds_high: float
    cost: float | None
    bottleneck: Bottleneck
    why: str

    @property
    def hours(self) -> float:
        """The same in hours."""
        return self.seconds / _SECONDS_PER_HOUR


def estimate(cost: RowCost, cluster: Cluster, *, n_rows: int, start_seconds: float) -> Estimate:
    """Hours, cost and bottleneck of a run.

    Args:
        cost: of a row.
        cluster: on which.
        n_rows: of the manifest.
        start_seconds: until the first row is worked on.
    """
    limits = {
        "requests": _rate(cluster.cpus, cost.seconds.get("fetch", 0.0)),
        "bytes": _byte_limit(cost, cluster),
        "reading": _rate(cluster.cpus, cost.reading_seconds()),
        "ensembles": _rate(cluster.scorers, cost.scoring_seconds()),
        "cores": _rate(cluster.cpus, max(sum(cost.cpu_seconds().values()), cost.core_seconds)),
    }
    rate = min(limits.values())
    working = n_rows / rate if rate > 0 else math.inf
    seconds = start_seconds + working
    price = cluster.price_per_node_hour
    bottleneck, why = _held_up_by(limits, cost)
    return Estimate(
        cluster=cluster,
        rows_per_second=rate,
        limits={name: value for name, value in limits.items() if math.isfinite(value)},
        seconds=seconds,
        seconds_low=start_seconds + working * max(0.0, 1.0 - cost.error_share),
        seconds_high=start_seconds + working * (1.0 + cost.error_share),
        cost=None if price is None else cluster.nodes * price * seconds / _SECONDS_PER_HOUR,
        bottleneck=bottleneck,
        why=why,
    )


def error_of_mean(values_N: npt.NDArray[np.float64]) -> float:
    """Half width of the 95% interval of a mean, as a share of it; 0 for fewer than two values, or a mean of 0.

    Args:
        values_N: shape (N,); SD with ddof 1, normal approximation.
    """
    mean = float(values_N.mean()) if len(values_N) else 0.0
    if len(values_N) < 2 or mean <= 0:
        return 0.0
    return _Z95 * float(values_N.std(ddof=1)) / math.sqrt(len(values_N)) / mean


def _rate(workers: float, seconds_per_row: float) -> float:
    return workers / seconds_per_row if seconds_per_row > 0 else math.inf


def _byte_limit(cost: RowCost, cluster: Cluster) -> float:
    per_node = cluster.node_megabytes_per_second
    limits = [math.inf if per_node is None else per_node * cluster.nodes, cluster.store_megabytes_per_second]
    megabytes_per_second = min(limit for limit in limits if limit is not None)
    return megabytes_per_second * _MEGABYTE / cost.n_bytes if cost.n_bytes > 0 else math.inf


def _held_up_by(limits: Mapping[str, float], cost: RowCost) -> tuple[Bottleneck, str]:
    first = min(limits, key=lambda name: limits[name])
    if first == "requests":
        return "storage", "the readers wait for the object store longer than they read"
    if first == "bytes":
        return "storage", "the store or the nodes' line to it gives no more bytes per second"
    if first == "reading":
        return "decode", "every reader is busy with decoding"
    if first == "ensembles":
        return "network", "the ensembles score no faster; more of them, or a GPU, would help"
    shares = cost.cpu_seconds()
    name = max(shares, key=lambda key: shares[key])
    words: dict[Bottleneck, str] = {"storage": "requests", "decode": "decoding", "network": "the networks"}
    share = shares[name] / sum(shares.values())
    return name, f"all cores are busy, {share:.0%} of their time with {words[name]}"

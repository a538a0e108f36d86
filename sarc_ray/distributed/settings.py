"""Configuration of the engine, and of plans for it; imports nothing heavy, so that the command line stays quick."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineConfig:
    """How the work is spread. No value changes a result beyond its last digits (threads and devices round differently).

    Attributes:
        address: ``local`` starts Ray in this process, ``auto`` joins the cluster of a submitted job or of
            ``RAY_ADDRESS``.
        num_cpus: logical CPUs of a local Ray; null takes all cores. At least two, which may share a core.
        gpus_per_member: GPUs (a fraction is fine) reserved by the trainer of one ensemble member; 0 trains on CPUs.
        members_at_once: upper limit of trainers at one time; null takes what the resources allow. On a cluster that
            grows on demand, how many to ask for.
        member_retries: how often a member whose worker died is started again from its last checkpoint.
        checkpoint_interval_s: shortest time between two training checkpoints of a member, in seconds.
        trials_at_once: upper limit of stage-2 trials at one time; null takes one per CPU of the nodes that are up.
        gpus_per_boosted_trial: GPUs (a fraction is fine) reserved by a stage-2 trial of boosted trees, which are then
            fitted there; 0 fits all on CPUs.
        rows_per_block: manifest rows fetched, decoded and written together (a unit of retry and resume).
        seconds_per_fetch: longest that fetching one object (or one part of it) from an object store may take, all
            attempts together; then the row is rejected as ``storage_failed``, to be tried again. Raise it for large
            objects on slow lines.
        seconds_per_image: longest that reading one image may take (wall clock); then its process is ended and the row
            rejected as ``decoder_timeout``.
        mebibytes_per_image: most memory that reading one image may take, beside what its process holds at rest.
        scorers: most ensemble actors at one time; null takes one per GPU, or one per two CPUs, of the nodes that are
            up.
        gpus_per_scorer: GPUs reserved by each of them.
        scorer_threads: threads of each ensemble actor on a CPU.
    """

    address: str
    num_cpus: int | None
    gpus_per_member: float
    members_at_once: int | None
    member_retries: int
    checkpoint_interval_s: float
    trials_at_once: int | None
    gpus_per_boosted_trial: float
    rows_per_block: int
    seconds_per_fetch: float
    seconds_per_image: float
    mebibytes_per_image: int
    scorers: int | None
    gpus_per_scorer: float
    scorer_threads: int

    def __post_init__(self) -> None:
        at_least_one = ("num_cpus", "members_at_once", "trials_at_once", "rows_per_block", "scorers", "scorer_threads")
        for name in (*at_least_one, "mebibytes_per_image"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: found {value}, must be at least 1")
        not_negative = ("gpus_per_member", "gpus_per_scorer", "gpus_per_boosted_trial")
        for name in (*not_negative, "member_retries", "checkpoint_interval_s"):
            value = getattr(self, name)
            if value < 0:
                raise ValueError(f"{name}: found {value}, must not be negative")
        for name in ("seconds_per_fetch", "seconds_per_image"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: found {getattr(self, name)}, must be above 0")


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanConfig:
    """What ``sarc-ray plan`` times, and what it assumes of nodes and store. No value changes a result.

    Attributes:
        sample_images: radiographs, drawn from the manifest, that are timed on their whole way; more make the estimate
            surer.
        node_cpus: CPUs of one node of the kind that ``--nodes`` asks about; null takes the largest node that is up.
        node_gpus: GPUs of one such node; null takes the largest node that is up.
        node_megabytes_per_second: most that one node can read from the object store; null sets no limit.
        store_megabytes_per_second: most that the object store gives to all nodes together; null sets no limit.
        price_per_node_hour: of one such node; null leaves the cost out.
        currency: of the price.
    """

    sample_images: int
    node_cpus: int | None
    node_gpus: float | None
    node_megabytes_per_second: float | None
    store_megabytes_per_second: float | None
    price_per_node_hour: float | None
    currency: str

    def __post_init__(self) -> None:
        for name in ("sample_images", "node_cpus"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: found {value}, must be at least 1")
        for name in ("node_megabytes_per_second", "store_megabytes_per_second"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name}: found {value}, must be above 0, or null for no limit")
        for name in ("node_gpus", "price_per_node_hour"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise ValueError(f"{name}: found {value}, must not be negative")

"""A dry run: count a manifest, time a sample of it, and say what scoring all of it would come to."""

from __future__ import annotations

import datetime as dt
import functools
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from sarc_ray import storage
from sarc_ray.bundle import BundleSpec, verify_bundle
from sarc_ray.cohort.schema import read_manifest
from sarc_ray.distributed import cluster
from sarc_ray.distributed.sample import TimedSample, scorers_of_node, time_sample
from sarc_ray.errors import ConfigError
from sarc_ray.instruments import BYTES_COLUMN, seconds_column
from sarc_ray.planning.census import Census, take_census
from sarc_ray.planning.estimate import READING, Cluster, Estimate, RowCost, error_of_mean, estimate
from sarc_ray.run import Run, load_run
from sarc_ray.telling import Tell, silent
from sarc_ray.versions import git_commit, installed_versions
from sarc_ray.watching import Tally

_COLUMNS = ("row_id", "image_uri", "site", "device", "view", "age_years")


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanRequest:
    """What to plan.

    Attributes:
        bundle: verified before use, any fsspec URL.
        manifest: any manifest, one of an inventory among them.
        nodes: also estimate for so many nodes of the configured kind; None for the nodes that are up alone.
    """

    bundle: str
    manifest: str
    nodes: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What scoring a manifest with a bundle would come to.

    Attributes:
        census: the manifest in numbers.
        n_bytes: to be read from the store, as far as it is known, else extrapolated.
        sized_by: what ``n_bytes`` rests on: ``manifest``, ``sample``, or ``both``.
        sample: what became of the timed rows, and what they took.
        n_sampled: how many these were.
        sources: features that the manifest lacked in some sampled rows: how many of these the header supplied.
        cost: of one row.
        here: on the nodes that are up.
        there: on the nodes that were asked about; None where none were.
        assumptions: of the estimates.
        lineage: manifest, bundle, versions, time.
        currency: of the costs.
    """

    census: Census
    n_bytes: int
    sized_by: str
    sample: TimedSample
    n_sampled: int
    sources: dict[str, tuple[int, int]]
    cost: RowCost
    here: Estimate
    there: Estimate | None
    assumptions: tuple[str, ...]
    lineage: dict[str, Any]
    currency: str

    def tally(self) -> Tally:
        """Outcomes, reasons and seconds of the sample."""
        tally = Tally()
        tally.add(self.sample.table)
        return tally


def load_run_for(request: PlanRequest, config: str | None, overrides: Sequence[str]) -> Run:
    """The run that gives the settings: the named one, or that of the preset ``paper``.

    Args:
        request: what to plan.
        config: the run's YAML; None takes the preset.
        overrides: ``a.b=c`` assignments.
    """
    if config is not None:
        return load_run(config, overrides)
    own = ["run.name=plan", "run.directory=.", f"data.derivation={json.dumps(request.manifest)}"]
    return load_run("paper", [*own, *overrides])


def make_plan(request: PlanRequest, run: Run, tell: Tell = silent) -> Plan:
    """Count, time and estimate; writes nothing.

    Args:
        request: what to plan.
        run: gives engine, plan settings and seed; as :func:`load_run_for` gives it.
        tell: progress.

    Raises:
        BundleError: the bundle is damaged.
        ManifestError: the manifest is wrong.
        StorageError: the manifest cannot be reached.
        ConfigError: the cluster cannot be joined, has no node with a CPU or GPUs that are asked for, or other jobs hold
            these.
    """
    config = run.config
    bundle = verify_bundle(request.bundle)
    manifest = read_manifest(request.manifest)
    census = take_census(manifest, bundle.spec)
    rows = draw(manifest, bundle.spec, n=config.plan.sample_images, seed=config.run.seed)
    tell("sampled radiographs", 0, len(rows))
    started = time.perf_counter()
    with cluster.session(config.engine):
        engine_s = time.perf_counter() - started
        up = _working_nodes()
        sample = time_sample(
            rows,
            bundle_uri=request.bundle,
            preprocess=bundle.spec.preprocess,
            engine=config.engine,
            n_reasons=config.score.reasons,
            precision=config.score.precision,
        )
    tell("sampled radiographs", len(rows), len(rows))
    cost = row_cost(sample, threads=config.engine.scorer_threads)
    n_bytes, sized_by = _bytes_in_all(census, cost.n_bytes)
    # The manifest knows the mean size better than a sample does.
    cost = replace(cost, n_bytes=n_bytes / census.n_rows)
    foresee = functools.partial(estimate, cost, n_rows=census.n_rows, start_seconds=engine_s + sample.start_seconds)
    return Plan(
        census=census,
        n_bytes=n_bytes,
        sized_by=sized_by,
        sample=sample,
        n_sampled=len(rows),
        sources=_sources(rows, sample, bundle.spec),
        cost=cost,
        here=foresee(_cluster_here(up, run)),
        there=None if request.nodes is None else foresee(_cluster_there(request.nodes, up, run, sample)),
        assumptions=_assumptions(run, sample, census, request.nodes),
        lineage=_lineage(request.manifest, bundle.model_id),
        currency=config.plan.currency,
    )


def draw(manifest: pd.DataFrame, spec: BundleSpec, *, n: int, seed: int) -> pd.DataFrame:
    """A random sample of the manifest's rows, whatever is known of them, with the columns that scoring needs.

    Args:
        manifest: shape (N, any).
        spec: the bundle's.
        n: rows to draw, at most N.
        seed: the same one draws the same rows.
    """
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.choice(len(manifest), size=min(n, len(manifest)), replace=False))
    wanted = [name for name in dict.fromkeys((*_COLUMNS, *spec.clinical_features)) if name in manifest]
    return manifest.iloc[chosen][wanted].reset_index(drop=True)


def row_cost(sample: TimedSample, *, threads: int) -> RowCost:
    """What an average row of the sample took."""
    tally = Tally()
    tally.add(sample.table)
    n_rows = max(tally.n_rows, 1)
    reading_N = np.sum([sample.table[seconds_column(part)].to_numpy() for part in READING], axis=0)
    return RowCost(
        seconds={part: seconds / n_rows for part, seconds in tally.seconds.items()},
        request_cpu_seconds=sample.reader_cpu_seconds / n_rows,
        core_seconds=sample.core_seconds / n_rows,
        n_bytes=(pc.sum(sample.table[BYTES_COLUMN]).as_py() or 0) / n_rows,
        error_share=max(error_of_mean(reading_N), error_of_mean(_seen_by_networks(sample.table))),
        on_gpu=sample.on_gpu,
        threads=threads,
    )


def _seen_by_networks(table: pa.Table) -> npt.NDArray[np.float64]:
    """Shape (N,): 1 for rows that the networks saw, and 0 for the others, which cost them nothing."""
    seen_N: npt.NDArray[np.float64] = pc.is_valid(table["ood_distance"]).to_numpy().astype(np.float64)
    return seen_N


def _working_nodes() -> list[dict[str, float]]:
    """Resources of the nodes that work is given to; a head may hold the cluster together and no more."""
    up = [node for node in cluster.node_resources() if node.get("CPU", 0.0) >= 1.0]
    if not up:
        raise ConfigError(
            "engine.address: no node with a CPU is up, and the sample is timed on one; start a worker first "
            "(cluster.yaml: min_workers: 1 for cpu_worker, or for gpu_worker with engine.gpus_per_scorer)"
        )
    return up


def _bytes_in_all(census: Census, sampled: float) -> tuple[int, str]:
    n_unknown = census.n_rows - census.n_sized
    words = "manifest" if not n_unknown else "sample" if not census.n_sized else "both"
    return census.known_bytes + round(n_unknown * sampled), words


def _lineage(manifest_uri: str, model_id: str) -> dict[str, Any]:
    return {
        "manifest_sha256": storage.content_id(manifest_uri),
        "model_id": model_id,
        "made_at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "versions": installed_versions(),
        "git_commit": git_commit(),
    }


def _sources(rows: pd.DataFrame, sample: TimedSample, spec: BundleSpec) -> dict[str, tuple[int, int]]:
    """Of the features that sampled rows lack in the manifest: in how many rows, and in how many of these it came."""
    scored = sample.table.select(["row_id", *spec.clinical_features]).to_pandas().set_index("row_id")
    found = {}
    for name in spec.clinical_features:
        lacking = rows.loc[rows[name].isna(), "row_id"] if name in rows else rows["row_id"]
        if len(lacking):
            found[name] = (len(lacking), int(scored.loc[lacking, name].notna().sum()))
    return found


def _cluster_here(up: list[dict[str, float]], run: Run) -> Cluster:
    cpus = sum(int(node.get("CPU", 0)) for node in up)
    gpus = sum(node.get("GPU", 0.0) for node in up)
    return _cluster(len(up), cpus, gpus, run)


def _cluster_there(nodes: int, up: list[dict[str, float]], run: Run, sample: TimedSample) -> Cluster:
    plan = run.config.plan
    # As the sample's ensembles are placed: where they need GPUs, the node with the most is the kind that is meant.
    by_gpus = run.config.engine.gpus_per_scorer > 0
    largest = max(up, key=lambda node: (node.get("GPU", 0.0) if by_gpus else 0.0, node["CPU"]))
    cpus = plan.node_cpus if plan.node_cpus is not None else int(largest["CPU"])
    gpus = plan.node_gpus if plan.node_gpus is not None else largest.get("GPU", 0.0)
    # What a GPU would make of the networks was not seen where the sample ran without one.
    seen = sample.on_gpu or run.config.engine.gpus_per_scorer > 0
    return _cluster(nodes, nodes * cpus, nodes * gpus if seen else 0.0, run)


def _cluster(nodes: int, cpus: int, gpus: float, run: Run) -> Cluster:
    plan, engine = run.config.plan, run.config.engine
    return Cluster(
        nodes=nodes,
        cpus=cpus,
        gpus=gpus,
        scorers=scorers_of_node({"CPU": cpus, "GPU": gpus}, engine),
        node_megabytes_per_second=plan.node_megabytes_per_second,
        store_megabytes_per_second=plan.store_megabytes_per_second,
        price_per_node_hour=plan.price_per_node_hour,
    )


def _assumptions(run: Run, sample: TimedSample, census: Census, nodes: int | None) -> tuple[str, ...]:
    """What the figures take for granted, in words; only what applies."""
    plan = run.config.plan
    device = "a GPU" if sample.on_gpu else "CPUs"
    said = [
        "all rows are scored: rows that a finished table has already would be taken over and cost less",
        "every row is fetched and read, the ineligible ones too; the sample is a random one of all rows",
        f"timed with {sample.n_readers} readers at once, then {sample.n_scorers} ensembles on {device}",
        "writing and sealing the table, and the engine's own work, are left out (some per cent)",
    ]
    if plan.node_megabytes_per_second is None and plan.store_megabytes_per_second is None:
        said.append("the store serves all readers as fast as it served the sample's (plan.*_megabytes_per_second)")
    if nodes is not None:
        said.append("cores, GPUs and the line to the store of the nodes asked about are like those that are up")
        said.append("the work spreads evenly, and every node is there from the first minute to the last")
    if nodes is not None and (plan.node_gpus or 0) > 0 and not sample.on_gpu:
        said.append("GPUs are left out: the sample ran without one (engine.gpus_per_scorer)")
    if plan.price_per_node_hour is not None:
        said.append("cost is nodes x hours x price alone: no head node, storage, requests or traffic")
    if census.undecided and not census.headers_read:
        said.append("undecided rows depend on the headers, which an inventory would read first")
    return tuple(said)

"""A plan as plain data, for JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from sarc_ray.planning.estimate import Estimate
from sarc_ray.planning.plan import Plan

SCHEMA_VERSION = 1


def to_mapping(plan: Plan) -> dict[str, Any]:
    """Counts, sample, estimates, assumptions and lineage."""
    tally, census = plan.tally(), plan.census
    return {
        "schema_version": SCHEMA_VERSION,
        "rows": census.n_rows,
        "eligible": census.eligible,
        "undecided": {str(reason): count for reason, count in census.undecided.items()},
        "ineligible": {str(reason): count for reason, count in census.ineligible.items()},
        "headers_read": census.headers_read,
        "bytes": plan.n_bytes,
        "bytes_from": plan.sized_by,
        "clinical": {
            "sufficient": census.sufficient,
            "features": [asdict(feature) | _supplied(plan.sources.get(feature.name)) for feature in census.features],
        },
        "sample": {
            "rows": plan.n_sampled,
            "outcomes": dict(tally.outcomes),
            "reasons": {name: count for name, count in tally.reasons.items() if name},
            "seconds_per_row": dict(plan.cost.seconds),
            "request_cpu_seconds_per_row": plan.cost.request_cpu_seconds,
            "core_seconds_per_row": plan.cost.core_seconds,
            "bytes_per_row": plan.cost.n_bytes,
            "error_share": plan.cost.error_share,
            "readers": plan.sample.n_readers,
            "scorers": plan.sample.n_scorers,
            "on_gpu": plan.sample.on_gpu,
            "start_seconds": plan.sample.start_seconds,
        },
        "here": _estimate(plan.here, plan.currency),
        "there": None if plan.there is None else _estimate(plan.there, plan.currency),
        "assumptions": list(plan.assumptions),
        "lineage": plan.lineage,
    }


def _estimate(found: Estimate, currency: str) -> dict[str, Any]:
    plain = {name: value for name, value in asdict(found).items() if name != "cluster"}
    return {**asdict(found.cluster), **plain, "hours": found.hours, "currency": currency}


def _supplied(source: tuple[int, int] | None) -> dict[str, int]:
    return {} if source is None else {"sampled_without": source[0], "of_these_in_header": source[1]}

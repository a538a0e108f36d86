"""Schema versions of ``bundle.json``: what the older ones did not say.

3  calibration that is judged, and thresholds of several rules
2  the recalibration of sigma, and the distance from the training pictures
1  never released, and no longer read
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from sarc_ray.errors import SchemaVersionError
from sarc_ray.stage2.calibration import UNJUDGED
from sarc_ray.stage2.thresholds import point_of_old, points_stated

SCHEMA_VERSION = 3
_OLDEST = 2


def as_present(value: Mapping[str, Any], uri: str) -> dict[str, Any]:
    """What ``bundle.json`` holds, with the keys that its version did not know yet; ``schema_version`` stays.

    Raises:
        SchemaVersionError: written by a newer release, or by a development version before schema version 2.
        KeyError: a key is missing.
    """
    version = value["schema_version"]
    if version > SCHEMA_VERSION:
        raise SchemaVersionError(
            f"{uri}: bundle of schema version {version}, this release reads up to {SCHEMA_VERSION}; install a "
            "newer sarc-ray"
        )
    if version < _OLDEST:
        raise SchemaVersionError(
            f"{uri}: bundle of schema version {version}, this release reads {_OLDEST} to {SCHEMA_VERSION}; older ones "
            "lack the recalibration and the reference of the training pictures: write it anew ('sarc-ray train' and "
            "'tune')"
        )
    spec = value["spec"]
    # Bundles from before there was a gate of pixels do not speak of it, and go on scoring without one.
    found = {**value, "spec": {**spec, "preprocess": {"pixel_gate": False, **spec["preprocess"]}}}
    return found if version > 2 else {**found, **_said_by_2(float(value["threshold"]))}


def _said_by_2(threshold: float) -> dict[str, Any]:
    point = point_of_old(threshold, threshold)
    return {"thresholds": points_stated((point,), in_force=point.rule), "calibration": asdict(UNJUDGED)}

"""Stage-2 models as skops archives, read against a fixed list of types, and their content hash.

A skops archive is a zip with a ``schema.json`` that names the type of every object in it, and the arrays beside it as
``.npy`` files without pickle. ``skops.io.load`` trusts hundreds of types by default (all estimators of scikit-learn,
functions of NumPy and SciPy). A model of ours needs containers, text, numbers and arrays, and nothing else is let
through: the whole schema is compared with ``TRUSTED`` before skops sees the file, whatever the file says of itself.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import skops.io

from sarc_ray.errors import BundleError, SchemaVersionError
from sarc_ray.stage2.algorithms import ALGORITHMS
from sarc_ray.stage2.calibration import MAPS, Calibration, CalibrationDecision
from sarc_ray.stage2.model import Stage2Model
from sarc_ray.stage2.portable import FORMS
from sarc_ray.stage2.thresholds import OperatingPoint

# 2 = calibration that is judged, and several thresholds. 1 was never released.
SCHEMA_VERSION = 2
# (how skops is told to make it, type). JsonNode is text, numbers, booleans and None, read by json.loads.
TRUSTED = frozenset(
    {
        ("DictNode", "builtins.dict"),
        ("ListNode", "builtins.list"),
        ("JsonNode", "builtins.str"),
        ("TypeNode", "builtins.str"),
        ("NdArrayNode", "numpy.ndarray"),
    }
)
_ARRAY_KINDS = "fi"  # floating point and signed integers
_MAX_BYTES = 1 << 30  # of the unpacked archive; a model of 300 deep trees has some MB
_REFUSED = "get the bundle again from its source, and do not use this one"


def to_bytes(model: Stage2Model) -> bytes:
    """Write a model as a skops archive."""
    form = next(name for name, cls in FORMS.items() if isinstance(model.fitted, cls))
    state = {
        "schema_version": SCHEMA_VERSION,
        "algorithm": model.algorithm,
        "params": dict(model.params),
        "feature_names": list(model.feature_names),
        "calibration": {"map": _map_name(model.calibration), **model.calibration.to_state()},
        "decision": asdict(model.decision),
        "thresholds": [asdict(point) for point in model.thresholds],
        "in_force": model.in_force,
        "form": form,
        "fitted": model.fitted.to_state(),
    }
    return skops.io.dumps(state, compression=zipfile.ZIP_DEFLATED)


def from_bytes(data: bytes) -> Stage2Model:
    """Read a model, trusting only what ``TRUSTED`` lists.

    Raises:
        BundleError: not a skops archive, an object of another type, or numbers that no model can have.
        SchemaVersionError: written by a newer release, or before the first one.
    """
    _check_archive(data)
    try:
        state = skops.io.loads(data, trusted=[])
        _check_version(state["schema_version"])
        return _model(state)
    except (BundleError, SchemaVersionError):
        raise
    except Exception as error:  # a damaged archive can fail anywhere inside skops, NumPy or zipfile
        raise BundleError(
            f"stage2/model.skops: cannot be read ({type(error).__name__}: {error}); {_REFUSED}"
        ) from error


def content_hash(model: Stage2Model) -> str:
    """SHA-256 (hexadecimal) of what decides the scores: the same for two archives of one model.

    Hyper-parameters are left out: the fitted trees or coefficients already say what they led to. So are thresholds that
    are not in force.
    """
    digest = hashlib.sha256()
    for key, value in _canonical(model):
        digest.update(f"{key}\0{len(value)}\0".encode("ascii"))
        digest.update(value)
    return digest.hexdigest()


def _canonical(model: Stage2Model) -> Iterator[tuple[str, bytes]]:
    yield "algorithm", model.algorithm.encode()
    yield "feature_names", json.dumps(list(model.feature_names)).encode()
    yield "calibration", _map_name(model.calibration).encode()
    numbers = [np.ravel(value) for value in model.calibration.to_state().values()]
    yield "numbers", np.concatenate([*numbers, [model.raw_threshold, model.threshold]]).astype("<f8").tobytes()
    for key, value in sorted(model.fitted.to_state().items()):
        if isinstance(value, np.ndarray):
            little_endian = value.astype(value.dtype.newbyteorder("<"))
            yield key, f"{little_endian.dtype.str}{value.shape}".encode() + little_endian.tobytes()
        else:
            yield key, json.dumps(value).encode()


def _check_version(found: int) -> None:
    if found != SCHEMA_VERSION:
        remedy = "install a newer sarc-ray" if found > SCHEMA_VERSION else "write the bundle anew (sarc-ray tune)"
        raise SchemaVersionError(
            f"stage2/model.skops: schema version {found}, this release reads {SCHEMA_VERSION} alone; {remedy}"
        )


def _model(state: Mapping[str, Any]) -> Stage2Model:
    if state["form"] not in FORMS or state["algorithm"] not in ALGORITHMS:
        raise BundleError(f"stage2/model.skops: unknown model {state['algorithm']!r} as {state['form']!r}; {_REFUSED}")
    fitted = FORMS[state["form"]](**state["fitted"])
    names = tuple(str(name) for name in state["feature_names"])
    if fitted.n_features != len(names):
        raise BundleError(
            f"stage2/model.skops: {len(names)} feature names for a model of {fitted.n_features} features; {_REFUSED}"
        )
    return Stage2Model(
        algorithm=state["algorithm"],
        params=state["params"],
        feature_names=names,
        fitted=fitted,
        **_calibrated(state),
    )


def _calibrated(state: Mapping[str, Any]) -> dict[str, Any]:
    values = dict(state["calibration"])
    return {
        "calibration": MAPS[values.pop("map")](**values),
        "decision": CalibrationDecision(**state["decision"]),
        "thresholds": tuple(OperatingPoint(**point) for point in state["thresholds"]),
        "in_force": state["in_force"],
    }


def _map_name(calibration: Calibration) -> str:
    return next(name for name, cls in MAPS.items() if isinstance(calibration, cls))


def _check_archive(data: bytes) -> None:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
            if size > _MAX_BYTES:
                raise BundleError(f"stage2/model.skops: unpacks to {size} bytes, allowed: {_MAX_BYTES}; {_REFUSED}")
            schema = json.loads(archive.read("schema.json"))
            for name in archive.namelist():
                if name.endswith(".npy"):
                    _check_array(name, archive.read(name))
    except (zipfile.BadZipFile, KeyError, ValueError, RecursionError) as error:
        if isinstance(error, BundleError):
            raise
        raise BundleError(f"stage2/model.skops: not a skops archive ({error}); {_REFUSED}") from error
    for found in _types(schema):
        if found not in TRUSTED:
            raise BundleError(
                f"stage2/model.skops: holds {found[1]!r} made by {found[0]!r}, which no model has; {_REFUSED}"
            )


def _check_array(name: str, data: bytes) -> None:
    array = np.load(io.BytesIO(data), allow_pickle=False)
    if array.dtype.kind not in _ARRAY_KINDS:
        raise BundleError(f"stage2/model.skops: array {name} of type {array.dtype}, allowed: numbers; {_REFUSED}")


def _types(root: Any) -> Iterator[tuple[str, str]]:
    """Every object of the schema as (node kind, type), without recursion: depth is the file's choice, not ours."""
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if isinstance(node, Mapping):
            if {"__loader__", "__class__", "__module__"} & set(node):
                yield str(node.get("__loader__")), f"{node.get('__module__')}.{node.get('__class__')}"
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)

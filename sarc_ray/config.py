"""Typed configuration: one YAML per run, frozen dataclasses beside their owners.

Every owner declares a frozen, keyword-only dataclass without defaults; values come from a preset in
``sarc_ray/presets`` and from the run's own YAML on top of it, so that nothing is decided out of sight.
This module turns mappings into those dataclasses and refuses what they do not know.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import importlib.resources
import json
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar, Union

import yaml

from sarc_ray.errors import ConfigError

T = TypeVar("T")
PRESETS = ("paper", "proof", "demo")


def from_mapping(cls: type[T], mapping: Mapping[str, Any], *, where: str = "") -> T:
    """Build a configuration dataclass from a mapping, checking every key and type.

    Args:
        cls: a dataclass; nested dataclasses, ``tuple[X, ...]``, ``X | None``, ``Literal`` and
            ``dict[str, X]`` fields are understood.
        mapping: as read from YAML.
        where: dotted path of this mapping within the run's configuration, for messages.

    Raises:
        ConfigError: unknown key (with the nearest known name), missing key, or a value of a wrong type
            or range (the dataclass's own ``__post_init__`` raises ``ValueError``).
    """
    if not isinstance(mapping, Mapping):
        raise ConfigError(f"{where or 'configuration'}: expected a mapping of keys, found {mapping!r}")
    hints = _type_hints(cls)
    for key in mapping:
        if key not in hints:
            raise ConfigError(_unknown_key(str(key), list(hints), where))
    missing = [f.name for f in dataclasses.fields(cls) if f.name not in mapping and _is_required(f)]  # type: ignore[arg-type]
    if missing:
        raise ConfigError(
            f"{_join(where, missing[0])}: this key is missing; add it, or start from a preset "
            f"({', '.join(PRESETS)}) with a line 'preset: NAME'"
        )
    values = {key: _convert(hints[key], value, _join(where, key)) for key, value in mapping.items()}
    try:
        return cls(**values)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{where or 'configuration'}: {error}") from error


def to_mapping(config: Any) -> Any:
    """Turn a configuration dataclass into plain mappings, lists and scalars (for YAML and JSON)."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {f.name: to_mapping(getattr(config, f.name)) for f in dataclasses.fields(config)}
    if isinstance(config, Mapping):
        return {str(key): to_mapping(value) for key, value in config.items()}
    if isinstance(config, list | tuple):
        return [to_mapping(value) for value in config]
    return config


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lay ``over`` on ``base``, key by key; lists are replaced whole."""
    merged = dict(base)
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = merge(merged[key], value)
        else:
            merged[key] = value
    return merged


def parse_overrides(assignments: Sequence[str]) -> dict[str, Any]:
    """Turn ``["a.b=c"]`` (the command line's ``--set``) into nested mappings; values are YAML.

    Raises:
        ConfigError: an assignment without ``=`` or with an empty key.
    """
    overrides: dict[str, Any] = {}
    for assignment in assignments:
        path, separator, text = assignment.partition("=")
        keys = path.strip().split(".")
        if not separator or not all(keys):
            raise ConfigError(f"--set {assignment!r}: expected KEY.SUBKEY=VALUE, for example --set fit.epochs=5")
        value: Any = _parse_yaml(text, f"--set {assignment!r}")
        for key in reversed(keys):
            value = {key: value}
        overrides = merge(overrides, value)
    return overrides


def assignment(key: str, text: str) -> str:
    """``KEY=VALUE`` for :func:`parse_overrides` of a text, which YAML might else take for a number, say.

    >>> parse_overrides([assignment("run.directory", "2026"), assignment("run.name", "a: b")])
    {'run': {'directory': '2026', 'name': 'a: b'}}
    """
    return f"{key}={json.dumps(text, ensure_ascii=False)}"


def load_preset(name: str) -> dict[str, Any]:
    """Read a preset that ships with the package.

    Raises:
        ConfigError: no preset of that name.
    """
    if name not in PRESETS:
        raise ConfigError(f"preset: {name!r} is not known; allowed: {', '.join(PRESETS)}{_did_you_mean(name, PRESETS)}")
    text = importlib.resources.files("sarc_ray").joinpath("presets", f"{name}.yaml").read_text(encoding="utf-8")
    return _parse_mapping(text, f"preset {name}")


def resolve(text: str, *, where: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Resolve a run's YAML: its preset, its own keys on top, ``--set`` assignments last.

    Args:
        text: YAML of the run; a line ``preset: NAME`` is required unless all keys are given.
        where: name of the file, for messages.
        overrides: ``a.b=c`` assignments.
    """
    own = merge(_parse_mapping(text, where), parse_overrides(overrides))
    preset = own.pop("preset", None)
    return merge(load_preset(str(preset)), own) if preset is not None else own


def _parse_yaml(text: str, where: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from error


def _parse_mapping(text: str, where: str) -> dict[str, Any]:
    parsed = _parse_yaml(text, where)
    if parsed is None:
        return {}
    if not isinstance(parsed, dict):
        raise ConfigError(f"{where}: expected 'key: value' lines, found {type(parsed).__name__}")
    return parsed


def _type_hints(cls: type) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls)}


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _did_you_mean(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""


def _unknown_key(key: str, known: Sequence[str], where: str) -> str:
    hint = _did_you_mean(key, known) or f"; known keys: {', '.join(known)}"
    return f"{_join(where, key)}: unknown key{hint}"


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin = typing.get_origin(hint)
    if origin in (Union, types.UnionType):
        return _convert_union(typing.get_args(hint), value, where)
    if origin is Literal:
        allowed = typing.get_args(hint)
        if value not in allowed:
            names = [str(a) for a in allowed]
            raise ConfigError(
                f"{where}: found {value!r}, allowed: {', '.join(names)}{_did_you_mean(str(value), names)}"
            )
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{where}: expected a list, found {value!r}")
        item_hint = typing.get_args(hint)[0]
        return tuple(_convert(item_hint, item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where}: expected a mapping of keys, found {value!r}")
        item_hint = typing.get_args(hint)[1]
        return {str(k): _convert(item_hint, v, _join(where, str(k))) for k, v in value.items()}
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return from_mapping(hint, value, where=where)
    return _convert_scalar(hint, value, where)


def _convert_union(options: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in options:
        return None
    failures = []
    for option in options:
        if option is type(None):
            continue
        try:
            return _convert(option, value, where)
        except ConfigError as error:
            failures.append(error)
    raise failures[0]


def _convert_scalar(hint: Any, value: Any, where: str) -> Any:
    if hint is Any:
        return value
    # YAML reads 1e-4 as text (it wants 1.0e-4); people write 1e-4.
    if hint is float and isinstance(value, str):
        with contextlib.suppress(ValueError):
            return float(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if (isinstance(value, bool) and hint is not bool) or not isinstance(value, hint):
        raise ConfigError(f"{where}: expected {hint.__name__}, found {value!r}")
    return value

"""What ``sarc-ray inspect`` is asked for: the settings of a bundle or of a preset, without a run."""

from __future__ import annotations

from dataclasses import dataclass

from sarc_ray.bundle import read_manifest_of
from sarc_ray.config import from_mapping, load_preset
from sarc_ray.errors import ConfigError
from sarc_ray.imaging.isolation import ReadLimits
from sarc_ray.imaging.preprocess import PreprocessConfig

_PRESET = "paper"


@dataclass(frozen=True, kw_only=True, slots=True)
class InspectSettings:
    """How to look at a file."""

    preprocess: PreprocessConfig
    limits: ReadLimits
    clinical_features: tuple[str, ...]


def settings_for(bundle: str | None, preset: str | None) -> InspectSettings:
    """The settings of a bundle, or else of a preset.

    Raises:
        BundleError: there is no bundle under the URL.
        ConfigError: both are given, or there is no such preset.
    """
    if bundle is not None and preset is not None:
        raise ConfigError("--bundle and --preset: give one of them; a bundle brings its own preprocessing")
    values = load_preset(preset or _PRESET)
    limits = {name: values["engine"][name] for name in ReadLimits.__dataclass_fields__}
    if bundle is not None:
        spec = read_manifest_of(bundle).spec
        preprocess, features = spec.preprocess, spec.clinical_features
    else:
        preprocess = from_mapping(PreprocessConfig, values["preprocess"], where="preprocess")
        features = tuple(values["clinical_features"])
    return InspectSettings(
        preprocess=preprocess, limits=from_mapping(ReadLimits, limits, where="engine"), clinical_features=features
    )

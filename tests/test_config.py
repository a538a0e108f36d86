from dataclasses import dataclass
from typing import Literal

import pytest

from sarc_ray import config
from sarc_ray.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class Inner:
    epochs: int
    learning_rate: float
    device: Literal["cpu", "cuda"]

    def __post_init__(self):
        if self.epochs < 1:
            raise ValueError(f"epochs: found {self.epochs}, must be at least 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class Outer:
    name: str
    fit: Inner
    sizes: tuple[int, ...]
    seed: int | None


GOOD = {"name": "a", "fit": {"epochs": 3, "learning_rate": "1e-4", "device": "cpu"}, "sizes": [1, 2], "seed": None}


def with_fit(**changes):
    return GOOD | {"fit": GOOD["fit"] | changes}


def test_builds_nested_dataclasses_and_reads_short_exponents():
    built = config.from_mapping(Outer, GOOD)
    assert built == Outer(name="a", fit=Inner(epochs=3, learning_rate=1e-4, device="cpu"), sizes=(1, 2), seed=None)
    assert config.to_mapping(built) == GOOD | {"fit": {"epochs": 3, "learning_rate": 1e-4, "device": "cpu"}}


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        (with_fit(epoch=3), "fit.epoch: unknown key; did you mean 'epochs'"),
        (GOOD | {"zzz": 1}, "zzz: unknown key; known keys: name, fit"),
        (with_fit(epochs="three"), "fit.epochs: expected int, found 'three'"),
        (with_fit(epochs=True), "fit.epochs: expected int, found True"),
        (with_fit(epochs=0), "fit: epochs: found 0, must be at least 1"),
        (with_fit(device="cudo"), "fit.device: found 'cudo', allowed: cpu, cuda; did you mean 'cuda'"),
        (GOOD | {"sizes": 3}, "sizes: expected a list, found 3"),
        (GOOD | {"sizes": [1, "b"]}, r"sizes\[1\]: expected int"),
        (GOOD | {"seed": "x"}, "seed: expected int"),
        (GOOD | {"fit": 3}, "fit: expected a mapping"),
        ({k: v for k, v in GOOD.items() if k != "seed"}, "seed: this key is missing"),
    ],
)
def test_refuses_what_it_does_not_know(mapping, message):
    with pytest.raises(ConfigError, match=message):
        config.from_mapping(Outer, mapping)


def test_overrides_win_and_are_typed_by_yaml():
    text = "name: a\nfit: {epochs: 3, learning_rate: 0.1, device: cpu}\nsizes: [1]\nseed: 1\n"
    resolved = config.resolve(text, where="run.yaml", overrides=["fit.epochs=7", "sizes=[4, 5]", "seed=null"])
    built = config.from_mapping(Outer, resolved)
    assert (built.fit.epochs, built.sizes, built.seed) == (7, (4, 5), None)


@pytest.mark.parametrize("assignment", ["epochs", "=3", "a..b=3", "a=[1"])
def test_refuses_malformed_overrides(assignment):
    with pytest.raises(ConfigError, match="--set"):
        config.parse_overrides([assignment])


def test_unknown_preset_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'paper'"):
        config.resolve("preset: papr", where="run.yaml")


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", "just words"])
def test_refuses_yaml_that_is_no_mapping(text):
    with pytest.raises(ConfigError, match=r"run\.yaml"):
        config.resolve(text, where="run.yaml")

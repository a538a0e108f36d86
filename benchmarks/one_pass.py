"""Pictures per second through stage 1: fifteen networks, five whose targets share convolutions, and a distilled one.

Each way does what a bundle does to score (`predict_columns`): the same pictures, in turn, with weights drawn at random,
which cost as much as learned ones. What the cheaper ways cost in accuracy: `examples/one_pass.py`.

    python benchmarks/one_pass.py                          # small, under a minute
    python benchmarks/one_pass.py --full --markdown FILE   # the documented table
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from networks import ensembles, machine, rates

from sarc_ray.cohort.schema import TargetConfig
from sarc_ray.config import from_mapping, load_preset
from sarc_ray.stage1.answers import predict_columns
from sarc_ray.stage1.checkpoint import LoadedMember, member_to_bytes, members_from_bytes
from sarc_ray.stage1.fit import TrainedMember
from sarc_ray.stage1.joint import build_heads, heads_of
from sarc_ray.stage1.scale import TargetScale
from sarc_ray.stage1.settings import NetworkConfig

SEED = 5
MEMBERS = 5
CORES = len(os.sched_getaffinity(0))
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
_SCALE = TargetScale(transform="identity", mean=16.0, sd=4.0)
# By name: how many networks each of three targets has, whether the targets share them, and of how many one answers for.
WAYS = {"ensembles": (MEMBERS, False, 0), "all_targets": (MEMBERS, True, 0), "distilled": (1, True, MEMBERS)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """A network, and how many pictures it gets."""

    name: str
    preset: str
    pictures: int


def cases(*, full: bool) -> list[Case]:
    """The compact network of `proof`, and the VGG16 of `paper`."""
    n_vgg16 = (1024 if full else 64) if DEVICE.type == "cuda" else (8 if full else 1)
    return [
        Case(name="compact", preset="proof", pictures=512 if full else 32),
        Case(name="VGG16", preset="paper", pictures=n_vgg16),
    ]


def build(preset_name: str, way: str) -> list[list[LoadedMember]]:
    """Members by target, as a bundle loads them."""
    preset = load_preset(preset_name)
    config = from_mapping(NetworkConfig, preset["network"] | {"weights": "random"})
    targets = [target["name"] for target in preset["targets"]]
    n_members, shared, distilled_from = WAYS[way]
    files: list[bytes] = []
    for number in range(n_members):
        groups = [targets] if shared else [[name] for name in targets]
        for at, names in enumerate(groups):
            networks = build_heads(config, len(names), seed=100 * number + at, distilled=distilled_from > 0)
            for name, network in zip(names, heads_of(networks), strict=True):
                state = {key: tensor.detach().contiguous() for key, tensor in network.state_dict().items()}
                files.append(_file(name, config, preset["preprocess"]["size_px"], state, distilled_from))
    loaded = members_from_bytes(files)
    return [[member for member in loaded if member.target_name == name] for name in targets]


def _file(name: str, config: NetworkConfig, size_px: int, state: dict[str, torch.Tensor], distilled_from: int) -> bytes:
    return member_to_bytes(
        TrainedMember(
            target_name=name,
            network=config,
            scale=_SCALE,
            image_size_px=(size_px, size_px),
            seed=0,
            best_epoch=0,
            best_tune_nll=0.0,
            history=(),
            state=state,
            distilled_from=distilled_from,
        )
    )


def scorer(case: Case, way: str, x_NSS: np.ndarray, *, threads: int) -> Callable[[], object]:
    """One pass over the pictures."""
    preset = load_preset(case.preset)
    members = build(case.preset, way)
    targets = [from_mapping(TargetConfig, target) for target in preset["targets"]]
    batch = min(preset["fit"]["batch_size"], len(x_NSS))
    return lambda: predict_columns(
        members,
        x_NSS,
        targets=targets,
        sigma_scale=[1.0] * len(targets),
        batch_size=batch,
        device=DEVICE.type,
        threads=threads,
    )


def compare(case: Case, *, rounds: int, threads: int) -> list[list[str]]:
    """A row for each way: all in turn, after a pass of each that warms up."""
    size_px = load_preset(case.preset)["preprocess"]["size_px"]
    x_NSS = ensembles.draw_pictures(case.pictures, size_px, seed=SEED)
    runs = {way: scorer(case, way, x_NSS, threads=threads) for way in WAYS}
    for run in runs.values():
        run()
    seconds: dict[str, list[float]] = {way: [] for way in runs}
    for _ in range(rounds):
        for way, run in runs.items():
            rates.wait(DEVICE)
            started = time.perf_counter()
            run()
            rates.wait(DEVICE)
            seconds[way].append(time.perf_counter() - started)
    median = {way: statistics.median(found) for way, found in seconds.items()}
    return [
        [case.name, way, str(case.pictures), _rate(case.pictures / found), f"{median['ensembles'] / found:.1f}"]
        for way, found in median.items()
    ]


def _rate(per_second: float) -> str:
    """Three digits, and thousands in full."""
    return f"{per_second:,.0f}" if per_second >= 100 else f"{per_second:.3g}"


def main() -> None:
    """Time, and print or write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="the documented sizes")
    parser.add_argument("--threads", type=int, default=CORES)
    parser.add_argument("--markdown", type=Path, help="write the table to a file")
    arguments = parser.parse_args()
    rounds = 5 if arguments.full else 1
    rows = [
        row for case in cases(full=arguments.full) for row in compare(case, rounds=rounds, threads=arguments.threads)
    ]
    table = machine.table(["network", "way", "pictures", "pictures/s", "against the ensembles"], rows)
    text = f"{machine.describe()}. {arguments.threads} thread(s). Medians of {rounds} round(s).\n\n{table}"
    print(text)
    if arguments.markdown is not None:
        arguments.markdown.write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""Member-epochs per minute of stage 1: ours in parallel, ours one after another, and the usual way.

All train the network of the preset `proof` on the same simulated radiographs, in turn, round after round, in one run;
medians and ratios are printed as Markdown.

- in parallel: Ray Train with as many members at once as there are cores, one thread each (on a GPU: two members on it).
  The start of the trainers is part of the time.
- one after another: the same members in this process, with as many threads as there are cores.
- plain loop: the same architecture in a PyTorch loop; a DataLoader with two workers decodes each file each epoch by
  pydicom, and torchvision varies it. No ensemble, no checkpoints, no reproducible order of sums.

Ours decodes each file once, before training; that time stands in a line of its own.

    python benchmarks/train.py                          # small, about a minute
    python benchmarks/train.py --full --markdown FILE   # the documented table
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from networks import machine, plain
from networks.radiographs import SEED, TARGETS, Radiographs, draw

from sarc_ray.cohort.schema import TargetConfig
from sarc_ray.config import from_mapping, load_preset
from sarc_ray.distributed import cluster
from sarc_ray.distributed.settings import EngineConfig
from sarc_ray.distributed.train import train_members
from sarc_ray.imaging.preprocess import PreprocessConfig
from sarc_ray.stage1.member import MemberTask, train_member
from sarc_ray.stage1.network import build_network
from sarc_ray.stage1.settings import AugmentConfig, FitConfig, NetworkConfig

PRESET = load_preset("proof")
PREPROCESS = from_mapping(PreprocessConfig, PRESET["preprocess"])
# A quarter of the pictures is the tuning split, as two fifths of a fold's training patients are in the preset.
TUNE_SHARE = 0.25


def make_tasks(data: Radiographs, *, n_indices: int, epochs: int) -> list[MemberTask]:
    n = len(data.paths)
    tune_N = np.arange(n) < round(TUNE_SHARE * n)
    by_name = {target["name"]: from_mapping(TargetConfig, target) for target in PRESET["targets"]}
    return [
        MemberTask(
            index=index,
            seed=SEED,
            fit_N=~tune_N,
            tune_N=tune_N,
            targets=tuple(by_name[name] for name in TARGETS),
            y_TN=data.y_TN,
            network=from_mapping(NetworkConfig, PRESET["network"]),
            augment=from_mapping(AugmentConfig, PRESET["augment"]),
            fit=from_mapping(FitConfig, PRESET["fit"] | {"epochs": epochs, "patience": epochs, "threads": 1}),
        )
        for index in range(n_indices)
    ]


def in_parallel(tasks: list[MemberTask], data: Radiographs, engine: EngineConfig) -> tuple[int, float]:
    """Member-epochs done, and seconds."""
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        trained = train_members(tasks, data.images_NSS, uri=folder, engine=engine, fingerprint="benchmark")
        seconds = time.perf_counter() - begin
    assert not trained.failed, trained.failed
    return sum(len(member.history) for members in trained.members for member in members.values()), seconds


def one_after_another(task: MemberTask, data: Radiographs) -> tuple[int, float]:
    task = replace(task, fit=replace(task.fit, threads=len(os.sched_getaffinity(0))))
    begin = time.perf_counter()
    members = train_member(task, data.images_NSS)
    return sum(len(member.history) for member in members.values()), time.perf_counter() - begin


def plain_loop(task: MemberTask, data: Radiographs, *, epochs: int) -> tuple[int, float]:
    reading = {name: PRESET["preprocess"][name] for name in ("size_px", "clahe_clip_limit", "clahe_tiles")}
    parts = [
        plain.Files(
            [path for path, chosen in zip(data.paths, rows_N, strict=True) if chosen],
            data.y_TN[0, rows_N],
            augment=augment,
            reading=reading,
        )
        for rows_N, augment in ((task.fit_N, True), (task.tune_N, False))
    ]
    seconds = plain.train_epochs(
        build_network(task.network, seed=SEED),
        *parts,
        epochs=epochs,
        batch_size=task.fit.batch_size,
        learning_rate=task.fit.learning_rate,
    )
    return epochs, sum(seconds)


def measure(options: argparse.Namespace, data: Radiographs) -> dict[str, list[float]]:
    """Member-epochs per minute of each way, round by round."""
    cores = len(os.sched_getaffinity(0))
    at_once = 2 if torch.cuda.is_available() else cores
    engine = from_mapping(
        EngineConfig,
        PRESET["engine"]
        | {"members_at_once": at_once, "gpus_per_member": 0.5 if torch.cuda.is_available() else 0, "num_cpus": cores},
    )
    tasks = make_tasks(data, n_indices=at_once, epochs=options.epochs)
    alone = make_tasks(data, n_indices=1, epochs=options.epochs_alone)[0]
    ways = {
        f"ours, {at_once} members at once": lambda: in_parallel(tasks, data, engine),
        f"ours, one after another, {cores} threads": lambda: one_after_another(alone, data),
        "plain loop, files decoded each epoch": lambda: plain_loop(alone, data, epochs=options.epochs_alone),
    }
    rates: dict[str, list[float]] = {way: [] for way in ways}
    with cluster.session(engine):
        for _ in range(options.rounds):
            for way, run in ways.items():
                n, seconds = run()
                rates[way].append(60.0 * n / seconds)
    return rates


def report(options: argparse.Namespace, rates: dict[str, list[float]], decode_s: float) -> str:
    usual = statistics.median(rates["plain loop, files decoded each epoch"])
    rows = [
        [
            way,
            f"{statistics.median(found):.1f}",
            f"{min(found):.1f} to {max(found):.1f}",
            f"{statistics.median(found) / usual:.1f}",
        ]
        for way, found in rates.items()
    ]
    n_train = options.pictures - round(TUNE_SHARE * options.pictures)
    return "\n".join(
        [
            f"{machine.describe()}. A member-epoch: {n_train} pictures of {PREPROCESS.size_px} pixels to learn from, "
            f"{options.pictures - n_train} to stop by; files of {options.source_px} pixels. "
            f"Medians of {options.rounds} round(s).",
            "",
            machine.table(["way", "member-epochs per minute", "range", "times the plain loop"], rows),
            "",
            f"Decoding every file once, before all epochs of all members: {decode_s:.1f} s in one process.",
        ]
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="sizes of the documented table")
    parser.add_argument("--source-px", type=int, default=256, help="height of the radiographs in the files")
    parser.add_argument("--markdown", type=Path, help="also write the table here")
    options = parser.parse_args()
    sizes = (600, 10, 2, 3) if options.full else (80, 2, 2, 1)
    options.pictures, options.epochs, options.epochs_alone, options.rounds = sizes
    with tempfile.TemporaryDirectory() as folder:
        data = draw(Path(folder), n=options.pictures, source_px=options.source_px, preprocess=PREPROCESS)
        text = report(options, measure(options, data), data.decode_s)
    print(text)
    if options.markdown is not None:
        options.markdown.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""Pictures per second through whole ensembles: ours against a plain PyTorch loop, the same pictures, in turn.

- ours: what a bundle does to score: `members_from_bytes` and `predict_members` (batch normalisation folded, memory by
  channels last, convolutions that members share run once).
- plain loop: each batch normalised once by torchvision, then every member's own forward pass in evaluation mode.

Both have all cores, or `--threads`; answers are compared. On a machine that others use too, `--threads 1` and the
columns of CPU time are what to read: threads that wait for each other burn time of their own. Three ensembles of 15
members (five for each of three targets; fewer in the small run): the compact network of the preset `proof`, the VGG16
of `paper`, and the same VGG16 with frozen convolutions (`trainable: head`).
On a GPU two more tables: bfloat16 against the matrix rate that is measured there, and the paper's stage 1.

    python benchmarks/infer.py                          # small, under a minute
    python benchmarks/infer.py --full --markdown FILE   # the documented tables
    python benchmarks/infer.py --compile                # torch.compile against plain layers, in place of the above
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
from networks import ensembles, machine, plain, rates
from networks.ensembles import Ensemble

from sarc_ray.cohort.schema import TargetConfig
from sarc_ray.config import from_mapping, load_preset
from sarc_ray.stage1.ensemble import predict_members
from sarc_ray.stage1.fit import fit_member
from sarc_ray.stage1.folding import fold_batch_norm
from sarc_ray.stage1.network import build_network, normalise
from sarc_ray.stage1.settings import AugmentConfig, FitConfig, NetworkConfig

SEED = 5
CORES = len(os.sched_getaffinity(0))
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
# Largest difference of a mean or a sigma, in standard deviations of the target: float32 summed in another order.
TOLERANCE = 1e-3
GPU_NOT_MEASURED = (
    "There was no GPU: bfloat16, the fraction of the matrix rate and the paper's stage 1 were not measured."
)
# The paper's stage 1: training and tuning patients, of whom a member out of fold learns from three fifths.
PAPER_TRAIN, PAPER_TUNE, PAPER_MEMBERS = 590, 147, 15


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """An ensemble, and how many pictures it gets."""

    name: str
    preset: str
    frozen: bool
    members: int
    pictures: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """Seconds of one pass."""

    wall_s: float
    processor_s: float


def cases(*, full: bool) -> list[Case]:
    compact, vgg16 = ((15, 256), (15, 2)) if full else ((5, 32), (2, 1))
    if DEVICE.type == "cuda":
        vgg16 = (15, 1024 if full else 64)
    return [
        Case(name="compact", preset="proof", frozen=False, members=compact[0], pictures=compact[1]),
        Case(name="VGG16", preset="paper", frozen=False, members=vgg16[0], pictures=vgg16[1]),
        Case(name="VGG16, frozen", preset="paper", frozen=True, members=vgg16[0], pictures=vgg16[1]),
    ]


def timed(run: Callable[[], object]) -> Cost:
    rates.wait(DEVICE)
    wall, processor = time.perf_counter(), time.process_time()
    run()
    rates.wait(DEVICE)
    return Cost(wall_s=time.perf_counter() - wall, processor_s=time.process_time() - processor)


def ways(
    ensemble: Ensemble, x_NHW: np.ndarray, *, threads: int
) -> dict[str, Callable[[], tuple[np.ndarray, np.ndarray]]]:
    batch = min(ensemble.batch_size, len(x_NHW))
    return {
        "ours": lambda: predict_members(ensemble.ours, x_NHW, batch_size=batch, device=DEVICE.type, threads=threads),
        "plain": lambda: plain.predict_one_by_one(ensemble.plain, x_NHW, batch_size=batch, threads=threads),
    }


def compare(case: Case, *, rounds: int, threads: int) -> list[str]:
    """One row of the table: both ways in turn, after a pass of each that warms up and is compared."""
    ensemble = ensembles.build(case.preset, n_members=case.members, frozen=case.frozen, seed=SEED)
    x_NHW = ensembles.draw_pictures(case.pictures, ensemble.size_px, seed=SEED)
    runs = ways(ensemble, x_NHW, threads=threads)
    (mu_MN, sigma_MN), (plain_mu_MN, plain_sigma_MN) = runs["ours"](), runs["plain"]()
    difference = max(np.abs(mu_MN - plain_mu_MN).max(), np.abs(sigma_MN - plain_sigma_MN).max())
    assert difference < TOLERANCE, f"{case.name}: answers differ by {difference:.1e}"
    costs: dict[str, list[Cost]] = {way: [] for way in runs}
    for _ in range(rounds):
        for way, run in runs.items():
            costs[way].append(timed(run))
    wall = {way: statistics.median(cost.wall_s for cost in found) for way, found in costs.items()}
    processor = {way: statistics.median(cost.processor_s for cost in found) for way, found in costs.items()}
    return [
        case.name,
        str(case.members),
        str(case.pictures),
        *(f"{case.pictures / wall[way]:.3g}" for way in runs),
        f"{wall['plain'] / wall['ours']:.2f}",
        *(f"{1000 * processor[way] / case.pictures:.3g}" for way in runs),
        f"{processor['plain'] / processor['ours']:.2f}",
        f"{difference:.0e} of {plain_mu_MN.std():.1g}",
    ]


def speed_table(*, full: bool, threads: int) -> str:
    rounds = 3 if full else 1
    header = ["network", "members", "pictures", "ours, pictures/s", "plain, pictures/s", "ratio"]
    header += ["ours, CPU ms/picture", "plain, CPU ms/picture", "ratio", "largest difference, of spread"]
    rows = [compare(case, rounds=rounds, threads=threads) for case in cases(full=full)]
    return "\n".join(
        [f"{machine.describe()}. {threads} thread(s). Medians of {rounds} round(s).", "", machine.table(header, rows)]
    )


def mixed_table(*, pictures: int) -> str:
    """Ours under bfloat16: pictures per second, and operations per second over the measured matrix rate."""
    attainable = rates.bf16_matrix_rate(DEVICE, side=8192, seconds=2.0)
    rows = []
    for case in cases(full=True):
        ensemble = ensembles.build(case.preset, n_members=case.members, frozen=case.frozen, seed=SEED)
        x_NHW = ensembles.draw_pictures(pictures, ensemble.size_px, seed=SEED)
        run = ways(ensemble, x_NHW, threads=CORES)["ours"]
        with torch.autocast(DEVICE.type, torch.bfloat16):
            run()
            wall_s = statistics.median(timed(run).wall_s for _ in range(3))
        n_networks = len({member.backbone_hash for member in ensemble.ours})
        flops = pictures * n_networks * rates.forward_flops(ensemble.plain[0], size_px=ensemble.size_px)
        rows.append([case.name, f"{pictures / wall_s:.0f}", f"{flops / wall_s / attainable:.1%}"])
    head = f"Measured bfloat16 matrix rate: {attainable / 1e12:.0f} TFLOP/s."
    return head + "\n\n" + machine.table(["bfloat16", "pictures/s", "of the matrix rate"], rows)


def stage1_text(*, n_train: int, n_tune: int, **changes: object) -> str:
    """The paper's stage 1 from two epochs of one member in bfloat16; the first one, which warms up, is not counted."""
    preset = load_preset("paper")
    size_px, copies = preset["preprocess"]["size_px"], preset["augment"]["copies"]
    x_NHW = ensembles.draw_pictures(n_train + n_tune, size_px, seed=SEED)
    y_N = np.random.default_rng(SEED).normal(17.0, 4.0, len(x_NHW))
    ends: list[float] = []
    fit = preset["fit"] | {"epochs": 2, "precision": "bfloat16", "device": DEVICE.type, "threads": CORES} | changes
    network = from_mapping(NetworkConfig, preset["network"] | {"weights": "random"})
    fit_member(
        x_train_NHW=x_NHW[:n_train],
        y_train_N=y_N[:n_train],
        x_tune_NHW=x_NHW[n_train:],
        y_tune_N=y_N[n_train:],
        target=from_mapping(TargetConfig, preset["targets"][0]),
        network=network,
        augment=from_mapping(AugmentConfig, preset["augment"]),
        fit=from_mapping(FitConfig, fit),
        seed=SEED,
        on_epoch=lambda _record, _snapshot: ends.append(time.perf_counter()),
    )
    epoch_s = ends[1] - ends[0]
    model = build_network(network, seed=SEED).to(DEVICE)
    # Backwards costs twice the way forwards.
    flops = rates.forward_flops(model.eval(), size_px=size_px) * (3 * n_train * copies + n_tune)
    share = flops / epoch_s / rates.bf16_matrix_rate(DEVICE, side=4096, seconds=2.0)
    minutes = PAPER_MEMBERS * preset["fit"]["epochs"] * epoch_s / 60.0
    return (
        f"An epoch of a member of the preset `paper` in bfloat16 ({n_train} pictures, {copies} times): "
        f"{epoch_s:.2f} s, "
        f"{share:.1%} of the matrix rate. {PAPER_MEMBERS} members one after another, all epochs, none stopping early: "
        f"{minutes:.1f} minutes (projected from that epoch)."
    )


def compile_table() -> str:
    """One network's forward pass and training step, plain layers and compiled in turn; the plain step is ours."""
    rows = []
    torch.set_num_threads(CORES)
    for name, preset_name, n in (("compact", "proof", 32), ("VGG16", "paper", 8)):
        preset = load_preset(preset_name)
        config = from_mapping(NetworkConfig, preset["network"] | {"weights": "random"})
        x_N1SS = torch.from_numpy(ensembles.draw_pictures(n, preset["preprocess"]["size_px"], seed=SEED)).unsqueeze(1)
        x_BCHW = normalise(x_N1SS.float().div(255)).to(DEVICE)
        for kind, step in (("predicting", predicting), ("a training step", training)):
            torch.compiler.reset()
            networks = [build_network(config, seed=SEED).to(DEVICE) for _ in range(2)]
            runs = [step(networks[0], networks[0], x_BCHW), step(networks[1], torch.compile(networks[1]), x_BCHW)]
            runs[0]()
            begin_s = timed(runs[1]).wall_s
            costs = [[timed(run) for run in runs] for _ in range(5)]
            wall = [statistics.median(cost[way].wall_s for cost in costs) for way in (0, 1)]
            processor = [statistics.median(cost[way].processor_s for cost in costs) for way in (0, 1)]
            row = [f"{name}, {kind}", str(n), *(f"{1000 * seconds:.0f}" for seconds in wall)]
            row += [f"{wall[0] / wall[1]:.2f}", f"{processor[0] / processor[1]:.2f}", f"{begin_s:.0f}"]
            rows.append(row)
    header = ["what", "pictures", "plain layers, ms", "compiled, ms", "ratio", "ratio of CPU time", "first call, s"]
    return f"{machine.describe()}. Medians of 5.\n\n" + machine.table(header, rows)


def predicting(network: torch.nn.Module, called: torch.nn.Module, x_BCHW: torch.Tensor) -> Callable[[], object]:
    fold_batch_norm(network.eval())  # as ours predicts; what is left is what compiling can add

    def run() -> object:
        with torch.inference_mode():
            return called(x_BCHW)

    return run


def training(network: torch.nn.Module, called: torch.nn.Module, x_BCHW: torch.Tensor) -> Callable[[], object]:
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)

    def run() -> None:
        mu_B, sigma_B = called(x_BCHW)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward((mu_B.square() + sigma_B).mean())
        optimizer.step()

    return run


def report(options: argparse.Namespace) -> str:
    if options.compile:
        return compile_table()
    parts = [speed_table(full=options.full, threads=options.threads)]
    if DEVICE.type == "cuda":
        parts.append(mixed_table(pictures=2048 if options.full else 256))
        parts.append(stage1_text(n_train=3 * PAPER_TRAIN // 5, n_tune=PAPER_TUNE))
    else:
        parts.append(GPU_NOT_MEASURED)
    return "\n\n".join(parts)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="sizes of the documented tables")
    parser.add_argument("--compile", action="store_true", help="time torch.compile instead")
    parser.add_argument("--threads", type=int, default=CORES, help="of both ways")
    parser.add_argument("--markdown", type=Path, help="also write the tables here")
    options = parser.parse_args()
    text = report(options)
    print(text)
    if options.markdown is not None:
        options.markdown.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

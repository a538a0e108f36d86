"""How much of what a picture tells an ensemble attains, and how far that varies from seed to seed.

A small setting: each seed simulates patients of its own and trains an ensemble of three members per target on 500 of
them; 975 others are the test patients. Prints the table of docs/explanation/learning-goals.md as Markdown, in
about a quarter of an hour:

    python examples/seeds.py

``attained`` is the share of variance explained over the ideal predictor's on the same patients. All patients and
pictures are simulated.
"""

from __future__ import annotations

import argparse

import cv2
import numpy as np
import pandas as pd
from out_of_fold import spread
from rich.console import Console
from uncertainty import as_markdown, simulate, train

from sarc_ray.config import from_mapping, load_preset
from sarc_ray.imaging.preprocess import PreprocessConfig
from sarc_ray.stage1.checkpoint import LoadedMember
from sarc_ray.stage1.ensemble import mixture, predict_members
from sarc_ray.stats import agreement, uncertainty

N_TRAIN, N_TUNE = 500, 125


def compare(members: tuple[LoadedMember, ...], images_NSS: np.ndarray, frame: pd.DataFrame, target: str) -> dict:
    """Figures of an ensemble, and of the ideal predictor, on test patients."""
    said = mixture(*predict_members(members, images_NSS, batch_size=32))
    y_N, ideal_mu_N, ideal_sigma_N = (
        frame[column].to_numpy(dtype=float) for column in (target, f"{target}_ideal_mu", f"{target}_ideal_sigma")
    )
    own, ideal = (agreement.explained_variance(y_N, mu_N) for mu_N in (said.mu_N, ideal_mu_N))
    nll, ideal_nll = (
        float(uncertainty.gaussian_nll(y_N, mu_N, sigma_N).mean())
        for mu_N, sigma_N in ((said.mu_N, said.sigma_N), (ideal_mu_N, ideal_sigma_N))
    )
    return {
        "target": target,
        "R2": own,
        "R2 ideal": ideal,
        "attained": own / ideal,
        "NLL - ideal NLL": nll - ideal_nll,
        "90% interval": float(uncertainty.inside_interval(y_N, said.mu_N, said.sigma_N, level=0.9).mean()),
        "90% interval, ideal": float(uncertainty.inside_interval(y_N, ideal_mu_N, ideal_sigma_N, level=0.9).mean()),
        "sigma: Spearman with the ideal's": float(
            agreement.spearman(said.sigma_N, ideal_sigma_N, confidence_level=0.95).estimate
        ),
    }


def one_seed(seed: int, *, patients: int, epochs: int) -> tuple[pd.DataFrame, int]:
    """The comparison of every target, and the number of test patients."""
    preset = load_preset("proof")
    preprocess = from_mapping(PreprocessConfig, preset["preprocess"])
    images_NSS, frame = simulate(patients, preprocess, seed=seed)
    split = np.full(len(frame), "test", dtype=object)
    order = np.random.default_rng(seed).permutation(len(frame))
    split[order[:N_TRAIN]], split[order[N_TRAIN : N_TRAIN + N_TUNE]] = "train", "tune"
    ensembles = train(
        images_NSS, frame, split, preset, {"fit": {"epochs": epochs}, "augment": {"copies": 2}}, seed=seed
    )
    test = split == "test"
    rows = [compare(members, images_NSS[test], frame[test], name) for name, members in ensembles.items()]
    return pd.DataFrame(rows).assign(seed=seed), int(test.sum())


def main() -> None:
    """Simulate, train, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--patients", type=int, default=1600)
    parser.add_argument("--epochs", type=int, default=8)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    console = Console(soft_wrap=True, highlight=False)
    found = [
        one_seed(seed, patients=arguments.patients, epochs=arguments.epochs) for seed in range(1, arguments.seeds + 1)
    ]
    counts = ", ".join(str(n) for _, n in found)
    console.print(f"{N_TRAIN} training, {N_TUNE} tuning, {counts} test patients; mean (SD) of {len(found)} seeds\n")
    console.print(as_markdown(spread(pd.concat([table for table, _ in found]), ["target"]), 3), markup=False)


if __name__ == "__main__":
    main()

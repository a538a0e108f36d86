"""What cheaper ways to a score cost in accuracy: the ensembles, members of three targets in one, and one network.

Simulates patients and prints the tables of docs/how-to/score-cheaper.md as Markdown:

    python examples/one_pass.py                          # about ten minutes on one core
    python examples/one_pass.py --train 2000 --seeds 1   # more patients

Ways to the same test patients: an ensemble for each target (the default); ``ensemble.heads: all_targets``; the network
that is distilled from either; and, to see what distilling is worth, one network for all targets that learned from the
measurements of all training patients. Each of the two ensembles has a stage 2 of its own, which its distilled network
takes over; the single network uses that of the default. Each seed draws training and tuning patients of its own.
Seconds are of the processor, with one thread. All patients and pictures are simulated.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import pandas as pd
from out_of_fold import (
    ALGORITHMS,
    CLINICAL,
    Settings,
    draw_patients,
    draw_splits,
    fit_stage2,
    predict_new,
    read_settings,
    spread,
)
from rich.console import Console
from uncertainty import as_markdown

from sarc_ray.stage1.answers import predict_columns
from sarc_ray.stage1.checkpoint import member_to_bytes, members_from_bytes
from sarc_ray.stage1.distillation import distil, ensemble_answers
from sarc_ray.stage1.ensemble import columns_of, mixture, predict_members
from sarc_ray.stage1.holdout import MemberPlan, plan_members
from sarc_ray.stage1.joint import fit_heads
from sarc_ray.stage1.member import MemberResult, MemberTask, train_member
from sarc_ray.stage1.predictions import predict_patients
from sarc_ray.stage1.settings import DistillConfig, Heads
from sarc_ray.stage2.features import build_features
from sarc_ray.stage2.model import Stage2Model
from sarc_ray.stats import agreement, discrimination, uncertainty

WAYS: dict[Heads, str] = {"one_target": "ensembles", "all_targets": "all_targets"}
BATCH = 32
LEVEL = 0.9
_PARTS = ("mu", "sigma", "ideal_mu", "ideal_sigma", "var_epistemic")
# Sets the distilled network's seed apart from the members'.
OF_DISTILLATION = 1000


@dataclass(frozen=True, kw_only=True)
class Ensembles:
    """What an ensemble says of learned and of new patients, and what it took.

    Attributes:
        members: by index, then by target.
        plan: who learned from whom.
        columns: stage 1's columns of all rows.
        seconds: of training.
        passes: through convolutions, for a picture.
    """

    members: list[Mapping[str, MemberResult]]
    plan: MemberPlan
    columns: pd.DataFrame
    seconds: float
    passes: int


def train(images_NSS: np.ndarray, frame: pd.DataFrame, settings: Settings, heads: Heads, *, seed: int) -> Ensembles:
    """Members by repeated folds, and their columns for all patients."""
    known = (frame["split"] != "test").to_numpy()
    learned = frame[known]
    training_N, tune_N = ((learned["split"] == split).to_numpy() for split in ("train", "tune"))
    plan = plan_members(
        "repeated_folds",
        members=settings.members,
        patient_N=learned["patient_id"].to_numpy(),
        y_N=learned["outcome"].to_numpy(),
        training_N=training_N,
        seed=seed,
    )
    started = time.process_time()
    members = [
        train_member(
            MemberTask(
                index=index,
                seed=seed,
                fit_N=training_N & ~held_out_N,
                tune_N=tune_N,
                targets=settings.targets,
                y_TN=np.stack([learned[target.name].to_numpy(dtype=float) for target in settings.targets]),
                network=settings.network,
                augment=settings.augment,
                fit=settings.fit,
                heads=heads,
            ),
            images_NSS[known],
        )
        for index, held_out_N in enumerate(plan.held_out_IN)
    ]
    seconds = time.process_time() - started
    columns, _ = predict_patients(
        learned,
        members,
        targets=settings.targets,
        speaks_IN=plan.speaks_IN,
        tune_N=tune_N,
        recalibration="none",
        seed=seed,
    )
    tested = predict_new(members, images_NSS[~known], frame.index[~known], settings.targets)
    return Ensembles(
        members=members,
        plan=plan,
        columns=pd.concat([columns, tested]),
        seconds=seconds,
        passes=len(members) * (1 if heads == "all_targets" else len(settings.targets)),
    )


def distilled(
    images_NSS: np.ndarray,
    frame: pd.DataFrame,
    settings: Settings,
    ensembles: Ensembles,
    config: DistillConfig,
    *,
    seed: int,
) -> tuple[pd.DataFrame, float]:
    """Columns of the test patients by the network that was distilled, and seconds of its training."""
    known = (frame["split"] != "test").to_numpy()
    training_N, tune_N = ((frame.loc[known, "split"] == split).to_numpy() for split in ("train", "tune"))
    plan = ensembles.plan
    answers = ensemble_answers(ensembles.members, settings.targets, plan.speaks_IN, np.ones(known.sum(), dtype=bool))
    learned_NSS = images_NSS[known]
    started = time.process_time()
    parts = distil(
        x_train_NHW=learned_NSS[training_N],
        train=answers.of(training_N),
        x_tune_NHW=learned_NSS[tune_N],
        tune=answers.of(tune_N),
        targets=settings.targets,
        n_members=[settings.members] * len(settings.targets),
        network=settings.network,
        augment=settings.augment,
        fit=settings.fit,
        config=config,
        seed=OF_DISTILLATION + seed,
    )
    seconds = time.process_time() - started
    loaded = members_from_bytes([member_to_bytes(part) for part in parts])
    columns = predict_columns(
        [[part] for part in loaded],
        images_NSS[~known],
        targets=settings.targets,
        sigma_scale=[1.0] * len(loaded),
        batch_size=BATCH,
    )
    return pd.DataFrame(columns, index=frame.index[~known]), seconds


def single_network(
    images_NSS: np.ndarray, frame: pd.DataFrame, settings: Settings, *, seed: int
) -> tuple[pd.DataFrame, float]:
    """Columns of the test patients by one network without an ensemble, and seconds of its training."""
    x_NSS = {split: images_NSS[(frame["split"] == split).to_numpy()] for split in ("train", "tune", "test")}
    y_TN = {
        split: np.stack(
            [frame.loc[frame["split"] == split, target.name].to_numpy(dtype=float) for target in settings.targets]
        )
        for split in ("train", "tune")
    }
    started = time.process_time()
    parts = fit_heads(
        x_train_NHW=x_NSS["train"],
        y_train_TN=y_TN["train"],
        x_tune_NHW=x_NSS["tune"],
        y_tune_TN=y_TN["tune"],
        targets=settings.targets,
        network=settings.network,
        augment=settings.augment,
        fit=settings.fit,
        seed=OF_DISTILLATION + seed,
    )
    seconds = time.process_time() - started
    loaded = members_from_bytes([member_to_bytes(part) for part in parts])
    mu_TN, sigma_TN = predict_members(loaded, x_NSS["test"], batch_size=BATCH)
    columns: dict[str, np.ndarray] = {}
    for target, mu_N, sigma_N in zip(settings.targets, mu_TN, sigma_TN, strict=True):
        said = mixture(mu_N[None], sigma_N[None])  # of one: no epistemic part
        columns |= columns_of(target.name, said, said.sigma_N, positive=target.positive, sigma_scale=1.0)
    return pd.DataFrame(columns, index=frame.index[frame["split"] == "test"]), seconds


def target_rows(test: pd.DataFrame, of_ensembles: pd.DataFrame, settings: Settings) -> list[dict[str, object]]:
    """Per target: what is attained of the ideal, likelihood above it, and sigma beside the ideal's and the parent's."""
    rows: list[dict[str, object]] = []
    for target in settings.targets:
        name = target.name
        known = test[name].notna().to_numpy()
        y_N, mu_N, sigma_N, ideal_mu_N, ideal_sigma_N, epistemic_N = (
            test.loc[known, column].to_numpy(dtype=float) for column in (name, *(f"{name}_{part}" for part in _PARTS))
        )
        parent = of_ensembles[known]
        own, ideal = (agreement.explained_variance(y_N, m_N) for m_N in (mu_N, ideal_mu_N))
        nll, ideal_nll = (
            float(uncertainty.gaussian_nll(y_N, m_N, s_N).mean())
            for m_N, s_N in ((mu_N, sigma_N), (ideal_mu_N, ideal_sigma_N))
        )
        rows.append(
            {
                "target": name,
                "attained": own / ideal,
                "NLL - ideal NLL": nll - ideal_nll,
                "90% interval": float(uncertainty.inside_interval(y_N, mu_N, sigma_N, level=LEVEL).mean()),
                "sigma: Spearman with the ideal's": rank(sigma_N, ideal_sigma_N),
                "epistemic: Spearman with the ensembles'": rank(epistemic_N, parent[f"{name}_var_epistemic"]),
                "epistemic: ratio": float(epistemic_N.mean() / parent[f"{name}_var_epistemic"].mean()),
            }
        )
    return rows


def rank(first_N: np.ndarray | pd.Series, second_N: np.ndarray | pd.Series) -> float:
    """Spearman's rank correlation."""
    return float(agreement.spearman(first_N, second_N, confidence_level=0.95).estimate)


def compare(
    images_NSS: np.ndarray, frame: pd.DataFrame, settings: Settings, config: DistillConfig, *, seed: int
) -> tuple[list[dict[str, object]], list[dict[str, object]], list[dict[str, object]]]:
    """Rows of cost, targets and scores of all ways for one draw of training patients (column ``split``)."""
    costs: list[dict[str, object]] = []
    targets: list[dict[str, object]] = []
    scores: list[dict[str, object]] = []
    test = frame[frame["split"] == "test"]
    label_N, names = test["outcome"].to_numpy(), [target.name for target in settings.targets]
    first: pd.DataFrame | None = None

    def note(way: str, columns: pd.DataFrame, models: Mapping[str, Stage2Model], seconds: float, passes: int) -> None:
        assert first is not None
        key = {"way": way, "seed": seed}
        costs.append(key | {"passes": float(passes), "seconds of training": seconds})
        told = test.join(columns)
        targets.extend(key | row for row in target_rows(told, first, settings))
        features = build_features(told, CLINICAL, names)
        scores.append(
            key
            | {
                f"AUROC, {name}": discrimination.auroc(label_N, models[algorithm].predict(features)[1])
                for algorithm, name in ALGORITHMS.items()
            }
        )

    for heads, way in WAYS.items():
        ensembles = train(images_NSS, frame, settings, heads, seed=seed)
        own = ensembles.columns.loc[test.index]
        first = own if first is None else first
        fitted = fit_stage2(frame.join(ensembles.columns), settings, seed=seed)
        models = {algorithm: model for algorithm, (_, model) in fitted.items()}
        note(way, own, models, ensembles.seconds, ensembles.passes)
        taught, seconds = distilled(images_NSS, frame, settings, ensembles, config, seed=seed)
        note(f"distilled from {way}", taught, models, seconds, 1)
        if heads == "one_target":
            alone, seconds = single_network(images_NSS, frame, settings, seed=seed)
            note("one network, from measurements", alone, models, seconds, 1)
    ideal = discrimination.auroc(label_N, test["bayes_score"].to_numpy())
    scores.append({"way": "ideal", "seed": seed} | {f"AUROC, {name}": ideal for name in ALGORITHMS.values()})
    return costs, targets, scores


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=int, default=500)
    parser.add_argument("--tune", type=int, default=125)
    parser.add_argument("--test", type=int, default=2000)
    parser.add_argument("--members", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--trials", type=int, default=4, help="per classifier")
    parser.add_argument("--repeats", type=int, default=2, help="of the threefold cross-validation")
    parser.add_argument("--epochs", type=int, default=30, help="of the distilled network")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="of the distilled network")
    return parser.parse_args(arguments)


def main() -> None:
    """Simulate, train, distil, compare, print."""
    arguments = parse()
    cv2.setNumThreads(1)
    images_NSS, frame = draw_patients(arguments)
    settings = read_settings(True, {}, arguments)
    config = DistillConfig(epochs=arguments.epochs, learning_rate=arguments.learning_rate)
    sizes = {"n_train": arguments.train, "n_tune": arguments.tune, "n_test": arguments.test}
    found = []
    for seed in range(arguments.seeds):
        split = draw_splits(len(frame), **sizes, seed=seed)
        used = split != "unused"
        drawn = frame[used].assign(split=split[used]).reset_index(drop=True)
        found.append(compare(images_NSS[used], drawn, settings, config, seed=seed))
    costs, targets, scores = (
        pd.DataFrame([row for part in parts for row in part]) for parts in zip(*found, strict=True)
    )
    console = Console(soft_wrap=True, highlight=False)
    for table, by, decimals in (
        (costs, ["way"], 0),
        (targets.sort_values("target", kind="stable"), ["target", "way"], 3),
        (scores, ["way"], 3),
    ):
        console.print(as_markdown(spread(table, by, decimals=decimals), decimals), "\n", markup=False)


if __name__ == "__main__":
    main()

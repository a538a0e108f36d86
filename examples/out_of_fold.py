"""What stage 2 makes of its training patients' features: three ways of making them, by cost and by result.

Simulates patients and prints the tables of docs/explanation/out-of-fold.md as Markdown:

    python examples/out_of_fold.py                              # a quarter of an hour on one core
    python examples/out_of_fold.py --seeds 5 --fold-seeds 5     # steadier; the ensembles per fold take the most

Each seed draws training and tuning patients of its own and trains the ways on them; all are tested on the same
patients. In the second setting nothing keeps the networks from memorising. Members that two ways share are trained
once and counted for both. Seconds are of the processor, with one thread. All patients and pictures are simulated.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pandas as pd
from rich.console import Console
from uncertainty import as_markdown, simulate

from sarc_ray.cohort.definitions import OutcomeConfig, outcome_labels
from sarc_ray.cohort.schema import TargetConfig
from sarc_ray.config import from_mapping, load_preset, merge
from sarc_ray.imaging.preprocess import PreprocessConfig
from sarc_ray.stage1.checkpoint import members_from_bytes
from sarc_ray.stage1.ensemble import predict_members, prediction_columns
from sarc_ray.stage1.holdout import TRAINING_FEATURES, MemberPlan, TrainingFeatures, plan_members
from sarc_ray.stage1.member import MemberResult, MemberTask, train_member
from sarc_ray.stage1.predictions import predict_patients
from sarc_ray.stage1.settings import AugmentConfig, FitConfig, NetworkConfig
from sarc_ray.stage2.choice import choose
from sarc_ray.stage2.cross_validation import CvResult, evaluate_params, make_folds
from sarc_ray.stage2.features import build_features
from sarc_ray.stage2.model import Stage2Model, fit_final
from sarc_ray.stage2.search import RoundSearch
from sarc_ray.stage2.settings import Stage2Config
from sarc_ray.stats import calibration, discrimination
from sarc_ray.stats.agreement import concordance
from sarc_ray.stats.uncertainty import inside_interval

CLINICAL = ("age_years", "sex", "bmi_kg_m2")
ALGORITHMS = {"random_forest": "random forest", "logistic_regression": "logistic regression"}
LEVEL = 0.9
SIZE_PX = 64
# Of preset ``proof``, whose picture size and length are cut down to fit a quarter of an hour.
_SHORTER = {"preprocess": {"size_px": SIZE_PX, "pixel_gate": False}, "fit": {"learning_rate": 1e-3, "epochs": 15}}
_MEMORISING = {
    "network": {"dropout": 0.0},
    "augment": {"copies": 0},
    "fit": {"epochs": 20, "patience": 20, "weight_decay": 0.0},
}
SETTINGS: dict[str, tuple[bool, dict[str, Any]]] = {
    "Augmentation, dropout and early stopping": (True, {}),
    "No augmentation, no dropout, no early stopping": (False, _MEMORISING),
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What all ways have in common."""

    targets: tuple[TargetConfig, ...]
    network: NetworkConfig
    augment: AugmentConfig
    fit: FitConfig
    members: int
    stopping: bool
    trials: int
    n_repeats: int


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A member index that was trained, and what that took."""

    results: Mapping[str, MemberResult]
    seconds: float
    visits: int


Cache = dict[tuple[int, bytes], Trained]


def train_planned(
    plan: MemberPlan, images_NSS: np.ndarray, frame: pd.DataFrame, settings: Settings, *, seed: int, cache: Cache
) -> list[Trained]:
    """All members of a plan; those that were trained for another way before are taken from the cache."""
    training_N, tune_N = ((frame["split"] == split).to_numpy() for split in ("train", "tune"))
    trained = []
    for index, held_out_N in enumerate(plan.held_out_IN):
        key = (index, held_out_N.tobytes())
        fit_N = training_N & ~held_out_N
        if key not in cache:
            task = MemberTask(
                index=index,
                seed=seed,
                fit_N=fit_N,
                # Where a network is stopped by the patients that it learns from, nothing stops it.
                tune_N=tune_N if settings.stopping else fit_N,
                targets=settings.targets,
                y_TN=np.stack([frame[target.name].to_numpy(dtype=float) for target in settings.targets]),
                network=settings.network,
                augment=settings.augment,
                fit=settings.fit,
            )
            started = time.process_time()
            results = train_member(task, images_NSS)
            epochs = sum(len(result.history) for result in results.values())
            visits = epochs * int(fit_N.sum()) * max(1, settings.augment.copies)
            cache[key] = Trained(results=results, seconds=time.process_time() - started, visits=visits)
        trained.append(cache[key])
    return trained


def predict_way(
    way: TrainingFeatures, images_NSS: np.ndarray, frame: pd.DataFrame, settings: Settings, *, seed: int, cache: Cache
) -> tuple[pd.DataFrame, dict[str, float]]:
    """The frame with stage 1's columns for training, tuning and test patients, and the cost of one way."""
    known = (frame["split"] != "test").to_numpy()
    learned = frame[known]
    plan = plan_members(
        way,
        members=settings.members,
        patient_N=learned["patient_id"].to_numpy(),
        y_N=learned["outcome"].to_numpy(),
        training_N=(learned["split"] == "train").to_numpy(),
        seed=seed,
    )
    trained = train_planned(plan, images_NSS[known], learned, settings, seed=seed, cache=cache)
    members = [one.results for one in trained]
    columns, _ = predict_patients(
        learned,
        members,
        targets=settings.targets,
        speaks_IN=plan.speaks_IN,
        tune_N=(learned["split"] == "tune").to_numpy(),
        recalibration="none",
        seed=seed,
    )
    tested = predict_new(members[: settings.members], images_NSS[~known], frame.index[~known], settings.targets)
    cost = {
        "trainings": float(len(members) * len(settings.targets)),
        "member-epochs": float(sum(len(result.history) for one in members for result in one.values())),
        "pictures seen": float(sum(one.visits for one in trained)),
        "seconds": sum(one.seconds for one in trained),
    }
    return frame.join(pd.concat([columns, tested])), cost


def predict_new(
    members: Sequence[Mapping[str, MemberResult]],
    images_NSS: np.ndarray,
    index: pd.Index,
    targets: Sequence[TargetConfig],
) -> pd.DataFrame:
    """What the members that score say of patients whom none of them has seen."""
    columns: dict[str, np.ndarray] = {}
    for target in targets:
        loaded = members_from_bytes([member[target.name].data for member in members])
        mu_MN, sigma_MN = predict_members(loaded, images_NSS, batch_size=32)
        columns |= prediction_columns(target.name, mu_MN, sigma_MN, positive=target.positive)
    return pd.DataFrame(columns, index=index)


def feature_rows(frame: pd.DataFrame, targets: Sequence[TargetConfig]) -> list[dict[str, object]]:
    """How good the features are, among the patients that stage 2 learns from and among new ones."""
    rows = []
    for target in targets:
        row: dict[str, object] = {"target": target.name}
        for split in ("train", "test"):
            part = frame[(frame["split"] == split) & frame[target.name].notna()]
            y_N, mu_N = part[target.name].to_numpy(), part[f"{target.name}_mu"].to_numpy()
            # As the feature has it: with the unbiased epistemic part.
            sigma_N = part[f"{target.name}_uncertainty_pct"].to_numpy() * mu_N / 100.0
            inside_N = inside_interval(y_N, mu_N, sigma_N, level=LEVEL)
            row |= {
                f"CCC {split}": concordance(y_N, mu_N, confidence_level=0.95).estimate,
                f"error {split}": float(np.abs(y_N - mu_N).mean()),
                f"sigma {split}": float(sigma_N.mean()),
                f"90% {split}": float(inside_N.mean()),
            }
        rows.append(row)
    return rows


def fit_stage2(frame: pd.DataFrame, settings: Settings, *, seed: int) -> dict[str, tuple[CvResult, Stage2Model]]:
    """A calibrated classifier of each kind, and its cross-validation, from the training patients' features."""
    names = [target.name for target in settings.targets]
    train = frame[frame["split"] == "train"]
    features, y_N = build_features(train, CLINICAL, names), train["outcome"].to_numpy(dtype=np.int64)
    folds = make_folds(y_N, train["patient_id"].to_numpy(), n_splits=3, n_repeats=settings.n_repeats, seed=seed)
    config = from_mapping(Stage2Config, load_preset("proof")["stage2"])
    models = {}
    for algorithm in ALGORITHMS:
        # One round: the same trials whatever the features.
        search = RoundSearch(
            algorithms=(algorithm,),
            trials_per_algorithm=settings.trials,
            trials_per_round=settings.trials,
            minutes_per_algorithm=None,
            prune=False,
            seed=seed,
        )
        tried = []
        while (spec := search.next()) is not None:
            tried.append(evaluate_params(algorithm, spec.params, features, y_N, folds, seed=seed, n_jobs=1))
        best = tried[choose(tried)]
        model = fit_final(algorithm, best.params, features, y_N, folds, config=config, seed=seed, n_jobs=1, cv=best)
        models[algorithm] = (best, model)
    return models


def stage2_rows(frame: pd.DataFrame, settings: Settings, *, seed: int) -> list[dict[str, object]]:
    """Each kind of classifier, tested on new patients."""
    test = frame[frame["split"] == "test"]
    new, label_N = build_features(test, CLINICAL, [target.name for target in settings.targets]), test["outcome"]
    return [
        {"classifier": ALGORITHMS[algorithm], "CV AUROC": cv.cv_auroc_mean}
        | measures(label_N.to_numpy(), model.predict(new)[1])
        for algorithm, (cv, model) in fit_stage2(frame, settings, seed=seed).items()
    ]


def measures(label_N: np.ndarray, score_N: np.ndarray) -> dict[str, float]:
    """Discrimination and calibration of a score."""
    return {
        "AUROC": discrimination.auroc(label_N, score_N),
        "AUPRC": discrimination.auprc(label_N, score_N),
        "Brier": calibration.brier(label_N, score_N),
        "intercept": calibration.citl(label_N, score_N, confidence_level=0.95).estimate,
        "slope": calibration.cal_slope(label_N, score_N, confidence_level=0.95).estimate,
        "ICI": calibration.calibration_errors(label_N, score_N).ici,
    }


def draw_splits(n: int, *, n_train: int, n_tune: int, n_test: int, seed: int) -> np.ndarray:
    """Splits of the simulated patients: the last ones are always the test set, the others are drawn by the seed."""
    split = np.full(n, "unused", dtype=object)
    split[n - n_test :] = "test"
    order = np.random.default_rng(seed).permutation(n - n_test)
    split[order[:n_train]], split[order[n_train : n_train + n_tune]] = "train", "tune"
    return split


def compare(
    images_NSS: np.ndarray, frame: pd.DataFrame, settings: Settings, ways: Sequence[TrainingFeatures], *, seed: int
) -> tuple[list[dict[str, object]], list[dict[str, object]], list[dict[str, object]]]:
    """Rows of cost, features and results of the ways for one draw of training patients (column ``split``)."""
    costs, features, results = [], [], []
    cache: Cache = {}
    for way in ways:
        predicted, cost = predict_way(way, images_NSS, frame, settings, seed=seed, cache=cache)
        key = {"way": way, "seed": seed}
        costs.append(key | cost)
        features += [key | row for row in feature_rows(predicted, settings.targets)]
        results += [key | row for row in stage2_rows(predicted, settings, seed=seed)]
    test = frame[frame["split"] == "test"]
    ideal = measures(test["outcome"].to_numpy(), test["bayes_score"].to_numpy())
    return costs, features, [*results, {"way": "ideal", "seed": seed, "classifier": "-", **ideal}]


def spread(table: pd.DataFrame, by: Sequence[str], decimals: int = 3) -> pd.DataFrame:
    """Mean over seeds, with the standard deviation over seeds in brackets."""
    groups = table.drop(columns="seed").groupby(list(by), sort=False)
    mean, sd = groups.mean(), groups.std()
    text = {
        name: [
            "-" if np.isnan(m) else f"{m:.{decimals}f}" + ("" if np.isnan(s) else f" ({s:.{decimals}f})")
            for m, s in zip(mean[name], sd[name], strict=True)
        ]
        for name in mean
    }
    return pd.DataFrame(text, index=mean.index).reset_index()


def differences(results: pd.DataFrame, reference: str = "repeated_folds") -> pd.DataFrame:
    """Each way minus the reference, paired by seed and classifier: mean and its standard error over seeds."""
    values = results[results["way"] != "ideal"].set_index(["way", "classifier", "seed"])
    base, rows = values.loc[reference], []
    for way in [way for way in TRAINING_FEATURES if way != reference and way in values.index]:
        paired = (values.loc[way] - base).dropna()
        for classifier, found in paired.groupby(level="classifier", sort=False):
            error = found.std() / np.sqrt(len(found))
            text = {
                name: f"{found[name].mean():+.3f}" + ("" if len(found) < 2 else f" ({error[name]:.3f})")
                for name in found
            }
            rows.append({"way": way, "classifier": classifier, "seeds": len(found)} | text)
    return pd.DataFrame(rows)


def read_settings(stopping: bool, changes: Mapping[str, Any], arguments: argparse.Namespace) -> Settings:
    """The compact network of preset ``proof``, but for the changes."""
    preset = merge(merge(load_preset("proof"), _SHORTER), changes)
    return Settings(
        targets=tuple(from_mapping(TargetConfig, target) for target in preset["targets"]),
        network=from_mapping(NetworkConfig, preset["network"]),
        augment=from_mapping(AugmentConfig, preset["augment"]),
        fit=from_mapping(FitConfig, preset["fit"]),
        members=arguments.members,
        stopping=stopping,
        trials=arguments.trials,
        n_repeats=arguments.repeats,
    )


def draw_patients(arguments: argparse.Namespace) -> tuple[np.ndarray, pd.DataFrame]:
    """Pictures and patients with a known outcome: the test set, and twice what a seed trains and tunes on."""
    preprocess = from_mapping(PreprocessConfig, merge(load_preset("proof"), _SHORTER)["preprocess"])
    images_NSS, frame = simulate(2 * (arguments.train + arguments.tune) + arguments.test, preprocess)
    frame["outcome"] = outcome_labels(frame, OutcomeConfig(definition="awgs2019", column=None))
    usable = (frame["outcome"].notna() & frame["bayes_score"].notna()).to_numpy()
    return images_NSS[usable], frame[usable].reset_index(drop=True)


def tables(
    images_NSS: np.ndarray, frame: pd.DataFrame, settings: Settings, fold_seeds: int, arguments: argparse.Namespace
) -> tuple[pd.DataFrame, ...]:
    """Cost, features, results and differences of one setting over all seeds."""
    found = []
    sizes = {"n_train": arguments.train, "n_tune": arguments.tune, "n_test": arguments.test}
    for seed in range(arguments.seeds):
        split = draw_splits(len(frame), **sizes, seed=seed)
        used = split != "unused"
        drawn = frame[used].assign(split=split[used]).reset_index(drop=True)
        ways = [way for way in TRAINING_FEATURES if way != "ensembles_per_fold" or seed < fold_seeds]
        found.append(compare(images_NSS[used], drawn, settings, ways, seed=seed))
    costs, features, results = (
        pd.DataFrame([row for part in parts for row in part]) for parts in zip(*found, strict=True)
    )
    features = features.sort_values("target", kind="stable")
    return (
        spread(costs, ["way"], decimals=0),
        spread(features, ["target", "way"], decimals=2),
        spread(results.sort_values("classifier", kind="stable"), ["classifier", "way"]),
        differences(results),
    )


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=int, default=400)
    parser.add_argument("--tune", type=int, default=100)
    parser.add_argument("--test", type=int, default=2000)
    parser.add_argument("--members", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--fold-seeds", type=int, default=1, help="with ensembles per fold, in the first setting")
    parser.add_argument("--trials", type=int, default=4, help="per classifier")
    parser.add_argument("--repeats", type=int, default=2, help="of the threefold cross-validation")
    return parser.parse_args(arguments)


def main() -> None:
    """Simulate, train, compare, print."""
    arguments = parse()
    cv2.setNumThreads(1)
    images_NSS, frame = draw_patients(arguments)
    console = Console(soft_wrap=True, highlight=False)
    for name, (stopping, changes) in SETTINGS.items():
        console.print(f"{name}\n")
        settings = read_settings(stopping, changes, arguments)
        for table in tables(images_NSS, frame, settings, arguments.fold_seeds if stopping else 0, arguments):
            console.print(as_markdown(table, 3), "\n", markup=False)


if __name__ == "__main__":
    main()

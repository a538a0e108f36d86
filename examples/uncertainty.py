"""Two measurements behind docs/explanation: recalibration of sigma, and pictures unlike the training pictures.

Simulates patients, trains three small ensembles, and prints both tables as Markdown:

    python examples/uncertainty.py                                            # compact network, about ten minutes
    python examples/uncertainty.py --weights vgg16_features_imagenet.pth      # frozen VGG16 at 224 pixels

One detector (Borealis-D) is left out of training, to see whether its pictures are told apart. The pictures that are
rotated, inverted or of something else are given to the measure directly: in a run most of them do not get past the
gate. All patients and pictures are simulated, but for crops of scikit-learn's two photographs.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence

import cv2
import numpy as np
import pandas as pd
from rich.console import Console
from scipy import special
from sklearn.datasets import load_sample_images
from sklearn.neighbors import NearestNeighbors

from sarc_ray import storage
from sarc_ray.cohort.schema import TargetConfig
from sarc_ray.config import from_mapping, load_preset
from sarc_ray.errors import Reason
from sarc_ray.imaging.preprocess import PreprocessConfig, equalise, process_image, resize
from sarc_ray.simulate.cohort import SimulateConfig
from sarc_ray.simulate.other_parts import render_part
from sarc_ray.simulate.writer import plan_chunks, write_chunk
from sarc_ray.stage1.checkpoint import LoadedMember, members_from_bytes
from sarc_ray.stage1.ensemble import mixture, pooled_features, predict_members
from sarc_ray.stage1.member import MemberTask, train_member
from sarc_ray.stage1.ood import alarm_threshold, fit_reference
from sarc_ray.stage1.recalibration import fit_sigma_scale, recalibrate
from sarc_ray.stage1.settings import AugmentConfig, FitConfig, NetworkConfig
from sarc_ray.stats import uncertainty
from sarc_ray.stats.discrimination import auroc

SEED = 7
HELD_OUT_DEVICE = "Borealis-D"
TRAIN_SHARE, TUNE_SHARE = 0.28, 0.07
MEMBERS = 3
FALSE_ALARM_RATE = 0.01
NEIGHBOURS = 10
SETS = 200
# What training for too long does to sigma.
TOO_NARROW = 0.8


def simulate(n: int, preprocess: PreprocessConfig, *, seed: int = SEED) -> tuple[np.ndarray, pd.DataFrame]:
    """Eligible patients of the derivation cohort, one radiograph each, and what is true of them."""
    size_px = 256 if preprocess.size_px <= 128 else 512
    config = SimulateConfig(derivation_n=n, external_n=1, archive_n=1, size_px=size_px, chunk_size=64)
    pictures, rows = [], []
    for chunk in plan_chunks(config, seed=seed):
        if chunk.cohort != "derivation":
            continue
        with tempfile.TemporaryDirectory() as folder:
            written = write_chunk(chunk, uri=folder)
            truth = written.truth.drop(columns="image_uri").reset_index(drop=True)
            frame = written.manifest.reset_index(drop=True).join(truth)
            frame = frame[frame["role"] == "eligible"].drop_duplicates("patient_id")
            for row in frame.to_dict("records"):
                uri = storage.join(folder, "derivation", row["image_uri"])
                result = process_image(storage.read_bytes(uri), preprocess)
                if result.reason == Reason.NONE:
                    pictures.append(result.image_HW)
                    rows.append(row)
    return np.stack(pictures), pd.DataFrame(rows)


def train(
    images_NSS: np.ndarray, frame: pd.DataFrame, split: np.ndarray, preset: dict, changes: dict, *, seed: int = SEED
) -> dict[str, tuple[LoadedMember, ...]]:
    """Ensembles of the three targets; all members see all training patients."""
    sections = {name: preset[name] | changes.get(name, {}) for name in ("network", "augment", "fit")}
    targets = tuple(from_mapping(TargetConfig, target) for target in preset["targets"])
    files: dict[str, list[bytes]] = {target.name: [] for target in targets}
    chosen = split != "test"
    for index in range(MEMBERS):
        task = MemberTask(
            index=index,
            seed=seed,
            fit_N=split[chosen] == "train",
            tune_N=split[chosen] == "tune",
            targets=targets,
            y_TN=np.stack([frame.loc[chosen, target.name].to_numpy(dtype=float) for target in targets]),
            network=from_mapping(NetworkConfig, sections["network"]),
            augment=from_mapping(AugmentConfig, sections["augment"]),
            fit=from_mapping(FitConfig, sections["fit"]),
        )
        for name, result in train_member(task, images_NSS[chosen]).items():
            files[name].append(result.data)
    return {name: members_from_bytes(data) for name, data in files.items()}


# --- recalibration -----------------------------------------------------------------------------------------------


def isotonic(level_tune_N: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """The recalibrated distribution function of Kuleshov et al. 2018: from predicted to observed level."""
    known = np.sort(level_tune_N)
    observed = (np.arange(known.size) + 0.5) / known.size
    return lambda level_N: np.interp(level_N, np.r_[0.0, known, 1.0], np.r_[0.0, observed, 1.0])


def calibration_error(level_N: np.ndarray) -> float:
    """As ``interval_calibration_error``, from predicted levels (the values of the distribution function)."""
    levels = uncertainty.INTERVAL_LEVELS
    return float(np.mean([abs(np.mean(np.abs(level_N - 0.5) <= level / 2) - level) for level in levels]))


def recalibration_table(
    ensembles: dict[str, tuple[LoadedMember, ...]], images_NSS: np.ndarray, frame: pd.DataFrame, split: np.ndarray
) -> pd.DataFrame:
    """For tune splits of several sizes: the error of the test patients' intervals as said, scaled, and isotonic."""
    rows = []
    pool = np.flatnonzero(split != "train")
    orders = [np.random.default_rng((SEED, repeat)).permutation(len(pool)) for repeat in range(100)]
    for name, members in ensembles.items():
        said = mixture(*predict_members(members, images_NSS[pool], batch_size=32))
        y_N = frame[name].to_numpy(dtype=float)[pool]
        for factor, n_tune in ((1.0, 60), (1.0, 150), (1.0, 400), (TOO_NARROW, 150)):
            found = [_compare(order, n_tune, y_N, said.mu_N, factor * said.sigma_N) for order in orders]
            what = name if factor == 1.0 else f"{name}, sigma x {factor}"
            rows.append({"target": what, "tuning patients": n_tune} | pd.DataFrame(found).mean().to_dict())
    return pd.DataFrame(rows)


def _compare(order: np.ndarray, n_tune: int, y_N: np.ndarray, mu_N: np.ndarray, sigma_N: np.ndarray) -> dict:
    tune, test = order[:n_tune], order[n_tune:]
    z_N = (y_N - mu_N) / sigma_N
    level_N = special.ndtr(z_N)
    decision = recalibrate(y_N[tune], mu_N[tune], sigma_N[tune], patient_N=tune, seed=SEED)
    scale = fit_sigma_scale(y_N[tune], mu_N[tune], sigma_N[tune])
    mapped_N = isotonic(level_N[tune])(level_N[test])

    def nll(factor: float) -> float:
        return float(uncertainty.gaussian_nll(y_N[test], mu_N[test], factor * sigma_N[test]).mean())

    return {
        "error as said": calibration_error(level_N[test]),
        "scaled": calibration_error(special.ndtr(z_N[test] / scale)),
        "isotonic": calibration_error(mapped_N),
        "by the rule": calibration_error(special.ndtr(z_N[test] / decision.scale)),
        "factor kept": float(decision.kept),
        "NLL as said": nll(1.0),
        "NLL scaled": nll(scale),
        "NLL by the rule": nll(decision.scale),
        "90% as said": float(np.mean(np.abs(level_N[test] - 0.5) <= 0.45)),
        "90% scaled": float(np.mean(np.abs(z_N[test]) <= 1.6449 * scale)),
        "90% isotonic": float(np.mean(np.abs(mapped_N - 0.5) <= 0.45)),
    }


# --- out of distribution -----------------------------------------------------------------------------------------


def strange_pictures(images_NSS: np.ndarray, preprocess: PreprocessConfig) -> dict[str, np.ndarray]:
    """Pictures that no score should be given to, or that tell what the measure does not see; by name."""
    rng = np.random.default_rng(SEED)
    size = preprocess.size_px

    def prepared(grey_HW: np.ndarray) -> np.ndarray:
        small_HW = resize(np.rint(grey_HW * 4095).astype(np.uint16), size) / 4095
        return equalise(np.clip(small_HW, 0, 1).astype(np.float32), preprocess)

    def each(function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        return np.stack([function(image_HW) for image_HW in images_NSS])

    turn = cv2.getRotationMatrix2D((size / 2, size / 2), 20, 1)
    found = {
        "rotated by 90 degrees": np.rot90(images_NSS, 1, (1, 2)).copy(),
        "rotated by 180 degrees": images_NSS[:, ::-1, ::-1].copy(),
        "rotated by 20 degrees": each(lambda x: cv2.warpAffine(x, turn, (size, size))),
        "mirrored": images_NSS[:, :, ::-1].copy(),
        "inverted": 255 - images_NSS,
        "upper left quarter": each(lambda x: cv2.resize(x[: size // 2, : size // 2], (size, size))),
        "blurred": each(lambda x: cv2.GaussianBlur(x, (0, 0), size / 64)),
        "grey levels squared": (255 * (images_NSS / 255.0) ** 2).astype(np.uint8),
        "noise added": np.clip(images_NSS + rng.normal(0, 20, images_NSS.shape), 0, 255).astype(np.uint8),
    }
    for part in ("lateral", "hand", "knee", "skull", "pelvis"):
        rendered = [render_part(part, shape_HW=(256, 230), rng=np.random.default_rng((SEED, k))) for k in range(100)]
        found[part] = np.stack([prepared(grey_HW) for grey_HW in rendered])
    found["white noise"] = rng.integers(0, 256, (100, size, size), dtype=np.uint8)
    clouds = [cv2.GaussianBlur(rng.normal(size=(256, 256)), (0, 0), 12) for _ in range(100)]
    found["smooth noise"] = np.stack([prepared(np.clip(0.5 + cloud / cloud.std() / 6, 0, 1)) for cloud in clouds])
    photographs = []
    for photograph in load_sample_images().images:
        grey_HW = cv2.cvtColor(photograph, cv2.COLOR_RGB2GRAY) / 255.0
        for _ in range(50):
            top, left = (int(rng.integers(0, extent - 200)) for extent in grey_HW.shape)
            photographs.append(prepared(grey_HW[top : top + 200, left : left + 200]))
    return found | {"photographs": np.stack(photographs)}


def ood_table(
    members: Sequence[LoadedMember], images_NSS: np.ndarray, split: np.ndarray, strange: dict[str, np.ndarray]
) -> pd.DataFrame:
    """Area under the ROC curve against ordinary test pictures, and share refused at the stated false-alarm rate."""

    def features(x_NSS: np.ndarray) -> np.ndarray:
        return pooled_features(members[0], x_NSS, batch_size=32)

    train_NF = features(images_NSS[split == "train"])
    reference = fit_reference(train_NF, backbone_hash=members[0].backbone_hash)

    def whitened(features_NF: np.ndarray) -> np.ndarray:
        z_NF = (features_NF - reference.mean_F) / reference.sd_F
        return z_NF @ reference.axes_KF.T / np.sqrt(reference.variance_K)

    neighbours = NearestNeighbors(n_neighbors=NEIGHBOURS).fit(whitened(train_NF))

    def measures(x_NSS: np.ndarray) -> dict[str, np.ndarray]:
        features_NF = features(x_NSS)
        return {
            "Mahalanobis": reference.distance(features_NF),
            "kNN": neighbours.kneighbors(whitened(features_NF))[0][:, -1],
            "epistemic variance": mixture(*predict_members(members, x_NSS, batch_size=32)).var_epistemic_N,
        }

    tune, ordinary = (measures(images_NSS[split == name]) for name in ("tune", "test"))
    thresholds = {name: alarm_threshold(values_N, FALSE_ALARM_RATE) for name, values_N in tune.items()}
    rows = []
    for what, found in [("ordinary test pictures", ordinary), *((k, measures(x)) for k, x in strange.items())]:
        row: dict[str, object] = {"pictures": what, "n": len(found["kNN"])}
        for name, values_N in found.items():
            labels = np.repeat([0, 1], [len(ordinary[name]), len(values_N)])
            row[f"{name}: AUROC"] = auroc(labels, np.concatenate([ordinary[name], values_N]))
            row[f"{name}: refused"] = f"{100 * np.mean(values_N > thresholds[name]):.1f}%"
        rows.append(row | {"median distance": float(np.median(found["Mahalanobis"]))})
    return pd.DataFrame(rows)


def as_markdown(table: pd.DataFrame, decimals: int) -> str:
    """A Markdown table; numbers with so many decimals."""
    text = table.map(lambda value: f"{value:.{decimals}f}" if isinstance(value, float) else str(value))
    lines = [list(text.columns), ["---"] * text.shape[1], *text.to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Simulate, train, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=3200)
    parser.add_argument("--weights", help="state file of VGG16's convolutions; none trains the compact network")
    parser.add_argument("--epochs", type=int, default=10)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    preset = load_preset("proof")
    preprocess = from_mapping(PreprocessConfig, preset["preprocess"] | {"pixel_gate": False})
    changes: dict[str, dict] = {"fit": {"epochs": arguments.epochs, "learning_rate": 3e-3}}
    if arguments.weights:
        preset = load_preset("paper")
        preprocess = from_mapping(PreprocessConfig, preset["preprocess"] | {"pixel_gate": False})
        frozen = {"weights": arguments.weights, "trainable": "head", "feature_blocks": [3], "pooling_grid": 4}
        head = {"epochs": 30, "learning_rate": 1e-3, "cache_features": True, "ridge_start": True}
        changes = {"network": frozen, "augment": {"copies": 1}, "fit": head}
    images_NSS, frame = simulate(arguments.patients, preprocess)
    other = (frame["device"] == HELD_OUT_DEVICE).to_numpy()
    split = np.full(len(frame), "test", dtype=object)
    order = np.random.default_rng(SEED).permutation(np.flatnonzero(~other))
    n_train, n_tune = (round(share * len(frame)) for share in (TRAIN_SHARE, TUNE_SHARE))
    split[order[:n_train]], split[order[n_train : n_train + n_tune]] = "train", "tune"
    ensembles = train(images_NSS, frame, split, preset, changes)
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"{n_train} training, {n_tune} tuning patients, {MEMBERS} members per target\n")
    console.print(as_markdown(recalibration_table(ensembles, images_NSS, frame, split), 3), "\n", markup=False)
    base_NSS = images_NSS[(split == "test") & ~other][:SETS]
    strange = {"detector left out of training": images_NSS[other][:SETS], **strange_pictures(base_NSS, preprocess)}
    inside = np.where(other, "left out", split)
    console.print(as_markdown(ood_table(ensembles["alm_kg"], images_NSS, inside, strange), 2), markup=False)


if __name__ == "__main__":
    main()

"""Bundles of the scoring benchmark: the demo's compact network, learned for a few epochs on drawn radiographs.

How well it predicts does not matter here, but that its answers follow the picture does: then comparing two ways of
making them says something.

Shape suffixes: N pictures, F features.
"""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from networks import radiographs

from sarc_ray.bundle import BundleSpec, write_bundle
from sarc_ray.cohort.definitions import OutcomeConfig
from sarc_ray.cohort.schema import TargetConfig
from sarc_ray.config import from_mapping, load_preset
from sarc_ray.imaging.preprocess import PreprocessConfig
from sarc_ray.stage1.checkpoint import member_to_bytes, members_from_bytes
from sarc_ray.stage1.ensemble import pooled_features, predict_members, prediction_columns
from sarc_ray.stage1.fit import fit_member
from sarc_ray.stage1.ood import fit_reference, reference_to_bytes
from sarc_ray.stage1.settings import AugmentConfig, FitConfig, NetworkConfig
from sarc_ray.stage2.cross_validation import make_folds
from sarc_ray.stage2.features import build_features
from sarc_ray.stage2.model import Stage2Model, fit_final
from sarc_ray.stage2.settings import Stage2Config

SEED = 11
CLINICAL = ("age_years", "sex", "bmi_kg_m2")
# Smooth, so that a small difference of a picture is a small difference of the score.
_ALGORITHM, _PARAMS = "logistic_regression", {"C": 1.0, "l1_ratio": 0.0, "class_weight": "none"}


def write_bundles(uris: dict[int, str], *, pictures: int, epochs: int, cores: int) -> None:
    """Write a bundle of so many members per target to each URL; they share their first members."""
    spec = _spec()
    with tempfile.TemporaryDirectory(prefix="sarc-ray-learn-") as folder:
        drawn = radiographs.draw(Path(folder), n=pictures, source_px=256, preprocess=spec.preprocess)
    jobs = [
        (target, drawn.images_NSS, drawn.y_TN[t], epochs, SEED + 100 * t + k)
        for t, target in enumerate(spec.targets)
        for k in range(max(uris))
    ]
    with ProcessPoolExecutor(max_workers=cores, mp_context=multiprocessing.get_context("spawn")) as pool:
        files = list(pool.map(_learn, *zip(*jobs, strict=True)))
    for n_members, uri in uris.items():
        starts = range(0, len(files), max(uris))
        members = {t.name: files[s : s + n_members] for t, s in zip(spec.targets, starts, strict=True)}
        first = members_from_bytes(members[spec.targets[0].name])[0]
        features_NF = pooled_features(first, drawn.images_NSS, batch_size=spec.batch_size, device="cpu")
        ood = reference_to_bytes(fit_reference(features_NF, backbone_hash=first.backbone_hash))
        stage2 = _stage2(spec, members, drawn.images_NSS)
        write_bundle(uri, members=members, ood=ood, stage2=stage2, spec=spec, metrics={}, lineage={})


def _spec() -> BundleSpec:
    preset = load_preset("demo")
    targets = tuple(from_mapping(TargetConfig, target) for target in preset["targets"])
    return BundleSpec(
        targets=targets,
        clinical_features=CLINICAL,
        preprocess=from_mapping(PreprocessConfig, preset["preprocess"]),
        age_min_years=40.0,
        outcome=from_mapping(OutcomeConfig, preset["outcome"]),
        batch_size=preset["fit"]["batch_size"],
        sigma_scale=(1.0,) * len(targets),
        ood_threshold=None,  # every picture that the gate lets pass gets its score, as from the plain script
    )


def _learn(target: TargetConfig, x_NSS: np.ndarray, y_N: np.ndarray, epochs: int, seed: int) -> bytes:
    preset = load_preset("demo")
    n_tune = len(x_NSS) // 4
    member = fit_member(
        x_train_NHW=x_NSS[n_tune:],
        y_train_N=y_N[n_tune:],
        x_tune_NHW=x_NSS[:n_tune],
        y_tune_N=y_N[:n_tune],
        target=target,
        network=from_mapping(NetworkConfig, preset["network"]),
        augment=from_mapping(AugmentConfig, preset["augment"]),
        fit=from_mapping(FitConfig, preset["fit"] | {"epochs": epochs, "device": "cpu"}),
        seed=seed,
    )
    return member_to_bytes(member)


def _stage2(spec: BundleSpec, members: dict[str, Sequence[bytes]], x_NSS: np.ndarray) -> Stage2Model:
    rng = np.random.default_rng(SEED)
    n = len(x_NSS)
    clinical = {
        "age_years": rng.uniform(41, 90, n).round(1),
        "sex": np.where(rng.random(n) < 0.4, "M", "F"),
        "bmi_kg_m2": rng.normal(24, 3, n).round(1),
    }
    frame = pd.DataFrame(clinical)
    for target in spec.targets:
        loaded = members_from_bytes(members[target.name])
        mu_MN, sigma_MN = predict_members(loaded, x_NSS, batch_size=spec.batch_size, device="cpu")
        frame = frame.assign(**prediction_columns(target.name, mu_MN, sigma_MN, positive=target.positive))
    X = build_features(frame, spec.clinical_features, [target.name for target in spec.targets])
    z_NF = ((X - X.mean()) / X.std())[["age_years", "alm_kg_mu", "hgs_kg_mu"]].to_numpy()
    y_N = (rng.random(n) < 1 / (1 + np.exp(-(z_NF @ [1.5, -1.5, -1.0])))).astype(int)
    folds = make_folds(y_N, np.arange(n), n_splits=3, n_repeats=1, seed=SEED)
    config = from_mapping(Stage2Config, load_preset("demo")["stage2"])
    return fit_final(_ALGORITHM, _PARAMS, X, y_N, folds, config=config, seed=SEED, n_jobs=1)

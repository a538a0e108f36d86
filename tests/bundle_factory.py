"""Small bundles for tests: tiny untrained ensembles, and a stage 2 fitted on what they say of random pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch

from sarc_ray.bundle import BundleSpec, write_bundle
from sarc_ray.cohort.definitions import OutcomeConfig
from sarc_ray.cohort.schema import TargetConfig
from sarc_ray.config import from_mapping, load_preset
from sarc_ray.imaging.preprocess import PreprocessConfig
from sarc_ray.stage1.checkpoint import member_from_bytes, member_to_bytes, members_from_bytes
from sarc_ray.stage1.ensemble import pooled_features, predict_members, prediction_columns
from sarc_ray.stage1.fit import TrainedMember
from sarc_ray.stage1.joint import build_heads, heads_of
from sarc_ray.stage1.network import build_network, normalise
from sarc_ray.stage1.ood import fit_reference, reference_to_bytes
from sarc_ray.stage1.scale import TargetScale
from sarc_ray.stage1.settings import NetworkConfig
from sarc_ray.stage2.cross_validation import make_folds
from sarc_ray.stage2.features import build_features
from sarc_ray.stage2.model import Stage2Model, fit_final
from sarc_ray.stage2.settings import Stage2Config

SIZE_PX = 32
TARGETS = (
    TargetConfig(
        name="alm_kg",
        label="Appendicular lean mass",
        unit="kg",
        higher_is_worse=False,
        transform="identity",
        positive=True,
    ),
    TargetConfig(name="crt_s", label="Chair rise test", unit="s", higher_is_worse=True, transform="log", positive=True),
)
SPEC = BundleSpec(
    targets=TARGETS,
    clinical_features=("age_years", "sex", "bmi_kg_m2"),
    preprocess=PreprocessConfig(size_px=SIZE_PX, clahe_clip_limit=2.0, clahe_tiles=4, pixel_gate=False),
    age_min_years=40.0,
    outcome=OutcomeConfig(definition="awgs2019", column=None),
    batch_size=8,
    sigma_scale=(1.1, 1.0),
    ood_threshold=None,
)
NETWORK = NetworkConfig(
    backbone="compact",
    weights="random",
    trainable="all",
    feature_blocks=(1, 2),
    pooling_grid=2,
    hidden_units=(8,),
    dropout=0.0,
)
_SCALES = {
    "alm_kg": TargetScale(transform="identity", mean=16.0, sd=4.0),
    "crt_s": TargetScale(transform="log", mean=2.3, sd=0.3),
}
_FOREST: dict[str, Any] = {
    "n_estimators": 100,
    "max_depth": 3,
    "min_samples_leaf": 10,
    "max_features": 0.5,
    "class_weight": "balanced",
}


def make_members(seed: int, *, members: int = 2) -> dict[str, list[bytes]]:
    """Untrained members of each target, as files."""
    return {
        target.name: [_member(target.name, seed + 100 * t + k) for k in range(members)]
        for t, target in enumerate(TARGETS)
    }


def make_pictures(n: int, *, rng: np.random.Generator) -> tuple[np.ndarray, pd.DataFrame]:
    """Random pictures of one soft blob each, uint8 (n, S, S), and clinical features."""
    grid = np.linspace(-1.0, 1.0, SIZE_PX)
    x_N11, y_N11 = rng.uniform(-0.6, 0.6, (2, n, 1, 1))
    width_N11, height_N11 = rng.uniform(0.2, 0.8, (n, 1, 1)), rng.uniform(60, 220, (n, 1, 1))
    distance_NSS = (grid[None, None, :] - x_N11) ** 2 + (grid[None, :, None] - y_N11) ** 2
    pictures = height_N11 * np.exp(-distance_NSS / width_N11**2) + rng.normal(0, 6, (n, SIZE_PX, SIZE_PX)) + 20
    clinical = pd.DataFrame(
        {
            "age_years": rng.uniform(45, 90, n).round(1),
            "sex": np.where(rng.random(n) < 0.4, "M", "F"),
            "bmi_kg_m2": rng.normal(24, 3, n).round(1),
        }
    )
    return np.clip(pictures, 0, 255).astype(np.uint8), clinical


def make_ood(members: dict[str, list[bytes]], seed: int) -> bytes:
    """Where 200 random pictures lie in the features of the first member."""
    member = member_from_bytes(members[TARGETS[0].name][0])
    x_NSS, _ = make_pictures(200, rng=np.random.default_rng(seed + 1))
    features_NF = pooled_features(member, x_NSS, batch_size=SPEC.batch_size, device="cpu")
    return reference_to_bytes(fit_reference(features_NF, backbone_hash=member.backbone_hash))


def make_stage2(members: dict[str, list[bytes]], seed: int) -> Stage2Model:
    """A small forest on what the members say of 240 pictures."""
    rng = np.random.default_rng(seed)
    x_NSS, frame = make_pictures(240, rng=rng)
    for target, scale in zip(TARGETS, SPEC.sigma_scale, strict=True):
        loaded = members_from_bytes(members[target.name])
        mu_MN, sigma_MN = predict_members(loaded, x_NSS, batch_size=SPEC.batch_size, device="cpu")
        columns = prediction_columns(target.name, mu_MN, sigma_MN, positive=target.positive, sigma_scale=scale)
        frame = frame.assign(**columns)
    X = build_features(frame, SPEC.clinical_features, [target.name for target in TARGETS])
    z_NF = ((X - X.mean()) / X.std())[["age_years", "bmi_kg_m2", "alm_kg_mu", "crt_s_mu"]].to_numpy()
    y_N = (rng.random(240) < 1 / (1 + np.exp(-(z_NF @ [1.0, -0.7, -0.8, 0.8] - 1.5)))).astype(int)
    folds = make_folds(y_N, np.arange(240), n_splits=3, n_repeats=1, seed=seed)
    config = from_mapping(Stage2Config, load_preset("paper")["stage2"])
    return fit_final("random_forest", _FOREST, X, y_N, folds, config=config, seed=seed, n_jobs=1)


def _member(target_name: str, seed: int) -> bytes:
    network = build_network(NETWORK, seed=seed)
    # Features on one scale and a louder output, as after training: else it says the same of every picture.
    x_NSS, _ = make_pictures(64, rng=np.random.default_rng(seed))
    x_NCHW = normalise(torch.from_numpy(x_NSS[:, None] / np.float32(255)))
    with torch.no_grad():
        features_NF = network.pool(network.eval().feature_maps(x_NCHW))
        sd_F = features_NF.std(dim=0, correction=0)
        network.feature_mean.copy_(features_NF.mean(dim=0))
        network.feature_sd.copy_(torch.where(sd_F > 1e-6, sd_F, torch.ones_like(sd_F)))
        network.head[-1].weight.mul_(10.0)
    return member_to_bytes(
        TrainedMember(
            target_name=target_name,
            network=NETWORK,
            scale=_SCALES[target_name],
            image_size_px=(SIZE_PX, SIZE_PX),
            seed=seed,
            best_epoch=0,
            best_tune_nll=0.0,
            history=(),
            state={name: tensor.detach().contiguous() for name, tensor in network.state_dict().items()},
        )
    )


def make_distilled(seed: int, *, n_members: int = 2) -> dict[str, list[bytes]]:
    """Parts of an untrained network that answers for an ensemble of so many members, as files."""
    networks = build_heads(NETWORK, len(TARGETS), seed=seed, distilled=True)
    return {
        target.name: [
            member_to_bytes(
                TrainedMember(
                    target_name=target.name,
                    network=NETWORK,
                    scale=TargetScale(transform="identity", mean=16.0, sd=4.0),
                    image_size_px=(SIZE_PX, SIZE_PX),
                    seed=seed,
                    best_epoch=0,
                    best_tune_nll=0.0,
                    history=(),
                    state={name: tensor.detach().contiguous() for name, tensor in network.state_dict().items()},
                    distilled_from=n_members,
                )
            )
        ]
        for target, network in zip(TARGETS, heads_of(networks), strict=True)
    }


def write_tested(uri: str, members, stage2, spec: BundleSpec = SPEC, ood: bytes | None = None) -> str:
    """A bundle of these parts; gives its URL."""
    write_bundle(
        uri,
        members=members,
        ood=make_ood(members, 5) if ood is None else ood,
        stage2=stage2,
        spec=spec,
        metrics={"cv_auroc": 0.8},
        lineage={"run": "test"},
    )
    return uri

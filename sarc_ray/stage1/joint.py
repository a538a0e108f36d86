"""One network for several targets: the same convolutions, a head of its own for each.

What is trained together is kept apart: a member for each target, each with a copy of the convolutions. So whatever
works on members (files, ensembles, bundles, heat maps) need not know how they came about; equal convolutions are held
in memory once, and run once per picture.
Shapes: N pictures, H rows, W columns, B of one batch, T targets, F pooled features.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from sarc_ray.cohort.schema import TargetConfig
from sarc_ray.errors import ConfigError, ConstantMemberError
from sarc_ray.stage1.fit import CONSTANT_RANGE, TrainedMember
from sarc_ray.stage1.loop import OnEpoch, PictureBatches, State, Training
from sarc_ray.stage1.losses import beta_nll, gaussian_nll
from sarc_ray.stage1.network import GaussianNetwork, build_network
from sarc_ray.stage1.runtime import Pictures, check_pictures, derive_seed, pick_device, pictures_differ, reproducible
from sarc_ray.stage1.scale import TargetScale, fit_scale
from sarc_ray.stage1.settings import AugmentConfig, FitConfig, NetworkConfig

FloatArray = npt.NDArray[np.float64]


def fit_heads(
    *,
    x_train_NHW: Pictures,
    y_train_TN: npt.ArrayLike,
    x_tune_NHW: Pictures,
    y_tune_TN: npt.ArrayLike,
    targets: Sequence[TargetConfig],
    network: NetworkConfig,
    augment: AugmentConfig,
    fit: FitConfig,
    seed: int,
    state: bytes | None = None,
    on_epoch: OnEpoch | None = None,
) -> tuple[TrainedMember, ...]:
    """Train one network for all targets by the sum of their Gaussian likelihoods.

    Args:
        x_train_NHW: uint8 pictures to learn from.
        y_train_TN: their measurements in the targets' units, NaN where not measured.
        x_tune_NHW: uint8 pictures of the tune split; training stops by the sum of all targets' likelihoods.
        y_tune_TN: their measurements.
        targets: T of them, in order.
        network: architecture and starting weights; its convolutions must learn.
        augment: variations of the training pictures.
        fit: the optimiser and its limits.
        seed: of everything random in this fit.
        state: bytes from an earlier ``snapshot`` of the same fit.
        on_epoch: called with a record and ``snapshot`` after each epoch.

    Returns:
        A member for each target, all of the same epoch and with the same convolutions.

    Raises:
        ConfigError: the convolutions are frozen: members share these anyway.
        ValueError: pictures and measurements do not fit together, a target was measured in none of them, or features
            of convolutions that learn are to be cached.
        ConstantMemberError: the best epoch says the same of every tuning picture, for some target.
        TrainingError: as ``fit_member``.
    """
    require_learning_backbone(network, "ensemble.heads: all_targets")
    if fit.cache_features:
        raise ValueError(
            "fit.cache_features: found true with ensemble.heads: all_targets, whose convolutions learn; features of "
            "such cannot be cached; set fit.cache_features: false"
        )
    y_train_TN, y_tune_TN = np.asarray(y_train_TN, dtype=np.float64), np.asarray(y_tune_TN, dtype=np.float64)
    _check_inputs(x_train_NHW, y_train_TN, x_tune_NHW, y_tune_TN, targets)
    device = pick_device(fit.device)
    scales = [fit_scale(y_N[np.isfinite(y_N)], t.transform) for t, y_N in zip(targets, y_train_TN, strict=True)]
    with reproducible(threads=fit.threads, device=device):
        networks = build_heads(network, len(targets), seed=seed).to(device)
        batches = PictureBatches(x_train_NHW, x_tune_NHW, augment, device, fit.precision)
        z_train_TN, z_tune_TN = (_standardise(y_TN, scales).to(device) for y_TN in (y_train_TN, y_tune_TN))
        lesson = _Likelihoods(networks, batches, z_train_TN, z_tune_TN, fit.beta_nll)
        settings = [[asdict(target) for target in targets], *(asdict(part) for part in (network, augment))]
        key = fingerprint_of_fit([*settings, asdict(fit) | {"device": ""}, seed], [y_train_TN, y_tune_TN])
        run = Training(networks, lesson, fit, seed=seed, key=key)
        if state is not None:
            run.restore(state)
        best = run.run(on_epoch)
        require_variety(run, x_tune_NHW, targets, fit.learning_rate)
        size_px = (int(x_train_NHW.shape[1]), int(x_train_NHW.shape[2]))
        return split_heads(best, run, targets, scales=scales, network=network, image_size_px=size_px)


def require_learning_backbone(network: NetworkConfig, what: str) -> None:
    """Refuse frozen convolutions.

    Raises:
        ConfigError: names ``what`` asked for more than that.
    """
    if network.trainable == "head":
        raise ConfigError(
            f"{what}: found with network.trainable: head; frozen convolutions are shared by all members as they are, "
            "and run once per picture. Set network.trainable: all or last_block, or do without"
        )


def build_heads(config: NetworkConfig, n: int, *, seed: int, distilled: bool = False) -> nn.ModuleList:
    """Networks with starting weights that hold the very same convolutions, which learn from all of them."""
    networks = [build_network(config, seed=derive_seed(seed, number), distilled=distilled) for number in range(n)]
    for network in networks[1:]:
        network.backbone = networks[0].backbone
    return nn.ModuleList(networks)


def heads_of(networks: nn.ModuleList) -> list[GaussianNetwork]:
    """The networks by target, with their type."""
    return [network for network in networks if isinstance(network, GaussianNetwork)]


def split_heads(
    best: State,
    run: Training,
    targets: Sequence[TargetConfig],
    *,
    scales: Sequence[TargetScale],
    network: NetworkConfig,
    image_size_px: tuple[int, int],
    distilled_from: Sequence[int] = (),
) -> tuple[TrainedMember, ...]:
    """A member for each target from the state of what :func:`build_heads` made."""
    return tuple(
        TrainedMember(
            target_name=target.name,
            network=network,
            scale=scales[number],
            image_size_px=image_size_px,
            seed=run.seed,
            best_epoch=run.best_epoch,
            best_tune_nll=run.history[run.best_epoch].tune_nll,
            history=tuple(run.history),
            state={
                name.removeprefix(f"{number}."): tensor
                for name, tensor in best.items()
                if name.startswith(f"{number}.")
            },
            distilled_from=distilled_from[number] if distilled_from else 0,
        )
        for number, target in enumerate(targets)
    )


def require_variety(run: Training, x_tune_NHW: Pictures, targets: Sequence[TargetConfig], learning_rate: float) -> None:
    """Refuse a network that has fallen silent.

    Raises:
        ConstantMemberError: it says the same of every tuning picture for some target, though they differ.
    """
    ranges = run.tune_ranges() if pictures_differ(x_tune_NHW) else []
    silent = [target.name for target, found in zip(targets, ranges, strict=False) if found <= CONSTANT_RANGE]
    if silent:
        raise ConstantMemberError(
            f"{', '.join(silent)}, seed {run.seed}: one mean is predicted for all {len(x_tune_NHW)} tuning pictures; "
            f"lower the learning rate ({learning_rate:g}) or take another seed"
        )


def fingerprint_of_fit(settings: object, arrays: Sequence[FloatArray]) -> str:
    """Identity of a fit: a state is only good for the one that wrote it."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


class _Likelihoods:
    """The lesson: the sum over targets of the mean likelihood of those who were measured."""

    def __init__(
        self,
        networks: nn.ModuleList,
        batches: PictureBatches,
        z_train_TN: torch.Tensor,
        z_tune_TN: torch.Tensor,
        beta: float,
    ) -> None:
        self.networks, self.batches, self.beta = heads_of(networks), batches, beta
        self.z_train_TN, self.z_tune_TN = z_train_TN, z_tune_TN
        self.n_train, self.n_visits, self.n_tune = z_train_TN.shape[1], batches.n_visits, z_tune_TN.shape[1]
        self.measured_T = torch.isfinite(z_tune_TN).sum(dim=1).double()

    def learn(
        self, visit_B: torch.Tensor, index_B: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        features_BF = self.batches.train_features(self.networks[0], index_B, generator)
        # No parameter learns from this zero; it stands for a batch without any measurement.
        loss = told = 0.0 * features_BF.sum()
        for network, z_N in zip(self.networks, self.z_train_TN, strict=True):
            z_B = z_N[index_B]
            known_B = torch.isfinite(z_B)
            if not known_B.any():
                continue
            mu_B, sigma_B = (values_B[known_B] for values_B in network.predict(features_BF))
            loss = loss + beta_nll(mu_B, sigma_B, z_B[known_B], beta=self.beta)
            told = told + gaussian_nll(mu_B.detach(), sigma_B.detach(), z_B[known_B])
        return loss, told

    def judge(self, rows: slice) -> torch.Tensor:
        features_BF = self.batches.tune_features(self.networks[0], rows)
        total = torch.zeros((), dtype=torch.float64, device=features_BF.device)
        for number, network in enumerate(self.networks):
            z_B = self.z_tune_TN[number, rows]
            known_B = torch.isfinite(z_B)
            if known_B.any():
                mu_B, sigma_B = (values_B[known_B] for values_B in network.predict(features_BF))
                nll = gaussian_nll(mu_B, sigma_B, z_B[known_B]).double() * known_B.sum()
                # Each target's mean is over its own measurements.
                total += nll * self.n_tune / self.measured_T[number]
        return total

    def means(self, rows: slice) -> torch.Tensor:
        features_BF = self.batches.tune_features(self.networks[0], rows)
        return torch.stack([network.predict(features_BF)[0] for network in self.networks])


def _standardise(y_TN: FloatArray, scales: Sequence[TargetScale]) -> torch.Tensor:
    z_TN = np.full_like(y_TN, np.nan)
    for z_N, y_N, scale in zip(z_TN, y_TN, scales, strict=True):
        known_N = np.isfinite(y_N)
        z_N[known_N] = scale.standardise(y_N[known_N])
    return torch.from_numpy(z_TN).float()


def _check_inputs(
    x_train_NHW: Pictures,
    y_train_TN: FloatArray,
    x_tune_NHW: Pictures,
    y_tune_TN: FloatArray,
    targets: Sequence[TargetConfig],
) -> None:
    for name, x_NHW, y_TN in (("train", x_train_NHW, y_train_TN), ("tune", x_tune_NHW, y_tune_TN)):
        check_pictures(x_NHW, f"x_{name}_NHW")
        if y_TN.shape != (len(targets), len(x_NHW)):
            raise ValueError(
                f"y_{name}_TN: found shape {y_TN.shape}, expected a row for each of {len(targets)} targets and a "
                f"column for each of {len(x_NHW)} pictures"
            )
        unmeasured = [t.name for t, y_N in zip(targets, y_TN, strict=True) if not np.isfinite(y_N).any()]
        if unmeasured:
            raise ValueError(f"y_{name}_TN: {unmeasured[0]} was measured in none of the {len(x_NHW)} pictures")
    if x_train_NHW.shape[1:] != x_tune_NHW.shape[1:]:
        raise ValueError(f"x_tune_NHW: pictures of {x_tune_NHW.shape[1:]}, but training has {x_train_NHW.shape[1:]}")

"""Training one member of an ensemble: a pure function of data, configuration and seed.

Shapes: N pictures, H rows, W columns, B of one batch, K cached versions.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from sarc_ray.cohort.schema import TargetConfig
from sarc_ray.errors import ConstantMemberError
from sarc_ray.stage1.features import CachedFeatures, FeatureArray, extract_features
from sarc_ray.stage1.loop import EpochRecord, OnEpoch, PictureBatches, State, Training
from sarc_ray.stage1.losses import beta_nll, gaussian_nll
from sarc_ray.stage1.network import GaussianNetwork, build_network
from sarc_ray.stage1.runtime import Pictures, check_pictures, derive_seed, pick_device, pictures_differ, reproducible
from sarc_ray.stage1.scale import TargetScale, fit_scale
from sarc_ray.stage1.settings import AugmentConfig, FitConfig, NetworkConfig

# A member whose standardised means over the tune split lie within this range is dead: all units of a layer have fallen
# silent. Their range is then zero but for float32's rounding; one that finds nothing, or is untrained, varies by 5e-4.
CONSTANT_RANGE = 1e-5


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainedMember:
    """A member as its best epoch left it.

    Args:
        target_name: the manifest column that it predicts.
        network: its architecture.
        scale: between standardised units and the target's own.
        image_size_px: rows and columns of the training pictures.
        seed: that it was trained with.
        best_epoch: counted from 0.
        best_tune_nll: in nats, standardised target units.
        history: one record per epoch.
        state: all tensors of the network, on the CPU.
        distilled_from: members for whose mixture it was taught to answer, with three outputs; 0 for an ordinary
            member, which has two and speaks for itself.
    """

    target_name: str
    network: NetworkConfig
    scale: TargetScale
    image_size_px: tuple[int, int]
    seed: int
    best_epoch: int
    best_tune_nll: float
    history: tuple[EpochRecord, ...]
    state: State = field(repr=False)
    distilled_from: int = 0


def fit_member(
    *,
    x_train_NHW: Pictures,
    y_train_N: npt.ArrayLike,
    x_tune_NHW: Pictures,
    y_tune_N: npt.ArrayLike,
    target: TargetConfig,
    network: NetworkConfig,
    augment: AugmentConfig,
    fit: FitConfig,
    seed: int,
    features: CachedFeatures | None = None,
    state: bytes | None = None,
    on_epoch: OnEpoch | None = None,
) -> TrainedMember:
    """Train one member by Gaussian likelihood with Adam, cosine annealing and early stopping.

    Args:
        x_train_NHW: uint8 pictures that this member learns from (held-out ones already left out); an array, or rows
            of a table that members share.
        y_train_N: their measurements in the original unit.
        x_tune_NHW: uint8 pictures of the tune split, for early stopping.
        y_tune_N: their measurements.
        target: what is measured, and on which scale it is learned.
        network: architecture and starting weights.
        augment: how training pictures are varied; each epoch visits every picture ``copies`` times.
        fit: the optimiser and its limits.
        seed: of everything random in this fit.
        features: what ``extract_features`` gave for these very pictures; only with ``fit.cache_features``.
        state: bytes from an earlier ``snapshot`` of the same fit; training goes on from there.
        on_epoch: called with a record and ``snapshot`` after each epoch.

    Returns:
        The member at its best tune NLL.

    Raises:
        ValueError: pictures, measurements or settings do not fit together.
        ConstantMemberError: the best epoch says the same of every tuning picture (``CONSTANT_RANGE``).
        TrainingError: ``state`` belongs to another fit, or the likelihood is no longer finite.

    References:
        Ryu J et al. J Cachexia Sarcopenia Muscle 2023;14:418-428, Step 1. Loshchilov I, Hutter F. SGDR. ICLR 2017.
    """
    y_train_N, y_tune_N = np.asarray(y_train_N, dtype=np.float64), np.asarray(y_tune_N, dtype=np.float64)
    _check_inputs(x_train_NHW, y_train_N, x_tune_NHW, y_tune_N, network, fit, features)
    device = pick_device(fit.device)
    scale = fit_scale(y_train_N, target.transform)
    with reproducible(threads=fit.threads, device=device):
        model = build_network(network, seed=derive_seed(seed)).to(device)
        data = _prepare(model, x_train_NHW, x_tune_NHW, augment, fit, seed, features)
        z_train_N = torch.from_numpy(scale.standardise(y_train_N)).float().to(device)
        z_tune_N = torch.from_numpy(scale.standardise(y_tune_N)).float().to(device)
        if fit.ridge_start:
            assert isinstance(data, _FeatureData)
            data.linear_KN = model.start_from_ridge(data.train_KNF, z_train_N, data.tune_NF, z_tune_N)
        key = _fingerprint(target, network, augment, fit, seed, y_train_N, y_tune_N)
        run = Training(model, _Likelihood(model, data, z_train_N, z_tune_N, fit.beta_nll), fit, seed=seed, key=key)
        if state is not None:
            run.restore(state)
        best = run.run(on_epoch)
        if pictures_differ(x_tune_NHW) and min(run.tune_ranges()) <= CONSTANT_RANGE:
            told = f"{target.name}, seed {seed}: one mean is predicted for all {len(x_tune_NHW)} tuning pictures"
            raise ConstantMemberError(f"{told}; lower fit.learning_rate ({fit.learning_rate:g}) or take another seed")
        return TrainedMember(
            target_name=target.name,
            network=network,
            scale=scale,
            image_size_px=(int(x_train_NHW.shape[1]), int(x_train_NHW.shape[2])),
            seed=seed,
            best_epoch=run.best_epoch,
            best_tune_nll=run.history[run.best_epoch].tune_nll,
            history=tuple(run.history),
            state=best,
        )


class _Data(Protocol):
    """What a fit learns from: pictures, or features that were cached."""

    n_visits: int

    def predict_train(
        self, model: GaussianNetwork, visit_B: torch.Tensor, index_B: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]: ...

    def predict_tune(self, model: GaussianNetwork, rows: slice) -> tuple[torch.Tensor, torch.Tensor]: ...


class _PictureData:
    def __init__(self, batches: PictureBatches):
        self.batches, self.n_visits = batches, batches.n_visits

    def predict_train(
        self, model: GaussianNetwork, visit_B: torch.Tensor, index_B: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return model.predict(self.batches.train_features(model, index_B, generator))

    def predict_tune(self, model: GaussianNetwork, rows: slice) -> tuple[torch.Tensor, torch.Tensor]:
        return model.predict(self.batches.tune_features(model, rows))


class _FeatureData:
    def __init__(self, features: CachedFeatures, device: torch.device):
        # Copied only where the array is read-only, as one of the object store is.
        self.train_KNF = torch.from_numpy(np.require(features.train_KNF, requirements=["C", "W"])).to(device)
        self.tune_NF = torch.from_numpy(np.require(features.tune_NF, requirements=["C", "W"])).to(device)
        self.n_visits = len(self.train_KNF)
        self.linear_KN: torch.Tensor | None = None

    def predict_train(
        self, model: GaussianNetwork, visit_B: torch.Tensor, index_B: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        linear_B = None if self.linear_KN is None else self.linear_KN[visit_B, index_B]
        return model.predict(self.train_KNF[visit_B, index_B], linear_B)

    def predict_tune(self, model: GaussianNetwork, rows: slice) -> tuple[torch.Tensor, torch.Tensor]:
        return model.predict(self.tune_NF[rows])


class _Likelihood:
    """The lesson of a member: the Gaussian likelihood of one target's measurements."""

    def __init__(
        self, model: GaussianNetwork, data: _Data, z_train_N: torch.Tensor, z_tune_N: torch.Tensor, beta: float
    ):
        self.model, self.data, self.z_train_N, self.z_tune_N, self.beta = model, data, z_train_N, z_tune_N, beta
        self.n_train, self.n_visits, self.n_tune = len(z_train_N), data.n_visits, len(z_tune_N)

    def learn(
        self, visit_B: torch.Tensor, index_B: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        mu_B, sigma_B = self.data.predict_train(self.model, visit_B, index_B, generator)
        loss = beta_nll(mu_B, sigma_B, self.z_train_N[index_B], beta=self.beta)
        # The history holds likelihoods whatever the loss, so that runs can be compared.
        return loss, gaussian_nll(mu_B.detach(), sigma_B.detach(), self.z_train_N[index_B]) if self.beta else loss

    def judge(self, rows: slice) -> torch.Tensor:
        mu_B, sigma_B = self.data.predict_tune(self.model, rows)
        return gaussian_nll(mu_B, sigma_B, self.z_tune_N[rows]).double() * len(mu_B)

    def means(self, rows: slice) -> torch.Tensor:
        return self.data.predict_tune(self.model, rows)[0][None]


def _prepare(
    model: GaussianNetwork,
    x_train_NHW: Pictures,
    x_tune_NHW: Pictures,
    config: AugmentConfig,
    fit: FitConfig,
    seed: int,
    features: CachedFeatures | None,
) -> _Data:
    """Choose what the fit learns from; a head over frozen convolutions first gets its features' scale and axes."""
    device = pick_device(fit.device)

    def extract(x_NHW: Pictures, copies: int) -> FeatureArray:
        return extract_features(
            model,
            x_NHW,
            config=config,
            copies=copies,
            seed=seed,
            batch_size=fit.batch_size,
            threads=fit.threads,
            device=fit.device,
        )

    if fit.cache_features:
        # Callers with several members extract once and pass the features in.
        features = features or CachedFeatures(
            train_KNF=extract(x_train_NHW, config.copies), tune_NF=extract(x_tune_NHW, 0)[0]
        )
        data = _FeatureData(features, device)
        model.standardise_features(data.train_KNF.flatten(0, 1))
        return data
    if model.frozen_features:
        model.standardise_features(torch.from_numpy(extract(x_train_NHW, 0)[0]).to(device))
    return _PictureData(PictureBatches(x_train_NHW, x_tune_NHW, config, device, fit.precision))


def _check_inputs(
    x_train_NHW: Pictures,
    y_train_N: npt.NDArray[np.float64],
    x_tune_NHW: Pictures,
    y_tune_N: npt.NDArray[np.float64],
    network: NetworkConfig,
    fit: FitConfig,
    features: CachedFeatures | None,
) -> None:
    for name, x_NHW, y_N in (("train", x_train_NHW, y_train_N), ("tune", x_tune_NHW, y_tune_N)):
        check_pictures(x_NHW, f"x_{name}_NHW")
        if y_N.shape != (len(x_NHW),):
            raise ValueError(
                f"y_{name}_N: found shape {y_N.shape}, expected one value for each of {len(x_NHW)} pictures"
            )
    if x_train_NHW.shape[1:] != x_tune_NHW.shape[1:]:
        raise ValueError(f"x_tune_NHW: pictures of {x_tune_NHW.shape[1:]}, but training has {x_train_NHW.shape[1:]}")
    if fit.cache_features and network.trainable != "head":
        raise ValueError(
            f"fit.cache_features: true with network.trainable {network.trainable!r}; features of convolutions "
            "that learn cannot be cached; set network.trainable: head or fit.cache_features: false"
        )
    if features is None:
        return
    if not fit.cache_features or network.weights == "random":
        raise ValueError("features: only of use with fit.cache_features: true and weights that all members share")
    if features.train_KNF.shape[1] != len(x_train_NHW) or len(features.tune_NF) != len(x_tune_NHW):
        raise ValueError(
            f"features: for {features.train_KNF.shape[1]} train and {len(features.tune_NF)} tune pictures, "
            f"but there are {len(x_train_NHW)} and {len(x_tune_NHW)}"
        )


def _fingerprint(
    target: TargetConfig,
    network: NetworkConfig,
    augment: AugmentConfig,
    fit: FitConfig,
    seed: int,
    y_train_N: npt.NDArray[np.float64],
    y_tune_N: npt.NDArray[np.float64],
) -> str:
    """Identity of a fit: a state is only good for the one that wrote it. The device may change."""
    configs = [asdict(target), asdict(network), asdict(augment), asdict(fit) | {"device": ""}, seed]
    digest = hashlib.sha256(json.dumps(configs, sort_keys=True).encode())
    digest.update(y_train_N.tobytes())
    digest.update(y_tune_N.tobytes())
    return digest.hexdigest()

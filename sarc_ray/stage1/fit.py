"""Training one member of an ensemble: a pure function of data, configuration and seed.

All randomness of an epoch comes from (seed, epoch), so a fit that resumes from a snapshot is equal, bit for bit on a
CPU, to one that was never interrupted. Shapes: N pictures, H rows, W columns, B of one batch, K cached versions.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch

from sarc_ray.cohort.schema import TargetConfig
from sarc_ray.errors import ConstantMemberError, TrainingError
from sarc_ray.stage1.augment import AugmentConfig, augment
from sarc_ray.stage1.features import CachedFeatures, FeatureArray, extract_features
from sarc_ray.stage1.losses import beta_nll, gaussian_nll
from sarc_ray.stage1.network import GaussianNetwork, NetworkConfig, build_network, normalise
from sarc_ray.stage1.runtime import (
    DEVICES,
    Pictures,
    check_pictures,
    derive_seed,
    make_generator,
    pick_device,
    pictures_differ,
    reproducible,
    to_grey,
)
from sarc_ray.stage1.scale import TargetScale, fit_scale

State = dict[str, torch.Tensor]
_PRECISIONS = ("float32", "bfloat16")
# A member whose standardised means over the tune split lie within this range is dead: all units of a layer have fallen
# silent. Their range is then zero but for float32's rounding; one that finds nothing, or is untrained, varies by 5e-4.
CONSTANT_RANGE = 1e-5


@dataclass(frozen=True, kw_only=True, slots=True)
class FitConfig:
    """How a member is trained.

    Args:
        epochs: at most; the learning rate falls along half a cosine over these, whether or not training stops early.
        patience: epochs without a better tune NLL before training stops.
        batch_size: pictures per step, and per batch of evaluation.
        learning_rate: of Adam, at the start.
        weight_decay: decoupled (AdamW); 0 is plain Adam.
        clip_norm: gradients longer than this are shortened to it; one picture with a tiny sigma can
            otherwise undo an epoch.
        beta_nll: each picture's loss is weighted by its own sigma^(2 beta) while training, 0 to 1; 0 is the plain
            likelihood (the paper), 0.5 the choice of Seitzer et al. 2022. Stopping goes by the plain likelihood.
        threads: of torch, per member. Results depend on it, so it is fixed here and not by the machine.
        device: ``auto`` takes CUDA where torch sees it.
        cache_features: with ``trainable: head``, run the convolutions once and train the head on what they gave.
        ridge_start: with ``cache_features``, predict by ridge regression on all features (penalty chosen by the tune
            split), and train the head to correct that and to say how uncertain it is. For a few hundred patients,
            where a head that starts from nothing stays behind ridge regression.
        precision: ``bfloat16`` computes the convolutions of training steps in mixed precision, for GPUs; weights,
            head, loss, early stopping and all predictions stay float32. On CPUs that were tried it is slower.
    """

    epochs: int
    patience: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    clip_norm: float
    beta_nll: float
    threads: int
    device: Literal["auto", "cpu", "cuda"]
    cache_features: bool
    ridge_start: bool
    precision: Literal["float32", "bfloat16"]

    def __post_init__(self) -> None:
        for name in ("epochs", "patience", "batch_size", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: found {getattr(self, name)}, allowed: 1 or more")
        for name in ("learning_rate", "clip_norm"):
            if not 0.0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}: found {getattr(self, name)}, allowed: above 0")
        if not 0.0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay: found {self.weight_decay}, allowed: 0 or more")
        if not 0.0 <= self.beta_nll <= 1.0:
            raise ValueError(f"beta_nll: found {self.beta_nll}, allowed: 0 (plain likelihood) to 1")
        if self.device not in DEVICES:
            raise ValueError(f"device: found {self.device!r}, allowed: {', '.join(DEVICES)}")
        if self.ridge_start and not self.cache_features:
            raise ValueError("ridge_start: found true, allowed: false, or true with cache_features: true")
        if self.precision not in _PRECISIONS:
            raise ValueError(f"precision: found {self.precision!r}, allowed: {', '.join(_PRECISIONS)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class EpochRecord:
    """One line of a member's history; likelihoods in nats per picture, standardised target units."""

    epoch: int
    learning_rate: float
    train_nll: float
    tune_nll: float


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


# Called after every epoch; the second argument makes the bytes to resume from, when and if they are wanted.
OnEpoch = Callable[[EpochRecord, Callable[[], bytes]], None]


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
        run = _Run(model, data, z_train_N, z_tune_N, fit, seed, key)
        if state is not None:
            run.restore(state)
        while not run.finished():
            record = run.advance()
            if on_epoch is not None:
                on_epoch(record, run.snapshot)
        best = run.best_state()
        if pictures_differ(x_tune_NHW) and run.tune_range() <= CONSTANT_RANGE:
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


def seed_of_state(state: bytes) -> int:
    """The seed of the fit that wrote a ``snapshot``."""
    return int(torch.load(io.BytesIO(state), map_location="cpu", weights_only=True)["seed"])


def cosine_learning_rate(progress: float, peak: float) -> float:
    """Learning rate at a fraction ``progress`` (0 to 1) of training: half a cosine from ``peak`` to 0.

    Example:
        >>> cosine_learning_rate(0.5, 0.2)
        0.1
    """
    return 0.5 * peak * (1.0 + math.cos(math.pi * progress))


class _Data(Protocol):
    """What a fit learns from: pictures, or features that were cached."""

    n_visits: int

    def predict_train(
        self, model: GaussianNetwork, visit_B: torch.Tensor, index_B: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]: ...

    def predict_tune(self, model: GaussianNetwork, rows: slice) -> tuple[torch.Tensor, torch.Tensor]: ...


class _PictureData:
    def __init__(
        self, x_train_NHW: Pictures, x_tune_NHW: Pictures, config: AugmentConfig, device: torch.device, precision: str
    ):
        self.x_train_NHW, self.x_tune_NHW = x_train_NHW, x_tune_NHW
        self.config, self.device, self.mixed = config, device, precision == "bfloat16"
        self.n_visits = max(1, config.copies)

    def predict_train(
        self, model: GaussianNetwork, visit_B: torch.Tensor, index_B: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        x_B1HW = to_grey(self.x_train_NHW[index_B.numpy()], self.device)
        if self.config.copies:
            x_B1HW = augment(x_B1HW, self.config, generator=generator)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed):
            features_BF = model.pool(model.feature_maps(normalise(x_B1HW)))
        return model.predict(features_BF.float())

    def predict_tune(self, model: GaussianNetwork, rows: slice) -> tuple[torch.Tensor, torch.Tensor]:
        mu_B, sigma_B = model(normalise(to_grey(self.x_tune_NHW[rows], self.device)))
        return mu_B, sigma_B


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


class _Run:
    """The moving parts of a fit: network, optimiser, history and the best state so far."""

    def __init__(
        self,
        model: GaussianNetwork,
        data: _Data,
        z_train_N: torch.Tensor,
        z_tune_N: torch.Tensor,
        fit: FitConfig,
        seed: int,
        key: str,
    ):
        self.model, self.data, self.z_train_N, self.z_tune_N = model, data, z_train_N, z_tune_N
        self.fit, self.seed, self.key = fit, seed, key
        self.device = z_train_N.device
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(parameters, lr=fit.learning_rate, weight_decay=fit.weight_decay)
        self.history: list[EpochRecord] = []
        self.best_epoch = -1
        self.best: State = {}

    def finished(self) -> bool:
        n_done = len(self.history)
        return n_done >= self.fit.epochs or (n_done > 0 and n_done - 1 - self.best_epoch >= self.fit.patience)

    def advance(self) -> EpochRecord:
        epoch = len(self.history)
        learning_rate = cosine_learning_rate(epoch / self.fit.epochs, self.fit.learning_rate)
        record = EpochRecord(
            epoch=epoch, learning_rate=learning_rate, train_nll=self._train(epoch), tune_nll=self._tune()
        )
        for name, nll in (("training", record.train_nll), ("tune", record.tune_nll)):
            if not math.isfinite(nll):
                remedy = f"lower fit.learning_rate (found {self.fit.learning_rate:g})"
                raise TrainingError(f"epoch {epoch}: the {name} NLL is {nll}; {remedy}")
        self.history.append(record)
        if self.best_epoch < 0 or record.tune_nll < self.history[self.best_epoch].tune_nll:
            self.best_epoch = epoch
            self.best = {name: tensor.detach().clone() for name, tensor in self._moving_state().items()}
        return record

    def snapshot(self) -> bytes:
        buffer = io.BytesIO()
        content = {
            "key": self.key,
            "seed": self.seed,
            "history": [asdict(record) for record in self.history],
            "best_epoch": self.best_epoch,
            "best": self.best,
            "model": self._moving_state(),
            "optimizer": self.optimizer.state_dict(),
        }
        torch.save(content, buffer)
        return buffer.getvalue()

    def restore(self, state: bytes) -> None:
        content: dict[str, Any] = torch.load(io.BytesIO(state), map_location=self.device, weights_only=True)
        if content["key"] != self.key:
            raise TrainingError(
                "the saved state belongs to another fit (configuration, seed or measurements differ); "
                "start this member without it"
            )
        self.history = [EpochRecord(**record) for record in content["history"]]
        self.best_epoch, self.best = content["best_epoch"], content["best"]
        self.model.load_state_dict(content["model"], strict=False)
        self.optimizer.load_state_dict(content["optimizer"])

    def best_state(self) -> State:
        self.model.load_state_dict(self.best, strict=False)
        return {name: tensor.detach().cpu().contiguous() for name, tensor in self.model.state_dict().items()}

    def _train(self, epoch: int) -> float:
        seed = derive_seed(self.seed, epoch)
        torch.manual_seed(seed)  # dropout; the global state is put back by reproducible()
        generator = make_generator(seed, self.device)
        n = len(self.z_train_N)
        order_V = torch.randperm(n * self.data.n_visits, generator=make_generator(seed, torch.device("cpu")))
        self.model.train()
        # Summed on the device: reading the loss after each step would make a GPU wait for the host.
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        n_steps = math.ceil(len(order_V) / self.fit.batch_size)
        for step, picks_B in enumerate(torch.split(order_V, self.fit.batch_size)):
            progress = (epoch + step / n_steps) / self.fit.epochs
            self.optimizer.param_groups[0]["lr"] = cosine_learning_rate(progress, self.fit.learning_rate)
            index_B = picks_B % n
            mu_B, sigma_B = self.data.predict_train(self.model, picks_B // n, index_B, generator)
            loss = beta_nll(mu_B, sigma_B, self.z_train_N[index_B], beta=self.fit.beta_nll)
            self.optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(self.optimizer.param_groups[0]["params"], self.fit.clip_norm)
            self.optimizer.step()
            # The history holds likelihoods whatever the loss, so that runs can be compared.
            nll = gaussian_nll(mu_B.detach(), sigma_B.detach(), self.z_train_N[index_B]) if self.fit.beta_nll else loss
            total += nll.detach().double() * len(picks_B)
        return float(total) / len(order_V)

    def tune_range(self) -> float:
        """Largest less smallest mean over the tune split, as the network now is, in standardised units."""
        self.model.eval()
        starts, size = range(0, len(self.z_tune_N), self.fit.batch_size), self.fit.batch_size
        with torch.inference_mode():
            mu_N = torch.cat([self.data.predict_tune(self.model, slice(at, at + size))[0] for at in starts])
        return float(mu_N.max() - mu_N.min())

    def _tune(self) -> float:
        self.model.eval()
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        with torch.inference_mode():
            for start in range(0, len(self.z_tune_N), self.fit.batch_size):
                rows = slice(start, start + self.fit.batch_size)
                mu_B, sigma_B = self.data.predict_tune(self.model, rows)
                total += gaussian_nll(mu_B, sigma_B, self.z_tune_N[rows]).double() * len(mu_B)
        return float(total) / len(self.z_tune_N)

    def _moving_state(self) -> State:
        """All tensors but those of convolutions that are frozen whole: the configuration gives these again."""
        state: State = self.model.state_dict()
        if any(parameter.requires_grad for parameter in self.model.backbone.parameters()):
            return state
        return {name: tensor for name, tensor in state.items() if not name.startswith("backbone.")}


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
    return _PictureData(x_train_NHW, x_tune_NHW, config, device, fit.precision)


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

"""The training loop of every fit: epochs, learning rate, early stopping, and states to resume from.

What is learned is a :class:`Lesson`'s business. All randomness of an epoch comes from (seed, epoch), so a fit that
resumes from a snapshot is equal, bit for bit on a CPU, to one that was never interrupted.
Shapes: N pictures, B of one batch, V visits of one epoch, T targets, F pooled features.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import nn

from sarc_ray.errors import TrainingError
from sarc_ray.stage1.augment import augment
from sarc_ray.stage1.network import GaussianNetwork, normalise
from sarc_ray.stage1.runtime import Pictures, derive_seed, make_generator, to_grey
from sarc_ray.stage1.settings import AugmentConfig

if TYPE_CHECKING:  # which imports this module
    from sarc_ray.stage1.settings import FitConfig

State = dict[str, torch.Tensor]
# Part of the names of all tensors of the convolutions.
_BACKBONE = "backbone."


@dataclass(frozen=True, kw_only=True, slots=True)
class EpochRecord:
    """One line of a history; in nats per picture, standardised target units: the mean negative log-likelihood.

    Where one network learns several targets, the sum over these; of a distilled network its own loss
    (:func:`sarc_ray.stage1.distillation.distillation_loss`).
    """

    epoch: int
    learning_rate: float
    train_nll: float
    tune_nll: float


# Called after every epoch; the second argument makes the bytes to resume from, when and if they are wanted.
OnEpoch = Callable[[EpochRecord, Callable[[], bytes]], None]


class Lesson(Protocol):
    """What is learned, and what errors cost.

    Attributes:
        n_train: N of the training pictures.
        n_visits: how often an epoch visits each of them.
        n_tune: pictures of the tune split.
    """

    n_train: int
    n_visits: int
    n_tune: int

    def learn(
        self, visit_B: torch.Tensor, index_B: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss to minimise, and the one to record: scalars, means over a batch of training pictures."""

    def judge(self, rows: slice) -> torch.Tensor:
        """What these rows of the tune split add to the sum that is recorded as a mean over ``n_tune``."""

    def means(self, rows: slice) -> torch.Tensor:
        """Predicted means of rows of the tune split, shape (T, B)."""


class PictureBatches:
    """Pooled features of batches of pictures, those for training varied at random."""

    def __init__(
        self, x_train_NHW: Pictures, x_tune_NHW: Pictures, config: AugmentConfig, device: torch.device, precision: str
    ) -> None:
        self.x_train_NHW, self.x_tune_NHW = x_train_NHW, x_tune_NHW
        self.config, self.device, self.mixed = config, device, precision == "bfloat16"
        self.n_visits = max(1, config.copies)

    def train_features(self, model: GaussianNetwork, index_B: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Shape (B, F), by the convolutions of ``model``."""
        x_B1HW = to_grey(self.x_train_NHW[index_B.numpy()], self.device)
        if self.config.copies:
            x_B1HW = augment(x_B1HW, self.config, generator=generator)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed):
            features_BF = model.pool(model.feature_maps(normalise(x_B1HW)))
        return features_BF.float()

    def tune_features(self, model: GaussianNetwork, rows: slice) -> torch.Tensor:
        """Shape (B, F), of pictures as they are."""
        return model.pool(model.feature_maps(normalise(to_grey(self.x_tune_NHW[rows], self.device))))


def cosine_learning_rate(progress: float, peak: float) -> float:
    """Learning rate at a fraction ``progress`` (0 to 1) of training: half a cosine from ``peak`` to 0.

    Example:
        >>> cosine_learning_rate(0.5, 0.2)
        0.1
    """
    return 0.5 * peak * (1.0 + math.cos(math.pi * progress))


def seed_of_state(state: bytes) -> int:
    """The seed of the fit that wrote a ``snapshot``."""
    return int(torch.load(io.BytesIO(state), map_location="cpu", weights_only=True)["seed"])


class Training:
    """The moving parts of a fit: networks, optimiser, history and the best state so far."""

    def __init__(self, model: nn.Module, lesson: Lesson, fit: FitConfig, *, seed: int, key: str) -> None:
        self.model, self.lesson, self.fit, self.seed, self.key = model, lesson, fit, seed, key
        self.device = next(model.parameters()).device
        named = [(name, tensor) for name, tensor in model.named_parameters() if tensor.requires_grad]
        self.backbone_learns = any(_BACKBONE in name for name, _ in named)
        parameters = [tensor for _, tensor in named]
        self.optimizer = torch.optim.AdamW(parameters, lr=fit.learning_rate, weight_decay=fit.weight_decay)
        self.history: list[EpochRecord] = []
        self.best_epoch = -1
        self.best: State = {}

    def run(self, on_epoch: OnEpoch | None = None) -> State:
        """Train from where the history ends, and return all tensors of the best epoch, on the CPU.

        Raises:
            TrainingError: a loss is no longer finite.
        """
        while not self._finished():
            record = self._advance()
            if on_epoch is not None:
                on_epoch(record, self.snapshot)
        self.model.load_state_dict(self.best, strict=False)
        return {name: tensor.detach().cpu().contiguous() for name, tensor in self.model.state_dict().items()}

    def tune_ranges(self) -> list[float]:
        """By target, largest less smallest mean over the tune split, as the network now is, in standardised units."""
        self.model.eval()
        with torch.inference_mode():
            mu_TN = torch.cat([self.lesson.means(rows) for rows in self._tune_batches()], dim=1)
        return [float(mu_N.max() - mu_N.min()) for mu_N in mu_TN]

    def snapshot(self) -> bytes:
        """All that is needed to go on later, or elsewhere."""
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
        """Go on from a ``snapshot``.

        Raises:
            TrainingError: of another fit.
        """
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

    def _finished(self) -> bool:
        n_done = len(self.history)
        return n_done >= self.fit.epochs or (n_done > 0 and n_done - 1 - self.best_epoch >= self.fit.patience)

    def _advance(self) -> EpochRecord:
        epoch = len(self.history)
        learning_rate = cosine_learning_rate(epoch / self.fit.epochs, self.fit.learning_rate)
        record = EpochRecord(
            epoch=epoch, learning_rate=learning_rate, train_nll=self._train(epoch), tune_nll=self._tune()
        )
        for name, nll in (("training", record.train_nll), ("tune", record.tune_nll)):
            if not math.isfinite(nll):
                remedy = f"lower its learning_rate (found {self.fit.learning_rate:g})"
                raise TrainingError(f"epoch {epoch}: the {name} NLL is {nll}; {remedy}")
        self.history.append(record)
        if self.best_epoch < 0 or record.tune_nll < self.history[self.best_epoch].tune_nll:
            self.best_epoch = epoch
            self.best = {name: tensor.detach().clone() for name, tensor in self._moving_state().items()}
        return record

    def _train(self, epoch: int) -> float:
        seed = derive_seed(self.seed, epoch)
        torch.manual_seed(seed)  # dropout; the global state is put back by reproducible()
        generator = make_generator(seed, self.device)
        n = self.lesson.n_train
        order_V = torch.randperm(n * self.lesson.n_visits, generator=make_generator(seed, torch.device("cpu")))
        self.model.train()
        # Summed on the device: reading the loss after each step would make a GPU wait for the host.
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        n_steps = math.ceil(len(order_V) / self.fit.batch_size)
        for step, picks_B in enumerate(torch.split(order_V, self.fit.batch_size)):
            progress = (epoch + step / n_steps) / self.fit.epochs
            self.optimizer.param_groups[0]["lr"] = cosine_learning_rate(progress, self.fit.learning_rate)
            loss, told = self.lesson.learn(picks_B // n, picks_B % n, generator)
            self.optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(self.optimizer.param_groups[0]["params"], self.fit.clip_norm)
            self.optimizer.step()
            total += told.detach().double() * len(picks_B)
        return float(total) / len(order_V)

    def _tune(self) -> float:
        self.model.eval()
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        with torch.inference_mode():
            for rows in self._tune_batches():
                total += self.lesson.judge(rows).double()
        return float(total) / self.lesson.n_tune

    def _tune_batches(self) -> list[slice]:
        size = self.fit.batch_size
        return [slice(at, min(at + size, self.lesson.n_tune)) for at in range(0, self.lesson.n_tune, size)]

    def _moving_state(self) -> State:
        """All tensors but those of convolutions that are frozen whole: the configuration gives these again."""
        state: State = self.model.state_dict()
        if self.backbone_learns:
            return state
        return {name: tensor for name, tensor in state.items() if _BACKBONE not in name}

"""Teach the judge of the gate: ``python -m sarc_ray.judging.train MANIFEST WEIGHTS``.

MANIFEST is a manifest with a column ``split``; rows of ``train`` are learned from, rows of ``tune`` choose the epoch.
WEIGHTS is where the safetensors file goes. The hash that :mod:`sarc_ray.imaging.judge` asks for is logged.

Shape suffixes: B pictures of a batch, C channels, H and W rows and columns, K classes.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.numpy import save
from torch import Tensor, nn

from sarc_ray.imaging.judge import CLASSES, SIZE_PX, STRIDES, standardise
from sarc_ray.judging.pictures import POSES, as_taken, in_pose, label_of
from sarc_ray.judging.sources import KINDS, Field, not_a_chest, phantoms, photographs, read_split

logger = logging.getLogger(__name__)

_CHANNELS = (16, 32, 48, 64, 64)
_HIDDEN = 64
# Share of each class in an epoch: an upright chest is what the judge must never refuse.
_POSE_SHARES = {"upright": 0.36, "inverted": 0.08, "turned_90": 0.05, "turned_180": 0.06, "turned_270": 0.05}
_OTHER_POSE_SHARE = 0.02
_PHANTOM_SHARE = 0.25
_BATCH = 128
# The highest learning rate is reached after a tenth of the steps.
_LEARNING_RATE, _WEIGHT_DECAY, _WARM_UP = 2e-3, 1e-2, 0.1
_LABEL_SMOOTHING = 0.02
# The weights that are kept are a running mean over steps.
_EMA = 0.99


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """How long to learn, and from how much.

    Args:
        epochs: of ``pictures`` each, drawn anew.
        pictures: per epoch; a third as many, drawn once, choose the epoch.
        phantoms: different phantoms; half as many others choose the epoch.
        seed: of everything.
    """

    epochs: int
    pictures: int
    phantoms: int
    seed: int


class Network(nn.Module):
    """The judge while it learns; batch normalisation is folded into the convolutions when it is written."""

    def __init__(self) -> None:
        super().__init__()
        sizes = (1, *_CHANNELS)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(sizes[k], sizes[k + 1], 3, stride, padding=1, bias=False) for k, stride in enumerate(STRIDES)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for channels in _CHANNELS)
        side = SIZE_PX // int(np.prod(STRIDES))
        self.layers = nn.ModuleList([nn.Linear(_CHANNELS[-1] * side**2, _HIDDEN), nn.Linear(_HIDDEN, len(CLASSES))])
        self.dropout = nn.Dropout(0.3)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Logits, shape (B, K)."""
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x_BCHW = torch.relu(norm(convolution(x_BCHW)))
        hidden = torch.relu(self.layers[0](self.dropout(x_BCHW.flatten(1))))
        logits: Tensor = self.layers[1](self.dropout(hidden))
        return logits


def make_epoch(
    chests: Field, phantoms_: Field, photographs_: list[Field], *, pictures: int, rng: np.random.Generator
) -> tuple[Field, npt.NDArray[np.int64]]:
    """One epoch's pictures, standardised, shape (pictures, 1, 64, 64), and their classes."""
    shares = [_POSE_SHARES.get(pose, _OTHER_POSE_SHARE) for pose in POSES]
    names = rng.choice([*POSES, "not_a_chest"], size=pictures, p=[*shares, 1 - sum(shares)])
    x_BCHW = np.empty((pictures, 1, SIZE_PX, SIZE_PX), np.float32)
    for row, name in enumerate(names):
        pool = phantoms_ if rng.random() < _PHANTOM_SHARE else chests
        chest_SS = as_taken(pool[rng.integers(len(pool))], rng)
        if name == "not_a_chest":
            picture = not_a_chest(str(rng.choice(KINDS)), chest_SS, photographs_, rng)
            picture = 1 - picture if rng.random() < 0.2 else picture
        else:
            picture = in_pose(chest_SS, str(name))
        x_BCHW[row, 0] = standardise(np.ascontiguousarray(picture, dtype=np.float32))
    return x_BCHW, np.array([label_of(str(name)) for name in names])


def train(manifest_uri: str, recipe: Recipe) -> bytes:
    """Learn from a manifest's radiographs and from phantoms.

    Returns:
        The weights of the epoch that did best on the rows of ``tune``, as a safetensors file.
    """
    torch.manual_seed(recipe.seed)
    chests, tune = (read_split(manifest_uri, split).pictures_NSS for split in ("train", "tune"))
    phantoms_, photographs_ = phantoms(recipe.phantoms, seed=recipe.seed), photographs()
    tune_set = make_epoch(
        tune,
        phantoms(max(recipe.phantoms // 2, 1), seed=recipe.seed + 1),
        photographs_,
        pictures=recipe.pictures // 3,
        rng=np.random.default_rng(recipe.seed),
    )
    network = Network()
    average = copy.deepcopy(network)
    optimiser = torch.optim.AdamW(network.parameters(), lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
    steps = recipe.epochs * (recipe.pictures // _BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _LEARNING_RATE, total_steps=steps, pct_start=_WARM_UP)
    best, best_loss = b"", float("inf")
    for epoch in range(recipe.epochs):
        rng = np.random.default_rng([recipe.seed, epoch])
        x, y = make_epoch(chests, phantoms_, photographs_, pictures=recipe.pictures, rng=rng)
        for start in range(0, recipe.pictures - _BATCH + 1, _BATCH):
            rows = slice(start, start + _BATCH)
            _step(network, optimiser, torch.from_numpy(x[rows]), torch.from_numpy(y[rows]))
            schedule.step()
            _follow(average, network)
        loss, accuracy = _evaluate(average, *tune_set)
        logger.info("epoch %d: tune loss %.4f, accuracy %.4f", epoch, loss, accuracy)
        if loss < best_loss:
            best, best_loss = to_bytes(average), loss
    return best


def _step(network: Network, optimiser: torch.optim.Optimizer, x_BCHW: Tensor, y_B: Tensor) -> None:
    network.train()
    loss = nn.functional.cross_entropy(network(x_BCHW), y_B, label_smoothing=_LABEL_SMOOTHING)
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()


def _follow(average: Network, network: Network) -> None:
    with torch.no_grad():
        for mine, theirs in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
            if mine.dtype.is_floating_point:
                mine.lerp_(theirs, 1 - _EMA)


def _evaluate(network: Network, x_BCHW: Field, y_B: npt.NDArray[np.int64]) -> tuple[float, float]:
    network.eval()
    with torch.no_grad():
        logits = network(torch.from_numpy(x_BCHW))
        loss = nn.functional.cross_entropy(logits, torch.from_numpy(y_B))
    return float(loss), float((logits.argmax(dim=1).numpy() == y_B).mean())


def to_bytes(network: Network) -> bytes:
    """The judge's file: half precision, batch normalisation folded in; equal weights give equal bytes."""
    tensors: dict[str, npt.NDArray[np.float16]] = {}
    for k, (convolution, norm) in enumerate(zip(network.convolutions, network.norms, strict=True)):
        assert isinstance(convolution, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        tensors[f"convolution{k}.weight"] = _half(convolution.weight * factor[:, None, None, None])
        tensors[f"convolution{k}.bias"] = _half(norm.bias - norm.running_mean * factor)
    for k, layer in enumerate(network.layers):
        assert isinstance(layer, nn.Linear)
        tensors[f"layer{k}.weight"], tensors[f"layer{k}.bias"] = _half(layer.weight), _half(layer.bias)
    return save(tensors)


def _half(tensor: Tensor) -> npt.NDArray[np.float16]:
    return np.ascontiguousarray(tensor.detach().numpy().astype(np.float16))


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest")
    parser.add_argument("weights", type=Path)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--pictures", type=int, default=6144)
    parser.add_argument("--phantoms", type=int, default=400)
    parser.add_argument("--seed", type=int, default=2023)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(options.threads)
    recipe = Recipe(epochs=options.epochs, pictures=options.pictures, phantoms=options.phantoms, seed=options.seed)
    data = train(options.manifest, recipe)
    options.weights.write_bytes(data)
    logger.info("%s: %d bytes, sha256 %s", options.weights, len(data), hashlib.sha256(data).hexdigest())


if __name__ == "__main__":
    main()

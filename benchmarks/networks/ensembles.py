"""Ensembles to time: architecture and size of a preset, weights drawn at random, which costs as much as learned ones.

Shape suffixes: N pictures, S rows and columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from sarc_ray.config import from_mapping, load_preset
from sarc_ray.stage1.checkpoint import LoadedMember, member_to_bytes, members_from_bytes
from sarc_ray.stage1.fit import TrainedMember
from sarc_ray.stage1.loop import EpochRecord
from sarc_ray.stage1.network import GaussianNetwork, build_network, empty_network
from sarc_ray.stage1.scale import TargetScale
from sarc_ray.stage1.settings import NetworkConfig

# A new member's outputs hardly depend on its picture; scaled up, they do, so that comparing answers means something.
_OUTPUT_GAIN = 30.0
_UNIT_SCALE = TargetScale(transform="identity", mean=0.0, sd=1.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Ensemble:
    """The same members twice: as a bundle loads them, and as plain networks."""

    ours: tuple[LoadedMember, ...]
    plain: list[nn.Module]
    size_px: int
    batch_size: int


def draw_pictures(n: int, size_px: int, *, seed: int) -> np.ndarray:
    """Smooth grey pictures, uint8 (N, S, S)."""
    rng = np.random.default_rng(seed)
    coarse_NSS = torch.from_numpy(rng.random((n, 1, 8, 8), dtype=np.float32))
    fine_NSS = nn.functional.interpolate(coarse_NSS, size=(size_px, size_px), mode="bicubic", align_corners=False)
    return (fine_NSS[:, 0].clamp(0, 1) * 255).to(torch.uint8).numpy()


def build(preset_name: str, *, n_members: int, frozen: bool, seed: int, **changes: Any) -> Ensemble:
    """Members of a preset; ``frozen`` gives them all the same convolutions, as ``trainable: head`` does."""
    preset = load_preset(preset_name)
    config = from_mapping(
        NetworkConfig,
        preset["network"] | {"weights": "random", "trainable": "head" if frozen else "all"} | changes,
    )
    size_px = preset["preprocess"]["size_px"]
    first = build_network(config, seed=seed)
    _settle(first, size_px, seed=seed)
    states = [_redrawn(first, seed=seed + number, frozen=frozen) for number in range(n_members)]
    trained = [_member(config, size_px, state) for state in states]
    files = [member_to_bytes(member) for member in trained]
    return Ensemble(
        ours=members_from_bytes(files),
        plain=[_plain(member) for member in trained],
        size_px=size_px,
        batch_size=preset["fit"]["batch_size"],
    )


def _settle(network: GaussianNetwork, size_px: int, *, seed: int) -> None:
    """Let batch normalisations see pictures, and give the outputs a size."""
    x_BCHW = torch.from_numpy(draw_pictures(8, size_px, seed=seed)).float().div(255).unsqueeze(1).repeat(1, 3, 1, 1)
    if any(isinstance(layer, nn.BatchNorm2d) for layer in network.modules()):
        network.train()
        with torch.no_grad():
            for _ in range(20):
                network(x_BCHW)
    if network.frozen_features:
        with torch.inference_mode():
            features_BF = network.eval().pool(network.feature_maps(x_BCHW))
        network.standardise_features(features_BF.clone())


def _redrawn(network: GaussianNetwork, *, seed: int, frozen: bool) -> dict[str, torch.Tensor]:
    """The network's tensors, its weights varied by a tenth of their spread; frozen convolutions as they are."""
    generator = torch.Generator().manual_seed(seed)
    learned = {name for name, _ in network.named_parameters() if not (frozen and name.startswith("backbone."))}
    last = [name for name, _ in network.named_parameters() if name.startswith("head.")][-2]
    state = {}
    for name, tensor in network.state_dict().items():
        state[name] = tensor.detach().clone()
        if name in learned and tensor.dim() > 1:
            state[name] += 0.1 * tensor.std() * torch.randn(tensor.shape, generator=generator)
        if name == last:
            state[name] *= _OUTPUT_GAIN
    return state


def _member(config: NetworkConfig, size_px: int, state: dict[str, torch.Tensor]) -> TrainedMember:
    return TrainedMember(
        target_name="alm_kg",
        network=config,
        scale=_UNIT_SCALE,
        image_size_px=(size_px, size_px),
        seed=0,
        best_epoch=0,
        best_tune_nll=0.0,
        history=(EpochRecord(epoch=0, learning_rate=0.0, train_nll=0.0, tune_nll=0.0),),
        state={name: tensor.contiguous() for name, tensor in state.items()},
    )


def _plain(member: TrainedMember) -> nn.Module:
    """The network as it was trained: layers one after the other, memory in PyTorch's usual order."""
    network = empty_network(member.network)
    network.load_state_dict(member.state, assign=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return network.to(device, memory_format=torch.contiguous_format).eval()

"""Folded networks answer as the layers one after the other."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from sarc_ray.stage1.folding import fold_batch_norm
from sarc_ray.stage1.network import build_network
from sarc_ray.stage1.settings import NetworkConfig
from tests.stage1.toy import NETWORK


def with_statistics(backbone: str, **changes) -> nn.Module:
    """A network whose normalisations have seen pictures, so that they do something."""
    network = build_network(NetworkConfig(**(NETWORK | {"backbone": backbone} | changes)), seed=3)
    network.train()
    with torch.no_grad():
        for seed in range(3):
            network(2.0 + 3.0 * torch.randn(8, 3, 64, 64, generator=torch.Generator().manual_seed(seed)))
    return network.eval()


@pytest.mark.parametrize(
    ("backbone", "changes", "left"),
    [
        ("compact", {}, 0),
        ("compact", {"feature_blocks": (2, 4), "pooling_grid": 2}, 0),
        ("mobilenet_v2", {}, 0),
        ("densenet121", {}, 120),  # most of its normalisations stand before a convolution
        ("vgg11", {}, 0),  # has none
    ],
)
def test_folding_changes_no_more_than_rounding(backbone, changes, left):
    network = with_statistics(backbone, **changes)
    folded = copy.deepcopy(network)
    fold_batch_norm(folded)
    x_BCHW = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(9))
    with torch.inference_mode():
        for before, after in zip(network(x_BCHW), folded(x_BCHW), strict=True):
            torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5)
    assert sum(isinstance(module, nn.BatchNorm2d) for module in folded.modules()) == left
    assert len(folded.backbone) == len(network.backbone)


def test_the_network_that_was_folded_from_is_as_it_was():
    network = with_statistics("compact")
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    folded = copy.copy(network)
    folded._modules = {**network._modules, "backbone": copy.copy(network.backbone)}
    folded.backbone._modules = dict(network.backbone._modules)
    fold_batch_norm(folded)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())

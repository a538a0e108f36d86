"""Heat maps: where in the picture a prediction comes from, and how far the ensemble's members agree on that.

Shapes: M members, N pictures, B of one batch, C channels, H rows, W columns; h, w of a feature map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from sarc_ray.stage1.checkpoint import LoadedMember
from sarc_ray.stage1.network import GaussianNetwork, normalise
from sarc_ray.stage1.runtime import ByteArray, check_pictures, pick_device, reproducible, to_grey

# Cells a side that a map must have. Selvaraju et al. read VGG16's last convolution, 14 x 14 cells of a picture of 224
# pixels; a map of 6 x 6 cells, each of which sees three quarters of the picture, cannot point at a chest wall.
MIN_CELLS = 14


@dataclass(frozen=True, kw_only=True, slots=True)
class HeatMaps:
    """What an ensemble looks at, picture by picture.

    Args:
        mean_NHW: mean over the members' maps, float32 in [0, 1]; each was divided by its own maximum.
        disagreement_NHW: standard deviation of the members' maps (ddof 0), float32 in [0, 0.5].
    """

    mean_NHW: npt.NDArray[np.float32]
    disagreement_NHW: npt.NDArray[np.float32]


def grad_cam(
    members: Sequence[LoadedMember],
    x_NHW: ByteArray,
    *,
    batch_size: int = 16,
    device: str = "auto",
    threads: int = 1,
) -> HeatMaps:
    """Heat maps of the regions that move the predicted mean, over the members of one target.

    Each cell of a feature map (:func:`map_layer` says which) counts with the sum over channels of activation times
    gradient of mu, and the cells are enlarged to the picture. Where that map is averaged as a whole by the pooling,
    as in the paper's network, this is Grad-CAM to the letter: its gradient is the same in all cells. In an earlier map
    it is not, and Grad-CAM's average of it over the map would mix what raises mu in one place with what lowers it in
    another; HiResCAM keeps each cell's own gradient.

    Grad-CAM of a class drops what is negative, as evidence for another class. A measurement has no other class: thin
    muscle lowers mu as thick muscle raises it, so the absolute value is kept. Gradients are those of mu on the scale
    on which the network learned (the logarithm, for a target with ``transform: log``).

    Args:
        members: of one target.
        x_NHW: uint8 pictures.
        batch_size: pictures at once.
        device: auto, cpu or cuda.
        threads: of torch on the CPU.

    Returns:
        The maps; one that has no signal at all is zero. The disagreement of a single member is zero.

    Raises:
        ValueError: no member, or no 8-bit pictures.

    References:
        Selvaraju RR et al. Grad-CAM: visual explanations from deep networks via gradient-based localization. ICCV 2017,
        section 3 (the map) and 3.2 (the sign).
        Draelos RL, Carin L. Use HiResCAM instead of Grad-CAM for faithful explanations. arXiv 2011.08891, 2020.
    """
    check_pictures(x_NHW, "x_NHW")
    if not members:
        raise ValueError("members: none given; at least one is needed")
    where = pick_device(device)
    heat_MNHW = np.zeros((len(members), *x_NHW.shape), dtype=np.float32)
    with reproducible(threads=threads, device=where):
        for heat_NHW, member in zip(heat_MNHW, members, strict=True):
            network = member.network.to(where)
            layer = map_layer(network, (x_NHW.shape[1], x_NHW.shape[2]))
            for start in range(0, len(x_NHW), batch_size):
                rows = slice(start, start + batch_size)
                x_BCHW = normalise(to_grey(x_NHW[rows], where))
                heat_NHW[rows] = _heat(network, x_BCHW, layer).cpu().numpy()
    return HeatMaps(mean_NHW=heat_MNHW.mean(axis=0), disagreement_NHW=heat_MNHW.std(axis=0))


def map_layer(network: GaussianNetwork, shape_HW: tuple[int, int]) -> int:
    """Index of the layer whose output is mapped: the deepest with at least :data:`MIN_CELLS` cells a side.

    Deep maps know more, shallow ones know better where. With pictures of 224 pixels the choice falls on VGG16's last
    convolution, as in Grad-CAM's own paper, and on the last maps of 14 x 14 of densenet and its like; in ``compact``,
    which halves a picture four times, on the second block at 64 and 96 pixels and on the third at 128. It never lies
    behind the first map that is pooled: what reaches the head by an earlier map would be left out. Where no map is as
    fine, the finest is taken.
    """
    first_pooled = min(network.pooled_layers)
    device = next(network.parameters()).device
    hidden = normalise(torch.zeros(1, 1, *shape_HW, device=device))
    n_cells = []
    with torch.no_grad():
        for part in network.backbone[: first_pooled + 1]:
            hidden = part(hidden)
            n_cells.append(min(hidden.shape[2:]))
    needed = min(MIN_CELLS, max(n_cells))
    return max(index for index, n in enumerate(n_cells) if n >= needed)


def _heat(network: GaussianNetwork, x_BCHW: torch.Tensor, layer: int) -> torch.Tensor:
    """Absolute contribution of each place to mu, each picture's divided by its maximum; shape (B, H, W)."""
    with torch.no_grad():
        map_BChw = network.backbone[: layer + 1](x_BCHW)
    map_BChw = map_BChw.detach().requires_grad_()
    # A copy goes on: layers that work in place must not write into the map whose gradient is asked for.
    hidden, pooled = map_BChw.clone(), []
    for index in range(layer, max(network.pooled_layers) + 1):
        hidden = hidden if index == layer else network.backbone[index](hidden)
        if index in network.pooled_layers:
            pooled.append(hidden)
    mu_B, _ = network.predict(network.pool(pooled))
    (gradient_BChw,) = torch.autograd.grad(mu_B.sum(), map_BChw)
    moved_B1hw = (gradient_BChw * map_BChw.detach()).sum(dim=1, keepdim=True).abs()
    heat_BHW = functional.interpolate(moved_B1hw, x_BCHW.shape[2:], mode="bilinear", align_corners=False)[:, 0]
    top_B11 = heat_BHW.amax(dim=(1, 2), keepdim=True)
    return torch.where(top_B11 > 0.0, heat_BHW / top_B11.clamp_min(torch.finfo(heat_BHW.dtype).tiny), 0.0)

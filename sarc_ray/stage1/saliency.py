"""Grad-CAM: where in the picture a prediction comes from.

Shapes: M members, N pictures, B of one batch, C channels, H rows, W columns; h, w of a feature map.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from sarc_ray.stage1.checkpoint import LoadedMember
from sarc_ray.stage1.network import GaussianNetwork, normalise
from sarc_ray.stage1.runtime import ByteArray, check_pictures, pick_device, reproducible, to_grey


def grad_cam(
    members: Sequence[LoadedMember],
    x_NHW: ByteArray,
    *,
    batch_size: int = 16,
    device: str = "auto",
    threads: int = 1,
) -> npt.NDArray[np.float32]:
    """Heat maps of the regions that move the predicted mean, averaged over the members of one target.

    Each channel of the last feature map is weighted by the mean gradient of mu with respect to it; the weighted sum
    is enlarged to the picture. For a class score Grad-CAM keeps what raises it; a measurement is moved both ways (thin
    muscle lowers it), so the absolute value is kept. Where several blocks are pooled their sums are added first.

    Args:
        members: of one target.
        x_NHW: uint8 pictures.
        batch_size: pictures at once.
        device: auto, cpu or cuda.
        threads: of torch on the CPU.

    Returns:
        Shape (N, H, W), float32 in [0, 1]; each member's map is scaled to its own maximum first, a map without
        any signal is all zero.

    Raises:
        ValueError: no member, or no 8-bit pictures.

    References:
        Selvaraju RR et al. Grad-CAM: visual explanations from deep networks via gradient-based localization. ICCV 2017.
    """
    check_pictures(x_NHW, "x_NHW")
    if not members:
        raise ValueError("members: none given; at least one is needed")
    where = pick_device(device)
    heat_NHW = np.zeros(x_NHW.shape, dtype=np.float32)
    with reproducible(threads=threads, device=where):
        for member in members:
            network = member.network.to(where)
            for start in range(0, len(x_NHW), batch_size):
                rows = slice(start, start + batch_size)
                heat_NHW[rows] += _heat(network, normalise(to_grey(x_NHW[rows], where))).cpu().numpy()
    return heat_NHW / np.float32(len(members))


def _heat(network: GaussianNetwork, x_BCHW: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        maps = network.feature_maps(x_BCHW)
    # Cut off from the convolutions, so that an early block's gradient is not also the later blocks'.
    maps = [map_BChw.detach().requires_grad_() for map_BChw in maps]
    mu_B, _ = network.predict(network.pool(maps))
    gradients = torch.autograd.grad(mu_B.sum(), maps)
    heat_B1HW = torch.zeros_like(x_BCHW[:, :1])
    for map_BChw, gradient_BChw in zip(maps, gradients, strict=True):
        # Sum, not mean: averaging divides a gradient by the map's size, and blocks of any size should weigh alike.
        weight_BCgg = functional.adaptive_avg_pool2d(gradient_BChw, network.grid) * gradient_BChw[0, 0].numel()
        weight_BChw = functional.interpolate(weight_BCgg, map_BChw.shape[2:], mode="nearest")
        cam_B1hw = (weight_BChw * map_BChw.detach()).sum(dim=1, keepdim=True)
        heat_B1HW += functional.interpolate(cam_B1hw, x_BCHW.shape[2:], mode="bilinear", align_corners=False)
    heat_BHW = heat_B1HW[:, 0].abs()
    top_B11 = heat_BHW.amax(dim=(1, 2), keepdim=True)
    return torch.where(top_B11 > 0.0, heat_BHW / top_B11.clamp_min(torch.finfo(heat_BHW.dtype).tiny), 0.0)

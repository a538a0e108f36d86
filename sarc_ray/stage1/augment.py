"""Random variations of training pictures: one affine warp and one change of brightness per picture.

The paper's list (Ryu et al. 2023, Step 1) is "random shift, rotation, horizontal flip, zoom, brightness and
random multiplication five times". The whole batch is varied at once, on the device where it lies.
Shapes: B pictures, C channels, H rows, W columns; T = 2 x 3 entries of an affine map.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional

from sarc_ray.stage1.settings import AugmentConfig


def augment(x_BCHW: torch.Tensor, config: AugmentConfig, *, generator: torch.Generator) -> torch.Tensor:
    """Vary each picture of a batch at random.

    Args:
        x_BCHW: grey levels in [0, 1], float.
        config: the sizes of the variations.
        generator: source of randomness, on the device of ``x_BCHW``.

    Returns:
        Pictures of the same shape, in [0, 1]. What a warp draws in from outside repeats the nearest edge pixel.
    """
    n_pictures = x_BCHW.shape[0]
    # One draw of fixed width, whatever is switched on: turning one variation off leaves the others as they were.
    u_BK = 2.0 * torch.rand(n_pictures, 7, generator=generator, device=x_BCHW.device) - 1.0
    if _warps(config):
        grid_BHWT = functional.affine_grid(_affine_maps(u_BK, config), list(x_BCHW.shape), align_corners=False)
        x_BCHW = functional.grid_sample(
            x_BCHW, grid_BHWT.to(x_BCHW.dtype), mode="bilinear", padding_mode="border", align_corners=False
        )
    gain_B = 1.0 + config.multiply_fraction * u_BK[:, 5]
    offset_B = config.brightness_fraction * u_BK[:, 6]
    return (x_BCHW * gain_B[:, None, None, None] + offset_B[:, None, None, None]).clamp(0.0, 1.0)


def _warps(config: AugmentConfig) -> bool:
    return config.horizontal_flip or any((config.shift_fraction, config.rotation_degrees, config.zoom_fraction))


def _affine_maps(u_BK: torch.Tensor, config: AugmentConfig) -> torch.Tensor:
    """Affine maps from output to input coordinates, where the picture spans -1 to 1 on both axes."""
    angle_B = math.radians(config.rotation_degrees) * u_BK[:, 0]
    scale_B = 1.0 / (1.0 + config.zoom_fraction * u_BK[:, 1])
    mirror_B = torch.where(u_BK[:, 2] < 0.0, -1.0, 1.0) if config.horizontal_flip else torch.ones_like(angle_B)
    # The side is two units long, so a shift by a fraction f of it is 2 f units.
    shift_B2 = 2.0 * config.shift_fraction * u_BK[:, 3:5]
    cos_B, sin_B = scale_B * torch.cos(angle_B), scale_B * torch.sin(angle_B)
    row_x_B3 = torch.stack([mirror_B * cos_B, -mirror_B * sin_B, shift_B2[:, 0]], dim=1)
    row_y_B3 = torch.stack([sin_B, cos_B, shift_B2[:, 1]], dim=1)
    return torch.stack([row_x_B3, row_y_B3], dim=1)

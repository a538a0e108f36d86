from __future__ import annotations

import pytest
import torch

from sarc_ray.stage1.augment import augment
from sarc_ray.stage1.settings import AugmentConfig
from tests.stage1.toy import AUGMENT

NOTHING = {name: (False if name == "horizontal_flip" else 0 if name == "copies" else 0.0) for name in AUGMENT}


def vary(x_BCHW: torch.Tensor, *, seed: int = 0, **changes: object) -> torch.Tensor:
    config = AugmentConfig(**(NOTHING | changes))
    return augment(x_BCHW, config, generator=torch.Generator().manual_seed(seed))


def a_picture() -> torch.Tensor:
    x = torch.zeros(1, 1, 40, 40)
    x[..., 10:14, 6:10] = 0.5
    return x


def centre(x_HW: torch.Tensor) -> torch.Tensor:
    index = torch.nonzero(x_HW > 0.1).float()
    return index.mean(dim=0)


def test_all_zero_leaves_pictures_as_they_are():
    x = torch.rand(3, 1, 20, 20)
    assert torch.equal(vary(x), x)


def test_same_seed_same_pictures_and_another_seed_others():
    x = torch.rand(4, 1, 24, 24)
    config = AugmentConfig(**AUGMENT)
    first, again, other = (augment(x, config, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert 0.0 <= float(first.min()) <= float(first.max()) <= 1.0


def test_flip_mirrors_columns_of_about_half_the_pictures():
    x = a_picture().repeat(200, 1, 1, 1)
    flipped = vary(x, horizontal_flip=True)
    mirrored = [bool(torch.allclose(y, z.flip(-1), atol=1e-5)) for y, z in zip(flipped, x, strict=True)]
    kept = [bool(torch.allclose(y, z, atol=1e-5)) for y, z in zip(flipped, x, strict=True)]
    assert all(m or k for m, k in zip(mirrored, kept, strict=True))
    assert 70 < sum(mirrored) < 130


def test_shift_stays_within_its_fraction():
    x = a_picture().repeat(100, 1, 1, 1)
    moved = torch.stack([centre(y[0]) - centre(x[0, 0]) for y in vary(x, shift_fraction=0.1)])
    assert float(moved.abs().max()) <= 4.6
    assert float(moved.abs().max()) > 3.0


def test_rotation_keeps_the_distance_from_the_centre():
    turned = vary(a_picture().repeat(50, 1, 1, 1), rotation_degrees=90.0)
    start = (centre(a_picture()[0, 0]) - 19.5).norm()
    distances = torch.stack([(centre(y[0]) - 19.5).norm() for y in turned])
    assert float((distances - start).abs().max()) < 0.5
    assert float(torch.stack([centre(y[0]) for y in turned]).std(dim=0).min()) > 3.0


def test_zoom_changes_the_area_within_bounds():
    x = torch.zeros(100, 1, 60, 60)
    x[..., 20:40, 20:40] = 1.0
    side = vary(x, zoom_fraction=0.2).sum(dim=(1, 2, 3)).sqrt()
    assert 15.5 < float(side.min()) < 17.5
    assert 22.5 < float(side.max()) < 24.5


def test_brightness_adds_and_multiplication_scales():
    x = torch.full((300, 1, 4, 4), 0.5)
    added = vary(x, brightness_fraction=0.1) - x
    scaled = vary(x, multiply_fraction=0.2) / x
    assert 0.08 < float(added.abs().max()) <= 0.1001
    assert 0.17 < float((scaled - 1).abs().max()) <= 0.2001
    assert float(added.std(dim=(1, 2, 3)).max()) < 1e-6


@pytest.mark.parametrize(
    "changes", [{"copies": -1}, {"shift_fraction": 1.0}, {"rotation_degrees": 200.0}, {"zoom_fraction": -0.1}]
)
def test_refuses_sizes_out_of_range(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        AugmentConfig(**(AUGMENT | changes))

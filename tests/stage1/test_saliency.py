from __future__ import annotations

import numpy as np
import pytest

from sarc_ray.stage1.checkpoint import load_member
from sarc_ray.stage1.saliency import grad_cam
from tests.stage1.toy import draw_pictures, fit_toy


@pytest.mark.parametrize("blocks", [(3,), (2, 3)], ids=["one", "two"])
def test_heat_lies_on_the_square_that_was_measured(blocks):
    members = [
        load_member(fit_toy(n=160, epochs=8, patience=8, copies=2, seed=seed, feature_blocks=blocks)) for seed in (1, 2)
    ]
    x_NHW, _, corner_N2 = draw_pictures(40, seed=7)
    heat_NHW = grad_cam(members, x_NHW, batch_size=16, device="cpu")
    assert heat_NHW.shape == x_NHW.shape
    assert heat_NHW.dtype == np.float32
    assert heat_NHW.min() >= 0.0
    assert heat_NHW.max() <= 1.0
    inside = [
        heat_HW[row : row + 10, column : column + 10].mean() / heat_HW.mean()
        for heat_HW, (row, column) in zip(heat_NHW, corner_N2, strict=True)
    ]
    assert np.median(inside) > 1.4


def test_works_on_frozen_convolutions_and_averages_members():
    one, two = (load_member(fit_toy(n=32, epochs=1, seed=s, trainable="head", pooling_grid=2)) for s in (1, 2))
    x_NHW, _, _ = draw_pictures(5, seed=7)
    both = grad_cam([one, two], x_NHW, device="cpu")
    apart = [grad_cam([member], x_NHW, device="cpu") for member in (one, two)]
    np.testing.assert_allclose(both, np.mean(apart, axis=0), atol=1e-6)
    assert all(heat_NHW.max() == pytest.approx(1.0) for heat_NHW in apart)


def test_refuses_no_members():
    with pytest.raises(ValueError, match="none given"):
        grad_cam([], np.zeros((1, 8, 8), dtype=np.uint8))

import numpy as np
import pytest

from sarc_ray.simulate.anatomy import Signals
from sarc_ray.simulate.other_parts import render_part
from sarc_ray.simulate.phantom import render

PARTS = ("lateral", "hand", "knee", "skull", "pelvis")
SHAPE = (160, 144)
MIDDLE = Signals(alm=0.0, hgs=0.0, crt=0.0, haze=0.4, breast=0.0, aorta=0.0)


def _mean_picture(draw, n=12):
    mean = np.mean([draw(np.random.default_rng(seed)) for seed in range(n)], axis=0)
    return (mean - mean.mean()) / mean.std()


@pytest.mark.parametrize("part", PARTS)
def test_a_part_is_drawn_from_its_seed_alone_at_any_size(part):
    first, second = (render_part(part, shape_HW=SHAPE, rng=np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert first.dtype == np.float32
    assert (first.min(), first.max()) >= (0.0, 0.9)
    assert first.max() <= 1.0
    assert not np.array_equal(first, render_part(part, shape_HW=SHAPE, rng=np.random.default_rng(4)))
    assert render_part(part, shape_HW=(600, 500), rng=np.random.default_rng(3)).shape == (600, 500)


@pytest.mark.parametrize("part", PARTS)
def test_a_part_is_unlike_the_frontal_chest(part):
    def frontal(rng):
        return render(MIDDLE, shape_HW=SHAPE, rng=rng).gray_HW

    chest = _mean_picture(frontal)
    other = _mean_picture(lambda rng: render_part(part, shape_HW=SHAPE, rng=rng))
    again = _mean_picture(lambda rng: frontal(np.random.default_rng(rng.integers(2**32))))
    assert float(np.mean(chest * other)) < 0.75 < 0.95 < float(np.mean(chest * again))


def test_air_is_dark_and_bone_is_brighter_than_soft_tissue():
    hand = np.mean([render_part("hand", shape_HW=SHAPE, rng=np.random.default_rng(s)) for s in range(8)], axis=0)
    knee = np.mean([render_part("knee", shape_HW=SHAPE, rng=np.random.default_rng(s)) for s in range(8)], axis=0)
    assert hand[:40, :10].mean() < 0.05
    assert knee[70:90, 62:82].mean() > 1.5 * knee[70:90, 40:50].mean() > 0.1

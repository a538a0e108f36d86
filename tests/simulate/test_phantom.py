import time
from dataclasses import replace

import cv2
import numpy as np
import pytest

from sarc_ray.simulate.anatomy import Signals
from sarc_ray.simulate.phantom import boxes_to_mask, render

MIDDLE = Signals(alm=0.0, hgs=0.0, crt=0.0, haze=0.4, breast=0.0, aorta=0.0)
FIELDS = {"alm_kg": "alm", "hgs_kg": "hgs", "crt_s": "crt"}
SHAPE = (256, 240)


def _draw(signals: Signals, seed: int = 5, shape: tuple[int, int] = SHAPE):
    return render(signals, shape_HW=shape, rng=np.random.default_rng(seed))


def test_equal_seeds_give_equal_pictures():
    np.testing.assert_array_equal(_draw(MIDDLE).gray_HW, _draw(MIDDLE).gray_HW)
    assert not np.array_equal(_draw(MIDDLE).gray_HW, _draw(MIDDLE, seed=6).gray_HW)


def test_regions_have_radiographic_brightness():
    gray = np.mean([_draw(MIDDLE, seed).gray_HW for seed in range(8)], axis=0)
    lung, heart, spine = gray[110:130, 70:85].mean(), gray[150:165, 125:140].mean(), gray[120:140, 117:123].mean()
    belly, air = gray[215:240, 90:150].mean(), gray[180:220, 6:12].mean()
    assert air < 0.1
    assert air < lung < 0.65 * heart
    assert lung < belly
    assert lung < spine


@pytest.mark.parametrize("target", list(FIELDS))
def test_a_channel_moves_the_picture_inside_its_boxes(target):
    inside, outside = [], []
    for seed in range(4):
        low = _draw(replace(MIDDLE, **{FIELDS[target]: -1.2}), seed)
        high = _draw(replace(MIDDLE, **{FIELDS[target]: 1.2}), seed)
        change = np.square(high.gray_HW - low.gray_HW)
        mask = boxes_to_mask(low.boxes[target], SHAPE) | boxes_to_mask(high.boxes[target], SHAPE)
        inside.append(change[mask].sum())
        outside.append(change[~mask].sum())
    assert np.sum(inside) > 0.75 * (np.sum(inside) + np.sum(outside))


@pytest.mark.parametrize("target", list(FIELDS))
@pytest.mark.parametrize("value", [-3.0, 0.0, 3.0])
def test_each_signal_occupies_less_than_a_quarter(target, value):
    for seed in range(5):
        boxes = _draw(replace(MIDDLE, **{FIELDS[target]: value}), seed).boxes[target]
        assert 0.02 < boxes_to_mask(boxes, SHAPE).mean() < 0.25


def test_boxes_do_not_depend_on_size():
    small, large = _draw(MIDDLE, shape=(128, 120)).boxes, _draw(MIDDLE, shape=(512, 480)).boxes
    for target in FIELDS:
        np.testing.assert_allclose(small[target], large[target], atol=1e-9)


def test_a_large_picture_is_the_small_one_enlarged():
    small = _draw(MIDDLE, shape=(320, 288)).gray_HW
    large = cv2.resize(_draw(MIDDLE, shape=(1280, 1152)).gray_HW, (288, 320), interpolation=cv2.INTER_AREA)
    assert np.abs(small - large)[20:-20, 20:-20].mean() < 0.03


def _seen_by_a_network(gray_HW: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """64 pixels, CLAHE, shifted, brightened: what augmentation and preprocessing leave."""
    small = cv2.resize(gray_HW, (64, 64), interpolation=cv2.INTER_AREA)
    eight_bit = np.clip(small * rng.uniform(0.9, 1.1) * 255, 0, 255).astype(np.uint8)
    equal = cv2.createCLAHE(clipLimit=2.0, tileGridSize=(8, 8)).apply(eight_bit)
    return np.roll(equal, rng.integers(-1, 2, 2), axis=(0, 1)).ravel().astype(np.float64) / 255


def test_channels_can_be_read_back_from_small_equalised_pictures():
    rng = np.random.default_rng(17)
    n_train, n = 420, 540
    signals_N3 = rng.standard_normal((n, 3))
    x_NP = np.empty((n, 64 * 64))
    for row, (alm, hgs, crt) in enumerate(signals_N3):
        signals = replace(
            MIDDLE,
            alm=float(alm),
            hgs=float(hgs),
            crt=float(crt),
            haze=float(rng.random()),
            breast=float(rng.standard_normal()),
            aorta=float(rng.standard_normal()),
        )
        shape = (192, round(192 * rng.uniform(0.9, 1.0)))
        x_NP[row] = _seen_by_a_network(render(signals, shape_HW=shape, rng=rng).gray_HW, rng)
    x_NP -= x_NP[:n_train].mean(axis=0)
    kernel = x_NP @ x_NP[:n_train].T
    weights = np.linalg.solve(kernel[:n_train] + 8.0 * np.eye(n_train), signals_N3[:n_train])
    error = kernel[n_train:] @ weights - signals_N3[n_train:]
    explained = 1 - np.square(error).mean(axis=0) / signals_N3[n_train:].var(axis=0)
    # A linear reader of 420 pictures; a small network with more of them passes 0.95.
    assert (explained > 0.75).all(), explained


def test_drawing_is_fast():
    _draw(MIDDLE)
    start = time.process_time()
    for seed in range(10):
        _draw(MIDDLE, seed)
    # 12 ms of processor time were measured on a busy machine; the margin is for busier ones.
    assert (time.process_time() - start) / 10 < 0.06

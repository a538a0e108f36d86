"""Heat maps: that they are what they are called, and that they point at what carries the signal."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from sarc_ray.imaging.preprocess import equalise, resize, window
from sarc_ray.simulate.anatomy import Signals
from sarc_ray.simulate.cohort import simulate_features
from sarc_ray.simulate.phantom import boxes_to_mask, render
from sarc_ray.stage1.checkpoint import LoadedMember, load_member
from sarc_ray.stage1.network import build_network, normalise
from sarc_ray.stage1.runtime import to_grey
from sarc_ray.stage1.saliency import grad_cam, map_layer
from sarc_ray.stage1.settings import NetworkConfig
from tests.bundle_factory import SPEC
from tests.stage1.toy import NETWORK, draw_pictures, fit_toy

N_TRAIN, N_TUNE, N_SEEN = 400, 120, 60
# As the preset proof has it, on smaller pictures.
CHEST: dict[str, Any] = {"feature_blocks": (3, 4), "pooling_grid": 4, "hidden_units": (64,), "dropout": 0.2}
CHEST_FIT: dict[str, Any] = {
    "epochs": 12,
    "patience": 12,
    "batch_size": 32,
    "learning_rate": 2e-3,
    "weight_decay": 1e-2,
    "rotation_degrees": 5.0,
    "brightness_fraction": 0.05,
    "multiply_fraction": 0.05,
}
PICTURE = dataclasses.replace(SPEC.preprocess, size_px=64)
# Share of a map's mass in the region that encodes the target, over the region's share of the picture.
WANTED = 2.0


def simulated(n: int, *, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pictures (N, 64, 64) of simulated patients, their lean mass, and where the pictures show it (N, 64, 64)."""
    drawn = simulate_features(n, cohort="derivation", seed=seed)
    rows = (drawn.truth["role"] == "eligible").to_numpy() & drawn.manifest["alm_kg"].notna().to_numpy()
    pictures, masks = [], []
    for truth in drawn.truth[rows].head(n).to_dict("records"):
        signals = Signals(
            alm=truth["channel_alm_kg"],
            hgs=truth["channel_hgs_kg"],
            crt=truth["channel_crt_s"],
            haze=truth["haze"],
            breast=truth["breast"],
            aorta=truth["aorta"],
        )
        picture = render(signals, shape_HW=(128, 109), rng=np.random.default_rng([seed, len(pictures)]))
        pictures.append(equalise(window(resize(picture.gray_HW, PICTURE.size_px), None), PICTURE))
        masks.append(boxes_to_mask(picture.boxes["alm_kg"], (PICTURE.size_px, PICTURE.size_px)))
    return np.stack(pictures), drawn.manifest.loc[rows, "alm_kg"].head(n).to_numpy(), np.stack(masks)


def fit_chests(seed: int, *, members: int) -> list[LoadedMember]:
    x_NHW, y_N, _ = simulated(N_TRAIN + N_TUNE, seed=seed)
    given = {
        "x_train_NHW": x_NHW[:N_TRAIN],
        "y_train_N": y_N[:N_TRAIN],
        "x_tune_NHW": x_NHW[N_TRAIN:],
        "y_tune_N": y_N[N_TRAIN:],
    }
    return [load_member(fit_toy(seed=100 * seed + k, **CHEST, **CHEST_FIT, **given)) for k in range(members)]


def untrained(members: list[LoadedMember], *, seed: int) -> list[LoadedMember]:
    """The same members with random weights."""
    config = NetworkConfig(**(NETWORK | CHEST))
    return [
        dataclasses.replace(member, network=build_network(config, seed=seed + k).eval())
        for k, member in enumerate(members)
    ]


def concentration(members: list[LoadedMember], x_NHW: np.ndarray, mask_NHW: np.ndarray) -> float:
    heat_NHW = grad_cam(members, x_NHW, device="cpu").mean_NHW
    inside_N = (heat_NHW * mask_NHW).sum(axis=(1, 2)) / heat_NHW.sum(axis=(1, 2))
    return float(inside_N.mean() / mask_NHW.mean())


@pytest.fixture(scope="module")
def chest_members():
    return fit_chests(1, members=3)


def test_the_map_points_at_the_chest_wall_and_a_random_network_does_not(chest_members):
    x_NHW, _, mask_NHW = simulated(N_SEEN, seed=777)
    assert 0.1 < mask_NHW.mean() < 0.25
    assert concentration(chest_members, x_NHW, mask_NHW) >= WANTED
    # Adebayo et al., Sanity checks for saliency maps, NeurIPS 2018: the map must depend on what was learned.
    for seed in (11, 12, 13):
        assert concentration(untrained(chest_members, seed=seed), x_NHW, mask_NHW) < 0.75 * WANTED


def test_the_map_of_learned_weights_is_not_that_of_random_ones(chest_members):
    x_NHW, _, _ = simulated(8, seed=777)
    learned = grad_cam(chest_members, x_NHW, device="cpu").mean_NHW
    random = grad_cam(untrained(chest_members, seed=11), x_NHW, device="cpu").mean_NHW
    like_N = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(learned, random, strict=True)]
    assert np.median(like_N) < 0.5


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, 3])
def test_ensembles_of_other_seeds_point_at_the_chest_wall(seed):
    members = fit_chests(seed, members=3)
    x_NHW, _, mask_NHW = simulated(N_SEEN, seed=777)
    learned = concentration(members, x_NHW, mask_NHW)
    assert learned >= WANTED
    assert concentration(untrained(members, seed=10 * seed), x_NHW, mask_NHW) < 0.75 * WANTED < learned


@pytest.mark.parametrize("blocks", [(3,), (2, 3)], ids=["one", "two"])
def test_heat_lies_on_the_square_that_was_measured(blocks):
    members = [
        load_member(fit_toy(n=160, epochs=8, patience=8, copies=2, seed=seed, feature_blocks=blocks)) for seed in (1, 2)
    ]
    x_NHW, _, corner_N2 = draw_pictures(40, seed=7)
    heat_NHW = grad_cam(members, x_NHW, batch_size=16, device="cpu").mean_NHW
    assert heat_NHW.shape == x_NHW.shape
    assert heat_NHW.dtype == np.float32
    assert heat_NHW.min() >= 0.0
    assert heat_NHW.max() <= 1.0
    inside = [
        heat_HW[row : row + 10, column : column + 10].mean() / heat_HW.mean()
        for heat_HW, (row, column) in zip(heat_NHW, corner_N2, strict=True)
    ]
    assert np.median(inside) > 1.4


def test_works_on_frozen_convolutions_and_gives_mean_and_spread_of_members():
    one, two = (load_member(fit_toy(n=32, epochs=1, seed=s, trainable="head", pooling_grid=2)) for s in (1, 2))
    x_NHW, _, _ = draw_pictures(5, seed=7)
    both = grad_cam([one, two], x_NHW, batch_size=2, device="cpu")
    apart = [grad_cam([member], x_NHW, device="cpu") for member in (one, two)]
    means = [maps.mean_NHW for maps in apart]
    np.testing.assert_allclose(both.mean_NHW, np.mean(means, axis=0), atol=1e-6)
    np.testing.assert_allclose(both.disagreement_NHW, np.std(means, axis=0), atol=1e-6)
    assert 0 < both.disagreement_NHW.max() <= 0.5
    for maps in apart:
        np.testing.assert_allclose(maps.mean_NHW.max(axis=(1, 2)), 1.0, atol=1e-6)
        assert not maps.disagreement_NHW.any()


def member_of(config: NetworkConfig, size_px: int) -> LoadedMember:
    toy = load_member(fit_toy(n=16, epochs=1))
    network = build_network(config, seed=5).eval()
    return dataclasses.replace(toy, network=network, image_size_px=(size_px, size_px))


def test_is_grad_cam_to_the_letter_where_the_map_is_averaged_as_a_whole():
    member = member_of(NetworkConfig(**NETWORK), 224)
    network = member.network
    assert map_layer(network, (224, 224)) == max(network.pooled_layers)  # 14 x 14 cells
    x_NHW = np.random.default_rng(1).integers(0, 255, (2, 224, 224), dtype=np.uint8)
    map_BChw = network.feature_maps(normalise(to_grey(x_NHW, torch.device("cpu"))))[0].detach().requires_grad_()
    network.predict(network.pool([map_BChw]))[0].sum().backward()
    weight_BC11 = map_BChw.grad.mean(dim=(2, 3), keepdim=True)  # alpha of Selvaraju et al., equation 1
    cam_BHW = torch.nn.functional.interpolate(
        (weight_BC11 * map_BChw).sum(dim=1, keepdim=True).abs(), (224, 224), mode="bilinear", align_corners=False
    )[:, 0]
    expected = (cam_BHW / cam_BHW.amax(dim=(1, 2), keepdim=True)).detach().numpy()
    np.testing.assert_allclose(grad_cam([member], x_NHW, device="cpu").mean_NHW, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("backbone", "blocks", "size_px", "layer", "n_cells"),
    [
        ("compact", (), 64, 6, 16),
        ("compact", (), 96, 6, 24),
        ("compact", (), 128, 10, 16),
        ("compact", (1, 4), 96, 2, 48),  # never behind the first pooled map
        ("compact", (), 24, 2, 12),  # the finest there is
        ("vgg16", (), 224, 29, 14),  # the last convolution, as in Grad-CAM's own paper
        ("vgg16", (3,), 224, 15, 56),
        ("densenet121", (), 224, 8, 14),
    ],
)
def test_takes_the_deepest_map_that_is_fine_enough(backbone, blocks, size_px, layer, n_cells):
    config = NetworkConfig(**(NETWORK | {"backbone": backbone, "feature_blocks": blocks}))
    network = build_network(config, seed=1).eval()
    assert map_layer(network, (size_px, size_px)) == layer
    with torch.no_grad():
        map_BChw = network.backbone[: layer + 1](torch.zeros(1, 3, size_px, size_px))
    assert map_BChw.shape[2:] == (n_cells, n_cells)


def test_maps_a_torchvision_network_whose_layers_work_in_place():
    config = NetworkConfig(**(NETWORK | {"backbone": "densenet121"}))
    x_NHW = np.random.default_rng(1).integers(0, 255, (1, 224, 224), dtype=np.uint8)
    maps = grad_cam([member_of(config, 224)], x_NHW, device="cpu")
    assert maps.mean_NHW.max() == pytest.approx(1.0)
    assert maps.mean_NHW.std() > 0


def test_refuses_no_members():
    with pytest.raises(ValueError, match="none given"):
        grad_cam([], np.zeros((1, 8, 8), dtype=np.uint8))

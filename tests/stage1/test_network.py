from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from sarc_ray import storage
from sarc_ray.errors import ConfigError
from sarc_ray.stage1.network import build_network, normalise
from sarc_ray.stage1.settings import NetworkConfig
from tests.stage1.toy import NETWORK

VGG16_FILE = Path(__file__).parents[2] / ".." / "shared" / "weights" / "vgg16_features_imagenet.pth"


def config(**changes: object) -> NetworkConfig:
    return NetworkConfig(**(NETWORK | changes))


def pictures(n: int = 2, side: int = 64) -> torch.Tensor:
    return normalise(torch.rand(n, 1, side, side, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("backbone", ["compact", "alexnet", "mobilenet_v3_small"])
def test_starts_at_the_training_mean_with_its_spread(backbone):
    network = build_network(config(backbone=backbone), seed=1).eval()
    mu_B, sigma_B = network(pictures())
    assert mu_B.shape == sigma_B.shape == (2,)
    assert float(mu_B.detach().abs().max()) < 0.2
    assert float((sigma_B.detach() - 1.0).abs().max()) < 0.2


def test_sigma_stays_positive_for_extreme_features():
    network = build_network(config(), seed=1).eval()
    _, sigma_B = network.predict(torch.randn(64, 96) * 1e6)
    assert float(sigma_B.detach().min()) >= 0.0099


def test_seed_decides_the_weights_and_global_randomness_is_left_alone():
    before = torch.get_rng_state()
    first, again, other = (build_network(config(), seed=s).state_dict() for s in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["backbone.0.weight"], other["backbone.0.weight"])


def test_normalise_is_torchvisions_normalisation_of_three_grey_channels():
    x_B1HW = torch.rand(2, 1, 8, 8)
    expected = torchvision.transforms.functional.normalize(
        x_B1HW.repeat(1, 3, 1, 1), mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]
    )
    assert torch.allclose(normalise(x_B1HW), expected, atol=1e-6)


def test_trainable_parts():
    def learning(trainable: str) -> set[str]:
        network = build_network(config(trainable=trainable), seed=1)
        return {name for name, parameter in network.named_parameters() if parameter.requires_grad}

    head = learning("head")
    assert head
    assert all(name.startswith("head.") for name in head)
    last = learning("last_block") - head
    assert {name.split(".")[1] for name in last} == {"12", "13"}  # fourth convolution and its normalisation
    assert len(learning("all")) > len(last | head)


def test_frozen_normalisation_does_not_learn_statistics():
    network = build_network(config(trainable="head"), seed=1).train()
    before = network.backbone[1].running_mean.clone()
    network(pictures())
    assert torch.equal(before, network.backbone[1].running_mean)
    assert network.head.training


def test_blocks_and_grid_decide_the_features():
    network = build_network(config(feature_blocks=(1, 3), pooling_grid=2), seed=1).eval()
    maps = network.feature_maps(pictures())
    assert [tuple(m.shape[1:]) for m in maps] == [(16, 32, 32), (64, 8, 8)]
    features = network.pool(maps)
    assert features.shape == (2, 80 * 4)
    torch.testing.assert_close(features[:, 0], maps[0][:, 0, :16, :16].mean(dim=(1, 2)))
    assert len(network.backbone) == 11  # the fourth block is left out


@pytest.mark.parametrize("n", [40, 300], ids=["fewer pictures than features", "more"])
def test_frozen_features_reach_the_head_along_principal_axes(n):
    network = build_network(config(hidden_units=(), trainable="head"), seed=1)
    rng = np.random.default_rng(0)
    features_NF = (rng.normal(size=(n, 8)) @ rng.normal(size=(8, 96)) + 0.1 * rng.normal(size=(n, 96)) + 5).astype("f4")
    features_NF[:, 0] = 2.0
    network.standardise_features(torch.from_numpy(features_NF))
    sd_F = np.where(features_NF.std(axis=0) > 0, features_NF.std(axis=0), 1.0)
    z_NF = (features_NF - features_NF.mean(axis=0)) / sd_F
    axes_NK = z_NF @ network.feature_axes.numpy().T
    spread_K = np.linalg.svd(z_NF, compute_uv=False) / np.sqrt(n)
    np.testing.assert_allclose(axes_NK.std(axis=0)[:8], (spread_K / spread_K[0])[:8], rtol=1e-3)
    correlation_KK = np.corrcoef(axes_NK[:, :8].T) - np.eye(8)
    assert np.abs(correlation_KK).max() < 1e-3
    assert np.isfinite(axes_NK).all()


def test_reads_a_state_file_with_or_without_prefix(tmp_path):
    features = torchvision.models.get_model("squeezenet1_1", weights=None).features.state_dict()
    settings = {"backbone": "squeezenet1_1"}
    for prefix in ("", "features."):
        path = tmp_path / f"{prefix}state.pth"
        torch.save({prefix + name: tensor for name, tensor in features.items()}, path)
        network = build_network(config(weights=str(path), **settings), seed=1)
        state = network.backbone.state_dict()
        assert state
        assert all(torch.equal(state[name], features[name]) for name in state)


def test_reads_a_state_file_from_any_store():
    features = torchvision.models.get_model("squeezenet1_1", weights=None).features.state_dict()
    buffer = io.BytesIO()
    torch.save(features, buffer)
    uri = "memory://weights/squeezenet.pth"
    storage.write_bytes(uri, buffer.getvalue())
    state = build_network(config(backbone="squeezenet1_1", weights=uri), seed=1).backbone.state_dict()
    assert state
    assert all(torch.equal(state[name], features[name]) for name in state)


def test_refuses_state_files_that_do_not_fit(tmp_path):
    path = tmp_path / "state.pth"
    torch.save({"0.weight": torch.zeros(1)}, path)
    with pytest.raises(ConfigError, match=r"lacks .* tensors of alexnet.*features\.0\.weight"):
        build_network(config(backbone="alexnet", weights=str(path)), seed=1)
    path.write_bytes(b"no state file")
    with pytest.raises(ConfigError, match="not a state file"):
        build_network(config(backbone="alexnet", weights=str(path)), seed=1)
    with pytest.raises(ConfigError, match="is no file; allowed: imagenet, random"):
        build_network(config(weights=str(tmp_path / "absent.pth")), seed=1)


def test_state_files_cannot_run_code(tmp_path):
    path = tmp_path / "state.pth"
    torch.save({"0.weight": Path("x")}, path)  # any object beyond tensors needs pickle
    with pytest.raises(ConfigError, match="not a state file"):
        build_network(config(backbone="alexnet", weights=str(path)), seed=1)


def test_download_without_internet_says_where_the_file_goes(monkeypatch):
    def fail(*_args: object, **_kwargs: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(torchvision.models.VGG16_Weights, "get_state_dict", fail)
    with pytest.raises(ConfigError, match=r"no route to host.*copy vgg16-397923af.pth to .*network.weights"):
        build_network(config(backbone="vgg16", weights="imagenet"), seed=1)


@pytest.mark.parametrize(
    "changes",
    [
        {"backbone": "vgg61"},
        {"weights": "imagenet"},
        {"trainable": "none"},
        {"dropout": 1.0},
        {"hidden_units": (0,)},
        {"feature_blocks": (0,)},
        {"feature_blocks": (2, 2)},
        {"pooling_grid": 0},
    ],
)
def test_refuses_settings_out_of_range(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        config(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "resnet18"}, "network.backbone: 'resnet18'"),
        ({"feature_blocks": (5,)}, "has blocks 1 to 4"),
        ({"backbone": "mobilenet_v3_small", "feature_blocks": (1,)}, "no plain chain"),
    ],
)
def test_refuses_what_the_backbone_has_not(changes, message):
    with pytest.raises(ConfigError, match=message):
        build_network(config(**changes), seed=1)


@pytest.mark.skipif(not VGG16_FILE.is_file(), reason="../shared/weights is absent")
def test_vgg16_file_loads_and_its_convolutions_match_torchvision():
    network = build_network(config(backbone="vgg16", weights=str(VGG16_FILE), trainable="head"), seed=1).eval()
    reference = torchvision.models.get_model("vgg11", weights=None).features[:2]  # same first layer: 3 -> 64
    state = torch.load(VGG16_FILE, weights_only=True)
    reference[0].load_state_dict({"weight": state["features.0.weight"], "bias": state["features.0.bias"]})
    x = pictures(1, 32)
    with torch.no_grad():
        np.testing.assert_allclose(network.backbone[:2](x), reference(x), rtol=1e-4, atol=1e-5)
    assert network.feature_mean.shape == (512,)
    assert len(network.backbone) == 30

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from sarc_ray.cohort.schema import TargetConfig
from sarc_ray.config import from_mapping, load_preset
from sarc_ray.errors import TrainingError
from sarc_ray.stage1.checkpoint import load_member
from sarc_ray.stage1.ensemble import predict_members
from sarc_ray.stage1.features import CachedFeatures, extract_features
from sarc_ray.stage1.fit import TrainedMember, fit_member
from sarc_ray.stage1.loop import cosine_learning_rate
from sarc_ray.stage1.network import build_network
from sarc_ray.stage1.runtime import PictureRows
from sarc_ray.stage1.settings import AugmentConfig, FitConfig, NetworkConfig
from tests.conftest import SHARED
from tests.stage1.toy import AUGMENT, FIT, NETWORK, TARGET, draw_pictures, fit_toy

HEAD = {"trainable": "head", "cache_features": True, "feature_blocks": (2, 4), "pooling_grid": 2}


VGG16_FILE = SHARED / "weights" / "vgg16_features_imagenet.pth"


def assert_same(first: TrainedMember, second: TrainedMember) -> None:
    assert first.history == second.history
    assert first.best_epoch == second.best_epoch
    assert first.state.keys() == second.state.keys()
    assert all(torch.equal(first.state[name], second.state[name]) for name in first.state)


def test_learns_what_the_pictures_show():
    member = fit_toy(n=200, epochs=14, patience=14, copies=2)
    x_NHW, y_N, _ = draw_pictures(150, seed=9)
    mu_MN, sigma_MN = predict_members([load_member(member)], x_NHW, batch_size=32, device="cpu")
    assert np.corrcoef(mu_MN[0], y_N)[0, 1] > 0.9
    z_N = (y_N - mu_MN[0]) / sigma_MN[0]
    assert np.mean(np.abs(z_N) < 1.645) > 0.7
    assert member.best_tune_nll < 0.5 * math.log(2 * math.pi) + 0.5  # better than predicting mean and spread


@pytest.mark.parametrize("changes", [{}, HEAD], ids=["pictures", "cached"])
def test_same_seed_same_member_and_another_seed_another(changes):
    first, again, other = (fit_toy(seed=seed, epochs=2, **changes) for seed in (5, 5, 6))
    assert_same(first, again)
    assert first.history != other.history


@pytest.mark.parametrize(
    "changes",
    [{}, {"trainable": "last_block"}, HEAD, HEAD | {"ridge_start": True}],
    ids=["all", "last_block", "cached", "ridge"],
)
def test_resumed_equals_undisturbed_bit_for_bit(changes):
    states: list[bytes] = []
    whole = fit_toy(on_epoch=lambda _record, snapshot: states.append(snapshot()), **changes)
    for state in states[1:]:
        assert_same(whole, fit_toy(state=state, **changes))


def test_resume_refuses_the_state_of_another_fit():
    states: list[bytes] = []
    fit_toy(epochs=1, on_epoch=lambda _record, snapshot: states.append(snapshot()))
    with pytest.raises(TrainingError, match="another fit"):
        fit_toy(epochs=1, state=states[0], seed=99)


def test_stops_after_patience_and_keeps_the_best_epoch():
    member = fit_toy(n=16, epochs=40, patience=3, copies=1, learning_rate=0.02)
    tune_nll = [record.tune_nll for record in member.history]
    assert len(tune_nll) < 40
    assert member.best_epoch == int(np.argmin(tune_nll)) == len(tune_nll) - 1 - 3
    x_tune_NHW, y_tune_N, _ = draw_pictures(40, seed=2)
    mu_MN, sigma_MN = predict_members([load_member(member)], x_tune_NHW, batch_size=16, device="cpu")
    z_N = (y_tune_N - mu_MN[0]) / sigma_MN[0]
    nll = np.mean(np.log(sigma_MN[0] / member.scale.sd) + 0.5 * z_N**2) + 0.5 * math.log(2 * math.pi)
    assert nll == pytest.approx(member.best_tune_nll, abs=1e-4)


def test_learning_rate_falls_along_half_a_cosine():
    assert cosine_learning_rate(0.0, 0.1) == 0.1
    assert cosine_learning_rate(0.25, 0.1) == pytest.approx(0.1 * (1 + math.sqrt(0.5)) / 2)
    assert cosine_learning_rate(1.0, 0.1) == 0.0
    rates = [record.learning_rate for record in fit_toy(epochs=4).history]
    assert rates == [cosine_learning_rate(i / 4, 3e-3) for i in range(4)]


def test_leaves_threads_and_random_numbers_as_they_were():
    before = torch.get_num_threads(), torch.get_rng_state(), torch.are_deterministic_algorithms_enabled()
    seen: list[int] = []
    fit_toy(n=8, epochs=1, threads=3, on_epoch=lambda _record, _snapshot: seen.append(torch.get_num_threads()))
    assert seen == [3]
    assert torch.get_num_threads() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    assert torch.are_deterministic_algorithms_enabled() == before[2]


def test_each_epoch_visits_every_picture_as_often_as_copies_says():
    one, three = (fit_toy(n=16, epochs=1, copies=copies) for copies in (1, 3))
    steps = [int(member.state["backbone.1.num_batches_tracked"]) for member in (one, three)]
    assert steps == [1, 3]


def test_log_target_is_learned_on_its_logarithm():
    target = replace(TARGET, transform="log")
    member = fit_toy(n=32, epochs=1, target=target)
    _, y_N, _ = draw_pictures(32, seed=1)
    assert member.scale.mean == pytest.approx(np.log(y_N).mean())


def test_reads_pictures_that_cannot_be_written():
    x_NHW, _, _ = draw_pictures(64, seed=1)
    x_NHW.setflags(write=False)
    assert_same(fit_toy(epochs=1, x_train_NHW=x_NHW), fit_toy(epochs=1))


def test_rows_of_a_shared_table_give_the_member_of_an_array():
    x_train_NHW, _, _ = draw_pictures(64, seed=1)
    x_tune_NHW, _, _ = draw_pictures(40, seed=2)
    table_NHW = np.concatenate([x_tune_NHW, x_train_NHW[::-1]])
    rows = {
        "x_train_NHW": PictureRows(table_NHW=table_NHW, rows_K=np.arange(103, 39, -1)),
        "x_tune_NHW": PictureRows(table_NHW=table_NHW, rows_K=np.arange(40)),
    }
    assert_same(fit_toy(epochs=2, **rows), fit_toy(epochs=2))
    assert_same(fit_toy(epochs=2, **HEAD, **rows), fit_toy(epochs=2, **HEAD))


def test_mixed_precision_learns_and_resumes_bit_for_bit():
    states: list[bytes] = []
    mixed = fit_toy(n=128, precision="bfloat16", on_epoch=lambda _record, snapshot: states.append(snapshot()))
    full = fit_toy(n=128)
    assert_same(mixed, fit_toy(n=128, precision="bfloat16", state=states[1]))
    losses = np.array([[record.train_nll for record in member.history] for member in (mixed, full)])
    assert not np.array_equal(losses[0], losses[1])
    np.testing.assert_allclose(losses[0], losses[1], atol=0.05)  # an epoch's gain is larger
    assert losses[0, -1] < losses[0, 0] - 0.05
    assert {tensor.dtype for tensor in mixed.state.values()} == {torch.float32, torch.int64}


def shared_backbone_file(tmp_path) -> str:
    path = tmp_path / "compact.pth"
    torch.save(build_network(NetworkConfig(**NETWORK), seed=8).backbone.state_dict(), path)
    return str(path)


def test_features_passed_in_give_the_member_that_extracts_its_own(tmp_path):
    weights = shared_backbone_file(tmp_path)
    settings = {"trainable": "head", "cache_features": True, "weights": weights, "epochs": 2, "copies": 2}
    x_train_NHW, _, _ = draw_pictures(64, seed=1)
    x_tune_NHW, _, _ = draw_pictures(40, seed=2)
    network = build_network(NetworkConfig(**(NETWORK | {"weights": weights, "trainable": "head"})), seed=77)
    train_KNF, tune_KNF = (
        extract_features(
            network, x, config=AugmentConfig(**AUGMENT), copies=k, seed=3, batch_size=16, threads=1, device="cpu"
        )
        for x, k in ((x_train_NHW, 2), (x_tune_NHW, 0))
    )
    assert train_KNF.shape == (3, 64, 96)
    assert not np.array_equal(train_KNF[0], train_KNF[1])
    assert not np.array_equal(train_KNF[1], train_KNF[2])
    features = CachedFeatures(train_KNF=train_KNF, tune_NF=tune_KNF[0])
    assert_same(fit_toy(**settings), fit_toy(**settings, features=features))


def test_cached_and_direct_predictions_agree():
    member = fit_toy(**HEAD, epochs=2)
    x_NHW, _, _ = draw_pictures(40, seed=2)
    loaded = load_member(member)
    kept_KNF = extract_features(
        loaded.network, x_NHW, config=AugmentConfig(**AUGMENT), copies=0, seed=1, batch_size=16, threads=1, device="cpu"
    )
    with torch.inference_mode():
        mu_N, _ = loaded.network.predict(torch.from_numpy(kept_KNF[0]))
    mu_MN, _ = predict_members([loaded], x_NHW, batch_size=16, device="cpu")
    np.testing.assert_allclose(loaded.scale.restore(mu_N, mu_N)[0], mu_MN[0], rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cache_features": True}, "network.trainable: head or fit.cache_features: false"),
        ({"y_train_N": np.ones(3)}, r"y_train_N: found shape \(3,\)"),
        ({"y_tune_N": np.full(40, np.nan)}, "40 of 40 values are missing"),
        ({"x_tune_NHW": np.zeros((40, 8, 8), dtype=np.uint8)}, "x_tune_NHW"),
        ({"x_train_NHW": np.zeros((64, 8, 8))}, "x_train_NHW: found float64"),
    ],
)
def test_refuses_inputs_that_do_not_fit(changes, message):
    with pytest.raises(ValueError, match=message):
        fit_toy(**changes)


def test_refuses_shared_features_of_random_convolutions():
    features = CachedFeatures(train_KNF=np.zeros((1, 64, 96), np.float32), tune_NF=np.zeros((40, 96), np.float32))
    with pytest.raises(ValueError, match="weights that all members share"):
        fit_toy(trainable="head", cache_features=True, features=features)


def test_the_history_holds_likelihoods_whatever_the_loss():
    """One epoch from one start on one batch: the first forward pass, and so the recorded NLL, is the same."""
    plain, weighted = (fit_toy(beta_nll=beta, epochs=1, batch_size=64, dropout=0.0) for beta in (0.0, 0.5))
    assert weighted.history[0].train_nll == pytest.approx(plain.history[0].train_nll, abs=1e-12)
    assert not torch.equal(weighted.state["head.4.weight"], plain.state["head.4.weight"])


def test_reports_a_likelihood_that_is_lost():
    with pytest.raises(TrainingError, match=r"epoch 0.*NLL is nan.*learning_rate"):
        fit_toy(learning_rate=1e37, epochs=1)


@pytest.mark.parametrize(
    "changes",
    [
        {"epochs": 0},
        {"patience": 0},
        {"learning_rate": 0.0},
        {"weight_decay": -1.0},
        {"beta_nll": -0.1},
        {"beta_nll": 1.5},
        {"threads": 0},
        {"device": "tpu"},
        {"precision": "half"},
    ],
)
def test_refuses_settings_out_of_range(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        FitConfig(**(FIT | changes))


def test_one_step_of_the_paper_preset_on_the_cpu():
    """VGG16 at 224 as the preset says, but for the weights (ImageNet's from a file where it is there) and one epoch."""
    preset = load_preset("paper")
    weights = str(VGG16_FILE) if VGG16_FILE.exists() else "random"
    size_px = preset["preprocess"]["size_px"]
    x_NHW = np.random.default_rng(0).integers(0, 256, (4, size_px, size_px), dtype=np.uint8)
    y_N = np.array([12.0, 15.0, 18.0, 21.0])
    network = from_mapping(NetworkConfig, preset["network"] | {"weights": weights})
    member = fit_member(
        x_train_NHW=x_NHW,
        y_train_N=y_N,
        x_tune_NHW=x_NHW[:1],
        y_tune_N=y_N[:1],
        target=from_mapping(TargetConfig, preset["targets"][0]),
        network=network,
        augment=from_mapping(AugmentConfig, preset["augment"] | {"copies": 1}),
        fit=from_mapping(FitConfig, preset["fit"] | {"epochs": 1, "device": "cpu"}),
        seed=0,
    )
    assert (network.backbone, network.trainable, size_px) == ("vgg16", "all", 224)
    convolutions = [n for n in member.state if n.startswith("backbone.") and n.endswith("weight")]
    assert len(convolutions) == 13
    started = build_network(network, seed=0).state_dict()
    assert all(not torch.equal(member.state[name], started[name]) for name in convolutions)
    assert math.isfinite(member.best_tune_nll)

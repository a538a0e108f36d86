"""One network for several targets: members that share their convolutions, trained, resumed and read like any other."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from sarc_ray.errors import ConfigError
from sarc_ray.stage1.checkpoint import load_member, members_from_bytes
from sarc_ray.stage1.ensemble import predict_members
from sarc_ray.stage1.fit import TrainedMember
from sarc_ray.stage1.joint import fit_heads
from sarc_ray.stage1.member import MemberTask, train_member, train_unit
from sarc_ray.stage1.saliency import grad_cam
from sarc_ray.stage1.settings import AugmentConfig, FitConfig, NetworkConfig
from tests.stage1.toy import AUGMENT, FIT, NETWORK, TARGET, draw_pictures

TARGETS = (TARGET, dataclasses.replace(TARGET, name="crt_s", unit="s", transform="log"))


def measure(n, *, seed):
    """Pictures, and two measurements of each: the second falls with the first, and every fifth is missing."""
    x_NHW, y_N, _ = draw_pictures(n, seed=seed)
    other_N = 10.0 * np.exp(-(y_N - 20.0) / 20.0)
    other_N[::5] = np.nan
    return x_NHW, np.stack([y_N, other_N])


def fit_both(*, n=64, seed=3, state=None, on_epoch=None, trainable="all", **changes) -> tuple[TrainedMember, ...]:
    x_train_NHW, y_train_TN = measure(n, seed=1)
    x_tune_NHW, y_tune_TN = measure(40, seed=2)
    return fit_heads(
        x_train_NHW=x_train_NHW,
        y_train_TN=y_train_TN,
        x_tune_NHW=x_tune_NHW,
        y_tune_TN=y_tune_TN,
        targets=TARGETS,
        network=NetworkConfig(**(NETWORK | {"trainable": trainable})),
        augment=AugmentConfig(**AUGMENT),
        fit=FitConfig(**(FIT | changes)),
        seed=seed,
        state=state,
        on_epoch=on_epoch,
    )


def task(**changes) -> MemberTask:
    _, y_TN = measure(60, seed=1)
    values = {
        "index": 1,
        "seed": 9,
        "fit_N": np.arange(60) % 4 < 2,
        "tune_N": np.arange(60) % 4 == 3,
        "targets": TARGETS,
        "y_TN": y_TN,
        "network": NetworkConfig(**NETWORK),
        "augment": AugmentConfig(**AUGMENT),
        "fit": FitConfig(**(FIT | {"epochs": 2})),
        "heads": "all_targets",
    }
    return MemberTask(**(values | changes))


def same(first: TrainedMember, second: TrainedMember) -> bool:
    return first.history == second.history and all(
        torch.equal(first.state[name], second.state[name]) for name in first.state
    )


def test_both_targets_are_learned_with_the_same_convolutions():
    members = fit_both(n=200, epochs=14, patience=14)
    assert [member.target_name for member in members] == ["alm_kg", "crt_s"]
    shared, own = [], []
    for name, tensor in members[0].state.items():
        (shared if name.startswith("backbone.") else own).append(torch.equal(tensor, members[1].state[name]))
    assert all(shared)
    assert not all(own)
    x_NHW, y_TN = measure(150, seed=9)
    mu_MN, sigma_MN = predict_members([load_member(member) for member in members], x_NHW, batch_size=32, device="cpu")
    for mu_N, y_N in zip(mu_MN, y_TN, strict=True):
        known_N = np.isfinite(y_N)
        assert np.corrcoef(mu_N[known_N], y_N[known_N])[0, 1] > 0.85
    assert (sigma_MN > 0).all()


@pytest.mark.parametrize("trainable", ["all", "last_block"])
def test_resumed_equals_undisturbed_bit_for_bit(trainable):
    states: list[bytes] = []
    whole = fit_both(trainable=trainable, on_epoch=lambda _record, snapshot: states.append(snapshot()))
    for state in states[1:]:
        resumed = fit_both(trainable=trainable, state=state)
        assert all(same(a, b) for a, b in zip(whole, resumed, strict=True))
    assert not same(whole[0], fit_both(trainable=trainable, seed=4)[0])


def test_the_history_is_the_sum_of_the_targets_likelihoods():
    from sarc_ray.stats.uncertainty import gaussian_nll

    members = fit_both(epochs=2)
    x_NHW, y_TN = measure(40, seed=2)
    total = 0.0
    for member, y_N in zip(members, y_TN, strict=True):
        loaded = load_member(member)
        linear = dataclasses.replace(loaded, scale=dataclasses.replace(loaded.scale, transform="identity"))
        (mu_N,), (sigma_N,) = predict_members([linear], x_NHW, batch_size=16, device="cpu")
        known_N, scale = np.isfinite(y_N), loaded.scale
        measured_N = np.log(y_N[known_N]) if scale.transform == "log" else y_N[known_N]
        total += gaussian_nll(measured_N, mu_N[known_N], sigma_N[known_N]).mean() - np.log(scale.sd)
    assert total == pytest.approx(members[0].best_tune_nll, abs=1e-4)


def test_a_worker_trains_one_network_and_keeps_a_member_for_each_target():
    x_NHW, _ = measure(60, seed=1)
    told = []
    results = train_unit(task(), (0, 1), x_NHW, on_epoch=lambda record, _snapshot: told.append(record.epoch))
    assert task().units() == [(0, 1)]
    assert dataclasses.replace(task(), heads="one_target").units() == [(0,), (1,)]
    assert told == [0, 1]
    assert list(results) == ["alm_kg", "crt_s"]
    again = train_member(task(), x_NHW)
    assert all(results[name].data == again[name].data for name in results)
    members = members_from_bytes([result.data for result in results.values()])
    assert members[0].network.backbone is members[1].network.backbone
    mu_MN, _ = predict_members(members, x_NHW, batch_size=16, device="cpu")
    assert np.array_equal(mu_MN, np.stack([result.mu_N for result in results.values()]))
    maps = [grad_cam([member], x_NHW[:4], device="cpu").mean_NHW for member in members]
    assert all(one.max() > 0 for one in maps)
    assert not np.array_equal(*maps)


def test_frozen_convolutions_and_unmeasured_targets_are_refused():
    with pytest.raises(ConfigError, match=r"ensemble.heads: all_targets: found with network.trainable: head"):
        fit_both(trainable="head")
    with pytest.raises(ValueError, match=r"cache_features: found true with ensemble.heads: all_targets"):
        fit_both(cache_features=True)
    x_NHW, y_TN = measure(60, seed=1)
    with pytest.raises(ValueError, match="y_train_TN: crt_s was measured in none of the"):
        train_member(task(y_TN=np.stack([y_TN[0], np.full(60, np.nan)])), x_NHW)

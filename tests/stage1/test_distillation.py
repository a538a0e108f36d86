"""One network for an ensemble: it learns mean and both variances, from answers for unseen pictures alone."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from sarc_ray.errors import BundleError, ConfigError, TrainingError
from sarc_ray.stage1.answers import distilled_columns, predict_columns
from sarc_ray.stage1.checkpoint import member_from_bytes, member_to_bytes, members_from_bytes, trained_from_bytes
from sarc_ray.stage1.distillation import Answers, distil, distillation_loss, ensemble_answers
from sarc_ray.stage1.ensemble import (
    distilled_from_features,
    mixture,
    pooled_features,
    predict_distilled,
    predict_members,
    prediction_columns,
)
from sarc_ray.stage1.fit import TrainedMember
from sarc_ray.stage1.holdout import plan_members
from sarc_ray.stage1.member import MemberResult
from sarc_ray.stage1.settings import AugmentConfig, DistillConfig, FitConfig, NetworkConfig
from tests.stage1.toy import AUGMENT, FIT, NETWORK, TARGET, draw_pictures, fit_toy

TARGETS = (TARGET, dataclasses.replace(TARGET, name="crt_s", unit="s", transform="log"))
N_MEMBERS = (5, 4)


def truth(y_N):
    """What a made-up ensemble says: noise grows with lean mass, disagreement falls with it; chair rise goes down."""
    mu_TN = np.stack([y_N, 30.0 - y_N])
    aleatoric_TN = np.stack([np.exp((y_N - 20.0) / 5.0), np.full(len(y_N), 2.0)])
    epistemic_TN = np.stack([0.5 * np.exp(-(y_N - 20.0) / 5.0), np.full(len(y_N), 0.1)])
    return mu_TN, aleatoric_TN, epistemic_TN


def answers(y_N, *, seed, pairs=True):
    """Of two members each: the epistemic part is the truth times chi-squared with one degree of freedom."""
    mu_TN, aleatoric_TN, epistemic_TN = truth(y_N)
    noise_TN = np.random.default_rng(seed).normal(size=epistemic_TN.shape) ** 2 if pairs else 1.0
    return Answers(mu_TN=mu_TN, aleatoric_TN=aleatoric_TN, epistemic_TN=epistemic_TN * noise_TN)


def distil_toy(*, n=64, epochs=3, seed=3, state=None, on_epoch=None, trainable="all") -> tuple[TrainedMember, ...]:
    x_train_NHW, y_train_N, _ = draw_pictures(n, seed=1)
    x_tune_NHW, y_tune_N, _ = draw_pictures(40, seed=2)
    return distil(
        x_train_NHW=x_train_NHW,
        train=answers(y_train_N, seed=5),
        x_tune_NHW=x_tune_NHW,
        tune=answers(y_tune_N, seed=6, pairs=False),
        targets=TARGETS,
        n_members=N_MEMBERS,
        network=NetworkConfig(**(NETWORK | {"trainable": trainable})),
        augment=AugmentConfig(**AUGMENT),
        fit=FitConfig(**(FIT | {"patience": epochs})),
        config=DistillConfig(epochs=epochs, learning_rate=3e-3),
        seed=seed,
        state=state,
        on_epoch=on_epoch,
    )


def test_the_network_learns_the_mean_and_both_variances():
    parts = members_from_bytes([member_to_bytes(part) for part in distil_toy(n=400, epochs=16)])
    x_NHW, y_N, _ = draw_pictures(200, seed=9)
    mu_TN, aleatoric_TN, epistemic_TN = truth(y_N)
    said = predict_distilled(parts, x_NHW, batch_size=32, device="cpu")
    for number, one in enumerate(said):
        assert np.corrcoef(one.mu_N, mu_TN[number])[0, 1] > 0.9
        assert one.var_aleatoric_N.mean() == pytest.approx(aleatoric_TN[number].mean(), rel=0.25)
        # Learned from one rough estimate for each picture, of which half are below 0.45 of what they estimate.
        assert one.var_epistemic_N.mean() == pytest.approx(epistemic_TN[number].mean(), rel=0.35)
    assert np.corrcoef(np.log(said[0].var_aleatoric_N), np.log(aleatoric_TN[0]))[0, 1] > 0.8
    assert np.corrcoef(np.log(said[0].var_epistemic_N), np.log(epistemic_TN[0]))[0, 1] > 0.6


def test_the_loss_is_smallest_at_the_mean_of_the_estimates():
    estimates_B = torch.tensor([0.0, 0.2, 0.3, 1.5])
    mean = float(estimates_B.mean())
    taught_KB = torch.stack([torch.zeros(4), torch.ones(4), estimates_B])

    def loss(variance):
        zero_B = torch.zeros(4)
        return float(distillation_loss((zero_B, zero_B, torch.full((4,), variance).log()), taught_KB))

    assert loss(mean) < min(loss(0.95 * mean), loss(1.05 * mean))
    assert loss(mean) < loss(float(estimates_B.median()))


def test_resumed_equals_undisturbed_bit_for_bit_and_another_seed_is_another_network():
    states: list[bytes] = []
    whole = distil_toy(on_epoch=lambda _record, snapshot: states.append(snapshot()))
    resumed = distil_toy(state=states[0])
    for first, second in zip(whole, resumed, strict=True):
        assert first.history == second.history
        assert all(torch.equal(first.state[name], second.state[name]) for name in first.state)
    assert distil_toy(seed=4)[0].history != whole[0].history
    with pytest.raises(TrainingError, match="another fit"):
        distil_toy(seed=4, state=states[0])


def test_files_say_that_they_answer_for_an_ensemble():
    part = distil_toy(epochs=1)[0]
    again = trained_from_bytes(member_to_bytes(part))
    assert again.distilled_from == 5
    assert member_to_bytes(again) == member_to_bytes(part)
    loaded = member_from_bytes(member_to_bytes(part))
    assert loaded.distilled_from == 5
    of_four = member_from_bytes(member_to_bytes(dataclasses.replace(part, distilled_from=4)))
    assert of_four.content_hash != loaded.content_hash
    ordinary = member_to_bytes(fit_toy(epochs=1))
    assert b"distilled_from" not in ordinary
    with pytest.raises(BundleError, match="tensors do not fit"):
        member_from_bytes(member_to_bytes(dataclasses.replace(trained_from_bytes(ordinary), distilled_from=5)))
    with pytest.raises(ValueError, match="found an ordinary one"):
        predict_distilled([member_from_bytes(ordinary)], draw_pictures(4, seed=1)[0], batch_size=4, device="cpu")


def test_columns_are_those_of_an_ensemble_of_that_size():
    """With an ensemble's own numbers, the columns are the ensemble's."""
    rng = np.random.default_rng(1)
    mu_MN, sigma_MN = rng.normal(20.0, 1.0, (5, 30)), rng.uniform(1.0, 2.0, (5, 30))
    wanted = prediction_columns("alm_kg", mu_MN, sigma_MN, positive=True, sigma_scale=1.2)
    said = mixture(mu_MN, sigma_MN, ddof=1)
    found = distilled_columns("alm_kg", said, n_members=5, positive=True, sigma_scale=1.2)
    assert list(found) == list(wanted)
    for name in wanted:
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-12)
    assert np.isnan(distilled_columns("x", said, n_members=5, positive=False)["x_uncertainty_pct"]).all()


def test_features_answer_as_pictures_do_and_neighbours_do_not_matter():
    parts = members_from_bytes([member_to_bytes(part) for part in distil_toy(epochs=2)])
    x_NHW, _, _ = draw_pictures(21, seed=9)
    said = predict_distilled(parts, x_NHW, batch_size=8, device="cpu")
    features_NF = pooled_features(parts[0], x_NHW, batch_size=8, device="cpu")
    for part, one in zip(parts, said, strict=True):
        other = distilled_from_features(part, features_NF, threads=1)
        assert np.array_equal(one.mu_N, other.mu_N)
        assert np.array_equal(one.var_epistemic_N, other.var_epistemic_N)
    arguments = {"targets": TARGETS, "sigma_scale": (1.1, 1.0), "batch_size": 8, "device": "cpu"}
    whole = predict_columns([[part] for part in parts], x_NHW, **arguments)
    turned = predict_columns([[part] for part in parts], x_NHW[::-1].copy(), **arguments)
    assert all(np.array_equal(whole[name], turned[name][::-1]) for name in whole)
    np.testing.assert_allclose(
        whole["alm_kg_sigma"] ** 2, whole["alm_kg_var_aleatoric"] + whole["alm_kg_var_epistemic"], rtol=1e-12
    )
    assert whole["alm_kg_var_epistemic"] == pytest.approx(1.1**2 * said[0].var_epistemic_N * 4 / 5)


def test_an_ensemble_answers_as_before_through_the_common_door():
    members = members_from_bytes([member_to_bytes(fit_toy(epochs=1, seed=seed)) for seed in (1, 2)])
    x_NHW, _, _ = draw_pictures(10, seed=9)
    found = predict_columns([members], x_NHW, targets=[TARGET], sigma_scale=[1.3], batch_size=4, device="cpu")
    mu_MN, sigma_MN = predict_members(members, x_NHW, batch_size=4, device="cpu")
    wanted = prediction_columns("alm_kg", mu_MN, sigma_MN, positive=True, sigma_scale=1.3)
    assert all(np.array_equal(found[name], wanted[name]) for name in wanted)


def test_answers_for_training_patients_are_of_members_that_never_saw_them():
    """Members who saw a patient say nonsense of that patient here; none of it may arrive."""
    n, rng = 30, np.random.default_rng(3)
    training_N = np.arange(n) < 24
    plan = plan_members(
        "repeated_folds", members=4, patient_N=np.arange(n), y_N=np.zeros(n), training_N=training_N, seed=1
    )
    mu_IN, sigma_IN = rng.normal(20.0, 1.0, (4, n)), rng.uniform(1.0, 2.0, (4, n))
    members = [
        {
            "alm_kg": MemberResult(
                data=b"", mu_N=np.where(speaks_N, mu_N, 1e6), sigma_N=np.where(speaks_N, sigma_N, 1e6), history=()
            )
        }
        for mu_N, sigma_N, speaks_N in zip(mu_IN, sigma_IN, plan.speaks_IN, strict=True)
    ]
    found = ensemble_answers(members, [TARGET], plan.speaks_IN, np.ones(n, dtype=bool))
    first = np.flatnonzero(plan.speaks_IN[:, 0])
    assert len(first) == 2
    assert found.mu_TN[0, 0] == pytest.approx(mu_IN[first, 0].mean())
    assert found.epistemic_TN[0, 0] == pytest.approx((mu_IN[first[0], 0] - mu_IN[first[1], 0]) ** 2 / 2)
    assert found.aleatoric_TN[0, 0] == pytest.approx((sigma_IN[first, 0] ** 2).mean())
    assert found.mu_TN[0, -1] == pytest.approx(mu_IN[:, -1].mean())
    assert found.mu_TN.max() < 100
    some = ensemble_answers(members, [TARGET], plan.speaks_IN, training_N)
    assert np.array_equal(some.mu_TN, found.of(training_N).mu_TN)


def test_frozen_convolutions_and_missing_answers_are_refused():
    with pytest.raises(ConfigError, match=r"distill: found with network.trainable: head"):
        distil_toy(trainable="head")
    with pytest.raises(ValueError, match="epochs: found 0"):
        DistillConfig(epochs=0, learning_rate=1e-3)
    with pytest.raises(ValueError, match="learning_rate: found 0"):
        DistillConfig(epochs=1, learning_rate=0)
    x_NHW, y_N, _ = draw_pictures(16, seed=1)
    good = answers(y_N, seed=1)
    holed = dataclasses.replace(good, mu_TN=np.where(np.arange(16) == 3, np.nan, good.mu_TN))
    with pytest.raises(ValueError, match=r"train.mu_TN: found shape \(2, 16\) with 2 missing values"):
        distil(
            x_train_NHW=x_NHW,
            train=holed,
            x_tune_NHW=x_NHW,
            tune=good,
            targets=TARGETS,
            n_members=N_MEMBERS,
            network=NetworkConfig(**NETWORK),
            augment=AugmentConfig(**AUGMENT),
            fit=FitConfig(**FIT),
            config=DistillConfig(epochs=1, learning_rate=1e-3),
            seed=1,
        )

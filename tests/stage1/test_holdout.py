"""Who must not see whom, who speaks for whom, and that training patients' features mean what new patients' mean."""

from __future__ import annotations

import numpy as np
import pytest

from sarc_ray.errors import ConfigError
from sarc_ray.stage1.ensemble import mixture
from sarc_ray.stage1.holdout import MemberPlan, hold_out_folds, hold_out_pairs, plan_members


def draw_patients(n_patients: int = 101, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    groups_N = rng.permutation(np.repeat(np.arange(n_patients), rng.integers(1, 4, n_patients)))
    return groups_N, rng.normal(size=n_patients)[groups_N]


@pytest.mark.parametrize("members", [3, 5, 8])
def test_every_patient_is_unseen_by_exactly_two_members(members):
    groups_N, y_N = draw_patients()
    held_out_MN = hold_out_pairs(groups_N, y_N, members=members, seed=1)
    assert held_out_MN.shape == (members, len(y_N))
    assert (held_out_MN.sum(axis=0) == 2).all()


@pytest.mark.parametrize("deal", [hold_out_pairs, hold_out_folds])
def test_patients_are_never_split(deal):
    groups_N, y_N = draw_patients()
    held_out_MN = deal(groups_N, y_N, members=5, seed=1)
    for patient in np.unique(groups_N):
        part_MN = held_out_MN[:, groups_N == patient]
        assert (part_MN == part_MN[:, :1]).all()


def test_any_two_members_hold_out_as_many_patients_together_and_alone():
    y_N = (np.arange(200) < 30).astype(float)
    held_out_MN = hold_out_pairs(np.arange(200), y_N, members=5, seed=2).astype(int)
    together_MM = held_out_MN @ held_out_MN.T
    assert (np.diag(together_MM) == 80).all()
    assert (together_MM[~np.eye(5, dtype=bool)] == 20).all()
    assert (held_out_MN[:, y_N == 1].sum(axis=1) == 12).all()


def test_folds_are_balanced_in_size_and_outcome():
    y_N = (np.arange(200) < 30).astype(float)
    fold_MN = hold_out_folds(np.arange(200), y_N, members=5, seed=2)
    assert (fold_MN.sum(axis=0) == 1).all()
    assert (fold_MN.sum(axis=1) == 40).all()
    assert (fold_MN[:, y_N == 1].sum(axis=1) == 6).all()


def test_patients_without_a_value_are_dealt_too():
    groups_N, y_N = draw_patients()
    y_N = np.where(groups_N % 3 == 0, np.nan, y_N)
    assert (hold_out_pairs(groups_N, y_N, members=5, seed=1).sum(axis=0) == 2).all()


def test_deal_depends_on_the_seed_alone():
    groups_N, y_N = draw_patients()
    first, again, other = (hold_out_pairs(groups_N, y_N, members=5, seed=s) for s in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_too_few_members_or_patients():
    with pytest.raises(ConfigError, match=r"found 2.*3 or more"):
        hold_out_pairs(np.arange(9), np.arange(9.0), members=2, seed=0)
    with pytest.raises(ConfigError, match=r"found 5, which takes 10 training patients or more, .* only 9"):
        hold_out_pairs(np.arange(9), np.arange(9.0), members=5, seed=0)
    with pytest.raises(ConfigError, match=r"found 5, which takes 5 training patients or more, .* only 4"):
        hold_out_folds(np.arange(4), np.arange(4.0), members=5, seed=0)


def make_plan(way, *, training_N, members=5, seed=1):
    n = len(training_N)
    y_N = np.where(training_N, np.arange(n) % 7, np.nan)
    return plan_members(way, members=members, patient_N=np.arange(n), y_N=y_N, training_N=training_N, seed=seed)


TRAINING_N = np.arange(130) % 13 < 10


def test_repeated_folds_take_no_more_members_and_the_unseeing_two_speak():
    plan = make_plan("repeated_folds", training_N=TRAINING_N)
    assert plan.held_out_IN.shape == (5, 130)
    assert not plan.held_out_IN[:, ~TRAINING_N].any()
    np.testing.assert_array_equal(plan.speaks_IN[:, TRAINING_N], plan.held_out_IN[:, TRAINING_N])
    assert (plan.speaks_IN.sum(axis=0) == np.where(TRAINING_N, 2, 5)).all()


def test_ensembles_per_fold_speak_for_their_folds_alone_and_others_score():
    plan = make_plan("ensembles_per_fold", training_N=TRAINING_N)
    assert plan.held_out_IN.shape == (30, 130)
    assert not plan.held_out_IN[:5].any()
    np.testing.assert_array_equal(plan.speaks_IN[:5], np.tile(~TRAINING_N, (5, 1)))
    np.testing.assert_array_equal(plan.speaks_IN[5:], plan.held_out_IN[5:])
    for fold in range(5):
        ensemble = plan.held_out_IN[5 * (fold + 1) : 5 * (fold + 2)]
        assert (ensemble == ensemble[0]).all()
        assert ensemble[0].sum() == 20
    assert (plan.speaks_IN.sum(axis=0) == 5).all()


def test_in_sample_all_see_all_training_patients_and_speak_for_all():
    plan = make_plan("in_sample", training_N=TRAINING_N, members=2)
    assert plan.held_out_IN.shape == (2, 130)
    assert not plan.held_out_IN.any()
    assert plan.speaks_IN.all()


def learn(plan: MemberPlan, *, n_draws: int = 150) -> dict[str, float]:
    """Root mean square error and unbiased epistemic part of linear members, training over new patients.

    A member is a least-squares fit to its patients, each with a random weight, as networks differ by their seeds.
    """
    rng = np.random.default_rng(0)
    error, epistemic = np.zeros((2, 2))
    training_N = TRAINING_N
    for _ in range(n_draws):
        x_NF = rng.normal(size=(len(training_N), 12))
        y_N = x_NF.sum(axis=1) + rng.normal(size=len(x_NF))
        mu_IN = []
        for held_out_N in plan.held_out_IN:
            weight_N = np.sqrt(rng.exponential(size=len(x_NF)) * (training_N & ~held_out_N))
            mu_IN.append(x_NF @ np.linalg.lstsq(weight_N[:, None] * x_NF, weight_N * y_N, rcond=None)[0])
        found = mixture(mu_IN, np.ones_like(mu_IN), ddof=1, use_MN=plan.speaks_IN)
        for part, rows_N in enumerate((training_N, ~training_N)):
            error[part] += np.mean((found.mu_N - y_N)[rows_N] ** 2)
            epistemic[part] += found.var_epistemic_N[rows_N].mean()
    return {"error": float(np.sqrt(error[0] / error[1])), "epistemic": float(epistemic[0] / epistemic[1])}


def test_with_repeated_folds_the_epistemic_part_means_the_same_for_training_and_new_patients():
    found = learn(make_plan("repeated_folds", training_N=TRAINING_N))
    assert found["epistemic"] == pytest.approx(1.0, abs=0.06)
    # The mean of two members is a little noisier than that of five.
    assert 1.0 < found["error"] < 1.15


def test_folds_in_a_ring_would_agree_too_well():
    """The pairs that speak would have more patients in common than others: why patients are dealt to all pairs."""
    fold_N = np.where(TRAINING_N, np.cumsum(TRAINING_N) % 5, -1)
    ring_MN = (fold_N == np.arange(5)[:, None]) | (fold_N == (np.arange(5)[:, None] + 1) % 5)
    found = learn(MemberPlan(held_out_IN=ring_MN, speaks_IN=ring_MN | ~TRAINING_N))
    assert found["epistemic"] < 0.92


def test_ensembles_per_fold_are_honest_but_know_less_than_those_that_score():
    found = learn(make_plan("ensembles_per_fold", training_N=TRAINING_N), n_draws=40)
    assert 1.0 < found["epistemic"] < 1.5
    assert 1.0 < found["error"] < 1.08


def test_in_sample_features_are_too_good():
    found = learn(make_plan("in_sample", training_N=TRAINING_N))
    assert found["error"] < 0.9

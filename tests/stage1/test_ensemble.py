from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sarc_ray.stage1.checkpoint import load_member
from sarc_ray.stage1.ensemble import (
    mixture,
    pooled_features,
    predict_from_features,
    predict_members,
    prediction_columns,
)
from sarc_ray.stage1.features import extract_features
from sarc_ray.stage1.settings import AugmentConfig, EnsembleConfig
from tests.stage1.toy import AUGMENT, draw_pictures, fit_toy


def config(**changes):
    return EnsembleConfig(
        **(
            {"members": 5, "training_features": "repeated_folds", "recalibration": "none", "missing_allowed": 0}
            | {"heads": "one_target"}
            | changes
        )
    )


def test_settings_that_make_no_ensemble_are_refused():
    with pytest.raises(ValueError, match="members: found 2 with training_features: repeated_folds, allowed: 3 or more"):
        config(members=2)
    assert config(members=2, training_features="in_sample").members == 2
    with pytest.raises(ValueError, match="members: found 1"):
        config(members=1, training_features="in_sample")
    with pytest.raises(
        ValueError, match="training_features: found 'memorised', allowed: repeated_folds, ensembles_per"
    ):
        config(training_features="memorised")
    with pytest.raises(ValueError, match="recalibration: found 'isotonic', allowed: none, scale"):
        config(recalibration="isotonic")


# Check values of the project's notes on statistics: a mixture worked out by hand.
MU_M1 = [[15.0], [16.0], [14.5], [15.5], [17.0]]
SIGMA_M1 = [[2.0], [1.8], [2.5], [2.2], [2.0]]


def test_mixture_check_values():
    got = mixture(MU_M1, SIGMA_M1)
    assert got.mu_N[0] == pytest.approx(15.6, abs=1e-12)
    assert got.sigma_N[0] ** 2 == pytest.approx(5.206, abs=1e-12)
    assert got.var_aleatoric_N[0] == pytest.approx(4.466, abs=1e-12)
    assert got.var_epistemic_N[0] == pytest.approx(0.740, abs=1e-12)


def test_mixture_equals_the_moments_of_draws():
    rng = np.random.default_rng(0)
    which = rng.integers(0, 5, 1_000_000)
    draws = rng.normal(np.array(MU_M1)[which, 0], np.array(SIGMA_M1)[which, 0])
    got = mixture(MU_M1, SIGMA_M1)
    np.testing.assert_allclose([draws.mean(), draws.std()], [got.mu_N[0], got.sigma_N[0]], rtol=2e-3)


def test_only_members_in_use_count_and_others_may_be_missing():
    mu_MN, sigma_MN = np.tile(MU_M1, 2), np.tile(SIGMA_M1, 2)
    use_MN = np.array([[1, 0], [1, 0], [0, 1], [0, 1], [0, 1]], dtype=bool)
    mu_MN[~use_MN] = np.nan
    got = mixture(mu_MN, sigma_MN, use_MN=use_MN)
    np.testing.assert_allclose(got.mu_N, [15.5, 47.0 / 3])
    np.testing.assert_allclose(got.var_epistemic_N, [0.25, np.var([14.5, 15.5, 17.0])])


def test_ddof_1_does_not_depend_on_the_number_of_members():
    rng = np.random.default_rng(0)
    mu_MN, sigma_MN = rng.normal(0.0, 2.0, (5, 50_000)), np.ones((5, 50_000))
    two_MN = np.zeros((5, 50_000), dtype=bool)
    two_MN[:2] = True
    for ddof, expected in ((1, (4.0, 4.0)), (0, (3.2, 2.0))):
        got = [mixture(mu_MN, sigma_MN, ddof=ddof, use_MN=use).var_epistemic_N.mean() for use in (None, two_MN)]
        np.testing.assert_allclose(got, expected, rtol=0.03)


def test_mixture_refuses_what_it_cannot_combine():
    with pytest.raises(ValueError, match="shapes must be equal"):
        mixture(MU_M1, SIGMA_M1[:3])
    with pytest.raises(ValueError, match="missing or infinite"):
        mixture([[np.nan]], [[1.0]])
    with pytest.raises(ValueError, match="has 1 members, more than 1"):
        mixture([[1.0]], [[1.0]], ddof=1)


def test_columns_report_ddof_0_and_the_feature_uses_ddof_1():
    columns = prediction_columns("alm_kg", MU_M1, SIGMA_M1, positive=True)
    assert list(columns) == [
        "alm_kg_mu",
        "alm_kg_sigma",
        "alm_kg_var_aleatoric",
        "alm_kg_var_epistemic",
        "alm_kg_uncertainty_pct",
    ]
    assert columns["alm_kg_var_epistemic"][0] == pytest.approx(0.74)
    assert columns["alm_kg_uncertainty_pct"][0] == pytest.approx(100 * np.sqrt(4.466 + 0.74 * 5 / 4) / 15.6)


def test_relative_uncertainty_has_a_ceiling_and_needs_a_positive_target():
    near_zero = prediction_columns("t", [[0.001, -2.0], [0.001, -2.0]], [[1.0, 1.0], [1.0, 1.0]], positive=True)
    np.testing.assert_allclose(near_zero["t_uncertainty_pct"], 1000.0)
    assert np.isnan(prediction_columns("t", MU_M1, SIGMA_M1, positive=False)["t_uncertainty_pct"]).all()


def test_recalibration_scales_sigma_and_both_parts_of_the_variance():
    plain, scaled = (prediction_columns("t", MU_M1, SIGMA_M1, positive=True, sigma_scale=s) for s in (1.0, 1.5))
    assert scaled["t_mu"][0] == plain["t_mu"][0]
    for part, factor in (("sigma", 1.5), ("uncertainty_pct", 1.5), ("var_aleatoric", 2.25), ("var_epistemic", 2.25)):
        assert scaled[f"t_{part}"][0] == pytest.approx(factor * plain[f"t_{part}"][0])
    assert scaled["t_sigma"] ** 2 == pytest.approx(scaled["t_var_aleatoric"] + scaled["t_var_epistemic"])


@pytest.fixture(scope="module")
def members():
    return [load_member(fit_toy(epochs=1, n=32, seed=seed)) for seed in (1, 2)]


def test_a_row_does_not_depend_on_its_neighbours(members):
    x_NHW, _, _ = draw_pictures(37, seed=5)
    mu_MN, sigma_MN = predict_members(members, x_NHW, batch_size=16, device="cpu")
    order_N = np.random.default_rng(0).permutation(37)
    mixed_MN, mixed_sigma_MN = predict_members(members, x_NHW[order_N], batch_size=16, device="cpu")
    assert np.array_equal(mixed_MN, mu_MN[:, order_N])
    assert np.array_equal(mixed_sigma_MN, sigma_MN[:, order_N])
    alone_M1, _ = predict_members(members, x_NHW[36:], batch_size=16, device="cpu")
    assert np.array_equal(alone_M1[:, 0], mu_MN[:, 36])


def test_mixed_precision_moves_predictions_a_little_and_rows_still_stand_alone(members):
    x_NHW, _, _ = draw_pictures(37, seed=5)
    mu_MN, sigma_MN = predict_members(members, x_NHW, batch_size=16, device="cpu")
    mixed = {"batch_size": 16, "device": "cpu", "precision": "bfloat16"}
    near_MN, near_sigma_MN = predict_members(members, x_NHW, **mixed)
    assert 0.0 < np.abs(near_MN - mu_MN).max() < 0.1 * sigma_MN.min()
    np.testing.assert_allclose(near_sigma_MN, sigma_MN, rtol=0.05)
    alone_M1, _ = predict_members(members, x_NHW[36:], **mixed)
    assert np.array_equal(alone_M1[:, 0], near_MN[:, 36])


def test_members_together_predict_as_each_alone(members):
    x_NHW, _, _ = draw_pictures(20, seed=5)
    head_only = replace(members[0], network=load_member(fit_toy(epochs=1, n=32, seed=1)).network)
    trio = [*members, head_only]
    mu_MN, sigma_MN = predict_members(trio, x_NHW, batch_size=8, device="cpu")
    for row, member in enumerate(trio):
        alone = predict_members([member], x_NHW, batch_size=8, device="cpu")
        assert np.array_equal(alone[0][0], mu_MN[row])
        assert np.array_equal(alone[1][0], sigma_MN[row])


def test_shared_convolutions_run_once(members, monkeypatch):
    calls = []
    network_class = type(members[0].network)
    original = network_class.feature_maps
    monkeypatch.setattr(network_class, "feature_maps", lambda self, x: calls.append(1) or original(self, x))
    x_NHW, _, _ = draw_pictures(8, seed=5)
    predict_members([members[0], members[0], members[1]], x_NHW, batch_size=8, device="cpu")
    assert len(calls) == 2


@pytest.mark.parametrize("grid", [{}, {"feature_blocks": (3, 4), "pooling_grid": 2}])
def test_pooled_features_come_from_the_same_forward_pass(grid, monkeypatch):
    member = load_member(fit_toy(epochs=1, n=32, seed=1, **grid))
    x_NHW, _, _ = draw_pictures(20, seed=5)
    expected_NF = extract_features(
        member.network, x_NHW, config=AugmentConfig(**AUGMENT), copies=0, seed=0, batch_size=8, threads=1, device="cpu"
    )[0]
    calls = []
    original = type(member.network).feature_maps
    monkeypatch.setattr(type(member.network), "feature_maps", lambda self, x: calls.append(1) or original(self, x))
    features_NF = pooled_features(member, x_NHW, batch_size=8, device="cpu")
    assert len(calls) == 3
    np.testing.assert_array_equal(features_NF, expected_NF)


def test_predicting_refuses_other_pictures(members):
    with pytest.raises(ValueError, match="the member knows"):
        predict_members(members, np.zeros((2, 48, 48), dtype=np.uint8), batch_size=2)
    with pytest.raises(ValueError, match="none given"):
        predict_members([], np.zeros((2, 48, 48), dtype=np.uint8), batch_size=2)
    with pytest.raises(ValueError, match="expected uint8"):
        predict_members(members, np.zeros((2, 32, 32)), batch_size=2)


def test_known_features_give_the_same_predictions_as_the_pictures():
    member = load_member(fit_toy(epochs=1, trainable="head", cache_features=True, ridge_start=True))
    x_NHW, _, _ = draw_pictures(40, seed=4)
    features_NF = extract_features(
        member.network, x_NHW, config=AugmentConfig(**AUGMENT), copies=0, seed=0, batch_size=32, threads=1, device="cpu"
    )[0]
    mu_MN, sigma_MN = predict_members([member], x_NHW, batch_size=32, device="cpu")
    mu_N, sigma_N = predict_from_features(member, features_NF, threads=1)
    assert np.array_equal(mu_N, mu_MN[0])
    assert np.array_equal(sigma_N, sigma_MN[0])

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from sarc_ray.stage1.checkpoint import load_member
from sarc_ray.stage1.ensemble import predict_members
from sarc_ray.stage1.ridge import RidgeFit, fit_ridge
from sarc_ray.stage1.settings import FitConfig
from tests.stage1.toy import FIT, draw_pictures, fit_toy

HEAD = {"trainable": "head", "cache_features": True, "ridge_start": True, "feature_blocks": (2, 4), "pooling_grid": 2}


def draw(*, n_versions: int, n_pictures: int, n_features: int) -> tuple[torch.Tensor, ...]:
    rng = np.random.default_rng(1)
    z_NF = rng.normal(size=(n_pictures + 30, n_features))
    y_N = z_NF[:, :3].sum(axis=1) + rng.normal(size=n_pictures + 30)
    z_KNF = z_NF[None, 30:] + 0.3 * rng.normal(size=(n_versions, n_pictures, n_features))
    z_KNF -= z_KNF.mean(axis=(0, 1))
    train_N = y_N[30:] - y_N[30:].mean()
    return tuple(torch.from_numpy(array) for array in (z_KNF, train_N, z_NF[:30], y_N[:30]))


def alpha(fit: RidgeFit, z_KNF: torch.Tensor) -> float:
    return fit.penalty * float(torch.square(z_KNF).sum(dim=-1).mean())


@pytest.mark.parametrize("n_features", [8, 400], ids=["tall", "wide"])
def test_equals_scikit_learn_and_leaving_each_picture_out(n_features):
    z_KNF, y_N, z_tune_TF, y_tune_T = draw(n_versions=3, n_pictures=20, n_features=n_features)
    fit = fit_ridge(z_KNF, y_N, z_tune_TF, y_tune_T)
    reference = Ridge(alpha=alpha(fit, z_KNF), fit_intercept=False)
    reference.fit(z_KNF.flatten(0, 1).numpy(), y_N.repeat(3).numpy())
    assert np.allclose(fit.weights_F, reference.coef_, atol=1e-8)
    for left_out in (0, 7):
        kept = np.arange(20) != left_out
        reference.fit(z_KNF[:, kept].flatten(0, 1).numpy(), y_N[kept].repeat(3).numpy())
        assert np.allclose(fit.held_out_KN[:, left_out], reference.predict(z_KNF[:, left_out].numpy()), atol=1e-8)


def test_penalty_is_the_one_the_tune_split_likes_best():
    z_KNF, y_N, z_tune_TF, y_tune_T = draw(n_versions=1, n_pictures=60, n_features=40)
    chosen = fit_ridge(z_KNF, y_N, z_tune_TF, y_tune_T)
    noise = fit_ridge(z_KNF, y_N, z_tune_TF, y_tune_T[torch.arange(29, -1, -1)])
    assert noise.penalty > chosen.penalty


def test_a_head_that_learns_nothing_predicts_as_ridge_with_ridges_own_error():
    member = fit_toy(n=120, epochs=1, learning_rate=1e-12, copies=2, **HEAD)
    x_NHW, y_N, _ = draw_pictures(150, seed=9)
    loaded = load_member(member)
    mu_MN, sigma_MN = predict_members([loaded], x_NHW, batch_size=32, device="cpu")
    assert np.ptp(sigma_MN) < 1e-4 * sigma_MN.mean()
    assert np.corrcoef(mu_MN[0], y_N)[0, 1] > 0.8
    rmse = float(np.sqrt(np.mean(np.square(mu_MN[0] - y_N))))
    assert 0.75 < sigma_MN.mean() / rmse < 1.33
    assert loaded.network.linear_weights.abs().max() > 0


def test_head_without_ridge_has_no_linear_prediction():
    member = fit_toy(epochs=1, **(HEAD | {"ridge_start": False}))
    assert not member.state["linear_weights"].any()


def test_needs_cached_features():
    with pytest.raises(ValueError, match=r"ridge_start.*cache_features: true"):
        FitConfig(**(FIT | {"ridge_start": True}))

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from sarc_ray.stage1.losses import beta_nll, gaussian_nll


def test_equals_scipy_normal_density():
    rng = np.random.default_rng(0)
    mu_B, y_B, sigma_B = rng.normal(size=8), rng.normal(size=8), rng.uniform(0.1, 3, 8)
    nll = gaussian_nll(torch.tensor(mu_B), torch.tensor(sigma_B), torch.tensor(y_B))
    np.testing.assert_allclose(float(nll), -stats.norm.logpdf(y_B, mu_B, sigma_B).mean(), rtol=1e-12)


def test_is_least_at_the_true_spread():
    y_B = torch.tensor(np.random.default_rng(1).normal(0.0, 2.0, 4000))
    zero_B = torch.zeros_like(y_B)
    nll = [float(gaussian_nll(zero_B, torch.full_like(y_B, s), y_B)) for s in (1.0, 2.0, 4.0)]
    assert nll[1] < min(nll[0], nll[2])


def draw(n, *, seed):
    rng = np.random.default_rng(seed)
    mu_B = torch.tensor(rng.normal(size=n), requires_grad=True)
    sigma_B = torch.tensor(rng.uniform(0.2, 3.0, n), requires_grad=True)
    return mu_B, sigma_B, torch.tensor(rng.normal(size=n))


def test_beta_zero_is_the_plain_likelihood():
    mu_B, sigma_B, y_B = draw(8, seed=2)
    assert torch.equal(beta_nll(mu_B, sigma_B, y_B, beta=0.0), gaussian_nll(mu_B, sigma_B, y_B))


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_gradients_are_those_of_the_paper(beta):
    """Seitzer et al. 2022, equations 6 and 7; with beta 1 mu moves as half the mean squared error moves it."""
    mu_B, sigma_B, y_B = draw(16, seed=3)
    to_mu_B, to_sigma_B = torch.autograd.grad(beta_nll(mu_B, sigma_B, y_B, beta=beta), (mu_B, sigma_B))
    mu_B, sigma_B = mu_B.detach(), sigma_B.detach()
    torch.testing.assert_close(to_mu_B, (mu_B - y_B) / sigma_B ** (2 - 2 * beta) / 16)
    expected_B = (sigma_B**2 - (y_B - mu_B) ** 2) / sigma_B ** (3 - 2 * beta) / 16
    torch.testing.assert_close(to_sigma_B, expected_B)
    if beta == 1.0:
        again_B = mu_B.clone().requires_grad_()
        squared = torch.autograd.grad(0.5 * torch.nn.functional.mse_loss(again_B, y_B), again_B)[0]
        torch.testing.assert_close(to_mu_B, squared)

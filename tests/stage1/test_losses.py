from __future__ import annotations

import numpy as np
import torch
from scipy import stats

from sarc_ray.stage1.losses import gaussian_nll


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

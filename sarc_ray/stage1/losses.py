"""Losses of stage 1. Shapes: B pictures of one batch."""

from __future__ import annotations

import math

import torch

_HALF_LOG_TWO_PI = 0.5 * math.log(2.0 * math.pi)


def gaussian_nll(mu_B: torch.Tensor, sigma_B: torch.Tensor, y_B: torch.Tensor) -> torch.Tensor:
    """Mean negative log-likelihood of measurements under normal predictions, constant term included.

    Args:
        mu_B: shape (B,), predicted means.
        sigma_B: shape (B,), predicted standard deviations, > 0, in the unit of ``mu_B``.
        y_B: shape (B,), measurements in the unit of ``mu_B``.

    Returns:
        A scalar, in nats: mean of log(sigma) + 0.5 log(2 pi) + 0.5 ((y - mu) / sigma)^2.

    References:
        Nix DA, Weigend AS. Estimating the mean and variance of the target probability distribution. ICNN 1994.
        Lakshminarayanan B, Pritzel A, Blundell C. Simple and scalable predictive uncertainty estimation
        using deep ensembles. NeurIPS 2017.

    Example:
        >>> import torch
        >>> one = torch.ones(1)
        >>> round(float(gaussian_nll(one, one, one)), 6)
        0.918939
    """
    deviation_B = (y_B - mu_B) / sigma_B
    return (torch.log(sigma_B) + 0.5 * deviation_B.square()).mean() + _HALF_LOG_TWO_PI


def beta_nll(mu_B: torch.Tensor, sigma_B: torch.Tensor, y_B: torch.Tensor, *, beta: float) -> torch.Tensor:
    """The Gaussian loss with each picture weighted by its own sigma^(2 beta), which takes no gradient.

    The gradient of mu is (mu - y) / sigma^(2 - 2 beta): plain likelihood (beta 0) learns little from pictures with a
    large sigma, so that a poor fit can excuse itself by a large sigma; beta 1 moves mu as the squared error does.
    The value is no likelihood and cannot be compared between settings of beta.

    Args:
        mu_B: shape (B,), predicted means.
        sigma_B: shape (B,), predicted standard deviations, > 0, in the unit of ``mu_B``.
        y_B: shape (B,), measurements in the unit of ``mu_B``.
        beta: 0 is ``gaussian_nll``; Seitzer et al. recommend 0.5.

    Returns:
        A scalar to minimise.

    References:
        Seitzer M, Tavakoli A, Antic D, Martius G. On the pitfalls of heteroscedastic uncertainty estimation with
        probabilistic neural networks. ICLR 2022.

    Example:
        >>> import torch
        >>> one = torch.ones(1)
        >>> round(float(beta_nll(one, 2 * one, one, beta=0.5)), 6)
        3.224171
    """
    if beta == 0.0:
        return gaussian_nll(mu_B, sigma_B, y_B)
    deviation_B = (y_B - mu_B) / sigma_B
    nll_B = torch.log(sigma_B) + 0.5 * deviation_B.square() + _HALF_LOG_TWO_PI
    return (sigma_B.detach().pow(2.0 * beta) * nll_B).mean()

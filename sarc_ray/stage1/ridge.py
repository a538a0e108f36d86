"""Ridge regression on cached features: where a head over frozen convolutions can start from.

Shapes: K versions of each training picture, N pictures, R = K N rows, F features, P principal directions, T pictures
of the tune split.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

# Penalties tried, in units of a row's mean squared length; beyond either end the answer hardly changes.
_PENALTIES = tuple(10.0 ** (exponent / 4.0) for exponent in range(-12, 9))
# Directions that vary less than this share of the leading one are rounding errors.
_SMALLEST_SHARE = 1e-9


@dataclass(frozen=True, kw_only=True, slots=True)
class RidgeFit:
    """A linear prediction of standardised targets.

    Attributes:
        weights_F: of the standardised features; there is no intercept, both sides have mean 0.
        held_out_KN: for each row, the prediction by a ridge fitted without any version of its picture.
        penalty: the one of least squared error on the tune split, in units of a row's mean squared length.
    """

    weights_F: torch.Tensor
    held_out_KN: torch.Tensor
    penalty: float


def fit_ridge(z_KNF: torch.Tensor, y_N: torch.Tensor, z_tune_TF: torch.Tensor, y_tune_T: torch.Tensor) -> RidgeFit:
    """Fit ridge regression to all versions of the training pictures, with the penalty that the tune split likes best.

    Args:
        z_KNF: standardised features, each with mean 0 over all rows.
        y_N: standardised targets, mean 0.
        z_tune_TF: features of the tune split on the same scale.
        y_tune_T: its targets.

    Returns:
        The fit in double precision.

    References:
        Hoerl AE, Kennard RW. Technometrics 1970;12:55-67. Leaving a picture out needs no second fit: with the hat
        matrix H and its block of that picture's versions, e_out = (I - H_block)^-1 e
        (Cook RD, Weisberg S. Residuals and influence in regression. 1982, appendix A.2).
    """
    z_KNF, y_N, z_tune_TF, y_tune_T = (tensor.double() for tensor in (z_KNF, y_N, z_tune_TF, y_tune_T))
    n_versions, n_pictures, _ = z_KNF.shape
    z_RF, y_R = z_KNF.flatten(0, 1), y_N.repeat(n_versions)
    left_RP, value_P, axes_FP = _decompose(z_RF)
    length = value_P.sum() / len(z_RF)
    target_P = left_RP.T @ y_R
    tune_TP = z_tune_TF @ axes_FP

    def along_axes(penalty: float) -> torch.Tensor:
        return value_P.sqrt() / (value_P + penalty * length) * target_P

    errors = [float(torch.square(tune_TP @ along_axes(penalty) - y_tune_T).mean()) for penalty in _PENALTIES]
    penalty = _PENALTIES[errors.index(min(errors))]
    shrink_P = value_P / (value_P + penalty * length)
    left_NKP = left_RP.reshape(n_versions, n_pictures, -1).transpose(0, 1)
    hat_NKK = (left_NKP * shrink_P) @ left_NKP.transpose(1, 2)
    residual_NK = y_N[:, None] - left_NKP @ (shrink_P * target_P)
    eye_KK = torch.eye(n_versions, dtype=hat_NKK.dtype, device=hat_NKK.device)
    held_out_NK = y_N[:, None] - torch.linalg.solve(eye_KK - hat_NKK, residual_NK)
    return RidgeFit(weights_F=axes_FP @ along_axes(penalty), held_out_KN=held_out_NK.T.contiguous(), penalty=penalty)


def _decompose(z_RF: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Left vectors (R, P), squared singular values and right vectors (F, P), from the smaller Gram matrix."""
    tall = z_RF.shape[0] >= z_RF.shape[1]
    value_P, vector = torch.linalg.eigh(z_RF.T @ z_RF if tall else z_RF @ z_RF.T)
    kept = value_P > _SMALLEST_SHARE * value_P[-1]
    value_P, vector = value_P[kept], vector[:, kept]
    if tall:
        return z_RF @ vector / value_P.sqrt(), value_P, vector
    return vector, value_P, z_RF.T @ vector / value_P.sqrt()

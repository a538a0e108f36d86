"""Ensembles: predictions of all members, and the mixture with its two kinds of uncertainty.

Shapes: M members, N pictures, B of one batch, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from sarc_ray.stage1.checkpoint import LoadedMember
from sarc_ray.stage1.features import FeatureArray, pad_rows
from sarc_ray.stage1.network import normalise
from sarc_ray.stage1.runtime import ByteArray, check_pictures, pick_device, reproducible, to_grey
from sarc_ray.stage1.settings import Precision

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

# A mean near zero makes sigma / mu explode; trees and regressions are better served by a ceiling.
MAX_UNCERTAINTY_PCT = 1000.0
# Rows of features at once: the head's product by rows takes rows x axes x features of memory.
_FEATURES_AT_ONCE = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class Mixture:
    """The ensemble's prediction per picture, in the target's unit (variances in its square).

    Args:
        mu_N: mean of the members' means.
        sigma_N: square root of the total variance.
        var_aleatoric_N: mean of the members' variances: noise that more data would not remove.
        var_epistemic_N: variance of the members' means: what the members do not agree on.
    """

    mu_N: FloatArray
    sigma_N: FloatArray
    var_aleatoric_N: FloatArray
    var_epistemic_N: FloatArray


def predict_members(
    members: Sequence[LoadedMember],
    x_NHW: ByteArray,
    *,
    batch_size: int,
    device: str = "auto",
    threads: int = 1,
    precision: Precision = "float32",
    on_features: Callable[[slice, FeatureArray], None] | None = None,
) -> tuple[FloatArray, FloatArray]:
    """Predict with every member, in the original unit of each member's target.

    Members of several targets may be mixed. Convolutions that members share (frozen ones) run once per picture.
    Batches are padded to a fixed size, so that a row does not depend on its neighbours.

    Args:
        members: one or more; put the ones that share convolutions into one call.
        x_NHW: uint8 pictures of the size that the members were trained on.
        batch_size: pictures at once.
        device: auto, cpu or cuda.
        threads: of torch on the CPU.
        precision: of the convolutions; what follows them is computed in float32.
        on_features: told, batch by batch, the rows and their pooled features by the first member's convolutions.

    Returns:
        mu_MN and sigma_MN.

    Raises:
        ValueError: no member, or pictures of another size.
    """
    mu_MN, sigma_MN = np.empty((2, len(members), len(x_NHW)))

    def take(rows: slice, n_rows: int, pooled: dict[str, torch.Tensor]) -> None:
        for number, member in enumerate(members):
            mu_B, sigma_B = member.network.predict(pooled[member.backbone_hash])
            mu_MN[number, rows], sigma_MN[number, rows] = member.scale.restore(
                mu_B[:n_rows].cpu().numpy(), sigma_B[:n_rows].cpu().numpy()
            )

    _for_batches(members, x_NHW, take, batch_size, device, threads, precision, on_features)
    return mu_MN, sigma_MN


def predict_distilled(
    members: Sequence[LoadedMember],
    x_NHW: ByteArray,
    *,
    batch_size: int,
    device: str = "auto",
    threads: int = 1,
    precision: Precision = "float32",
    on_features: Callable[[slice, FeatureArray], None] | None = None,
) -> list[Mixture]:
    """What a distilled network says for the ensemble, in the targets' units.

    Args:
        members: its parts, one for each target.
        x_NHW: uint8 pictures of the size that it knows.
        batch_size: pictures at once.
        device: auto, cpu or cuda.
        threads: of torch on the CPU.
        precision: as in ``predict_members``.
        on_features: as in ``predict_members``.

    Returns:
        For each part the ensemble's mixture as the network knows it, the epistemic part unbiased (ddof 1).

    Raises:
        ValueError: as ``predict_members``, or an ordinary member.
    """
    if not all(member.distilled_from for member in members):
        raise ValueError("members: found an ordinary one; predict_distilled is for parts of a distilled network")
    parts_TKN = np.empty((len(members), 3, len(x_NHW)))

    def take(rows: slice, n_rows: int, pooled: dict[str, torch.Tensor]) -> None:
        for number, member in enumerate(members):
            parts = member.network.predict_parts(pooled[member.backbone_hash])
            parts_TKN[number, :, rows] = torch.stack(parts)[:, :n_rows].cpu().numpy()

    _for_batches(members, x_NHW, take, batch_size, device, threads, precision, on_features)
    return [_restored(member, parts_KN) for member, parts_KN in zip(members, parts_TKN, strict=True)]


def pooled_features(
    member: LoadedMember, x_NHW: ByteArray, *, batch_size: int, device: str = "auto", threads: int = 1
) -> FeatureArray:
    """Pooled features of pictures by one member's convolutions, exactly as predicting makes them, shape (N, F)."""
    parts: list[FeatureArray] = []
    predict_members(
        [member],
        x_NHW,
        batch_size=batch_size,
        device=device,
        threads=threads,
        on_features=lambda _, features_BF: parts.append(features_BF),
    )
    return np.concatenate(parts)


def predict_from_features(
    member: LoadedMember, features_NF: FeatureArray, *, threads: int
) -> tuple[FloatArray, FloatArray]:
    """What ``predict_members`` answers for pictures whose pooled features are known: mu_N and sigma_N."""
    cpu = torch.device("cpu")
    with reproducible(threads=threads, device=cpu), torch.inference_mode():
        network = member.network.to(cpu)
        parts = [
            network.predict(torch.from_numpy(np.array(features_NF[start : start + _FEATURES_AT_ONCE])))
            for start in range(0, len(features_NF), _FEATURES_AT_ONCE)
        ]
    mu_N, sigma_N = (torch.cat(values).numpy() for values in zip(*parts, strict=True))
    return member.scale.restore(mu_N, sigma_N)


def distilled_from_features(member: LoadedMember, features_NF: FeatureArray, *, threads: int) -> Mixture:
    """What ``predict_distilled`` answers for pictures whose pooled features are known."""
    cpu = torch.device("cpu")
    with reproducible(threads=threads, device=cpu), torch.inference_mode():
        network = member.network.to(cpu)
        parts = [
            torch.stack(network.predict_parts(torch.from_numpy(np.array(features_NF[at : at + _FEATURES_AT_ONCE]))))
            for at in range(0, len(features_NF), _FEATURES_AT_ONCE)
        ]
    return _restored(member, torch.cat(parts, dim=1).double().numpy())


def _restored(member: LoadedMember, parts_KN: FloatArray) -> Mixture:
    """Mean and the two variances in the target's unit, from standardised mean and logarithms of variances."""
    # A distilled network's scale is never a logarithm's, so that a variance is restored by the square of its SD.
    variance_2N = np.square(member.scale.sd) * np.exp(parts_KN[1:])
    return Mixture(
        mu_N=member.scale.mean + member.scale.sd * parts_KN[0],
        sigma_N=np.sqrt(variance_2N.sum(axis=0)),
        var_aleatoric_N=variance_2N[0],
        var_epistemic_N=variance_2N[1],
    )


def _for_batches(
    members: Sequence[LoadedMember],
    x_NHW: ByteArray,
    take: Callable[[slice, int, dict[str, torch.Tensor]], None],
    batch_size: int,
    device: str,
    threads: int,
    precision: Precision,
    on_features: Callable[[slice, FeatureArray], None] | None,
) -> None:
    """Hand each batch's rows, their number, and pooled features by the convolutions' hash to ``take``."""
    check_pictures(x_NHW, "x_NHW")
    if not members:
        raise ValueError("members: none given; at least one is needed")
    for member in members:
        if x_NHW.shape[1:] != member.image_size_px:
            raise ValueError(f"x_NHW: pictures of {x_NHW.shape[1:]}; the member knows {member.image_size_px} only")
    where = pick_device(device)
    with reproducible(threads=threads, device=where), torch.inference_mode():
        for member in members:
            member.network.to(where)
        for start in range(0, len(x_NHW), batch_size):
            part_NHW = x_NHW[start : start + batch_size]
            x_BCHW = normalise(to_grey(pad_rows(part_NHW, batch_size), where))
            rows = slice(start, start + len(part_NHW))
            pooled: dict[str, torch.Tensor] = {}
            for member in members:
                if member.backbone_hash not in pooled:
                    with torch.autocast(where.type, torch.bfloat16, enabled=precision == "bfloat16"):
                        maps = member.network.feature_maps(x_BCHW)
                    # Averages over a map would lose in 8 bits what the convolutions kept.
                    pooled[member.backbone_hash] = member.network.pool([map_BChw.float() for map_BChw in maps])
            take(rows, len(part_NHW), pooled)
            if on_features is not None:
                first_BF = pooled[members[0].backbone_hash][: len(part_NHW)]
                on_features(rows, first_BF.cpu().numpy())


def mixture(
    mu_MN: npt.ArrayLike, sigma_MN: npt.ArrayLike, *, ddof: int = 0, use_MN: npt.ArrayLike | None = None
) -> Mixture:
    """Combine members as a mixture of equally likely distributions.

    mu* = mean(mu_m); total variance = mean(sigma_m^2 + mu_m^2) - mu*^2 = mean(sigma_m^2) + var(mu_m), the aleatoric
    and the epistemic part. With ``ddof`` 1 the epistemic part is unbiased, so that it does not depend on how many
    members saw a patient; the two parts then no longer sum to the mixture's own variance.

    Args:
        mu_MN: members' means.
        sigma_MN: members' standard deviations.
        ddof: of the epistemic variance: 0 (the mixture itself) or 1 (features of stage 2).
        use_MN: which members count for which picture; all by default.

    Returns:
        The mixture per picture.

    Raises:
        ValueError: shapes differ, a value is not finite, or a picture has not more than ``ddof`` members.

    References:
        Lakshminarayanan B, Pritzel A, Blundell C. NeurIPS 2017, section 2.4.
        Kendall A, Gal Y. What uncertainties do we need in Bayesian deep learning for computer vision? NeurIPS 2017.

    Example:
        >>> m = mixture([[15.], [16.], [14.5], [15.5], [17.]], [[2.], [1.8], [2.5], [2.2], [2.]])
        >>> [round(float(v[0]), 3) for v in (m.mu_N, m.sigma_N**2, m.var_aleatoric_N, m.var_epistemic_N)]
        [15.6, 5.206, 4.466, 0.74]
    """
    mu_MN, sigma_MN = np.asarray(mu_MN, dtype=np.float64), np.asarray(sigma_MN, dtype=np.float64)
    use_MN = np.ones(mu_MN.shape, dtype=bool) if use_MN is None else np.asarray(use_MN, dtype=bool)
    if not mu_MN.ndim == 2 or not mu_MN.shape == sigma_MN.shape == use_MN.shape:
        raise ValueError(f"mu_MN {mu_MN.shape}, sigma_MN {sigma_MN.shape}, use_MN {use_MN.shape}: shapes must be equal")
    if not np.isfinite(mu_MN[use_MN]).all() or not np.isfinite(sigma_MN[use_MN]).all():
        raise ValueError("mu_MN, sigma_MN: a prediction in use is missing or infinite")
    n_N = use_MN.sum(axis=0)
    if (n_N <= ddof).any():
        raise ValueError(f"use_MN: a picture has {n_N.min()} members, more than {ddof} are needed with ddof {ddof}")
    mu_N = mu_MN.sum(axis=0, where=use_MN) / n_N
    aleatoric_N = np.square(sigma_MN).sum(axis=0, where=use_MN) / n_N
    epistemic_N = np.square(mu_MN - mu_N).sum(axis=0, where=use_MN) / (n_N - ddof)
    return Mixture(
        mu_N=mu_N,
        sigma_N=np.sqrt(aleatoric_N + epistemic_N),
        var_aleatoric_N=aleatoric_N,
        var_epistemic_N=epistemic_N,
    )


def prediction_columns(
    target_name: str,
    mu_MN: npt.ArrayLike,
    sigma_MN: npt.ArrayLike,
    *,
    positive: bool,
    use_MN: npt.ArrayLike | None = None,
    sigma_scale: float = 1.0,
) -> dict[str, FloatArray]:
    """Columns of the prediction and score tables for one target.

    Args:
        target_name: prefix of the columns.
        mu_MN: members' means, original unit.
        sigma_MN: members' standard deviations, original unit.
        positive: whether relative uncertainty means something; if not, that column is NaN.
        use_MN: as in ``mixture``; out-of-fold members for training patients.
        sigma_scale: recalibration: multiplies sigma, and its square both parts of the variance.

    Returns:
        ``<t>_mu``, ``<t>_sigma``, ``<t>_var_aleatoric``, ``<t>_var_epistemic`` of the mixture (ddof 0), and
        ``<t>_uncertainty_pct`` = 100 sigma / mu with the unbiased epistemic part (ddof 1), at most 1000 (also
        where mu is not positive).
    """
    reported = mixture(mu_MN, sigma_MN, ddof=0, use_MN=use_MN)
    unbiased_N = mixture(mu_MN, sigma_MN, ddof=1, use_MN=use_MN).sigma_N if positive else reported.sigma_N
    return columns_of(target_name, reported, unbiased_N, positive=positive, sigma_scale=sigma_scale)


def columns_of(
    target_name: str, reported: Mixture, unbiased_sigma_N: FloatArray, *, positive: bool, sigma_scale: float
) -> dict[str, FloatArray]:
    """The columns of ``prediction_columns`` from the mixture (ddof 0), and its sigma by the unbiased epistemic part."""
    pct_N = np.full_like(reported.mu_N, np.nan)
    if positive:
        sigma_N = sigma_scale * unbiased_sigma_N
        # The smallest denominator that stays under the ceiling; sigma is above zero, so this is no division by zero.
        pct_N = 100.0 * sigma_N / np.maximum(reported.mu_N, 100.0 * sigma_N / MAX_UNCERTAINTY_PCT)
    return {
        f"{target_name}_mu": reported.mu_N,
        f"{target_name}_sigma": sigma_scale * reported.sigma_N,
        f"{target_name}_var_aleatoric": sigma_scale**2 * reported.var_aleatoric_N,
        f"{target_name}_var_epistemic": sigma_scale**2 * reported.var_epistemic_N,
        f"{target_name}_uncertainty_pct": pct_N,
    }

"""Stage 1's columns of the score table, by an ensemble or by the network that was distilled from one.

Shapes: N pictures, H rows, W columns, M members, T targets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sarc_ray.cohort.schema import TargetConfig
from sarc_ray.stage1.checkpoint import LoadedMember
from sarc_ray.stage1.ensemble import (
    FloatArray,
    Mixture,
    columns_of,
    predict_distilled,
    predict_members,
    prediction_columns,
)
from sarc_ray.stage1.features import FeatureArray
from sarc_ray.stage1.runtime import ByteArray
from sarc_ray.stage1.settings import Precision


def predict_columns(
    members: Sequence[Sequence[LoadedMember]],
    x_NHW: ByteArray,
    *,
    targets: Sequence[TargetConfig],
    sigma_scale: Sequence[float],
    batch_size: int,
    device: str = "auto",
    threads: int = 1,
    precision: Precision = "float32",
    on_features: Callable[[slice, FeatureArray], None] | None = None,
) -> dict[str, FloatArray]:
    """What stage 1 says of pictures, in the columns of ``prediction_columns`` for every target.

    Args:
        members: of each target: two or more ordinary ones, or a single distilled one.
        x_NHW: uint8 pictures.
        targets: in order.
        sigma_scale: per target, recalibration.
        batch_size: pictures at once.
        device: auto, cpu or cuda.
        threads: of torch on the CPU.
        precision: as in :func:`sarc_ray.stage1.ensemble.predict_members`.
        on_features: as in :func:`sarc_ray.stage1.ensemble.predict_members`.
    """
    # One call for all targets: convolutions that members share then run once per picture.
    everyone = [member for of_target in members for member in of_target]
    how: dict[str, Any] = {"batch_size": batch_size, "device": device, "threads": threads, "precision": precision}
    how["on_features"] = on_features
    columns: dict[str, FloatArray] = {}
    if everyone and everyone[0].distilled_from:
        said = predict_distilled(everyone, x_NHW, **how)
        for target, member, one, scale in zip(targets, everyone, said, sigma_scale, strict=True):
            columns |= distilled_columns(
                target.name, one, n_members=member.distilled_from, positive=target.positive, sigma_scale=scale
            )
        return columns
    mu_MN, sigma_MN = predict_members(everyone, x_NHW, **how)
    start = 0
    for target, of_target, scale in zip(targets, members, sigma_scale, strict=True):
        rows = slice(start, start + len(of_target))
        columns |= prediction_columns(
            target.name, mu_MN[rows], sigma_MN[rows], positive=target.positive, sigma_scale=scale
        )
        start = rows.stop
    return columns


def distilled_columns(
    target_name: str, said: Mixture, *, n_members: int, positive: bool, sigma_scale: float = 1.0
) -> dict[str, npt.NDArray[np.float64]]:
    """As ``prediction_columns`` for the answers of a distilled network.

    Its epistemic part is unbiased, as in stage 2's feature. The reported one is what an ensemble of ``n_members`` would
    report: (n - 1) / n of it, since the mixture's own variance has ddof 0.
    """
    epistemic_N = said.var_epistemic_N * (n_members - 1) / n_members
    reported = Mixture(
        mu_N=said.mu_N,
        sigma_N=np.sqrt(said.var_aleatoric_N + epistemic_N),
        var_aleatoric_N=said.var_aleatoric_N,
        var_epistemic_N=epistemic_N,
    )
    return columns_of(target_name, reported, said.sigma_N, positive=positive, sigma_scale=sigma_scale)

"""Pooled features of frozen convolutions, computed once and shared by all members and targets.

With ``trainable: head`` the convolutions never change, so running them again in every epoch, for every member and
every target, buys nothing. The price: augmentation is limited to a fixed number of varied copies.
Shapes: K versions of each picture (the original first), N pictures, H rows, W columns, F features, B of one batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from sarc_ray.stage1.augment import augment
from sarc_ray.stage1.network import GaussianNetwork, normalise
from sarc_ray.stage1.runtime import (
    ByteArray,
    Pictures,
    check_pictures,
    derive_seed,
    make_generator,
    pick_device,
    reproducible,
    to_grey,
)
from sarc_ray.stage1.settings import AugmentConfig

FeatureArray = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class CachedFeatures:
    """Features of the pictures that one member trains on and stops by.

    Args:
        train_KNF: the original and its varied copies.
        tune_NF: originals only.
    """

    train_KNF: FeatureArray
    tune_NF: FeatureArray


def extract_features(
    network: GaussianNetwork,
    x_NHW: Pictures,
    *,
    config: AugmentConfig,
    copies: int,
    seed: int,
    batch_size: int,
    threads: int,
    device: str = "auto",
) -> FeatureArray:
    """Run the convolutions once over every picture and over ``copies`` varied versions of it.

    The answer depends on the network's convolutions and the arguments, not on the number of workers: to share the
    work, cut the pictures into chunks of a fixed size and give each chunk a seed of its own (``derive_seed``).

    Args:
        network: any member; its head is not used.
        x_NHW: uint8 pictures.
        config: sizes of the variations; ``config.copies`` is not read.
        copies: varied versions beside the original, 0 or more.
        seed: of the variations.
        batch_size: pictures at once; the last batch is padded to it.
        threads: of torch on the CPU.
        device: auto, cpu or cuda.

    Returns:
        Shape (1 + copies, N, F), float32.
    """
    check_pictures(x_NHW, "x_NHW")
    where = pick_device(device)
    rounds: list[list[FeatureArray]] = [[] for _ in range(1 + copies)]
    with reproducible(threads=threads, device=where), torch.inference_mode():
        network = network.to(where).eval()
        for start in range(0, len(x_NHW), batch_size):
            part_NHW = x_NHW[start : start + batch_size]
            x_B1HW = to_grey(pad_rows(part_NHW, batch_size), where)
            generator = make_generator(derive_seed(seed, start), where)
            for k, features in enumerate(rounds):
                varied_B1HW = augment(x_B1HW, config, generator=generator) if k else x_B1HW
                pooled_BF = network.pool(network.feature_maps(normalise(varied_B1HW)))
                features.append(pooled_BF[: len(part_NHW)].float().cpu().numpy())
    return np.stack([np.concatenate(features) for features in rounds])


def pad_rows(x_NHW: ByteArray, n_rows: int) -> ByteArray:
    """Fill a short batch with black pictures: kernels choose their order of summation by the batch's size."""
    if len(x_NHW) == n_rows:
        return x_NHW
    padded_NHW = np.zeros((n_rows, *x_NHW.shape[1:]), dtype=x_NHW.dtype)
    padded_NHW[: len(x_NHW)] = x_NHW
    return padded_NHW

"""Toy pictures for stage 1's tests: the brighter the square, the larger the measurement."""

from __future__ import annotations

from typing import Any

import numpy as np

from sarc_ray.cohort.schema import TargetConfig
from sarc_ray.stage1.fit import TrainedMember, fit_member
from sarc_ray.stage1.settings import AugmentConfig, FitConfig, NetworkConfig

SIDE_PX = 32
TARGET = TargetConfig(name="alm_kg", label="ALM", unit="kg", higher_is_worse=False, transform="identity", positive=True)
NETWORK: dict[str, Any] = {
    "backbone": "compact",
    "weights": "random",
    "trainable": "all",
    "feature_blocks": (),
    "pooling_grid": 1,
    "hidden_units": (16,),
    "dropout": 0.1,
}
AUGMENT: dict[str, Any] = {
    "copies": 1,
    "shift_fraction": 0.05,
    "rotation_degrees": 5.0,
    "horizontal_flip": True,
    "zoom_fraction": 0.05,
    "brightness_fraction": 0.02,
    "multiply_fraction": 0.02,
}
FIT: dict[str, Any] = {
    "epochs": 4,
    "patience": 4,
    "batch_size": 16,
    "learning_rate": 3e-3,
    "weight_decay": 1e-4,
    "clip_norm": 5.0,
    "beta_nll": 0.0,
    "threads": 1,
    "device": "cpu",
    "cache_features": False,
    "ridge_start": False,
    "precision": "float32",
}


def draw_pictures(n: int, *, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pictures (N, 32, 32), measurements, and the upper left corners (N, 2) of the 10-pixel squares."""
    rng = np.random.default_rng(seed)
    y_N = rng.normal(20.0, 4.0, n)
    x_NHW = rng.integers(30, 60, (n, SIDE_PX, SIDE_PX))
    corner_N2 = rng.integers(4, SIDE_PX - 14, (n, 2))
    for picture_HW, (row, column), y in zip(x_NHW, corner_N2, y_N, strict=True):
        picture_HW[row : row + 10, column : column + 10] += int(np.clip(90 + 8 * (y - 20), 0, 160))
    return x_NHW.clip(0, 255).astype(np.uint8), y_N, corner_N2


def fit_toy(*, n: int = 64, seed: int = 3, **changes: Any) -> TrainedMember:
    """Train on toy pictures; ``changes`` are fields of any of the configurations, or arguments of fit_member."""
    x_train_NHW, y_train_N, _ = draw_pictures(n, seed=1)
    x_tune_NHW, y_tune_N, _ = draw_pictures(40, seed=2)
    settings = [
        cls(**{name: changes.pop(name, value) for name, value in values.items()})
        for cls, values in ((NetworkConfig, NETWORK), (AugmentConfig, AUGMENT), (FitConfig, FIT))
    ]
    arguments: dict[str, Any] = {
        "x_train_NHW": x_train_NHW,
        "y_train_N": y_train_N,
        "x_tune_NHW": x_tune_NHW,
        "y_tune_N": y_tune_N,
        "target": TARGET,
        "network": settings[0],
        "augment": settings[1],
        "fit": settings[2],
        "seed": seed,
    }
    return fit_member(**(arguments | changes))

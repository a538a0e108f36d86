"""Small members for the tests of training: two targets, pictures of noise."""

import os
import signal

import numpy as np

from sarc_ray.cohort.schema import TargetConfig
from sarc_ray.stage1.member import MemberTask
from sarc_ray.stage1.settings import AugmentConfig, FitConfig, NetworkConfig

N_IMAGES, SIZE_PX = 48, 32


def target(name):
    return TargetConfig(name=name, label=name, unit="kg", higher_is_worse=False, transform="identity", positive=True)


def make_task(index, *, epochs=2, **changes):
    rng = np.random.default_rng(7)
    fit = FitConfig(
        epochs=epochs,
        patience=epochs,
        batch_size=16,
        learning_rate=1e-3,
        weight_decay=0.0,
        clip_norm=5.0,
        beta_nll=0.0,
        threads=1,
        device="cpu",
        cache_features=False,
        ridge_start=False,
        precision="float32",
    )
    values = {
        "index": index,
        "seed": 11,
        "fit_N": np.arange(N_IMAGES) % 3 != index % 3,
        "tune_N": np.arange(N_IMAGES) >= 40,
        "targets": (target("alm_kg"), target("hgs_kg")),
        "y_TN": np.where(rng.random((2, N_IMAGES)) < 0.1, np.nan, rng.normal(20, 4, (2, N_IMAGES))),
        "network": NetworkConfig(
            backbone="compact",
            weights="random",
            trainable="all",
            feature_blocks=(),
            pooling_grid=1,
            hidden_units=(8,),
            dropout=0.1,
        ),
        "augment": AugmentConfig(
            copies=1,
            shift_fraction=0.05,
            rotation_degrees=5.0,
            horizontal_flip=True,
            zoom_fraction=0.05,
            brightness_fraction=0.1,
            multiply_fraction=0.1,
        ),
        "fit": fit,
    }
    return MemberTask(**(values | changes))


class Deadly(np.ndarray):
    """Measurements whose first row ends the process that looks at it, as a lack of memory would."""

    def __getitem__(self, number):
        if isinstance(number, int) and number == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return np.asarray(self)[number]


def make_images():
    return np.random.default_rng(3).integers(0, 256, (N_IMAGES, SIZE_PX, SIZE_PX)).astype(np.uint8)


def same(a, b, targets=("alm_kg", "hgs_kg")):
    return all(
        a[name].data == b[name].data
        and np.array_equal(a[name].mu_N, b[name].mu_N)
        and np.array_equal(a[name].sigma_N, b[name].sigma_N)
        and a[name].history == b[name].history
        for name in targets
    )

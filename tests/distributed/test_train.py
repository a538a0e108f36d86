"""Members trained by the engine equal those trained directly, whatever the number of workers; failures stay apart."""

import dataclasses

import numpy as np
import pytest

from sarc_ray import storage
from sarc_ray.cohort.schema import TargetConfig
from sarc_ray.distributed.train import _slots, train_members
from sarc_ray.errors import ConfigError, TrainingError
from sarc_ray.stage1.augment import AugmentConfig
from sarc_ray.stage1.fit import FitConfig
from sarc_ray.stage1.member import MemberTask, train_member
from sarc_ray.stage1.network import NetworkConfig
from tests.engine import engine_config

N_IMAGES, SIZE_PX = 48, 32


def target(name):
    return TargetConfig(name=name, label=name, unit="kg", higher_is_worse=False, transform="identity", positive=True)


def make_task(index, **changes):
    rng = np.random.default_rng(7)
    fit = FitConfig(
        epochs=2,
        patience=2,
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


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(3).integers(0, 256, (N_IMAGES, SIZE_PX, SIZE_PX)).astype(np.uint8)


def same(a, b):
    return all(
        a[name].data == b[name].data
        and np.array_equal(a[name].mu_N, b[name].mu_N)
        and np.array_equal(a[name].sigma_N, b[name].sigma_N)
        and a[name].history == b[name].history
        for name in ("alm_kg", "hgs_kg")
    )


def test_distributed_equals_direct_and_finished_members_are_not_trained_again(ray_session, tmp_path, images):
    tasks = [make_task(index) for index in range(3)]
    direct = [train_member(task, images) for task in tasks]
    uri = str(tmp_path / "members")
    # The first member alone, as an interrupted run leaves it; then all three, two at a time.
    (first,) = train_members(tasks[:1], images, uri=uri, engine=engine_config(members_at_once=1), fingerprint="f")
    assert same(first, direct[0])
    written = storage.content_id(f"{uri}/alm_kg/member-00.safetensors")
    seen = []
    members = train_members(
        tasks,
        images,
        uri=uri,
        engine=engine_config(members_at_once=2),
        fingerprint="f",
        progress=lambda done, total: seen.append((done, total)),
    )
    assert all(same(a, b) for a, b in zip(members, direct, strict=True))
    assert storage.content_id(f"{uri}/alm_kg/member-00.safetensors") == written
    assert seen == [(2, 3), (3, 3)]
    assert not storage.exists(f"{uri}/work")


def test_one_failing_member_does_not_cost_the_others(ray_session, tmp_path, images):
    bad = make_task(1, y_TN=np.full((2, N_IMAGES), np.nan))  # nothing was measured: no fit is possible
    uri = str(tmp_path / "members")
    with pytest.raises(TrainingError, match=r"member\(s\) 1 failed"):
        train_members([make_task(0), bad], images, uri=uri, engine=engine_config(member_retries=0), fingerprint="f")
    assert storage.exists(f"{uri}/done-00.json")
    assert not storage.exists(f"{uri}/done-01.json")


@pytest.mark.parametrize(
    ("engine", "fit", "message"),
    [
        ({"gpus_per_member": 1.0}, {}, "gpus_per_member: 1.0 asked for, the cluster has 0 GPUs"),
        ({}, {"threads": 64}, "fit.threads: 64 asked for, the cluster has 2 CPUs"),
    ],
)
def test_resources_that_are_not_there_are_refused(ray_session, tmp_path, images, engine, fit, message):
    task = make_task(0)
    task = dataclasses.replace(task, fit=dataclasses.replace(task.fit, **fit))
    with pytest.raises(ConfigError, match=message):
        train_members([task], images, uri=str(tmp_path), engine=engine_config(**engine), fingerprint="f")


def test_a_growing_cluster_is_asked_for_what_the_configuration_says(ray_session):
    engine = engine_config(address="auto", gpus_per_member=1.0, members_at_once=5)
    assert _slots(8, engine) == 5
    assert _slots(1, engine_config(members_at_once=5)) == 2

"""One worker's share: the same member whoever trains it, and a picture table that is never copied."""

from __future__ import annotations

import dataclasses
import tracemalloc

import numpy as np
import pytest

from sarc_ray.stage1.member import MemberTask, train_member
from sarc_ray.stage1.settings import AugmentConfig, FitConfig, NetworkConfig
from tests.stage1.toy import AUGMENT, FIT, NETWORK, TARGET, draw_pictures


def make_task(n: int, *, targets: int = 2) -> MemberTask:
    rng = np.random.default_rng(5)
    return MemberTask(
        index=1,
        seed=9,
        fit_N=np.arange(n) % 4 < 2,
        tune_N=np.arange(n) % 4 == 3,
        targets=tuple(dataclasses.replace(TARGET, name=f"target_{k}") for k in range(targets)),
        y_TN=rng.normal(20.0, 4.0, (targets, n)),
        network=NetworkConfig(**NETWORK),
        augment=AugmentConfig(**AUGMENT),
        fit=FitConfig(**(FIT | {"epochs": 1})),
    )


def test_each_target_gets_a_member_that_predicts_every_picture():
    x_NHW, _, _ = draw_pictures(40, seed=1)
    results = train_member(make_task(40), x_NHW)
    assert list(results) == ["target_0", "target_1"]
    assert all(result.mu_N.shape == (40,) and (result.sigma_N > 0).all() for result in results.values())
    assert results["target_0"].data != results["target_1"].data


def test_the_picture_table_is_not_copied():
    x_NHW, _, _ = draw_pictures(64, seed=1)
    x_NHW = np.tile(x_NHW, (64, 1, 1))  # 4 MB: a copy of the pictures of one member would be 3 MB
    task = make_task(len(x_NHW), targets=1)
    tracemalloc.start()
    try:
        train_member(task, x_NHW)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < x_NHW.nbytes / 2


def test_a_target_that_fails_is_told_by_its_error():
    x_NHW, _, _ = draw_pictures(40, seed=1)
    task = make_task(40)
    unmeasured = dataclasses.replace(task, y_TN=np.stack([task.y_TN[0], np.full(40, np.nan)]))
    with pytest.raises(ValueError, match="x_train_NHW"):
        train_member(unmeasured, x_NHW)

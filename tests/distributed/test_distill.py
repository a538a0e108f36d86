"""A network distilled by the engine equals one distilled directly, and goes on from the state that was left."""

import dataclasses

import numpy as np
import pytest

from sarc_ray import storage
from sarc_ray.distributed.distill import DistillTask, _distil, distil_on_engine
from sarc_ray.errors import ConfigError
from sarc_ray.stage1.distillation import Answers
from sarc_ray.stage1.settings import DistillConfig
from tests.distributed.members import N_IMAGES, make_images, make_task
from tests.engine import engine_config


def task_of():
    of_members = make_task(0)
    rng = np.random.default_rng(4)
    shape = (2, N_IMAGES)
    return DistillTask(
        train_N=np.arange(N_IMAGES) < 40,
        tune_N=np.arange(N_IMAGES) >= 40,
        answers=Answers(
            mu_TN=rng.normal(20, 3, shape),
            aleatoric_TN=rng.uniform(1, 2, shape),
            epistemic_TN=rng.uniform(0, 1, shape),
        ),
        targets=of_members.targets,
        n_members=(5, 5),
        network=of_members.network,
        augment=of_members.augment,
        fit=of_members.fit,
        config=DistillConfig(epochs=3, learning_rate=1e-3),
        seed=5,
    )


def test_distributed_equals_direct_and_resumed(ray_session, tmp_path):
    task, images = task_of(), make_images()
    state = str(tmp_path / "direct.state")
    # A state is kept after every epoch here; the second call finds the last one and has nothing left to train.
    direct = _distil(task, images, state, 0.0)
    assert storage.exists(state)
    resumed = _distil(task, images, state, 3600.0)
    engine = distil_on_engine(task, images, uri=str(tmp_path / "engine.state"), engine=engine_config())
    assert direct == resumed == engine
    assert len(engine) == 2


@pytest.mark.parametrize(
    ("engine", "threads", "message"),
    [
        ({"gpus_per_member": 1.0}, 1, "gpus_per_member: 1.0 asked for, the largest node has 0 GPUs"),
        ({}, 64, "fit.threads: 64 asked for, the largest node has 2 CPUs"),
    ],
)
def test_resources_that_are_not_there_are_refused_instead_of_awaited(ray_session, tmp_path, engine, threads, message):
    task = task_of()
    task = dataclasses.replace(task, fit=dataclasses.replace(task.fit, threads=threads))
    with pytest.raises(ConfigError, match=message):
        distil_on_engine(task, make_images(), uri=str(tmp_path / "state"), engine=engine_config(**engine))

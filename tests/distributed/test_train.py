"""Members trained by the engine equal those trained directly, whatever the number of workers; failures stay apart."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sarc_ray import storage
from sarc_ray.distributed.finished import read_finished
from sarc_ray.distributed.train import _room, _scaling, member_slots, train_members
from sarc_ray.errors import ConfigError
from sarc_ray.stage1.member import train_member
from tests.distributed.members import Deadly, make_images, make_task, same
from tests.engine import engine_config

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def images():
    return make_images()


def unmeasured(number, **changes):
    """A task whose target of this number always fails: nothing was measured, so that no fit is possible."""
    y_TN = make_task(1).y_TN.copy()
    y_TN[number] = np.nan
    return make_task(1, y_TN=y_TN, **changes)


def records(uri):
    return {str(path.relative_to(uri)): path.stat().st_mtime_ns for path in Path(uri).rglob("*.done.json")}


def test_distributed_equals_direct_and_finished_members_are_not_trained_again(ray_session, tmp_path, images):
    tasks = [make_task(index) for index in range(3)]
    direct = [train_member(task, images) for task in tasks]
    uri = str(tmp_path / "members")
    # The first index alone by one worker, as an interrupted run leaves it; then the others, two at a time.
    first = train_members(tasks[:1], images, uri=uri, engine=engine_config(members_at_once=1), fingerprint="f")
    assert same(first.members[0], direct[0])
    written = records(uri)
    seen = []
    trained = train_members(
        tasks,
        images,
        uri=uri,
        engine=engine_config(members_at_once=2),
        fingerprint="f",
        progress=lambda done, total: seen.append((done, total)),
    )
    assert trained.failed == ()
    assert all(same(a, b) for a, b in zip(trained.members, direct, strict=True))
    assert written.items() <= records(uri).items()
    assert len(records(uri)) == 6
    assert seen == [(2, 3), (3, 3)]
    assert not storage.exists(f"{uri}/work")


def test_one_failing_member_costs_no_other_and_the_next_run_trains_it_alone(ray_session, tmp_path, images):
    uri = str(tmp_path / "members")
    tasks = [make_task(0), unmeasured(0)]
    trained = train_members(tasks, images, uri=uri, engine=engine_config(), fingerprint="f")
    assert [member.name for member in trained.failed] == ["alm_kg 1"]
    assert "x_train_NHW" in trained.failed[0].error
    # The same worker's next target was trained all the same.
    direct = [train_member(make_task(index), images) for index in (0, 1)]
    assert same(trained.members[0], direct[0])
    assert same(trained.members[1], direct[1], targets=("hgs_kg",))
    assert list(trained.members[1]) == ["hgs_kg"]
    written = records(uri)
    assert sorted(written) == ["alm_kg/member-00.done.json", "hgs_kg/member-00.done.json", "hgs_kg/member-01.done.json"]
    assert storage.exists(f"{uri}/work")
    assert json.loads(Path(uri, "alm_kg", "member-01.failed.json").read_text())["error"] == trained.failed[0].error

    mended = train_members([make_task(0), make_task(1)], images, uri=uri, engine=engine_config(), fingerprint="f")
    assert mended.failed == ()
    assert all(same(a, b) for a, b in zip(mended.members, direct, strict=True))
    assert set(records(uri).items()) - set(written.items()) == {
        ("alm_kg/member-01.done.json", records(uri)["alm_kg/member-01.done.json"])
    }
    assert not Path(uri, "alm_kg", "member-01.failed.json").exists()


def test_one_network_for_all_targets_equals_direct_and_fails_as_one(ray_session, tmp_path, images):
    uri = str(tmp_path / "members")
    good, bad = make_task(0, heads="all_targets"), unmeasured(0, heads="all_targets")
    trained = train_members([good, bad], images, uri=uri, engine=engine_config(), fingerprint="f")
    assert same(trained.members[0], train_member(good, images))
    assert [member.name for member in trained.failed] == ["alm_kg 1", "hgs_kg 1"]
    assert "alm_kg was measured in none" in trained.failed[1].error
    written = records(uri)
    assert sorted(written) == ["alm_kg/member-00.done.json", "hgs_kg/member-00.done.json"]
    mended = train_members(
        [good, make_task(1, heads="all_targets")], images, uri=uri, engine=engine_config(), fingerprint="f"
    )
    assert mended.failed == ()
    assert written.items() <= records(uri).items()


def test_a_member_that_ends_its_process_each_time_is_named_and_the_others_of_its_worker_are_trained(
    ray_session, tmp_path, images
):
    uri = str(tmp_path / "members")
    whole = make_task(1)
    task = dataclasses.replace(whole, y_TN=whole.y_TN.view(Deadly))
    trained = train_members([task], images, uri=uri, engine=engine_config(member_retries=1), fingerprint="f")
    assert [member.name for member in trained.failed] == ["alm_kg 1"]
    assert "died" in trained.failed[0].error
    assert same(trained.members[0], train_member(whole, images), targets=("hgs_kg",))
    assert list(records(uri)) == ["hgs_kg/member-01.done.json"]
    assert json.loads(Path(uri, "alm_kg", "member-01.begun.json").read_text()) == {"times": 2}


@pytest.mark.slow
def test_a_node_killed_in_mid_training_costs_no_member_its_work(tmp_path, images):
    """Three nodes of one CPU, two members at once; the node of the first is killed after a few epochs."""
    result = subprocess.run(
        [sys.executable, "-m", "tests.distributed.lost_node", str(tmp_path)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    told = json.loads((tmp_path / "told.json").read_text())
    tasks = [make_task(index, epochs=told["epochs"]) for index in range(3)]
    for task in tasks:
        trained = read_finished(str(tmp_path / "members"), ["alm_kg", "hgs_kg"], task.index, fingerprint="f")
        assert same(trained, train_member(task, images)), task.index
    attempts = {
        str(path.relative_to(tmp_path / "members")): json.loads(path.read_text())["attempts"]
        for path in sorted((tmp_path / "members").rglob("*.done.json"))
    }
    assert len(attempts) == 6
    hit = attempts["alm_kg/member-00.done.json"]
    assert [entry["node"] == told["killed"] for entry in hit] == [True, False]
    assert hit[0]["epoch"] == 0
    assert 0 < hit[1]["epoch"] < told["epochs"]  # from its checkpoint, not from the start
    others = [entries for name, entries in attempts.items() if name != "alm_kg/member-00.done.json"]
    assert all(len(entries) == 1 and entries[0]["epoch"] == 0 for entries in others)


@pytest.mark.parametrize(
    ("engine", "fit", "message"),
    [
        ({"gpus_per_member": 1.0}, {}, "gpus_per_member: 1.0 asked for, the largest node has 0 GPUs"),
        ({}, {"threads": 64}, "fit.threads: 64 asked for, the largest node has 2 CPUs"),
    ],
)
def test_resources_that_are_not_there_are_refused(ray_session, tmp_path, images, engine, fit, message):
    task = make_task(0)
    task = dataclasses.replace(task, fit=dataclasses.replace(task.fit, **fit))
    with pytest.raises(ConfigError, match=message):
        train_members([task], images, uri=str(tmp_path), engine=engine_config(**engine), fingerprint="f")


def test_a_growing_cluster_is_asked_for_what_the_configuration_says(ray_session):
    engine = engine_config(address="auto", gpus_per_member=1.0, members_at_once=5)
    assert member_slots(8, engine) == 5
    assert member_slots(1, engine_config(members_at_once=5)) == 2


@pytest.mark.parametrize(
    ("node", "threads", "gpus", "room"),
    [
        ({"CPU": 7.0}, 2, 0.0, 3),
        ({"CPU": 1.0}, 2, 0.0, 0),
        ({"CPU": 64.0, "GPU": 2.0}, 2, 0.5, 4),
        ({"CPU": 64.0, "GPU": 2.0}, 2, 0.6, 2),  # a third would need two fifths of two GPUs
        ({"CPU": 64.0, "GPU": 1.0}, 2, 1 / 3, 3),
        ({"CPU": 64.0, "GPU": 8.0}, 2, 3.0, 2),
        ({"CPU": 5.0, "GPU": 8.0}, 2, 0.25, 2),  # the CPUs are what is short
        ({"CPU": 64.0}, 2, 0.5, 0),
    ],
)
def test_a_node_has_room_for_whole_members(node, threads, gpus, room):
    assert _room(node, threads, gpus) == room


def test_a_worker_reserves_as_many_cpus_as_its_member_has_threads():
    assert _scaling(3, engine_config()).resources_per_worker == {"CPU": 3}
    with_gpu = _scaling(2, engine_config(gpus_per_member=0.25))
    assert with_gpu.resources_per_worker == {"CPU": 2, "GPU": 0.25}
    assert with_gpu.use_gpu
    assert with_gpu.num_workers == 1

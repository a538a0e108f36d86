"""Members that end up saying the same of every picture are noticed, started once more, and named.

Plain rectifiers in the dense layers make such members readily, which is why the networks have leaky ones. Here they are
put back where a silent member is wanted.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from sarc_ray.distributed.finished import read_finished, write_finished
from sarc_ray.errors import ConstantMemberError, TrainingError
from sarc_ray.stage1.checkpoint import trained_from_bytes
from sarc_ray.stage1.loop import seed_of_state
from sarc_ray.stage1.member import MemberTask, train_target
from sarc_ray.stage1.runtime import PictureRows, derive_seed, pictures_differ
from sarc_ray.stage1.settings import AugmentConfig, FitConfig, NetworkConfig
from tests.stage1.test_saliency import CHEST, CHEST_FIT, N_TRAIN, N_TUNE, simulated
from tests.stage1.toy import AUGMENT, FIT, NETWORK, TARGET, draw_pictures, fit_toy

# A layer of one unit, which some seeds switch off for good within a few steps.
FRAGILE_NETWORK = NETWORK | {"hidden_units": (1,), "dropout": 0.0}
FRAGILE_FIT = FIT | {"epochs": 3, "patience": 3, "learning_rate": 0.1, "batch_size": 32, "weight_decay": 0.0}
# Seeds of runs whose first start does well, whose second does, and whose neither does.
FIRST, SECOND, NEITHER = 0, 1, 3


def fragile_task(seed: int) -> MemberTask:
    return MemberTask(
        index=2,
        seed=seed,
        fit_N=np.arange(64) < 40,
        tune_N=np.arange(64) >= 40,
        targets=(TARGET,),
        y_TN=draw_pictures(64, seed=1)[1][None],
        network=NetworkConfig(**FRAGILE_NETWORK),
        augment=AugmentConfig(**AUGMENT),
        fit=FitConfig(**FRAGILE_FIT),
    )


@pytest.fixture(scope="module")
def pictures():
    return draw_pictures(64, seed=1)[0]


@pytest.fixture
def plain_rectifiers(monkeypatch):
    monkeypatch.setattr("sarc_ray.stage1.network.nn.LeakyReLU", nn.ReLU)


def chest_settings():
    chests_NHW, y_N, _ = simulated(N_TRAIN + N_TUNE, seed=1)
    given = {
        "x_train_NHW": chests_NHW[:N_TRAIN],
        "y_train_N": y_N[:N_TRAIN],
        "x_tune_NHW": chests_NHW[N_TRAIN:],
        "y_tune_N": y_N[N_TRAIN:],
    }
    return given | CHEST | CHEST_FIT | {"copies": 2, "learning_rate": 2e-3, "patience": 2}


def test_a_layer_of_64_that_fell_silent_on_simulated_chests_is_refused(plain_rectifiers):
    """Met with this seed and this learning rate: every mean was the same number, and the history looked harmless."""
    with pytest.raises(ConstantMemberError, match=r"alm_kg, seed 101: one mean .* 120 .*learning_rate \(0\.002\)"):
        fit_toy(seed=101, **chest_settings())


def test_with_leaky_rectifiers_the_same_fits_do_not_fall_silent(pictures):
    assert fit_toy(seed=101, **chest_settings()).target_name == "alm_kg"
    for seed in (FIRST, SECOND, NEITHER):
        assert train_target(fragile_task(seed), 0, pictures).discarded_seeds == ()


def test_a_member_that_has_learned_next_to_nothing_is_let_pass():
    assert fit_toy(epochs=1, learning_rate=1e-9).best_epoch == 0
    noise_N = np.random.default_rng(4).normal(20.0, 4.0, 64)
    assert fit_toy(y_train_N=noise_N).target_name == "alm_kg"


def test_equal_pictures_are_no_reason_to_refuse_a_member():
    same_NHW = np.repeat(draw_pictures(1, seed=5)[0], 40, axis=0)
    assert not pictures_differ(same_NHW)
    assert fit_toy(epochs=1, x_tune_NHW=same_NHW).best_epoch == 0
    other_NHW = np.concatenate([same_NHW, 255 - same_NHW[:1]])
    assert pictures_differ(PictureRows(table_NHW=other_NHW, rows_K=np.array([0, 1, 40])))
    assert not pictures_differ(PictureRows(table_NHW=other_NHW, rows_K=np.array([3])))


def test_a_silent_member_starts_once_more_from_a_seed_of_its_own(plain_rectifiers, pictures):
    result, again = (train_target(fragile_task(SECOND), 0, pictures) for _ in range(2))
    assert result.discarded_seeds == (derive_seed(SECOND, 2, 0),)
    assert trained_from_bytes(result.data).seed == derive_seed(SECOND, 2, 0, 1)
    assert np.ptp(result.mu_N) > 0.1
    assert result.data == again.data
    well = train_target(fragile_task(FIRST), 0, pictures)
    assert well.discarded_seeds == ()
    assert trained_from_bytes(well.data).seed == derive_seed(FIRST, 2, 0)


def test_resumed_in_either_start_it_is_the_same_member(plain_rectifiers, pictures):
    states: list[bytes] = []
    task = fragile_task(SECOND)
    whole = train_target(task, 0, pictures, on_epoch=lambda _record, snapshot: states.append(snapshot()))
    assert len({seed_of_state(state) for state in states}) == 2
    for state in states:
        resumed = train_target(task, 0, pictures, state=state)
        assert resumed.data == whole.data
        assert resumed.discarded_seeds == whole.discarded_seeds
        assert np.array_equal(resumed.mu_N, whole.mu_N)


def test_silent_twice_it_fails_by_name_with_the_ways_on(plain_rectifiers, pictures):
    with pytest.raises(TrainingError, match=r"alm_kg 2: two trainings.*learning_rate \(found 0\.1\).*missing_allowed"):
        train_target(fragile_task(NEITHER), 0, pictures)


def test_the_record_of_a_member_tells_of_a_discarded_start(plain_rectifiers, tmp_path, pictures):
    result = train_target(fragile_task(SECOND), 0, pictures)
    write_finished(str(tmp_path), "alm_kg", 2, result, fingerprint="f", attempts=[])
    record_path = Path(tmp_path, "alm_kg", "member-02.done.json")
    record = json.loads(record_path.read_text())
    assert record["discarded_seeds"] == [derive_seed(SECOND, 2, 0)]
    read = read_finished(str(tmp_path), ["alm_kg"], 2, fingerprint="f")["alm_kg"]
    assert (read.data, read.discarded_seeds) == (result.data, result.discarded_seeds)
    # A record that an earlier release wrote says nothing of it.
    record_path.write_text(json.dumps({name: value for name, value in record.items() if name != "discarded_seeds"}))
    assert read_finished(str(tmp_path), ["alm_kg"], 2, fingerprint="f")["alm_kg"].discarded_seeds == ()
    assert read_finished(str(tmp_path), ["alm_kg"], 2, fingerprint="g") == {}

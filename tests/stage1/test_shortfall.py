"""What becomes of ensembles that lack members."""

from __future__ import annotations

import numpy as np
import pytest

from sarc_ray.errors import TrainingError
from sarc_ray.stage1.holdout import hold_out_pairs
from sarc_ray.stage1.settings import EnsembleConfig
from sarc_ray.stage1.shortfall import FailedMember, require_members, spoken_for

TARGETS = ("alm_kg", "hgs_kg")


def config(members=5, missing_allowed=0, training_features="repeated_folds"):
    return EnsembleConfig(
        members=members,
        training_features=training_features,
        recalibration="none",
        missing_allowed=missing_allowed,
        heads="one_target",
    )


def failed(*names):
    return [FailedMember(target_name=name, index=index, error="OSError: disk full") for name, index in names]


def test_by_default_a_missing_member_is_named_with_its_error_and_the_ways_on():
    require_members([], config())
    with pytest.raises(TrainingError, match=r"hgs_kg 3 \(OSError: disk full\).*same command.*missing_allowed to 1"):
        require_members(failed(("hgs_kg", 3)), config())


def test_what_is_allowed_is_counted_per_target():
    require_members(failed(("hgs_kg", 3), ("alm_kg", 0)), config(missing_allowed=1))
    with pytest.raises(TrainingError, match=r"hgs_kg 3 .*; hgs_kg 4 .*missing_allowed to 2"):
        require_members(failed(("hgs_kg", 3), ("hgs_kg", 4)), config(missing_allowed=1))


def test_each_folds_ensemble_may_lack_what_is_allowed():
    """Members 5 to 9 are the first fold's, 10 to 14 the second's."""
    per_fold = config(missing_allowed=1, training_features="ensembles_per_fold")
    require_members(failed(("alm_kg", 4), ("alm_kg", 5), ("alm_kg", 14)), per_fold)
    with pytest.raises(TrainingError, match=r"alm_kg 5 .*; alm_kg 9 .*missing_allowed to 2"):
        require_members(failed(("alm_kg", 5), ("alm_kg", 9)), per_fold)


def test_two_members_are_the_least():
    gone = failed(*(("alm_kg", index) for index in range(4)))
    with pytest.raises(TrainingError, match="too many are missing"):
        require_members(gone, config(missing_allowed=3))
    for wrong in (-1, 4):
        with pytest.raises(ValueError, match=f"missing_allowed: found {wrong} with 5 members, allowed: 0 to 3"):
            config(missing_allowed=wrong)


def test_patients_whom_a_missing_member_held_out_are_spoken_for_by_nobody():
    held_out_MN = hold_out_pairs(np.arange(50), np.arange(50.0), members=5, seed=1)
    everyone = [set(TARGETS) for _ in range(5)]
    assert spoken_for(everyone, held_out_MN, TARGETS).all()
    everyone[2].remove("hgs_kg")
    # Whom member 2 held out has one other member only: two of five patients.
    np.testing.assert_array_equal(spoken_for(everyone, held_out_MN, TARGETS), ~held_out_MN[2])
    assert spoken_for(everyone, held_out_MN, ["alm_kg"]).all()
    # Tuning patients are spoken for by all that are left.
    assert spoken_for(everyone, np.ones((5, 3), dtype=bool), TARGETS).all()

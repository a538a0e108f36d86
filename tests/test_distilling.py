"""Distilling: by whom the network is taught, and what makes the stage be done anew."""

import dataclasses

import numpy as np
import pytest

from sarc_ray import distilling, stages, storage
from sarc_ray.errors import StorageError
from sarc_ray.run import Run
from sarc_ray.stage1.member import MemberResult
from tests.small_run import make_run

TARGETS = ("alm_kg", "crt_s")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    run, bundle, people, _ = make_run(tmp_path_factory.mktemp("distilling"))
    return run, bundle, people.loc[people["split"].isin(["train", "tune"]), "row_id"]


def members_of(run, bundle):
    """The bundle's members by index and target, as the folder of members gives them."""
    nothing_N = np.zeros(0)
    n_members = len(bundle.members[0])
    return [
        {
            name: MemberResult(
                data=storage.read_bytes(run.path("bundle", "stage1", name, f"member-{k:02d}.safetensors")),
                mu_N=nothing_N,
                sigma_N=nothing_N,
                history=(),
            )
            for name in TARGETS
        }
        for k in range(n_members)
    ]


def test_the_bundles_own_members_teach(small):
    run, bundle, row_ids = small
    members = members_of(run, bundle)
    # Ensembles of folds follow those that score, and are in no bundle.
    more = [*members, {}, {}, members[0]]
    assert run.config.ensemble.members == len(members) + 2
    for found in (members, more):
        assert distilling._require_teachers(run, bundle, found, row_ids) is None


@pytest.mark.parametrize("change", ["none", "one_less", "another"])
def test_members_that_are_not_the_bundles_are_refused(small, change):
    """Removed, or trained again elsewhere with other last digits: their answers are not those of the bundle."""
    run, bundle, row_ids = small
    members = members_of(run, bundle)
    if change == "none":
        members = [{}, {}]
    elif change == "one_less":
        del members[1]["crt_s"]
    else:
        members[1]["crt_s"] = dataclasses.replace(members[1]["crt_s"], data=b"other")
    with pytest.raises(StorageError, match=r"which are not the 2 of the bundle .*run 'sarc-ray train'"):
        distilling._require_teachers(run, bundle, members, row_ids)


def test_patients_whom_nobody_can_speak_for_any_more_are_told(small):
    run, bundle, row_ids = small
    members = members_of(run, bundle)
    with pytest.raises(StorageError, match=f"for 100 images, those that were trained spoke for {len(row_ids)}"):
        distilling._require_teachers(run, bundle, members, row_ids[:100])


def test_another_parent_is_another_distillation(tmp_path, monkeypatch):
    """The same settings may have given other members, on another machine, say."""
    run, _, _, _ = make_run(tmp_path)
    monkeypatch.setattr(stages, "finished", lambda run, stage: {})
    monkeypatch.setattr(stages, "fingerprint", lambda run, stage: "same")
    monkeypatch.setattr(Run, "stage", lambda run, name, *, fingerprint, work, outputs: {"fingerprint": fingerprint})

    def fingerprint():
        return distilling.distill(run, lambda *_: None)["fingerprint"]

    first = fingerprint()
    assert fingerprint() == first
    uri = run.path("bundle", "bundle.json")
    storage.write_json(uri, storage.read_json(uri) | {"model_id": "0" * 32})
    assert fingerprint() != first

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import torch

from sarc_ray.errors import BundleError, SchemaVersionError
from sarc_ray.stage1.checkpoint import (
    load_member,
    member_from_bytes,
    member_to_bytes,
    members_from_bytes,
    trained_from_bytes,
)
from sarc_ray.stage1.ensemble import predict_members
from sarc_ray.stage1.fit import TrainedMember
from tests.stage1.toy import draw_pictures, fit_toy


@pytest.fixture(scope="module")
def member() -> TrainedMember:
    return fit_toy(epochs=1, n=32)


def test_round_trip_keeps_everything(member):
    again = trained_from_bytes(member_to_bytes(member))
    assert replace(again, state={}) == replace(member, state={})
    assert all(torch.equal(again.state[name], member.state[name]) for name in member.state)
    assert member_to_bytes(again) == member_to_bytes(member)


def test_a_file_predicts_as_the_member_did(member):
    x_NHW, _, _ = draw_pictures(10, seed=4)
    direct, from_file = (
        predict_members([loaded], x_NHW, batch_size=8, device="cpu")
        for loaded in (load_member(member), member_from_bytes(member_to_bytes(member)))
    )
    assert np.array_equal(direct, from_file)


def test_content_hash_follows_what_predicts_and_nothing_else(member):
    same = replace(member, history=(), seed=123, network=replace(member.network, weights="elsewhere.pth"))
    other_scale = replace(member, scale=replace(member.scale, mean=member.scale.mean + 1.0))
    state = dict(member.state)
    state["head.1.bias"] = state["head.1.bias"] + 1e-3
    other_weights = replace(member, state=state)
    hashes = [load_member(m).content_hash for m in (member, same, other_scale, other_weights)]
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3


def test_members_with_equal_convolutions_share_them(member):
    state = dict(member.state)
    state["head.1.bias"] = state["head.1.bias"] + 1.0
    other = fit_toy(epochs=1, n=32, seed=44)
    first, second, third = members_from_bytes(
        [member_to_bytes(m) for m in (member, replace(member, state=state), other)]
    )
    assert first.network.backbone is second.network.backbone
    assert first.network.backbone is not third.network.backbone
    assert first.content_hash != second.content_hash


@pytest.mark.parametrize(
    ("version", "remedy"),
    [(1, "reads 2 alone; .* train again"), (99, "knows up to 2; install a newer release")],
)
def test_refuses_other_schema_versions(member, version, remedy):
    """Version 1 had other rectifiers between the same weights, so that it would load and predict something else."""
    data = member_to_bytes(member)
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    facts = json.loads(header["__metadata__"]["sarc_ray_member"])
    assert facts["schema_version"] == 2
    other = safetensors.torch.save(
        member.state, metadata={"sarc_ray_member": json.dumps(facts | {"schema_version": version})}
    )
    with pytest.raises(SchemaVersionError, match=f"version {version}, this release {remedy}"):
        member_from_bytes(other)


def test_refuses_damaged_files(member):
    data = member_to_bytes(member)
    for damaged in (b"", b"not safetensors at all", data[:-100], safetensors.torch.save(member.state)):
        with pytest.raises(BundleError, match="member file"):
            member_from_bytes(damaged)


def test_refuses_tensors_of_another_architecture(member):
    state = {name: tensor for name, tensor in member.state.items() if name != "feature_sd"}
    with pytest.raises(BundleError, match="feature_sd"):
        load_member(replace(member, state=state))

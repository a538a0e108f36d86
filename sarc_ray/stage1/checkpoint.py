"""Member files: safetensors with one JSON entry of metadata. Reading one never runs code from it.

A file describes itself: architecture, target scale and picture size travel with the weights.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError

from sarc_ray.config import from_mapping, to_mapping
from sarc_ray.errors import BundleError, ConfigError, SchemaVersionError
from sarc_ray.stage1.fit import TrainedMember
from sarc_ray.stage1.folding import fold_batch_norm
from sarc_ray.stage1.loop import EpochRecord, State
from sarc_ray.stage1.network import GaussianNetwork, empty_network
from sarc_ray.stage1.scale import TargetScale
from sarc_ray.stage1.settings import NetworkConfig

# 2 = leaky rectifiers in the dense layers; the same weights of version 1 would predict something else.
SCHEMA_VERSION = 2
# One entry only: safetensors does not keep several in order, and the same member should give the same bytes.
_ENTRY = "sarc_ray_member"
_DISTILLED = "distilled_from"
_HEADER_LENGTH_BYTES = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedMember:
    """A member that is ready to predict.

    Args:
        target_name: the manifest column that it predicts.
        network: in evaluation mode, batch normalisation folded into the convolutions.
        scale: from standardised units to the target's own.
        image_size_px: rows and columns of the pictures that it knows.
        backbone_hash: equal for members whose convolutions, and the features made of them, are the same.
        content_hash: of everything that a prediction depends on; independent of how a file was written.
        distilled_from: members for whose mixture it answers; 0 for an ordinary member.
    """

    target_name: str
    network: GaussianNetwork
    scale: TargetScale
    image_size_px: tuple[int, int]
    backbone_hash: str
    content_hash: str
    distilled_from: int


def member_to_bytes(member: TrainedMember) -> bytes:
    """Write a member as a safetensors file (about 59 MB with VGG16, 0.3 MB with compact)."""
    facts = {
        "schema_version": SCHEMA_VERSION,
        "target_name": member.target_name,
        "network": to_mapping(member.network),
        "scale": asdict(member.scale),
        "image_size_px": list(member.image_size_px),
        "seed": member.seed,
        "best_epoch": member.best_epoch,
        "best_tune_nll": member.best_tune_nll,
        "history": [asdict(record) for record in member.history],
        **_of_distilled(member),
    }
    return safetensors.torch.save(member.state, metadata={_ENTRY: json.dumps(facts, sort_keys=True)})


def trained_from_bytes(data: bytes) -> TrainedMember:
    """Read a member file back, history included.

    Raises:
        SchemaVersionError: written by a newer release, or before the first one.
        BundleError: no member file, or damaged.
    """
    facts = _read_facts(data)
    try:
        return TrainedMember(
            target_name=str(facts["target_name"]),
            network=from_mapping(NetworkConfig, facts["network"], where="network"),
            scale=from_mapping(TargetScale, facts["scale"], where="scale"),
            image_size_px=(int(facts["image_size_px"][0]), int(facts["image_size_px"][1])),
            seed=int(facts["seed"]),
            best_epoch=int(facts["best_epoch"]),
            best_tune_nll=float(facts["best_tune_nll"]),
            history=tuple(from_mapping(EpochRecord, record, where="history") for record in facts["history"]),
            state=safetensors.torch.load(data),
            distilled_from=int(facts.get(_DISTILLED, 0)),
        )
    except (KeyError, TypeError, IndexError, ConfigError, SafetensorError) as error:
        raise BundleError(f"member file: damaged or altered ({error!r}); write the bundle again") from error


def load_member(member: TrainedMember) -> LoadedMember:
    """Make a trained member ready to predict.

    Raises:
        BundleError: its tensors do not fit its architecture.
    """
    network = empty_network(member.network, distilled=member.distilled_from > 0)
    try:
        network.load_state_dict(member.state, assign=True)
    except RuntimeError as error:
        raise BundleError(f"member file: tensors do not fit the architecture: {error}") from error
    backbone = {name: tensor for name, tensor in member.state.items() if name.startswith("backbone.")}
    network.eval()
    fold_batch_norm(network)
    # Starting weights and what was trainable say how a member came about, not what it predicts.
    facts: dict[str, Any] = {
        "target_name": member.target_name,
        "network": to_mapping(member.network) | {"weights": "", "trainable": ""},
        "scale": asdict(member.scale),
        "image_size_px": list(member.image_size_px),
        **_of_distilled(member),
    }
    pooling = {name: facts["network"][name] for name in ("backbone", "feature_blocks", "pooling_grid")}
    return LoadedMember(
        target_name=member.target_name,
        network=network.to(memory_format=torch.channels_last),
        scale=member.scale,
        image_size_px=member.image_size_px,
        backbone_hash=_hash_state(backbone, pooling),
        content_hash=_hash_state(member.state, facts),
        distilled_from=member.distilled_from,
    )


def member_from_bytes(data: bytes) -> LoadedMember:
    """Read a member file, ready to predict; errors as ``trained_from_bytes`` and ``load_member``."""
    return load_member(trained_from_bytes(data))


def members_from_bytes(files: Sequence[bytes]) -> tuple[LoadedMember, ...]:
    """Read several members; those with equal convolutions share them in memory."""
    first: dict[str, LoadedMember] = {}
    members = []
    for data in files:
        member = member_from_bytes(data)
        shared = first.setdefault(member.backbone_hash, member)
        member.network.backbone = shared.network.backbone
        members.append(member)
    return tuple(members)


def _of_distilled(member: TrainedMember) -> dict[str, int]:
    """Nothing of an ordinary member, whose file and identity are what they were before there were others."""
    return {_DISTILLED: member.distilled_from} if member.distilled_from else {}


def _read_facts(data: bytes) -> dict[str, Any]:
    """The JSON entry of a safetensors header: 8 bytes of length, little endian, then JSON (safetensors format)."""
    length = int.from_bytes(data[:_HEADER_LENGTH_BYTES], "little")
    try:
        header = json.loads(data[_HEADER_LENGTH_BYTES : _HEADER_LENGTH_BYTES + length])
        facts: dict[str, Any] = json.loads(header["__metadata__"][_ENTRY])
        version = int(facts["schema_version"])
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError("member file: not a safetensors file of one ensemble member") from error
    if version > SCHEMA_VERSION:
        raise SchemaVersionError(
            f"member file: schema version {version}, this release knows up to {SCHEMA_VERSION}; install a newer release"
        )
    if version < SCHEMA_VERSION:
        raise SchemaVersionError(
            f"member file: schema version {version}, this release reads {SCHEMA_VERSION} alone; versions before the "
            "first release are not kept: train again, in a new folder"
        )
    return facts


def _hash_state(state: State, facts: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()

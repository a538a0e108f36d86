"""Members in a run's folder: each as files with a record that is written last, or a note of why it failed.

Workers write here themselves, as soon as a member is finished: whatever happens to its worker, its trainer or the
driver afterwards, it is never trained again.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from sarc_ray import storage
from sarc_ray.stage1.loop import EpochRecord
from sarc_ray.stage1.member import MemberResult

# A finished member: itself, what it says of every image, and its training history.
_PARTS = ("safetensors", "npz", "json")


def write_finished(
    uri: str, target_name: str, index: int, result: MemberResult, *, fingerprint: str, attempts: Sequence[Any]
) -> None:
    """Keep a finished member.

    Args:
        uri: folder of the members.
        target_name: what it predicts.
        index: its number.
        result: the member.
        fingerprint: of all that decides it.
        attempts: one entry per worker that trained it: the node, and the epoch it began with.
    """
    # Until the record is there again, the files may be of two trainings.
    storage.remove_tree(_file(uri, target_name, index, "done.json"))
    for part, data in _pack(result).items():
        storage.write_bytes(_file(uri, target_name, index, part), data)
    forget_notes(uri, [target_name], index)
    record = {
        "fingerprint": fingerprint,
        "attempts": list(attempts),
        "discarded_seeds": list(result.discarded_seeds),
    }
    storage.write_json(_file(uri, target_name, index, "done.json"), record)


def is_finished(uri: str, target_name: str, index: int, *, fingerprint: str) -> bool:
    """Whether a member of these inputs is there."""
    return _read_record(uri, target_name, index, fingerprint=fingerprint) is not None


def read_finished(uri: str, target_names: Sequence[str], index: int, *, fingerprint: str) -> dict[str, MemberResult]:
    """The finished members of one index, by target; targets whose member is not finished are left out."""
    records = {name: _read_record(uri, name, index, fingerprint=fingerprint) for name in target_names}
    return {
        name: _unpack({part: storage.read_bytes(_file(uri, name, index, part)) for part in _PARTS}, record)
        for name, record in records.items()
        if record is not None
    }


def write_failure(uri: str, target_name: str, index: int, error: BaseException) -> None:
    """Note why a member failed; the note goes when the member is finished."""
    told = f"{type(error).__name__}: {error}"
    storage.write_json(_file(uri, target_name, index, "failed.json"), {"error": told})


def read_failure(uri: str, target_name: str, index: int) -> str | None:
    """The note, where there is one."""
    note_uri = _file(uri, target_name, index, "failed.json")
    return str(storage.read_json(note_uri)["error"]) if storage.exists(note_uri) else None


def note_begin(uri: str, target_name: str, index: int) -> None:
    """Count that a worker begins with a member, so that the next worker knows whom this one may have died of."""
    n_before = times_begun(uri, target_name, index)
    storage.write_json(_file(uri, target_name, index, "begun.json"), {"times": n_before + 1})


def times_begun(uri: str, target_name: str, index: int) -> int:
    """How many workers of this run have begun with a member that is not finished."""
    note_uri = _file(uri, target_name, index, "begun.json")
    return int(storage.read_json(note_uri)["times"]) if storage.exists(note_uri) else 0


def forget_notes(uri: str, target_names: Sequence[str], index: int) -> None:
    """Take away what an earlier run, or the training of a finished member, has noted."""
    for name in target_names:
        for note in ("failed.json", "begun.json"):
            storage.remove_tree(_file(uri, name, index, note))


def _file(uri: str, target_name: str, index: int, part: str) -> str:
    return storage.join(uri, target_name, f"member-{index:02d}.{part}")


def _pack(result: MemberResult) -> dict[str, bytes]:
    predictions = io.BytesIO()
    np.savez(predictions, mu_N=result.mu_N, sigma_N=result.sigma_N)
    history = json.dumps([asdict(record) for record in result.history])
    return {"safetensors": result.data, "npz": predictions.getvalue(), "json": history.encode()}


def _read_record(uri: str, target_name: str, index: int, *, fingerprint: str) -> dict[str, Any] | None:
    """The record of a finished member of these inputs."""
    record_uri = _file(uri, target_name, index, "done.json")
    if not storage.exists(record_uri):
        return None
    record: dict[str, Any] = storage.read_json(record_uri)
    return record if record["fingerprint"] == fingerprint else None


def _unpack(parts: Mapping[str, bytes], record: Mapping[str, Any]) -> MemberResult:
    predictions = np.load(io.BytesIO(parts["npz"]), allow_pickle=False)
    return MemberResult(
        data=parts["safetensors"],
        mu_N=predictions["mu_N"],
        sigma_N=predictions["sigma_N"],
        history=tuple(EpochRecord(**epoch) for epoch in json.loads(parts["json"])),
        discarded_seeds=tuple(record.get("discarded_seeds", ())),  # a record of an earlier release has none
    )

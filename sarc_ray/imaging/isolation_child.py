"""The process in which images of unknown origin are read; :mod:`sarc_ray.imaging.isolation` starts and ends it.

Codecs are C code that a damaged file can drive into a crash, an endless loop or all of the memory. Here that costs
a process that holds nothing: no credentials, no open files, and no other image.

Requests come on standard input, replies go to what was standard output: a length, a JSON text, then raw bytes. Nothing
is unpickled on either side, so a decoder that was taken over cannot reach the parent by its replies.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import json
import os
import resource
import signal
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from sarc_ray.errors import Reason
from sarc_ray.imaging import judge
from sarc_ray.imaging.header import HeaderFacts
from sarc_ray.imaging.preprocess import ImageResult, PreprocessConfig, process_object, use_one_thread
from sarc_ray.instruments import PARTS

LENGTH = struct.Struct("<I")
READY = {"ready": True}
_BLOCK_BYTES = 2**16
_PR_SET_PDEATHSIG = 1
# The parent's own time limit comes first; this one is for a child whose parent is stopped or gone.
_ALARM_SLACK_S = 5.0
# No part of an image takes a day. What a child says beyond that would make sums that JSON cannot hold.
_MOST_SECONDS = 86_400.0
# A child whose memory has grown by more than this once an image is done ends, and the next image has a fresh one.
_GROWTH_MAX_BYTES = 256 * 2**20


def message(facts: dict[str, Any]) -> bytes:
    """A JSON text with its length before it."""
    text = json.dumps(facts).encode("ascii")
    return LENGTH.pack(len(text)) + text


def pack_result(result: ImageResult) -> bytes:
    """An :class:`ImageResult` as a message, followed by the picture's bytes where there is one."""
    facts = {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}
    image_HW = facts.pop("image_HW")
    facts["seconds"] = dict(result.seconds)
    facts["header"] = None if result.header is None else dataclasses.asdict(result.header)
    facts["image_bytes"] = 0 if image_HW is None else image_HW.size
    return message(facts) + (b"" if image_HW is None else np.ascontiguousarray(image_HW).tobytes())


def unpack_result(facts: dict[str, Any], image: bytes, size_px: int) -> ImageResult:
    """The inverse of :func:`pack_result`.

    Args:
        facts: the message.
        image: size_px * size_px bytes, or none.
        size_px: side of the picture.

    Raises:
        TypeError, ValueError, KeyError: this is no reply of a sound child.
    """
    known = {field.name for field in dataclasses.fields(ImageResult)} - {"image_HW", "header", "reason", "seconds"}
    header = facts["header"]
    reason = Reason(facts["reason"])
    if bool(image) != (reason is Reason.NONE):
        raise ValueError(f"{len(image)} bytes of a picture with the reason {reason!r}")
    return ImageResult(
        reason=reason,
        image_HW=np.frombuffer(image, dtype=np.uint8).reshape(size_px, size_px) if image else None,
        header=None if header is None else HeaderFacts(**{name: _hashable(value) for name, value in header.items()}),
        seconds=_checked_seconds(facts["seconds"]),
        **{name: _hashable(facts[name]) for name in known},
    )


def _checked_seconds(found: Any) -> dict[str, float]:
    seconds = {name: float(found[name]) for name in PARTS if name in found}
    if not all(0.0 <= value <= _MOST_SECONDS for value in seconds.values()):
        raise ValueError("seconds that make no sense")
    return seconds


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def without_picture(reason: Reason, digest: str | None) -> ImageResult:
    """The result of an image of which nothing is known but the hash of its object."""
    return ImageResult(reason=reason, image_HW=None, image_sha256=digest, header=None, gate_flags="")


def main(parent_pid: int) -> None:
    """Answer requests until the parent closes the pipe or is gone."""
    requests = os.fdopen(0, "rb", _BLOCK_BYTES)
    reply_fd = os.dup(1)
    # A codec that prints must not speak into the replies.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    _give_up_rights(parent_pid)
    use_one_thread()
    judge.warm_up()
    _write(reply_fd, message(READY))
    with contextlib.suppress(BrokenPipeError):
        _serve(requests, reply_fd)


def _serve(requests: IO[bytes], reply_fd: int) -> None:
    started_bytes = _address_space_bytes()
    ran_out = False
    # Where memory ran out, a module may be half imported, and a codec in a state that nobody has tested.
    while not ran_out and _address_space_bytes() - started_bytes <= _GROWTH_MAX_BYTES:
        length = requests.read(LENGTH.size)
        if len(length) < LENGTH.size:
            return
        request = json.loads(requests.read(LENGTH.unpack(length)[0]))
        signal.setitimer(signal.ITIMER_REAL, request["seconds"] + _ALARM_SLACK_S)
        result = _read_image(requests, request)
        ran_out = result is None
        _write(reply_fd, pack_result(result or without_picture(Reason.IMAGE_TOO_LARGE, None)))
        signal.setitimer(signal.ITIMER_REAL, 0)


def _read_image(requests: IO[bytes], request: dict[str, Any]) -> ImageResult | None:
    """What became of the image of a request; None where memory ran out."""
    left = request["object_bytes"]
    with _memory_limit(request["mebibytes"] * 2**20):
        try:
            data = requests.read(left)
        except MemoryError:  # Raised before the first byte is taken.
            while left:
                left -= len(requests.read(min(left, _BLOCK_BYTES)))
            return None
        try:
            return process_object(data, PreprocessConfig(**request["config"]))
        except MemoryError:
            return None


def _give_up_rights(parent_pid: int) -> None:
    """End with the parent; write no file and no core dump (it would hold the picture); leave Ctrl-C to the parent."""
    if sys.platform == "linux":
        # The kernel's signal reaches a child that hangs in a codec and cannot see that its pipe was closed. It comes
        # when the thread ends that started the child, too; a child found dead at rest is simply replaced.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent_pid:
            sys.exit()
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


@contextlib.contextmanager
def _memory_limit(limit_bytes: int) -> Iterator[None]:
    """Let the process grow by ``limit_bytes`` at most; what asks for more is told that there is none.

    The address space is limited, not the resident memory, which Linux does not limit, and not the data segment, which
    older kernels count without mmap. It is counted from where it stands, so that every image has the same room.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = _address_space_bytes() + limit_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


def _address_space_bytes() -> int:
    """Of this process; 0 where the system does not tell (it has no limit to it either)."""
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[0]
    except OSError:
        return 0
    return int(pages) * resource.getpagesize()


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]

"""Reading images of unknown origin in a process that may die: a limit of time and of memory for each image.

A limit must hold inside a C codec, where no exception, signal handler or thread of Python can interfere. So images are
read in a child process (:mod:`sarc_ray.imaging.isolation_child`) that stays warm from image to image, and that is
killed when an image takes too long. What dies there costs one image, which gets its reason.

The child is a new program, not a fork: it inherits no lock of a thread, no socket and no open file but its two pipes,
and no credentials of the environment.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sarc_ray.errors import Reason, SarcRayError
from sarc_ray.imaging.dicom import MAX_OBJECT_BYTES
from sarc_ray.imaging.isolation_child import LENGTH, READY, message, unpack_result, without_picture
from sarc_ray.imaging.preprocess import ImageResult, PreprocessConfig, process_image

# The program of a child. What keeps it from starting is told in the form of a reply; nothing else of its errors is.
_PROGRAM = """
import json, os, struct, sys
sys.path[:] = json.loads(sys.argv[1])
try:
    from sarc_ray.imaging.isolation_child import main
except BaseException as error:
    text = json.dumps({"failure": f"{type(error).__name__}: {error}"[:1000]}).encode("ascii")
    os.write(1, struct.pack("<I", len(text)) + text)
    raise SystemExit(1)
main(int(sys.argv[2]))
"""
# What a program needs to start. Keys of object stores, tokens and the like stay behind.
_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ")
_SETTINGS = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    # glibc: keep the buffers of one image for the next one. Fresh pages cost as much as the copy through the pipe.
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(128 * 2**20),
}
_START_LIMIT_S = 120.0
_START_ATTEMPTS = 3
_START_PAUSE_S = 1.0
_REPLY_MAX_BYTES = 2**16
_PIPE_BYTES = 2**20


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadLimits:
    """What one image may use. No limit changes the result of an image that keeps within it.

    Attributes:
        seconds_per_image: wall-clock time of reading one image, from its bytes to the small picture.
        mebibytes_per_image: memory for it, the object's own bytes among it (Linux; elsewhere there is no such limit).
    """

    seconds_per_image: float
    mebibytes_per_image: int

    def __post_init__(self) -> None:
        if not self.seconds_per_image > 0:
            raise ValueError(f"seconds_per_image: found {self.seconds_per_image}, must be above 0")
        if self.mebibytes_per_image < 1:
            raise ValueError(f"mebibytes_per_image: found {self.mebibytes_per_image}, must be at least 1")


def read_images(datas: Iterable[bytes | Exception], config: PreprocessConfig, limits: ReadLimits) -> list[ImageResult]:
    """:func:`process_image` for each object, out of harm's way; never raises for an image.

    A death is laid on an image only if it was the first of its child: one that ends a child which has read others is
    read once more in a fresh one. So an image never pays for what another one did to the memory of the process.

    Args:
        datas: the objects' bytes, or what fetching them ended in; taken one by one.
        config: how to preprocess.
        limits: of each image.

    Returns:
        N results in order; ``DECODER_CRASHED``, ``DECODER_TIMEOUT`` and ``IMAGE_TOO_LARGE`` beside what
        :func:`process_image` gives.

    Raises:
        SarcRayError: no child can be started at all.
    """
    return [
        process_image(data, config) if isinstance(data, Exception) else _read_image(data, config, limits)
        for data in datas
    ]


def warm_up() -> None:
    """Start a child if none waits, and do not wait for it: it gets ready while the first objects are fetched."""
    if not _idle:
        _idle.append(_start())


def _read_image(data: bytes, config: PreprocessConfig, limits: ReadLimits) -> ImageResult:
    if len(data) > MAX_OBJECT_BYTES:  # it may have been fetched in part, so its hash is not told
        return ImageResult(reason=Reason.IMAGE_TOO_LARGE, image_HW=None, image_sha256=None, header=None, gate_flags="")
    if len(data) > limits.mebibytes_per_image * 2**20:
        return _refused(Reason.IMAGE_TOO_LARGE, data)
    started = time.perf_counter()
    while True:
        child = _take()
        try:
            result = child.read(data, config, limits)
        except (_DiedError, _LateError) as error:
            child.end()
            if child.n_read == 0:
                late = isinstance(error, _LateError)
                return _refused(Reason.DECODER_TIMEOUT if late else Reason.DECODER_CRASHED, data)
        except BaseException:  # Ctrl-C, say: the child's pipes are in the middle of a message.
            child.end()
            raise
        else:
            _idle.append(child)
            # Where memory ran out the child may not even have come to the hash.
            result = result if result.image_sha256 else _refused(result.reason, data)
            around = time.perf_counter() - started - sum(result.seconds.values())
            return dataclasses.replace(result, seconds={**result.seconds, "isolate": around})


def _refused(reason: Reason, data: bytes) -> ImageResult:
    return without_picture(reason, hashlib.sha256(data).hexdigest())


class _DiedError(Exception):
    """The child ended, or what it says makes no sense."""


class _LateError(Exception):
    """The time is over."""

    def __str__(self) -> str:
        return "the time is over"


class _Child:
    """One child process and the pipes to it; used by one thread at a time."""

    def __init__(self) -> None:
        self.n_read = 0
        self.owner = os.getpid()
        self._ready = False
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-B", "-c", _PROGRAM, json.dumps(sys.path), str(self.owner)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # what codecs complain of can quote the file
            bufsize=0,
            env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ} | _SETTINGS,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to_child = self._process.stdin.fileno()
        self._from_child = self._process.stdout.fileno()
        os.set_blocking(self._to_child, False)
        os.set_blocking(self._from_child, False)
        if hasattr(fcntl, "F_SETPIPE_SZ"):
            with contextlib.suppress(OSError):  # more than the system allows to this user
                fcntl.fcntl(self._to_child, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    @property
    def pid(self) -> int:
        return self._process.pid

    def alive(self) -> bool:
        return self._process.poll() is None

    def read(self, data: bytes, config: PreprocessConfig, limits: ReadLimits) -> ImageResult:
        """Have one image read.

        Raises:
            _DiedError, _LateError: the child is of no more use.
        """
        deadline = time.monotonic() + limits.seconds_per_image
        request = {
            "config": dataclasses.asdict(config),
            "seconds": limits.seconds_per_image,
            "mebibytes": limits.mebibytes_per_image,
            "object_bytes": len(data),
        }
        self._send(message(request), deadline)
        self._send(data, deadline)
        facts = self._receive_message(deadline)
        try:
            n_bytes = facts.pop("image_bytes")
            if n_bytes not in (0, config.size_px**2):
                raise ValueError(f"a picture of {n_bytes} bytes")
            result = unpack_result(facts, self._receive(n_bytes, deadline), config.size_px)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _DiedError("a reply that makes no sense") from error
        self.n_read += 1
        return result

    def end(self) -> None:
        """Kill the process, at whatever it is, and clear away what is left of it."""
        if self.owner == os.getpid():
            self._process.kill()
            self._process.wait()
        else:  # another process's child, of which this one has a copy of the record
            self._process.returncode = 0
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def wait_until_ready(self) -> None:
        """Return once the child can read.

        Raises:
            _DiedError, _LateError: it cannot, and is of no use.
        """
        if not self._ready:
            facts = self._receive_message(time.monotonic() + _START_LIMIT_S)
            if facts != READY:
                raise _DiedError(str(facts.get("failure", "it does not say why")))
            self._ready = True

    def _send(self, data: bytes, deadline: float) -> None:
        view = memoryview(data)
        while view:
            _wait(self._to_child, select.POLLOUT, deadline)
            try:
                view = view[os.write(self._to_child, view) :]
            except BrokenPipeError as error:
                raise _DiedError("it reads no more") from error

    def _receive_message(self, deadline: float) -> dict[str, Any]:
        (length,) = LENGTH.unpack(self._receive(LENGTH.size, deadline))
        if length > _REPLY_MAX_BYTES:
            raise _DiedError(f"a reply of {length} bytes")
        try:
            facts = json.loads(self._receive(length, deadline))
        except ValueError as error:
            raise _DiedError("a reply that is not JSON") from error
        if not isinstance(facts, dict):
            raise _DiedError("a reply that is no object")
        return facts

    def _receive(self, n_bytes: int, deadline: float) -> bytes:
        parts = []
        while n_bytes:
            _wait(self._from_child, select.POLLIN, deadline)
            part = os.read(self._from_child, n_bytes)
            if not part:
                raise _DiedError("it speaks no more")
            parts.append(part)
            n_bytes -= len(part)
        return b"".join(parts)


def _wait(fd: int, event: int, deadline: float) -> None:
    poller = select.poll()
    poller.register(fd, event)
    if not poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
        raise _LateError


# Children that wait for work. Appending and popping are atomic, so threads need no lock around them.
_idle: list[_Child] = []


def idle_pids() -> list[int]:
    """Process ids of the children that wait for work."""
    return [child.pid for child in _idle]


def end_idle() -> None:
    """End the children that wait for work."""
    while _idle:
        _idle.pop().end()


def _take() -> _Child:
    """A child that is ready: a warm one, or a new one."""
    failures = 0
    while True:
        child = _warm() or _start()
        try:
            child.wait_until_ready()
        except (_DiedError, _LateError) as error:
            child.end()
            failures += 1
            if failures == _START_ATTEMPTS:
                raise SarcRayError(
                    f"the process that reads images does not start: {error}; {failures} attempts. Try "
                    f"'{sys.executable} -c \"import sarc_ray.imaging.isolation_child\"', and see that memory is left"
                ) from error
            time.sleep(_START_PAUSE_S)  # a system short of memory may have more in a moment
        else:
            return child


def _warm() -> _Child | None:
    """A child that waits for work, if there is one."""
    while True:
        try:
            child = _idle.pop()
        except IndexError:
            return None
        if child.owner == os.getpid() and child.alive():
            return child
        child.end()  # it belongs to the process that this one was forked from, or has died at rest


def _start() -> _Child:
    atexit.unregister(end_idle)
    atexit.register(end_idle)
    return _Child()

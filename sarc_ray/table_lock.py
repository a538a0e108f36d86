"""One run at a time per table: a lock object in the table's folder that beats as long as its run lives.

Layout: ``<table>/lock.json`` holds the run's name, its host, the time it began, a random token and a count of beats. A
second run on the table tells a live holder from a killed one so:

- on the holder's own machine by an operating-system lock on a small local file, which the system lets go of at once
  when a process ends, however it ends;
- elsewhere by watching: a lock whose bytes change is alive and the newcomer is refused; one that stays silent for
  ``silence_s`` is taken over. No clock of another host is trusted.

So the same command after a kill needs no questions: at once on the same machine, within ``silence_s`` on another.

Limits. Where the store creates an object only once (local files, AWS S3 and other stores that heed If-None-Match), two
that begin at the same moment are told apart for certain. Elsewhere the later write wins, and each looks again after
``settle_s``; a write that is under way for longer can let both begin. A holder that is stopped for longer than
``silence_s`` (a suspended laptop, a network that is down) is taken for dead, and goes on when it wakes. In both cases
the one that finds another's token in the lock ends, at the latest before it would move the table's pointer; a store
offers no way to make this look and that move one step.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import hashlib
import json
import logging
import os
import secrets
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from sarc_ray import storage
from sarc_ray.errors import StorageError, TableBusyError

logger = logging.getLogger(__name__)

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_ATTEMPTS = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Patience:
    """Times of the lock.

    Attributes:
        beat_s: between two beats of a holder.
        silence_s: without a beat for so long, a holder elsewhere counts as dead; several beats.
        settle_s: after which a run looks again whether the lock is its own, where the store cannot tell.
    """

    beat_s: float
    silence_s: float
    settle_s: float


PATIENCE = Patience(beat_s=10.0, silence_s=60.0, settle_s=2.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Holder:
    """Content of ``lock.json``: who writes the table.

    Attributes:
        run: name of the run.
        host: its machine.
        token: drawn at random; the holder's identity.
        place: names the local file by which the holder's own machine knows it; empty where there is none.
        started: when it began, ISO with the time zone, by its own clock.
        beats: signs of life so far.
    """

    run: str
    host: str
    token: str
    place: str
    started: str
    beats: int

    def to_bytes(self) -> bytes:
        """The object's content."""
        return (json.dumps(asdict(self), indent=2, sort_keys=True) + "\n").encode("utf-8")

    def words(self) -> str:
        """Name, machine and age, for messages."""
        age = dt.datetime.now(dt.UTC) - dt.datetime.fromisoformat(self.started)
        minutes = max(0, int(age.total_seconds() // 60))
        hours, rest = divmod(minutes, 60)
        since = f"{hours} h {rest} min" if hours else f"{minutes} min"
        return f"the run '{self.run}' on {self.host} (begun {self.started[:16].replace('T', ' ')} UTC, {since} ago)"


def lock_uri(uri: str) -> str:
    """URL of a table's lock."""
    return storage.join(uri, "lock.json")


class TableLock:
    """A lock that is held; made by :func:`hold`."""

    def __init__(self, uri: str, mine: Holder) -> None:
        self._uri = uri
        self._mine = mine

    def require(self) -> None:
        """Return while the lock is this run's own.

        Raises:
            TableBusyError: another run took the table over, because this one gave no sign of life for too long.
        """
        found = _holder(_read(self._uri))
        if found is None or found.token != self._mine.token:
            by = "another run, which has ended" if found is None else found.words()
            raise TableBusyError(
                f"{storage.parent(self._uri)}: taken over by {by}, while this one gave no sign of life; nothing was "
                "sealed. Run the same command again when that one has ended"
            )

    def beat_until(self, stop: threading.Event, beat_s: float) -> None:
        """Give signs of life until ``stop`` is set or the lock is another's."""
        while not stop.wait(beat_s):
            # A store that fails for a moment costs a beat; one that fails for longer ends the run's own work too.
            with contextlib.suppress(StorageError):
                found = _holder(_read(self._uri))
                if found is None or found.token != self._mine.token:
                    return
                self._mine = replace(self._mine, beats=self._mine.beats + 1)
                storage.write_bytes(self._uri, self._mine.to_bytes())

    def release(self) -> None:
        """Remove the lock if it is still this run's own."""
        # Where the store is out of reach the lock falls silent, and the next run takes it over.
        with contextlib.suppress(StorageError):
            found = _holder(_read(self._uri))
            if found is not None and found.token == self._mine.token:
                storage.remove_tree(self._uri)


@contextlib.contextmanager
def hold(uri: str, *, run: str, patience: Patience = PATIENCE) -> Iterator[TableLock]:
    """Hold a table for the length of the block.

    Args:
        uri: the table, any fsspec URL.
        run: this run's name, which others are told.
        patience: times of the lock; all runs on a table should have the same.

    Raises:
        TableBusyError: a live run holds it.
        StorageError: the table's folder cannot be written.
    """
    where = lock_uri(uri)
    with _local_presence(where) as (place, is_ours):
        mine = Holder(
            run=run,
            host=socket.gethostname(),
            token=secrets.token_hex(16),
            place=place if is_ours else "",
            started=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            beats=0,
        )
        _take(where, mine, patience, place=place, place_is_free=is_ours)
        lock = TableLock(where, mine)
        stop = threading.Event()
        thread = threading.Thread(target=lock.beat_until, args=(stop, patience.beat_s), daemon=True)
        thread.start()
        try:
            yield lock
        finally:
            stop.set()
            thread.join()
            lock.release()


def _take(where: str, mine: Holder, patience: Patience, *, place: str, place_is_free: bool) -> None:
    """Make the lock object this run's own."""
    for _ in range(_ATTEMPTS):
        if storage.create_bytes(where, mine.to_bytes()):
            if storage.creates_once(where, mine.to_bytes()):
                return
        else:
            data = _read(where)
            if data is None:  # its run has just ended
                continue
            if data == mine.to_bytes():  # the store made it, and its answer was lost
                return
            _require_dead(where, data, patience, place=place, place_is_free=place_is_free)
            storage.write_bytes(where, mine.to_bytes())
        time.sleep(patience.settle_s)
        found = _holder(_read(where))
        if found is not None and found.token == mine.token:
            return
        if found is not None:
            raise _busy(where, found)
    raise TableBusyError(f"{storage.parent(where)}: other runs come and go on this table; run one at a time")


def _require_dead(where: str, data: bytes, patience: Patience, *, place: str, place_is_free: bool) -> None:
    """Return when the holder is known to be dead."""
    holder = _holder(data)
    if holder is not None and holder.place and holder.place == place:
        if not place_is_free:
            raise _busy(where, holder)
    else:
        _watch(where, data, patience)
    name = "a run" if holder is None else holder.words()
    logger.warning("%s: taken over from %s, which ended without a word", storage.parent(where), name)


def _watch(where: str, data: bytes, patience: Patience) -> None:
    """Return when the lock has been silent for long enough, or is gone."""
    holder = _holder(data)
    logger.warning(
        "%s: %s left its lock here; looking for a sign of life, %.0f s at most",
        storage.parent(where),
        "a run" if holder is None else holder.words(),
        patience.silence_s,
    )
    deadline = time.monotonic() + patience.silence_s
    while time.monotonic() < deadline:
        time.sleep(patience.beat_s / 5)
        now = _read(where)
        if now is None:
            return
        if now != data:
            raise _busy(where, _holder(now))


def _busy(where: str, holder: Holder | None) -> TableBusyError:
    who = "another run" if holder is None else holder.words()
    return TableBusyError(
        f"{storage.parent(where)}: {who} is writing this table and alive; wait until it ends, or write another table"
    )


def _read(where: str) -> bytes | None:
    try:
        return storage.read_bytes(where)
    except StorageError as error:
        if storage.is_missing(error):
            return None
        raise


def _holder(data: bytes | None) -> Holder | None:
    """The holder; None where there is none, or where its lock is half written or of another release."""
    if data is None:
        return None
    try:
        return Holder(**json.loads(data))
    except (ValueError, TypeError):
        return None


@contextlib.contextmanager
def _local_presence(where: str) -> Iterator[tuple[str, bool]]:
    """Lock a file of this machine for the block: its name as a place, and whether the lock was free.

    The place names machine, boot, device and inode, so that containers on one host which do not share the file are not
    taken for one another. The empty file stays: one that is removed while another process opens it would be two.
    """
    name = hashlib.sha256(storage.canonical_uri(where).encode("utf-8")).hexdigest()[:24]
    path = os.path.join(tempfile.gettempdir(), f"sarc-ray-{os.getuid()}-{name}.lock")
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0), 0o600)
    except OSError:  # no writable folder for temporary files: only the beats tell
        yield "", False
        return
    try:
        found = os.fstat(fd)
        boot = _BOOT_ID.read_text(encoding="ascii").strip() if _BOOT_ID.exists() else ""
        place = f"{socket.gethostname()}:{boot}:{found.st_dev}:{found.st_ino}"
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield place, False
        else:
            yield place, True
    finally:
        os.close(fd)

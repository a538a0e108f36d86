"""How a verb says how far it is: what is counted, how many are done, and how many there are in all."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from sarc_ray.watching import Snapshot, Watcher

# (what is counted, done, in all)
Tell: TypeAlias = Callable[[str, int, int], None]


def silent(what: str, done: int, total: int) -> None:
    """The ``tell`` of callers that show no progress."""


def counted(tell: Tell, what: str) -> Callable[[int, int], None]:
    """For those who give numbers alone."""

    def progress(done: int, total: int) -> None:
        tell(what, done, total)

    return progress


def watched(tell: Tell, what: str) -> Watcher:
    """For tables that are being written: with what else is known of their progress after a semicolon."""

    def watcher(now: Snapshot) -> None:
        tell("; ".join(filter(None, (what, now.describe()))), now.done, now.total)

    return watcher

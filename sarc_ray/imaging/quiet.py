"""Silence pydicom where this package reads, and nowhere else.

Odd headers are everyday matters, and pydicom's messages can quote them. Its warnings and log records all pass through
one function and one logger. Both get a doorkeeper that asks a context variable, so that other threads, other users of
pydicom in the process, and the process's own warning filters and log levels stay as they are.
(``warnings.catch_warnings`` changes the filters of the whole process while it lasts.)
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import pydicom.misc

_QUIET: ContextVar[bool] = ContextVar("sarc_ray_quiet_pydicom", default=False)


class _Doorkeeper:
    """Stands where ``pydicom.misc`` has the module ``warnings``; is also a filter of pydicom's logger."""

    def warn(self, message: str, category: type[Warning] | None = None, stacklevel: int = 1) -> None:
        if not _QUIET.get():
            warnings.warn(message, category, stacklevel=stacklevel + 1)

    def filter(self, record: logging.LogRecord) -> bool:
        return not _QUIET.get()

    def __getattr__(self, name: str) -> Any:
        return getattr(warnings, name)


_DOORKEEPER = _Doorkeeper()


@contextlib.contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Within this context pydicom neither warns nor logs."""
    if getattr(pydicom.misc, "warnings", None) is not _DOORKEEPER:
        setattr(pydicom.misc, "warnings", _DOORKEEPER)  # noqa: B010 (a module's own name, which mypy knows as a module)
        logging.getLogger("pydicom").addFilter(_DOORKEEPER)
    token = _QUIET.set(True)
    try:
        yield
    finally:
        _QUIET.reset(token)

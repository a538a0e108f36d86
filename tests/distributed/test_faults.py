"""Scoring by the command line while store, workers, nodes and the driver itself fail: the same table in the end.

What is expected is made in one process without the engine (tests/archive.py).
"""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from sarc_ray import storage, tables
from tests.archive import N_ROWS, ROOT, command_server, make_archive
from tests.fault_proxy import Faults, faulty

pytestmark = pytest.mark.slow
N_KILLS = 20
REMEDY = "run the same command again"


@pytest.fixture(scope="module")
def archive(s3_server, tmp_path_factory):
    return make_archive("s3://tests/faults", tmp_path_factory.mktemp("faults"))


@pytest.fixture(scope="module")
def served(s3_server):
    """The faulty store, and a server of commands that speaks to it."""
    with faulty(s3_server) as (proxy, environment), command_server(environment) as server:
        yield proxy, server


@pytest.fixture
def proxy(served):
    """The store, without a fault so far."""
    proxy, _ = served
    proxy.rule, proxy.faults = (lambda method, key: None), Faults()
    proxy.forget()
    return proxy


@pytest.fixture
def server(served):
    return served[1]


def images(proxy):
    """GETs of radiographs by name."""
    return {key.rpartition("/")[2]: n for key, n in proxy.count("GET", "/faults/images/").items()}


def test_a_failing_store_costs_nothing_and_a_retry_touches_what_failed_alone(
    archive, s3_url, proxy, server, record_property
):
    """5% of all calls answered with 503, 5% stalled, 1% cut short; and two objects that fail for good at first."""
    failing = {"/tests/faults/images/000.dcm": (503, "SlowDown"), "/tests/faults/images/010.dcm": (0, "")}
    proxy.rule = lambda method, key: failing.get(key)
    proxy.faults = Faults(unavailable=0.05, stalled=0.05, cut=0.01, stall_s=3.0, seed=2)
    code, told = server.run(archive.arguments(s3_url))
    assert code == 0, told
    met = proxy.faults_met()
    record_property("requests", len(proxy.exchanges))
    record_property("faults", dict(met))
    assert min(met["unavailable"], met["stalled"], met["cut"]) > 0
    first = tables.read(s3_url).set_index("row_id")
    expected = archive.expected.set_index("row_id")
    assert first.index.equals(expected.index)
    marked = first[first["retryable"]]
    assert marked["reason"].tolist() == ["storage_failed"] * 2
    others = expected.columns.drop("run_id")
    pd.testing.assert_frame_equal(first.loc[~first["retryable"], others], expected.loc[~first["retryable"], others])

    proxy.rule, proxy.faults = (lambda method, key: None), Faults()
    proxy.forget()
    code, told = server.run(archive.arguments(s3_url, "--retry"))
    assert code == 0, told
    assert images(proxy) == {"000.dcm": 1, "010.dcm": 1}
    assert proxy.count("HEAD", "/faults/images/") == {}
    archive.require_right(s3_url)
    assert tables.read_pointer(s3_url).n_retryable == 0


def test_each_radiograph_is_fetched_once(archive, s3_url, proxy, server):
    """From the manifest to the table: one GET for each object, no HEAD."""
    code, told = server.run(archive.arguments(s3_url))
    assert code == 0, told
    archive.require_right(s3_url)
    assert images(proxy) == {f"{number:03d}.dcm": 1 for number in range(N_ROWS)}
    assert proxy.count("HEAD", "/faults/images/") == {}


def test_credentials_that_expire_stop_the_run_and_the_same_command_goes_on(
    archive, s3_url, proxy, server, record_property
):
    proxy.rule = lambda method, key: (403, "ExpiredToken") if len(images(proxy)) >= N_ROWS // 2 else None
    code, told = server.run(archive.arguments(s3_url))
    assert code == 3, told
    assert "credentials are missing, wrong or expired" in told
    assert "renew them" in told
    assert REMEDY in told
    assert "Traceback" not in told
    assert tables.read_pointer(s3_url) is None
    proxy.rule = lambda method, key: None
    proxy.forget()
    code, told = server.run(archive.arguments(s3_url))
    assert code == 0, told
    record_property("fetched_again", sum(images(proxy).values()))
    archive.require_right(s3_url)


def test_a_bucket_that_refuses_writes_stops_the_run_and_the_same_command_goes_on(
    archive, s3_url, proxy, server, record_property
):

    def refuse(method, key):
        return (403, "AccessDenied") if method == "PUT" and "/parts/" in key and n_parts() >= 3 else None

    def n_parts():
        return sum(1 for key in proxy.count("PUT") if "/parts/" in key)

    proxy.rule = refuse
    code, told = server.run(archive.arguments(s3_url))
    assert code == 3, told
    assert "check permissions and free space" in told
    assert REMEDY in told
    assert "Traceback" not in told
    assert tables.read_pointer(s3_url) is None
    proxy.rule = lambda method, key: None
    proxy.forget()
    code, told = server.run(archive.arguments(s3_url))
    assert code == 0, told
    record_property("fetched_again", sum(images(proxy).values()))
    assert sum(images(proxy).values()) < N_ROWS  # what was written is not fetched again
    archive.require_right(s3_url)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own with room for nothing but a lock and a few parts."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip("this user may not mount a file system")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_full_disk_stops_the_run_and_with_room_the_same_command_goes_on(archive, proxy, server, small_disk):
    table = str(small_disk / "scores")
    (small_disk / "filler").write_bytes(b"x" * 60_000)
    code, told = server.run(archive.arguments(table))
    assert code == 3, told
    assert "No space left on device" in told
    assert "free space" in told
    assert REMEDY in told
    assert "Traceback" not in told
    assert tables.read_pointer(table) is None
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    code, told = server.run(archive.arguments(table))
    assert code == 0, told
    archive.require_right(table)


def parents():
    """Parent of every process."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            found[int(path.parent.name)] = int(path.read_text(encoding="utf-8").rpartition(")")[2].split()[1])
    return found


def workers_of(pid, kind):
    """Processes of the engine below a driver that are at work of a kind."""
    of, found = parents(), []
    for process in of:
        ancestor = process
        while ancestor in of and ancestor != pid:
            ancestor = of[ancestor]
        with contextlib.suppress(OSError):
            line = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")[0].decode()
            if ancestor == pid and line.startswith("ray::") and kind in line:
                found.append(process)
    return found


def wait_for(condition):
    deadline = time.monotonic() + 900.0
    while not (found := condition()):
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.02)
    return found


def test_killed_workers_cost_nothing(archive, proxy, server, tmp_path, record_property):
    """Readers and the scorer, by kill -9 in the middle of their work."""
    table = str(tmp_path / "scores")
    server.begin(archive.arguments(table))
    killed = []
    for kind in ("Map", "Score", "Map"):
        worker = wait_for(lambda kind=kind: workers_of(server.pid, kind))[0]
        os.kill(worker, signal.SIGKILL)
        killed.append(kind)
        time.sleep(0.3)
    code, told = server.end()
    record_property("killed", killed)
    assert code == 0, told
    archive.require_right(table)


def test_a_lost_node_costs_nothing_and_its_replacement_works(archive, tmp_path, record_property):
    """Three nodes on this machine; one is ended without warning in the middle, and another one joins."""
    request = {"manifest": archive.manifest, "bundle": archive.bundle, "table": str(tmp_path / "scores")}
    request["key_file"] = archive.key_file
    program = [sys.executable, "-W", "ignore", "-m", "tests.distributed.lost_scoring_node", json.dumps(request)]
    ended = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    facts = json.loads(ended.stdout.splitlines()[-1])
    record_property("facts", facts)
    assert 0 < facts["parts_when_killed"] < N_ROWS // 2
    assert (facts["nodes_before"], facts["nodes_after"]) == (3, 3)
    archive.require_right(request["table"])


def test_a_driver_killed_at_any_moment_costs_no_question(archive, tmp_path, record_property):
    """Twenty moments: ten drawn over all of a run's length, ten after a number of further parts.

    By the clock alone most moments would lie in the start of the engine, which is most of so small a run. Whenever a
    run comes to its end a new table is begun.
    """
    rng = random.Random(7)
    started = time.monotonic()
    code, told = archive.score(str(tmp_path / "undisturbed"))
    length_s = time.monotonic() - started
    assert code == 0, told
    archive.require_right(str(tmp_path / "undisturbed"))
    phases, n_tables = [], 0
    while len(phases) < N_KILLS:
        n_tables += 1
        table = str(tmp_path / f"scores-{n_tables}")
        while len(phases) < N_KILLS:
            if len(phases) % 2:
                ended = ended_within(archive, table, seconds=rng.uniform(0.0, length_s), further_parts=0)
            else:
                ended = ended_within(archive, table, seconds=rng.uniform(0.0, 1.0), further_parts=rng.randint(1, 6))
            if ended:
                break
            phases.append(phase_of(table))
        code, told = archive.score(table)
        assert code == 0, told
        archive.require_right(table)
        shutil.rmtree(table)
    record_property("killed_during", {name: phases.count(name) for name in sorted(set(phases))})
    record_property("tables", n_tables)
    assert len(phases) == N_KILLS
    assert phases.count("streaming") >= N_KILLS // 4


def ended_within(archive, table, *, seconds, further_parts):
    """Whether the command came to its end; else its driver was killed: some seconds after it had written parts."""
    n_parts = further_parts + (len(parts_of(table)) if further_parts else 0)
    process = archive.start(table)
    while further_parts and len(parts_of(table)) < n_parts and process.poll() is None:
        time.sleep(0.05)
    try:
        out, told = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return False
    assert process.returncode == 0, out + told
    return True


def parts_of(table):
    """Finished parts that are on record."""
    return [name for name in storage.list_files(f"{table}/work", ".parquet") if "/parts/" in name]


def phase_of(table):
    """How far the driver had come when it was killed."""
    pointer = tables.read_pointer(table)
    if pointer is not None:
        return "sealed"
    if storage.list_files(f"{table}/versions"):
        return "sealing"
    if storage.list_files(f"{table}/work", ".parquet"):
        return "streaming" if parts_of(table) else "beginning"
    return "starting"

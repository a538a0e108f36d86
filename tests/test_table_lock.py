"""Who may write a table: one live run, and after a kill the next one without questions."""

import dataclasses
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from sarc_ray import storage, table_lock
from sarc_ray.errors import StorageError, TableBusyError
from sarc_ray.table_lock import Holder, Patience, hold, lock_uri

ROOT = Path(__file__).parents[1]
QUICK = Patience(beat_s=0.05, silence_s=0.5, settle_s=0.1)
HOLDER = Holder(run="nightly", host="elsewhere", token="t", place="", started="2026-01-02T03:04:05+00:00", beats=3)
HOLD_UNTIL_KILLED = """
import sys, time
from sarc_ray.table_lock import hold
with hold(sys.argv[1], run="weekend"):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture(params=["local", "s3"])
def table(request, tmp_path):
    return str(tmp_path / "table") if request.param == "local" else request.getfixturevalue("s3_url")


def test_the_second_run_is_refused_with_name_and_age_and_may_come_when_the_first_has_ended(table):
    with hold(table, run="first", patience=QUICK) as lock:
        started = time.monotonic()
        with (
            pytest.raises(TableBusyError, match=r"the run 'first' on \S+ \(begun .* UTC, 0 min ago\) is writing"),
            hold(table, run="second", patience=dataclasses.replace(QUICK, silence_s=60.0)),
        ):
            pytest.fail("two runs hold one table")
        assert time.monotonic() - started < 10.0  # told by the machine itself, not by watching
        lock.require()
    assert not storage.exists(lock_uri(table))
    with hold(table, run="second", patience=QUICK) as lock:
        lock.require()


def test_a_lock_that_was_made_though_the_answer_was_lost_is_ones_own(table, monkeypatch):
    """The client asks again, and the store says that there is one already: it is this run's."""
    create = storage.create_bytes

    def make_and_lose(uri, data):
        create(uri, data)
        return False

    monkeypatch.setattr(storage, "create_bytes", make_and_lose)
    monkeypatch.setattr(table_lock.os, "open", _refuse)  # as on a machine that does not know its own runs
    started = time.monotonic()
    with hold(table, run="first", patience=dataclasses.replace(QUICK, silence_s=60.0)) as lock:
        lock.require()
    assert time.monotonic() - started < 10.0


def test_age_is_told_in_hours():
    assert "the run 'nightly' on elsewhere (begun 2026-01-02 03:04 UTC, " in HOLDER.words()
    assert " h " in HOLDER.words()


def test_a_failing_run_lets_go(table):
    with pytest.raises(ZeroDivisionError), hold(table, run="first", patience=QUICK):
        raise ZeroDivisionError
    assert not storage.exists(lock_uri(table))


def test_a_killed_run_of_this_machine_is_known_at_once(tmp_path, caplog):
    table = str(tmp_path / "table")
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD_UNTIL_KILLED, table],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )
    assert process.stdout.readline() == "held\n"
    with pytest.raises(TableBusyError, match="the run 'weekend'"), hold(table, run="second", patience=QUICK):
        pytest.fail("two runs hold one table")
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    started = time.monotonic()
    patient = dataclasses.replace(QUICK, silence_s=60.0)
    with caplog.at_level(logging.WARNING), hold(table, run="weekend", patience=patient) as lock:
        lock.require()
    assert time.monotonic() - started < 10.0
    assert "taken over from the run 'weekend'" in caplog.text


def test_a_silent_run_elsewhere_is_taken_over_after_a_while(table, caplog):
    storage.write_bytes(lock_uri(table), HOLDER.to_bytes())
    started = time.monotonic()
    with caplog.at_level(logging.WARNING), hold(table, run="second", patience=QUICK) as lock:
        assert time.monotonic() - started >= QUICK.silence_s
        lock.require()
    assert "looking for a sign of life" in caplog.text
    assert "taken over from the run 'nightly' on elsewhere" in caplog.text


def test_a_live_run_elsewhere_is_respected(table):
    stop = threading.Event()
    storage.write_bytes(lock_uri(table), HOLDER.to_bytes())
    elsewhere = table_lock.TableLock(lock_uri(table), HOLDER)
    thread = threading.Thread(target=elsewhere.beat_until, args=(stop, 0.05))
    thread.start()
    try:
        patient = dataclasses.replace(QUICK, silence_s=30.0)
        with pytest.raises(TableBusyError, match="'nightly'"), hold(table, run="second", patience=patient):
            pytest.fail("two runs hold one table")
        elsewhere.require()
    finally:
        stop.set()
        thread.join()


def test_a_run_that_was_taken_over_notices_and_leaves_the_lock_alone(table):
    with hold(table, run="first", patience=QUICK) as lock:
        storage.write_bytes(lock_uri(table), HOLDER.to_bytes())
        with pytest.raises(TableBusyError, match="taken over by the run 'nightly'"):
            lock.require()
        time.sleep(3 * QUICK.beat_s)
    assert storage.read_bytes(lock_uri(table)) == HOLDER.to_bytes()
    with hold(f"{table}-2", run="first", patience=QUICK) as lock:
        storage.remove_tree(lock_uri(f"{table}-2"))
        with pytest.raises(TableBusyError, match="another run, which has ended"):
            lock.require()


def test_a_lock_that_makes_no_sense_is_watched_like_any_other(tmp_path, caplog):
    table = str(tmp_path)
    storage.write_bytes(lock_uri(table), b"")
    with caplog.at_level(logging.WARNING), hold(table, run="second", patience=QUICK) as lock:
        lock.require()
        assert storage.read_json(lock_uri(table))["run"] == "second"
    assert "a run left its lock here; looking for a sign of life" in caplog.text
    assert "taken over from a run, which ended without a word" in caplog.text
    assert not storage.exists(lock_uri(table))


@pytest.mark.parametrize("once", [True, False])
def test_of_many_that_begin_at_once_one_may(tmp_path, monkeypatch, once):
    """Also where the store knows no condition; the machine's own knowledge is turned off."""
    table = str(tmp_path / "table")
    monkeypatch.setattr(table_lock.os, "open", _refuse)
    if not once:
        monkeypatch.setattr(storage, "_create", _replace)
    monkeypatch.setattr(storage, "write_bytes", _replace)  # its temporary files are named by process, not by thread
    patience = Patience(beat_s=0.1, silence_s=30.0, settle_s=1.0)
    held, refused = [], []
    start = threading.Barrier(6)

    def run(number):
        start.wait()
        try:
            with hold(table, run=f"r{number}", patience=patience) as lock:
                lock.require()
                held.append(number)
                time.sleep(3.0)
                lock.require()
        except TableBusyError:
            refused.append(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(held), len(refused)) == (1, 5)


def _refuse(*arguments):
    raise PermissionError


def _replace(uri, data):
    """What a store without conditions does: the later write wins, and each is whole."""
    os.makedirs(os.path.dirname(uri), exist_ok=True)
    temporary = f"{uri}.{threading.get_ident()}"
    Path(temporary).write_bytes(data)
    os.replace(temporary, uri)
    return True


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "table").write_bytes(b"a file")
    with pytest.raises(StorageError, match="cannot be"), hold(str(tmp_path / "table"), run="r", patience=QUICK):
        pytest.fail("held")

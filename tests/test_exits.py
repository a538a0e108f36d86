"""How the program ends: exit codes, what the reference says of them, a real Ctrl-C, and a cluster that is not there."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer

from sarc_ray import errors, exits
from sarc_ray.cli import app

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
COMMAND = [str(Path(sys.executable).parent / "sarc-ray")]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.ConfigError("x"), 2),
        (errors.ManifestError("x"), 2),
        (errors.SchemaVersionError("x"), 2),
        (errors.StorageError("x"), 3),
        (errors.TrainingError("x"), 5),
        (errors.BundleError("x"), 6),
        (errors.EvaluationError("x"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_an_error_has_its_code_and_one_message(error, code, capsys):
    assert exits.exit_code_of(error) == code
    with pytest.raises(SystemExit) as end, exits.clean_exit():
        raise error
    assert end.value.code == code
    assert capsys.readouterr().err == ("error: x\n" if code != 130 else INTERRUPTED)


INTERRUPTED = "interrupted; what is finished is kept: run the same command again to go on\n"


def test_an_error_that_is_not_ours_keeps_its_traceback():
    with pytest.raises(TypeError, match="no error of ours"):
        exits.exit_code_of(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError), exits.clean_exit():
        raise ZeroDivisionError


def test_a_scheduler_that_ends_us_finds_everything_put_away(capsys):
    put_away = []

    def work():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(30)
        finally:
            put_away.append("the lock")

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as end, exits.clean_exit():
        work()
    assert end.value.code == exits.TERMINATED == 143
    assert put_away == ["the lock"]
    assert capsys.readouterr().err == INTERRUPTED
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_engine_answers_sigterm_with_its_own_number():
    with pytest.raises(SystemExit) as end, exits.clean_exit():
        sys.exit(int(signal.SIGTERM))  # as Ray's handler does
    assert end.value.code == exits.TERMINATED


def commands(group, prefix=""):
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{name} ")
        else:
            yield f"{prefix}{name}", command


def test_every_command_has_help_an_example_and_a_line_in_the_reference():
    found = dict(commands(typer.main.get_command(app)))
    assert {"check", "score", "version", "bundle verify"} <= set(found)
    for name, command in found.items():
        assert command.help, name
        assert f"sarc-ray {name}" in command.epilog, name
        assert re.search(rf"^\| `{name}` \| .+ \| `sarc-ray {name}.*` \|$", PAGE, re.M), name


def test_the_reference_names_every_exit_code():
    table = dict(re.findall(r"^\| (\d+) \| (.+) \|$", PAGE, re.M))
    own = {
        exits.REFUSED,
        exits.GOAL_MISSED,
        exits.DIFFERS,
        exits.DRIFTED,
        exits.INTERRUPTED,
        exits.TERMINATED,
        *(code for _, code, _ in exits.EXIT_CODES),
    }
    assert set(table) == {"0", *map(str, own)}
    for _, code, meaning in exits.EXIT_CODES:
        assert table[str(code)].startswith(meaning)


def test_a_cluster_that_is_not_there_is_told_at_once(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    options = ["--to", str(tmp_path / "cohort"), "--set", f"run.directory={tmp_path / 'run'}"]
    ended = subprocess.run(
        [*COMMAND, "simulate", "demo", *options, "--set", f"engine.address={address}"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 2
    assert f"engine.address: no Ray cluster answers at '{address}'" in ended.stderr
    assert "--set engine.address=local" in ended.stderr


def test_ctrl_c_ends_everything_and_says_what_to_do(tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    process = subprocess.Popen(
        [*COMMAND, "simulate", "demo", "--to", str(tmp_path / "cohort"), "--set", f"run.directory={tmp_path / 'run'}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    deadline = time.monotonic() + 90
    while not list(tmp_path.glob("cohort/*/images/*.dcm")) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert INTERRUPTED in stderr
    assert "Traceback" not in stderr
    assert not list(tmp_path.glob("cohort/*/manifest.parquet")), "it was to be interrupted before its end"
    deadline = time.monotonic() + 30
    while (left := session_processes(process.pid)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert left == []


def session_processes(session):
    """Processes of a session, zombies left out."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, its_session = stat.read_text().rpartition(")")[2].split()[:4]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(its_session) == session and state != "Z":
            found.append(stat.parent.name)
    return found

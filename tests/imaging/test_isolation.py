"""What dies in a child costs one image: real signals, real time limits, real memory limits, in real codecs."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from pydicom import uid as uids

from sarc_ray.errors import Reason, SarcRayError
from sarc_ray.imaging import isolation, isolation_child
from sarc_ray.imaging.isolation import ReadLimits, read_images
from sarc_ray.imaging.preprocess import PreprocessConfig, process_image
from tests.dicom_factory import make_dicom, picture
from tests.dicom_references import REFERENCES
from tests.engine import READ_LIMITS

PAPER = PreprocessConfig(size_px=224, clahe_clip_limit=2.0, clahe_tiles=8, pixel_gate=False)
ROOT = Path(__file__).parents[2]
GOOD = make_dicom()


@pytest.fixture(autouse=True)
def fresh_children():
    """Each test begins and ends without children."""
    isolation.end_idle()
    yield
    isolation.end_idle()


@pytest.fixture(scope="module")
def slow():
    """A picture that OpenJPEG works on for more than a second, and that is allowed in every way."""
    return noisy_jpeg2000()


def noisy_jpeg2000():
    """5 megapixels of noise with one resolution level, so that there is no smaller picture to decode."""
    noise = np.random.default_rng(3).integers(0, 4096, (2500, 2000)).astype(np.uint16)
    frame = imagecodecs.jpeg2k_encode(
        noise, codecformat="j2k", reversible=True, level=0, bitspersample=12, resolutions=1
    )
    return make_dicom(noise, syntax=uids.JPEG2000Lossless, frames=[frame])


def busy_child(datas, limits=READ_LIMITS):
    """Read in a thread; the pid of the child, once it works on the first of ``datas``, and how to get the results."""
    read_images([GOOD], PAPER, limits)
    (pid,) = isolation.idle_pids()
    results = []
    thread = threading.Thread(target=lambda: results.extend(read_images(datas, PAPER, limits)))
    before = cpu_seconds(pid)
    thread.start()
    while cpu_seconds(pid) < before + 0.2:
        time.sleep(0.01)

    def finish():
        thread.join()
        return results

    return pid, finish


def cpu_seconds(pid):
    return int(Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()[0]) / 1e9


def gone(pid):
    """True once a process has ended (a zombie has not been cleared away)."""
    for _ in range(200):
        if not Path(f"/proc/{pid}").exists():
            return True
        time.sleep(0.05)
    return False


def test_the_same_as_in_this_process():
    datas = [reference.make() for reference in REFERENCES]
    isolated = read_images([*datas, FileNotFoundError("x"), OSError("y")], PAPER, READ_LIMITS)
    direct = [process_image(data, PAPER) for data in (*datas, FileNotFoundError("x"), OSError("y"))]
    assert len(isolated) == len(REFERENCES) + 2
    for ours, theirs in zip(isolated, direct, strict=True):
        assert (ours.reason, ours.header, ours.image_sha256) == (theirs.reason, theirs.header, theirs.image_sha256)
        np.testing.assert_array_equal(ours.image_HW, theirs.image_HW)
    assert [r.reason for r in isolated[-2:]] == [Reason.OBJECT_MISSING, Reason.STORAGE_FAILED]


def test_one_warm_child_reads_them_all():
    read_images([GOOD], PAPER, READ_LIMITS)
    (pid,) = isolation.idle_pids()
    read_images([GOOD, b"text"], PAPER, READ_LIMITS)
    assert isolation.idle_pids() == [pid]


def test_two_threads_have_a_child_each(slow):
    _, finish = busy_child([slow])
    assert read_images([GOOD], PAPER, READ_LIMITS)[0].reason is Reason.NONE
    assert finish()[0].reason is Reason.NONE
    assert len(isolation.idle_pids()) == 2


@pytest.mark.parametrize("how", [signal.SIGSEGV, signal.SIGKILL, signal.SIGABRT])
def test_a_death_that_only_a_used_child_died_is_not_laid_on_the_image(slow, how):
    """The memory may have been spoilt by another image, or the system may have killed it for reasons of its own."""
    pid, finish = busy_child([slow, GOOD])
    os.kill(pid, how)
    assert [result.reason for result in finish()] == [Reason.NONE, Reason.NONE]
    assert gone(pid)
    assert pid not in isolation.idle_pids()


def test_a_crash_costs_one_image_whatever_the_child(slow, tmp_path):
    """Every child that takes up the second image is killed by a real SIGSEGV; the others are read."""
    pid, finish = busy_child([slow, GOOD])
    os.kill(pid, signal.SIGSEGV)
    fresh = child_of(os.getpid(), without=pid)
    while cpu_seconds(fresh) < 0.9:  # beyond its start
        time.sleep(0.01)
    os.kill(fresh, signal.SIGSEGV)
    crashed, after = finish()
    assert (crashed.reason, after.reason) == (Reason.DECODER_CRASHED, Reason.NONE)
    assert crashed.image_HW is None
    assert len(crashed.image_sha256) == 64
    assert gone(pid)
    assert gone(fresh)


def child_of(parent, without):
    """The pid of a running child of a process, other than ``without``."""
    while True:
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                _, _, rest = path.read_text(encoding="utf-8").rpartition(")")
                command = path.with_name("cmdline").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue
            state, owner = rest.split()[:2]
            pid = int(path.parent.name)
            if int(owner) == parent and pid != without and state != "Z" and b"isolation_child" in command:
                return pid
        time.sleep(0.01)


def test_the_time_limit_holds_inside_a_codec(slow):
    limits = ReadLimits(seconds_per_image=0.5, mebibytes_per_image=1024)
    warm = read_images([GOOD], PAPER, READ_LIMITS)
    begin = time.monotonic()
    (late,) = read_images([slow], PAPER, limits)
    (after,) = read_images([GOOD], PAPER, READ_LIMITS)
    assert warm[0].reason is Reason.NONE
    assert (late.reason, after.reason) == (Reason.DECODER_TIMEOUT, Reason.NONE)
    # Once in a used child and once in a fresh one, and the starts of two children.
    assert time.monotonic() - begin < 30


def test_a_stopped_child_is_late(slow):
    """The parent's clock decides, not the child's."""
    pid, finish = busy_child([slow], ReadLimits(seconds_per_image=2.0, mebibytes_per_image=1024))
    os.kill(pid, signal.SIGSTOP)
    # Read again in a fresh child.
    assert finish()[0].reason in (Reason.NONE, Reason.DECODER_TIMEOUT)
    assert gone(pid)


def test_the_memory_limit_holds_inside_a_codec(slow):
    """5 megapixels of 12 bits take 10 MB as pixels; OpenJPEG works with 32 bits each, beside the codestream's 8 MB."""
    small = ReadLimits(seconds_per_image=60.0, mebibytes_per_image=16)
    hog, after = read_images([slow, GOOD], PAPER, small)
    assert hog.reason in (Reason.IMAGE_TOO_LARGE, Reason.DECODE_FAILED)
    assert after.reason is Reason.NONE
    assert read_images([slow], PAPER, READ_LIMITS)[0].reason is Reason.NONE


def test_the_memory_limit_holds_in_python():
    """An object of almost the limit leaves no room for anything else; the next child has all of it."""
    tight = ReadLimits(seconds_per_image=60.0, mebibytes_per_image=10)
    large = make_dicom(picture(2600, 2000))
    found = read_images([large, GOOD], PAPER, tight)
    assert [result.reason for result in found] == [Reason.IMAGE_TOO_LARGE, Reason.NONE]
    assert len(found[0].image_sha256) == 64
    assert read_images([large], PAPER, READ_LIMITS)[0].reason is Reason.NONE


def test_an_object_larger_than_the_limits_is_not_even_sent(monkeypatch):
    tiny = ReadLimits(seconds_per_image=60.0, mebibytes_per_image=1)
    large = read_images([make_dicom(picture(1000, 1000))], PAPER, tiny)[0]
    assert (large.reason, len(large.image_sha256)) == (Reason.IMAGE_TOO_LARGE, 64)
    monkeypatch.setattr("sarc_ray.imaging.isolation.MAX_OBJECT_BYTES", 1000)
    cut = read_images([GOOD], PAPER, READ_LIMITS)[0]
    assert (cut.reason, cut.image_sha256) == (Reason.IMAGE_TOO_LARGE, None)
    assert isolation.idle_pids() == []


def test_a_child_that_died_at_rest_costs_nothing():
    read_images([GOOD], PAPER, READ_LIMITS)
    (pid,) = isolation.idle_pids()
    os.kill(pid, signal.SIGKILL)
    assert read_images([GOOD], PAPER, READ_LIMITS)[0].reason is Reason.NONE
    assert isolation.idle_pids() != [pid]
    assert gone(pid)


def test_the_child_holds_nothing_of_its_parent(tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-the-store")
    secret = (tmp_path / "open").open("w")
    os.set_inheritable(secret.fileno(), True)
    read_images([GOOD], PAPER, READ_LIMITS)
    (pid,) = isolation.idle_pids()
    files = {os.readlink(fd).partition(":")[0] for fd in Path(f"/proc/{pid}/fd").iterdir()}
    assert files - {f"/proc/{pid}/statm"} == {"pipe", "/dev/null"}
    assert b"secret-of-the-store" not in Path(f"/proc/{pid}/environ").read_bytes()
    limits = Path(f"/proc/{pid}/limits").read_text(encoding="ascii")
    for name in ("Max core file size", "Max file size"):
        line = next(line for line in limits.splitlines() if line.startswith(name))
        assert line.removeprefix(name).split()[:2] == ["0", "0"]
    secret.close()


PARENT = """
    import os, sys, threading, time, warnings
    warnings.simplefilter("error")
    from sarc_ray.imaging import isolation
    from sarc_ray.imaging.preprocess import PreprocessConfig
    from tests.dicom_factory import make_dicom
    from tests.imaging.test_isolation import PAPER, READ_LIMITS
    isolation.read_images([make_dicom()], PAPER, READ_LIMITS)
    print(isolation.idle_pids()[0], flush=True)
"""


def parent(rest):
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PARENT) + textwrap.dedent(rest)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def test_nothing_is_left_at_the_end_of_the_interpreter():
    with parent("") as process:
        output, errors = process.communicate()
    assert (process.returncode, errors) == (0, "")
    assert gone(int(output))


@pytest.mark.parametrize("at_work", [False, True])
def test_the_child_ends_with_its_parent(at_work):
    """Even in the middle of a codec, where it cannot see that its pipe was closed."""
    work = """
        from tests.imaging.test_isolation import noisy_jpeg2000
        slow = noisy_jpeg2000()
        print("now", flush=True)
        isolation.read_images([slow] * 20, PAPER, READ_LIMITS)
    """
    with parent(work if at_work else "time.sleep(600)") as process:
        pid = int(process.stdout.readline())
        if at_work:
            assert process.stdout.readline() == "now\n"
            before = cpu_seconds(pid)
            while cpu_seconds(pid) < before + 0.3:
                time.sleep(0.01)
        begin = time.monotonic()
        process.kill()
        process.wait()
        assert gone(pid)
        assert time.monotonic() - begin < 5


def test_a_forked_process_does_not_use_its_parents_child():
    rest = """
        if os.fork() == 0:
            result = isolation.read_images([make_dicom()], PAPER, READ_LIMITS)[0]
            print(result.reason == "", isolation.idle_pids()[0], flush=True)
            isolation.end_idle()
            os._exit(0)
        os.wait()
        isolation.read_images([make_dicom()], PAPER, READ_LIMITS)
        print(isolation.idle_pids()[0], flush=True)
    """
    with parent(rest) as process:
        output, errors = process.communicate()
    first, forked, again = output.splitlines()
    assert errors == ""
    assert forked.startswith("True ")
    assert forked.split()[1] != first
    assert again == first


def test_ctrl_c_ends_the_child_at_work(slow):
    """The pipes are in the middle of a message then, so the child cannot be kept."""
    read_images([GOOD], PAPER, READ_LIMITS)
    (pid,) = isolation.idle_pids()
    # A suite that was started in the background of a shell ignores the signal.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    interrupt = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    interrupt.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            read_images([slow], PAPER, READ_LIMITS)
    finally:
        signal.signal(signal.SIGINT, before)
    assert isolation.idle_pids() == []
    assert gone(pid)


def test_a_child_that_cannot_start_is_no_fault_of_the_image(monkeypatch):
    monkeypatch.setattr(isolation, "_START_PAUSE_S", 0.0)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if "site-packages" not in path])
    with pytest.raises(SarcRayError, match=r"does not start: ModuleNotFoundError: No module named .*; 3 attempts"):
        read_images([GOOD], PAPER, READ_LIMITS)
    assert isolation.idle_pids() == []


def test_a_child_that_starts_at_the_second_attempt_will_do(monkeypatch, tmp_path):
    mark = tmp_path / "tried"
    program = f"import os\nif not os.path.exists({str(mark)!r}): open({str(mark)!r}, 'w').close(); os._exit(1)\n"
    monkeypatch.setattr(isolation, "_PROGRAM", program + isolation._PROGRAM)
    monkeypatch.setattr(isolation, "_START_PAUSE_S", 0.0)
    assert read_images([GOOD], PAPER, READ_LIMITS)[0].reason is Reason.NONE
    assert mark.exists()


@pytest.mark.parametrize(
    "reply",
    [
        b"\xff\xff\xff\xff",
        b"\x02\0\0\0[]",
        b"\x05\0\0\0trash",
        b"\x12\0\0\0" + json.dumps({"image_bytes": 99}).encode(),
        b"\x11\0\0\0" + json.dumps({"image_bytes": 0}).encode(),
    ],
)
def test_a_reply_that_makes_no_sense_is_a_crash(monkeypatch, reply):
    """A decoder that was taken over can say what it likes; the caller believes only what has the right form."""
    liar = (
        "import sys, os\n"
        'os.write(1, b"\\x0f\\0\\0\\0" + b\'{"ready": true}\')\n'
        f"os.read(0, 2**16); os.write(1, {reply!r})\n"
    )
    monkeypatch.setattr(isolation, "_PROGRAM", liar)
    assert read_images([GOOD], PAPER, READ_LIMITS)[0].reason is Reason.DECODER_CRASHED


@pytest.mark.parametrize("seconds", [-1.0, 1e308, float("inf"), float("nan")])
def test_seconds_that_no_image_takes_are_not_believed(seconds):
    facts = {"seconds": {"decode": seconds}, "header": None, "reason": str(Reason.DECODE_FAILED)}
    with pytest.raises(ValueError, match="seconds that make no sense"):
        isolation_child.unpack_result({**facts, "image_sha256": None, "gate_flags": ""}, b"", 8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seconds_per_image": 0.0}, "seconds_per_image: found 0.0"),
        ({"seconds_per_image": float("nan")}, "seconds_per_image: found nan"),
        ({"mebibytes_per_image": 0}, "mebibytes_per_image: found 0"),
    ],
)
def test_limits_are_checked(change, message):
    with pytest.raises(ValueError, match=message):
        ReadLimits(**({"seconds_per_image": 1.0, "mebibytes_per_image": 1} | change))

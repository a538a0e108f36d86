"""Read damaged files: each must end in exactly one outcome, and nothing but a child process may suffer.

File number i is a file of tests/dicom_references.py (small pictures, all transfer syntaxes), damaged in one of several
ways by a generator seeded with (seed, i). Printed: outcomes by reason and by kind of damage, children that died, and
the largest memory of this process and of a child. Files that ended in internal_error, decoder_crashed or
decoder_timeout are written to --keep.

    python benchmarks/fuzz.py --n 20000 --seed 0
"""

from __future__ import annotations

import argparse
import resource
import struct
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # for the factory of the tests

from sarc_ray.errors import Reason
from sarc_ray.imaging import isolation
from sarc_ray.imaging.preprocess import PreprocessConfig
from tests.dicom_references import REFERENCES

CONFIG = PreprocessConfig(size_px=64, clahe_clip_limit=2.0, clahe_tiles=8, pixel_gate=True)
LIMITS = isolation.ReadLimits(seconds_per_image=10.0, mebibytes_per_image=256)
SEED_MAX_BYTES = 200_000
FINDINGS = (Reason.INTERNAL_ERROR, Reason.DECODER_CRASHED, Reason.DECODER_TIMEOUT)
LONG_VRS = (b"OB", b"OW", b"OF", b"OD", b"OL", b"SQ", b"UN", b"UT", b"UC", b"UR")
EXTREMES = (b"\0", b"\xff", b"\x7f", b"\x80", b"\x01")


def seeds():
    """The factory's files by name, but for large ones."""
    made = ((reference.name, reference.make()) for reference in REFERENCES)
    return {name: data for name, data in made if 132 < len(data) <= SEED_MAX_BYTES}


def elements(data):
    """(start, start of value, length) of the elements that an explicit little-endian walk finds."""
    found, position = [], 132
    while position + 8 <= len(data) and len(found) < 200:
        long = data[position + 4 : position + 6] in LONG_VRS
        start = position + (12 if long else 8)
        length = int.from_bytes(data[start - (4 if long else 2) : start], "little")
        found.append((position, start, min(length, len(data) - start)))
        if length == 0xFFFFFFFF:
            break
        position = start + length
    return found


def pixels_start(data):
    """Where the value of Pixel Data begins, about; half-way where it cannot be found."""
    place = max(data.rfind(b"\xe0\x7f\x10\x00"), data.rfind(b"\x7f\xe0\x00\x10"))
    return place + 8 if place > 0 else len(data) // 2


def overwrite(data, start, value):
    return data[:start] + value + data[start + len(value) :]


def flip(data, low, high, rng):
    damaged = np.frombuffer(data, np.uint8).copy()
    places = rng.integers(low, max(high, low + 1), int(rng.integers(1, 33)))
    damaged[np.minimum(places, len(damaged) - 1)] ^= (1 << rng.integers(0, 8, places.size)).astype(np.uint8)
    return damaged.tobytes()


def flipped_bits(data, rng, others):
    return flip(data, 0, len(data), rng)


def flipped_bits_in_header(data, rng, others):
    return flip(data, 132, pixels_start(data), rng)


def flipped_bits_in_pixels(data, rng, others):
    return flip(data, pixels_start(data), len(data), rng)


def truncated(data, rng, others):
    return data[: int(rng.integers(0, len(data)))]


def changed_value(data, rng, others):
    """Another value of the same length in one element: all alike, random, or digits."""
    walk = [element for element in elements(data) if element[2]]
    _, start, length = walk[int(rng.integers(len(walk)))]
    length = min(length, 4096)
    choice = int(rng.integers(3))
    value = (
        EXTREMES[int(rng.integers(len(EXTREMES)))] * length,
        rng.bytes(length),
        b"".join(rng.choice([b"9", b"-", b".", b"e", b"\\", b" "], length).tolist()),
    )[choice]
    return overwrite(data, start, value)


def lying_length(data, rng, others):
    """A length field that says something else."""
    walk = elements(data)
    position, start, length = walk[int(rng.integers(len(walk)))]
    width = 4 if start - position == 12 else 2
    lie = int(rng.choice([0, 1, length + 1, length + 7, max(length - 1, 0), 2**15, 2**31, 2**32 - 2, 2**32 - 1]))
    return overwrite(data, start - width, (lie % 256**width).to_bytes(width, "little"))


def spliced(data, rng, others):
    """The beginning of one file and the end of another."""
    other = others[int(rng.integers(len(others)))]
    cut, join = int(rng.integers(132, len(data))), int(rng.integers(0, len(other)))
    return data[:cut] + other[join:]


def other_pixels(data, rng, others):
    """A header over the pixels of another file."""
    other = others[int(rng.integers(len(others)))]
    return data[: pixels_start(data)] + other[pixels_start(other) :]


def damaged_marker(data, rng, others):
    """Extreme values behind one of the first markers of the codestream: sizes, components, tiles, tables."""
    start = pixels_start(data)
    markers = [k for k in range(start, min(start + 4096, len(data) - 1)) if data[k] == 0xFF and data[k + 1] >= 0x4F]
    place = markers[min(int(rng.geometric(0.2)), len(markers)) - 1] if markers else start
    place += int(rng.integers(0, 24))
    width = int(rng.choice([1, 2, 4]))
    value = rng.bytes(width) if rng.random() < 0.5 else EXTREMES[int(rng.integers(len(EXTREMES)))] * width
    return overwrite(data, min(place, len(data) - width), value)


def moved_block(data, rng, others):
    """A block taken out, doubled or put elsewhere."""
    begin, end = sorted(int(k) for k in rng.integers(0, len(data), 2))
    block, rest = data[begin:end], data[:begin] + data[end:]
    place = int(rng.integers(0, len(rest) + 1))
    return (rest, data[:end] + data[begin:], rest[:place] + block + rest[place:])[int(rng.integers(3))]


def huge_claims(data, rng, others):
    """Rows, Columns, frames, samples or bits of another order; written where an explicit header has them."""
    tag = (b"\x28\x00\x10\x00", b"\x28\x00\x11\x00", b"\x28\x00\x02\x00", b"\x28\x00\x00\x01", b"\x28\x00\x01\x01")[
        int(rng.integers(5))
    ]
    place = data.find(tag)
    value = struct.pack("<H", int(rng.choice([0, 1, 3, 7, 8, 32, 64, 255, 16384, 32768, 65535])))
    return data if place < 0 else overwrite(data, place + 8, value)


DAMAGES = (
    flipped_bits,
    flipped_bits_in_header,
    flipped_bits_in_pixels,
    truncated,
    changed_value,
    lying_length,
    spliced,
    other_pixels,
    damaged_marker,
    moved_block,
    huge_claims,
)


def damaged_file(number, seed, files):
    """(kind of damage, name of the file, bytes) of one trial."""
    rng = np.random.default_rng((seed, number))
    damage = DAMAGES[number % len(DAMAGES)]
    names = sorted(files)
    name = names[int(rng.integers(len(names)))]
    return damage.__name__, name, damage(files[name], rng, [files[other] for other in names])


@dataclass
class Tally:
    """What a run has found: counts by (kind, reason), the worst memory in bytes, children, findings."""

    counts: Counter = field(default_factory=Counter)
    child_peak_bytes: int = 0
    caller_growth_bytes: int = 0
    children: int = 0
    seconds: float = 0.0
    findings: list = field(default_factory=list)


def check(result):
    """One outcome and nothing in between."""
    assert isinstance(result.reason, Reason)
    assert (result.image_HW is not None) == (result.reason is Reason.NONE)
    if result.image_HW is not None:
        assert result.image_HW.shape == (CONFIG.size_px, CONFIG.size_px)
        assert result.image_HW.dtype == np.uint8


def peak_bytes(pid):
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def caller_peak_bytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def run(n, seed, keep=None):
    """Read ``n`` damaged files one after the other."""
    files, tally, seen = seeds(), Tally(), set()
    isolation.read_images([b""], CONFIG, LIMITS)
    at_start, begin = caller_peak_bytes(), time.perf_counter()
    for number in range(n):
        kind, name, data = damaged_file(number, seed, files)
        (result,) = isolation.read_images([data], CONFIG, LIMITS)
        check(result)
        tally.counts[kind, result.reason] += 1
        if result.reason in FINDINGS:
            tally.findings.append((number, kind, name, str(result.reason)))
            if keep is not None:
                keep.mkdir(parents=True, exist_ok=True)
                (keep / f"{result.reason}-{number}-{kind}-{name}.dcm").write_bytes(data)
        for pid in isolation.idle_pids():
            seen.add(pid)
            tally.child_peak_bytes = max(tally.child_peak_bytes, peak_bytes(pid))
    tally.seconds = time.perf_counter() - begin
    tally.children = len(seen)
    tally.caller_growth_bytes = caller_peak_bytes() - at_start
    return tally


def report(tally):
    """A Markdown table of the counts, kinds of damage across, and the other findings."""
    kinds = [damage.__name__ for damage in DAMAGES]
    reasons = sorted({reason for _, reason in tally.counts}, key=lambda reason: list(Reason).index(reason))
    lines = ["| reason | all | " + " | ".join(kind.replace("_", " ") for kind in kinds) + " |"]
    lines.append("| --- " * (len(kinds) + 2) + "|")
    for reason in reasons:
        row = [tally.counts[kind, reason] for kind in kinds]
        lines.append(f"| {f'`{reason}`' if reason else 'a picture'} | " + " | ".join(map(str, [sum(row), *row])) + " |")
    row = [sum(tally.counts[kind, reason] for reason in reasons) for kind in kinds]
    lines.append("| all | " + " | ".join(map(str, [sum(row), *row])) + " |")
    lines += [
        "",
        f"{sum(row)} files in {tally.seconds:.0f} s; children started: {tally.children}",
        f"memory: this process grew by {tally.caller_growth_bytes / 2**20:.0f} MiB at most; "
        f"the largest child had {tally.child_peak_bytes / 2**20:.0f} MiB resident",
    ]
    return "\n".join(lines + [f"finding: {finding}" for finding in tally.findings])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=None)
    options = parser.parse_args()
    print(report(run(options.n, options.seed, options.keep)))


if __name__ == "__main__":
    main()

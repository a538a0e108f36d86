"""Radiographs per second and core, from a file to the small picture: ours against three others.

Contenders, each in a process of its own with one thread, read the same files in turn, round after round:

- sarc-ray: the preset `paper`, with the gate, CLAHE and the hash of the file; isolated, as the pipeline reads images of
  unknown origin, in a child process of its own;
- pydicom: pixel_array, apply_modality_lut, apply_voi_lut, cv2.resize, with the decoders that pydicom finds here;
- MONAI: LoadImage and Resize, by its readers on pydicom and on ITK;
- torchxrayvision: read_xray_dcm and XRayResizer on OpenCV.

Seconds are CPU seconds of the process and its children, so that other work on the machine weighs less; the wall clock
stands beside them. A file's time is its median over the rounds. Before anything is timed every contender delivers its
picture once, which is compared with our own full-size decode: one that cannot read a file, or reads another picture,
has no time but a reason.

    python benchmarks/decode.py                                 # small: one picture, peers where they are installed
    python benchmarks/decode.py --peers                         # installs the peers first (700 MB)
    python benchmarks/decode.py --full --peers --markdown FILE  # the documented table
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from decoding import peers
from decoding.files import MIX, File, write_archive, write_syntaxes

OURS, USUAL, EXACT, WHOLE = "sarc-ray", "pydicom", "sarc-ray, not equalised", "sarc-ray, full size"
ISOLATED = "sarc-ray, isolated"
TIMED = (OURS, ISOLATED, USUAL, "MONAI (pydicom)", "MONAI (ITK)", "torchxrayvision")
# Pictures without a window or another scale still rise and fall with ours.
SAME_PICTURE_CORRELATION_MIN = 0.95
SMALL = {"pictures": 1, "archive": 20, "rounds": 1}
FULL = {"pictures": 4, "archive": 20, "rounds": 3}
ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPJ_NUM_THREADS")}


class Contender:
    """A contender's process; `missing` says why there is none."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.missing: str | None = None
        python = peers.python_of(name)
        if not python.exists():
            self.missing = "not installed (run with --peers)"
            return
        command = [str(python), str(Path(__file__).parent / "decoding" / "contender.py"), name]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **ONE_THREAD},
        )
        self.missing = self._receive().get("error")

    def read(self, path: Path, picture: Path | None = None) -> dict:
        """Seconds of one file, or an error; with a path the picture goes there."""
        self._process.stdin.write(json.dumps({"path": str(path), "picture": picture and str(picture)}) + "\n")
        self._process.stdin.flush()
        return self._receive()

    def _receive(self) -> dict:
        line = self._process.stdout.readline()
        return json.loads(line) if line else {"error": f"the process ended with {self._process.wait()}"}

    def close(self) -> None:
        """End the process."""
        if self.missing is None:
            self._process.stdin.close()
            self._process.wait()


@dataclass(kw_only=True)
class Measured:
    """What is known of one file: seconds per contender and round, reasons, differences of pictures."""

    file: File
    cpu_s: dict[str, list[float]] = field(default_factory=dict)
    wall_s: dict[str, list[float]] = field(default_factory=dict)
    error: dict[str, str] = field(default_factory=dict)
    difference: dict[str, float] = field(default_factory=dict)


def look(measured: Measured, contenders: Sequence[Contender], ours: Sequence[Contender], folder: Path) -> None:
    """Compare the pictures; also warms the contenders up."""
    exact_HW, whole_HW = (_picture(contender, measured, folder) for contender in ours)
    if exact_HW is None or whole_HW is None:
        raise SystemExit(f"our own reader refuses {measured.file.syntax}: {measured.error}")
    measured.difference[WHOLE] = float(np.abs(exact_HW - whole_HW).mean())
    for contender in contenders:
        small_HW = _picture(contender, measured, folder)
        if small_HW is None:
            continue
        if contender.name == USUAL:
            measured.difference[USUAL] = float(np.abs(exact_HW - small_HW).mean())
        # MONAI hands pictures over with rows and columns changed.
        likeness = max(np.corrcoef(whole_HW.ravel(), turned.ravel())[0, 1] for turned in (small_HW, small_HW.T))
        if contender.name not in (OURS, ISOLATED) and not likeness >= SAME_PICTURE_CORRELATION_MIN:
            measured.error[contender.name] = f"another picture (correlation {likeness:.2f})"


def _picture(contender: Contender, measured: Measured, folder: Path) -> np.ndarray | None:
    if contender.missing is not None:
        measured.error[contender.name] = contender.missing
        return None
    target = folder / "picture.npy"
    answer = contender.read(measured.file.path, target)
    if "error" in answer:
        measured.error[contender.name] = answer["error"]
        return None
    return np.load(target).astype(np.float64)


def race(files: Iterable[Measured], contenders: Sequence[Contender], *, rounds: int) -> None:
    """All contenders in turn on each file; who begins changes from round to round."""
    files = list(files)
    for number in range(rounds):
        start = number % len(contenders)
        for measured in files:
            for contender in (*contenders[start:], *contenders[:start]):
                if contender.name not in measured.error:
                    answer = contender.read(measured.file.path)
                    if "error" in answer:
                        raise SystemExit(f"{contender.name}, {measured.file.syntax}: {answer['error']}")
                    measured.cpu_s.setdefault(contender.name, []).append(answer["cpu_s"])
                    measured.wall_s.setdefault(contender.name, []).append(answer["wall_s"])


def seconds(files: Sequence[Measured], name: str, clock: str = "cpu_s") -> float | None:
    """Mean over files of the median over rounds; None where one could not be read."""
    taken = [getattr(measured, clock).get(name) for measured in files]
    return statistics.mean(statistics.median(rounds) for rounds in taken) if all(taken) else None


def rate_cells(files: Sequence[Measured]) -> list[str]:
    cells = []
    for name in TIMED:
        taken_s = seconds(files, name)
        cells.append("-" if taken_s is None else f"{1 / taken_s:.1f}")
    return cells


def ratio_cells(files: Sequence[Measured]) -> list[str]:
    """Ours against each of the others by CPU time, and against pydicom by the wall clock."""
    compared = [(name, "cpu_s") for name in TIMED[2:]] + [(USUAL, "wall_s")]
    cells = []
    for name, clock in compared:
        theirs_s, ours_s = seconds(files, name, clock), seconds(files, OURS, clock)
        cells.append("-" if theirs_s is None or ours_s is None else f"{theirs_s / ours_s:.1f}")
    return cells


def rate_table(rows: dict[str, list[Measured]]) -> list[list[str]]:
    return [["images per second and core", *TIMED], *([name, *rate_cells(files)] for name, files in rows.items())]


def ratio_table(rows: dict[str, list[Measured]]) -> list[list[str]]:
    head = ["sarc-ray's rate to that of", *TIMED[2:], "pydicom, wall clock"]
    return [head, *([name, *ratio_cells(files)] for name, files in rows.items())]


def picture_table(rows: dict[str, list[Measured]]) -> list[list[str]]:
    table = [["mean difference, % of range", "to our full size, mean", "worst file", "to pydicom, mean", "worst file"]]
    for name, files in rows.items():
        cells = []
        for other in (WHOLE, USUAL):
            found = [measured.difference[other] for measured in files if other in measured.difference]
            cells += [f"{statistics.mean(found):.2%}", f"{max(found):.2%}"] if found else ["-", "-"]
        table.append([name, *cells])
    return table


def reasons(rows: dict[str, list[Measured]]) -> list[str]:
    """Why cells are empty, once each."""
    found = {
        f"{contender}, {measured.file.syntax}: {why}"
        for files in rows.values()
        for measured in files
        for contender, why in measured.error.items()
    }
    return sorted(found)


def plain(table: list[list[str]]) -> str:
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    return "\n".join(
        "  ".join(cell.rjust(width) if column else cell.ljust(width) for column, (cell, width) in enumerate(pairs))
        for pairs in (list(zip(row, widths, strict=True)) for row in table)
    )


def markdown(table: list[list[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in table]
    return "\n".join([lines[0], "| --- |" + " ---: |" * (len(table[0]) - 1), *lines[1:]])


def group(files: Sequence[Measured], archive: Sequence[Measured]) -> dict[str, list[Measured]]:
    """The rows of the tables."""
    rows: dict[str, list[Measured]] = {}
    for measured in files:
        rows.setdefault(measured.file.syntax, []).append(measured)
    for measured in [*files, *archive]:
        if measured.file.syntax == "JPEG 2000 lossless":
            shape = "{} x {}".format(*measured.file.shape_HW)
            rows.setdefault(f"JPEG 2000 lossless, {shape}", []).append(measured)
    rows["archive"] = list(archive)
    rows["archive without its JPEG 2000"] = [
        measured for measured in archive if measured.file.syntax != "JPEG 2000 lossless"
    ]
    return rows


def measure(sizes: dict[str, int], *, seed: int) -> dict[str, list[Measured]]:
    contenders = [Contender(name) for name in TIMED]
    ours = [Contender(EXACT), Contender(WHOLE)]
    with tempfile.TemporaryDirectory(prefix="sarc-ray-decode-") as name:
        folder = Path(name)
        files = [Measured(file=file) for file in write_syntaxes(folder, n_pictures=sizes["pictures"], seed=seed)]
        archive = [Measured(file=file) for file in write_archive(folder, n_files=sizes["archive"], seed=seed + 100)]
        for measured in [*files, *archive]:
            look(measured, contenders, ours, folder)
        race([*files, *archive], contenders, rounds=sizes["rounds"])
    for contender in [*contenders, *ours]:
        contender.close()
    return group(files, archive)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="four pictures per syntax, three rounds")
    parser.add_argument("--peers", action="store_true", help="install the peers first")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables as markdown too")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if options.peers:
        for name in dict.fromkeys(peers.ENVIRONMENTS[peer] for peer in TIMED if peer in peers.ENVIRONMENTS):
            try:
                peers.install(name)
            except subprocess.CalledProcessError as error:
                print(f"{name} cannot be installed: {error.stderr.strip().splitlines()[-1]}")
    sizes = FULL if options.full else SMALL
    rows = measure(sizes, seed=options.seed)
    mix = ", ".join(f"{count} {syntax}" for syntax, count in MIX.items())
    about = (
        f"{sizes['pictures']} pictures per syntax, {sizes['archive']} in the archive, {sizes['rounds']} rounds. "
        f"Of 20 files of the archive: {mix}."
    )
    tables = [table(rows) for table in (rate_table, ratio_table, picture_table)]
    print(about, *map(plain, tables), *reasons(rows), sep="\n\n")
    if options.markdown:
        parts = [about, *map(markdown, tables)]
        parts += ["\n".join(f"- {reason}" for reason in reasons(rows))] if reasons(rows) else []
        options.markdown.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

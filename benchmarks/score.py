"""A population scored end to end from an S3 server: radiographs per second, overhead, memory, cores, and the estimate.

Each contender runs in a process of its own, from its start to its end; all read the same objects from `rclone serve s3`
on 127.0.0.1, in turn, and their answers are compared: a run whose scores differ is refused. Sections:

- a: what `sarc-ray score` calls, with its engine, against the script that people write (s3fs, pydicom, OpenCV, torch,
  a DataLoader with as many workers as cores), the same network, large 12-bit pictures;
- b: ours against our own functions in a tight loop, one process per core, without an engine;
- c: ours at growing numbers of rows, with its memory; the summary of the longest run may be kept (`--summary FILE`);
- d: ours on one core and on all, the object store on the same cores;
- e: what `sarc-ray plan` foresees, and what the run then takes;
- f: as a, with the networks on a GPU, where there is one;
- g: where 1,000 GPUs would wait, on paper, from constants of c and e.

Start-up is what a run over one picture takes; rates are given with it, and after it.

    python benchmarks/score.py                                   # small: sections a and b, some minutes
    python benchmarks/score.py --full --markdown FILE --summary FILE    # the documented tables
    python benchmarks/score.py --full --only a,e --folder DIR    # some sections; objects and networks are kept in DIR
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from networks import machine
from scoring import answers, archives, model
from scoring.archives import JPEG_2000, PLAIN, SMALL, Archive
from scoring.contender import Outcome, on_cores
from scoring.runs import FEW, Bench, Sizes

from sarc_ray.planning.estimate import READING

CORES = len(os.sched_getaffinity(0))
MIB = 2**20
OURS, SCRIPT, TIGHT, PLANNED = "ours", "plain_script", "tight", "planned"
ON_A_GPU = ("engine.gpus_per_scorer=1",)
NO_GPU = "f. There was no GPU: scoring with one was not measured."
# Not kept with a summary: it names the machine.
PRIVATE_FACTS = ("host",)
SMALL_SIZES = Sizes(
    distinct=4,
    pool=64,
    members=3,
    pictures=160,
    epochs=6,
    rounds=1,
    compared={"jpeg2000": 16, "plain": 16},
    looped={"jpeg2000": 32},
    lengths=(100, 400),
    scaled={"jpeg2000": 32},
    planned={"jpeg2000": 64},
    plan_sample=16,
)
FULL_SIZES = Sizes(
    distinct=24,
    pool=2000,
    members=4,
    pictures=240,
    epochs=10,
    rounds=3,
    compared={"jpeg2000": 240, "plain": 600},
    looped={"jpeg2000": 1200, "plain": 600, "small": 4000},
    lengths=(1_000, 10_000, 100_000),
    scaled={"jpeg2000": 800, "small": 3000},
    planned={"jpeg2000": 2400, "plain": 1200},
    plan_sample=128,
)
BY_NAME = {archive.name: archive for archive in (JPEG_2000, PLAIN, SMALL)}


def in_turn(ways: dict[str, Callable[[], tuple[Outcome, str]]], *, rounds: int) -> dict[str, list[tuple[Outcome, str]]]:
    """Each way once a round; who begins changes from round to round."""
    found: dict[str, list[tuple[Outcome, str]]] = {name: [] for name in ways}
    names = list(ways)
    for number in range(rounds):
        start = number % len(names)
        for name in (*names[start:], *names[:start]):
            found[name].append(ways[name]())
    return found


def median_s(runs: Sequence[tuple[Outcome, str]]) -> float:
    return statistics.median(outcome.wall_s for outcome, _ in runs)


def cpu_ms(runs: Sequence[tuple[Outcome, str]], n: int) -> str:
    """CPU time of the whole machine per row, start and object store among it."""
    return f"{1000 * statistics.median(outcome.machine_cpu_s for outcome, _ in runs) / n:.1f}"


def after_start(n: int, wall_s: float, start_s: float) -> float:
    """Rows per second of all but the first; NaN where so few rows were no longer than the start's own scatter."""
    return (n - 1) / (wall_s - start_s) if wall_s > start_s else float("nan")


def against_script(bench: Bench, *, settings: Sequence[str] = ()) -> str:
    """Section a, and f with the settings of a GPU."""
    rows = []
    for name, n in bench.sizes.compared.items():
        archive, start_s = BY_NAME[name], {}
        ways: dict[str, Callable[[], tuple[Outcome, str]]] = {
            OURS: lambda archive=archive, n=n: bench.run(OURS, archive, n, settings=settings),
            SCRIPT: lambda archive=archive, n=n: bench.run(SCRIPT, archive, n),
        }
        start_s = {
            OURS: bench.start_up_s(OURS, archive, settings=settings),
            SCRIPT: bench.start_up_s(SCRIPT, archive),
        }
        found = in_turn(ways, rounds=bench.sizes.rounds)
        for (_, table), (_, written) in zip(found[OURS], found[SCRIPT], strict=True):
            answers.require_all_scored(table, n=n)
            away = answers.difference_to_script(
                table, written, archives.manifest_url(archive, n), n_distinct=bench.sizes.distinct
            )
        wall_s = {way: median_s(runs) for way, runs in found.items()}
        working = {way: after_start(n, wall_s[way], start_s[way]) for way in ways}
        size = archives.mean_bytes(bench.folder, archive, n_pool=bench.n_pool(archive)) / 1e6
        rows.append(
            [
                f"{archive.title} ({size:.1f} MB)",
                str(n),
                *(f"{n / wall_s[way]:.2f}" for way in ways),
                f"{wall_s[SCRIPT] / wall_s[OURS]:.1f}",
                *(f"{start_s[way]:.1f}" for way in ways),
                *(f"{working[way]:.2f}" for way in ways),
                f"{working[OURS] / working[SCRIPT]:.1f}",
                *(cpu_ms(found[way], n) for way in ways),
                away.words(),
            ]
        )
    header = ["archive", "pictures", "ours, pictures/s", "script, pictures/s", "ratio", "start: ours, s", "script, s"]
    header += ["after the start: ours, pictures/s", "script, pictures/s", "ratio", "CPU: ours, ms/picture"]
    return machine.table([*header, "script, ms/picture", "largest difference of a score"], rows)


def section_a(bench: Bench) -> str:
    return f"a. Against the plain script.\n\n{against_script(bench)}"


def section_b(bench: Bench) -> str:
    """Ours against the tight loop."""
    rows = []
    for name, n in bench.sizes.looped.items():
        archive = BY_NAME[name]
        start_s = {way: bench.start_up_s(way, archive) for way in (OURS, TIGHT)}
        ways: dict[str, Callable[[], tuple[Outcome, str]]] = {
            way: lambda way=way, archive=archive, n=n: bench.run(way, archive, n) for way in (OURS, TIGHT)
        }
        found = in_turn(ways, rounds=bench.sizes.rounds)
        for (_, table), (_, folder) in zip(found[OURS], found[TIGHT], strict=True):
            answers.require_same_as_tight(table, folder)
        working = {way: after_start(n, median_s(runs), start_s[way]) for way, runs in found.items()}
        rows.append(
            [
                archive.title,
                str(n),
                *(f"{working[way]:.1f}" for way in ways),
                f"{working[TIGHT] / working[OURS] - 1:+.1%}",
                *(f"{start_s[way]:.1f}" for way in ways),
                f"{median_s(found[OURS]) / median_s(found[TIGHT]) - 1:+.1%}",
                *(cpu_ms(found[way], n) for way in ways),
            ]
        )
    header = ["archive", "rows", "ours, rows/s", "tight loop, rows/s", "time more", "start: ours, s", "tight loop, s"]
    header += ["time more, start and all", "CPU: ours, ms/row", "tight loop, ms/row"]
    return f"b. Against the tight loop of {CORES} processes (rates after the start).\n\n{machine.table(header, rows)}"


def section_c(bench: Bench, keep: Path | None = None) -> str:
    """Ours at growing numbers of rows."""
    start_s = bench.start_up_s(OURS, SMALL, bundle=FEW)
    rows, first, costs = [], None, {}
    for n in bench.sizes.lengths:
        rounds = bench.sizes.rounds if n == bench.sizes.lengths[0] else 1
        found = [bench.run(OURS, SMALL, n, bundle=FEW, watch_object_store=True) for _ in range(rounds)]
        for _, table in found:
            answers.require_all_scored(table, n=n)
        rate = after_start(n, median_s(found), start_s)
        first = first or rate
        answer = found[-1][0].answer
        summary = answer["summary"]
        # Of the rows that this length has more than the first: what starting takes is in both.
        costs[n] = {"driver_cpu_s": answer["driver_cpu_s"], "sealing_s": summary["seconds"]["sealing"]}
        if keep is not None and n == bench.sizes.lengths[-1]:
            kept = {name: value for name, value in summary.items() if name not in PRIVATE_FACTS}
            keep.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
        memory = (summary["driver_peak_bytes"], summary["largest_worker_peak_bytes"], answer["object_store_peak_bytes"])
        rows.append(
            [
                f"{n:,}",
                f"{median_s(found):.1f}",
                f"{rate:.1f}",
                f"{rate / first:.2f}",
                f"{summary['seconds']['streaming']:.1f}",
                f"{summary['seconds']['sealing']:.2f}",
                f"{1000 * answer['driver_cpu_s'] / n:.2f}",
                *("-" if value is None else f"{value / MIB:,.0f}" for value in memory),
            ]
        )
    low, high = min(costs), max(costs)
    bench.note(**{name: (costs[high][name] - costs[low][name]) / (high - low) for name in costs[high]})
    header = ["rows", "seconds", "rows/s after the start", "to the first", "streaming, s", "sealing, s"]
    header += ["driver's CPU, ms/row", "driver, MiB", "largest worker, MiB", "object store, MiB"]
    about = f"{bench.sizes.pool:,} distinct objects of 256 x 256 under all these names; start {start_s:.1f} s"
    return f"c. Growing numbers of rows ({about}).\n\n{machine.table(header, rows)}"


def section_d(bench: Bench) -> str:
    """Ours on one core and on all; runs servers of its own."""
    rows = []
    counts = sorted({1, CORES})
    for name, n in bench.sizes.scaled.items():
        archive, rates = BY_NAME[name], {}
        for cores in counts:
            settings = (f"engine.num_cpus={cores}",)
            with on_cores(cores), bench.served():
                start_s = bench.start_up_s(OURS, archive, settings=settings)
                found = [bench.run(OURS, archive, n, settings=settings) for _ in range(bench.sizes.rounds)]
            rates[cores] = after_start(n, median_s(found), start_s)
            gain = rates[cores] / rates[counts[0]]
            rows.append([archive.title, str(n), str(cores), f"{rates[cores]:.1f}", f"{gain:.2f}", f"{start_s:.1f}"])
    header = ["archive", "rows", "cores", "rows/s after the start", "times one core", "start, s"]
    return f"d. Cores, those of the object store among them.\n\n{machine.table(header, rows)}"


def section_e(bench: Bench) -> str:
    """The plan, and then the run."""
    rows = []
    for name, n in bench.sizes.planned.items():
        archive, settings = BY_NAME[name], [f"plan.sample_images={bench.sizes.plan_sample}"]
        for _ in range(bench.sizes.rounds):
            planned, _ = bench.run(PLANNED, archive, n, settings=settings)
            ran, _ = bench.run(OURS, archive, n)
            here, took_s = planned.answer["plan"]["here"], ran.answer["call_s"]
            span = f"{here['seconds_low']:.0f} to {here['seconds_high']:.0f}"
            off = f"{here['seconds'] / took_s - 1:+.0%}"
            rows.append([archive.title, str(n), f"{here['seconds']:.1f}", span, f"{took_s:.1f}", off])
            if archive is JPEG_2000:
                sample = planned.answer["plan"]["sample"]
                reading_s = sum(sample["seconds_per_row"].get(part, 0.0) for part in READING)
                bench.note(cpu_s=reading_s + sample["request_cpu_seconds_per_row"], bytes=sample["bytes_per_row"])
    header = ["archive", "rows", "foreseen, s", "its span, s", "taken, s", "off by"]
    return f"e. The plan's estimate (start and all).\n\n{machine.table(header, rows)}"


def section_f(bench: Bench) -> str:
    if not torch.cuda.is_available():
        return NO_GPU
    return f"f. As a, the networks of both on a GPU.\n\n{against_script(bench, settings=ON_A_GPU)}"


def section_g(bench: Bench) -> str:
    """The paper model, where the sections that it rests on have run over this folder."""
    constants = bench.constants()
    missing = sorted({section for name, section in model.NEEDED.items() if name not in constants})
    if missing:
        return f"g. No paper model: it needs the sections {', '.join(missing)}, over the same folder."
    header = ["one of", "constant", "pictures/s", "feeds GPUs", f"needed for {model.GPUS:,}"]
    about = f"{model.PICTURES_PER_GPU_S:,.0f} pictures a second and GPU are assumed"
    return f"g. On paper: {model.GPUS:,} GPUs ({about}).\n\n{machine.table(header, model.limits(constants))}"


def wanted_manifests(sizes: Sizes, only: Sequence[str]) -> dict[Archive, set[int]]:
    """How many rows the sections ask of each archive."""
    by_section = {"a": sizes.compared, "b": sizes.looped, "d": sizes.scaled, "e": sizes.planned, "f": sizes.compared}
    asked = [pair for section in only for pair in by_section.get(section, {}).items()]
    asked += [(SMALL.name, n) for n in sizes.lengths if "c" in only]
    return {BY_NAME[name]: {n for other, n in asked if other == name} for name, _ in asked}


def report(options: argparse.Namespace, folder: Path) -> str:
    sizes = FULL_SIZES if options.full else SMALL_SIZES
    if options.rounds:
        sizes = dataclasses.replace(sizes, rounds=options.rounds)
    only = options.only.split(",") if options.only else list("abcdefg" if options.full else "ab")
    bench = Bench(folder=folder, sizes=sizes, cores=CORES)
    bench.prepare(wanted_manifests(sizes, only))
    sections: dict[str, Callable[[], str]] = {
        "a": lambda: section_a(bench),
        "b": lambda: section_b(bench),
        "c": lambda: section_c(bench, options.summary),
        "e": lambda: section_e(bench),
        "f": lambda: section_f(bench),
    }
    parts = [
        f"{machine.describe()}. Medians of {sizes.rounds} round(s); {sizes.members} members for each of 3 targets."
    ]
    with bench.served():
        for name in only:
            if name in sections:
                parts.append(sections[name]())
                print(parts[-1], end="\n\n", flush=True)
    if "d" in only:
        parts.append(section_d(bench))
        print(parts[-1], end="\n\n", flush=True)
    if "g" in only:
        parts.append(section_g(bench))
        print(parts[-1], flush=True)
    return "\n\n".join(parts)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="sizes of the documented tables")
    parser.add_argument("--rounds", type=int, help="how often each contender has its turn")
    parser.add_argument("--only", metavar="SECTIONS", help="of a to g, with commas between")
    parser.add_argument("--folder", type=Path, help="for objects and networks, which stay there; default: a new one")
    parser.add_argument("--markdown", type=Path, help="also write the tables here")
    parser.add_argument("--summary", type=Path, help="keep the summary of section c's longest run here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sarc-ray-score-") as temporary:
        text = report(options, options.folder or Path(temporary))
    if options.markdown is not None:
        options.markdown.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""The search of stage 2 against three others: wall time at equal trials, AUROC on held-out patients.

Contenders, each in a process of its own, with all cores of the machine:

- sarc-ray: the search of `sarc-ray tune`, Optuna in rounds over a Ray of its own, whose start is part of the time;
- scikit-learn: RandomizedSearchCV, one algorithm after another, `n_jobs` = cores;
- Optuna: one study per algorithm, shared by as many processes as cores (joblib), which take trial after trial;
- FLAML: the same families and folds, for as many seconds as ours took.

All get the same table, folds and spaces, and the first three the same number of trials of the same five algorithms. The
table is drawn from the built-in law without pictures: age, sex, body-mass index, and the ideal reader's posterior means
and relative standard deviations in place of stage 1's. Each round is a cohort of its own; who begins changes from round
to round, and FLAML follows ours. What each contender chooses by its own cross-validation is refitted on all training
rows and judged on patients that nobody has seen. Searches of trivial trials, few and many, show what the engines
themselves cost.

    python benchmarks/tune.py                                 # small, about a minute; FLAML where it is installed
    python benchmarks/tune.py --peers                         # installs FLAML first, in an environment of its own
    python benchmarks/tune.py --full --peers --markdown FILE  # the documented tables
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
from decoding import peers
from networks import machine
from searching.cohorts import Cohort, draw
from searching.task import Budget, Found, Task

from sarc_ray.simulate.cohort import CohortName
from sarc_ray.stage2.algorithms import ALGORITHMS
from sarc_ray.stage2.cross_validation import make_folds
from sarc_ray.stats.discrimination import auroc

OURS, FLAML = "sarc-ray", "FLAML"
COUNTING = (OURS, "scikit-learn", "Optuna")
OURS_BEST = "sarc-ray, best AUROC alone"
CORES = len(os.sched_getaffinity(0))
WALL_GOAL, AUROC_GOAL = 1.1, -0.005
LAWS: tuple[CohortName, ...] = ("derivation", "external")
N_TRAIN, N_HELD_OUT, N_SPLITS = 590, 10_000, 3
# The search that shows what the engines cost; few trials are taken from many, which leaves out what is paid once.
TRIVIAL_ROWS_PER_CLASS, TRIVIAL_FEATURES = 30, 2
# Each engine deals with threads in its own way; nothing from outside tells it how.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """How much is searched."""

    cohorts: int
    trials: int
    trials_per_round: int
    repeats: int
    trivial_trials: tuple[int, int]


SMALL = Sizes(cohorts=1, trials=3, trials_per_round=3, repeats=1, trivial_trials=(10, 40))
FULL = Sizes(cohorts=5, trials=20, trials_per_round=5, repeats=5, trivial_trials=(20, 120))


@dataclass(frozen=True, kw_only=True, slots=True)
class Round:
    """All contenders on one cohort; ``auroc`` has the ideal reader too."""

    cohort: Cohort
    found: dict[str, Found]
    trivial: dict[str, tuple[Found, Found]]
    auroc: dict[str, float]


def make_task(cohort: Cohort, sizes: Sizes, *, seed: int) -> Task:
    budget = Budget(
        algorithms=tuple(ALGORITHMS),
        trials=sizes.trials,
        trials_per_round=sizes.trials_per_round,
        n_splits=N_SPLITS,
        n_repeats=sizes.repeats,
        cores=CORES,
        seed=seed,
        seconds=0.0,
    )
    return Task(
        features=cohort.features,
        x_NF=cohort.x_NF,
        y_N=cohort.y_N,
        patient_N=cohort.patient_N,
        fold_RN=deal(cohort.y_N, cohort.patient_N, budget),
        held_out_x_NF=cohort.held_out_x_NF,
        budget=budget,
    )


def make_trivial(task: Task, *, trials: int) -> Task:
    """Trials of a few milliseconds: logistic regression on few rows, two folds."""
    rows = np.concatenate([np.flatnonzero(task.y_N == label)[:TRIVIAL_ROWS_PER_CLASS] for label in (0, 1)])
    budget = replace(task.budget, algorithms=("logistic_regression",), trials=trials, n_splits=2, n_repeats=1)
    y_N, patient_N = task.y_N[rows], task.patient_N[rows]
    return Task(
        features=task.features[:TRIVIAL_FEATURES],
        x_NF=task.x_NF[rows, :TRIVIAL_FEATURES],
        y_N=y_N,
        patient_N=patient_N,
        fold_RN=deal(y_N, patient_N, budget),
        held_out_x_NF=task.held_out_x_NF[:1, :TRIVIAL_FEATURES],
        budget=budget,
    )


def deal(y_N: np.ndarray, patient_N: np.ndarray, budget: Budget) -> np.ndarray:
    """The folds that ours makes of the seed, for all: which fold of a repeat each row is tested in, shape (R, N)."""
    folds = make_folds(y_N, patient_N, n_splits=budget.n_splits, n_repeats=budget.n_repeats, seed=budget.seed)
    fold_RN = np.empty((budget.n_repeats, len(y_N)), dtype=np.int64)
    for number, fold in enumerate(folds):
        fold_RN[fold.repeat, fold.test] = number % budget.n_splits
    return fold_RN


def run(name: str, task: Task) -> Found:
    """One contender in a process of its own."""
    environment = {key: value for key, value in os.environ.items() if key not in THREADS}
    script = Path(__file__).parent / "searching" / "contender.py"
    with tempfile.TemporaryDirectory(prefix="sarc-ray-tune-") as folder:
        task.write(Path(folder))
        done = subprocess.run(
            [str(peers.python_of(name)), str(script), name, folder],
            env=environment | {"PYTHONWARNINGS": "ignore"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"{name} ended with {done.returncode}:\n{done.stderr[-2000:]}")
        return Found.read(Path(folder))


def race(cohort: Cohort, sizes: Sizes, *, number: int, seed: int) -> Round:
    """All in turn; FLAML right after ours, whose seconds it gets."""
    task = make_task(cohort, sizes, seed=seed)
    few, many = (make_trivial(task, trials=trials) for trials in sizes.trivial_trials)
    start = number % len(COUNTING)
    found, engines = {}, {}
    for name in (*COUNTING[start:], *COUNTING[:start]):
        found[name] = run(name, task)
        if name == OURS and peers.python_of(FLAML).exists():
            found[FLAML] = run(FLAML, replace(task, budget=replace(task.budget, seconds=found[OURS].wall_s)))
        assert found[name].trials == sizes.trials * len(ALGORITHMS), f"{name} evaluated {found[name].trials} trials"
        engines[name] = run(name, few), run(name, many)
    scores = {OURS: found[OURS].scores["chosen"], OURS_BEST: found[OURS].scores["best"]}
    scores |= {name: found[name].scores["best"] for name in (*COUNTING[1:], FLAML) if name in found}
    scores["ideal"] = cohort.held_out_bayes_N
    judged = {name: auroc(cohort.held_out_y_N, score_N) for name, score_N in scores.items()}
    return Round(cohort=cohort, found=found, trivial=engines, auroc=judged)


def measure(sizes: Sizes, *, seed: int) -> Iterator[list[Round]]:
    """Round by round, so that one that ends early leaves the others."""
    rounds: list[Round] = []
    for number in range(sizes.cohorts):
        law = LAWS[number % len(LAWS)]
        cohort = draw(law, n_train=N_TRAIN, n_held_out=N_HELD_OUT, seed=seed + number)
        rounds.append(race(cohort, sizes, number=number, seed=seed + number))
        yield rounds


def present(rounds: Sequence[Round]) -> list[str]:
    return [name for name in (*COUNTING, FLAML) if name in rounds[0].found]


def middle(rounds: Sequence[Round], value: Callable[[Round], float]) -> float:
    return statistics.median(map(value, rounds))


def times_the_fastest(rounds: Sequence[Round], name: str, *, with_start: bool) -> float:
    """Median over cohorts of the ratio to whoever was fastest at equal trials on that cohort."""

    def seconds(found: Found) -> float:
        return found.wall_s if with_start else found.wall_s - found.start_s

    return middle(rounds, lambda r: seconds(r.found[name]) / min(seconds(r.found[other]) for other in COUNTING))


def wall_table(rounds: Sequence[Round]) -> str:
    names = present(rounds)
    rows = [[r.cohort.name, *(f"{r.found[name].wall_s:.1f}" for name in names)] for r in rounds]
    medians = [middle(rounds, lambda r, name=name: r.found[name].wall_s) for name in names]
    rows.append(["median", *(f"{wall_s:.1f}" for wall_s in medians)])
    for what, with_start in (("times the fastest", True), ("the same without the engines' start", False)):
        ratios = {name: times_the_fastest(rounds, name, with_start=with_start) for name in COUNTING}
        rows.append([what, *(f"{ratios[name]:.2f}" if name in ratios else "-" for name in names)])
    trials = [middle(rounds, lambda r, name=name: r.found[name].trials) for name in names]
    rows.append(["trials, median", *(f"{n:.0f}" for n in trials)])
    return machine.table(["seconds", *names], rows)


def engine_table(rounds: Sequence[Round]) -> str:
    """What is not spent in trials; core-milliseconds count all cores, whether they wait or work for the engine."""
    header = ["engine", "its start, s", "core-ms beside each trial", "share of all core-time", "beside a trivial trial"]
    rows = []
    for name in COUNTING:
        found = [r.found[name] for r in rounds]
        rows.append(
            [
                name,
                f"{statistics.median(f.start_s for f in found):.1f}",
                f"{statistics.median(1000.0 * f.idle_s(CORES) / f.trials for f in found):.0f}",
                f"{statistics.median(f.idle_s(CORES) / (f.wall_s * CORES) for f in found):.1%}",
                f"{statistics.median(1000.0 * beside_trivial_s(*r.trivial[name]) for r in rounds):.0f}",
            ]
        )
    return machine.table(header, rows)


def beside_trivial_s(few: Found, many: Found) -> float:
    """Core-seconds of the engine for one more trial; what is paid once per search falls out."""
    return (many.idle_s(CORES) - few.idle_s(CORES)) / (many.trials - few.trials)


def auroc_table(rounds: Sequence[Round]) -> str:
    names = list(rounds[0].auroc)
    rows = [
        [r.cohort.name, f"{r.cohort.y_N.sum()} of {len(r.cohort.y_N)}", *(f"{r.auroc[name]:.4f}" for name in names)]
        for r in rounds
    ]
    means = [statistics.mean(r.auroc[name] for r in rounds) for name in names]
    rows.append(["mean", "", *(f"{mean:.4f}" for mean in means)])
    return machine.table(["cohort", "with the outcome", *names], rows)


def difference_table(rounds: Sequence[Round]) -> str:
    rows = []
    for other in rounds[0].auroc:
        if other != OURS:
            gap = [r.auroc[OURS] - r.auroc[other] for r in rounds]
            spread = f"{statistics.stdev(gap):.4f}" if len(gap) > 1 else "-"
            rows.append([other, *(f"{f(gap):+.4f}" for f in (statistics.mean, min, max)), spread])
    return machine.table(["AUROC of sarc-ray less that of", "mean", "least", "most", "SD over cohorts"], rows)


def chosen_table(rounds: Sequence[Round]) -> str:
    names = present(rounds)
    return machine.table(
        ["chosen for", *names], [[r.cohort.name, *(r.found[name].chosen for name in names)] for r in rounds]
    )


def verdicts(rounds: Sequence[Round]) -> str:
    ratio = times_the_fastest(rounds, OURS, with_start=True)
    lines = [
        f"Wall time, goal at most {WALL_GOAL} of the fastest at equal trials: {ratio:.2f}, {met(ratio <= WALL_GOAL)}."
    ]
    if FLAML in rounds[0].auroc:
        gap = statistics.mean(r.auroc[OURS] - r.auroc[FLAML] for r in rounds)
        lines.append(
            f"AUROC, goal no less than FLAML's by {-AUROC_GOAL}: {gap:+.4f} on average, {met(gap >= AUROC_GOAL)}."
        )
    else:
        lines.append("FLAML is not installed (run with --peers): not compared.")
    return "\n".join(f"- {line}" for line in lines)


def met(goal_is_met: bool) -> str:
    return "met" if goal_is_met else "missed"


def about(rounds: Sequence[Round], sizes: Sizes, *, seed: int) -> str:
    libraries = ("ray", "optuna", "scikit-learn", "xgboost", "lightgbm")
    used = ", ".join(f"{name} {version(name)}" for name in libraries) + f", {peers.PINS['flaml'][0].replace('==', ' ')}"
    return (
        f"{CORES} cores; {used}. {len(rounds)} cohort(s), seeds from {seed}: {N_TRAIN} patients to search on, "
        f"{N_HELD_OUT} to judge by, {len(rounds[0].cohort.features)} features. {len(ALGORITHMS)} algorithms, "
        f"{sizes.trials} trials each (ours in rounds of {sizes.trials_per_round}), {N_SPLITS} folds, {sizes.repeats} "
        f"times. Trivial: {sizes.trivial_trials[1]} trials less {sizes.trivial_trials[0]}."
    )


def report(rounds: Sequence[Round], sizes: Sizes, *, seed: int) -> str:
    tables = (wall_table, engine_table, auroc_table, difference_table, chosen_table, verdicts)
    return "\n\n".join([about(rounds, sizes, seed=seed), *(table(rounds) for table in tables)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="sizes of the documented tables")
    parser.add_argument("--cohorts", type=int, help="another number of cohorts")
    parser.add_argument("--trials", type=int, help="another number of trials per algorithm")
    parser.add_argument("--peers", action="store_true", help="install FLAML first")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write the tables here")
    parser.add_argument("--seed", type=int, default=1, help="of the first cohort")
    options = parser.parse_args()
    if options.peers:
        peers.install(peers.ENVIRONMENTS[FLAML])
    sizes = FULL if options.full else SMALL
    chosen = {name: getattr(options, name) for name in ("cohorts", "trials") if getattr(options, name) is not None}
    sizes = replace(sizes, **chosen)
    for rounds in measure(sizes, seed=options.seed):
        text = report(rounds, sizes, seed=options.seed)
        if options.markdown is not None:
            options.markdown.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()

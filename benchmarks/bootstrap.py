"""Time bootstrap intervals of the nine metrics of Table 2: ours against others, in turn, in one run.

Contenders: a loop over scikit-learn (nine metrics), the package confidenceinterval (the six of them it knows, in an
environment of its own), pROC (the AUROC alone, where Rscript is there). Each measures its own seconds in a process of
its own, without its start. Others run fewer replicates where asked, and are scaled. Limits of intervals are compared
with ours: differences beyond Monte-Carlo error end the run.

    python benchmarks/bootstrap.py --peers                  # 189 rows; installs confidenceinterval first
    python benchmarks/bootstrap.py --rows 1000000 --other-replicates 4 --repeats 1
    python benchmarks/bootstrap.py --rows 1000000 --rows-per-patient 3 --other-replicates 4 --repeats 1
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from decoding import peers

OURS, LOOP, PACKAGE, PROC = "sarc-ray", "scikit-learn loop", "confidenceinterval", "pROC"
HERE = Path(__file__).parent / "resampling"
COMMANDS = {
    OURS: (str(peers.python_of(OURS)), str(HERE / "ours.py")),
    LOOP: (str(peers.python_of(LOOP)), str(HERE / "scikit_loop.py")),
    PACKAGE: (str(peers.python_of(PACKAGE)), str(HERE / "package.py")),
    PROC: ("Rscript", str(HERE / "proc.R")),
}
# Normal density at 1.96, by which the error of a 2.5% quantile follows from the spread.
_DENSITY = 0.05844507


def draw_rows(n, rows_per_patient, *, rng):
    label = (rng.random(n) < 0.15).astype(int)
    score = 1 / (1 + np.exp(-rng.normal(-2 + label, 1)))
    return label, score, score >= 0.2, np.arange(n) // rows_per_patient


def write_rows(folder, label, score, flag, patient):
    np.savez(folder / "rows.npz", label=label, score=score, flag=flag, patient=patient)
    columns = np.column_stack([label, score])
    np.savetxt(folder / "rows.csv", columns, delimiter=",", header="label,score", comments="", fmt=["%d", "%.17g"])


def run(name, folder, n_boot):
    """Seconds, and limits by metric, of one contender."""
    done = subprocess.run(
        [*COMMANDS[name], str(folder), str(n_boot)],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "PYTHONWARNINGS": "ignore", "TZ": "UTC"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{name} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def worst_difference(ours, others, n_ours, n_others):
    """Largest difference of a limit from ours, in standard errors of the two quantiles, and the metric."""
    worst = (0.0, "")
    for metric, limits in others.items():
        spread = (ours[metric][1] - ours[metric][0]) / 3.92
        error = spread * np.sqrt(0.025 * 0.975) / _DENSITY * np.sqrt(1 / n_ours + 1 / n_others)
        gap = max(abs(a - b) for a, b in zip(ours[metric], limits, strict=True))
        worst = max(worst, (gap / error, metric))
    return worst


def contenders(rows_per_patient):
    """Those that are there; pROC and confidenceinterval resample rows, not patients."""
    found = [OURS, LOOP]
    if rows_per_patient == 1:
        found += [PACKAGE] if peers.python_of(PACKAGE).exists() else []
        found += [PROC] if shutil.which("Rscript") else []
    return found


def race(names, folder, options):
    """Seconds of every repeat, and the last limits, by contender."""
    seconds, limits = {name: [] for name in names}, {}
    for number in range(options.repeats):
        start = number % len(names)
        for name in names[start:] + names[:start]:
            n_boot = options.replicates if name == OURS else options.other_replicates
            found = run(name, folder, n_boot)
            seconds[name].append(found["seconds"] * options.replicates / n_boot)
            limits[name] = found["limits"]
    return seconds, limits


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=189)
    parser.add_argument("--rows-per-patient", type=int, default=1)
    parser.add_argument("--replicates", type=int, default=2000)
    parser.add_argument("--other-replicates", type=int, default=2000, help="scaled to --replicates")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peers", action="store_true", help="install confidenceinterval first")
    options = parser.parse_args()
    if options.peers:
        peers.install(peers.ENVIRONMENTS[PACKAGE])
    rows = draw_rows(options.rows, options.rows_per_patient, rng=np.random.default_rng(1))
    names = contenders(options.rows_per_patient)
    with tempfile.TemporaryDirectory(prefix="sarc-ray-bootstrap-") as folder:
        write_rows(Path(folder), *rows)
        seconds, limits = race(names, Path(folder), options)
    print(f"rows {options.rows}, rows per patient {options.rows_per_patient}, replicates {options.replicates}")
    print("| contender | metrics | replicates run | s, median | ratio | largest difference (SE) |")
    print("|---|---|---|---|---|---|")
    median_s = {name: statistics.median(seconds[name]) for name in names}
    for name in names:
        n_boot = options.replicates if name == OURS else options.other_replicates
        gap, metric = worst_difference(limits[OURS], limits[name], options.replicates, n_boot)
        ratio, agreement = median_s[name] / median_s[OURS], f"{gap:.1f} {metric}" if n_boot >= 200 else "too few"
        print(f"| {name} | {len(limits[name])} | {n_boot} | {median_s[name]:.3f} | {ratio:.1f} | {agreement} |")
        if n_boot >= 200 and gap > 6:
            raise SystemExit(f"{name}: a limit of {metric} is {gap:.1f} standard errors from ours")


if __name__ == "__main__":
    main()

"""A recalibration as a person reads it in the terminal."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table

from sarc_ray.recalibrating.rewrite import Recalibrated
from sarc_ray.stage2.local import ADVISED_PATIENTS, LocalDecision

_NAMES = {"none": "none", "intercept": "intercept", "intercept_and_slope": "intercept and slope"}


def print_recalibrated(console: Console, done: Recalibrated, to: str) -> None:
    """The candidates with their figures, what was kept, and where the new bundle lies."""
    if done.decision is not None:
        _print_sample(console, done.decision, done)
        console.print(_candidates(done.decision))
    if done.prevalences is not None:
        present, wanted = done.prevalences
        _say(console, f"re-based from a prevalence of {present:.4f} to {wanted:.4f}")
    if done.model_id is None:
        _say(console, "Nothing improves both Brier and ICI: the bundle is left as it is, and no other was written.")
        return
    before, after = done.thresholds
    _say(console, f"threshold in force: {before:.4f} before, {after:.4f} now; it flags the same patients")
    _say(console, f"wrote {to}: model {done.model_id}, parent {done.parent_model_id}")


def _print_sample(console: Console, decision: LocalDecision, done: Recalibrated) -> None:
    _say(
        console,
        f"{decision.n_rows} rows of {decision.n_patients} patients, {decision.n_patients_with} with the outcome "
        f"({done.label}); {done.n_left_out} rows without score or label left out",
    )
    _say(console, f"mean score {decision.mean_score:.4f}, share with the outcome {decision.prevalence:.4f}")
    fewer = min(decision.n_patients_with, decision.n_patients - decision.n_patients_with)
    if fewer < ADVISED_PATIENTS:
        _say(
            console,
            f"A small sample: {fewer} patients in the smaller group, {ADVISED_PATIENTS} in each are advised.",
        )


def _candidates(decision: LocalDecision) -> Table:
    table = Table(
        title=f"of patients who were not drawn, {decision.n_boot} draws",
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("candidate")
    for name in ("slope", "intercept", "Brier", "ICI", "kept"):
        table.add_column(name, justify="right")
    for one in decision.candidates:
        kept = "yes" if one.method == decision.kept else ""
        figures = (f"{value:.4f}" for value in (one.slope, one.intercept, one.brier, one.ici))
        table.add_row(_NAMES[one.method], *figures, kept)
    return table


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)

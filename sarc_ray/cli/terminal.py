"""What the verbs of the command line share: the terminal, their common arguments, and how a verb's record is shown."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

if TYPE_CHECKING:
    from sarc_ray.run import Run

console = Console()
ConfigArgument = Annotated[
    str, typer.Argument(metavar="CONFIG", help="The run's YAML, or the name of a preset: paper, proof, demo.")
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key, e.g. --set fit.epochs=20.")
]


def load(config: str, set_: list[str] | None) -> Run:
    """The run of a CONFIG argument and its overrides."""
    with console.status("loading"):
        from sarc_ray.run import load_run

        return load_run(config, set_ or [])


def run_stage(run: Run, title: str, verb: Callable[[Run, Any], dict[str, Any]]) -> None:
    """Run a verb under a progress bar and say how it ended."""
    from sarc_ray.screen import stage_progress

    with stage_progress(console, title) as tell:
        record = verb(run, tell)
    tail = "unchanged since the last run" if record["skipped"] else f"{record['seconds']:.0f} s"
    facts = ", ".join(f"{name} {_short(value)}" for name, value in record["facts"].items())
    console.print(f"[bold]{title:20}[/] {tail}; {facts}", highlight=False, soft_wrap=True)


def run_stages(run: Run) -> None:
    """All verbs after the simulation, in order, on one engine."""
    from sarc_ray import pipeline, reporting

    with pipeline.engine(run):
        run_stage(run, "prepare", pipeline.prepare)
        run_stage(run, "train", pipeline.train)
        run_stage(run, "tune", pipeline.tune)
        for name in run.config.data.scored_datasets():
            run_stage(run, f"score {name}", functools.partial(score_dataset, name))
        run_stage(run, "evaluate", pipeline.evaluate)
    run_stage(run, "report", reporting.report)


def score_dataset(name: str, run: Run, tell: Any, *, retry: bool = False) -> dict[str, Any]:
    """One of the run's data sets, as :func:`run_stage` wants a verb."""
    from sarc_ray import pipeline

    return pipeline.score(run, name, tell, retry=retry)


def _short(value: Any) -> str:
    """A fact for one line: counts in full, of a decision what was decided; the stage's record holds its reasons."""
    if isinstance(value, dict):
        decision = not any(isinstance(item, dict) for item in value.values()) and "kept" in value
        shown = {name: item for name, item in value.items() if not decision or name in ("method", "scale", "kept")}
        return " ".join(f"{name}={_short(item)}" for name, item in shown.items())
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3f}" if isinstance(value, float) else str(value)

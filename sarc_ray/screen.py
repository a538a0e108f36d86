"""What a person sees in the terminal: progress while a stage runs, tables when it is done."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pandas as pd
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from sarc_ray import storage
from sarc_ray.pipeline import Tell
from sarc_ray.run import Run


@contextlib.contextmanager
def stage_progress(console: Console, title: str) -> Iterator[Tell]:
    """A progress line that goes away when the stage is done; gives the ``tell`` callback of the verbs."""
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description:20}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[what]}"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    ) as progress:
        task = progress.add_task(title, total=None, what="")

        def tell(what: str, done: int, total: int) -> None:
            progress.update(task, completed=done, total=total, what=what)

        yield tell


def print_headline(console: Console, run: Run) -> None:
    """The main figures of an evaluated run, attained and ideal side by side."""
    headline = pd.read_csv(run.path("results", "headline.csv"))
    for dataset, rows in headline.groupby("dataset", sort=False):
        console.print(_table(str(dataset), rows.drop(columns="dataset")))


def print_artefacts(console: Console, run: Run) -> None:
    """Where a run's results lie."""
    console.print(f"\nAll artefacts lie under {run.config.run.directory}:", highlight=False)
    for name, meaning in (
        ("results/results.csv", "all figures in long form"),
        ("bundle", "the model, portable; check it with 'sarc-ray bundle verify'"),
        ("scores", "score tables, one outcome row per image"),
        ("stage2/trials.parquet", "the hyper-parameter search"),
        ("config.yaml", "the resolved configuration"),
    ):
        if storage.exists(run.path(name)):
            console.print(f"  {name:24} {meaning}", highlight=False)


def _table(title: str, rows: pd.DataFrame) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for name in rows.columns:
        table.add_column(str(name), justify="left" if rows[name].dtype == object else "right")
    for _, row in rows.iterrows():
        table.add_row(*("" if pd.isna(value) else str(value) for value in row))
    return table

"""What a person sees in the terminal: progress while a stage runs, tables when it is done."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import pandas as pd
from rich import box
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from sarc_ray import storage
from sarc_ray.errors import REASONS, Reason

if TYPE_CHECKING:  # every verb shows its progress, and waits for no other's imports
    from sarc_ray.explaining import Explained
    from sarc_ray.run import Run
    from sarc_ray.telling import Tell
    from sarc_ray.verifying import Verification


@contextlib.contextmanager
def stage_progress(console: Console, title: str) -> Iterator[Tell]:
    """A progress line that goes away when the stage is done; gives the ``tell`` callback of the verbs.

    What stands behind a semicolon of the text (outcome counts, rate, memory) has a line of its own.
    """
    with _TwoLines(
        SpinnerColumn(),
        TextColumn("{task.description:20}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[what]}"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as progress:
        task = progress.add_task(title, total=None, what="")

        def tell(what: str, done: int, total: int) -> None:
            counted, _, details = what.partition("; ")
            progress.details = details
            progress.update(task, completed=done, total=total, what=counted)

        yield tell


class _TwoLines(Progress):
    """A progress line, and details below it where there are any."""

    details = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        """What is drawn."""
        yield from super().get_renderables()
        if self.details:
            yield Text(f"  {self.details}", style="dim", no_wrap=True, overflow="ellipsis")


def print_headline(console: Console, run: Run) -> None:
    """The main figures of an evaluated run, attained and ideal side by side."""
    headline = storage.read_table(run.path("results", "headline.parquet"))
    level = float(storage.read_table(run.path("results", "results.parquet"))["confidence_level"].iloc[0])
    with_ideal = bool(headline["ideal"].notna().any())
    for dataset, rows in headline.groupby("dataset", sort=False):
        console.print(_headline(str(dataset), rows, level=level, with_ideal=with_ideal))
    if run.config.data.truth is not None:
        console.print(
            "Simulated patients prove the software, not the medicine. The ideal knows\n"
            "everything that was drawn into the pictures. Not a medical device.",
            style="dim",
        )


def print_goals(console: Console, goals: pd.DataFrame) -> None:
    """The learning goals beside what was reached."""
    table = Table(title="learning goals", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("outcome", "metric", "allowed"):
        table.add_column(name)
    for name in ("reached", "met", "with 590 patients"):
        table.add_column(name, justify="right")
    row: Any
    for row in goals.itertuples():
        met = "[green]yes[/]" if row.met else "[bold red]no[/]"
        table.add_row(row.outcome, row.metric, row.allowed, _number(row.found), met, _number(row.study_size))
    console.print(table)


def print_verification(console: Console, verification: Verification) -> None:
    """What was compared, and each number that is another one."""
    for difference in verification.differences:
        console.print(difference, markup=False, highlight=False, soft_wrap=True)
    found = len(verification.differences)
    said = "all agree" if not found else f"{found} difference{'s' if found > 1 else ''}"
    console.print(
        f"{verification.cells:,} cells of {verification.tables} tables and the pages' texts made again, lineage "
        f"{verification.lineage}: {said}",
        highlight=False,
        soft_wrap=True,
    )


def print_sensitivity(console: Console, table: pd.DataFrame) -> None:
    """A sensitivity analysis: both models on each test set, and the difference of their AUROCs."""
    first: Any = next(table.itertuples())
    title = f"{first.analysis}: learned from {first.training_patients} of {first.training_patients_all} patients"
    shown = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("dataset", "n"):
        shown.add_column(name)
    for name in ("AUROC, all", f"AUROC, {first.analysis}", "difference (95% CI)", "p"):
        shown.add_column(name.replace("95%", f"{first.confidence_level:.0%}"), justify="right")
    row: Any
    for row in table.itertuples():
        interval = "" if pd.isna(row.ci_low) else f" ({row.ci_low:.3f}, {row.ci_high:.3f})"
        difference = f"{_number(row.difference)}{interval}"
        shown.add_row(
            row.dataset,
            str(row.n),
            _number(row.auroc_all),
            _number(row.auroc_analysis),
            difference,
            _number(row.p_value),
        )
    console.print(shown)
    for reason in filter(None, table["na_reason"].unique()):
        console.print(reason, markup=False, highlight=False)


def print_artefacts(console: Console, run: Run) -> None:
    """Where a run's results lie."""
    console.print(f"\nAll artefacts lie under {run.config.run.directory}:", highlight=False)
    for name, meaning in (
        ("report/index.html", "the report; open it in a browser"),
        ("results/results.csv", "all figures in long form"),
        ("bundle", "the model, portable; check it with 'sarc-ray bundle verify'"),
        ("scores", "score tables, one outcome row per image"),
        ("stage2/trials.parquet", "the hyper-parameter search"),
        ("config.yaml", "the resolved configuration"),
    ):
        if storage.exists(run.path(name)):
            console.print(f"  {name:24} {meaning}", highlight=False, soft_wrap=True)


def print_explained(console: Console, explained: Explained, to: str) -> None:
    """How many images were explained, why others were not, and where it all lies."""
    from sarc_ray.explaining import TABLE  # draws, and who draws nothing need not wait for what it imports

    counts = explained.table["reason"].value_counts(sort=False)
    for reason, n in zip(map(Reason, map(str, counts.index)), counts, strict=True):
        why = f": {REASONS[reason].meaning}" if reason else ""
        console.print(f"{n:6} {REASONS[reason].outcome}{why}", highlight=False, soft_wrap=True)
    for cause, n in explained.unfiled.items():
        console.print(f"{n:6} without DICOM: {cause}", highlight=False, soft_wrap=True)
    console.print(f"{explained.n_pictures:6} pictures and {TABLE} in {to}", highlight=False, soft_wrap=True)


def _headline(dataset: str, rows: pd.DataFrame, *, level: float, with_ideal: bool) -> Table:
    table = Table(
        title=f"{dataset}, n = {rows['n'].max()}",
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1),
        pad_edge=False,
    )
    for name in ("quantity", "metric"):
        table.add_column(name, no_wrap=True)
    table.add_column(f"attained ({level * 100:g}% CI)", justify="right", no_wrap=True)
    for name in ("ideal", "ratio") if with_ideal else ():
        table.add_column(name, justify="right", no_wrap=True, min_width=6)
    # Differences between scores belong beside the score that they compare.
    ordered = rows.sort_values(
        "quantity",
        key=lambda names: names.map({name: k for k, name in enumerate(rows["quantity"].unique())}),
        kind="stable",
    )
    previous = ""
    row: Any
    for row in ordered.itertuples():
        if previous not in ("", row.quantity):
            table.add_section()
        ideal = [_number(row.ideal), _number(row.attained_over_ideal)] if with_ideal else []
        table.add_row("" if row.quantity == previous else str(row.quantity), _metric(row), _with_interval(row), *ideal)
        previous = str(row.quantity)
    return table


def _metric(row: Any) -> str:
    name = str(row.metric).replace("auroc_difference vs ", "auroc-")
    return name if pd.isna(row.p_value) else f"{name} p {row.p_value:.3f}"


def _with_interval(row: Any) -> str:
    interval = "" if pd.isna(row.ci_low) else f" ({row.ci_low:.3f}, {row.ci_high:.3f})"
    return f"{row.attained:.3f}{interval}"


def _number(value: Any) -> str:
    return "" if pd.isna(value) else f"{value:.3f}"

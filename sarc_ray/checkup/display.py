"""A checkup as a person reads it in the terminal."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sarc_ray.checkup.examine import Checkup
from sarc_ray.cohort.plausibility import Finding

_STYLES = {"error": "bold red", "warning": "bold yellow"}


def print_checkup(console: Console, checkup: Checkup) -> None:
    """Findings first, then what the manifest offers, then the verdict."""
    for finding in checkup.findings:
        _print_finding(console, finding)
    _print_offer(console, checkup)
    if checkup.flow:
        console.print(_flow(checkup))
    if checkup.n_events is not None and checkup.n_known:
        share = checkup.n_events / checkup.n_known
        _say(
            console,
            f"Outcome: {checkup.n_events} of {checkup.n_known} eligible rows with a known outcome ({share:.1%})",
        )
    if checkup.splits:
        console.print(_splits(checkup))
    _print_verdict(console, checkup)


def _print_finding(console: Console, finding: Finding) -> None:
    where = f"column {finding.column}" if finding.column else "manifest"
    rows = ", ".join(str(row) for row in finding.rows)
    if rows:
        first = "first: " if finding.count > len(finding.rows) else ""
        where += f", {_many(finding.count, 'row')} ({first}{rows})"
    style = _STYLES[finding.severity]
    console.print(f"[{style}]{finding.severity}[/] ", end="")
    _say(console, where)
    grid = Table.grid(padding=(0, 1))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column()
    for name in ("found", "allowed", "remedy"):
        text = getattr(finding, name)
        if text:
            grid.add_row(f"  {name}", Text(text))
    console.print(grid)


def _print_offer(console: Console, checkup: Checkup) -> None:
    _say(
        console,
        f"\n{_many(checkup.n_rows, 'row')} of {_many(checkup.n_patients, 'patient')}; checked as {checkup.role}",
    )
    if checkup.coverage:
        table = _table("column", "use", "rows with a value", right=(2,))
        for line in checkup.coverage:
            share = f" ({line.n_rows / checkup.n_rows:.0%})" if checkup.n_rows else ""
            table.add_row(line.column, line.role, f"{line.n_rows}{share}")
        console.print(table)
    if checkup.own_columns:
        _say(console, f"Columns of your own, kept and not used: {', '.join(checkup.own_columns)}")


def _flow(checkup: Checkup) -> Table:
    table = _table("who is eligible", "images", "patients", "left out", right=(1, 2, 3))
    for step in checkup.flow:
        table.add_row(step.label, str(step.n_images), str(step.n_patients), str(step.excluded_images or ""))
    return table


def _splits(checkup: Checkup) -> Table:
    table = _table("split", "patients", "with the outcome", right=(1, 2))
    for split in checkup.splits:
        table.add_row(split.split, str(split.n_patients), str(split.n_events))
    return table


def _print_verdict(console: Console, checkup: Checkup) -> None:
    n_warnings = len(checkup.findings) - checkup.n_errors
    if checkup.n_errors:
        text = f"{_many(checkup.n_errors, 'error')} to mend, {_many(n_warnings, 'warning')}: nothing can run yet"
        console.print(text, style=_STYLES["error"], highlight=False)
    elif n_warnings:
        text = f"no error, {_many(n_warnings, 'warning')} to look at: a run can begin"
        console.print(text, style=_STYLES["warning"], highlight=False)
    else:
        console.print("no error, no warning: a run can begin", style="bold green", highlight=False)


def _table(*columns: str, right: tuple[int, ...]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if number in right else "left")
    return table


def _many(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False)

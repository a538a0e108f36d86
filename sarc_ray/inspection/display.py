"""A look at one object, and what a bundle needs beside it, on the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from pydicom.uid import UID
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sarc_ray.errors import REASONS, Reason
from sarc_ray.imaging import gate
from sarc_ray.imaging.header import HeaderFacts
from sarc_ray.inspection.look import Look


def print_look(console: Console, look: Look, clinical_features: Sequence[str]) -> None:
    """The verdict, the header facts that are used, and what the manifest must add.

    Args:
        console: the terminal.
        look: what the pipeline makes of the object.
        clinical_features: of the bundle or preset.
    """
    facts = REASONS[look.reason]
    if look.reason == Reason.NONE:
        console.print("[bold green]goes on to scoring[/]", highlight=False)
    else:
        console.print(f"[bold red]{facts.outcome}[/]: {look.reason}", highlight=False)
        _say(console, f"  {facts.meaning}")
    for name in look.flags:
        console.print(f"[bold yellow]flag[/] {name}", highlight=False)
        _say(console, f"  {gate.FLAGS[name]}")
    if look.header is None:
        _say(console, f"{look.n_bytes:,} bytes; no header could be read")
        return
    console.print(_facts(look.header, look.n_bytes))
    lacking = [name for name in clinical_features if getattr(look.header, name, None) is None]
    if lacking and look.reason == Reason.NONE:
        _say(console, f"The manifest must give: {', '.join(lacking)}. Without it the row is abstained.")


def _facts(header: HeaderFacts, n_bytes: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("header fact", no_wrap=True)
    table.add_column("as it is used")
    bmi = None if header.bmi_kg_m2 is None else f"{header.bmi_kg_m2:.1f} kg/m2"
    age = None if header.age_years is None else f"{header.age_years:g} years"
    values: dict[str, object] = {
        "age": age,
        "sex": header.sex,
        "body-mass index": bmi,
        "view": header.view,
        "month": header.acquired_month,
        "kind of object": None if header.sop_class is None else UID(header.sop_class).name,
        "modality": header.modality,
        "body part": header.body_part,
        "species": header.species,
        "mobile unit": "yes" if header.portable else "not told",
        "device": header.device,
        "transfer syntax": UID(header.transfer_syntax).name,
        "size": f"{header.columns} x {header.rows} pixels of {header.bits_stored} bits, {n_bytes:,} bytes",
        "photometric": header.photometric,
    }
    for name, value in values.items():
        table.add_row(name, Text("-" if value is None else str(value), style="dim" if value is None else ""))
    return table


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)

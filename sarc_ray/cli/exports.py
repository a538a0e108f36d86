"""Verbs that take scores out of a score table: export csv, omop, sr."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from sarc_ray import exits
from sarc_ray.cli.terminal import console

if TYPE_CHECKING:
    from sarc_ray.exporting.rows import Exported

app = typer.Typer(help="Take scores out of a score table: CSV, OMOP, DICOM SR.", no_args_is_help=True)
Table = Annotated[str, typer.Argument(metavar="TABLE", help="A finished score table, any fsspec URL.")]
Bundle = Annotated[str, typer.Option("--bundle", metavar="URL", help="The model that scored the table.")]
_FILE = "The file to write: .csv or .parquet."


@app.command("csv", epilog="Example: sarc-ray export csv URL --to scores.csv --column patient_key --column score")
def export_csv(
    table: Table,
    to: Annotated[str, typer.Option("--to", metavar="FILE", help=_FILE)],
    column: Annotated[
        list[str] | None, typer.Option("--column", metavar="NAME", help="Repeat for several; default the usual ones.")
    ] = None,
    scored: Annotated[bool, typer.Option("--scored", help="Only rows that were scored.")] = False,
) -> None:
    """Write chosen columns of a score table as one CSV or Parquet file. Exit code 4 when there is no row to write."""
    with console.status("loading"):
        from sarc_ray.exporting.plain import export_plain

    with console.status("exporting"):
        done = export_plain(table, to, columns=column or [], scored_only=scored)
    _say(done, "rows", to)


@app.command("omop", epilog="Example: sarc-ray export omop URL --bundle URL --persons persons.csv --to measurement.csv")
def export_omop(
    table: Table,
    bundle: Bundle,
    persons: Annotated[
        str, typer.Option("--persons", metavar="FILE", help="person_id by patient_key, or by patient_id.")
    ],
    to: Annotated[str, typer.Option("--to", metavar="FILE", help=_FILE)],
    manifest: Annotated[
        str | None, typer.Option("--manifest", metavar="URL", help="That was scored; its acquired_on gives the days.")
    ] = None,
    day_of_month: Annotated[
        int | None,
        typer.Option("--day-of-month", min=1, max=28, help="Stands for a month where no day is known."),
    ] = None,
    concepts: Annotated[
        str | None, typer.Option("--concepts", metavar="FILE", help="Concept ids: field, source_value, concept_id.")
    ] = None,
    first_id: Annotated[int, typer.Option("--first-id", min=1, help="The first measurement_id.")] = 1,
    key_file: Annotated[
        str | None, typer.Option("--key-file", metavar="FILE", help="Secret of the keys, for persons by patient_id.")
    ] = None,
) -> None:
    """Write scored rows as rows of MEASUREMENT, OMOP CDM 5.4. Exit code 4 when there is none to write."""
    with console.status("loading"):
        from sarc_ray.exporting import omop

    request = omop.OmopRequest(
        table=table,
        bundle=bundle,
        to=to,
        persons=persons,
        key_file=key_file,
        manifest=manifest,
        day_of_month=day_of_month,
        concepts=concepts,
        first_id=first_id,
    )
    with console.status("exporting"):
        done = omop.export_omop(request)
    _say(done, "measurements", to)


@app.command("sr", epilog="Example: sarc-ray export sr URL chest.dcm --bundle URL --to reports")
def export_sr(
    table: Table,
    images: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="DICOM objects that were scored.")],
    bundle: Bundle,
    to: Annotated[str, typer.Option("--to", metavar="URL", help="Folder for the reports.")],
) -> None:
    """Write a DICOM SR per study, with the patient's own identifiers, for the archive that the images are from.

    Exit code 4 when there is none to write.
    """
    with console.status("loading"):
        from sarc_ray.exporting import studies

    request = studies.ReportRequest(table=table, images=tuple(images), bundle=bundle, to=to)
    with console.status("exporting"):
        done = studies.export_reports(request)
    _say(done, "reports", to)


def _say(done: Exported, what: str, to: str) -> None:
    """How many were written, and what was left out and why."""
    for cause, n in done.left_out.items():
        console.print(f"{n:6} left out: {cause}", highlight=False, soft_wrap=True)
    console.print(f"{done.n_written:6} {what} in {to}", highlight=False, soft_wrap=True)
    if not done.n_written:
        raise typer.Exit(code=exits.REFUSED)

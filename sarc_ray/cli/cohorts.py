"""Verbs on data before any training: simulate, inventory, inspect, check."""

from __future__ import annotations

import functools
from typing import Annotated

import typer

from sarc_ray import exits
from sarc_ray.cli.terminal import ConfigArgument, SetOption, console, load, run_stage
from sarc_ray.errors import ConfigError

app = typer.Typer()


@app.command(epilog="Example: sarc-ray simulate demo --to s3://bucket/cohort")
def simulate(
    config: ConfigArgument,
    to: Annotated[str, typer.Option("--to", metavar="URL", help="Folder or bucket to write to.")],
    set_: SetOption = None,
) -> None:
    """Write the built-in cohorts: simulated patients with radiographs and a known truth."""
    from sarc_ray import pipeline

    run_stage(load(config, set_), "simulate", lambda run, tell: pipeline.simulate(run, to, tell))


@app.command(
    epilog="Example: sarc-ray inventory s3://bucket/archive --to s3://bucket/archive.parquet --key-file ~/.sarc-ray.key"
)
def inventory(
    folder: Annotated[str, typer.Argument(metavar="URL", help="Bucket or folder, any fsspec URL.")],
    to: Annotated[str, typer.Option("--to", metavar="MANIFEST", help="The manifest to write: .parquet or .csv.")],
    key_file: Annotated[
        str | None, typer.Option("--key-file", metavar="FILE", help="Secret for patient and study keys.")
    ] = None,
    set_: SetOption = None,
) -> None:
    """List a bucket or folder, read headers only, and write a manifest with what is eligible.

    One row per object, whatever it is. Patients and studies appear as keyed hashes; make the key with 'sarc-ray key'.
    """
    with console.status("loading"):
        from sarc_ray.inventory.summary import print_summary, summarise
        from sarc_ray.inventory.take import InventoryRequest, load_run_for, take_inventory

    request = InventoryRequest(folder=folder, manifest=to)
    run = load_run_for(request, key_file, set_ or [])
    run_stage(run, "inventory", functools.partial(take_inventory, request))
    print_summary(console, summarise(request.table))


@app.command(epilog="Example: sarc-ray inspect image.dcm --png seen.png")
def inspect(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A DICOM object, any fsspec URL.")],
    bundle: Annotated[
        str | None, typer.Option("--bundle", metavar="URL", help="Preprocess as this bundle does.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option("--preset", metavar="NAME", help="Preprocess as this preset does; default paper.")
    ] = None,
    png: Annotated[
        str | None, typer.Option("--png", metavar="OUT", help="Write the original and the small picture side by side.")
    ] = None,
) -> None:
    """Show one file as the pipeline sees it: header facts, flags, reason code, and the picture before and after.

    Exit code 4 when it would not go on to scoring. Shows no name and no identifier.
    """
    with console.status("loading"):
        from sarc_ray import storage
        from sarc_ray.inspection.display import print_look
        from sarc_ray.inspection.look import look_at
        from sarc_ray.inspection.picture import side_by_side, to_png
        from sarc_ray.inspection.request import settings_for

    settings = settings_for(bundle, preset)
    with console.status("reading"):
        look = look_at(storage.read_bytes(file), settings.preprocess, settings.limits, with_original=png is not None)
        if png is not None:
            storage.write_bytes(png, to_png(side_by_side(look)))
    print_look(console, look, settings.clinical_features)
    if png is not None:
        console.print(f"wrote {png}", highlight=False, soft_wrap=True)
    if look.reason:
        raise typer.Exit(code=exits.REFUSED)


@app.command(epilog="Example: sarc-ray check cohort/manifest.csv --config run.yaml")
def check(
    manifest: Annotated[str, typer.Argument(metavar="MANIFEST", help="A .csv or .parquet file, any fsspec URL.")],
    config: Annotated[
        str | None, typer.Option("--config", metavar="CONFIG", help="The run that will use it: checks what that needs.")
    ] = None,
    set_: SetOption = None,
) -> None:
    """Say what is missing, implausible or inconsistent in a manifest, and what it offers; reads no image.

    Exit code 2 when there are errors.
    """
    with console.status("loading"):
        from sarc_ray.checkup.display import print_checkup
        from sarc_ray.checkup.examine import examine
        from sarc_ray.run import load_run

    if config is None and set_:
        raise ConfigError("--set: changes a run's configuration; name it with --config")
    run = load_run(config, set_ or []) if config is not None else None
    checkup = examine(manifest, run.config if run is not None else None)
    print_checkup(console, checkup)
    if checkup.n_errors:
        raise typer.Exit(code=exits.USAGE)

"""Verbs that make a model: prepare, train, tune, distill."""

from __future__ import annotations

import functools
from typing import Annotated

import typer

from sarc_ray.cli.terminal import ConfigArgument, SetOption, console, load, run_stage
from sarc_ray.errors import ConfigError

app = typer.Typer()


@app.command(epilog="Example: sarc-ray prepare run.yaml")
def prepare(config: ConfigArgument, set_: SetOption = None) -> None:
    """Read the manifests, select and split patients, and turn their radiographs into small pictures."""
    from sarc_ray import pipeline

    run_stage(load(config, set_), "prepare", pipeline.prepare)


@app.command(epilog="Example: sarc-ray train run.yaml --set ensemble.members=5")
def train(config: ConfigArgument, set_: SetOption = None) -> None:
    """Train stage 1: the deep ensembles, members in parallel."""
    from sarc_ray import pipeline

    run_stage(load(config, set_), "train", pipeline.train)


@app.command(
    epilog="Examples: sarc-ray tune run.yaml --set stage2.trials_per_algorithm=50; "
    "sarc-ray tune --table train.csv --outcome died --to out"
)
def tune(
    config: Annotated[
        str | None,
        typer.Argument(metavar="CONFIG", help="The run's YAML; may be left out with --table.", show_default=False),
    ] = None,
    table: Annotated[
        str | None, typer.Option("--table", metavar="URL", help="Any table of features and a 0/1 outcome, instead.")
    ] = None,
    outcome: Annotated[str | None, typer.Option("--outcome", metavar="COLUMN", help="Its outcome.")] = None,
    to: Annotated[str | None, typer.Option("--to", metavar="URL", help="Folder for the model and the trials.")] = None,
    group: Annotated[
        str | None, typer.Option("--group", metavar="COLUMN", help="Whose row it is; without it, each its own.")
    ] = None,
    features: Annotated[
        str | None, typer.Option("--features", metavar="A,B,...", help="Columns to learn from; default all others.")
    ] = None,
    test: Annotated[
        str | None, typer.Option("--test", metavar="URL", help="A table on which every algorithm's best is scored.")
    ] = None,
    set_: SetOption = None,
) -> None:
    """Search and calibrate stage 2, and write the bundle; or do the same for any table of features."""
    with console.status("loading"):
        from sarc_ray import pipeline, table_tuning

    request = table_tuning.read_request(table, outcome, to, group=group, features=features, test=test)
    if request is not None:
        run = table_tuning.load_run_for(request, config, set_ or [])
        run_stage(run, "tune", functools.partial(table_tuning.tune_table, request))
        return
    if config is None:
        raise ConfigError("CONFIG: missing; name the run's YAML, or --table, --outcome and --to")
    run_stage(load(config, set_), "tune", pipeline.tune)


@app.command(epilog="Example: sarc-ray distill run.yaml --set distill.epochs=60")
def distill(config: ConfigArgument, set_: SetOption = None) -> None:
    """Teach one network what a tuned run's ensembles say, and write it as a bundle of its own: RUN/distilled.

    It scores with one pass instead of one for each member. The run's own bundle stays as it is.
    """
    with console.status("loading"):
        from sarc_ray import distilling

    run_stage(load(config, set_), "distill", distilling.distill)

"""Verbs of a whole run and its results: evaluate, report, run, demo, proof, sensitivity."""

from __future__ import annotations

from typing import Annotated

import typer

from sarc_ray import exits
from sarc_ray.cli.terminal import ConfigArgument, SetOption, console, load, run_stage, run_stages

app = typer.Typer()


@app.command(epilog="Example: sarc-ray evaluate run.yaml")
def evaluate(config: ConfigArgument, set_: SetOption = None) -> None:
    """Compare scores with labels: Table 2, agreement, calibration, uncertainty."""
    from sarc_ray import pipeline, screen

    run = load(config, set_)
    run_stage(run, "evaluate", pipeline.evaluate)
    screen.print_headline(console, run)


@app.command(epilog="Example: sarc-ray report run.yaml")
def report(config: ConfigArgument, set_: SetOption = None) -> None:
    """Draw an evaluated run as one HTML folder that opens from disk."""
    from sarc_ray import reporting
    from sarc_ray.report.html import PAGE

    run = load(config, set_)
    run_stage(run, "report", reporting.report)
    console.print(f"open {run.path('report', PAGE)} in a browser", highlight=False, soft_wrap=True)


@app.command(name="run", epilog="Example: sarc-ray run run.yaml")
def run_all(config: ConfigArgument, set_: SetOption = None) -> None:
    """Do all of the work in order: prepare, train, tune, score, evaluate, report."""
    from sarc_ray import screen

    run = load(config, set_)
    run_stages(run)
    screen.print_headline(console, run)


@app.command(epilog="Example: sarc-ray demo")
def demo(set_: SetOption = None) -> None:
    """The whole pipeline on simulated patients, from a local S3 server to a table of results."""
    from sarc_ray import demo as demo_module
    from sarc_ray import pipeline, screen

    run = load("demo", set_)
    with demo_module.prepared_run(run) as url, pipeline.engine(run):
        run_stage(run, "simulate", lambda run, tell: pipeline.simulate(run, url, tell))
        run_stages(run)
    screen.print_headline(console, run)
    screen.print_artefacts(console, run)


@app.command(epilog="Example: sarc-ray proof")
def proof(set_: SetOption = None) -> None:
    """Train on thousands of simulated patients and compare with the ideal predictor; an hour or so.

    Exit code 7 when a learning goal is missed.
    """
    from sarc_ray import pipeline, screen
    from sarc_ray import proof as proof_module

    run = load("proof", set_)
    with pipeline.engine(run):
        uri = proof_module.prepared_cohorts(run)
        run_stage(run, "simulate", lambda run, tell: pipeline.simulate(run, uri, tell))
        run_stages(run)
        study = proof_module.study_sized(run)
        run_stages(study)
    goals = proof_module.goals_table(run, study)
    screen.print_goals(console, goals)
    if not goals["met"].all():
        raise typer.Exit(exits.GOAL_MISSED)


@app.command(epilog="Example: sarc-ray sensitivity run.yaml --analysis over_60")
def sensitivity(
    config: ConfigArgument,
    analysis: Annotated[
        str, typer.Option("--analysis", metavar="NAME", help="over_60: the paper's, patients older than 60.")
    ] = "over_60",
    set_: SetOption = None,
) -> None:
    """Train again on some of the patients, and compare with the finished run on the same test patients by DeLong.

    Takes about as long as the run itself did; interrupted, it goes on where it was.
    """
    from sarc_ray import pipeline, screen
    from sarc_ray import sensitivity as sensitivity_module

    run = load(config, set_)
    other = sensitivity_module.analysis_run(run, analysis)
    with pipeline.engine(run):
        run_stages(other)
    screen.print_sensitivity(console, sensitivity_module.comparison(run, other, analysis))

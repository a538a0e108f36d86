"""Verbs of a whole run and its results: evaluate, report, run, demo, proof, sensitivity."""

from __future__ import annotations

import functools
from typing import Annotated

import typer

from sarc_ray import exits
from sarc_ray.cli.terminal import ConfigArgument, SetOption, console, load, run_stage, run_stages
from sarc_ray.errors import ConfigError

app = typer.Typer()


@app.command(
    epilog="Examples: sarc-ray evaluate run.yaml --plan plan.yaml; "
    "sarc-ray evaluate run.yaml --table manifest.csv --scores scores --to out"
)
def evaluate(
    config: Annotated[
        str | None,
        typer.Argument(metavar="CONFIG", help="The run's YAML; may be left out with --bundle.", show_default=False),
    ] = None,
    plan: Annotated[
        str | None, typer.Option("--plan", metavar="URL", help="What to evaluate, written before looking (YAML).")
    ] = None,
    table: Annotated[
        str | None, typer.Option("--table", metavar="URL", help="Another site's manifest with labels, instead.")
    ] = None,
    scores: Annotated[str | None, typer.Option("--scores", metavar="URL", help="The score table made of it.")] = None,
    to: Annotated[str | None, typer.Option("--to", metavar="URL", help="Folder for that site's results.")] = None,
    bundle: Annotated[
        str | None, typer.Option("--bundle", metavar="URL", help="Whose scores they are, where there is no run.")
    ] = None,
    label: Annotated[
        str | None, typer.Option("--label", metavar="COLUMN", help="0/1; default what the bundle predicts.")
    ] = None,
    set_: SetOption = None,
) -> None:
    """Compare scores with labels: Table 2, agreement, calibration, uncertainty, subgroups; of a run or another site.

    Another site is set beside the run's internal test set: case-mix, recalibration, transported predictive values.
    """
    with console.status("loading"):
        from sarc_ray import external_site, pipeline, screen

    overrides = [*(set_ or []), *([f"evaluation.plan={plan}"] if plan else [])]
    request = external_site.read_request(table, scores, to, bundle=bundle, label=label, config=config)
    if request is not None:
        run = external_site.load_model_run(request, config, overrides)
        run_stage(run, "evaluate", functools.partial(external_site.evaluate_site, request))
        screen.print_headline(console, external_site.site_run(request, run))
        return
    if config is None:
        raise ConfigError("CONFIG: missing; name the run's YAML, or --bundle, --table, --scores and --to")
    run = load(config, overrides)
    run_stage(run, "evaluate", pipeline.evaluate)
    screen.print_headline(console, run)


@app.command(epilog="Examples: sarc-ray report run.yaml; sarc-ray report run.yaml --verify")
def report(
    config: ConfigArgument,
    verify: Annotated[
        bool, typer.Option("--verify", help="Draw nothing: compute every number again and compare.")
    ] = False,
    set_: SetOption = None,
) -> None:
    """Draw an evaluated run as one HTML folder that opens from disk.

    With --verify, exit code 8 where a number or its lineage differs from what the report shows.
    """
    from sarc_ray import reporting
    from sarc_ray.report.html import PAGE

    run = load(config, set_)
    if verify:
        from sarc_ray import screen
        from sarc_ray.verifying import verify as verify_report

        with screen.stage_progress(console, "verify") as tell:
            verification = verify_report(run, tell)
        screen.print_verification(console, verification)
        if verification.differences:
            raise typer.Exit(exits.DIFFERS)
        return
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

"""The ``sarc-ray`` command. Everything heavy is imported inside the verbs, so that ``--help`` answers at once.

Exit codes: 0 done; 1 another error of ours; 2 wrong usage, configuration or manifest; 3 storage; 4 a table is locked
by another run; 5 training failed; 6 a bundle is damaged; 130 interrupted.
"""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from sarc_ray import errors

if TYPE_CHECKING:
    from sarc_ray.run import Run

app = typer.Typer(
    name="sarc-ray",
    help="SARC-CXR on Ray: a sarcopenia score from chest radiographs. Not a medical device.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
bundle_app = typer.Typer(help="Look at and verify bundles.", no_args_is_help=True)
app.add_typer(bundle_app, name="bundle")

console = Console()
error_console = Console(stderr=True)

EXIT_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (errors.TableLockedError, 4),
    (errors.StorageError, 3),
    (errors.ConfigError, 2),
    (errors.ManifestError, 2),
    (errors.SchemaVersionError, 2),
    (errors.TrainingError, 5),
    (errors.BundleError, 6),
    (errors.SarcRayError, 1),
)
_INTERRUPTED = 130

ConfigArgument = Annotated[
    str, typer.Argument(metavar="CONFIG", help="The run's YAML, or the name of a preset: paper, proof, demo.")
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key, e.g. --set fit.epochs=20.")
]


def main() -> None:
    """Run the command; turn our errors into one clean message and an exit code."""
    warnings.simplefilter("ignore")  # warnings of libraries mean nothing to the person at the terminal
    try:
        app()
    except errors.SarcRayError as error:
        error_console.print("[bold red]error:[/] ", end="")
        error_console.print(str(error), markup=False, highlight=False)
        sys.exit(next(code for kind, code in EXIT_CODES if isinstance(error, kind)))
    except KeyboardInterrupt:
        error_console.print("interrupted; what is finished is kept: run the same command again to go on")
        sys.exit(_INTERRUPTED)


@app.command(epilog="Example: sarc-ray simulate demo --to s3://bucket/cohort")
def simulate(
    config: ConfigArgument,
    to: Annotated[str, typer.Option("--to", metavar="URL", help="Folder or bucket to write to.")],
    set_: SetOption = None,
) -> None:
    """Write the built-in cohorts: simulated patients with radiographs and a known truth."""
    from sarc_ray import pipeline

    _run_stage(_load(config, set_), "simulate", lambda run, tell: pipeline.simulate(run, to, tell))


@app.command(epilog="Example: sarc-ray prepare run.yaml")
def prepare(config: ConfigArgument, set_: SetOption = None) -> None:
    """Read the manifests, select and split patients, and turn their radiographs into small pictures."""
    from sarc_ray import pipeline

    _run_stage(_load(config, set_), "prepare", pipeline.prepare)


@app.command(epilog="Example: sarc-ray train run.yaml --set ensemble.members=5")
def train(config: ConfigArgument, set_: SetOption = None) -> None:
    """Train stage 1: the deep ensembles, members in parallel."""
    from sarc_ray import pipeline

    _run_stage(_load(config, set_), "train", pipeline.train)


@app.command(epilog="Example: sarc-ray tune run.yaml --set stage2.trials_per_algorithm=50")
def tune(config: ConfigArgument, set_: SetOption = None) -> None:
    """Search and calibrate stage 2, and write the bundle."""
    from sarc_ray import pipeline

    _run_stage(_load(config, set_), "tune", pipeline.tune)


@app.command(epilog="Example: sarc-ray score run.yaml --dataset archive")
def score(
    config: ConfigArgument,
    dataset: Annotated[
        list[str] | None,
        typer.Option("--dataset", help="test_internal, test_external or archive; repeat for several; default all."),
    ] = None,
    set_: SetOption = None,
) -> None:
    """Score radiographs with the run's bundle: one outcome row per image."""
    from sarc_ray import pipeline

    run = _load(config, set_)
    with pipeline.engine(run):
        for name in dataset or _configured_datasets(run):
            _run_stage(run, f"score {name}", functools.partial(_score, name))


@app.command(epilog="Example: sarc-ray evaluate run.yaml")
def evaluate(config: ConfigArgument, set_: SetOption = None) -> None:
    """Compare scores with labels: Table 2, agreement, calibration, uncertainty."""
    from sarc_ray import pipeline, screen

    run = _load(config, set_)
    _run_stage(run, "evaluate", pipeline.evaluate)
    screen.print_headline(console, run)


@app.command(name="run", epilog="Example: sarc-ray run run.yaml")
def run_all(config: ConfigArgument, set_: SetOption = None) -> None:
    """Do all of the work in order: prepare, train, tune, score, evaluate."""
    from sarc_ray import screen

    run = _load(config, set_)
    _run_stages(run)
    screen.print_headline(console, run)


@app.command(epilog="Example: sarc-ray demo")
def demo(set_: SetOption = None) -> None:
    """The whole pipeline on simulated patients, from a local S3 server to a table of results."""
    from sarc_ray import demo as demo_module
    from sarc_ray import pipeline, screen

    run = _load("demo", set_)
    with demo_module.prepared_run(run) as url, pipeline.engine(run):
        _run_stage(run, "simulate", lambda run, tell: pipeline.simulate(run, url, tell))
        _run_stages(run)
    screen.print_headline(console, run)
    screen.print_artefacts(console, run)


@app.command(epilog="Example: sarc-ray key ~/.sarc-ray.key")
def key(path: Annotated[str, typer.Argument(help="File to write; an existing one is never replaced.")]) -> None:
    """Make a secret for patient and study keys."""
    from sarc_ray.privacy import create_key_file

    create_key_file(path)
    console.print(
        f"wrote {path}; keep it secret, and keep it: the same key makes the same patient keys", highlight=False
    )


@bundle_app.command("verify", epilog="Example: sarc-ray bundle verify runs/demo/bundle")
def bundle_verify(uri: Annotated[str, typer.Argument(metavar="URL", help="Folder of the bundle.")]) -> None:
    """Check every file of a bundle against its hash; runs no code from it."""
    from sarc_ray.bundle import verify_bundle

    verify_bundle(uri)
    console.print(f"{uri}: whole and unchanged", highlight=False)


def _run_stages(run: Run) -> None:
    """All verbs after the simulation, in order, on one engine."""
    from sarc_ray import pipeline

    with pipeline.engine(run):
        _run_stage(run, "prepare", pipeline.prepare)
        _run_stage(run, "train", pipeline.train)
        _run_stage(run, "tune", pipeline.tune)
        for name in _configured_datasets(run):
            _run_stage(run, f"score {name}", functools.partial(_score, name))
        _run_stage(run, "evaluate", pipeline.evaluate)


def _score(name: str, run: Run, tell: Any) -> dict[str, Any]:
    from sarc_ray import pipeline

    return pipeline.score(run, name, tell)


def _configured_datasets(run: Run) -> list[str]:
    data = run.config.data
    external = ["test_external"] if data.external else []
    return ["test_internal", *external, *(["archive"] if data.archive else [])]


def _load(config: str, set_: list[str] | None) -> Run:
    with console.status("loading"):
        from sarc_ray.run import load_run

        return load_run(config, set_ or [])


def _run_stage(run: Run, title: str, verb: Callable[[Run, Any], dict[str, Any]]) -> None:
    """Run a verb under a progress bar and say how it ended."""
    from sarc_ray.screen import stage_progress

    with stage_progress(console, title) as tell:
        record = verb(run, tell)
    tail = "unchanged since the last run" if record["skipped"] else f"{record['seconds']:.0f} s"
    facts = ", ".join(f"{name} {_short(value)}" for name, value in record["facts"].items())
    console.print(f"[bold]{title:20}[/] {tail}; {facts}", highlight=False)


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{name}={_short(item)}" for name, item in value.items())
    return f"{value:.3f}" if isinstance(value, float) else str(value)

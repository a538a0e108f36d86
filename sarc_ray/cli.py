"""The ``sarc-ray`` command. Everything heavy is imported inside the verbs, so that ``--help`` answers at once.

Exit codes stand in :mod:`sarc_ray.exits`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from sarc_ray import exits
from sarc_ray.errors import ConfigError

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
ConfigArgument = Annotated[
    str, typer.Argument(metavar="CONFIG", help="The run's YAML, or the name of a preset: paper, proof, demo.")
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key, e.g. --set fit.epochs=20.")
]


def main() -> None:
    """Run the command; our errors become one clean message and an exit code."""
    with exits.clean_exit():
        app()


@app.command(epilog="Example: sarc-ray simulate demo --to s3://bucket/cohort")
def simulate(
    config: ConfigArgument,
    to: Annotated[str, typer.Option("--to", metavar="URL", help="Folder or bucket to write to.")],
    set_: SetOption = None,
) -> None:
    """Write the built-in cohorts: simulated patients with radiographs and a known truth."""
    from sarc_ray import pipeline

    _run_stage(_load(config, set_), "simulate", lambda run, tell: pipeline.simulate(run, to, tell))


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
    _run_stage(run, "inventory", functools.partial(take_inventory, request))
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
        _run_stage(run, "tune", functools.partial(table_tuning.tune_table, request))
        return
    if config is None:
        raise ConfigError("CONFIG: missing; name the run's YAML, or --table, --outcome and --to")
    _run_stage(_load(config, set_), "tune", pipeline.tune)


@app.command(
    epilog="Examples: sarc-ray score run.yaml --dataset archive; "
    "sarc-ray score --bundle URL --manifest URL --to URL --set score.key_file=FILE"
)
def score(
    config: Annotated[
        str | None,
        typer.Argument(metavar="CONFIG", help="The run's YAML; may be left out with --bundle.", show_default=False),
    ] = None,
    dataset: Annotated[
        list[str] | None,
        typer.Option("--dataset", help="test_internal, test_external or archive; repeat for several; default all."),
    ] = None,
    bundle: Annotated[str | None, typer.Option("--bundle", metavar="URL", help="Any bundle, without its run.")] = None,
    manifest: Annotated[str | None, typer.Option("--manifest", metavar="URL", help="Any manifest to score.")] = None,
    to: Annotated[str | None, typer.Option("--to", metavar="URL", help="The score table to write.")] = None,
    retry: Annotated[
        bool, typer.Option("--retry", help="Touch only the rows of a finished table that the store failed on.")
    ] = False,
    set_: SetOption = None,
) -> None:
    """Score radiographs, one outcome row per image: a run's data sets, or any manifest with any bundle.

    Of a finished table of the same bundle, only what is new, changed or failed in the store is scored.
    """
    with console.status("loading"):
        from sarc_ray import pipeline
        from sarc_ray.scoring_request import load_run_for, read_request, score_request

    request = read_request(bundle, manifest, to)
    if request is not None:
        run = load_run_for(request, config, set_ or [])
        _run_stage(run, "score", functools.partial(score_request, request, retry=retry))
        return
    if config is None:
        raise ConfigError("CONFIG: missing; name the run's YAML, or --bundle, --manifest and --to")
    run = _load(config, set_)
    with pipeline.engine(run):
        for name in dataset or run.config.data.scored_datasets():
            _run_stage(run, f"score {name}", functools.partial(_score, name, retry=retry))


@app.command(epilog="Examples: sarc-ray explain --bundle URL chest.dcm --to out; same with manifest.csv or list.txt")
def explain(
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGE_OR_LIST...", help="DICOM objects, manifests, or lists (.txt).")
    ],
    bundle: Annotated[str, typer.Option("--bundle", metavar="URL", help="The model.")],
    to: Annotated[str, typer.Option("--to", metavar="URL", help="Folder for the pictures and explanations.csv.")],
    threads: Annotated[int, typer.Option("--threads", min=1, help="Of the networks, on a CPU.")] = 1,
) -> None:
    """Show where the networks look: an overlay per target and image, and the predictions as a table; starts no Ray.

    Exit code 4 when no image could be read.
    """
    with console.status("loading"):
        from sarc_ray import explaining, screen
        from sarc_ray.inspection.request import settings_for

    limits = settings_for(bundle, None).limits
    with screen.stage_progress(console, "explain") as tell:
        explained = explaining.explain(bundle, images, to, limits=limits, threads=threads, tell=tell)
    screen.print_explained(console, explained, to)
    if not explained.n_pictures:
        raise typer.Exit(code=exits.REFUSED)


@app.command(
    epilog="Examples: sarc-ray recalibrate --bundle URL --table sample.csv --to NEW; "
    "sarc-ray recalibrate --bundle URL --table manifest.csv --scores URL --to NEW; "
    "sarc-ray recalibrate --bundle URL --prevalence 0.08 --to NEW"
)
def recalibrate(
    bundle: Annotated[str, typer.Option("--bundle", metavar="URL", help="The parent; it stays as it is.")],
    to: Annotated[str, typer.Option("--to", metavar="URL", help="Folder of the new bundle.")],
    table: Annotated[
        str | None,
        typer.Option("--table", metavar="URL", help="Local sample: scores with labels, or a manifest with --scores."),
    ] = None,
    scores: Annotated[
        str | None, typer.Option("--scores", metavar="URL", help="Score table of the manifest in --table.")
    ] = None,
    label: Annotated[
        str | None,
        typer.Option("--label", metavar="COLUMN", help="0/1; default 'label', with --scores the bundle's outcome."),
    ] = None,
    prevalence: Annotated[
        float | None, typer.Option("--prevalence", metavar="SHARE", help="Re-base to it instead; needs no labels.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the bootstrap.")] = 0,
) -> None:
    """Put a bundle's scores right on a local sample, where that helps, or re-base them to another prevalence.

    The new bundle names its parent and flags the same patients. Exit code 4 when nothing helps: none is written.
    """
    with console.status("loading"):
        from sarc_ray.recalibrating import display, rewrite

    request = rewrite.RecalibrationRequest(
        bundle=bundle, to=to, table=table, scores=scores, label=label, prevalence=prevalence, seed=seed
    )
    with console.status("recalibrating"):
        done = rewrite.recalibrate(request)
    display.print_recalibrated(console, done, to)
    if done.model_id is None:
        raise typer.Exit(code=exits.REFUSED)


@app.command(epilog="Example: sarc-ray evaluate run.yaml")
def evaluate(config: ConfigArgument, set_: SetOption = None) -> None:
    """Compare scores with labels: Table 2, agreement, calibration, uncertainty."""
    from sarc_ray import pipeline, screen

    run = _load(config, set_)
    _run_stage(run, "evaluate", pipeline.evaluate)
    screen.print_headline(console, run)


@app.command(epilog="Example: sarc-ray report run.yaml")
def report(config: ConfigArgument, set_: SetOption = None) -> None:
    """Draw an evaluated run as one HTML folder that opens from disk."""
    from sarc_ray import reporting
    from sarc_ray.report.html import PAGE

    run = _load(config, set_)
    _run_stage(run, "report", reporting.report)
    console.print(f"open {run.path('report', PAGE)} in a browser", highlight=False, soft_wrap=True)


@app.command(name="run", epilog="Example: sarc-ray run run.yaml")
def run_all(config: ConfigArgument, set_: SetOption = None) -> None:
    """Do all of the work in order: prepare, train, tune, score, evaluate, report."""
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


@app.command(epilog="Example: sarc-ray proof")
def proof(set_: SetOption = None) -> None:
    """Train on thousands of simulated patients and compare with the ideal predictor; an hour or so.

    Exit code 7 when a learning goal is missed.
    """
    from sarc_ray import pipeline, screen
    from sarc_ray import proof as proof_module

    run = _load("proof", set_)
    with pipeline.engine(run):
        uri = proof_module.prepared_cohorts(run)
        _run_stage(run, "simulate", lambda run, tell: pipeline.simulate(run, uri, tell))
        _run_stages(run)
        study = proof_module.study_sized(run)
        _run_stages(study)
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

    run = _load(config, set_)
    other = sensitivity_module.analysis_run(run, analysis)
    with pipeline.engine(run):
        _run_stages(other)
    screen.print_sensitivity(console, sensitivity_module.comparison(run, other, analysis))


@app.command(epilog="Example: sarc-ray key ~/.sarc-ray.key")
def key(path: Annotated[str, typer.Argument(help="File to write; an existing one is never replaced.")]) -> None:
    """Make a secret for patient and study keys."""
    from sarc_ray.privacy import create_key_file

    create_key_file(path)
    console.print(
        f"wrote {path}; keep it secret, and keep it: the same key makes the same patient keys", highlight=False
    )


@app.command(epilog="Example: sarc-ray version")
def version() -> None:
    """Print the versions of what matters; put them into a report of an error."""
    from sarc_ray.versions import installed_versions

    for name, text in installed_versions().items():
        console.print(f"{name:24} {text}", highlight=False)


@bundle_app.command("verify", epilog="Example: sarc-ray bundle verify runs/demo/bundle")
def bundle_verify(uri: Annotated[str, typer.Argument(metavar="URL", help="Folder of the bundle.")]) -> None:
    """Check every file of a bundle against its hash; runs no code from it."""
    from sarc_ray.bundle import verify_bundle

    verify_bundle(uri)
    console.print(f"{uri}: whole and unchanged", highlight=False)


def _run_stages(run: Run) -> None:
    """All verbs after the simulation, in order, on one engine."""
    from sarc_ray import pipeline, reporting

    with pipeline.engine(run):
        _run_stage(run, "prepare", pipeline.prepare)
        _run_stage(run, "train", pipeline.train)
        _run_stage(run, "tune", pipeline.tune)
        for name in run.config.data.scored_datasets():
            _run_stage(run, f"score {name}", functools.partial(_score, name))
        _run_stage(run, "evaluate", pipeline.evaluate)
    _run_stage(run, "report", reporting.report)


def _score(name: str, run: Run, tell: Any, *, retry: bool = False) -> dict[str, Any]:
    from sarc_ray import pipeline

    return pipeline.score(run, name, tell, retry=retry)


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
    console.print(f"[bold]{title:20}[/] {tail}; {facts}", highlight=False, soft_wrap=True)


def _short(value: Any) -> str:
    """A fact for one line: counts in full, of a decision what was decided; the stage's record holds its reasons."""
    if isinstance(value, dict):
        decision = not any(isinstance(item, dict) for item in value.values()) and "kept" in value
        shown = {name: item for name, item in value.items() if not decision or name in ("method", "scale", "kept")}
        return " ".join(f"{name}={_short(item)}" for name, item in shown.items())
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3f}" if isinstance(value, float) else str(value)

"""Verbs that use a bundle or its scores: plan, score, summary, drift, explain, recalibrate."""

from __future__ import annotations

import functools
from enum import StrEnum
from typing import Annotated

import typer

from sarc_ray import exits
from sarc_ray.cli.terminal import SetOption, console, load, run_stage, score_dataset
from sarc_ray.errors import ConfigError

app = typer.Typer()


class PictureFormat(StrEnum):
    """What ``explain`` draws into."""

    PNG = "png"
    DICOM = "dicom"


@app.command(epilog="Example: sarc-ray plan --bundle URL --manifest URL --nodes 20 --set plan.price_per_node_hour=0.8")
def plan(
    bundle: Annotated[str, typer.Option("--bundle", metavar="URL", help="The model.")],
    manifest: Annotated[str, typer.Option("--manifest", metavar="URL", help="What is to be scored.")],
    config: Annotated[
        str | None,
        typer.Argument(
            metavar="CONFIG", help="The run's YAML, for engine and plan; may be left out.", show_default=False
        ),
    ] = None,
    nodes: Annotated[
        int | None, typer.Option("--nodes", min=1, help="Also estimate for so many nodes of the configured kind.")
    ] = None,
    to: Annotated[str | None, typer.Option("--to", metavar="URL", help="Write the plan as JSON, too.")] = None,
    set_: SetOption = None,
) -> None:
    """Say what scoring a manifest would come to: rows by reason, bytes, hours, cost, bottleneck; scores a sample only.

    Exit code 4 when no row can be scored.
    """
    with console.status("loading"):
        from sarc_ray import screen, storage
        from sarc_ray.planning.display import print_plan
        from sarc_ray.planning.plan import PlanRequest, load_run_for, make_plan
        from sarc_ray.planning.record import to_mapping

    request = PlanRequest(bundle=bundle, manifest=manifest, nodes=nodes)
    run = load_run_for(request, config, set_ or [])
    with screen.stage_progress(console, "plan") as tell:
        made = make_plan(request, run, tell)
    print_plan(console, made)
    if to is not None:
        storage.write_json(to, to_mapping(made))
        console.print(f"wrote {to}", highlight=False, soft_wrap=True)
    if not made.census.eligible and not made.census.undecided:
        raise typer.Exit(code=exits.REFUSED)


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
        from sarc_ray.scoring_request import load_run_for, read_request, score_request

    request = read_request(bundle, manifest, to)
    if request is not None:
        run = load_run_for(request, config, set_ or [])
        run_stage(run, "score", functools.partial(score_request, request, retry=retry))
        return
    if config is None:
        raise ConfigError("CONFIG: missing; name the run's YAML, or --bundle, --manifest and --to")
    run = load(config, set_)
    with console.status("loading"):  # much that a request does without
        from sarc_ray import pipeline
    with pipeline.engine(run):
        for name in dataset or run.config.data.scored_datasets():
            run_stage(run, f"score {name}", functools.partial(score_dataset, name, retry=retry))


@app.command(epilog="Example: sarc-ray summary s3://bucket/scores --to summary.csv")
def summary(
    table: Annotated[str, typer.Argument(metavar="TABLE", help="A finished score table, any fsspec URL.")],
    to: Annotated[str, typer.Option("--to", metavar="FILE", help="The summary to write: .csv or .parquet.")],
    set_: SetOption = None,
) -> None:
    """Count a scored population by sex, age band and site, for others: counts of fewer than 10 patients are left out.

    Counts from which one of these could be computed are left out too. Another limit: --set score.small_cells_below=5.
    """
    with console.status("loading"):
        from sarc_ray import population

    shown = population.write_summary(table, to, population.load_run_for(table, set_ or []))
    n_left_out = int(shown["suppressed"].sum())
    console.print(f"wrote {to}: {len(shown)} rows, {n_left_out} with counts left out", highlight=False, soft_wrap=True)


@app.command(
    epilog="Examples: sarc-ray drift URL --until 2025-06 --save-reference reference.json; "
    "sarc-ray drift URL --since 2025-07 --reference reference.json --to out"
)
def drift(
    table: Annotated[str, typer.Argument(metavar="TABLE", help="A finished score table, any fsspec URL.")],
    reference: Annotated[
        str | None, typer.Option("--reference", metavar="URL", help="Compare with it: a file kept earlier, or a table.")
    ] = None,
    save_reference: Annotated[
        str | None, typer.Option("--save-reference", metavar="FILE", help="Keep counts of this table: .json.")
    ] = None,
    to: Annotated[str | None, typer.Option("--to", metavar="URL", help="Folder for the comparison.")] = None,
    manifest: Annotated[
        str | None, typer.Option("--manifest", metavar="URL", help="Adds what an inventory knows of each image.")
    ] = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="MONTH", help="First month of TABLE: YYYY-MM.")
    ] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="MONTH", help="Last month of TABLE.")] = None,
    set_: SetOption = None,
) -> None:
    """Compare scores, uncertainties, gate and patients with a reference, by month, site and device; needs no labels.

    Exit code 9 when something has drifted, 4 when nothing could be judged; limits: --set drift.psi_drift=0.3.
    """
    with console.status("loading"):
        from sarc_ray import drifting

    request = drifting.DriftRequest(
        table=table,
        reference=reference,
        save_reference=save_reference,
        to=to,
        manifest=manifest,
        since=since,
        until=until,
    )
    run = drifting.load_run_for(request, set_ or [])
    with console.status("comparing"):
        watched = drifting.watch(request, run)
    drifting.print_watched(console, watched, request)
    if watched.drifted:
        raise typer.Exit(code=exits.DRIFTED)
    if watched.unjudged:
        raise typer.Exit(code=exits.REFUSED)


@app.command(epilog="Examples: sarc-ray explain --bundle URL chest.dcm --to out; same with manifest.csv or list.txt")
def explain(
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGE_OR_LIST...", help="DICOM objects, manifests, or lists (.txt).")
    ],
    bundle: Annotated[str, typer.Option("--bundle", metavar="URL", help="The model.")],
    to: Annotated[str, typer.Option("--to", metavar="URL", help="Folder for the pictures and explanations.csv.")],
    threads: Annotated[int, typer.Option("--threads", min=1, help="Of the networks, on a CPU.")] = 1,
    format_: Annotated[
        list[PictureFormat] | None,
        typer.Option("--format", help="Of the overlays; repeat for both. dicom: for the images' own archive."),
    ] = None,
) -> None:
    """Show where the networks look: an overlay per target and image, and the predictions as a table; starts no Ray.

    Overlays are PNG unless asked for otherwise. With --format dicom they carry the patient's own identifiers.
    Exit code 4 when no image could be read.
    """
    with console.status("loading"):
        from sarc_ray import explaining, screen
        from sarc_ray.inspection.request import settings_for

    limits = settings_for(bundle, None).limits
    formats = [str(name) for name in format_ or [PictureFormat.PNG]]
    with screen.stage_progress(console, "explain") as tell:
        explained = explaining.explain(bundle, images, to, limits=limits, threads=threads, formats=formats, tell=tell)
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

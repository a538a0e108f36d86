"""Small verbs: key, version, bundle verify."""

from __future__ import annotations

from typing import Annotated

import typer

from sarc_ray.cli.terminal import console

app = typer.Typer()
bundle_app = typer.Typer(help="Look at and verify bundles.", no_args_is_help=True)


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

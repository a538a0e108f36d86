"""The ``sarc-ray`` command. Everything heavy is imported inside the verbs, so that ``--help`` answers at once.

Each module holds the verbs of one kind of work. Exit codes stand in :mod:`sarc_ray.exits`.
"""

from __future__ import annotations

import typer

from sarc_ray import exits
from sarc_ray.cli import cohorts, exports, models, results, scores, tools

app = typer.Typer(
    name="sarc-ray",
    help="SARC-CXR on Ray: a sarcopenia score from chest radiographs. Not a medical device.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
# A group without a name puts its verbs beside the others; help lists them in this order.
for _group in (cohorts.app, models.app, scores.app, results.app, tools.app):
    app.add_typer(_group)
app.add_typer(exports.app, name="export")
app.add_typer(tools.bundle_app, name="bundle")


def main() -> None:
    """Run the command; our errors become one clean message and an exit code."""
    with exits.clean_exit():
        app()

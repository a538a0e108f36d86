"""The pages: one HTML file for the report and one for TRIPOD+AI, with style, script, figures and numbers beside them.

The folder opens from disk without a network: every address in it is relative to it. The script only sorts tables,
enlarges figures and moves the threshold explorer; without it the pages say the same.
"""

from __future__ import annotations

import importlib.resources
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

import jinja2
import pandas as pd

from sarc_ray import storage
from sarc_ray.report import words
from sarc_ray.report.content import Absent, Archive, Report
from sarc_ray.report.sections import Section, grouped, sections
from sarc_ray.report.style import Figure
from sarc_ray.report.tabulate import Table
from sarc_ray.report.tripod import tripod_view

PAGE = "index.html"
TRIPOD_PAGE = "tripod-ai.html"
# Figures and numbers, as a manuscript wants them; its contents are listed in one table.
MANUSCRIPT = "manuscript"
_CONTENTS = "contents.csv"
ASSETS = "assets"
_STYLE, _SCRIPT = "report.css", "report.js"


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """A figure of the first screen."""

    title: str
    value: str
    notes: tuple[str, ...]


def write_report(uri: str, report: Report) -> dict[str, int]:
    """Draw the report and write its folder; what lay there before is removed, the page comes last.

    Args:
        uri: folder under any fsspec URL.
        report: what to show.

    Returns:
        Number of figures and tables, and of parts that could not be shown (``absent``).

    Raises:
        StorageError: the folder cannot be written.
    """
    parts, tripod = sections(report), tripod_view(report)
    shown = [part for section in parts for part in section.content]
    files = {f"{ASSETS}/{name}": _template(name).encode("utf-8") for name in (_STYLE, _SCRIPT)}
    files |= manuscript_files([*(part for part in shown if isinstance(part, Figure | Table)), tripod], report)
    pages = {TRIPOD_PAGE: render_tripod(report, tripod), PAGE: render(report, parts)}
    storage.remove_tree(uri)
    for path, data in files.items():
        storage.write_bytes(storage.join(uri, path), data)
    for path, page in pages.items():
        storage.write_text(storage.join(uri, path), page)
    return {
        "figures": sum(isinstance(part, Figure) for part in shown),
        "tables": sum(isinstance(part, Table) for part in shown) + 1,
        "absent": sum(isinstance(part, Absent) for part in shown),
    }


def manuscript_files(parts: list[Figure | Table], report: Report) -> dict[str, bytes]:
    """Pictures and numbers of figures and tables, each with the lineage's hash, and the list of them all."""
    files: dict[str, bytes] = {}
    contents = []
    for part in parts:
        said = part.caption if isinstance(part, Figure) else part.note
        if isinstance(part, Figure):
            files[f"{MANUSCRIPT}/{part.name}.svg"] = _marked(part, report.lineage.hash)
            contents.append({"file": f"{part.name}.svg", "kind": "figure", "title": part.title, "text": said})
        files[f"{MANUSCRIPT}/{part.name}.csv"] = _csv(part.numbers, report.lineage.hash)
        contents.append({"file": f"{part.name}.csv", "kind": "numbers", "title": part.title, "text": said})
    files[f"{MANUSCRIPT}/{_CONTENTS}"] = _csv(pd.DataFrame(contents), report.lineage.hash)
    return files


def render(report: Report, parts: tuple[Section, ...]) -> str:
    """The report's HTML."""
    shown = [(section, grouped(section)) for section in parts]
    return _rendered("index.html.j2", report, sections=shown, cards=cards(report))


def render_tripod(report: Report, table: Table) -> str:
    """The HTML of the page of TRIPOD+AI."""
    return _rendered("tripod.html.j2", report, table=table)


def _rendered(name: str, report: Report, **values: Any) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_template),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    places = {"assets": ASSETS, "style": _STYLE, "script": _SCRIPT, "manuscript": MANUSCRIPT, "contents": _CONTENTS}
    pages = {"page": PAGE, "tripod_page": TRIPOD_PAGE}
    return environment.get_template(name).render(report=report, **places, **pages, **values)


def cards(report: Report) -> list[Card]:
    """The first screen's figures: discrimination, the first target's concordance, the archive."""
    found = []
    first = report.targets[0]
    for test_set in report.test_sets:
        row = report.results.row(test_set.name, "auroc")
        if row is not None:
            ideal = report.results.row(test_set.name, "auroc", score="ideal") if report.simulated else None
            found.append(_card(f"AUROC, {test_set.label.lower()}", row, ideal))
    for test_set in report.test_sets:
        row = report.results.row(test_set.name, "ccc", score=f"{first.name}_mu", target=first.name)
        if row is not None:
            ideal = report.results.row(test_set.name, "ccc", score="ideal", target=first.name)
            found.append(
                _card(
                    f"CCC of {first.label.lower()}, {test_set.label.lower()}", row, ideal if report.simulated else None
                )
            )
    if isinstance(report.archive, Archive):
        counts = report.archive.counts
        scored = int(counts.loc[counts["outcome"] == "scored", "n"].sum())
        notes = (f"of {report.archive.n_rows:,} radiographs", f"{report.archive.n_flagged:,} flagged")
        found.append(Card(title="Scored in the archive", value=f"{scored:,}", notes=notes))
    return found


def _card(title: str, row: Mapping[str, float], ideal: Mapping[str, float] | None) -> Card:
    inside = words.interval(row)
    ideal_note = "" if ideal is None else f"ideal {words.number(ideal['estimate'])}"
    return Card(title=title, value=words.number(row["estimate"]), notes=(inside, ideal_note))


def _marked(figure: Figure, lineage: str) -> bytes:
    """The picture with its title, caption and lineage in it, for whoever meets it alone."""
    text = f"<title>{escape(figure.title)}</title>\n <desc>{escape(figure.caption)} Lineage {lineage}.</desc>"
    return re.sub(rb"(<svg\b[^>]*>)", lambda found: found[1] + b"\n " + text.encode("utf-8"), figure.svg, count=1)


def _csv(numbers: pd.DataFrame, lineage: str) -> bytes:
    return numbers.assign(lineage=lineage).to_csv(index=False, lineterminator="\n").encode("utf-8")


def _template(name: str) -> str:
    return importlib.resources.files("sarc_ray.report").joinpath("templates", name).read_text(encoding="utf-8")

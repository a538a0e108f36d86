"""The page: sections from the parts of a report, one HTML file with its style, figures and numbers beside it.

The folder opens from disk: every address in it is relative to it, and no script runs.
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import jinja2

from sarc_ray import storage
from sarc_ray.report import agreement, decisions, figures, flow, heat, importance, ladder, tabulate, words
from sarc_ray.report.content import Absent, Archive, Report
from sarc_ray.report.explanations import shap_figure
from sarc_ray.report.style import Figure
from sarc_ray.report.tabulate import Table

PAGE = "index.html"
_ASSETS = "assets"
_STYLE = "report.css"
_Part = TypeVar("_Part", bound=Table | Figure | Absent)


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """A part of the page. ``content`` holds what is shown in order; figures that follow each other share a row."""

    anchor: str
    title: str
    text: str
    content: tuple[Table | Figure | Absent, ...]


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
    parts = sections(report)
    files: dict[str, bytes] = {f"{_ASSETS}/{_STYLE}": _template(_STYLE).encode("utf-8")}
    shown = [part for section in parts for part in section.content]
    for part in shown:
        if isinstance(part, Figure):
            files[f"{_ASSETS}/{part.name}.svg"] = part.svg
        if isinstance(part, Figure | Table):
            files[f"{_ASSETS}/{part.name}.csv"] = part.numbers.to_csv(index=False, lineterminator="\n").encode("utf-8")
    page = render(report, parts)
    storage.remove_tree(uri)
    for path, data in files.items():
        storage.write_bytes(storage.join(uri, path), data)
    storage.write_text(storage.join(uri, PAGE), page)
    return {
        "figures": sum(isinstance(part, Figure) for part in shown),
        "tables": sum(isinstance(part, Table) for part in shown),
        "absent": sum(isinstance(part, Absent) for part in shown),
    }


def render(report: Report, parts: tuple[Section, ...]) -> str:
    """The page's HTML."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_template),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("index.html.j2").render(
        report=report,
        sections=[(section, grouped(section)) for section in parts],
        cards=cards(report),
        assets=_ASSETS,
        style=_STYLE,
    )


def sections(report: Report) -> tuple[Section, ...]:
    """All sections in order; a part that cannot be shown stands there as :class:`Absent`."""
    return (
        Section(
            anchor="flow",
            title="Study flow",
            text="Figure 1 of the paper. What each criterion left and took away.",
            content=(
                *(flow.flow_figure(cohort) for cohort in report.cohorts),
                *_missing_external(report, {cohort.name for cohort in report.cohorts}, "external"),
            ),
        ),
        Section(
            anchor="patients",
            title="Patients",
            text="",
            content=(
                tabulate.table_one_view(report),
                *_missing_external(report, {test_set.name for test_set in report.test_sets}, "test_external"),
            ),
        ),
        _agreement_section(report),
        _uncertainty_section(report),
        _discrimination_section(report),
        _calibration_section(report),
        _search_section(report),
        _decisions_section(report),
        _ladder_section(report),
        _reasons_section(report),
        _grad_cam_section(report),
        _archive_section(report),
        Section(
            anchor="lineage",
            title="Lineage",
            text="Where these figures come from. The resolved configuration makes the run again.",
            content=(tabulate.stages_view(report),),
        ),
    )


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


def grouped(section: Section) -> list[list[Table | Figure | Absent]]:
    """Runs of figures and absent parts share a group (a grid); each table is a group of its own."""
    groups: list[list[Table | Figure | Absent]] = []
    for part in section.content:
        if groups and not isinstance(part, Table) and not isinstance(groups[-1][-1], Table):
            groups[-1].append(part)
        else:
            groups.append([part])
    return groups


def _card(title: str, row: Mapping[str, float], ideal: Mapping[str, float] | None) -> Card:
    inside = words.interval(row)
    ideal_note = "" if ideal is None else f"ideal {words.number(ideal['estimate'])}"
    return Card(title=title, value=words.number(row["estimate"]), notes=(inside, ideal_note))


def _agreement_section(report: Report) -> Section:
    drawn = [
        draw(report, test_set, target)
        for target in report.targets
        for draw in (agreement.concordance_figure, agreement.bland_altman_figure)
        for test_set in report.test_sets
    ]
    return Section(
        anchor="agreement",
        title="Agreement of predicted and measured values",
        text="Figure 3 (upper panel) and Figure S1 of the paper: stage 1, from the radiograph alone.",
        content=(tabulate.targets_view(report), *_once(drawn)),
    )


def _uncertainty_section(report: Report) -> Section:
    drawn = [
        agreement.spikes_figure(report, test_set, target) for target in report.targets for test_set in report.test_sets
    ]
    drawn += [agreement.risk_coverage_figure(report, target) for target in report.targets]
    drawn += [
        agreement.subgroup_risk_coverage_figure(report, test_set, target)
        for target in report.targets
        for test_set in report.test_sets
    ]
    return Section(
        anchor="uncertainty",
        title="Uncertainty of the predictions",
        text=(
            "Figure 3 (lower panel) of the paper. A wide spike says that the networks are not sure of this patient; "
            "the curves below it, whether they err less where they are sure."
        ),
        content=tuple(_once(drawn)),
    )


def _discrimination_section(report: Report) -> Section:
    curves = [figures.roc_figure(report, test_set) for test_set in report.test_sets]
    return Section(
        anchor="discrimination",
        title="Discrimination",
        text="Table 2 and Figure 6 of the paper: the score, and SARC-F where it was recorded.",
        content=(tabulate.table_two_view(report), *curves),
    )


def _calibration_section(report: Report) -> Section:
    return Section(
        anchor="calibration",
        title="Calibration",
        text="Figure S3 of the paper: does a score of 0.2 mean that 20 in 100 such patients have the outcome?",
        content=tuple(figures.calibration_figure(report, test_set) for test_set in report.test_sets),
    )


def _search_section(report: Report) -> Section:
    shown = (decisions.algorithms_view(report), decisions.nested_view(report))
    return Section(
        anchor="algorithms",
        title="Algorithms",
        text="Table S1 of the paper: the best trial of each algorithm, and which became the model.",
        content=tuple(part for part in shown if part is not None),
    )


def _decisions_section(report: Report) -> Section:
    return Section(
        anchor="decisions",
        title="Calibration and threshold in force",
        text="Both are decided on out-of-fold scores of the training patients.",
        content=(decisions.calibration_view(report), decisions.thresholds_view(report)),
    )


def _ladder_section(report: Report) -> Section:
    shown = (ladder.ladder_figure(report), ladder.ladder_view(report))
    return Section(
        anchor="ladder",
        title="What each part brings",
        text=(
            "Not in the paper: how well the questionnaire does, how well what is known without a radiograph, and "
            "what the predictions and their uncertainties add to it."
        ),
        content=tuple(part for part in shown if part is not None),
    )


def _reasons_section(report: Report) -> Section:
    shown = (
        shap_figure(report),
        importance.importance_figure(report),
        importance.importance_view(report),
        importance.dependence_figure(report),
        importance.dependence_view(report),
    )
    return Section(
        anchor="shap",
        title="What the score uses",
        text="SHAP is Figure 5 of the paper. Associations that the model uses, not causes.",
        content=tuple(_once([part for part in shown if part is not None])),
    )


def _grad_cam_section(report: Report) -> Section:
    shown = (heat.grad_cam_figure(report), *heat.missing_examples(report), heat.examples_view(report))
    return Section(
        anchor="grad-cam",
        title="Where the networks look",
        text=(
            "Figure 4 of the paper: Grad-CAM of women and men with and without the outcome. Each is the patient of the "
            "internal test set with the median score of the group. A heat map shows what moves the prediction, not why."
        ),
        content=tuple(part for part in shown if part is not None),
    )


def _archive_section(report: Report) -> Section:
    text = "Every row of the archive's manifest has exactly one outcome: scored, abstained or rejected."
    content: tuple[Table | Absent, ...]
    if isinstance(report.archive, Absent):
        content = (report.archive,)
    else:
        content = (tabulate.archive_view(report.archive),)
        counts = report.archive.counts
        scored = int(counts.loc[counts["outcome"] == "scored", "n"].sum())
        share = words.percent(report.archive.n_flagged, scored)
        text += f" Of {scored:,} scored rows {report.archive.n_flagged:,} ({share}) are flagged."
    return Section(anchor="archive", title="The archive", text=text, content=content)


def _missing_external(report: Report, present: set[str], name: str) -> tuple[Absent, ...]:
    if name in present:
        return ()
    return (Absent(reason="No external test set: the run's configuration names none (data.external)."),)


def _once(parts: Sequence[_Part]) -> list[_Part]:
    """The parts without repeated reasons: two figures of one target are absent for the same one."""
    reasons: set[str] = set()
    kept: list[_Part] = []
    for part in parts:
        if isinstance(part, Absent):
            if part.reason in reasons:
                continue
            reasons.add(part.reason)
        kept.append(part)
    return kept


def _template(name: str) -> str:
    return importlib.resources.files("sarc_ray.report").joinpath("templates", name).read_text(encoding="utf-8")

"""The page's sections in order: which tables and figures stand where, and what is said above them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from sarc_ray.report import (
    agreement,
    decisions,
    external,
    figures,
    flow,
    forest,
    heat,
    importance,
    ladder,
    retrained,
    screening,
    tabulate,
    words,
)
from sarc_ray.report.content import Absent, Report
from sarc_ray.report.explanations import shap_figure
from sarc_ray.report.explorer import Explorer, explorer, explorer_view
from sarc_ray.report.style import Figure
from sarc_ray.report.tabulate import Table

Part = Table | Figure | Explorer | Absent
_Part = TypeVar("_Part", bound=Part)
_ALONE = (Table, Explorer)


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """A part of the page. ``content`` holds what is shown in order; figures that follow each other share a row."""

    anchor: str
    title: str
    text: str
    content: tuple[Part, ...]


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
        _external_section(report),
        _usefulness_section(report),
        _subgroups_section(report),
        _retrained_section(report),
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


def grouped(section: Section) -> list[list[Part]]:
    """Runs of figures and absent parts share a group (a grid); each table and the explorer is a group of its own."""
    groups: list[list[Part]] = []
    for part in section.content:
        if groups and not isinstance(part, _ALONE) and not isinstance(groups[-1][-1], _ALONE):
            groups[-1].append(part)
        else:
            groups.append([part])
    return groups


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
    drawn = [
        draw(report, test_set)
        for draw in (figures.roc_figure, screening.precision_recall_figure, screening.distribution_figure)
        for test_set in report.test_sets
    ]
    return Section(
        anchor="discrimination",
        title="Discrimination",
        text=(
            "Table 2 and Figure 6 of the paper: the score, and SARC-F where it was recorded. Beyond it precision "
            "against recall, and how the scores are spread."
        ),
        content=(tabulate.table_two_view(report), *_once(drawn)),
    )


def _subgroups_section(report: Report) -> Section:
    shown = (*(forest.forest_figure(report, test_set) for test_set in report.test_sets), forest.subgroups_view(report))
    return Section(
        anchor="subgroups",
        title="Subgroups",
        text="Not in the paper: whether the score serves everybody alike.",
        content=tuple(_once([part for part in shown if part is not None])),
    )


def _retrained_section(report: Report) -> Section:
    return Section(
        anchor="sensitivity",
        title="Sensitivity analyses",
        text="Figure S2 of the paper: a model that learned from some of the patients, tried on the same test patients.",
        content=(*retrained.retrained_figures(report), *retrained.retrained_views(report)),
    )


def _external_section(report: Report) -> Section:
    shown = (external.recalibration_view(report), external.case_mix_view(report))
    return Section(
        anchor="external",
        title="External validation",
        text="Not in the paper: what would put the scores right elsewhere, and how other those patients are.",
        content=tuple(part for part in shown if part is not None),
    )


def _usefulness_section(report: Report) -> Section:
    """Decision curves, and the explorer with the table of its named thresholds."""
    curves = [screening.decision_curve_figure(report, test_set) for test_set in report.test_sets]
    table = explorer_view(report)
    return Section(
        anchor="usefulness",
        title="What a threshold would do",
        text=(
            "Not in the paper: whom to test further. The explorer recomputes everything for any threshold and any "
            "prevalence; the decision curves say at which thresholds the score is worth more than testing all or none."
        ),
        content=(explorer(report), *((table,) if table is not None else ()), *_once(curves)),
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

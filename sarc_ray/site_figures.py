"""Tables and figures of another site's patients, drawn as the report draws those of a run's own test sets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from sarc_ray import reporting
from sarc_ray.bundle import BundleManifest
from sarc_ray.cohort.definitions import outcome_name
from sarc_ray.cohort.selection import FlowStep
from sarc_ray.evaluation.plan import EvaluationPlan
from sarc_ray.evaluation.table_one import table_one
from sarc_ray.report.content import Absent, Cohort, Lineage, Report, Results, TestSet
from sarc_ray.run import Run

if TYPE_CHECKING:  # matplotlib is slow to import
    from sarc_ray.report.style import Figure
    from sarc_ray.report.tabulate import Table

LABEL = "Site"
_NOT_HERE = Absent(reason="The run's own report has it.")


def site_content(
    run: Run,
    plan: EvaluationPlan,
    manifest: BundleManifest,
    *,
    results: pd.DataFrame,
    frame: pd.DataFrame,
    flow: tuple[FlowStep, ...],
    lineage: str,
) -> Report:
    """What there is to draw of a site; all that is of the model and not of these patients is left to the run's report.

    Args:
        run: as :func:`sarc_ray.external_site.site_run` gives it.
        plan: that made the results.
        manifest: of the bundle that made the scores.
        results: of one data set, with a row for each figure that the plan left out.
        frame: labels beside scores.
        flow: of the selection.
        lineage: hash of all that decides the figures.
    """
    name = str(results["dataset"].iloc[0])
    nothing = pd.DataFrame(columns=["stage", "fingerprint", "seconds", "facts"])
    return Report(
        title=run.config.run.name,
        run_id=str(results["run_id"].iloc[0]),
        simulated=False,
        outcome=outcome_name(run.config.outcome).replace("_", " "),
        threshold=manifest.threshold,
        interval_level=plan.config.interval_level,
        confidence_level=plan.config.confidence_level,
        evaluation=plan.config,
        targets=run.config.targets,
        clinical_features=run.config.clinical_features,
        training_scale={},
        cohorts=(Cohort(name=name, label=LABEL, flow=flow, parts={}),),
        test_sets=(TestSet(name=name, label=LABEL, frame=frame),),
        table_one={LABEL: table_one(frame)},
        results=Results(table=results),
        operating=reporting.operating_of(manifest),
        search=_NOT_HERE,
        ladder=_NOT_HERE,
        retrained=_NOT_HERE,
        shap=_NOT_HERE,
        importance=_NOT_HERE,
        dependence=_NOT_HERE,
        examples=_NOT_HERE,
        archive=_NOT_HERE,
        lineage=Lineage(hash=lineage, facts={}, stages=nothing, configuration="", settings={}),
    )


def site_files(report: Report) -> dict[str, bytes]:
    """Figures (SVG) and numbers (CSV) by path, each with the lineage's hash, and the list of them all."""
    from sarc_ray.report.html import manuscript_files
    from sarc_ray.report.style import Figure
    from sarc_ray.report.tabulate import Table

    return manuscript_files([part for part in _drawn(report) if isinstance(part, Figure | Table)], report)


def _drawn(report: Report) -> list[Figure | Table | Absent | None]:
    """In the order of the report's sections."""
    from sarc_ray.report import agreement, explorer, external, figures, flow, forest, screening, tabulate

    (test_set,) = report.test_sets
    of_scores = (
        figures.roc_figure,
        screening.precision_recall_figure,
        screening.distribution_figure,
        figures.calibration_figure,
        screening.decision_curve_figure,
        forest.forest_figure,
    )
    of_targets = (agreement.concordance_figure, agreement.bland_altman_figure)
    return [
        *(flow.flow_figure(cohort) for cohort in report.cohorts),
        tabulate.table_one_view(report),
        tabulate.targets_view(report),
        *(draw(report, test_set, target) for target in report.targets for draw in of_targets),
        *(agreement.risk_coverage_figure(report, target) for target in report.targets),
        tabulate.table_two_view(report),
        *(draw(report, test_set) for draw in of_scores),
        external.recalibration_view(report),
        external.case_mix_view(report),
        explorer.explorer_view(report),
        forest.subgroups_view(report),
    ]

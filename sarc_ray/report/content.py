"""What a report is made of, as plain data: nothing here knows where a run keeps its files.

A part that cannot be shown is an :class:`Absent` with the reason, which the page prints in its place.
N patients, F features, H rows and W columns of a picture.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from sarc_ray.cohort.schema import TargetConfig
from sarc_ray.cohort.selection import FlowStep
from sarc_ray.evaluation.plan import EvaluationConfig

Float = npt.NDArray[np.float64]
ALL_ROWS = "all"


@dataclass(frozen=True, kw_only=True, slots=True)
class Absent:
    """A part of the report that is not there, and why, as a sentence for readers."""

    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Cohort:
    """How a cohort was selected.

    Attributes:
        name: ``derivation`` or ``external``.
        label: for people.
        flow: what is left after each criterion, and what it took away; the first step is the screening.
        parts: what the selected patients were divided into, label to number of patients.
    """

    name: str
    label: str
    flow: tuple[FlowStep, ...]
    parts: Mapping[str, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class TestSet:
    """A test set: labels beside scores.

    Attributes:
        name: as in the results table.
        label: for people.
        frame: one row per image: ``outcome`` (0, 1 or missing), ``score`` (missing where not scored), optionally
            ``sarc_f``, and per target ``<t>`` (measured or missing), ``<t>_mu``, ``<t>_sigma``; subgroups' columns.
    """

    __test__ = False  # not a test, whatever pytest thinks of its name

    name: str
    label: str
    frame: pd.DataFrame


@dataclass(frozen=True, kw_only=True, slots=True)
class ShapValues:
    """SHAP values of stage 2.

    Attributes:
        values_NF: what each feature adds to a patient's raw score.
        features: the features' own values, same shape, columns named.
        label: of the axis; names the scale.
        patients: which patients these are, for the caption.
    """

    values_NF: Float
    features: pd.DataFrame
    label: str
    patients: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Importance:
    """Permutation importance of stage 2 on patients that it never saw.

    Attributes:
        table: ``feature, auroc_drop, auroc_drop_sd``, largest drop first.
        auroc: with all features in place.
        n_repeats: how often each feature was dealt anew.
        patients: which patients these are, for the caption.
    """

    table: pd.DataFrame
    auroc: float
    n_repeats: int
    patients: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Dependence:
    """Partial dependence of the score on each target's prediction and its uncertainty.

    Attributes:
        table: ``feature, percentile, value, score``, feature by feature.
        mean_score: of the same patients as they are.
        patients: which patients these are, for the caption.
    """

    table: pd.DataFrame
    mean_score: float
    patients: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Operating:
    """What the bundle decided about calibration and threshold.

    Attributes:
        calibration: ``method``, ``kept``, ``why``, ``brier``, ``brier_calibrated``, ``ici``, ``ici_calibrated``.
        said: which way it went, as a sentence without its full stop.
        points: one row per rule: ``rule``, ``aim``, ``said`` (the rule in words), ``threshold``, ``sensitivity``,
            ``specificity``, ``ppv``, ``npv``, ``f1``, ``alerts_per_10000``, ``in_force``.
    """

    calibration: Mapping[str, Any]
    said: str
    points: pd.DataFrame


@dataclass(frozen=True, kw_only=True, slots=True)
class Search:
    """What came of the search of stage 2.

    Attributes:
        algorithms: table of :mod:`sarc_ray.evaluation.algorithm_table`.
        choice: ``cross_validation`` or ``internal_test_as_paper``.
        by_the_clock: the search was limited in computing time, so that its choice depends on the machine.
        nested: one row per outer fold: ``algorithm``, ``cv_auroc``, ``auroc``; None where it was not asked for.
    """

    algorithms: pd.DataFrame
    choice: str
    by_the_clock: bool
    nested: pd.DataFrame | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """One patient's picture with a heat map per target, or why there is none.

    Attributes:
        sex: ``F`` or ``M``.
        outcome: 0 or 1.
        image_HW: the preprocessed picture, uint8.
        heat_HW: heat map in [0, 1], by target: mean over the members.
        disagreement_HW: standard deviation of the members' heat maps, in [0, 0.5], by target.
        predicted: mean and standard deviation, by target.
        score: calibrated probability of the outcome; NaN where there is no such patient.
        absent: why the picture is missing; empty where it is there.
    """

    sex: str
    outcome: int
    image_HW: npt.NDArray[np.uint8] | None
    heat_HW: Mapping[str, npt.NDArray[np.float32]]
    disagreement_HW: Mapping[str, npt.NDArray[np.float32]]
    predicted: Mapping[str, tuple[float, float]]
    score: float
    absent: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Archive:
    """What became of an archive's rows.

    Attributes:
        counts: ``outcome, reason, retryable, n``.
        n_rows: rows that the sealed table says it holds: those of the manifest.
        n_flagged: scored rows at or above the threshold.
    """

    counts: pd.DataFrame
    n_rows: int
    n_flagged: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Retrained:
    """A sensitivity analysis: a model that learned from some of the patients beside the one that learned from all.

    Attributes:
        name: of the analysis.
        label: in words.
        table: of :mod:`sarc_ray.evaluation.sensitivity`, one row per test set.
        scores: by test set the patients who have both: ``outcome, score_all, score_analysis``; without a test set
            whose scores are away.
    """

    name: str
    label: str
    table: pd.DataFrame
    scores: Mapping[str, pd.DataFrame]


@dataclass(frozen=True, kw_only=True, slots=True)
class Lineage:
    """Where the report comes from.

    Attributes:
        hash: short hash of all that decides the report's figures; it stands in every figure and every CSV file.
        facts: name to value: run, model, plan, versions.
        stages: ``stage, fingerprint, seconds, facts``.
        configuration: the resolved configuration as YAML.
        settings: the same as plain mappings.
    """

    hash: str
    facts: Mapping[str, str]
    stages: pd.DataFrame
    configuration: str
    settings: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Results:
    """Look-ups in a results table (``sarc_ray.evaluation``)."""

    table: pd.DataFrame

    def row(
        self, dataset: str, metric: str, *, score: str = "score", comparator: str = "", target: str | None = None
    ) -> Mapping[str, Any] | None:
        """The row of a metric on all patients of a data set, or None.

        Args:
            dataset: name in the table.
            metric: name in the table.
            score: ``score``, ``sarc_f``, ``ideal`` or ``<t>_mu``.
            comparator: as in the table.
            target: the ``outcome`` column where ``score`` alone does not say it (``ideal``); None for the outcome.
        """
        table = self.table
        rows = table[
            (table["dataset"] == dataset)
            & (table["metric"] == metric)
            & (table["score"] == score)
            & (table["comparator"] == comparator)
            & (table["subgroup"] == ALL_ROWS)
        ]
        rows = rows[rows["outcome"] == (self.outcome if target is None else target)]
        return None if rows.empty else {str(name): value for name, value in rows.iloc[0].items()}

    @property
    def outcome(self) -> str:
        """The outcome's name in the table."""
        names = self.table.loc[self.table["score"] == "score", "outcome"]
        return "" if names.empty else str(names.iloc[0])


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """Everything that one report shows.

    Attributes:
        title: the run's name.
        run_id: names the run in its tables.
        simulated: the patients were simulated, and the results hold the ideal predictor's figures.
        outcome: what stage 2 predicts, in words.
        threshold: scores at or above it are flagged.
        interval_level: of the predictive intervals whose coverage is reported.
        confidence_level: of the confidence intervals.
        evaluation: the settings of the results table: its subgroups, and how many patients one needs.
        targets: what stage 1 predicts.
        clinical_features: that stage 2 takes beside the predictions.
        training_scale: mean and standard deviation of each target's measured values in the training set.
        cohorts: derivation first.
        test_sets: internal first.
        table_one: tables of ``sarc_ray.evaluation.table_one``, by label.
        results: the results table.
        operating: what was decided about calibration and threshold.
        search: the algorithms and which was chosen.
        ladder: table of :mod:`sarc_ray.evaluation.ladder`.
        retrained: sensitivity analyses that were made.
        shap: the SHAP values.
        importance: permutation importance.
        dependence: partial dependence.
        examples: one per sex and outcome.
        archive: its counts.
        lineage: where it all comes from.
    """

    title: str
    run_id: str
    simulated: bool
    outcome: str
    threshold: float
    interval_level: float
    confidence_level: float
    evaluation: EvaluationConfig
    targets: tuple[TargetConfig, ...]
    clinical_features: tuple[str, ...]
    training_scale: Mapping[str, tuple[float, float]]
    cohorts: tuple[Cohort, ...]
    test_sets: tuple[TestSet, ...]
    table_one: Mapping[str, pd.DataFrame]
    results: Results
    operating: Operating
    search: Search | Absent
    ladder: pd.DataFrame | Absent
    retrained: tuple[Retrained, ...] | Absent
    shap: ShapValues | Absent
    importance: Importance | Absent
    dependence: Dependence | Absent
    examples: tuple[Example, ...] | Absent
    archive: Archive | Absent
    lineage: Lineage

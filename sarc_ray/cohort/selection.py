"""Who is eligible, counted step by step as in the paper's Figure 1, and which image stands for a patient."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from sarc_ray.cohort.definitions import OutcomeConfig, outcome_labels
from sarc_ray.errors import ManifestError


@dataclass(frozen=True, kw_only=True, slots=True)
class EligibilityConfig:
    """Who is eligible (paper: age 40 and over, radiograph within 90 days, some muscle function measured).

    Args:
        age_min_years: smallest age.
        gap_max_days: longest time between radiograph and measurement, either way; null where it is not recorded.
        require_muscle_function: drop rows with neither ``hgs_kg`` nor ``crt_s``.
        one_image_per_patient: keep one index image per patient, the nearest to the measurement.
        views: allowed values of ``view``; empty allows all. Rows without a view are kept: the gate sees to them.
    """

    age_min_years: float
    gap_max_days: float | None
    require_muscle_function: bool
    one_image_per_patient: bool
    views: tuple[str, ...]

    def __post_init__(self) -> None:
        if not 0 <= self.age_min_years <= 120:
            raise ValueError(f"age_min_years: found {self.age_min_years}, allowed: 0 to 120")
        if self.gap_max_days is not None and not (0 <= self.gap_max_days < math.inf):
            raise ValueError(f"gap_max_days: found {self.gap_max_days}, allowed: 0 or more, or null")


@dataclass(frozen=True, kw_only=True, slots=True)
class FlowStep:
    """One box of the flow chart: what is left after the step, and what the step took away.

    Patients are counted as excluded when their last image goes.
    """

    label: str
    n_images: int
    n_patients: int
    excluded_images: int
    excluded_patients: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """The rows that are left, in the manifest's order with a fresh index, and how they came to be left."""

    frame: pd.DataFrame
    flow: tuple[FlowStep, ...]

    def flow_table(self) -> pd.DataFrame:
        """The flow as a table, one row per step."""
        return pd.DataFrame([dataclasses.asdict(step) for step in self.flow])


def select(
    frame: pd.DataFrame,
    config: EligibilityConfig,
    *,
    outcome: OutcomeConfig | None = None,
    require_alm: bool = False,
) -> Selection:
    """Apply the criteria in a fixed order; a row is counted at the first criterion that it fails.

    Args:
        frame: a manifest as read by :func:`sarc_ray.cohort.schema.read_manifest`.
        config: the criteria. A row whose age or gap is unknown fails them: it cannot be shown to be eligible.
        outcome: where it is a ``column``, rows without that label are excluded. Rows whose outcome by a published
            definition cannot be known stay, because stage 1 can still learn from what was measured.
        require_alm: also exclude rows without appendicular lean mass (the paper's external cohort).

    Raises:
        ManifestError: a criterion needs a column that the manifest lacks.
    """
    frame = frame.reset_index(drop=True)
    steps = [flow_step("screened", frame, frame)]
    for label, keep in _criteria(frame, config, outcome, require_alm):
        before, frame = frame, frame[keep.loc[frame.index]]
        steps.append(flow_step(label, before, frame))
    if config.one_image_per_patient:
        before, frame = frame, index_images(frame)
        steps.append(flow_step("index image: one per patient, nearest to the measurement", before, frame))
    return Selection(frame=frame.reset_index(drop=True), flow=tuple(steps))


def index_images(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per patient: the smallest ``|gap_days|`` (missing last), ties by the smallest ``row_id``.

    Rows keep their order and index.
    """
    gap = frame["gap_days"].abs().fillna(np.inf) if "gap_days" in frame else pd.Series(0.0, index=frame.index)
    keys = pd.DataFrame({"patient_id": frame["patient_id"], "gap": gap, "row_id": frame["row_id"]})
    chosen = keys.sort_values(["gap", "row_id"], kind="stable").drop_duplicates("patient_id").index
    return frame[frame.index.isin(chosen)]


def flow_step(label: str, before: pd.DataFrame, after: pd.DataFrame) -> FlowStep:
    """A step that left the rows ``after`` of the rows ``before``; both have ``patient_id``."""
    n_patients = after["patient_id"].nunique()
    return FlowStep(
        label=label,
        n_images=len(after),
        n_patients=n_patients,
        excluded_images=len(before) - len(after),
        excluded_patients=before["patient_id"].nunique() - n_patients,
    )


def _criteria(
    frame: pd.DataFrame, config: EligibilityConfig, outcome: OutcomeConfig | None, require_alm: bool
) -> list[tuple[str, pd.Series]]:
    """Label and rows to keep of each criterion in force, in the order of the paper's Figure 1."""
    criteria = []
    if config.gap_max_days is not None:
        gap = _needed(frame, "gap_days", "eligibility.gap_max_days to null")
        criteria.append(
            (f"radiograph within {config.gap_max_days:g} days of the measurement", gap.abs() <= config.gap_max_days)
        )
    if config.views and "view" in frame:
        view = frame["view"]
        criteria.append((f"view {' or '.join(config.views)}, or not known", view.isna() | view.isin(config.views)))
    if config.age_min_years > 0:
        age = _needed(frame, "age_years", "eligibility.age_min_years to 0")
        criteria.append((f"age {config.age_min_years:g} or over", age >= config.age_min_years))
    if config.require_muscle_function:
        measured = [frame[name].notna() for name in ("hgs_kg", "crt_s") if name in frame]
        if not measured:
            raise _missing("hgs_kg or crt_s", "eligibility.require_muscle_function to false")
        criteria.append(("muscle function measured", pd.concat(measured, axis=1).any(axis=1)))
    if require_alm:
        alm = _needed(frame, "alm_kg", "the manifest to one with alm_kg")
        criteria.append(("appendicular lean mass measured", alm.notna()))
    if outcome is not None and outcome.definition == "column":
        criteria.append((f"outcome {outcome.column} known", outcome_labels(frame, outcome).notna()))
    return criteria


def _needed(frame: pd.DataFrame, name: str, remedy: str) -> pd.Series:
    if name not in frame:
        raise _missing(name, remedy)
    return frame[name]


def _missing(name: str, remedy: str) -> ManifestError:
    return ManifestError(f"column {name}: missing; eligibility is decided by it; add it, or set {remedy}")

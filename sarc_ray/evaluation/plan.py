"""What will be computed, declared before anybody looks at a label: metrics, intervals, subgroups, comparisons.

The plan's hash goes into every result row, so that a table tells whether two evaluations followed one plan.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Literal

from sarc_ray.cohort.schema import COLUMNS

# Version of the meaning of the metrics below; raised when a definition changes.
PLAN_VERSION = 2
# Version of the tables that ``evaluate`` writes; raised when one gets other columns.
TABLES_VERSION = 3
AGE_BAND, BMI_BAND = "age_band", "bmi_band"
# Subgroups made of a number: the column that they are made of, and the setting that holds their edges.
BANDS = {AGE_BAND: ("age_years", "age_band_edges_years"), BMI_BAND: ("bmi_kg_m2", "bmi_band_edges_kg_m2")}
SARC_F, IDEAL = "sarc_f", "ideal"
# Stands for the kind of interval that the plan names.
BOOTSTRAP = "bootstrap, patients"
CURVES = "bootstrap percentile, patients; within subgroups no interval"
# Metric of the outcome's score -> how its interval or p-value is made.
OUTCOME_METRICS: dict[str, str] = {
    "auroc": BOOTSTRAP,
    "auprc": BOOTSTRAP,
    "f1": BOOTSTRAP,
    "mcc": BOOTSTRAP,
    "sensitivity": BOOTSTRAP,
    "specificity": BOOTSTRAP,
    "ppv": BOOTSTRAP,
    "npv": BOOTSTRAP,
    "brier": BOOTSTRAP,
    "auroc_delong": "DeLong",
    "prevalence": "Wilson",
    "scaled_brier": BOOTSTRAP,
    "citl": "Wald, logistic with offset",
    "cal_slope": "Wald, logistic",
    "ici": CURVES,
    "e50": CURVES,
    "e90": CURVES,
    "emax": CURVES,
    "spiegelhalter_z": "z-test, two-sided",
    "hosmer_lemeshow": "chi-square, 10 bins, external df",
    "partial_auroc": CURVES,
    "sensitivity_exact": "Clopper-Pearson",
    "specificity_exact": "Clopper-Pearson",
    "ppv_exact": "Clopper-Pearson",
    "npv_exact": "Clopper-Pearson",
    "lr_positive": "Simel, logarithmic",
    "lr_negative": "Simel, logarithmic",
}
# Metric of a target's prediction -> how its interval is made. "coverage" is reported at each level, as a suffix.
TARGET_METRICS: dict[str, str] = {
    "ccc": "Lin z-transform",
    "pearson": "Fisher z",
    "bias_correction": "Lin, no interval",
    "explained_variance": BOOTSTRAP,
    "mae": BOOTSTRAP,
    "rmse": BOOTSTRAP,
    "bias": "t",
    "loa_low": "Bland-Altman t",
    "loa_high": "Bland-Altman t",
    "proportional_bias": "t, two-sided",
    "coverage": "Wilson",
    "nll": BOOTSTRAP,
    "crps": BOOTSTRAP,
    "sharpness": BOOTSTRAP,
    "sharpness_aleatoric": BOOTSTRAP,
    "sharpness_epistemic": BOOTSTRAP,
    "interval_calibration_error": "19 levels, no interval",
    "aurc": "risk-coverage, no interval",
    "aurc_gain": "risk-coverage, no interval",
}
# Columns whose values must not stand in results.
_IDENTIFIERS = ("row_id", "patient_key", *(spec.name for spec in COLUMNS if spec.identifier))
_UNITS = {
    "age_band_edges_years": "years, for example [65, 75]",
    "bmi_band_edges_kg_m2": "kg/m2, for example [18.5, 25]",
}
# Settings that say where a plan lies, or who computes it, and not what it is.
NOT_OF_THE_PLAN = ("plan", "rows_on_engine")
# Metrics of the ideal reader's score, which has no threshold in force.
IDEAL_OUTCOME_METRICS = ("auroc", "auprc", "brier", "auroc_delong", "citl", "cal_slope", "ici")
# Score against comparator, on all rows of a data set; "auroc_gap" sets a subgroup against the other rows.
COMPARISONS: dict[str, str] = {
    "auroc_difference": "DeLong paired, two-sided",
    "auprc_difference": BOOTSTRAP,
    "brier_difference": BOOTSTRAP,
    "sensitivity_difference": f"{BOOTSTRAP}; McNemar mid-p",
    "specificity_difference": f"{BOOTSTRAP}; McNemar mid-p",
    "auroc_gap": "DeLong unpaired, Welch, two-sided",
    "explained_variance_ratio": BOOTSTRAP,
    "nll_difference": BOOTSTRAP,
    "sigma_spearman": "Bonett-Wright z",
}
# Of a data set from elsewhere, beside the reference data set that the model comes from.
EXTERNAL_METRICS: dict[str, str] = {
    "membership_auroc": "DeLong, cross-fitted",
    "smd": "no interval",
    "spread_ratio": "no interval",
    "recalibration_intercept": "maximum likelihood, no interval",
    "recalibration_slope": "maximum likelihood, no interval",
    "ppv_transported": "bootstrap percentile, patients of the reference",
    "npv_transported": "bootstrap percentile, patients of the reference",
}
METRICS = (*OUTCOME_METRICS, *TARGET_METRICS, *COMPARISONS, *EXTERNAL_METRICS)


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationConfig:
    """How results are computed.

    Args:
        plan: a YAML of what is to be evaluated (see the reference of the results table); what it says comes before
            the keys below. Null evaluates everything by these keys.
        n_boot: bootstrap replicates (2000 in the paper).
        n_boot_curves: replicates of figures that need a smooth curve, or a curve of its own, for each: calibration
            errors and the partial AUROC.
        confidence_level: of every confidence interval, for example 0.95.
        interval: of the bootstrap. ``percentile``, or ``bca``, which is moved for bias and skewness.
        interval_level: of the predictive intervals whose coverage is a headline, for example 0.9.
        coverage_levels: further levels whose coverage stands in the results table.
        partial_auroc_fpr: the partial AUROC goes from a false-positive rate of 0 to this one.
        local_prevalence: share of patients with the outcome for which predictive values are transported; null takes
            that of the data set itself.
        multiplicity: ``holm`` adjusts the p-values of a data set's comparisons for their number; ``none`` does not.
        min_cell_size: strata with fewer rows get no figures, only their size (for stability; it does not protect
            against disclosure).
        min_events: strata with fewer rows with the outcome, or fewer without, get no figures of the outcome.
        subgroups: columns whose values split each data set (``sex``, ``site``, ``device``, ``view``, ...), or
            ``age_band``, or ``bmi_band``.
        age_band_edges_years: rising lower bounds of the age bands after the first; empty without ``age_band``.
        bmi_band_edges_kg_m2: the same for ``bmi_band``.
        rows_on_engine: data sets with more rows have their bootstrap spread over the engine; null never. Changes no
            result.
    """

    plan: str | None
    n_boot: int
    n_boot_curves: int
    confidence_level: float
    interval: Literal["percentile", "bca"]
    interval_level: float
    coverage_levels: tuple[float, ...]
    partial_auroc_fpr: float
    local_prevalence: float | None
    multiplicity: Literal["holm", "none"]
    min_cell_size: int
    min_events: int
    subgroups: tuple[str, ...]
    age_band_edges_years: tuple[float, ...]
    bmi_band_edges_kg_m2: tuple[float, ...]
    rows_on_engine: int | None

    def __post_init__(self) -> None:
        if self.n_boot < 1:
            raise ValueError(f"n_boot: found {self.n_boot}; allowed: 1 or more, 2000 in the paper")
        for name, least in (("n_boot_curves", 1), ("min_cell_size", 1), ("min_events", 0), ("rows_on_engine", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name}: found {value}; allowed: {least} or more")
        for name in ("confidence_level", "interval_level"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name}: found {getattr(self, name)!r}; allowed: between 0 and 1, for example 0.95")
        for level in self.coverage_levels:
            if not 0 < level < 1:
                raise ValueError(f"coverage_levels: found {level!r}; allowed: between 0 and 1, for example 0.95")
        if not 0 < self.partial_auroc_fpr <= 1:
            raise ValueError(f"partial_auroc_fpr: found {self.partial_auroc_fpr!r}; allowed: above 0, at most 1")
        if self.local_prevalence is not None and not 0 < self.local_prevalence < 1:
            raise ValueError(
                f"local_prevalence: found {self.local_prevalence!r}; allowed: between 0 and 1, for example 0.1; null "
                "takes the data set's own"
            )
        self._check_subgroups()

    def _check_subgroups(self) -> None:
        for name in self.subgroups:
            if name in _IDENTIFIERS:
                raise ValueError(f"subgroups: found {name!r}, whose values tell who somebody is; name another column")
        if len(set(self.subgroups)) < len(self.subgroups):
            raise ValueError(f"subgroups: found {list(self.subgroups)}; name each column once")
        for band, (_, name) in BANDS.items():
            edges = getattr(self, name)
            if not all(map(math.isfinite, edges)) or any(low >= high for low, high in itertools.pairwise(edges)):
                raise ValueError(f"{name}: found {list(edges)}; allowed: rising {_UNITS[name]}")
            if (band in self.subgroups) != bool(edges):
                raise ValueError(
                    f"{name}: found {list(edges)} with subgroups {list(self.subgroups)}; give edges with the subgroup "
                    f"{band}, and an empty list without it"
                )


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationPlan:
    """Everything that will be computed, in canonical order.

    Attributes:
        config: how.
        outcome_name: of the outcome in the results.
        outcomes: what is evaluated: the outcome's name, and targets.
        comparators: what the score is compared with: ``sarc_f``, ``ideal`` (where there is a truth), or any column of
            numbers that speak for the outcome the higher they are.
        metrics: names of ``METRICS``.
    """

    config: EvaluationConfig
    outcome_name: str
    outcomes: tuple[str, ...]
    comparators: tuple[str, ...]
    metrics: tuple[str, ...]

    @property
    def target_names(self) -> tuple[str, ...]:
        """The outcomes that stage 1 predicts."""
        return tuple(name for name in self.outcomes if name != self.outcome_name)

    @property
    def with_outcome(self) -> bool:
        """Stage 2's outcome is evaluated, not targets alone."""
        return self.outcome_name in self.outcomes

    @property
    def coverage_metric(self) -> str:
        """Name of the headline's coverage metric, with its level in percent, such as ``coverage_90``."""
        return coverage_name(self.config.interval_level)

    @property
    def coverage_levels(self) -> dict[str, float]:
        """Level of every coverage metric by its name, in rising order."""
        levels = sorted({self.config.interval_level, *self.config.coverage_levels})
        return {coverage_name(level): level for level in levels}

    @property
    def outcome_metrics(self) -> dict[str, str]:
        """Metrics of the outcome's score, and how their interval is made."""
        return self._planned(OUTCOME_METRICS)

    @property
    def ideal_metrics(self) -> dict[str, str]:
        """Metrics of the ideal reader's score."""
        return {name: method for name, method in self.outcome_metrics.items() if name in IDEAL_OUTCOME_METRICS}

    @property
    def target_metrics(self) -> dict[str, str]:
        """Target metrics and methods under their names in the results table."""
        methods: dict[str, str] = {}
        for name, method in self._planned(TARGET_METRICS).items():
            methods |= dict.fromkeys(self.coverage_levels if name == "coverage" else [name], method)
        return methods

    @property
    def comparisons(self) -> dict[str, str]:
        """Metrics of comparisons."""
        return self._planned(COMPARISONS)

    @property
    def external_metrics(self) -> dict[str, str]:
        """Metrics of a data set from elsewhere."""
        return self._planned(EXTERNAL_METRICS)

    def _planned(self, group: Mapping[str, str]) -> dict[str, str]:
        kind = {"percentile": "percentile", "bca": "BCa"}[self.config.interval]
        named = BOOTSTRAP.replace(",", f" {kind},")
        return {name: method.replace(BOOTSTRAP, named) for name, method in group.items() if name in self.metrics}

    def settings(self) -> dict[str, object]:
        """The configuration's part of the plan, as plain data."""
        values = {field.name: getattr(self.config, field.name) for field in fields(self.config)}
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
        return {name: value for name, value in plain.items() if name not in NOT_OF_THE_PLAN}

    def canonical_json(self) -> str:
        """The plan as JSON with sorted keys and no spaces; equal plans give equal text."""
        plan = self.settings() | {
            "version": PLAN_VERSION,
            "coverage_levels": sorted(self.config.coverage_levels),
            "age_band_edges_years": [float(edge) for edge in self.config.age_band_edges_years],
            "bmi_band_edges_kg_m2": [float(edge) for edge in self.config.bmi_band_edges_kg_m2],
            "outcome": self.outcome_name,
            "outcomes": list(self.outcomes),
            "comparators": list(self.comparators),
            "outcome_metrics": self.outcome_metrics,
            "target_metrics": self.target_metrics,
            "ideal_outcome_metrics": list(self.ideal_metrics),
            "comparisons": self.comparisons,
            "external_metrics": self.external_metrics,
        }
        return json.dumps(plan, sort_keys=True, separators=(",", ":"))

    @property
    def plan_hash(self) -> str:
        """SHA-256 of :meth:`canonical_json`, in hexadecimal."""
        return hashlib.sha256(self.canonical_json().encode("utf-8")).hexdigest()


def coverage_name(level: float) -> str:
    """Metric of the coverage at a level.

    >>> coverage_name(0.9)
    'coverage_90'
    """
    return f"coverage_{100 * level:g}"


def make_plan(
    config: EvaluationConfig, target_names: Sequence[str], *, outcome_name: str = "sarcopenia"
) -> EvaluationPlan:
    """The plan that a configuration stands for: every outcome, every metric, SARC-F and the ideal as comparators.

    Args:
        config: how.
        target_names: manifest columns that stage 1 predicts.
        outcome_name: of the outcome in the results.
    """
    return EvaluationPlan(
        config=config,
        outcome_name=outcome_name,
        outcomes=(outcome_name, *target_names),
        comparators=(SARC_F, IDEAL),
        metrics=METRICS,
    )


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Metrics in the order of ``METRICS``, each once.

    >>> in_order(["brier", "auroc"])
    ('auroc', 'brier')
    """
    wanted = set(names)
    return tuple(name for name in METRICS if name in wanted)

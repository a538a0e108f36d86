"""What will be computed, declared before anybody looks at a label: metrics, intervals, subgroups, comparisons.

The plan's hash goes into every result row, so that a table tells whether two evaluations followed one plan.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass

# Version of the meaning of the metrics below; raised when a definition changes.
PLAN_VERSION = 1
AGE_BAND = "age_band"
BOOTSTRAP = "bootstrap percentile, patients"
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
    "ici": "lowess, no interval",
    "e50": "lowess, no interval",
    "e90": "lowess, no interval",
    "emax": "lowess, no interval",
    "spiegelhalter_z": "z-test, two-sided",
    "hosmer_lemeshow": "chi-square, 10 bins, external df",
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
# Metrics of the ideal reader's score, which has no threshold in force.
IDEAL_OUTCOME_METRICS = ("auroc", "auprc", "brier", "auroc_delong", "citl", "cal_slope", "ici")
# Score against comparator, on all rows of a data set and not within subgroups.
COMPARISONS: dict[str, str] = {
    "auroc_difference": "DeLong paired, two-sided",
    "explained_variance_ratio": BOOTSTRAP,
    "nll_difference": BOOTSTRAP,
    "sigma_spearman": "Bonett-Wright z",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationConfig:
    """How results are computed.

    Args:
        n_boot: bootstrap replicates (2000 in the paper).
        confidence_level: of every confidence interval, for example 0.95.
        interval_level: of the predictive intervals whose coverage is a headline, for example 0.9.
        coverage_levels: further levels whose coverage stands in the results table.
        min_cell_size: strata with fewer rows get no figures, only their size (for stability; it does not protect
            against disclosure).
        subgroups: columns whose values split each data set (``sex``, ``site``, ``view``, ...), or ``age_band``.
        age_band_edges_years: rising lower bounds of the age bands after the first; empty without ``age_band``.
    """

    n_boot: int
    confidence_level: float
    interval_level: float
    coverage_levels: tuple[float, ...]
    min_cell_size: int
    subgroups: tuple[str, ...]
    age_band_edges_years: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.n_boot < 1:
            raise ValueError(f"n_boot: found {self.n_boot}; allowed: 1 or more, 2000 in the paper")
        if self.min_cell_size < 1:
            raise ValueError(f"min_cell_size: found {self.min_cell_size}; allowed: 1 or more")
        for name in ("confidence_level", "interval_level"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name}: found {getattr(self, name)!r}; allowed: between 0 and 1, for example 0.95")
        for level in self.coverage_levels:
            if not 0 < level < 1:
                raise ValueError(f"coverage_levels: found {level!r}; allowed: between 0 and 1, for example 0.95")
        if len(set(self.subgroups)) < len(self.subgroups):
            raise ValueError(f"subgroups: found {list(self.subgroups)}; name each column once")
        edges = self.age_band_edges_years
        if any(low >= high for low, high in itertools.pairwise(edges)):
            raise ValueError(f"age_band_edges_years: found {list(edges)}; allowed: rising years, for example [65, 75]")
        if (AGE_BAND in self.subgroups) != bool(edges):
            raise ValueError(
                f"age_band_edges_years: found {list(edges)} with subgroups {list(self.subgroups)}; give edges with "
                f"the subgroup {AGE_BAND}, and an empty list without it"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationPlan:
    """A configuration applied to targets: everything that will be computed, in canonical order."""

    config: EvaluationConfig
    target_names: tuple[str, ...]

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
    def target_metrics(self) -> dict[str, str]:
        """Target metrics and methods under their names in the results table."""
        methods: dict[str, str] = {}
        for name, method in TARGET_METRICS.items():
            methods |= dict.fromkeys(self.coverage_levels if name == "coverage" else [name], method)
        return methods

    def canonical_json(self) -> str:
        """The plan as JSON with sorted keys and no spaces; equal plans give equal text."""
        plan = {
            "version": PLAN_VERSION,
            "n_boot": self.config.n_boot,
            "confidence_level": self.config.confidence_level,
            "interval_level": self.config.interval_level,
            "coverage_levels": sorted(self.config.coverage_levels),
            "min_cell_size": self.config.min_cell_size,
            "subgroups": list(self.config.subgroups),
            "age_band_edges_years": [float(edge) for edge in self.config.age_band_edges_years],
            "targets": list(self.target_names),
            "outcome_metrics": OUTCOME_METRICS,
            "target_metrics": self.target_metrics,
            "ideal_outcome_metrics": list(IDEAL_OUTCOME_METRICS),
            "comparisons": COMPARISONS,
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


def make_plan(config: EvaluationConfig, target_names: Sequence[str]) -> EvaluationPlan:
    """Declare what will be computed for these targets.

    Args:
        config: how.
        target_names: manifest columns that stage 1 predicts.

    >>> config = EvaluationConfig(n_boot=2000, confidence_level=0.95, interval_level=0.9, coverage_levels=(0.5,),
    ...                           min_cell_size=10, subgroups=("sex",), age_band_edges_years=())
    >>> make_plan(config, ["alm_kg"]).coverage_metric
    'coverage_90'
    """
    return EvaluationPlan(config=config, target_names=tuple(target_names))

"""Intervals and their reasons as the values of a result row."""

from __future__ import annotations

from typing import Any

import numpy as np

from sarc_ray.stats.arrays import Interval
from sarc_ray.stats.bootstrap import BootstrapInterval
from sarc_ray.stats.discrimination import AurocComparison

REPEATED = "interval left out: it assumes one row per patient, and patients repeat"
NO_VARIANCE = "interval and p-value left out: DeLong's variance is zero or not defined"
ONE_PATIENT = "all rows are of one patient"
UNDEFINED = "interval left out: it is not defined for these rows"
ALL_DEGENERATE = "interval left out: no replicate has a defined value"
ONE_SIDED = "interval left out: every replicate lies on one side of the estimate, which BCa cannot use"


def interval_values(interval: BootstrapInterval) -> dict[str, Any]:
    """A bootstrap interval as row values; an interval that is not defined has a reason."""
    reason = ONE_SIDED if interval.n_degenerate < interval.n_boot else ALL_DEGENERATE
    without = np.isfinite(interval.estimate) and np.isnan(interval.ci_low)
    return {
        "estimate": interval.estimate,
        "ci_low": interval.ci_low,
        "ci_high": interval.ci_high,
        "n_boot": interval.n_boot,
        "n_degenerate": interval.n_degenerate,
        **({"na_reason": reason} if without else {}),
    }


def analytic_values(interval: Interval, *, repeated: bool) -> dict[str, Any]:
    """An analytic interval as row values; only the estimate where patients repeat."""
    if repeated and np.isfinite(interval.estimate):
        return {"estimate": interval.estimate, "na_reason": REPEATED}
    values = {"estimate": interval.estimate, "ci_low": interval.ci_low, "ci_high": interval.ci_high}
    without = np.isfinite(interval.estimate) and np.isnan([interval.ci_low, interval.ci_high]).any()
    return {**values, **({"na_reason": UNDEFINED} if without else {})}


def auroc_values(interval: Interval, *, repeated: bool) -> dict[str, Any]:
    """DeLong's interval as row values; where it has no width, an AUROC of 0 or 1 would pass as known without error."""
    if np.isfinite(interval.estimate) and not interval.ci_low < interval.ci_high and not repeated:
        return {"estimate": interval.estimate, "na_reason": NO_VARIANCE}
    return analytic_values(interval, repeated=repeated)


def compared_values(found: AurocComparison, *, repeated: bool) -> dict[str, Any]:
    """A difference of two AUROCs as row values, with its test where DeLong's variance allows one."""
    if np.isfinite(found.difference) and np.isnan(found.statistic) and not repeated:
        return {"estimate": found.difference, "na_reason": NO_VARIANCE}
    interval = Interval(estimate=found.difference, ci_low=found.ci_low, ci_high=found.ci_high)
    return {**analytic_values(interval, repeated=repeated), "p_value": np.nan if repeated else found.p_value}

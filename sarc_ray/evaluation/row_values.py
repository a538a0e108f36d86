"""Intervals and their reasons as the values of a result row."""

from __future__ import annotations

from typing import Any

import numpy as np

from sarc_ray.stats.arrays import Interval
from sarc_ray.stats.bootstrap import BootstrapInterval

REPEATED = "interval left out: it assumes one row per patient, and patients repeat"
ONE_SIDED = "interval left out: every replicate lies on one side of the estimate, which BCa cannot use"


def interval_values(interval: BootstrapInterval) -> dict[str, Any]:
    """A bootstrap interval as row values; a BCa interval that is not defined has a reason."""
    drawn = interval.n_degenerate < interval.n_boot
    one_sided = np.isfinite(interval.estimate) and np.isnan(interval.ci_low) and drawn
    return {
        "estimate": interval.estimate,
        "ci_low": interval.ci_low,
        "ci_high": interval.ci_high,
        "n_boot": interval.n_boot,
        "n_degenerate": interval.n_degenerate,
        **({"na_reason": ONE_SIDED} if one_sided else {}),
    }


def analytic_values(interval: Interval, *, repeated: bool) -> dict[str, Any]:
    """An analytic interval as row values; only the estimate where patients repeat."""
    if repeated:
        return {"estimate": interval.estimate, "na_reason": REPEATED}
    return {"estimate": interval.estimate, "ci_low": interval.ci_low, "ci_high": interval.ci_high}

"""Intervals of the calibration errors, which have no formula. Shapes: N rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy.typing as npt

from sarc_ray.stats.bootstrap import BootstrapInterval, Kind, MapBlocks, bootstrap_statistics
from sarc_ray.stats.calibration import calibration_errors


def calibration_error_intervals(
    label: npt.ArrayLike,
    probability: npt.ArrayLike,
    *,
    n_boot: int,
    confidence_level: float,
    seed: int | Sequence[int],
    patient: npt.ArrayLike | None = None,
    kind: Kind = "percentile",
    map_blocks: MapBlocks = map,
) -> dict[str, BootstrapInterval]:
    """Bootstrap intervals of ``ici``, ``e50``, ``e90`` and ``emax``: each replicate smooths the drawn patients anew.

    The errors are distances, never negative: in a small sample even honest probabilities have some, and replicates
    have more than the sample itself. An interval that excludes 0 is therefore no proof of miscalibration; compare the
    upper end with the error that would matter.

    Args:
        label: 0/1, shape (N,).
        probability: shape (N,).
        n_boot: number of replicates.
        confidence_level: of the two-sided intervals.
        seed: entropy; equal seeds give equal answers.
        patient: of each row, shape (N,); all rows of a patient are drawn together.
        kind: of interval, as in :func:`sarc_ray.stats.bootstrap.bootstrap_statistics`.
        map_blocks: as :func:`map`; a parallel one must keep the order.

    Returns:
        One interval per error; NaN for fewer than five rows.

    Raises:
        ValueError: as :func:`sarc_ray.stats.calibration.calibration_errors`; n_boot < 1, an unknown kind.

    References:
        Austin PC, Steyerberg EW (2019). The Integrated Calibration Index (ICI) and related metrics.

    >>> rows = [0, 0, 0, 1, 1], [0.1, 0.2, 0.3, 0.4, 0.5]
    >>> interval = calibration_error_intervals(*rows, n_boot=20, confidence_level=0.9, seed=1)["ici"]
    >>> round(interval.estimate, 2), interval.ci_low < 0.34 < interval.ci_high
    (0.34, True)
    """

    def errors(label_N: npt.ArrayLike, probability_N: npt.ArrayLike) -> tuple[float, float, float, float]:
        found = calibration_errors(label_N, probability_N)
        return found.ici, found.e50, found.e90, found.emax

    return bootstrap_statistics(
        errors,
        ["ici", "e50", "e90", "emax"],
        [label, probability],
        n_boot=n_boot,
        confidence_level=confidence_level,
        seed=seed,
        patient=patient,
        kind=kind,
        map_blocks=map_blocks,
    )

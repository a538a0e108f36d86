"""Area under a part of the ROC curve. Shapes: N rows."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sarc_ray.stats.discrimination import roc_curve


def partial_auroc(
    label: npt.ArrayLike, score: npt.ArrayLike, *, fpr_low: float, fpr_high: float, standardise: bool
) -> float:
    """Area under the ROC curve between two false-positive rates.

    The curve is linear between its points, so tied rows make a slope. For an interval see
    :func:`sarc_ray.stats.bootstrap.bootstrap_statistic`.

    Args:
        label: 0/1, shape (N,).
        score: higher speaks for the outcome, shape (N,).
        fpr_low: where the part begins; 0 for the highest specificities.
        fpr_high: where it ends; 0.1 keeps specificities of 0.9 and more.
        standardise: McClish's index (1 + (A - A_chance) / (A_best - A_chance)) / 2 instead of the area A: 0.5 for
            chance, 1 for a perfect score, below 0.5 under the diagonal.

    Returns:
        NaN if one class is absent.

    Raises:
        ValueError: as :func:`sarc_ray.stats.discrimination.auroc`; not 0 <= fpr_low < fpr_high <= 1.

    References:
        McClish DK (1989). Analyzing a portion of the ROC curve.

    >>> partial_auroc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8], fpr_low=0, fpr_high=0.5, standardise=False)
    0.25
    >>> round(partial_auroc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8], fpr_low=0, fpr_high=0.5, standardise=True), 6)
    0.666667
    """
    if not 0 <= fpr_low < fpr_high <= 1:
        raise ValueError(f"fpr_low, fpr_high: found {fpr_low!r}, {fpr_high!r}; allowed: 0 <= fpr_low < fpr_high <= 1")
    curve = roc_curve(label, score)
    if np.isnan(curve.fpr).any() or np.isnan(curve.tpr).any():
        return float("nan")
    # The area up to each point is piecewise quadratic: cut the segments at the ends of the part.
    low_G, high_G = np.clip(curve.fpr[:-1], fpr_low, fpr_high), np.clip(curve.fpr[1:], fpr_low, fpr_high)
    width_G = np.diff(curve.fpr)
    slope_G = np.divide(np.diff(curve.tpr), width_G, out=np.zeros_like(width_G), where=width_G > 0)
    middle_G = curve.tpr[:-1] + slope_G * ((low_G + high_G) / 2 - curve.fpr[:-1])
    area = float(np.sum(middle_G * (high_G - low_G)))
    if not standardise:
        return area
    chance, best = (fpr_high**2 - fpr_low**2) / 2, fpr_high - fpr_low
    return (1 + (area - chance) / (best - chance)) / 2

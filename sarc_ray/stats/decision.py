"""What acting on a score is worth. Shapes: N rows, T threshold probabilities."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sarc_ray.stats.arrays import FloatArray, as_finite, as_labels, as_probabilities, check_lengths


@dataclass(frozen=True, kw_only=True, slots=True)
class DecisionCurve:
    """Net benefit at each threshold probability, shape (T,) each.

    ``standardised`` is ``model`` over the prevalence (NaN without events), so that 1 is the best possible;
    ``avoided_per_100`` is the net reduction of interventions per 100 patients against treating all.
    """

    threshold: FloatArray
    model: FloatArray
    treat_all: FloatArray
    treat_none: FloatArray
    standardised: FloatArray
    avoided_per_100: FloatArray


def net_benefit(label: npt.ArrayLike, probability: npt.ArrayLike, threshold: npt.ArrayLike) -> FloatArray:
    """TP / n - FP / n x t / (1 - t), treating where probability >= t.

    Args:
        label: 0/1, shape (N,).
        probability: calibrated probability of the outcome, shape (N,).
        threshold: threshold probabilities within (0, 1), shape (T,).

    Returns:
        Shape (T,).

    Raises:
        ValueError: NaN, labels other than 0/1, probabilities outside [0, 1], thresholds outside (0, 1), unequal
            lengths.

    References:
        Vickers AJ, Elkin EB (2006). Decision curve analysis: a novel method for evaluating prediction models.

    >>> net_benefit([0, 0, 1, 1], [0.1, 0.6, 0.7, 0.9], [0.5])
    array([0.25])
    """
    positive_N, probability_N = as_labels("label", label), as_probabilities("probability", probability)
    check_lengths(label=positive_N, probability=probability_N)
    threshold_T = _thresholds(threshold)
    n = positive_N.size
    tp_T = _count_at_or_above(probability_N[positive_N], threshold_T)
    fp_T = _count_at_or_above(probability_N[~positive_N], threshold_T)
    return tp_T / n - fp_T / n * threshold_T / (1 - threshold_T)


def decision_curve(label: npt.ArrayLike, probability: npt.ArrayLike, threshold: npt.ArrayLike) -> DecisionCurve:
    """Net benefit of the model beside treating all and treating none.

    Raises:
        ValueError: as :func:`net_benefit`.

    References:
        Vickers and Elkin (2006); Kerr KF et al. (2016) for the standardised net benefit.

    >>> curve = decision_curve([0, 0, 1, 1], [0.1, 0.6, 0.7, 0.9], [0.2, 0.5])
    >>> curve.treat_all, curve.avoided_per_100
    (array([0.375, 0.   ]), array([25., 25.]))
    """
    model_T = net_benefit(label, probability, threshold)
    threshold_T, prevalence = _thresholds(threshold), float(as_labels("label", label).mean())
    odds_T = threshold_T / (1 - threshold_T)
    all_T = prevalence - (1 - prevalence) * odds_T
    return DecisionCurve(
        threshold=threshold_T,
        model=model_T,
        treat_all=all_T,
        treat_none=np.zeros_like(all_T),
        standardised=model_T / prevalence if prevalence > 0 else np.full_like(all_T, np.nan),
        avoided_per_100=(model_T - all_T) / odds_T * 100,
    )


def _thresholds(threshold: npt.ArrayLike) -> FloatArray:
    threshold_T = as_finite("threshold", threshold)
    wrong = threshold_T[(threshold_T <= 0) | (threshold_T >= 1)]
    if wrong.size:
        raise ValueError(f"threshold: found {wrong[0]:g}; a threshold probability lies strictly between 0 and 1")
    return threshold_T


def _count_at_or_above(probability_N: FloatArray, threshold_T: FloatArray) -> FloatArray:
    below_T = np.searchsorted(np.sort(probability_N), threshold_T, side="left")
    return (probability_N.size - below_T).astype(np.float64)

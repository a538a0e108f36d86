"""Probabilities re-based to another prevalence (prior shift).

A calibrated score holds for the prevalence at which it was calibrated. Where the patients with the outcome look as they
did there, and so do those without it, and only their shares differ, the score p at a prevalence q becomes at q'

    p' = p q'/q / (p q'/q + (1 - p) (1 - q')/(1 - q))

that is, its log-odds rise by log-odds(q') - log-odds(q). The order of patients, sensitivity and specificity stay;
predictive values and the number of flagged patients change.

References:
    Saerens M, Latinne P, Decaestecker C (2002). Adjusting the outputs of a classifier to new a priori probabilities: a
    simple procedure. Neural Computation 14:21-41. Elkan C (2001). The foundations of cost-sensitive learning. IJCAI,
    theorem 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit

from sarc_ray.errors import EvaluationError
from sarc_ray.stage2.calibration import CalibrationDecision, moved
from sarc_ray.stage2.local import CANDIDATES
from sarc_ray.stage2.thresholds import OperatingPoint, score_threshold
from sarc_ray.stats.arrays import FloatArray

if TYPE_CHECKING:
    from sarc_ray.stage2.model import Stage2Model

REBASED = "prevalence"


def rebase(probability: npt.ArrayLike, *, present: float, wanted: float) -> FloatArray:
    """Probabilities at another prevalence, same shape; 0 and 1 stay what they are.

    Args:
        probability: calibrated at the present prevalence.
        present: share of patients with the outcome there.
        wanted: share of patients with the outcome where the probabilities shall hold.

    Raises:
        ValueError: a prevalence outside (0, 1).

    >>> rebase([0.2, 0.5], present=0.2, wanted=0.5).round(3)
    array([0.5, 0.8])
    """
    return np.asarray(expit(logit(np.asarray(probability, dtype=np.float64)) + _shift(present, wanted)))


def present_prevalence(points: Sequence[OperatingPoint]) -> float:
    """Share of patients with the outcome that a model's operating points were counted at.

    Flagged patients with the outcome are sensitivity x prevalence of all, and ppv x alerts of all.

    Raises:
        EvaluationError: no point flags anybody with the outcome.
    """
    for point in points:
        if point.ppv and point.sensitivity and point.alerts_per_10000:
            return point.ppv * point.alerts_per_10000 / 1e4 / point.sensitivity
    raise EvaluationError("prevalence: no threshold of this model flags a patient with the outcome; tune it anew")


def rebased_model(model: Stage2Model, *, wanted: float, present: float | None = None) -> Stage2Model:
    """The model whose scores hold at another prevalence; who is flagged stays as it is.

    Raw thresholds are unchanged; thresholds of the score, predictive values, F1 and the number of flagged patients are
    those at the wanted prevalence.

    Args:
        model: the model.
        wanted: share of patients with the outcome where the scores shall hold.
        present: share of patients with the outcome where they hold now; None takes that of the operating points, which
            is the training patients', or what the model was re-based to before.

    Raises:
        ValueError: a prevalence outside (0, 1).
        EvaluationError: no calibration was asked for when the model was made, so that its scores hold nowhere; or the
            model was recalibrated on a local sample and ``present`` is None.
    """
    if model.decision.method == "none":
        raise EvaluationError(
            "prevalence: the model was made with stage2.calibration: none, so its scores may be probabilities of no "
            "prevalence; tune it with a calibration, or recalibrate it on a labelled sample"
        )
    if present is None:
        present = _known_prevalence(model)
    calibration = moved(model.calibration, slope=1.0, intercept=_shift(present, wanted))
    return replace(
        model,
        calibration=calibration,
        decision=_decision(model.decision, present=present, wanted=wanted),
        thresholds=tuple(
            replace(_at(point, wanted), threshold=score_threshold(calibration, point.raw_threshold))
            for point in model.thresholds
        ),
    )


def _known_prevalence(model: Stage2Model) -> float:
    if model.decision.method in CANDIDATES:
        raise EvaluationError(
            "prevalence: the model was recalibrated on a local sample, and its scores hold at that sample's "
            "prevalence; give it (present)"
        )
    return present_prevalence(model.thresholds)


def _shift(present: float, wanted: float) -> float:
    for name, value in (("present", present), ("wanted", wanted)):
        if not 0.0 < value < 1.0:
            raise ValueError(f"prevalence ({name}): found {value}, allowed: between 0 and 1, both excluded")
    return float(logit(wanted) - logit(present))


def _decision(before: CalibrationDecision, *, present: float, wanted: float) -> CalibrationDecision:
    """Brier and ICI out of fold are those before: at the wanted prevalence nothing was measured."""
    if before.method == REBASED:
        what = before.why.split("; ")[0]
    elif before.method in CANDIDATES:
        what = f"recalibrated on a local sample ({before.method.replace('_', ' ')})"
    else:
        what = f"{before.method.replace('_', ' ')} calibration" if before.kept else "raw scores"
    return replace(
        before,
        method=REBASED,
        kept=True,
        why=f"{what}; re-based from a prevalence of {present:.4f} to {wanted:.4f}",
    )


def _at(point: OperatingPoint, prevalence: float) -> OperatingPoint:
    """The same sensitivity and specificity at another prevalence."""
    assert point.sensitivity is not None, "thresholds are counted on patients with and without the outcome"
    assert point.specificity is not None, "thresholds are counted on patients with and without the outcome"
    tp, fn = prevalence * point.sensitivity, prevalence * (1.0 - point.sensitivity)
    fp, tn = (1.0 - prevalence) * (1.0 - point.specificity), (1.0 - prevalence) * point.specificity
    return replace(
        point,
        ppv=tp / (tp + fp) if tp + fp > 0.0 else None,
        npv=tn / (tn + fn) if tn + fn > 0.0 else None,
        f1=2.0 * tp / (2.0 * tp + fp + fn),
        alerts_per_10000=1e4 * (tp + fp),
    )

"""Thresholds on out-of-fold scores, one per rule, each with what it does to the training patients.

Choosing and counting use the same scores, so that the counts are a little too good; a threshold is one number from many
patients, so it is little. They hold for the prevalence of the training patients, or for the one that is asked for.

Shapes: N rows, R repeats of the cross-validation, G operating points of the ROC curve.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from sarc_ray.stats.arrays import FloatArray
from sarc_ray.stats.discrimination import Confusion, f1, npv, ppv, roc_curve, sensitivity, specificity

if TYPE_CHECKING:
    from sarc_ray.stage2.calibration import Calibration

Rule = Literal["youden", "f1", "sensitivity", "specificity", "alerts_per_10000", "cost_ratio"]
RULES: tuple[Rule, ...] = get_args(Rule)
# What rounding can do to a share, and to a cost or a number of alerts; two that differ by less are equal.
_SHARE_ROUNDING = 1e-12
_ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True, slots=True)
class OperatingPoint:
    """A threshold and what it does to the training patients' out-of-fold scores, pooled over the repeats.

    Attributes:
        rule: one of ``RULES``.
        aim: what the rule was given; None where it takes nothing.
        raw_threshold: positive is raw score >= raw_threshold.
        threshold: the same in units of the score.
        sensitivity: share of rows with the outcome that are flagged.
        specificity: share of rows without it that are not.
        ppv: share of the flagged that have the outcome; None where nobody is flagged.
        npv: share of the others that do not have it; None where everybody is flagged.
        f1: harmonic mean of sensitivity and ppv.
        alerts_per_10000: flagged of 10,000 rows.
    """

    rule: str
    aim: float | None
    raw_threshold: float
    threshold: float
    sensitivity: float | None
    specificity: float | None
    ppv: float | None
    npv: float | None
    f1: float | None
    alerts_per_10000: float | None

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise ValueError(f"rule: found {self.rule!r}, allowed: {', '.join(RULES)}")
        if not np.isfinite([self.raw_threshold, self.threshold]).all():
            raise ValueError(f"threshold: {self.threshold} (raw {self.raw_threshold}) is not finite")


@dataclass(frozen=True, slots=True)
class _Counts:
    """True and false positives at each operating point, from nobody flagged to everybody; shape (G + 1,)."""

    tp: FloatArray
    fp: FloatArray
    n_pos: float
    n_neg: float

    def at(self, prevalence: float) -> _Counts:
        """The same sensitivities and specificities among as many rows, of which another share has the outcome."""
        n_rows = self.n_pos + self.n_neg
        n_pos, n_neg = n_rows * prevalence, n_rows * (1.0 - prevalence)
        return _Counts(self.tp / self.n_pos * n_pos, self.fp / self.n_neg * n_neg, n_pos, n_neg)


def _most(value_G: FloatArray) -> int:
    """The largest; of equal ones the first, which flags the fewest. Flagging nobody is no choice here."""
    return 1 + int(np.argmax(value_G[1:] >= value_G[1:].max() - _SHARE_ROUNDING))


def _youden(counts: _Counts, _: float | None) -> int:
    return _most(counts.tp / counts.n_pos - counts.fp / counts.n_neg)


def _f1(counts: _Counts, _: float | None) -> int:
    return _most(2.0 * counts.tp / (counts.tp + counts.fp + counts.n_pos))


def _sensitivity(counts: _Counts, aim: float | None) -> int:
    """The fewest flagged that reach the aim."""
    return int(np.argmax(counts.tp / counts.n_pos >= _given(aim) - _SHARE_ROUNDING))


def _specificity(counts: _Counts, aim: float | None) -> int:
    """The most flagged that still reach the aim; nobody, where the highest score alone misses it."""
    return int(np.flatnonzero(1.0 - counts.fp / counts.n_neg >= _given(aim) - _SHARE_ROUNDING)[-1])


def _alerts(counts: _Counts, aim: float | None) -> int:
    """The most flagged that are no more than asked for; nobody, where those of the highest score are more."""
    per_10000_G = 1e4 * (counts.tp + counts.fp) / (counts.n_pos + counts.n_neg)
    return int(np.flatnonzero(per_10000_G <= _given(aim) + _ROUNDING)[-1])


def _cost(counts: _Counts, aim: float | None) -> int:
    """The least cost where a false alarm costs 1 and a missed patient ``aim``; of equal ones the fewest flagged."""
    cost_G = counts.fp + _given(aim) * (counts.n_pos - counts.tp)
    return int(np.argmax(cost_G <= cost_G.min() + _ROUNDING))


_CHOICES: Mapping[Rule, Callable[[_Counts, float | None], int]] = {
    "youden": _youden,
    "f1": _f1,
    "sensitivity": _sensitivity,
    "specificity": _specificity,
    "alerts_per_10000": _alerts,
    "cost_ratio": _cost,
}


def operating_points(
    raw: npt.ArrayLike,
    y: npt.ArrayLike,
    *,
    calibration: Calibration,
    aims: Mapping[Rule, float | None],
    prevalence: float | None = None,
) -> tuple[OperatingPoint, ...]:
    """Choose a threshold by every rule.

    ``youden``: the largest sensitivity + specificity - 1. ``f1``: the largest F1. ``sensitivity``: the fewest flagged
    with a sensitivity of the aim or more. ``specificity``: the most flagged with a specificity of the aim or more.
    ``alerts_per_10000``: the most flagged, but no more than the aim of 10,000 rows. ``cost_ratio``: the least cost,
    where a missed patient costs the aim times a false alarm. Ties go to the fewest flagged.

    Chosen among the raw scores, which calibration maps one to one. A threshold lies halfway down to the next lower
    score, so that none lies on it: rounding differs between machines. Where nobody is flagged it lies halfway from the
    highest score to 1.

    Args:
        raw: out-of-fold raw scores, shape (n_repeats, n_rows) or (n_rows,); pooled, not averaged: an average of R
            models is steadier than the one model that will be used.
        y: 0/1 labels, shape (n_rows,).
        calibration: in force.
        aims: what each rule is given.
        prevalence: share with the outcome among the patients for whom rules that count patients, and the figures, shall
            hold; None for that of ``y``.

    Raises:
        ValueError: one class is absent.

    References:
        Youden WJ (1950). Index for rating diagnostic tests. Elkan C (2001). The foundations of cost-sensitive learning.
    """
    raw_RN = np.atleast_2d(np.asarray(raw, dtype=np.float64))
    y_RN = np.tile(np.asarray(y, dtype=np.int64), len(raw_RN))
    curve = roc_curve(y_RN, raw_RN.ravel())
    n_pos = int(y_RN.sum())
    n_neg = len(y_RN) - n_pos
    if n_pos == 0 or n_neg == 0:
        raise ValueError("label: one class is absent; thresholds need patients with and without the outcome")
    counts = _Counts(np.rint(curve.tpr * n_pos), np.rint(curve.fpr * n_neg), n_pos, n_neg)
    if prevalence is not None:
        counts = counts.at(prevalence)
    points = []
    for rule in RULES:
        chosen = _CHOICES[rule](counts, aims[rule])
        raw_threshold = _cut(curve.threshold[1:], chosen)
        points.append(
            OperatingPoint(
                rule=rule,
                aim=aims[rule],
                raw_threshold=raw_threshold,
                threshold=score_threshold(calibration, raw_threshold),
                **_figures(counts, chosen),
            )
        )
    return tuple(points)


def score_threshold(calibration: Calibration, raw_threshold: float) -> float:
    """A raw threshold in units of the score; both flag the same rows.

    Args:
        calibration: in force.
        raw_threshold: above 1 where it is to flag nobody. A calibration may give what lies so little above 1 the same
            score as 1, so that the threshold is then taken from the highest score that there can be.
    """
    if raw_threshold <= 1.0:
        return float(calibration.apply(raw_threshold))
    return _above(float(calibration.apply(1.0)))


def points_stated(points: Sequence[OperatingPoint], *, in_force: str) -> list[dict[str, Any]]:
    """What ``bundle.json`` says of the thresholds: in units of the score, and which one is in force."""
    stated = [{**asdict(point), "in_force": point.rule == in_force} for point in points]
    return [{name: value for name, value in facts.items() if name != "raw_threshold"} for facts in stated]


def _given(aim: float | None) -> float:
    assert aim is not None, "Stage2Config gives these rules their aims"
    return aim


def _cut(score_G: FloatArray, n_flagged_scores: int) -> float:
    """The threshold that flags so many of the distinct scores, which fall."""
    highest = float(score_G[0])
    if n_flagged_scores == 0:
        return _above(highest)
    lowest = float(score_G[n_flagged_scores - 1])
    return (lowest + float(score_G[n_flagged_scores])) / 2.0 if n_flagged_scores < len(score_G) else lowest


def _above(highest: float) -> float:
    return (highest + 1.0) / 2.0 if highest < 1.0 else float(np.nextafter(1.0, 2.0))


def _figures(counts: _Counts, chosen: int) -> dict[str, float | None]:
    tp, fp = float(counts.tp[chosen]), float(counts.fp[chosen])
    cells = Confusion(tp=tp, fp=fp, fn=counts.n_pos - tp, tn=counts.n_neg - fp)
    found = {measure.__name__: float(measure(cells)) for measure in (sensitivity, specificity, ppv, npv, f1)}
    found["alerts_per_10000"] = 1e4 * (tp + fp) / (counts.n_pos + counts.n_neg)
    return {name: value if np.isfinite(value) else None for name, value in found.items()}

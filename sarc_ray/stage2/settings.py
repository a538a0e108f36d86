"""What can be configured of stage 2: the search, the choice, the calibration and the thresholds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from sarc_ray.stage2.algorithms import ALGORITHMS
from sarc_ray.stage2.calibration import METHODS, Method
from sarc_ray.stage2.thresholds import RULES, Rule

ChoiceRule = Literal["cross_validation", "internal_test_as_paper"]
CHOICE_RULES: tuple[ChoiceRule, ...] = get_args(ChoiceRule)
_LEAST = {"trials_per_algorithm": 1, "trials_per_round": 1, "n_splits": 2, "n_repeats": 1}
_MOST_OF_AIMS = {
    "threshold_sensitivity": 1.0,
    "threshold_specificity": 1.0,
    "threshold_alerts_per_10000": 10_000.0,
    "threshold_cost_ratio": 1e6,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage2Config:
    """How stage 2 is searched, chosen and calibrated.

    Args:
        algorithms: keys of ``ALGORITHMS``.
        trials_per_algorithm: hyper-parameter draws of each algorithm.
        trials_per_round: draws that each algorithm's study is asked for at once. Two rounds are under way at a time:
            more workers than twice the algorithms times this stand idle, fewer rounds learn less from each other.
        minutes_per_algorithm: an algorithm whose trials took this much computing time (summed over workers) is asked
            for no further round; null for no limit. What is chosen then depends on the machine.
        prune: end a trial after any repeat in which it lies too far behind the best finished one to be chosen.
        n_splits: folds of one repeat.
        n_repeats: repeats, each with folds of its own.
        nested_splits: folds of an outer cross-validation around search, choice and calibration, which estimates what
            the whole procedure is worth; 0 for none. Costs that many searches more.
        choice: ``cross_validation``; or ``internal_test_as_paper``, which replicates the paper's choice by F1 in the
            internal test set, after which that set's figures are too good.
        calibration: how raw scores become probabilities; in force only where it improves Brier and ICI out of fold.
        prevalence: share with the outcome among the patients to be scored, to which calibrated scores are re-based;
            null leaves them at the training patients'. Calibration on the run's test sets is then off by as much.
        threshold: the rule whose threshold is in force; the bundle holds those of all rules.
        threshold_sensitivity: the least sensitivity, of rule ``sensitivity``.
        threshold_specificity: the least specificity, of rule ``specificity``.
        threshold_alerts_per_10000: the most flagged of 10,000 rows, of rule ``alerts_per_10000``.
        threshold_cost_ratio: what a missed patient costs where a false alarm costs 1, of rule ``cost_ratio``.
    """

    algorithms: tuple[str, ...]
    trials_per_algorithm: int
    trials_per_round: int
    minutes_per_algorithm: float | None
    prune: bool
    n_splits: int
    n_repeats: int
    nested_splits: int
    choice: ChoiceRule
    calibration: Method
    prevalence: float | None
    threshold: Rule
    threshold_sensitivity: float
    threshold_specificity: float
    threshold_alerts_per_10000: float
    threshold_cost_ratio: float

    def __post_init__(self) -> None:
        if not self.algorithms or len(set(self.algorithms)) < len(self.algorithms):
            raise ValueError(f"algorithms: found {list(self.algorithms)}; name one or more, each once")
        for name in self.algorithms:
            if name not in ALGORITHMS:
                raise ValueError(f"algorithms: {name!r} is not known; allowed: {', '.join(ALGORITHMS)}")
        for field, least in _LEAST.items():
            if getattr(self, field) < least:
                raise ValueError(f"{field}: found {getattr(self, field)}, allowed: {least} or more")
        for field, allowed in (("calibration", METHODS), ("threshold", RULES), ("choice", CHOICE_RULES)):
            if getattr(self, field) not in allowed:
                raise ValueError(f"{field}: found {getattr(self, field)!r}, allowed: {', '.join(allowed)}")
        for field, most in _MOST_OF_AIMS.items():
            if not 0.0 < getattr(self, field) <= most:
                raise ValueError(f"{field}: found {getattr(self, field)}, allowed: above 0, up to {most:g}")
        self._check_options()

    def _check_options(self) -> None:
        if self.nested_splits != 0 and self.nested_splits < 2:
            raise ValueError(f"nested_splits: found {self.nested_splits}, allowed: 0 (none), or 2 or more")
        if self.minutes_per_algorithm is not None and not self.minutes_per_algorithm > 0.0:
            raise ValueError(f"minutes_per_algorithm: found {self.minutes_per_algorithm}, allowed: above 0, or null")

        if self.prevalence is not None and not 0.0 < self.prevalence < 1.0:
            raise ValueError(f"prevalence: found {self.prevalence}, allowed: between 0 and 1, both excluded, or null")
        if self.prevalence is not None and self.calibration == "none":
            raise ValueError(
                f"prevalence: found {self.prevalence} with calibration none, whose scores may hold at no prevalence; "
                "choose a calibration, or set it to null"
            )

    @property
    def aims(self) -> dict[Rule, float | None]:
        """What each rule for a threshold is given; None for those that take nothing."""
        return {
            "youden": None,
            "f1": None,
            "sensitivity": self.threshold_sensitivity,
            "specificity": self.threshold_specificity,
            "alerts_per_10000": self.threshold_alerts_per_10000,
            "cost_ratio": self.threshold_cost_ratio,
        }

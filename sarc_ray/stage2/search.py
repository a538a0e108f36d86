"""Hyper-parameter search in rounds that overlap: the same choice whatever the number of workers.

One Optuna study per algorithm, so that each gets its whole budget. A round asks every study for the same number of
trials. Two rounds are under way at once: while the last trials of one still run, free workers take those of the next.
Once a round is complete, and all before it are told, its results are told in trial order and a further round is asked
for. How many workers evaluated the trials, and in which order they finished, cannot be seen by the sampler (plain
asynchronous Optuna chooses differently with one and two workers).
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna

from sarc_ray.stage2.algorithms import suggest
from sarc_ray.stage2.cross_validation import Bar

_ROUNDS_AT_ONCE = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialSpec:
    """One set of hyper-parameters to evaluate."""

    algorithm: str
    number: int
    params: dict[str, Any]

    @property
    def key(self) -> str:
        """Name of the trial, unique within a search."""
        return f"{self.algorithm}-{self.number:04d}"


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialRecord:
    """What is kept of one trial that has ended.

    Attributes:
        spec: which trial.
        cv_auroc_mean: mean of ``auroc_per_fold``.
        cv_auroc_se: its standard error; NaN where pruned.
        oof_f1: F1 at the out-of-fold Youden threshold; NaN where pruned.
        auroc_per_fold: in the order of the folds; where pruned, of the first ones alone.
        pruned: given up before all folds were done; never to be chosen.
        seconds: computing time.
    """

    spec: TrialSpec
    cv_auroc_mean: float
    cv_auroc_se: float
    oof_f1: float
    auroc_per_fold: tuple[float, ...]
    pruned: bool
    seconds: float


@dataclass(slots=True)
class _Round:
    """Trials asked for together, in trial order, with what they are compared with and what came of them."""

    bar: Bar | None
    trials: dict[str, tuple[TrialSpec, optuna.trial.Trial]]
    ended: dict[str, TrialRecord]

    @property
    def complete(self) -> bool:
        return len(self.ended) == len(self.trials)


class RoundSearch:
    """Asks and tells one study per algorithm in rounds.

    Args:
        algorithms: names from ``ALGORITHMS``.
        trials_per_algorithm: budget of each.
        trials_per_round: trials that each study is asked for at once; two rounds are under way at a time.
        minutes_per_algorithm: computing time after which a study is asked no more; None for no limit.
        prune: hold up the best trial told so far as a bar. It is the same for all trials of a round, so that pruning
            does not make the choice depend on the number of workers.
        seed: of the samplers.
    """

    def __init__(
        self,
        *,
        algorithms: tuple[str, ...],
        trials_per_algorithm: int,
        trials_per_round: int,
        minutes_per_algorithm: float | None,
        prune: bool,
        seed: int,
    ) -> None:
        # Optuna logs every trial at INFO; the trials table says the same.
        logging.getLogger("optuna").setLevel(logging.WARNING)
        self._budget = trials_per_algorithm
        self._round_size = trials_per_round
        limit_s = np.inf if minutes_per_algorithm is None else 60.0 * minutes_per_algorithm
        self._seconds_left = dict.fromkeys(algorithms, limit_s)
        self._seconds_told: dict[str, list[float]] = {name: [] for name in algorithms}
        self._prune = prune
        seeds = np.random.SeedSequence(seed).generate_state(len(algorithms))
        self._studies = {
            name: optuna.create_study(
                direction="maximize",
                # The first two rounds cannot have learned anything; every later one may.
                sampler=optuna.samplers.TPESampler(seed=int(s), n_startup_trials=_ROUNDS_AT_ONCE * trials_per_round),
            )
            for name, s in zip(algorithms, seeds, strict=True)
        }
        self._asked = 0
        self._n_told = 0
        self._best: TrialRecord | None = None
        self._rounds: deque[_Round] = deque()
        self._queue: deque[TrialSpec] = deque()
        for _ in range(_ROUNDS_AT_ONCE):
            self._ask_round()

    @property
    def total(self) -> int:
        """Trials of the whole search; fewer once the time of a study has run out."""
        return self._n_told if self.finished else self._budget * len(self._studies)

    @property
    def finished(self) -> bool:
        """True when every trial was told."""
        return not self._rounds

    def bar(self, key: str) -> Bar | None:
        """What a trial that is under way is compared with; None where nothing is pruned, or nothing was told yet."""
        return self._round_of(key).bar

    def next(self) -> TrialSpec | None:
        """The next trial to evaluate, or None while the results of two rounds are outstanding or all is done."""
        return self._queue.popleft() if self._queue else None

    def record(self, record: TrialRecord) -> None:
        """Take in one trial; the last of a round tells them all, and asks for a further round."""
        key = record.spec.key
        self._round_of(key).ended[key] = record
        while self._rounds and self._rounds[0].complete:
            told = self._rounds.popleft()
            for key, (spec, trial) in told.trials.items():
                self._tell(spec, trial, told.ended[key])
            self._ask_round()

    def _round_of(self, key: str) -> _Round:
        return next(round_ for round_ in self._rounds if key in round_.trials)

    def _tell(self, spec: TrialSpec, trial: optuna.trial.Trial, record: TrialRecord) -> None:
        study = self._studies[spec.algorithm]
        if record.pruned:
            trial.report(record.cv_auroc_mean, step=len(record.auroc_per_fold))
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            study.tell(trial, record.cv_auroc_mean)
            if self._best is None or record.cv_auroc_mean > self._best.cv_auroc_mean:
                self._best = record
        self._seconds_left[spec.algorithm] -= record.seconds
        self._seconds_told[spec.algorithm].append(record.seconds)
        self._n_told += 1

    def _ask_round(self) -> None:
        n_trials = min(self._round_size, self._budget - self._asked)
        held_up = self._best if self._prune else None
        round_ = _Round(Bar(held_up.auroc_per_fold, held_up.cv_auroc_se) if held_up else None, {}, {})
        for number in range(self._asked, self._asked + n_trials):
            for name, study in self._studies.items():
                if self._seconds_left[name] <= 0.0:
                    continue
                trial = study.ask()
                spec = TrialSpec(algorithm=name, number=number, params=suggest(name, trial))
                round_.trials[spec.key] = (spec, trial)
        self._asked += n_trials
        if round_.trials:
            self._rounds.append(round_)
            self._queue.extend(sorted((spec for spec, _ in round_.trials.values()), key=self._cost, reverse=True))

    def _cost(self, spec: TrialSpec) -> tuple[float, float]:
        """How long a trial may take, to begin with the longest. It decides no result, only who waits for whom."""
        known = self._seconds_told[spec.algorithm]
        return float(np.mean(known)) if known else 0.0, float(spec.params.get("n_estimators", 0))

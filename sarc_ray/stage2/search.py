"""Hyper-parameter search in synchronous rounds: the same choice whatever the number of workers.

One Optuna study per algorithm, so that each gets its whole budget. A round asks every study for the same number of
trials; results are told in trial order once the round is complete. How many workers evaluated them, and in which order
they finished, cannot be seen by the sampler (plain asynchronous Optuna chooses differently with one and two workers).
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


class RoundSearch:
    """Asks and tells one study per algorithm in rounds.

    Args:
        algorithms: names from ``ALGORITHMS``.
        trials_per_algorithm: budget of each.
        trials_per_round: trials that each study is asked for before it is told any result.
        minutes_per_algorithm: computing time after which a study is asked no more; None for no limit.
        prune: hold up the best trial of the earlier rounds as a bar. It is the same for all trials of a round, so that
            pruning does not make the choice depend on the number of workers.
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
        self._seconds_left = dict.fromkeys(
            algorithms, np.inf if minutes_per_algorithm is None else 60.0 * minutes_per_algorithm
        )
        self._prune = prune
        seeds = np.random.SeedSequence(seed).generate_state(len(algorithms))
        self._studies = {
            name: optuna.create_study(
                direction="maximize",
                # The first round cannot have learned anything; every later one may.
                sampler=optuna.samplers.TPESampler(seed=int(s), n_startup_trials=trials_per_round),
            )
            for name, s in zip(algorithms, seeds, strict=True)
        }
        self._asked = 0
        self._n_told = 0
        self._best: TrialRecord | None = None
        self._open: dict[str, tuple[TrialSpec, optuna.trial.Trial]] = {}
        self._ended: dict[str, TrialRecord] = {}
        self._queue: deque[TrialSpec] = deque()
        self._ask_round()

    @property
    def total(self) -> int:
        """Trials of the whole search; fewer once the time of a study has run out."""
        return self._n_told if self.finished else self._budget * len(self._studies)

    @property
    def finished(self) -> bool:
        """True when every trial was told."""
        return not self._open

    @property
    def bar(self) -> Bar | None:
        """What trials of the present round are compared with while they run."""
        if not self._prune or self._best is None:
            return None
        return Bar(self._best.auroc_per_fold, self._best.cv_auroc_se)

    def next(self) -> TrialSpec | None:
        """The next trial to evaluate, or None while the round's results are outstanding or all is done."""
        return self._queue.popleft() if self._queue else None

    def record(self, record: TrialRecord) -> None:
        """Take in one trial; the last of a round tells them all and asks for the next round."""
        self._ended[record.spec.key] = record
        if len(self._ended) < len(self._open):
            return
        for key, (spec, trial) in self._open.items():  # insertion order is trial order
            self._tell(spec, trial, self._ended[key])
        self._open.clear()
        self._ended.clear()
        self._ask_round()

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
        self._n_told += 1

    def _ask_round(self) -> None:
        n_trials = min(self._round_size, self._budget - self._asked)
        for number in range(self._asked, self._asked + n_trials):
            for name, study in self._studies.items():
                if self._seconds_left[name] <= 0.0:
                    continue
                trial = study.ask()
                spec = TrialSpec(algorithm=name, number=number, params=suggest(name, trial))
                self._open[spec.key] = (spec, trial)
                self._queue.append(spec)
        self._asked += n_trials

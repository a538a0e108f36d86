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


class RoundSearch:
    """Asks and tells one study per algorithm in rounds.

    Args:
        algorithms: names from ``ALGORITHMS``.
        trials_per_algorithm: budget of each.
        trials_per_round: trials that each study is asked for before it is told any result.
        seed: of the samplers.
    """

    def __init__(
        self, *, algorithms: tuple[str, ...], trials_per_algorithm: int, trials_per_round: int, seed: int
    ) -> None:
        # Optuna logs every trial at INFO; the trials table says the same.
        logging.getLogger("optuna").setLevel(logging.WARNING)
        self._budget = trials_per_algorithm
        self._round_size = trials_per_round
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
        self._open: dict[str, tuple[TrialSpec, optuna.trial.Trial]] = {}
        self._values: dict[str, float] = {}
        self._queue: deque[TrialSpec] = deque()
        self._ask_round()

    @property
    def total(self) -> int:
        """Trials of the whole search."""
        return self._budget * len(self._studies)

    @property
    def finished(self) -> bool:
        """True when every trial was told."""
        return self._asked >= self._budget and not self._open

    def next(self) -> TrialSpec | None:
        """The next trial to evaluate, or None while the round's results are outstanding or all is done."""
        return self._queue.popleft() if self._queue else None

    def record(self, key: str, value: float) -> None:
        """Take in the value of one trial; the last of a round tells them all and asks for the next round.

        Args:
            key: ``TrialSpec.key``.
            value: mean cross-validated AUROC.
        """
        self._values[key] = value
        if len(self._values) < len(self._open):
            return
        for spec, trial in self._open.values():  # insertion order is trial order
            self._studies[spec.algorithm].tell(trial, self._values[spec.key])
        self._open.clear()
        self._values.clear()
        self._ask_round()

    def _ask_round(self) -> None:
        n_trials = min(self._round_size, self._budget - self._asked)
        for number in range(self._asked, self._asked + n_trials):
            for name, study in self._studies.items():
                trial = study.ask()
                spec = TrialSpec(algorithm=name, number=number, params=suggest(name, trial))
                self._open[spec.key] = (spec, trial)
                self._queue.append(spec)
        self._asked += n_trials

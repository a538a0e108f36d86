"""What every contender is given, and what it hands back; knows nothing of the package, because peers cannot import it.

Shape suffixes: N rows, F features, R repeats of the cross-validation.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """Equal for all who count trials; ``seconds`` is for those who count time."""

    algorithms: tuple[str, ...]
    trials: int
    trials_per_round: int
    n_splits: int
    n_repeats: int
    cores: int
    seed: int
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """A table to search on; ``fold_RN`` says which fold of a repeat a row is tested in."""

    features: tuple[str, ...]
    x_NF: np.ndarray
    y_N: np.ndarray
    patient_N: np.ndarray
    fold_RN: np.ndarray
    held_out_x_NF: np.ndarray
    budget: Budget

    def folds(self) -> list[tuple[int, np.ndarray, np.ndarray]]:
        """Repeat, training rows, test rows; repeat by repeat."""
        return [
            (repeat, np.flatnonzero(fold_N != fold), np.flatnonzero(fold_N == fold))
            for repeat, fold_N in enumerate(self.fold_RN)
            for fold in range(1 + fold_N.max())
        ]

    def splits(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """The same as scikit-learn takes them."""
        return [(train, test) for _, train, test in self.folds()]

    def write(self, folder: Path) -> None:
        """Into a folder, for a process of any environment."""
        arrays = {name: getattr(self, name) for name in ("x_NF", "y_N", "patient_N", "fold_RN", "held_out_x_NF")}
        np.savez(folder / "task.npz", **arrays)
        told = {"features": self.features, "budget": asdict(self.budget)}
        (folder / "task.json").write_text(json.dumps(told), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Task:
        """What :meth:`write` wrote."""
        told = json.loads((folder / "task.json").read_text(encoding="utf-8"))
        budget = Budget(**{**told["budget"], "algorithms": tuple(told["budget"]["algorithms"])})
        with np.load(folder / "task.npz") as arrays:
            return cls(features=tuple(told["features"]), budget=budget, **arrays)


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What a search found.

    Args:
        wall_s: from the call to the choice; what is imported before, and the refit after it, is not counted.
        start_s: part of ``wall_s`` in which the engine started: Ray, or joblib's processes.
        trials: sets of hyper-parameters that were evaluated on all folds.
        trials_s: seconds that these took in their workers, summed.
        chosen: the algorithm.
        scores: of the held-out rows, shape (N,), by rule of choice, refitted on all training rows.
    """

    wall_s: float
    start_s: float
    trials: int
    trials_s: float
    chosen: str
    scores: Mapping[str, np.ndarray]

    def idle_s(self, cores: int) -> float:
        """Core-seconds in which no trial ran, without the start of the engine."""
        return (self.wall_s - self.start_s) * cores - self.trials_s

    def write(self, folder: Path) -> None:
        """Beside the task."""
        np.savez(folder / "scores.npz", **self.scores)
        told = {name: getattr(self, name) for name in ("wall_s", "start_s", "trials", "trials_s", "chosen")}
        (folder / "found.json").write_text(json.dumps(told), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Found:
        """What :meth:`write` wrote."""
        with np.load(folder / "scores.npz") as arrays:
            scores = dict(arrays)
        return cls(scores=scores, **json.loads((folder / "found.json").read_text(encoding="utf-8")))

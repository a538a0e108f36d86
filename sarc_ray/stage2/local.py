"""Recalibration of a finished model on a local labelled sample: nothing, a new intercept, or intercept and slope.

A model that is moved to another hospital often ranks its patients as well as before while its probabilities are off.
The log-odds z of its scores are replaced by b z + a, by maximum likelihood: a alone (b = 1), or both. Neither changes
the order of patients.

Each candidate is fitted on patients drawn with replacement and judged on those who were not drawn, beside the scores as
they are, many times over (leave-one-out bootstrap). It is kept only where both Brier score and ICI are better on
average; of two that are, the one with the better Brier score. Fitted on some 63% of the patients, a candidate is judged
a little too severely, which errs on the side of leaving the scores alone.

References:
    Steyerberg EW, Borsboom GJJM, van Houwelingen HC, et al. (2004). Validation and updating of predictive logistic
    regression models: a study on sample size and shrinkage. Statistics in Medicine 23:2567-2586. Efron B, Tibshirani R
    (1997). Improvements on cross-validation: the .632+ bootstrap method. JASA 92:548-560.

Shapes: N rows, B replicates, U patients.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from sarc_ray.errors import EvaluationError
from sarc_ray.stage2.calibration import Calibration, CalibrationDecision, fit_logistic, log_odds, moved, softened
from sarc_ray.stage2.thresholds import score_threshold
from sarc_ray.stats.arrays import FloatArray, IntArray
from sarc_ray.stats.calibration import brier, calibration_errors

if TYPE_CHECKING:
    from sarc_ray.stage2.model import Stage2Model

Candidate = Literal["none", "intercept", "intercept_and_slope"]
CANDIDATES: tuple[Candidate, ...] = get_args(Candidate)
# Patients with and without the outcome: ten for each of the two numbers that are fitted (Peduzzi et al. 1996). A
# hundred of each is what an external validation should have (Vergouwe et al. 2005).
MIN_PATIENTS = 20
ADVISED_PATIENTS = 100
N_BOOT = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """A candidate and how it did on patients who were not drawn.

    Attributes:
        method: one of ``CANDIDATES``.
        slope: fitted on all patients; 1 where it is not fitted.
        intercept: fitted on all patients; 0 where it is not fitted.
        brier: mean over the replicates.
        ici: mean over the replicates.
        improves: both are better than with the scores as they are, and the slope is above 0.
    """

    method: Candidate
    slope: float
    intercept: float
    brier: float
    ici: float
    improves: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalDecision:
    """What was kept, and the figures behind it.

    Attributes:
        kept: one of ``CANDIDATES``; ``none`` leaves the scores as they are.
        candidates: all of them, in order.
        n_rows: rows with score and label.
        n_patients: of these rows.
        n_patients_with: patients with the outcome.
        prevalence: share of rows with the outcome.
        mean_score: mean of the scores as they are.
        n_boot: replicates.
        seed: of the draws.
    """

    kept: Candidate
    candidates: tuple[Judged, ...]
    n_rows: int
    n_patients: int
    n_patients_with: int
    prevalence: float
    mean_score: float
    n_boot: int
    seed: int

    @property
    def chosen(self) -> Judged:
        """The candidate that was kept."""
        return next(judged for judged in self.candidates if judged.method == self.kept)


def decide(
    calibration: Calibration,
    score: npt.ArrayLike,
    y: npt.ArrayLike,
    patient: npt.ArrayLike,
    *,
    seed: int,
    n_boot: int = N_BOOT,
) -> LocalDecision:
    """Judge the candidates on a local sample.

    Args:
        calibration: that the scores went through.
        score: the model's scores as they are, shape (N,).
        y: 0/1 labels, shape (N,).
        patient: of each row, shape (N,); all rows of a patient are drawn, or left out, together.
        seed: of the draws.
        n_boot: replicates.

    Raises:
        EvaluationError: fewer than ``MIN_PATIENTS`` patients with, or without, the outcome.
    """
    score_N, y_N = np.asarray(score, dtype=np.float64), np.asarray(y, dtype=np.int64)
    names, unit_N = np.unique(np.asarray(patient), return_inverse=True)
    n_with = _check_size(y_N, unit_N)
    z_N = log_odds(calibration, score_N)
    fitted = {method: fit(method, z_N, y_N) for method in CANDIDATES}
    figures = _out_of_bag(score_N, z_N, y_N, unit_N, seed=seed, n_boot=n_boot)
    plain = figures["none"]
    judged = tuple(
        Judged(
            method=method,
            slope=slope,
            intercept=intercept,
            brier=figures[method][0],
            ici=figures[method][1],
            improves=slope > 0.0 and figures[method][0] < plain[0] and figures[method][1] < plain[1],
        )
        for method, (slope, intercept) in fitted.items()
    )
    better = sorted((one for one in judged if one.improves), key=lambda one: one.brier)
    return LocalDecision(
        kept=better[0].method if better else "none",
        candidates=judged,
        n_rows=len(y_N),
        n_patients=len(names),
        n_patients_with=n_with,
        prevalence=float(y_N.mean()),
        mean_score=float(score_N.mean()),
        n_boot=n_boot,
        seed=seed,
    )


def fit(method: Candidate, z_N: FloatArray, y_N: IntArray) -> tuple[float, float]:
    """Slope and intercept of a candidate by maximum likelihood, with Platt's softened labels; (1, 0) of ``none``."""
    if method == "none":
        return 1.0, 0.0
    target_N, ones_N = softened(y_N), np.ones_like(z_N)
    if method == "intercept":
        (intercept,) = fit_logistic((ones_N,), target_N, start=(0.0,), offset=z_N)
        return 1.0, intercept
    intercept, slope = fit_logistic((ones_N, z_N), target_N, start=(0.0, 1.0))
    return slope, intercept


def recalibrated_model(model: Stage2Model, decision: LocalDecision) -> Stage2Model:
    """The model with the kept candidate on top of its calibration; who is flagged stays as it is.

    Raw thresholds are unchanged, and so is what each does to the training patients.

    Raises:
        ValueError: nothing was kept.
    """
    if decision.kept == "none":
        raise ValueError("kept: found none; there is no other model to make")
    chosen, plain = decision.chosen, decision.candidates[0]
    calibration = moved(model.calibration, slope=chosen.slope, intercept=chosen.intercept)
    return replace(
        model,
        calibration=calibration,
        decision=CalibrationDecision(
            method=chosen.method,
            kept=True,
            why="improves Brier and ICI",
            brier=plain.brier,
            brier_calibrated=chosen.brier,
            ici=plain.ici,
            ici_calibrated=chosen.ici,
        ),
        thresholds=tuple(
            replace(point, threshold=score_threshold(calibration, point.raw_threshold)) for point in model.thresholds
        ),
    )


def _check_size(y_N: IntArray, unit_N: IntArray) -> int:
    """Number of patients with the outcome; who has it in any row has it."""
    with_U = np.zeros(int(unit_N.max(initial=-1)) + 1, dtype=bool)
    with_U[unit_N[y_N == 1]] = True
    n_with, n_without = int(with_U.sum()), int((~with_U).sum())
    if min(n_with, n_without) < MIN_PATIENTS:
        raise EvaluationError(
            f"local sample: found {n_with} patients with the outcome and {n_without} without; at least {MIN_PATIENTS} "
            f"of each are needed ({ADVISED_PATIENTS} of each are advised); label more patients, or re-base to a known "
            "prevalence (--prevalence), which needs no labels"
        )
    return n_with


def _out_of_bag(
    score_N: FloatArray, z_N: FloatArray, y_N: IntArray, unit_N: IntArray, *, seed: int, n_boot: int
) -> dict[Candidate, tuple[float, float]]:
    """Brier and ICI of each candidate on the patients who were not drawn, means over the replicates."""
    figures_B: dict[Candidate, list[tuple[float, float]]] = {method: [] for method in CANDIDATES}
    for drawn, left in _draws(unit_N, seed=seed, n_boot=n_boot):
        for method in CANDIDATES:
            slope, intercept = fit(method, z_N[drawn], y_N[drawn])
            # The scores as they are, not as the drawing in of log-odds leaves them.
            score_L = score_N[left] if method == "none" else np.asarray(expit(slope * z_N[left] + intercept))
            figures_B[method].append((brier(y_N[left], score_L), calibration_errors(y_N[left], score_L).ici))
    means = {method: np.mean(figures, axis=0) for method, figures in figures_B.items()}
    return {method: (float(mean[0]), float(mean[1])) for method, mean in means.items()}


def _draws(unit_N: IntArray, *, seed: int, n_boot: int) -> Iterator[tuple[IntArray, IntArray]]:
    """Rows of the patients drawn, as often as they were, and rows of those who were not."""
    n_units = int(unit_N.max()) + 1
    rows_U = np.split(np.argsort(unit_N, kind="stable"), np.cumsum(np.bincount(unit_N))[:-1])
    for child in np.random.SeedSequence(seed).spawn(n_boot):
        drawn_U = np.random.default_rng(child).integers(0, n_units, size=n_units)
        left_U = np.setdiff1d(np.arange(n_units), drawn_U)
        yield np.concatenate([rows_U[u] for u in drawn_U]), np.concatenate([rows_U[u] for u in left_U])

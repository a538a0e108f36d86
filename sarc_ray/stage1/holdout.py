"""Whose features stage 2 learns from: which member must not see which training patient, and who speaks for whom.

Shapes: M members of the ensemble that scores, I members in all (more than M only where folds have ensembles of their
own), N pictures, P patients.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from sarc_ray.errors import ConfigError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

TrainingFeatures = Literal["repeated_folds", "ensembles_per_fold", "in_sample"]
TRAINING_FEATURES: tuple[TrainingFeatures, ...] = get_args(TrainingFeatures)
MIN_MEMBERS_REPEATED_FOLDS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class MemberPlan:
    """Who learns from whom, and who speaks for whom.

    Attributes:
        held_out_IN: shape (I, N), True where a member must not learn from a picture.
        speaks_IN: shape (I, N), True where a member's prediction becomes part of a picture's features. The first M
            members are those that score new patients, and they speak for every picture that is not for training.
    """

    held_out_IN: BoolArray
    speaks_IN: BoolArray


def plan_members(
    training_features: TrainingFeatures,
    *,
    members: int,
    patient_N: npt.ArrayLike,
    y_N: npt.ArrayLike,
    training_N: npt.ArrayLike,
    seed: int,
) -> MemberPlan:
    """Plan the members of one target; every target has the same plan.

    Args:
        training_features: ``repeated_folds``: M members, each training patient unseen by two of them.
            ``ensembles_per_fold``: M members that see all training patients and score new ones; for each of M folds,
            M more that see the others and speak for its patients. ``in_sample``: M members that see all training
            patients and speak for all.
        members: M.
        patient_N: patient of each picture; a patient is never split.
        y_N: what folds are balanced by, as in ``hold_out_pairs``.
        training_N: True for pictures of training patients.
        seed: of the deal.

    Raises:
        ConfigError: too few members or training patients for such folds.
    """
    patient_N, y_N, training_N = np.asarray(patient_N), np.asarray(y_N), np.asarray(training_N, dtype=bool)
    folded = {"repeated_folds": hold_out_pairs, "ensembles_per_fold": hold_out_folds}.get(training_features)
    dealt = np.zeros((members, len(training_N)), dtype=bool)
    if folded is not None:
        dealt[:, training_N] = folded(patient_N[training_N], y_N[training_N], members=members, seed=seed)
    if training_features == "repeated_folds":
        return MemberPlan(held_out_IN=dealt, speaks_IN=dealt | ~training_N)
    if training_features == "in_sample":
        return MemberPlan(held_out_IN=dealt, speaks_IN=np.ones_like(dealt))
    of_folds = np.repeat(dealt, members, axis=0)
    scoring = np.zeros_like(dealt)
    return MemberPlan(
        held_out_IN=np.concatenate([scoring, of_folds]),
        speaks_IN=np.concatenate([np.broadcast_to(~training_N, scoring.shape), of_folds]),
    )


def hold_out_pairs(patient_N: npt.ArrayLike, y_N: npt.ArrayLike, *, members: int, seed: int) -> BoolArray:
    """Deal patients to the pairs of members that must not see them.

    There are M (M - 1) / 2 pairs, each with the same number of patients. Every patient is unseen by exactly two
    members, and every member sees (M - 2) / M of the patients. Since any two members share as many patients as any
    other two, the pair behind a training patient disagrees, in expectation, as much as any pair does on a new
    patient: the unbiased epistemic part means the same in both. (With M folds of which member m leaves out folds m
    and m + 1, the pairs that speak share more patients than others do, and agree too well.)

    Args:
        patient_N: patient of each picture; a patient is never split.
        y_N: what the deal is balanced by (a measurement or 0/1 outcome); a patient counts with the mean of the known
            values, patients with none are dealt last.
        members: M, at least 3.
        seed: of the deal.

    Returns:
        Shape (M, N), True where a member holds the picture out.

    Raises:
        ConfigError: fewer than 3 members, or fewer patients than pairs.
    """
    if members < MIN_MEMBERS_REPEATED_FOLDS:
        raise ConfigError(
            f"ensemble.members: found {members}, allowed with training_features: repeated_folds: "
            f"{MIN_MEMBERS_REPEATED_FOLDS} or more"
        )
    pairs = np.array(list(combinations(range(members), 2)))
    pair_N2 = pairs[_deal(patient_N, y_N, parts=len(pairs), members=members, seed=seed)]
    return np.asarray((pair_N2[None] == np.arange(members)[:, None, None]).any(axis=2))


def hold_out_folds(patient_N: npt.ArrayLike, y_N: npt.ArrayLike, *, members: int, seed: int) -> BoolArray:
    """Deal patients into M folds, shape (M, N): True where the picture lies in the fold; otherwise as pairs."""
    fold_N = _deal(patient_N, y_N, parts=members, members=members, seed=seed)
    return np.asarray(fold_N == np.arange(members)[:, None])


def _deal(patient_N: npt.ArrayLike, y_N: npt.ArrayLike, *, parts: int, members: int, seed: int) -> IntArray:
    """The part of each picture; parts differ by at most one patient."""
    patients, patient_of_N = np.unique(np.asarray(patient_N), return_inverse=True)
    if len(patients) < parts:
        raise ConfigError(
            f"ensemble.members: found {members}, which takes {parts} training patients or more, but there are only "
            f"{len(patients)}"
        )
    rng = np.random.default_rng(seed)
    y_P = _mean_by_patient(np.asarray(y_N, dtype=np.float64), patient_of_N, len(patients))
    # Like values lie side by side, ties in random order; each run of neighbours goes to different parts.
    order_P = np.lexsort((rng.random(len(patients)), y_P))
    part_P = np.empty(len(patients), dtype=np.int64)
    for start in range(0, len(patients), parts):
        run = order_P[start : start + parts]
        part_P[run] = rng.permutation(parts)[: len(run)]
    return np.asarray(part_P[patient_of_N])


def _mean_by_patient(y_N: FloatArray, patient_of_N: npt.NDArray[np.intp], n_patients: int) -> FloatArray:
    known_N = np.isfinite(y_N)
    n_P = np.bincount(patient_of_N[known_N], minlength=n_patients)
    total_P = np.bincount(patient_of_N[known_N], weights=y_N[known_N], minlength=n_patients)
    return np.where(n_P > 0, total_P / np.maximum(n_P, 1), np.inf)

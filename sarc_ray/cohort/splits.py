"""Train, tune and internal test split: by patient, stratified, the same for any order of the rows.

The paper splits 80:20 twice: first the internal test set off, then the tuning set off the rest.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from sarc_ray.errors import ManifestError

TRAIN, TUNE, TEST_INTERNAL, TEST_EXTERNAL = "train", "tune", "test_internal", "test_external"
_CATEGORIES_MAX = 10
_QUANTILE_GROUPS = 5
_MIN_PATIENTS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitConfig:
    """How patients are split where the manifest does not say.

    Args:
        test_fraction: share of all patients in the internal test set.
        tune_fraction: share of the remaining patients in the tuning set.
        stratify_by: ``outcome``, or a column of the manifest (numbers with many values go by fifths), or null.
    """

    test_fraction: float
    tune_fraction: float
    stratify_by: str | None

    def __post_init__(self) -> None:
        for name, value in (("test_fraction", self.test_fraction), ("tune_fraction", self.tune_fraction)):
            if not 0 < value < 1:
                raise ValueError(f"{name}: found {value}, allowed: between 0 and 1, both excluded")


def assign_splits(frame: pd.DataFrame, config: SplitConfig, *, labels: pd.Series, seed: int) -> pd.DataFrame:
    """Give every row a split; all rows of a patient get the same.

    A split column that is filled in every row is kept as it is. Otherwise, within each stratum, patients are
    shuffled and dealt by largest remainders, so that a stratum's share is off by less than one patient.

    Args:
        frame: eligible rows, with ``patient_id``.
        config: fractions and strata. A patient's stratum is the largest value over the patient's rows; patients
            without any value form a stratum of their own.
        labels: outcome per row, with the frame's index; used where ``stratify_by`` is ``outcome``.
        seed: of the shuffle. The result does not depend on the order of the rows.

    Returns:
        A copy with the column ``split``: ``train``, ``tune`` or ``test_internal``.

    Raises:
        ManifestError: only some rows have a split, a patient has two, a column is missing, or there are fewer
            than three patients.
    """
    if "split" in frame and frame["split"].notna().any():
        _check_given(frame)
        return frame.copy()
    strata = _patient_strata(frame, config.stratify_by, labels)
    if len(strata) < _MIN_PATIENTS:
        raise ManifestError(
            f"found {len(strata)} eligible patient(s); a split needs at least {_MIN_PATIENTS}; "
            "relax the eligibility, or give a larger manifest"
        )
    test_seed, tune_seed = np.random.SeedSequence(seed).spawn(2)
    test = _deal(strata, config.test_fraction, rng=np.random.default_rng(test_seed))
    rest = strata[~strata.index.isin(test)]
    tune = _deal(rest, config.tune_fraction, rng=np.random.default_rng(tune_seed))
    split_of = dict.fromkeys(strata.index, TRAIN) | dict.fromkeys(test, TEST_INTERNAL) | dict.fromkeys(tune, TUNE)
    return frame.assign(split=frame["patient_id"].map(split_of).astype("str"))


def _check_given(frame: pd.DataFrame) -> None:
    lacking = int(frame["split"].isna().sum())
    if lacking:
        raise ManifestError(
            f"column split: {lacking} of {len(frame)} eligible rows have no split; fill in all rows, or drop the column"
        )
    found = set(frame["split"])
    absent = [name for name in (TRAIN, TUNE, TEST_INTERNAL) if name not in found]
    if absent or TEST_EXTERNAL in found:
        raise ManifestError(
            f"column split: found {', '.join(sorted(found))} among the eligible rows; needed are {TRAIN}, {TUNE} and "
            f"{TEST_INTERNAL}, and external patients go into a manifest of their own (data.external); correct it, or "
            "drop the column"
        )
    per_patient = frame.groupby("patient_id")["split"].nunique()
    if (per_patient > 1).any():
        raise ManifestError(
            f"column split: {int((per_patient > 1).sum())} patient(s) have rows in more than one split; allowed: one "
            "split per patient_id, or training leaks into the test; correct it, or drop the column"
        )


def _patient_strata(frame: pd.DataFrame, stratify_by: str | None, labels: pd.Series) -> pd.Series:
    """Stratum (text) of each patient, indexed and sorted by patient_id."""
    if stratify_by is None:
        values = pd.Series(0.0, index=frame.index)
    elif stratify_by == "outcome":
        values = labels.loc[frame.index]
    elif stratify_by in frame:
        values = frame[stratify_by]
    else:
        raise ManifestError(
            f"column {stratify_by}: missing; split.stratify_by asks for it; allowed: outcome, a column, or null"
        )
    per_patient = values.groupby(frame["patient_id"], sort=True).max()
    if pd.api.types.is_numeric_dtype(per_patient) and per_patient.nunique() > _CATEGORIES_MAX:
        per_patient = pd.qcut(per_patient, _QUANTILE_GROUPS, labels=False, duplicates="drop")
    return per_patient.astype(object).where(per_patient.notna(), "unknown").map(str)


def _deal(strata: pd.Series, fraction: float, *, rng: np.random.Generator) -> list[Hashable]:
    """Patients of a random share of each stratum, at least one patient and never all of them."""
    patients_by_stratum = {key: group.index.to_numpy() for key, group in strata.groupby(strata, sort=True)}
    quota = {key: fraction * len(patients) for key, patients in patients_by_stratum.items()}
    n_wanted = min(max(round(fraction * len(strata)), 1), len(strata) - 1)
    taken = {key: int(q) for key, q in quota.items()}
    by_remainder = sorted(quota, key=lambda key: (taken[key] - quota[key], str(key)))
    for key in by_remainder[: n_wanted - sum(taken.values())]:
        taken[key] += 1
    chosen: list[Hashable] = []
    for key, patients in patients_by_stratum.items():
        chosen += list(rng.permutation(patients)[: taken[key]])
    return chosen

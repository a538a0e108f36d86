import math

import numpy as np
import pandas as pd
import pytest

from sarc_ray.cohort.splits import SplitConfig, assign_splits
from sarc_ray.errors import ManifestError

BY_OUTCOME = SplitConfig(test_fraction=0.2, tune_fraction=0.2, stratify_by="outcome")


def cohort(n_patients: int, *, images: int = 1, share: float = 0.15) -> tuple[pd.DataFrame, pd.Series]:
    rng = np.random.default_rng(4)
    patients = np.repeat([f"p{i:05d}" for i in range(n_patients)], images)
    frame = pd.DataFrame({"patient_id": pd.Series(patients, dtype="str"), "row_id": np.arange(len(patients))})
    frame["age_years"] = rng.uniform(40, 90, len(frame))
    return frame, pd.Series((rng.random(len(frame)) < share).astype(float), name="outcome")


def test_the_papers_numbers() -> None:
    frame, labels = cohort(926)
    config = SplitConfig(test_fraction=0.2041, tune_fraction=0.2, stratify_by="outcome")
    sizes = assign_splits(frame, config, labels=labels, seed=0)["split"].value_counts()
    assert sizes.to_dict() == {"train": 590, "test_internal": 189, "tune": 147}


def test_no_patient_spans_two_splits() -> None:
    frame, labels = cohort(200, images=3)
    split = assign_splits(frame, BY_OUTCOME, labels=labels, seed=1)
    assert split.groupby("patient_id")["split"].nunique().max() == 1
    assert set(split["split"]) == {"train", "tune", "test_internal"}
    assert split["split"].notna().all()


def test_strata_are_dealt_within_one_patient() -> None:
    frame, labels = cohort(500)
    labels = labels.where(np.arange(500) % 11 != 0)  # some outcomes are not known
    split = assign_splits(frame, BY_OUTCOME, labels=labels, seed=2)["split"]
    for stratum in (labels == 1, labels == 0, labels.isna()):
        n_patients = int(stratum.sum())
        n_test = int((split[stratum] == "test_internal").sum())
        n_tune = int((split[stratum] == "tune").sum())
        assert abs(n_test - 0.2 * n_patients) < 1
        assert abs(n_tune - 0.2 * (n_patients - n_test)) < 1


def test_a_patients_stratum_is_its_largest_outcome() -> None:
    frame, _ = cohort(100, images=2)
    labels = pd.Series(np.tile([0.0, 1.0], 100))
    labels[40:] = 0.0  # 20 of 100 patients have the outcome, in one of their two images
    split = assign_splits(frame, BY_OUTCOME, labels=labels, seed=3)
    test = split[split["split"] == "test_internal"]
    assert labels[test.index].sum() == 4
    assert test["patient_id"].nunique() == 20


def test_seed_decides_and_row_order_does_not() -> None:
    frame, labels = cohort(120, images=2)
    split = assign_splits(frame, BY_OUTCOME, labels=labels, seed=5)
    shuffled = frame.sample(frac=1.0, random_state=0)
    again = assign_splits(shuffled, BY_OUTCOME, labels=labels, seed=5)
    pd.testing.assert_series_equal(again["split"].sort_index(), split["split"])
    other = assign_splits(frame, BY_OUTCOME, labels=labels, seed=6)
    assert (other["split"] != split["split"]).any()
    assert "split" not in frame


def test_membership_is_uniform_over_seeds() -> None:
    frame, labels = cohort(10, share=0.0)
    counts = np.zeros(10)
    for seed in range(400):
        split = assign_splits(frame, BY_OUTCOME, labels=labels, seed=seed)["split"]
        counts += (split == "test_internal").to_numpy()
    # 400 seeds, two of ten patients each: 80 expected, standard deviation 8.
    assert np.all(np.abs(counts - 80) < 4 * math.sqrt(400 * 0.2 * 0.8))


def test_given_splits_are_kept() -> None:
    frame, labels = cohort(4)
    frame["split"] = ["train", "tune", "test_internal", "train"]
    kept = assign_splits(frame, BY_OUTCOME, labels=labels, seed=0)
    pd.testing.assert_frame_equal(kept, frame)


@pytest.mark.parametrize("last", ["train", "test_external"])
def test_given_splits_need_all_three_and_no_external(last) -> None:
    frame, labels = cohort(4)
    frame["split"] = ["train", "tune", "tune" if last == "train" else "test_internal", last]
    with pytest.raises(ManifestError, match="needed are train, tune and test_internal"):
        assign_splits(frame, BY_OUTCOME, labels=labels, seed=0)


def test_partial_and_leaking_splits_are_refused() -> None:
    frame, labels = cohort(4)
    frame["split"] = ["train", "tune", None, None]
    with pytest.raises(ManifestError, match="2 of 4 eligible rows have no split"):
        assign_splits(frame, BY_OUTCOME, labels=labels, seed=0)
    frame["split"] = ["train", "tune", "test_internal", "train"]
    frame["patient_id"] = ["a", "b", "b", "c"]
    with pytest.raises(ManifestError, match=r"1 patient\(s\) have rows in more than one split"):
        assign_splits(frame, BY_OUTCOME, labels=labels, seed=0)


def test_an_empty_split_column_counts_as_none() -> None:
    frame, labels = cohort(20)
    frame["split"] = pd.Series([None] * 20, dtype="str")
    assert assign_splits(frame, BY_OUTCOME, labels=labels, seed=0)["split"].notna().all()


def test_numbers_are_stratified_by_fifths() -> None:
    frame, labels = cohort(500)
    config = SplitConfig(test_fraction=0.2, tune_fraction=0.2, stratify_by="age_years")
    split = assign_splits(frame, config, labels=labels, seed=1)["split"]
    fifths = pd.qcut(frame["age_years"], 5, labels=False)
    assert fifths[split == "test_internal"].value_counts().tolist() == [20] * 5


def test_without_strata_and_with_an_unknown_column() -> None:
    frame, labels = cohort(50)
    none = SplitConfig(test_fraction=0.2, tune_fraction=0.25, stratify_by=None)
    sizes = assign_splits(frame, none, labels=labels, seed=1)["split"].value_counts()
    assert sizes.to_dict() == {"train": 30, "test_internal": 10, "tune": 10}
    by_ward = SplitConfig(test_fraction=0.2, tune_fraction=0.2, stratify_by="ward")
    with pytest.raises(ManifestError, match="column ward: missing"):
        assign_splits(frame, by_ward, labels=labels, seed=1)


def test_small_cohorts_fill_every_split_or_are_refused() -> None:
    frame, labels = cohort(3)
    assert assign_splits(frame, BY_OUTCOME, labels=labels, seed=0)["split"].nunique() == 3
    frame, labels = cohort(2)
    with pytest.raises(ManifestError, match=r"found 2 eligible patient\(s\)"):
        assign_splits(frame, BY_OUTCOME, labels=labels, seed=0)


@pytest.mark.parametrize(("test", "tune"), [(0.0, 0.2), (1.0, 0.2), (0.2, 0.0), (0.2, 1.5)])
def test_config_refuses(test: float, tune: float) -> None:
    with pytest.raises(ValueError, match="_fraction: found"):
        SplitConfig(test_fraction=test, tune_fraction=tune, stratify_by=None)

import math

import numpy as np
import pandas as pd
import pytest

from sarc_ray.cohort.definitions import OutcomeConfig
from sarc_ray.cohort.selection import EligibilityConfig, index_images, select
from sarc_ray.errors import ManifestError

NAN = math.nan
PAPER = EligibilityConfig(
    age_min_years=40.0, gap_max_days=90.0, require_muscle_function=True, one_image_per_patient=True, views=()
)


def manifest(rows: list[dict[str, object]]) -> pd.DataFrame:
    normal = {"age_years": 60.0, "gap_days": 5.0, "hgs_kg": 20.0, "crt_s": 10.0, "alm_kg": 16.0, "view": "PA"}
    frame = pd.DataFrame([{**normal, **row} for row in rows])
    frame["patient_id"] = frame["patient_id"].astype("str")
    frame["row_id"] = np.arange(len(frame), dtype=np.int64) * 10
    return frame


FRAME = manifest(
    [
        {"patient_id": "a", "gap_days": 30.0},
        {"patient_id": "a", "gap_days": -3.0},
        {"patient_id": "a", "gap_days": 91.0},
        {"patient_id": "b", "age_years": 39.0},
        {"patient_id": "c", "age_years": NAN},
        {"patient_id": "d", "hgs_kg": NAN, "crt_s": NAN},
        {"patient_id": "e", "hgs_kg": NAN, "alm_kg": NAN},
        {"patient_id": "f", "gap_days": NAN},
        {"patient_id": "g", "gap_days": 90.0, "age_years": 40.0, "crt_s": NAN},
    ]
)


def test_flow_counts_every_exclusion_once() -> None:
    selection = select(FRAME, PAPER, require_alm=True)
    counts = [(s.n_images, s.n_patients, s.excluded_images, s.excluded_patients) for s in selection.flow]
    assert counts == [
        (9, 7, 0, 0),  # screened
        (7, 6, 2, 1),  # gap over 90 days, or unknown; patient a keeps two images
        (5, 4, 2, 2),  # age
        (4, 3, 1, 1),  # no muscle function
        (3, 2, 1, 1),  # no ALM
        (2, 2, 1, 0),  # index image
    ]
    assert selection.frame["row_id"].tolist() == [10, 80]
    assert selection.frame.index.tolist() == [0, 1]
    assert selection.flow_table()["excluded_images"].sum() == len(FRAME) - len(selection.frame)
    assert "90 days" in selection.flow[1].label


def test_selection_does_not_depend_on_the_order_of_rows() -> None:
    shuffled = FRAME.sample(frac=1.0, random_state=3)
    once, again = select(FRAME, PAPER), select(shuffled, PAPER)
    assert set(once.frame["row_id"]) == set(again.frame["row_id"])
    assert once.flow == again.flow


def test_derivation_keeps_patients_without_alm() -> None:
    assert "e" in set(select(FRAME, PAPER).frame["patient_id"])
    assert "e" not in set(select(FRAME, PAPER, require_alm=True).frame["patient_id"])


def test_index_image_is_the_nearest_and_ties_go_to_the_smallest_row_id() -> None:
    frame = manifest(
        [
            {"patient_id": "a", "gap_days": 4.0},
            {"patient_id": "a", "gap_days": -2.0},
            {"patient_id": "b", "gap_days": NAN},
            {"patient_id": "b", "gap_days": 80.0},
            {"patient_id": "c", "gap_days": 1.0},
            {"patient_id": "c", "gap_days": -1.0},
        ]
    )
    assert index_images(frame)["row_id"].tolist() == [10, 30, 40]
    assert index_images(frame.drop(columns="gap_days"))["row_id"].tolist() == [0, 20, 40]


def test_all_images_can_be_kept() -> None:
    config = EligibilityConfig(
        age_min_years=0.0, gap_max_days=None, require_muscle_function=False, one_image_per_patient=False, views=()
    )
    bare = FRAME[["patient_id", "row_id"]]
    selection = select(bare, config)
    assert len(selection.frame) == len(FRAME)
    assert [step.label for step in selection.flow] == ["screened"]


def test_views_keep_rows_whose_view_is_unknown() -> None:
    config = EligibilityConfig(
        age_min_years=0.0,
        gap_max_days=None,
        require_muscle_function=False,
        one_image_per_patient=False,
        views=("PA",),
    )
    frame = manifest([{"patient_id": "a"}, {"patient_id": "b", "view": "AP"}, {"patient_id": "c", "view": None}])
    assert select(frame, config).frame["patient_id"].tolist() == ["a", "c"]
    assert len(select(frame.drop(columns="view"), config).frame) == 3


def test_rows_without_a_column_outcome_are_excluded() -> None:
    config = EligibilityConfig(
        age_min_years=0.0, gap_max_days=None, require_muscle_function=False, one_image_per_patient=False, views=()
    )
    frame = manifest([{"patient_id": "a", "finding": 1.0}, {"patient_id": "b", "finding": NAN}])
    outcome = OutcomeConfig(definition="column", column="finding")
    selection = select(frame, config, outcome=outcome)
    assert selection.frame["patient_id"].tolist() == ["a"]
    assert selection.flow[-1].label == "outcome finding known"
    awgs = OutcomeConfig(definition="awgs2019", column=None)
    assert len(select(frame, config, outcome=awgs).frame) == 2


@pytest.mark.parametrize(
    ("columns", "message"),
    [(["gap_days"], "gap_max_days to null"), (["age_years"], "age_min_years to 0"), (["hgs_kg", "crt_s"], "false")],
)
def test_a_criterion_without_its_column_is_refused(columns: list[str], message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        select(FRAME.drop(columns=columns), PAPER)


def test_one_function_column_suffices() -> None:
    kept = select(FRAME.drop(columns="hgs_kg"), PAPER).frame["patient_id"]
    assert set(kept) == {"a", "e"}


@pytest.mark.parametrize(
    ("age", "gap"), [(-1.0, 90.0), (121.0, 90.0), (math.nan, 90.0), (40.0, -1.0), (40.0, math.inf)]
)
def test_config_refuses(age: float, gap: float) -> None:
    with pytest.raises(ValueError, match="found"):
        EligibilityConfig(
            age_min_years=age, gap_max_days=gap, require_muscle_function=True, one_image_per_patient=True, views=()
        )

import itertools
import math

import numpy as np
import pandas as pd
import pytest

from sarc_ray.cohort.definitions import (
    OutcomeConfig,
    almi_kg_m2,
    low_almi,
    low_crt,
    low_hgs,
    low_muscle_function,
    outcome_columns,
    outcome_labels,
    sarcopenia_stages,
)
from sarc_ray.errors import ManifestError

NAN = math.nan
AWGS = OutcomeConfig(definition="awgs2019", column=None)


def person(**values: object) -> dict[str, object]:
    normal = {
        "sex": "F",
        "height_m": 1.6,
        "alm_kg": 16.0,
        "hgs_kg": 25.0,
        "crt_s": 8.0,
        "body_comp_method": "bia",
    }
    return {**normal, **values}


def of(function: object, **values: object) -> float:
    return function(pd.DataFrame([person(**values)])).iloc[0]  # type: ignore[operator]


def almi(value: float) -> float:
    return value * 1.6**2


@pytest.mark.parametrize(
    ("function", "values", "expected"),
    [
        (low_hgs, {"hgs_kg": 17.99}, 1),
        (low_hgs, {"hgs_kg": 18.0}, 0),
        (low_hgs, {"sex": "M", "hgs_kg": 27.99}, 1),
        (low_hgs, {"sex": "M", "hgs_kg": 28.0}, 0),
        (low_hgs, {"hgs_kg": NAN}, NAN),
        (low_hgs, {"sex": None, "hgs_kg": 10.0}, NAN),
        (low_crt, {"crt_s": 12.0}, 1),
        (low_crt, {"crt_s": 11.99}, 0),
        (low_crt, {"crt_s": NAN}, NAN),
        (low_almi, {"alm_kg": almi(5.69)}, 1),
        (low_almi, {"alm_kg": almi(5.71)}, 0),
        (low_almi, {"alm_kg": almi(5.41), "body_comp_method": "dxa"}, 0),
        (low_almi, {"alm_kg": almi(5.39), "body_comp_method": "dxa"}, 1),
        (low_almi, {"sex": "M", "alm_kg": almi(6.99)}, 1),
        (low_almi, {"sex": "M", "alm_kg": almi(7.01), "body_comp_method": "dxa"}, 0),
        # Where the method is unknown, only a woman between the two cut-offs stays open.
        (low_almi, {"alm_kg": almi(5.5), "body_comp_method": None}, NAN),
        (low_almi, {"alm_kg": almi(5.3), "body_comp_method": None}, 1),
        (low_almi, {"alm_kg": almi(5.8), "body_comp_method": None}, 0),
        (low_almi, {"sex": "M", "alm_kg": almi(6.9), "body_comp_method": None}, 1),
        (low_almi, {"alm_kg": NAN}, NAN),
        (low_muscle_function, {"hgs_kg": 10.0, "crt_s": NAN}, 1),
        (low_muscle_function, {"hgs_kg": 30.0, "crt_s": NAN}, NAN),
        (low_muscle_function, {"hgs_kg": 30.0, "crt_s": 8.0}, 0),
    ],
)
def test_components_at_their_cutoffs(function: object, values: dict[str, object], expected: float) -> None:
    np.testing.assert_equal(of(function, **values), float(expected))


def test_outcome_follows_three_valued_logic() -> None:
    choices = {0: (almi(8.0), 30.0, 8.0), 1: (almi(5.0), 10.0, 20.0), None: (NAN, NAN, NAN)}
    for mass, strength, performance in itertools.product(choices, repeat=3):
        values = {
            "alm_kg": choices[mass][0],
            "hgs_kg": choices[strength][1],
            "crt_s": choices[performance][2],
        }
        # The outcome is known exactly where every completion of the unknown parts agrees on it.
        completions = {
            bool(m and (s or p))
            for m, s, p in itertools.product(
                *[(0, 1) if part is None else (part,) for part in (mass, strength, performance)]
            )
        }
        expected = float(completions.pop()) if len(completions) == 1 else NAN
        frame = pd.DataFrame([person(**values)])
        np.testing.assert_equal(outcome_labels(frame, AWGS).iloc[0], expected)
        np.testing.assert_equal(sarcopenia_stages(frame)["sarcopenia"].iloc[0], expected)


def test_stages_are_nested_and_severe_needs_all_three() -> None:
    frame = pd.DataFrame(
        [
            person(hgs_kg=10.0),
            person(hgs_kg=10.0, alm_kg=almi(5.0)),
            person(hgs_kg=10.0, alm_kg=almi(5.0), crt_s=20.0),
            person(hgs_kg=10.0, alm_kg=almi(5.0), crt_s=NAN),
        ],
        index=[7, 8, 9, 10],
    )
    stages = sarcopenia_stages(frame)
    assert stages["possible_sarcopenia"].tolist() == [1, 1, 1, 1]
    assert stages["sarcopenia"].tolist() == [0, 1, 1, 1]
    np.testing.assert_equal(stages["severe_sarcopenia"].to_numpy(), [0, 0, 1, NAN])
    assert stages.index.tolist() == [7, 8, 9, 10]


def test_almi_divides_by_height_squared() -> None:
    assert almi_kg_m2(pd.DataFrame([person(alm_kg=20.0, height_m=2.0)])).tolist() == [5.0]


def test_method_column_may_be_absent() -> None:
    frame = pd.DataFrame([person(alm_kg=almi(5.5)), person(alm_kg=almi(5.0))]).drop(columns="body_comp_method")
    np.testing.assert_equal(low_almi(frame).to_numpy(), [NAN, 1])


def test_column_outcome_must_be_0_or_1() -> None:
    config = OutcomeConfig(definition="column", column="any_finding")
    frame = pd.DataFrame({"any_finding": [1.0, 0.0, NAN]})
    np.testing.assert_equal(outcome_labels(frame, config).to_numpy(), [1, 0, NAN])
    assert outcome_columns(config) == ("any_finding",)
    with pytest.raises(ManifestError, match=r"row 2, column any_finding: found 2; allowed: 0, 1 or empty"):
        outcome_labels(pd.DataFrame({"any_finding": [1.0, 2.0]}), config)


@pytest.mark.parametrize("name", outcome_columns(AWGS))
def test_missing_columns_are_named(name: str) -> None:
    with pytest.raises(ManifestError, match=f"column {name}: missing"):
        outcome_labels(pd.DataFrame([person()]).drop(columns=name), AWGS)


@pytest.mark.parametrize(
    ("definition", "column", "message"),
    [("ewgsop", None, "definition: found"), ("column", None, "column: found none"), ("awgs2019", "x", "column: found")],
)
def test_config_refuses(definition: str, column: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OutcomeConfig(definition=definition, column=column)  # type: ignore[arg-type]

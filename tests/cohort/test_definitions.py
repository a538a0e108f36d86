import itertools
import math
from typing import get_args

import numpy as np
import pandas as pd
import pytest

from sarc_ray.cohort.definitions import (
    DEFINITIONS,
    GUIDELINES,
    QUANTITIES,
    DefinitionName,
    OutcomeConfig,
    almi_kg_m2,
    low_almi,
    low_crt,
    low_hgs,
    low_muscle_function,
    outcome_columns,
    outcome_labels,
    outcome_name,
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


# A woman and a man with nothing low by any guideline.
SOUND = {
    "F": {"hgs_kg": 30.0, "crt_s": 8.0, "gait_speed_m_s": 1.2, "alm_kg": 18.0, "height_m": 1.6, "bmi_kg_m2": 22.0},
    "M": {"hgs_kg": 40.0, "crt_s": 8.0, "gait_speed_m_s": 1.2, "alm_kg": 26.0, "height_m": 1.7, "bmi_kg_m2": 24.0},
}
# Low by every guideline, by whatever method.
LOW = {"hgs_kg": 10.0, "crt_s": 20.0, "gait_speed_m_s": 0.5, "alm_kg": 10.0}
PUBLISHED = [name for name in get_args(DefinitionName) if name != "column"]


def labelled(name: str, sex: str = "F", **values: object) -> float:
    frame = pd.DataFrame([{"sex": sex, "body_comp_method": "dxa", **SOUND[sex], **values}])
    return float(outcome_labels(frame, OutcomeConfig(definition=name, column=None)).iloc[0])  # type: ignore[arg-type]


# The cut-offs as the papers print them: definition, sex, everything else that it asks for, the value just inside and
# the value just outside.
AT_THE_CUTOFF = [
    ("awgs2019_possible", "F", {}, "hgs_kg", 17.99, 18.0),
    ("awgs2019_possible", "M", {}, "hgs_kg", 27.99, 28.0),
    ("awgs2019_possible", "F", {}, "crt_s", 12.0, 11.99),
    ("awgs2019_severe", "M", {"alm_kg": 10.0, "hgs_kg": 10.0}, "crt_s", 12.0, 11.99),
    ("ewgsop2_2019_probable", "F", {}, "hgs_kg", 15.99, 16.0),
    ("ewgsop2_2019_probable", "M", {}, "hgs_kg", 26.99, 27.0),
    ("ewgsop2_2019_probable", "F", {}, "crt_s", 15.01, 15.0),
    ("ewgsop2_2019_probable", "M", {}, "crt_s", 15.01, 15.0),
    ("ewgsop2_2019", "F", {"hgs_kg": 10.0, "height_m": 1.4}, "alm_kg", 14.99, 15.0),
    ("ewgsop2_2019", "M", {"hgs_kg": 10.0, "height_m": 1.5}, "alm_kg", 19.99, 20.0),
    ("ewgsop2_2019", "F", {"hgs_kg": 10.0, "height_m": 2.0}, "alm_kg", 4 * 5.49, 4 * 5.51),
    ("ewgsop2_2019", "M", {"hgs_kg": 10.0, "height_m": 2.0}, "alm_kg", 4 * 6.99, 4 * 7.01),
    ("ewgsop2_2019_severe", "F", {"hgs_kg": 10.0, "alm_kg": 10.0}, "gait_speed_m_s", 0.8, 0.81),
    ("ewgsop2_2019_severe", "M", {"crt_s": 20.0, "alm_kg": 10.0}, "gait_speed_m_s", 0.8, 0.81),
    ("fnih2014", "F", {"alm_kg": 10.0}, "hgs_kg", 15.99, 16.0),
    ("fnih2014", "M", {"alm_kg": 10.0}, "hgs_kg", 25.99, 26.0),
    ("fnih2014", "F", {"hgs_kg": 10.0, "bmi_kg_m2": 20.0}, "alm_kg", 20 * 0.511, 20 * 0.513),
    ("fnih2014", "M", {"hgs_kg": 10.0, "bmi_kg_m2": 20.0}, "alm_kg", 20 * 0.788, 20 * 0.790),
    ("awgs2014", "F", {"alm_kg": 10.0}, "hgs_kg", 17.99, 18.0),
    ("awgs2014", "M", {"alm_kg": 10.0}, "hgs_kg", 25.99, 26.0),
    ("awgs2014", "F", {"alm_kg": 10.0}, "gait_speed_m_s", 0.8, 0.81),
    ("awgs2014", "M", {"alm_kg": 10.0}, "gait_speed_m_s", 0.8, 0.81),
    ("awgs2014", "F", {"hgs_kg": 10.0, "height_m": 2.0}, "alm_kg", 4 * 5.39, 4 * 5.41),
    ("awgs2014", "F", {"hgs_kg": 10.0, "height_m": 2.0, "body_comp_method": "bia"}, "alm_kg", 4 * 5.69, 4 * 5.71),
    ("awgs2014", "M", {"hgs_kg": 10.0, "height_m": 2.0, "body_comp_method": "bia"}, "alm_kg", 4 * 6.99, 4 * 7.01),
]


@pytest.mark.parametrize(("name", "sex", "rest", "column", "low", "normal"), AT_THE_CUTOFF)
def test_published_cutoffs(name: str, sex: str, rest: dict[str, object], column: str, low: float, normal: float):
    assert labelled(name, sex, **{**rest, column: low}) == 1
    assert labelled(name, sex, **{**rest, column: normal}) == 0


def test_every_published_cutoff_is_tried():
    """Each definition's quantities and sexes stand in the list above, or in that of AWGS 2019's components."""
    tried = {(DEFINITIONS[name].guideline, column) for name, _, _, column, _, _ in AT_THE_CUTOFF}
    for name, guideline in GUIDELINES.items():
        for cutoff in guideline.cutoffs:
            measured = {
                column for column in QUANTITIES[cutoff.quantity].columns if column not in ("height_m", "bmi_kg_m2")
            }
            assert name == "awgs2019" or {(name, column) for column in measured} <= tried


@pytest.mark.parametrize("name", PUBLISHED)
def test_an_outcome_is_known_exactly_where_every_completion_agrees(name: str) -> None:
    measured = [column for column in LOW if column in outcome_columns(OutcomeConfig(definition=name, column=None))]
    values = {"low": LOW, "normal": SOUND["F"], "unknown": dict.fromkeys(LOW, NAN)}
    found = {
        states: labelled(name, **{c: values[state][c] for c, state in zip(measured, states, strict=True)})
        for states in itertools.product(values, repeat=len(measured))
    }
    for states, outcome in found.items():
        options = [("low", "normal") if state == "unknown" else (state,) for state in states]
        answers = {found[completed] for completed in itertools.product(*options)}
        np.testing.assert_equal(outcome, answers.pop() if len(answers) == 1 else NAN)


@pytest.mark.parametrize(
    "names",
    [
        ("awgs2019_severe", "awgs2019", "awgs2019_possible"),
        ("ewgsop2_2019_severe", "ewgsop2_2019", "ewgsop2_2019_probable"),
    ],
)
def test_stages_are_nested(names: tuple[str, ...]) -> None:
    seen = set()
    for states in itertools.product((True, False), repeat=len(LOW)):
        values = {column: LOW[column] for column, low in zip(LOW, states, strict=True) if low}
        stages = tuple(labelled(name, "M", **values) for name in names)
        assert sorted(stages) == list(stages)
        seen.add(stages)
    assert seen == {(0, 0, 0), (0, 0, 1), (0, 1, 1), (1, 1, 1)}


def test_low_mass_by_either_measure_counts_in_ewgsop2() -> None:
    # Tall: 16 kg is enough by ALM and too little for the height; with the height unknown the outcome stays open.
    assert labelled("ewgsop2_2019", "F", hgs_kg=10.0, alm_kg=16.0, height_m=1.8) == 1
    assert math.isnan(labelled("ewgsop2_2019", "F", hgs_kg=10.0, alm_kg=16.0, height_m=NAN))
    assert labelled("ewgsop2_2019", "F", hgs_kg=10.0, alm_kg=14.0, height_m=NAN) == 1


def test_columns_and_names_of_the_definitions() -> None:
    of = {name: OutcomeConfig(definition=name, column=None) for name in PUBLISHED}
    assert list(DEFINITIONS) == PUBLISHED
    assert outcome_columns(of["awgs2019"]) == ("sex", "height_m", "alm_kg", "hgs_kg", "crt_s")
    assert outcome_columns(of["awgs2019_possible"]) == ("sex", "hgs_kg", "crt_s")
    assert outcome_columns(of["ewgsop2_2019_severe"]) == (
        *("sex", "alm_kg", "height_m", "hgs_kg", "crt_s", "gait_speed_m_s"),
    )
    assert outcome_columns(of["fnih2014"]) == ("sex", "bmi_kg_m2", "alm_kg", "hgs_kg")
    assert outcome_columns(of["awgs2014"]) == ("sex", "height_m", "alm_kg", "hgs_kg", "gait_speed_m_s")
    assert {outcome_name(of[name]) for name in PUBLISHED if "_" not in name} == {"sarcopenia"}
    assert outcome_name(of["ewgsop2_2019_probable"]) == "probable_sarcopenia"
    assert outcome_name(OutcomeConfig(definition="column", column="any_finding")) == "any_finding"


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_named_column_must_be_there(name: str) -> None:
    config = OutcomeConfig(definition=name, column=None)
    frame = pd.DataFrame([{"sex": "F", **SOUND["F"]}])
    assert outcome_labels(frame, config).tolist() == [0]
    for column in outcome_columns(config):
        with pytest.raises(ManifestError, match=f"column {column}: missing"):
            outcome_labels(frame.drop(columns=column), config)

"""What a manifest alone tells, in the words of scoring."""

import dataclasses

import numpy as np
import pandas as pd

from sarc_ray.errors import Reason
from sarc_ray.planning.census import take_census
from tests.bundle_factory import SPEC

FULL = {"age_years": 60.0, "sex": "F", "bmi_kg_m2": 24.0, "view": "PA"}


def manifest(*rows, **columns):
    frame = pd.DataFrame([FULL | row for row in rows])
    return frame.assign(**columns)


def test_rows_are_eligible_undecided_or_ineligible():
    rows = manifest(
        {},
        {"age_years": np.nan},
        {"bmi_kg_m2": np.nan},
        {"bmi_kg_m2": np.nan, "age_years": 30.0},  # ineligible, whatever a header says
        {"age_years": 12.0},
        {"view": "LATERAL"},
        {"sex": "X"},
        {"view": None},  # no feature of the bundle
    )
    census = take_census(rows, SPEC)
    assert (census.n_rows, census.eligible, census.headers_read) == (8, 2, False)
    assert census.undecided == {Reason.MISSING_AGE: 1, Reason.MISSING_BMI: 1}
    assert census.ineligible == {
        Reason.AGE_BELOW_MINIMUM: 1,
        Reason.IMPLAUSIBLE_FEATURE: 1,
        Reason.LATERAL_VIEW: 1,
        Reason.PAEDIATRIC: 1,
    }
    assert census.eligible + sum(census.undecided.values()) + sum(census.ineligible.values()) == census.n_rows


def test_of_an_inventory_the_headers_are_known():
    rows = manifest(
        {},
        {"age_years": np.nan},
        {"age_years": np.nan, "sex": None, "bmi_kg_m2": np.nan},
        {"age_years": np.nan, "sex": None, "bmi_kg_m2": np.nan},
        {"age_years": 12.0},
        reason=[None, None, "not_dicom", "storage_failed", "paediatric"],
        eligible=[1, 1, 0, 0, 0],
        bytes=[100.0, 100.0, 7.0, np.nan, 100.0],
    )
    census = take_census(rows, SPEC)
    assert (census.headers_read, census.eligible) == (True, 1)
    assert census.undecided == {Reason.STORAGE_FAILED: 1}
    assert census.ineligible == {Reason.MISSING_AGE: 1, Reason.NOT_DICOM: 1, Reason.PAEDIATRIC: 1}
    assert (census.known_bytes, census.n_sized) == (307, 4)


def test_a_column_of_somebody_else_is_no_inventory():
    census = take_census(manifest({}, {}, reason=["screening", "pain"]), SPEC)
    assert (census.headers_read, census.eligible, census.n_sized) == (False, 2, 0)


def test_whether_the_clinical_columns_suffice():
    assert take_census(manifest({}, {}), SPEC).sufficient == "yes"
    partly = take_census(manifest({}, {"sex": None}), SPEC)
    assert partly.sufficient == "partly"
    assert {f.name: (f.n_known, f.n_missing, f.header_may_have_it) for f in partly.features} == {
        "age_years": (2, 0, True),
        "sex": (1, 1, True),
        "bmi_kg_m2": (2, 0, True),
    }
    assert take_census(manifest({}).drop(columns="bmi_kg_m2"), SPEC).sufficient == "no"


def test_a_feature_of_which_no_header_knows_cannot_come():
    spec = dataclasses.replace(SPEC, clinical_features=("age_years", "sarc_f"))
    census = take_census(manifest({}, {}, sarc_f=[3.0, np.nan]), spec)
    assert census.ineligible == {Reason.MISSING_FEATURE: 1}
    assert census.features[1].header_may_have_it is False

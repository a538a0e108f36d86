import numpy as np
import pandas as pd
import pytest

from sarc_ray.errors import Reason
from sarc_ray.scoring import clinical_reasons, resolve_clinical, score_schema

FEATURES = ("age_years", "sex", "bmi_kg_m2")


def frame(**columns):
    return pd.DataFrame(columns)


def test_the_manifest_comes_before_the_header():
    rows = frame(
        age_years=[60.0, np.nan, np.nan],
        header_age_years=[50.0, 55.0, np.nan],
        header_sex=["F", "M", None],
        bmi_kg_m2=[22.0, np.nan, 24.0],
        header_bmi_kg_m2=[30.0, 31.0, 32.0],
    )
    clinical = resolve_clinical(rows, FEATURES)
    np.testing.assert_array_equal(clinical["age_years"], [60.0, 55.0, np.nan])
    assert clinical["bmi_kg_m2"].tolist() == [22.0, 31.0, 24.0]
    assert clinical["sex"].tolist()[:2] == ["F", "M"]
    assert clinical["sex"].isna().tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"age_years": 61.0, "sex": "F", "bmi_kg_m2": 22.0}, Reason.NONE),
        ({"age_years": np.nan, "sex": "F", "bmi_kg_m2": 22.0}, Reason.MISSING_AGE),
        ({"age_years": 61.0, "sex": None, "bmi_kg_m2": 22.0}, Reason.MISSING_SEX),
        ({"age_years": 61.0, "sex": "F", "bmi_kg_m2": np.nan}, Reason.MISSING_BMI),
        ({"age_years": np.nan, "sex": None, "bmi_kg_m2": np.nan}, Reason.MISSING_AGE),
        ({"age_years": 39.9, "sex": "F", "bmi_kg_m2": 22.0}, Reason.AGE_BELOW_MINIMUM),
        ({"age_years": 40.0, "sex": "F", "bmi_kg_m2": 22.0}, Reason.NONE),
        ({"age_years": 39.9, "sex": "F", "bmi_kg_m2": np.nan}, Reason.MISSING_BMI),
        ({"age_years": 61.0, "sex": "F", "view": "LLD"}, Reason.IMPLAUSIBLE_FEATURE),
        ({"age_years": 61.0, "sex": "F", "view": None}, Reason.MISSING_VIEW),
        ({"age_years": 61.0, "sex": "F", "view": "PA"}, Reason.NONE),
    ],
)
def test_why_a_row_abstains(row, reason):
    assert clinical_reasons(pd.DataFrame([row]), age_min_years=40.0).tolist() == [reason]


def test_the_score_table_has_plain_columns_only():
    schema = score_schema(("age_years", "sex", "view"), ["alm_kg"])
    assert len(schema.names) == len(set(schema.names))
    assert {str(kind) for kind in schema.types} <= {"int64", "string", "bool", "double"}
    assert not {"patient_id", "image_uri", "study_id"} & set(schema.names)

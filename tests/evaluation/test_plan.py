import dataclasses
import hashlib
import json

import pytest

from sarc_ray.config import from_mapping, to_mapping
from sarc_ray.evaluation.plan import EvaluationConfig, make_plan
from tests.evaluation.cohorts import make_config


def test_hash_is_sha256_of_the_canonical_plan():
    plan = make_plan(make_config(), ["alm_kg"])
    assert plan.plan_hash == hashlib.sha256(plan.canonical_json().encode()).hexdigest()
    declared = json.loads(plan.canonical_json())
    assert declared["targets"] == ["alm_kg"]
    assert declared["outcome_metrics"]["ppv"].startswith("bootstrap percentile")
    assert "coverage_90" in declared["target_metrics"]


@pytest.mark.parametrize(
    "change",
    [
        {"n_boot": 100},
        {"confidence_level": 0.9},
        {"interval_level": 0.8},
        {"coverage_levels": (0.5,)},
        {"min_cell_size": 5},
        {"subgroups": ("age_band",)},
        {"age_band_edges_years": (65.0, 80.0)},
    ],
)
def test_every_setting_changes_the_hash(change):
    base, changed = make_config(), make_config(**change)
    assert make_plan(base, ["alm_kg"]).plan_hash != make_plan(changed, ["alm_kg"]).plan_hash
    assert make_plan(base, ["alm_kg"]).plan_hash == make_plan(make_config(), ["alm_kg"]).plan_hash


def test_targets_change_the_hash():
    assert make_plan(make_config(), ["alm_kg"]).plan_hash != make_plan(make_config(), ["hgs_kg"]).plan_hash


def test_config_travels_through_yaml():
    assert from_mapping(EvaluationConfig, to_mapping(make_config())) == make_config()
    assert len(dataclasses.fields(EvaluationConfig)) == 7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_boot": 0}, "n_boot: found 0"),
        ({"confidence_level": 95.0}, "confidence_level: found 95.0"),
        ({"interval_level": 0.0}, "interval_level: found 0.0"),
        ({"coverage_levels": (0.5, 90.0)}, "coverage_levels: found 90.0"),
        ({"min_cell_size": 0}, "min_cell_size: found 0"),
        ({"subgroups": ("sex", "sex", "age_band")}, "each column once"),
        ({"age_band_edges_years": (75.0, 65.0)}, "rising years"),
        ({"age_band_edges_years": ()}, "age_band_edges_years: found \\[\\]"),
        ({"subgroups": ("sex",)}, "give edges with"),
    ],
)
def test_wrong_settings_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        make_config(**change)

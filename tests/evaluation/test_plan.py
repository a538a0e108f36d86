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
    assert declared["outcomes"] == ["sarcopenia", "alm_kg"]
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
        {"n_boot_curves": 10},
        {"interval": "bca"},
        {"partial_auroc_fpr": 0.1},
        {"local_prevalence": 0.1},
        {"multiplicity": "none"},
        {"min_events": 5},
        {"subgroups": ("sex", "age_band", "bmi_band"), "bmi_band_edges_kg_m2": (25.0,)},
    ],
)
def test_every_setting_changes_the_hash(change):
    base, changed = make_config(), make_config(**change)
    assert make_plan(base, ["alm_kg"]).plan_hash != make_plan(changed, ["alm_kg"]).plan_hash
    assert make_plan(base, ["alm_kg"]).plan_hash == make_plan(make_config(), ["alm_kg"]).plan_hash


def test_targets_change_the_hash():
    assert make_plan(make_config(), ["alm_kg"]).plan_hash != make_plan(make_config(), ["hgs_kg"]).plan_hash


@pytest.mark.parametrize("change", [{"plan": "plan.yaml"}, {"rows_on_engine": 5}])
def test_where_a_plan_lies_and_who_computes_it_do_not_change_it(change):
    assert make_plan(make_config(**change), ["alm_kg"]).plan_hash == make_plan(make_config(), ["alm_kg"]).plan_hash


def test_the_kind_of_interval_is_named_in_every_method():
    plan = make_plan(make_config(interval="bca"), ["alm_kg"])
    methods = plan.outcome_metrics | plan.target_metrics | plan.comparisons
    assert methods["auroc"] == methods["mae"] == "bootstrap BCa, patients"
    assert methods["sensitivity_difference"] == "bootstrap BCa, patients; McNemar mid-p"
    assert methods["ici"].startswith("bootstrap percentile")


def test_config_travels_through_yaml():
    assert from_mapping(EvaluationConfig, to_mapping(make_config())) == make_config()
    assert len(dataclasses.fields(EvaluationConfig)) == 16


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
        ({"bmi_band_edges_kg_m2": (25.0,)}, "bmi_band_edges_kg_m2: found \\[25.0\\]"),
        ({"n_boot_curves": 0}, "n_boot_curves: found 0"),
        ({"min_events": -1}, "min_events: found -1"),
        ({"rows_on_engine": -1}, "rows_on_engine: found -1"),
        ({"partial_auroc_fpr": 0.0}, "partial_auroc_fpr: found 0.0"),
        ({"local_prevalence": 1.0}, "local_prevalence: found 1.0"),
    ],
)
def test_wrong_settings_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        make_config(**change)

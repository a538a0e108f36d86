import pytest

from sarc_ray.errors import ConfigError
from sarc_ray.evaluation.plan import METRICS, make_plan
from sarc_ray.evaluation.plan_file import read_plan, write_plan
from tests.evaluation.cohorts import make_config

DERIVED = make_plan(make_config(), ["alm_kg", "crt_s"])


def read(text):
    return read_plan(text, DERIVED, where="plan.yaml")


def test_what_a_plan_leaves_out_is_as_the_configuration_has_it():
    plan = read("subgroups: [sex, site]\nage_band_edges_years: []\nmin_cell_size: 30")
    assert plan.config == make_config(subgroups=("sex", "site"), age_band_edges_years=(), min_cell_size=30)
    assert (plan.outcomes, plan.metrics) == (("sarcopenia", "alm_kg", "crt_s"), METRICS)
    assert plan.plan_hash != DERIVED.plan_hash


def test_a_plan_chooses_outcomes_comparators_and_metrics():
    plan = read("outcomes: [crt_s]\ncomparators: [calf_cm]\nmetrics: [mae, auroc, coverage]")
    assert (plan.target_names, plan.with_outcome) == (("crt_s",), False)
    assert plan.comparators == ("calf_cm",)
    assert list(plan.outcome_metrics) == ["auroc"]
    assert list(plan.target_metrics) == ["mae", "coverage_50", "coverage_90", "coverage_95"]
    assert plan.comparisons == {}


def test_the_whole_plan_makes_itself_again():
    plan = read("outcomes: [sarcopenia]\nmetrics: [brier, auroc]\ninterval: bca\nbmi_band_edges_kg_m2: []")
    text = write_plan(plan)
    assert text.startswith(f"# What was evaluated, and how; sha256 {plan.plan_hash}\n")
    other = make_plan(make_config(n_boot=7, plan="elsewhere.yaml", min_cell_size=2), ["alm_kg", "crt_s"])
    assert read_plan(text, other, where="plan.yaml").plan_hash == plan.plan_hash


def test_metrics_have_one_order_whatever_the_plan_says():
    assert read("metrics: [brier, auroc]").plan_hash == read("metrics: [auroc, brier]").plan_hash


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("subgroup: [sex]", "unknown key 'subgroup'; did you mean 'subgroups'"),
        ("rows_on_engine: 3", "unknown key 'rows_on_engine'"),
        ("outcomes: [alm]", "outcomes: 'alm' is not known; did you mean 'alm_kg'"),
        ("metrics: [aurok]", "metrics: 'aurok' is not known; did you mean 'auroc'"),
        ("metrics: [auroc, auroc]", "name each once"),
        ("metrics: auroc", "allowed: a list of names"),
        ("metrics: []", "name at least one of each"),
        ("outcomes: [1]", "allowed: a list of names"),
        ("version: 1", "version: found 1, this release evaluates by version 2"),
        ("n_boot: 0", "n_boot: found 0"),
        ("interval: normal", "interval: found 'normal', allowed: percentile, bca"),
        ("- sex", "expected 'key: value' lines"),
        ("", "expected 'key: value' lines"),
        ("a: [", "not valid YAML"),
        ("comparators: ['sarc_f ']", "comparators: found 'sarc_f '; write the name without spaces"),
        ("outcomes: [sarcopenia]\nmetrics: [mae]", "none of mae is a metric of sarcopenia"),
        ("outcomes: [crt_s]\nmetrics: [auroc]", "none of auroc is a metric of crt_s"),
        ("age_band_edges_years: [.nan, 70]", "age_band_edges_years: found [nan, 70.0]"),
        ("comparators: [score]", "comparators: found 'score', which is the score's own"),
        ("subgroups: [study_id]\nage_band_edges_years: []", "'study_id', whose values tell who somebody is"),
    ],
)
def test_wrong_plans_are_refused_by_name(text, message):
    with pytest.raises(ConfigError, match=r"plan\.yaml") as error:
        read(text)
    assert message in str(error.value)

import numpy as np
import pytest
import scipy.special

from sarc_ray.evaluation.external_rows import Reference, no_reference
from sarc_ray.evaluation.plan import make_plan
from sarc_ray.evaluation.results import evaluate_by_plan, headline_table
from sarc_ray.stage2.calibration import Isotonic, Sigmoid, Unchanged
from sarc_ray.stage2.local import decide
from sarc_ray.stats import bootstrap, discrimination, hypothesis
from tests.evaluation.cohorts import make_config, pick, scored_cohort

VARIABLES = ("age_years", "sex", "bmi_kg_m2")
PLAIN = Sigmoid(1.0, 0.0)
PLAN = make_plan(make_config(subgroups=(), age_band_edges_years=()), ["alm_kg"])


def refer(frame, variables=VARIABLES, calibration=PLAIN):
    return Reference(name="test_internal", frame=frame, variables=variables, calibration=calibration)


def evaluate(frame, reference, plan=PLAN):
    return evaluate_by_plan(frame, plan, dataset="test_external", seed=5, run_id="run-1", reference=reference)


@pytest.fixture(scope="module")
def here():
    """Older patients, whose scores are too high by one on the scale of log-odds."""
    frame, _ = scored_cohort(n=600, seed=8)
    shifted = scipy.special.expit(scipy.special.logit(frame["score"]) + 1.0)
    return frame.assign(age_years=frame["age_years"] + 8, score=shifted, flag=shifted >= 0.2)


@pytest.fixture(scope="module")
def reference():
    return refer(scored_cohort(n=400, seed=7)[0])


@pytest.fixture(scope="module")
def results(here, reference):
    return evaluate(here, reference)


def test_recalibration_puts_right_what_is_off(results):
    before, after = pick(results, "citl"), pick(results, "citl", score="score_intercept")
    assert before["ci_high"] < -0.5
    assert after["ci_low"] < 0 < after["ci_high"]
    assert pick(results, "brier", score="score_intercept")["estimate"] < pick(results, "brier")["estimate"]
    assert pick(results, "ici", score="score_intercept_and_slope")["estimate"] < pick(results, "ici")["estimate"]
    intercept = pick(results, "recalibration_intercept", score="score_intercept")
    assert intercept["estimate"] == pytest.approx(before["estimate"], abs=0.03)
    assert pick(results, "recalibration_slope", score="score_intercept")["estimate"] == 1.0
    slope = pick(results, "recalibration_slope", score="score_intercept_and_slope")
    assert slope["estimate"] == pytest.approx(pick(results, "cal_slope")["estimate"], abs=0.03)


def test_recalibrated_figures_are_of_patients_that_the_map_was_not_fitted_on(here, reference):
    """Labels without information: a map judged on its own patients would still seem to gain by its slope."""
    noise = here.assign(outcome=np.random.default_rng(3).permutation(here["outcome"].to_numpy()))
    results = evaluate(noise, reference)
    assert pick(results, "scaled_brier", score="score_intercept_and_slope")["estimate"] < 0.005
    assert (results.loc[results["score"].str.startswith("score_"), "metric"] != "auroc").all()


def test_case_mix_names_what_differs(here, reference, results):
    ages = pick(results, "smd", outcome="case_mix", score="age_years", comparator="test_internal")
    assert ages["estimate"] == pytest.approx(hypothesis.smd_means(here["age_years"], reference.frame["age_years"]))
    men = pick(results, "smd", outcome="case_mix", score="sex=M", comparator="test_internal")
    shares = ((here["sex"] == "M").mean(), (reference.frame["sex"] == "M").mean())
    assert men["estimate"] == pytest.approx(hypothesis.smd_shares(*shares))
    assert (
        abs(pick(results, "smd", outcome="case_mix", score="bmi_kg_m2", comparator="test_internal")["estimate"]) < 0.2
    )
    spread = pick(results, "spread_ratio", outcome="case_mix", score="log_odds", comparator="test_internal")
    assert spread["estimate"] == pytest.approx(1.0, abs=0.15)


def test_the_membership_model_tells_other_patients_and_not_the_same_ones(here, reference, results):
    other = pick(results, "membership_auroc", outcome="case_mix", score="membership", comparator="test_internal")
    assert other["ci_low"] > 0.7
    assert (other["n"], other["n_events"]) == (1000, 600)
    same = evaluate(scored_cohort(n=600, seed=9)[0], reference)
    row = pick(same, "membership_auroc", outcome="case_mix", score="membership", comparator="test_internal")
    assert row["ci_low"] < 0.5 < row["ci_high"] + 0.02


def test_predictive_values_follow_bayes_rule(here, reference, results):
    there = reference.frame
    cells = discrimination.confusion_from_flags(there["outcome"], there["flag"])
    sensitivity, specificity = float(discrimination.sensitivity(cells)), float(discrimination.specificity(cells))
    share = here["outcome"].mean()
    row = pick(results, "ppv_transported", comparator="test_internal")
    ppv = sensitivity * share / (sensitivity * share + (1 - specificity) * (1 - share))
    assert row["estimate"] == pytest.approx(ppv)
    assert row["ci_low"] < ppv < row["ci_high"]
    assert row["method"].endswith(f"prevalence {share:.4g}")
    rare = make_plan(make_config(subgroups=(), age_band_edges_years=(), local_prevalence=0.02), ["alm_kg"])
    row = pick(evaluate(here, reference, rare), "npv_transported", comparator="test_internal")
    assert row["estimate"] == pytest.approx(specificity * 0.98 / (specificity * 0.98 + (1 - sensitivity) * 0.02))


def test_transported_intervals_are_those_of_the_reference(reference, here, results):
    """At the reference's own prevalence the transported PPV is the plain one, and nearly so is its interval."""
    there = reference.frame
    config = make_config(
        subgroups=(), age_band_edges_years=(), local_prevalence=float(there["outcome"].mean()), n_boot=1000
    )
    row = pick(evaluate(here, reference, make_plan(config, [])), "ppv_transported", comparator="test_internal")
    plain = bootstrap.bootstrap_metrics(
        there["outcome"], there["score"], there["flag"], n_boot=1000, confidence_level=0.95, seed=1
    )["ppv"]
    assert row["estimate"] == pytest.approx(plain.estimate)
    # Narrower: the prevalence is taken as known.
    assert plain.ci_low < row["ci_low"] < plain.estimate < row["ci_high"] < plain.ci_high


def test_discrimination_is_set_against_the_reference(here, reference, results):
    row = pick(results, "auroc_gap", comparator="test_internal")
    there = reference.frame
    expected = discrimination.delong_unpaired(
        here["outcome"], here["score"], there["outcome"], there["score"], confidence_level=0.95
    )
    # The two places number their patients alike; they are different people.
    assert (row["estimate"], row["p_value"]) == pytest.approx((expected.difference, expected.p_value))


def test_without_a_reference_recalibration_remains(here):
    results = evaluate(here, no_reference(PLAIN))
    assert pick(results, "brier", score="score_intercept")["na_reason"] == ""
    for metric in ("auroc_gap", "membership_auroc", "ppv_transported", "npv_transported"):
        assert "are at hand" in pick(results, metric, comparator="reference")["na_reason"]


@pytest.mark.parametrize(
    "calibration",
    [Unchanged(), PLAIN, Isotonic(np.array([0.0, 1.0]), np.array([0.0, 1.0]))],
    ids=["raw", "map", "steps"],
)
def test_the_maps_are_those_of_the_command_recalibrate(here, calibration):
    """A forest says exactly 0 and 1: how far from there log-odds are taken decides slope and intercept."""
    certain = here.assign(score=here["score"].mask(here["score"] < 0.15, 0.0).mask(here["score"] > 0.9, 1.0))
    results = evaluate(certain, no_reference(calibration))
    args = (certain["score"], certain["outcome"], certain["patient_id"])
    for one in decide(calibration, *args, seed=1, n_boot=2).candidates[1:]:
        found = [pick(results, f"recalibration_{name}", score=f"score_{one.method}") for name in ("slope", "intercept")]
        assert [row["estimate"] for row in found] == [one.slope, one.intercept]


def test_whoever_has_the_outcome_in_any_row_counts_as_a_patient_with_it(here):
    """As in recalibrate: 19 of 45 patients are without it, though all have a row without it."""
    few = here[:90].assign(patient_id=[f"q{k % 45}" for k in range(90)], outcome=0.0)
    few.loc[few.index[:26], "outcome"] = 1.0
    reason = pick(evaluate(few, no_reference(PLAIN)), "brier", score="score_intercept")["na_reason"]
    assert reason.startswith("19 patients without the outcome")


def test_too_few_patients_are_a_reason(here, reference):
    few = here.copy()
    few["outcome"] = (few.index < 15).astype(float)
    results = evaluate(few, reference)
    assert "15 patients with the outcome" in pick(results, "brier", score="score_intercept")["na_reason"]
    one = evaluate(here.assign(outcome=0.0), reference)
    assert "one class only" in pick(one, "ppv_transported", comparator="test_internal")["na_reason"]
    assert "one of the two" not in pick(one, "auroc_gap", comparator="test_internal")["na_reason"]
    small = refer(reference.frame[:12])
    row = pick(
        evaluate(here, small), "membership_auroc", outcome="case_mix", score="membership", comparator="test_internal"
    )
    assert "fewer than 20 patients" in row["na_reason"]


@pytest.mark.parametrize("small", ["here", "there"])
@pytest.mark.parametrize("limit", [{"min_cell_size": 150}, {"min_events": 50}])
def test_both_sets_must_have_the_least_size(here, reference, small, limit):
    few = refer(reference.frame[:120])
    plan = make_plan(make_config(subgroups=(), age_band_edges_years=(), n_boot=20, n_boot_curves=5, **limit), [])
    results = evaluate(*((here[:120], reference) if small == "here" else (here, few)), plan)
    (name,), whose = limit, "" if small == "here" else "test_internal: "
    for metric in ("auroc_gap", "ppv_transported", "npv_transported"):
        row = pick(results, metric, comparator="test_internal")
        assert row["na_reason"].startswith(whose)
        assert f"below {name} = " in row["na_reason"]
        assert np.isnan(row["estimate"])
    for metric in ("brier", "recalibration_slope"):
        assert (name in pick(results, metric, score="score_intercept")["na_reason"]) == (small == "here")
    row = pick(results, "membership_auroc", outcome="case_mix", score="membership", comparator="test_internal")
    assert ("below min_cell_size = 150" in row["na_reason"]) == (name == "min_cell_size")


@pytest.mark.parametrize("perfect", ["here", "there"])
def test_an_auroc_of_one_is_not_known_without_error(here, reference, perfect):
    frames = {"here": here, "there": reference.frame}
    frames[perfect] = frames[perfect].assign(score=0.25 + 0.5 * frames[perfect]["outcome"])
    row = pick(
        evaluate(frames["here"], refer(frames["there"], variables=())),
        "auroc_gap",
        comparator="test_internal",
    )
    assert abs(row["estimate"]) > 0.05
    assert np.isnan([row["ci_low"], row["ci_high"], row["p_value"]]).all()
    assert row["na_reason"].startswith("interval" if perfect == "here" else "test_internal: interval")


def test_an_absent_variable_is_a_reason(here, reference):
    results = evaluate(here.drop(columns="bmi_kg_m2"), reference)
    row = pick(results, "smd", outcome="case_mix", score="bmi_kg_m2", comparator="test_internal")
    assert "no column bmi_kg_m2" in row["na_reason"]


def test_the_headline_stays_about_the_score(results):
    table = headline_table(results, interval_level=0.9)
    assert not table.duplicated(["dataset", "quantity", "metric"]).any()
    assert set(table["quantity"]) == {"sarcopenia", "alm_kg"}

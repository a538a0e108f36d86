"""What the plan asks for beyond the figures themselves: strata, comparisons, intervals by request, what is left out."""

import numpy as np
import pandas as pd
import pytest

from sarc_ray.evaluation import rows
from sarc_ray.evaluation.plan import make_plan
from sarc_ray.evaluation.plan_file import read_plan
from sarc_ray.evaluation.results import LEFT_OUT, evaluate_by_plan, with_unplanned
from sarc_ray.evaluation.row_values import ALL_DEGENERATE, ONE_SIDED, interval_values
from sarc_ray.stats import agreement, bootstrap, discrimination, hypothesis, proportions
from sarc_ray.stats.calibration_intervals import calibration_error_intervals
from sarc_ray.stats.partial_area import partial_auroc
from tests.evaluation.cohorts import evaluate, make_config, pick


def test_strata_cover_every_row_once(cohort):
    config = make_config()
    parts = list(rows.strata(cohort[0], config))
    assert parts[0].name == "all"
    for column in config.subgroups:
        assert sum(len(part.frame) for part in parts if part.name.startswith(column)) == 300
    oldest = next(part.frame for part in parts if part.name == "age_band=>=75")
    assert oldest["age_years"].min() >= 75


def test_exact_intervals_and_likelihood_ratios_equal_the_statistics(cohort, results):
    frame = cohort[0]
    cells = discrimination.confusion_from_flags(frame["outcome"], frame["flag"])
    exact = proportions.exact_interval(int(cells.tp), int(cells.tp + cells.fn), confidence_level=0.95)
    row = pick(results, "sensitivity_exact")
    assert (row["estimate"], row["ci_low"], row["ci_high"]) == (exact.estimate, exact.ci_low, exact.ci_high)
    ratio = proportions.positive_likelihood_ratio(cells, confidence_level=0.95)
    row = pick(results, "lr_positive")
    assert (row["estimate"], row["ci_low"], row["ci_high"]) == (ratio.estimate, ratio.ci_low, ratio.ci_high)
    slope = agreement.proportional_bias(frame["alm_kg"], frame["alm_kg_mu"], confidence_level=0.95)
    row = pick(results, "proportional_bias", outcome="alm_kg", score="alm_kg_mu")
    assert (row["estimate"], row["p_value"]) == (slope.slope.estimate, slope.p_value)


def test_curves_have_intervals_on_all_rows_alone(cohort, results):
    frame = cohort[0]
    ici = pick(results, "ici")
    assert ici["n_boot"] == 20
    assert ici["ci_low"] < ici["ci_high"]
    errors = calibration_error_intervals(frame["outcome"], frame["score"], n_boot=2, confidence_level=0.95, seed=1)
    assert ici["estimate"] == pytest.approx(errors["ici"].estimate)
    partial = pick(results, "partial_auroc")
    area = partial_auroc(frame["outcome"], frame["score"], fpr_low=0, fpr_high=0.2, standardise=True)
    assert partial["estimate"] == pytest.approx(area)
    assert partial["ci_low"] < area < partial["ci_high"]
    women = pick(results, "ici", subgroup="sex=F")
    assert np.isnan(women["ci_low"])
    assert women["estimate"] > 0


def test_decisions_are_compared_with_sarc_f_at_its_published_cut_off(cohort, results):
    frame = cohort[0]
    for metric, label in (("sensitivity", 1), ("specificity", 0)):
        part = frame[frame["outcome"] == label]
        a, b = part["flag"].to_numpy(), (part["sarc_f"] >= 4).to_numpy()
        row = pick(results, f"{metric}_difference", comparator="sarc_f")
        right = 1 if label else -1
        assert row["estimate"] == pytest.approx(right * (a.mean() - b.mean()))
        counts = [[np.sum(~a & ~b), np.sum(~a & b)], [np.sum(a & ~b), np.sum(a & b)]]
        assert row["p_value"] == pytest.approx(hypothesis.mcnemar(counts, kind="mid_p").p_value)
        assert row["ci_low"] < row["estimate"] < row["ci_high"]
    assert "no probability" in pick(results, "brier_difference", comparator="sarc_f")["na_reason"]
    assert "no threshold" in pick(results, "sensitivity_difference", comparator="ideal")["na_reason"]
    brier = pick(results, "brier_difference", comparator="ideal")
    assert brier["estimate"] == pytest.approx(
        pick(results, "brier")["estimate"] - pick(results, "brier", score="ideal")["estimate"]
    )


def test_subgroups_are_set_against_the_largest_one(cohort, results):
    frame = cohort[0]
    sizes = frame["sex"].value_counts()
    largest, other = sizes.index[0], sizes.index[1]
    row = pick(results, "auroc_gap", subgroup=f"sex={other}", comparator=f"sex={largest}")
    a, b = frame[frame["sex"] == other], frame[frame["sex"] == largest]
    expected = discrimination.delong_unpaired(a["outcome"], a["score"], b["outcome"], b["score"], confidence_level=0.95)
    assert (row["estimate"], row["p_value"]) == pytest.approx((expected.difference, expected.p_value))
    gaps = results[results["metric"] == "auroc_gap"]
    assert len(gaps) == 3  # one of two sexes, two of three age bands


def test_p_values_of_comparisons_are_adjusted_together(cohort, results):
    family = results[(results["comparator"] != "") & (results["outcome"] == "sarcopenia")]
    np.testing.assert_allclose(family["p_adjusted"], hypothesis.holm(family["p_value"]))
    assert (family["p_adjusted"].dropna() >= family["p_value"].dropna()).all()
    assert results.loc[results["comparator"] == "", "p_adjusted"].isna().all()
    plain = evaluate(cohort[0], config=make_config(multiplicity="none"))
    assert plain["p_adjusted"].isna().all()


def test_bca_intervals_by_request(cohort):
    frame = cohort[0]
    results = evaluate(frame, config=make_config(interval="bca", subgroups=(), age_band_edges_years=()))
    expected = bootstrap.bootstrap_metrics(
        frame["outcome"],
        frame["score"],
        frame["flag"],
        n_boot=200,
        confidence_level=0.95,
        seed=rows.seed_of(3, "test_internal", "sarcopenia", "score", "all"),
        kind="bca",
    )["auroc"]
    row = pick(results, "auroc")
    assert (row["ci_low"], row["ci_high"]) == (expected.ci_low, expected.ci_high)
    assert row["method"] == "bootstrap BCa, patients"


def test_an_interval_that_is_not_defined_has_a_reason(cohort):
    one_sided = bootstrap.BootstrapInterval(estimate=0.5, ci_low=np.nan, ci_high=np.nan, n_boot=9, n_degenerate=0)
    assert interval_values(one_sided)["na_reason"] == ONE_SIDED
    drawn_out = bootstrap.BootstrapInterval(estimate=0.5, ci_low=np.nan, ci_high=np.nan, n_boot=9, n_degenerate=9)
    assert interval_values(drawn_out)["na_reason"] == ALL_DEGENERATE
    results = evaluate(cohort[0].assign(flag=True), config=make_config(subgroups=(), age_band_edges_years=()))
    assert pick(results, "npv_exact")["na_reason"] == "nobody is left unflagged"
    spotless = evaluate(cohort[0].assign(flag=cohort[0]["outcome"] == 1))
    assert "infinite" in pick(spotless, "lr_positive")["na_reason"]


def test_too_few_events_are_a_reason(cohort):
    frame = cohort[0].copy()
    frame["site"] = np.where(frame.index < 20, "a", "b")
    frame.loc[:19, "outcome"] = [1.0] * 3 + [0.0] * 17
    results = evaluate(frame, config=make_config(subgroups=("site",), age_band_edges_years=(), min_events=5))
    row = pick(results, "auroc", subgroup="site=a")
    assert row["na_reason"] == "3 rows with the outcome are below min_events = 5"
    gap = pick(results, "auroc_gap", subgroup="site=a", comparator="site=b")
    assert gap["na_reason"] == row["na_reason"]
    assert pick(results, "mae", outcome="alm_kg", score="alm_kg_mu", subgroup="site=a")["n"] == 20


def test_bands_of_body_mass_index(cohort):
    frame = cohort[0].copy()
    frame.loc[:4, "bmi_kg_m2"] = np.nan
    config = make_config(subgroups=("bmi_band",), age_band_edges_years=(), bmi_band_edges_kg_m2=(22.0, 25.0))
    parts = {part.name: len(part.frame) for part in rows.strata(frame, config)}
    assert parts["bmi_band=missing"] == 5
    assert parts["bmi_band=22-<25"] == frame["bmi_kg_m2"].between(22, 25, inclusive="left").sum()
    assert sum(parts.values()) == 600


def test_a_plan_limits_what_is_evaluated_and_names_other_comparators(cohort):
    frame = cohort[0].assign(calf_cm=30 + 5 * cohort[0]["score"] ** 2)
    derived = make_plan(make_config(), ["alm_kg", "crt_s"])
    text = "outcomes: [sarcopenia]\nmetrics: [auroc, auroc_difference]\ncomparators: [calf_cm]\nsubgroups: [sex]\n"
    plan = read_plan(text + "age_band_edges_years: []", derived, where="plan.yaml")
    results = evaluate_by_plan(frame, plan, dataset="test_internal", seed=3, run_id="run-1")
    assert set(results["metric"]) == {
        *("auroc", "auroc_delong", "auroc_difference", "n_rows", "n_patients", "n_not_scored", "n_label_missing")
    }
    assert pick(results, "auroc_difference", comparator="calf_cm")["estimate"] == 0.0
    assert pick(results, "auroc_difference", comparator="calf_cm")["p_value"] == 1.0
    assert set(results["plan_hash"]) == {plan.plan_hash}
    whole = evaluate(frame)
    assert pick(results, "auroc")["ci_low"] == pick(whole, "auroc")["ci_low"]
    targets = read_plan("outcomes: [crt_s]", derived, where="plan.yaml")
    results = evaluate_by_plan(frame, targets, dataset="test_internal", seed=3, run_id="run-1")
    assert set(results.loc[~results["metric"].str.startswith("n_"), "outcome"]) == {"crt_s"}


def test_blocks_of_replicates_may_be_computed_anywhere(cohort):
    plan, computed = make_plan(make_config(), ["alm_kg"]), []

    def backwards(replicate, blocks):
        done = {number: replicate(block) for number, block in reversed(list(enumerate(blocks)))}
        computed.append(len(done))
        return [done[number] for number in sorted(done)]

    settings = {"dataset": "test_internal", "seed": 3, "run_id": "run-1"}
    spread = evaluate_by_plan(cohort[0], plan, map_blocks=backwards, **settings)
    pd.testing.assert_frame_equal(spread, evaluate_by_plan(cohort[0], plan, **settings))
    assert max(computed) == 4


def test_readers_find_a_reason_for_what_the_plan_left_out(cohort):
    whole = make_plan(make_config(subgroups=("sex",), age_band_edges_years=()), ["alm_kg", "crt_s"])
    plan = read_plan("outcomes: [sarcopenia, alm_kg]\nmetrics: [auroc, ccc]", whole, where="plan.yaml")
    results = evaluate_by_plan(cohort[0], plan, dataset="test_internal", seed=3, run_id="run-1")
    filled = with_unplanned(results, plan, whole)
    pd.testing.assert_frame_equal(filled[: len(results)], results)
    left_out = pick(filled, "sensitivity", subgroup="sex=F")
    assert left_out["na_reason"] == "the evaluation plan left it out"
    assert pick(filled, "mae", outcome="crt_s", score="crt_s_mu")["plan_hash"] == plan.plan_hash
    assert not filled.duplicated(["dataset", "outcome", "score", "comparator", "metric", "subgroup"]).any()
    assert with_unplanned(results, plan, plan) is results


def test_rows_of_what_was_left_out_state_the_sizes_of_the_rows_that_are_there(cohort):
    settings = make_config(subgroups=("sex", "ward"), age_band_edges_years=())
    whole = make_plan(settings, ["alm_kg", "crt_s"])
    plan = read_plan("outcomes: [sarcopenia, alm_kg]\nmetrics: [brier, mae]", whole, where="plan.yaml")
    results = evaluate_by_plan(cohort[0], plan, dataset="test_internal", seed=3, run_id="run-1")
    filled = with_unplanned(results, plan, whole)
    for subgroup in ("all", "sex=F"):
        known, left_out = (pick(filled, name, subgroup=subgroup) for name in ("brier", "auroc"))
        assert left_out["na_reason"] == "the evaluation plan left it out"
        assert (left_out["n"], left_out["n_events"]) == (known["n"], known["n_events"])
        assert left_out["n_events"] > 0
    target = {"outcome": "alm_kg", "score": "alm_kg_mu"}
    assert pick(filled, "ccc", **target)["n"] == pick(filled, "mae", **target)["n"] > 0
    # Nothing was counted of what the plan left out as a whole: no size is stated, not a size of 0.
    unknown = pick(filled, "ccc", outcome="crt_s", score="crt_s_mu")
    assert unknown[["n", "n_events"]].isna().all()
    assert unknown["na_reason"] == LEFT_OUT
    # A column that the data set lacks is no stratum.
    assert filled.loc[filled["subgroup"] == "ward", "metric"].tolist() == ["subgroup"]

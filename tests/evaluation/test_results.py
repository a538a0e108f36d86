import itertools

import numpy as np
import pandas as pd
import pytest

from sarc_ray.errors import EvaluationError
from sarc_ray.evaluation.plan import OUTCOME_METRICS, TARGET_METRICS, make_plan
from sarc_ray.evaluation.plan_file import read_plan
from sarc_ray.evaluation.results import evaluate_by_plan, headline_table, with_unplanned
from sarc_ray.evaluation.row_values import NO_VARIANCE, ONE_PATIENT
from sarc_ray.stats import agreement, bootstrap, discrimination, uncertainty
from tests.evaluation.cohorts import evaluate, make_config, pick


def test_columns_and_types(results):
    assert list(results.columns) == [
        "dataset",
        "outcome",
        "score",
        "comparator",
        "metric",
        "subgroup",
        "estimate",
        "ci_low",
        "ci_high",
        "confidence_level",
        "p_value",
        "p_adjusted",
        "n",
        "n_events",
        "n_boot",
        "n_degenerate",
        "method",
        "na_reason",
        "plan_hash",
        "run_id",
    ]
    assert all(results[name].dtype == "Int64" for name in ("n", "n_events", "n_boot", "n_degenerate"))
    assert all(results[name].dtype == "float64" for name in ("estimate", "ci_low", "ci_high", "p_value"))
    assert set(results["plan_hash"]) == {make_plan(make_config(), ["alm_kg", "crt_s"]).plan_hash}
    assert set(results["run_id"]) == {"run-1"}


def test_a_row_has_one_key_and_a_figure_or_a_reason(results):
    key = ["dataset", "outcome", "score", "comparator", "metric", "subgroup"]
    assert not results.duplicated(key).any()
    without_interval = results["na_reason"].str.startswith("interval left out")
    assert (results["estimate"].isna() == ((results["na_reason"] != "") & ~without_interval)).all()
    assert results.loc[without_interval, "ci_low"].isna().all()
    bounded = results[results["ci_low"].notna()]
    assert (bounded["ci_low"] <= bounded["ci_high"]).all()
    assert len(bounded) > 100


def test_the_whole_plan_is_answered(results):
    subgroups = ["all", "sex=F", "sex=M", "age_band=<65", "age_band=65-<75", "age_band=>=75"]
    for subgroup, metric in itertools.product(subgroups, OUTCOME_METRICS):
        assert pick(results, metric, subgroup=subgroup)["metric"] == metric
    names = [name for name in TARGET_METRICS if name != "coverage"] + ["coverage_50", "coverage_90", "coverage_95"]
    for subgroup, metric, target in itertools.product(subgroups, names, ("alm_kg", "crt_s")):
        row = pick(results, metric, outcome=target, score=f"{target}_mu", subgroup=subgroup)
        assert row["outcome"] == target


def test_outcome_figures_equal_the_statistics(cohort, results):
    frame = cohort[0]
    women = frame[frame["sex"] == "F"]
    for part, subgroup in ((frame, "all"), (women, "sex=F")):
        auroc = pick(results, "auroc", subgroup=subgroup)
        assert auroc["estimate"] == pytest.approx(discrimination.auroc(part["outcome"], part["score"]))
        assert (auroc["n"], auroc["n_events"]) == (len(part), part["outcome"].sum())
        assert (auroc["n_boot"], auroc["n_degenerate"]) == (200, 0)
        cells = discrimination.confusion_from_flags(part["outcome"], part["flag"])
        assert pick(results, "ppv", subgroup=subgroup)["estimate"] == pytest.approx(float(discrimination.ppv(cells)))
        delong = discrimination.auroc_interval(part["outcome"], part["score"], confidence_level=0.95)
        assert pick(results, "auroc_delong", subgroup=subgroup)["ci_low"] == pytest.approx(delong.ci_low)


def test_target_figures_equal_the_statistics(cohort, results):
    frame = cohort[0]
    pair = (frame["alm_kg"], frame["alm_kg_mu"])

    def estimate(metric):
        return pick(results, metric, outcome="alm_kg", score="alm_kg_mu")["estimate"]

    ccc = agreement.concordance(*pair, confidence_level=0.95)
    assert estimate("ccc") == pytest.approx(ccc.estimate)
    assert estimate("explained_variance") == pytest.approx(agreement.explained_variance(*pair))
    assert estimate("mae") == pytest.approx(agreement.mae(*pair))
    assert estimate("rmse") == pytest.approx(agreement.rmse(*pair))
    assert estimate("loa_low") == pytest.approx(agreement.bland_altman(*pair, confidence_level=0.95).loa_low.estimate)
    triple = (*pair, frame["alm_kg_sigma"])
    assert estimate("nll") == pytest.approx(uncertainty.gaussian_nll(*triple).mean())
    assert estimate("crps") == pytest.approx(uncertainty.gaussian_crps(*triple).mean())
    assert estimate("coverage_90") == pytest.approx(uncertainty.inside_interval(*triple, level=0.9).mean())
    assert estimate("sharpness") == pytest.approx(uncertainty.sharpness(frame["alm_kg_sigma"]))


def test_uncertainty_figures_equal_the_statistics_in_every_subgroup(cohort, results):
    frame = cohort[0]
    for part, subgroup in ((frame, "all"), (frame[frame["sex"] == "M"], "sex=M")):
        triple = (part["crt_s"], part["crt_s_mu"], part["crt_s_sigma"])
        curve = uncertainty.risk_coverage((part["crt_s_mu"] - part["crt_s"]).abs(), part["crt_s_sigma"])
        expected = {
            "coverage_50": uncertainty.inside_interval(*triple, level=0.5).mean(),
            "coverage_95": uncertainty.inside_interval(*triple, level=0.95).mean(),
            "interval_calibration_error": uncertainty.interval_calibration_error(*triple),
            "aurc": curve.area,
            "aurc_gain": curve.gain,
            "sharpness_aleatoric": np.sqrt(part["crt_s_var_aleatoric"].mean()),
            "sharpness_epistemic": np.sqrt(part["crt_s_var_epistemic"].mean()),
        }
        for metric, value in expected.items():
            row = pick(results, metric, outcome="crt_s", score="crt_s_mu", subgroup=subgroup)
            assert row["estimate"] == pytest.approx(value), (metric, subgroup)
    part = pick(results, "sharpness_epistemic", outcome="crt_s", score="crt_s_mu")
    assert part["ci_low"] < part["estimate"] < part["ci_high"]


def test_sigma_is_compared_with_the_ideals_image_by_image(cohort, results):
    frame, truth = cohort
    row = pick(results, "sigma_spearman", outcome="alm_kg", score="alm_kg_mu", comparator="ideal")
    assert row["estimate"] == pytest.approx(1.0)
    noisy = truth.assign(alm_kg_ideal_sigma=truth["alm_kg_ideal_sigma"].sample(frac=1, random_state=2).to_numpy())
    row = pick(evaluate(frame, truth=noisy), "sigma_spearman", outcome="alm_kg", score="alm_kg_mu", comparator="ideal")
    expected = agreement.spearman(frame["alm_kg_sigma"], noisy["alm_kg_ideal_sigma"], confidence_level=0.95)
    assert (row["estimate"], row["ci_low"]) == pytest.approx((expected.estimate, expected.ci_low))
    constant = evaluate(frame, truth=truth.assign(alm_kg_ideal_sigma=3.0))
    row = pick(constant, "sigma_spearman", outcome="alm_kg", score="alm_kg_mu", comparator="ideal")
    assert "same for all rows" in row["na_reason"]


def test_a_prediction_without_parts_says_so(cohort, results):
    ideal = pick(results, "sharpness_epistemic", outcome="alm_kg", score="ideal")
    assert "no parts of its variance" in ideal["na_reason"]
    frame = cohort[0].drop(columns=["alm_kg_var_aleatoric"])
    row = pick(evaluate(frame), "sharpness_epistemic", outcome="alm_kg", score="alm_kg_mu")
    assert "no parts of its variance" in row["na_reason"]


def test_mae_interval_equals_the_general_bootstrap(cohort, results):
    frame = cohort[0]
    general = bootstrap.bootstrap_statistic(
        agreement.mae, [frame["alm_kg"], frame["alm_kg_mu"]], n_boot=2000, confidence_level=0.95, seed=1
    )
    row = pick(results, "mae", outcome="alm_kg", score="alm_kg_mu")
    assert row["ci_low"] == pytest.approx(general.ci_low, abs=0.1)
    assert row["ci_high"] == pytest.approx(general.ci_high, abs=0.1)


def test_ideal_stands_beside_the_attained(cohort, results):
    frame, truth = cohort
    ideal = pick(results, "auroc", score="ideal")
    assert ideal["estimate"] == pytest.approx(discrimination.auroc(frame["outcome"], truth["bayes_score"]))
    difference = pick(results, "auroc_difference", comparator="ideal")
    assert difference["estimate"] == pytest.approx(pick(results, "auroc")["estimate"] - ideal["estimate"])
    assert 0 <= difference["p_value"] <= 1
    attained = pick(results, "explained_variance", outcome="alm_kg", score="alm_kg_mu")["estimate"]
    best = pick(results, "explained_variance", outcome="alm_kg", score="ideal")["estimate"]
    ratio = pick(results, "explained_variance_ratio", outcome="alm_kg", score="alm_kg_mu", comparator="ideal")
    assert ratio["estimate"] == pytest.approx(attained / best)
    assert ratio["ci_low"] < ratio["estimate"] < ratio["ci_high"]
    nll = pick(results, "nll_difference", outcome="alm_kg", score="alm_kg_mu", comparator="ideal")
    assert nll["estimate"] > 0


def test_rows_without_an_ideal_are_left_out_of_it(cohort):
    frame, truth = cohort[0], cohort[1].copy()
    truth.loc[:19, ["bayes_score", "alm_kg_ideal_mu", "alm_kg_ideal_sigma"]] = np.nan
    truth = truth.drop(columns=["crt_s_ideal_mu", "crt_s_ideal_sigma"])
    results = evaluate(frame, truth=truth)
    assert pick(results, "auroc", score="ideal")["n"] == 280
    assert pick(results, "auroc")["n"] == 300
    difference = pick(results, "auroc_difference", comparator="ideal")
    expected = discrimination.auroc(frame["outcome"][20:], frame["score"][20:]) - discrimination.auroc(
        frame["outcome"][20:], truth["bayes_score"][20:]
    )
    assert difference["estimate"] == pytest.approx(expected)
    ratio = pick(results, "explained_variance_ratio", outcome="alm_kg", score="alm_kg_mu", comparator="ideal")
    assert ratio["n"] == 280
    assert "ideal for 0 rows" in pick(results, "ccc", outcome="crt_s", score="ideal")["na_reason"]
    none = evaluate(frame, truth=truth.drop(columns="bayes_score"))
    assert "no Bayes score" in pick(none, "auroc", score="ideal")["na_reason"]


def test_truth_is_joined_by_row_id(cohort, results):
    frame, truth = cohort
    shuffled = truth.sample(frac=1, random_state=1)
    pd.testing.assert_frame_equal(evaluate(frame, truth=shuffled), results)


def test_sarc_f_is_compared_on_rows_that_have_it(cohort):
    frame = cohort[0].copy()
    frame.loc[:99, "sarc_f"] = np.nan
    known = frame[100:]
    results = evaluate(frame)
    row = pick(results, "auroc_difference", comparator="sarc_f")
    expected = discrimination.delong_paired(known["outcome"], known["score"], known["sarc_f"], confidence_level=0.95)
    assert (row["estimate"], row["p_value"]) == pytest.approx((expected.difference, expected.p_value))
    assert row["n"] == 200
    alone = pick(results, "auroc_delong", score="sarc_f")
    assert alone["estimate"] == pytest.approx(expected.auroc_b)


@pytest.mark.parametrize("how", ["absent", "empty"])
def test_without_sarc_f_the_rows_say_so(cohort, how):
    frame = cohort[0].drop(columns="sarc_f") if how == "absent" else cohort[0].assign(sarc_f=np.nan)
    results = evaluate(frame)
    assert pick(results, "auroc_delong", score="sarc_f")["na_reason"] == "SARC-F was not recorded"
    assert "no row" in pick(results, "auroc_difference", comparator="sarc_f")["na_reason"]


def test_what_is_left_out_is_counted(cohort):
    frame = cohort[0].copy()
    frame["flag"] = frame["flag"].astype("boolean")
    frame.loc[:9, ["score", "flag", "alm_kg_mu", "alm_kg_sigma", "crt_s_mu", "crt_s_sigma"]] = pd.NA
    frame.loc[5:29, "outcome"] = np.nan
    frame.loc[20:24, "alm_kg"] = np.nan
    results = evaluate(frame)
    counts = {m: pick(results, m)["estimate"] for m in ("n_rows", "n_patients", "n_not_scored", "n_label_missing")}
    assert counts == {"n_rows": 300, "n_patients": 300, "n_not_scored": 10, "n_label_missing": 20}
    assert pick(results, "auroc")["n"] == 270
    assert pick(results, "ccc", outcome="alm_kg", score="alm_kg_mu")["n"] == 285
    assert pick(results, "n_measured_missing", outcome="alm_kg", score="alm_kg_mu")["estimate"] == 5


def test_single_class_and_small_strata_are_reasons_not_errors(cohort):
    frame = cohort[0].copy()
    frame.loc[frame["sex"] == "F", "outcome"] = 0.0
    frame["site"] = np.where(np.arange(300) < 4, "small", "large")
    frame.loc[250:, "site"] = None
    results = evaluate(frame, config=make_config(subgroups=("sex", "site"), age_band_edges_years=()))
    women = pick(results, "auroc", subgroup="sex=F")
    assert women["na_reason"] == "no row has the outcome"
    assert women["n_degenerate"] == women["n_boot"]
    assert pick(results, "specificity", subgroup="sex=F")["na_reason"] == ""
    small = pick(results, "auroc", subgroup="site=small")
    assert small["na_reason"] == "n = 4 is below min_cell_size = 10"
    assert np.isnan(small["estimate"])
    assert pick(results, "mae", outcome="alm_kg", score="alm_kg_mu", subgroup="site=small")["n"] == 4
    assert pick(results, "auroc", subgroup="site=missing")["n"] == 50


def test_absent_columns_are_reasons(cohort):
    frame = cohort[0].drop(columns=["crt_s", "sex"])
    results = evaluate(frame)
    assert "no column crt_s" in pick(results, "ccc", outcome="crt_s", score="crt_s_mu")["na_reason"]
    absent = pick(results, "subgroup", subgroup="sex")
    assert "no column sex; add it to the manifest, or leave" in absent["na_reason"]
    assert absent[["estimate", "n", "n_events"]].isna().all()
    ageless = pick(evaluate(cohort[0].drop(columns="age_years")), "subgroup", subgroup="age_band")
    assert "no column age_years, of which age_band is made" in ageless["na_reason"]


def test_a_planned_band_without_a_row_says_so(cohort):
    frame = cohort[0].assign(age_years=cohort[0]["age_years"].clip(upper=74))
    results = evaluate(frame)
    empty = pick(results, "subgroup", subgroup="age_band=>=75")
    assert (empty["n"], empty["na_reason"]) == (0, "no scored row falls into this band")
    assert (results["subgroup"] == "age_band=>=75").sum() == 1
    whole = make_plan(make_config(), ["alm_kg", "crt_s"])
    plan = read_plan("metrics: [auroc]", whole, where="plan.yaml")
    few = evaluate_by_plan(frame, plan, dataset="test_internal", seed=3, run_id="run-1")
    filled = with_unplanned(few, plan, whole)
    assert (filled["subgroup"] == "age_band=>=75").sum() == 1


def test_rows_of_one_patient_have_no_figures(cohort):
    """A bootstrap of one patient draws the same patient each time: intervals of no width."""
    results = evaluate(cohort[0].assign(site=np.where(np.arange(300) < 40, "a", "b"), patient_id="p"))
    for row in (pick(results, "auroc"), pick(results, "mae", outcome="alm_kg", score="alm_kg_mu")):
        assert (row["na_reason"], row["n"]) == (ONE_PATIENT, 300)


def test_codes_that_differ_late_are_not_one_subgroup(cohort):
    codes = np.where(np.arange(300) < 150, 1234567.0, 1234568.0)
    results = evaluate(cohort[0].assign(ward=codes), config=make_config(subgroups=("ward",), age_band_edges_years=()))
    assert {"ward=1234567", "ward=1234568"} <= set(results["subgroup"])
    assert pick(results, "brier", subgroup="ward=1234567")["n"] == 150


def test_a_column_with_a_value_for_hardly_anybody_makes_no_subgroups(cohort):
    config = make_config(subgroups=("bmi_kg_m2",), age_band_edges_years=())
    row = pick(evaluate(cohort[0], config=config), "subgroup", subgroup="bmi_kg_m2")
    assert "has 300 values, and 100 at most make subgroups" in row["na_reason"]
    with pytest.raises(ValueError, match="'patient_id', whose values tell who somebody is"):
        make_config(subgroups=("patient_id",), age_band_edges_years=())


def test_an_auroc_of_one_has_no_interval_of_no_width(cohort):
    frame = cohort[0].assign(score=0.25 + 0.5 * cohort[0]["outcome"], sarc_f=10 - 10 * cohort[0]["outcome"])
    results = evaluate(frame)
    alone = pick(results, "auroc_delong")
    assert alone["estimate"] == 1.0
    assert (alone["na_reason"], np.isnan(alone["ci_low"])) == (NO_VARIANCE, True)
    against = pick(results, "auroc_difference", comparator="sarc_f")
    assert against["estimate"] == 1.0
    assert against["na_reason"] == NO_VARIANCE
    assert np.isnan([against["ci_low"], against["p_value"], against["p_adjusted"]]).all()


def test_all_labels_missing(cohort):
    results = evaluate(cohort[0].assign(outcome=np.nan), truth=cohort[1])
    assert "below min_cell_size" in pick(results, "auroc")["na_reason"]
    assert pick(results, "ccc", outcome="alm_kg", score="alm_kg_mu")["n"] == 300


def test_certain_scores_have_no_slope(cohort):
    results = evaluate(cohort[0].assign(score=cohort[0]["score"].mask(cohort[0]["score"] < 0.1, 0.0)))
    assert "exactly 0 or 1" in pick(results, "cal_slope")["na_reason"]
    assert pick(results, "brier")["na_reason"] == ""


def test_repeated_patients_widen_and_drop_analytic_intervals(cohort):
    frame = pd.concat([cohort[0]] * 3, ignore_index=True)
    repeated, ignored = evaluate(frame), evaluate(frame.assign(patient_id=np.arange(900)))

    def width(results, metric):
        row = pick(results, metric)
        return row["ci_high"] - row["ci_low"]

    assert width(repeated, "auroc") > 1.4 * width(ignored, "auroc")
    row = pick(repeated, "ccc", outcome="alm_kg", score="alm_kg_mu")
    assert "patients repeat" in row["na_reason"]
    assert not np.isnan(row["estimate"])
    assert np.isnan(row["ci_low"])
    assert np.isnan(pick(repeated, "auroc_difference", comparator="sarc_f")["p_value"])


def test_equal_seeds_equal_tables(cohort):
    frame = cohort[0]
    pd.testing.assert_frame_equal(evaluate(frame), evaluate(frame))
    first, other = evaluate(frame), evaluate(frame, seed=4)
    assert pick(first, "auroc")["ci_low"] != pick(other, "auroc")["ci_low"]


def test_another_subgroup_changes_no_other_figure(cohort):
    frame = cohort[0].assign(site="a")
    base = evaluate(frame)
    more = evaluate(frame, config=make_config(subgroups=("site", "sex", "age_band")))
    for metric, subgroup in (("auroc", "all"), ("brier", "sex=F")):
        assert pick(base, metric, subgroup=subgroup)["ci_low"] == pick(more, metric, subgroup=subgroup)["ci_low"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: f.drop(columns="flag"), "column flag: missing"),
        (lambda f: f.assign(score=np.nan), "none of 300 rows was scored"),
        (lambda f: f.assign(score=2.0), "probability within"),
        (lambda f: f.assign(outcome=2.0), "column outcome: found 2"),
        (lambda f: f.assign(flag=np.nan), "column flag: every scored row"),
        (lambda f: f.drop(columns="alm_kg_mu"), "column alm_kg_mu: missing"),
        (lambda f: f.assign(outcome="yes"), "column outcome: expected numbers"),
        (lambda f: f.assign(alm_kg_sigma=0.0), "column alm_kg_sigma: 300 scored rows have no number above 0"),
        (lambda f: f.assign(sarc_f=np.inf), "column sarc_f: 300 values are infinite"),
    ],
)
def test_wrong_frames_are_refused(cohort, damage, message):
    with pytest.raises(ValueError, match=message):
        evaluate(damage(cohort[0]))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda t: t[:100], "200 of 300 scored rows"),
        (lambda t: pd.concat([t, t]), "occurs twice"),
        (lambda t: t.drop(columns="row_id"), "row_id is missing"),
    ],
)
def test_wrong_truth_is_refused(cohort, damage, message):
    with pytest.raises(EvaluationError, match=message):
        evaluate(cohort[0], truth=damage(cohort[1]))


def test_headline_puts_attained_beside_ideal(results):
    table = headline_table(results, interval_level=0.9)
    auroc = table[table["metric"] == "auroc"].iloc[0]
    assert auroc["attained"] == round(pick(results, "auroc")["estimate"], 3)
    assert auroc["ideal"] == round(pick(results, "auroc", score="ideal")["estimate"], 3)
    assert auroc["attained_over_ideal"] == pytest.approx(auroc["attained"] / auroc["ideal"], abs=2e-3)
    assert {"ccc", "explained_variance", "coverage_90", "nll", "mae"} <= set(
        table[table["quantity"] == "crt_s"]["metric"]
    )
    assert {"auroc_difference vs sarc_f", "auroc_difference vs ideal"} <= set(table["metric"])
    assert not table.duplicated(["dataset", "quantity", "metric"]).any()
    assert (table["metric"] == "auroc").sum() == 1


def test_headline_works_without_truth(cohort):
    table = headline_table(evaluate(cohort[0]), interval_level=0.9)
    assert table["ideal"].isna().all()
    assert table["attained"].notna().all()

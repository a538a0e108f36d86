"""Our statistics against R's on 24 data sets that tests/golden/sets.R drew: ties, tiny classes, n = 10,000."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from sarc_ray.stats import (
    agreement,
    bootstrap,
    calibration,
    decision,
    discrimination,
    hypothesis,
    partial_area,
    proportions,
    uncertainty,
)

GOLDEN = Path(__file__).parents[1] / "golden"
# boot.ci gives ranks among 1,000 to two decimals; everything else agrees to 1e-9 of the value.
ABSOLUTE = {"bca_share_low": 6e-6, "bca_share_high": 6e-6}
LEVEL = {"confidence_level": 0.95}


@pytest.fixture(scope="module")
def data():
    return {
        number: rows.reset_index(drop=True) for number, rows in pd.read_csv(GOLDEN / "sets_data.csv.gz").groupby("set")
    }


@pytest.fixture(scope="module")
def r_values():
    table = pd.read_csv(GOLDEN / "sets.csv")
    return {number: dict(zip(part["name"], part["value"], strict=True)) for number, part in table.groupby("set")}


def limits(name, interval, estimate=None):
    named = {f"{name}_ci_low": interval.ci_low, f"{name}_ci_high": interval.ci_high}
    return named | ({estimate: interval.estimate} if estimate else {})


def discrimination_values(d, _):
    label, a, b = d["label"], d["score_a"], d["score_b"]
    paired = discrimination.delong_paired(label, a, b, **LEVEL)
    second = scipy.stats.rankdata(label, method="ordinal") % 2 == 0
    unpaired = discrimination.delong_unpaired(label[~second], a[~second], label[second], a[second], **LEVEL)
    part = {"fpr_low": 0, "fpr_high": 0.2}
    return {
        **limits("auroc", discrimination.auroc_interval(label, a, **LEVEL), "auroc"),
        "auroc_variance": discrimination.delong_variance(label, a),
        "paired_z": paired.statistic,
        "paired_p": paired.p_value,
        **limits("paired", paired),
        "unpaired_statistic": unpaired.statistic,
        "unpaired_df": unpaired.df,
        "unpaired_p": unpaired.p_value,
        "partial_auroc": partial_area.partial_auroc(label, a, **part, standardise=False),
        "partial_auroc_middle": partial_area.partial_auroc(label, a, fpr_low=0.1, fpr_high=0.6, standardise=False),
        "partial_auroc_standardised": partial_area.partial_auroc(label, a, **part, standardise=True),
    }


def calibration_values(d, _):
    pair = (d["label"], d["probability"])
    citl, slope = calibration.citl(*pair, **LEVEL), calibration.cal_slope(*pair, **LEVEL)
    errors, test = calibration.calibration_errors(*pair), calibration.spiegelhalter(*pair)
    return {
        "brier": calibration.brier(*pair),
        "scaled_brier": calibration.scaled_brier(*pair),
        "ici": errors.ici,
        "e50": errors.e50,
        "e90": errors.e90,
        "emax": errors.emax,
        "spiegelhalter_z": test.statistic,
        "spiegelhalter_p": test.p_value,
        "citl": citl.estimate,
        "citl_se": (citl.ci_high - citl.ci_low) / (2 * scipy.stats.norm.ppf(0.975)),
        "cal_slope": slope.estimate,
        "cal_slope_se": (slope.ci_high - slope.ci_low) / (2 * scipy.stats.norm.ppf(0.975)),
    }


def agreement_values(d, _):
    pair = (d["measured"], d["predicted"])
    ccc, bland = agreement.concordance(*pair, **LEVEL), agreement.bland_altman(*pair, **LEVEL)
    line = agreement.proportional_bias(*pair, **LEVEL)
    return {
        **limits("ccc", ccc, "ccc"),
        "bias_correction": ccc.bias_correction,
        **limits("bias", bland.bias, "bias"),
        "bias_sd": bland.sd,
        **limits("pearson", agreement.pearson(*pair, **LEVEL), "pearson"),
        "spearman": agreement.spearman(*pair, **LEVEL).estimate,
        **limits("bias_slope", line.slope, "bias_slope"),
        "bias_slope_p": line.p_value,
        "bias_intercept_ci_low": line.intercept.ci_low,
        "bias_residual_sd": line.residual_sd,
    }


def decision_values(d, _):
    flag, other = d["score_a"] >= d["score_a"].median(), d["score_b"] >= d["score_b"].median()
    cells = discrimination.confusion_from_flags(d["label"], flag)
    plus = proportions.positive_likelihood_ratio(cells, **LEVEL)
    minus = proportions.negative_likelihood_ratio(cells, **LEVEL)
    hits, n_positive = int(cells.tp), int(cells.tp + cells.fn)
    exact = proportions.exact_interval(hits, n_positive, **LEVEL)
    wilson = discrimination.wilson_interval(hits, n_positive, **LEVEL)
    pairs = [[int(((flag == i) & (other == j)).sum()) for j in (False, True)] for i in (False, True)]
    return {
        "lr_positive": plus.estimate,
        "lr_positive_low": plus.ci_low,
        "lr_positive_high": plus.ci_high,
        "lr_negative": minus.estimate,
        "lr_negative_low": minus.ci_low,
        "lr_negative_high": minus.ci_high,
        **{name: float(getattr(discrimination, name)(cells)) for name in ("sensitivity", "specificity", "ppv", "npv")},
        "sensitivity_exact_low": exact.ci_low,
        "sensitivity_exact_high": exact.ci_high,
        "npv_exact_low": proportions.exact_interval(int(cells.tn), int(cells.tn + cells.fn), **LEVEL).ci_low,
        "wilson_low": wilson.ci_low,
        "wilson_high": wilson.ci_high,
        "mcnemar_p": hypothesis.mcnemar(pairs, kind="chi_square").p_value,
        "mcnemar_corrected_p": hypothesis.mcnemar(pairs, kind="corrected").p_value,
        "mcnemar_exact_p": hypothesis.mcnemar(pairs, kind="exact").p_value,
    }


def group_values(d, _):
    has, has_not = (d["measured"][d["label"] == k] for k in (1, 0))
    pooled, rank = hypothesis.t_test(has, has_not), hypothesis.rank_sum(has, has_not)
    counts = pd.crosstab(d["label"], d["measured"] > 17).to_numpy()
    return {
        "t_pooled": pooled.statistic,
        "t_pooled_p": pooled.p_value,
        "t_welch_p": hypothesis.t_test(has, has_not, equal_variances=False).p_value,
        "rank_sum_u": rank.statistic,
        "rank_sum_p": rank.p_value,
        "chi_square_p": hypothesis.chi_square(counts).p_value,
        "chi_square_yates_p": hypothesis.chi_square(counts, yates=True).p_value,
        "fisher_p": hypothesis.fisher_exact(counts).p_value,
    }


def bootstrap_values(d, theirs):
    # Replicates 0, 1, ... 998 with as many of them below the estimate as R found: an interval's limit is a rank.
    influence = np.exp(d["measured"] / 4) - np.exp(d["measured"] / 4).mean()
    [interval] = bootstrap.summarise(
        ["rank"],
        np.array([theirs["bca_below"] - 0.5]),
        np.arange(999.0)[:, None],
        confidence_level=0.9,
        accelerations=[np.sum(influence**3) / (6 * np.sum(influence**2) ** 1.5)],
    ).values()
    return {"bca_share_low": interval.ci_low / 998, "bca_share_high": interval.ci_high / 998}


def flag_values(d, _):
    flag = d["score_a"] >= d["score_a"].median()
    cells = discrimination.confusion_from_flags(d["label"], flag)
    return {
        "auprc": discrimination.auprc(d["label"], d["score_a"]),
        "f1": float(discrimination.f1(cells)),
        "mcc": float(discrimination.mcc(cells)),
    }


def fit_values(d, _):
    pair = (d["label"], d["probability"])
    test = calibration.hosmer_lemeshow(*pair, n_bins=10, external=True)
    curve = decision.decision_curve(*pair, [0.1, 0.3])
    return {
        "hosmer_lemeshow": test.statistic,
        "hosmer_lemeshow_df": test.df,
        "hosmer_lemeshow_p": test.p_value,
        "net_benefit_10": curve.model[0],
        "net_benefit_30": curve.model[1],
        "standardised_30": curve.standardised[1],
        "treat_all_30": curve.treat_all[1],
        "avoided_30": curve.avoided_per_100[1],
    }


def error_values(d, _):
    pair = (d["measured"], d["predicted"])
    sigma = 1 + d["predicted"].abs() / 20
    bland = agreement.bland_altman(*pair, **LEVEL)
    groups = [d["measured"][d["label"] == k] for k in (1, 0)]
    return {
        "mae": agreement.mae(*pair),
        "rmse": agreement.rmse(*pair),
        "explained_variance": agreement.explained_variance(*pair),
        "loa_low": bland.loa_low.estimate,
        "loa_low_ci_low": bland.loa_low.ci_low,
        "loa_high": bland.loa_high.estimate,
        "loa_high_ci_high": bland.loa_high.ci_high,
        "nll": uncertainty.gaussian_nll(*pair, sigma).mean(),
        "coverage_90": uncertainty.inside_interval(*pair, sigma, level=0.9).mean(),
        "sharpness": uncertainty.sharpness(sigma),
        "smd_means": hypothesis.smd_means(*groups),
        "smd_shares": hypothesis.smd_shares(*(float((group > 17).mean()) for group in groups)),
    }


def adjusted_values(d, _):
    has, has_not = (d["measured"][d["label"] == k] for k in (1, 0))
    bias = scipy.stats.ttest_1samp(d["predicted"] - d["measured"], 0).pvalue
    p_values = [hypothesis.t_test(has, has_not).p_value, bias, hypothesis.rank_sum(has, has_not).p_value, np.nan]
    adjusted = hypothesis.holm(p_values)
    return {"holm_first": adjusted[0], "holm_second": adjusted[1], "holm_third": adjusted[2]}


OURS = (
    discrimination_values,
    calibration_values,
    agreement_values,
    decision_values,
    group_values,
    bootstrap_values,
    flag_values,
    fit_values,
    error_values,
    adjusted_values,
)


@pytest.mark.parametrize("ours", OURS)
def test_every_statistic_agrees_with_r_on_at_least_twenty_sets(data, r_values, ours):
    compared: dict[str, int] = {}
    for number, theirs in r_values.items():
        for name, value in ours(data[number], theirs).items():
            if name in theirs:
                compared[name] = compared.get(name, 0) + 1
                expected = pytest.approx(theirs[name], rel=1e-9, abs=ABSOLUTE.get(name, 1e-13))
                assert value == expected, f"{name}, data set {number}"
    assert min(compared.values()) >= 20, compared


def test_the_sets_are_as_hard_as_they_should_be(data, r_values):
    assert len(data) == len(r_values) == 24
    shares = [rows["label"].mean() for rows in data.values()]
    assert min(shares) <= 0.02
    assert max(shares) >= 0.98
    assert min(rows["label"].sum() for rows in data.values()) == 3
    assert max(len(rows) for rows in data.values()) == 10_000
    assert sum(rows["score_a"].nunique() < 10 for rows in data.values()) >= 4


def test_nothing_that_r_computed_is_left_uncompared(data, r_values):
    known = {name for ours in OURS for name in ours(data[1], r_values[1])}
    assert {name for theirs in r_values.values() for name in theirs} == known | {"bca_below"}

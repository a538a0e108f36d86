"""Our statistics against R's, on the data that tests/golden/statistics.R drew (R 4.2.2; packages in the table)."""

import io
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sarc_ray.stats import agreement, calibration, discrimination, hypothesis

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="module")
def data():
    return pd.read_csv(GOLDEN / "statistics_data.csv")


@pytest.fixture(scope="module")
def r_value():
    table = pd.read_csv(GOLDEN / "statistics.csv")
    return dict(zip(table["name"], table["value"], strict=True))


def expect(r_value, ours):
    for name, value in ours.items():
        assert value == pytest.approx(r_value[name], rel=1e-6), name


def test_delong(data, r_value):
    label, a, b = data["label"], data["score_a"], data["score_b"]
    interval = discrimination.auroc_interval(label, a, confidence_level=0.95)
    paired = discrimination.delong_paired(label, a, b, confidence_level=0.95)
    unpaired = discrimination.delong_unpaired(label[:100], a[:100], label[100:], a[100:], confidence_level=0.95)
    expect(
        r_value,
        {
            "auroc_a": interval.estimate,
            "auroc_a_ci_low": interval.ci_low,
            "auroc_a_ci_high": interval.ci_high,
            "auroc_a_variance": discrimination.delong_variance(label, a),
            "paired_z": paired.statistic,
            "paired_p": paired.p_value,
            "unpaired_statistic": unpaired.statistic,
            "unpaired_df": unpaired.df,
            "unpaired_p": unpaired.p_value,
        },
    )


def test_calibration(data, r_value):
    pair = (data["label"], data["probability"])
    citl = calibration.citl(*pair, confidence_level=0.95)
    slope = calibration.cal_slope(*pair, confidence_level=0.95)
    test = calibration.spiegelhalter(*pair)
    curve = calibration.calibration_curve(*pair)
    expect(
        r_value,
        {
            "citl": citl.estimate,
            "cal_slope": slope.estimate,
            "citl_se": (citl.ci_high - citl.ci_low) / (2 * 1.959963984540054),
            "cal_slope_se": (slope.ci_high - slope.ci_low) / (2 * 1.959963984540054),
            "brier": calibration.brier(*pair),
            "spiegelhalter_z": test.statistic,
            "spiegelhalter_p": test.p_value,
            "lowess_first": curve.observed[0],
            "lowess_middle": curve.observed[119],
            "lowess_last": curve.observed[-1],
        },
    )


def test_calibration_errors(data, r_value):
    errors = calibration.calibration_errors(data["label"], data["probability"])
    expect(r_value, {"ici": errors.ici, "e90": errors.e90, "emax": errors.emax})


def test_concordance(data, r_value):
    ccc = agreement.concordance(data["measured"], data["predicted"], confidence_level=0.95)
    expect(
        r_value,
        {
            "ccc": ccc.estimate,
            "ccc_ci_low": ccc.ci_low,
            "ccc_ci_high": ccc.ci_high,
            "bias_correction": ccc.bias_correction,
        },
    )


def test_two_groups(data, r_value):
    has, has_not = (data["group_value"][data["label"] == k] for k in (1, 0))
    pooled, rank = hypothesis.t_test(has, has_not), hypothesis.rank_sum(has, has_not)
    counts = pd.crosstab(data["label"], data["score_b"] > 0).to_numpy()
    expect(
        r_value,
        {
            "t_pooled": pooled.statistic,
            "t_pooled_p": pooled.p_value,
            "t_welch_p": hypothesis.t_test(has, has_not, equal_variances=False).p_value,
            "rank_sum_u": rank.statistic,
            "rank_sum_p": rank.p_value,
            "chi_square_p": hypothesis.chi_square(counts).p_value,
            "chi_square_yates_p": hypothesis.chi_square(counts, yates=True).p_value,
            "fisher_p": hypothesis.fisher_exact(counts).p_value,
        },
    )


def test_every_golden_value_is_finite(r_value):
    assert len(r_value) == 34
    assert np.isfinite(list(r_value.values())).all()


@pytest.mark.skipif(
    shutil.which("Rscript") is None, reason="Rscript is not here; pROC's example data are not ours to keep"
)
def test_proc_example_as_published():
    """pROC's aSAH: 113 patients, 41 with a poor outcome (Robin et al. 2011, and the package's manual)."""
    command = 'data(aSAH, package = "pROC"); write.csv(aSAH[c("outcome", "wfns", "s100b", "ndka")], row.names = FALSE)'
    done = subprocess.run(
        ["Rscript", "-e", command], env=os.environ | {"TZ": "UTC"}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip("R is here without pROC")
    rows = pd.read_csv(io.StringIO(done.stdout))
    label = rows["outcome"] == "Poor"
    assert (len(rows), label.sum()) == (113, 41)
    areas = {name: discrimination.auroc(label, rows[name]) for name in ("wfns", "s100b", "ndka")}
    assert areas == pytest.approx(
        {"wfns": 0.823678861788618, "s100b": 0.731368563685637, "ndka": 0.611957994579946}, rel=1e-12
    )
    variances = [discrimination.delong_variance(label, rows[name]) for name in ("wfns", "s100b")]
    assert variances == pytest.approx([0.00146991470882363, 0.00266868245717244], rel=1e-12)
    paired = discrimination.delong_paired(label, rows["wfns"], rows["s100b"], confidence_level=0.95)
    assert (paired.statistic, paired.p_value) == pytest.approx((2.20898359144091, 0.0271757822291882), rel=1e-12)
    assert (paired.ci_low, paired.ci_high) == pytest.approx((0.01040618, 0.17421442), abs=1e-8)

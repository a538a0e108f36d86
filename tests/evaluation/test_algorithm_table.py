"""Table S1's numbers: cross-validated ones from the trials, test ones by the bootstrap of Table 2."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from sarc_ray.evaluation.algorithm_table import algorithm_table, cross_validated
from sarc_ray.evaluation.rows import seed_of
from sarc_ray.stats.bootstrap import METRICS, bootstrap_metrics
from sarc_ray.stats.discrimination import auroc
from tests.evaluation.cohorts import make_config

CONFIG = make_config(n_boot=100, subgroups=(), age_band_edges_years=())


def trials():
    rows = [
        ("xgboost", 0.80, 0.02, 0.5, False, 10.0, True, False),
        ("xgboost", 0.60, np.nan, np.nan, True, 2.0, False, False),
        ("lightgbm", 0.99, 0.02, 0.6, False, 5.0, True, True),
        ("extra_trees", 0.5, np.nan, np.nan, True, 1.0, False, False),
    ]
    columns = ["algorithm", "cv_auroc_mean", "cv_auroc_se", "oof_f1", "pruned", "seconds", "finalist", "chosen"]
    return pd.DataFrame(rows, columns=columns).assign(params="{}")


def test_cross_validated_figures_come_from_the_finalists_and_costs_from_all_trials():
    table = cross_validated(trials(), confidence_level=0.9).set_index(["algorithm", "metric"]).sort_index()
    assert set(table.index.get_level_values(0)) == {"lightgbm", "xgboost"}  # of extra trees nothing was finished
    row = table.loc[("xgboost", "auroc")]
    assert row["ci_low"] == pytest.approx(0.80 + norm.ppf(0.05) * 0.02)
    assert table.loc[("lightgbm", "auroc"), "ci_high"] == 1.0
    assert table.loc[("xgboost", "seconds"), "estimate"] == 12.0
    assert table.loc[("xgboost", "pruned"), "estimate"] == 1.0
    assert table.loc["lightgbm", "chosen"].all()
    assert not table.loc["xgboost", "chosen"].any()


def scored(n, seed=1):
    rng = np.random.default_rng(seed)
    label = (np.arange(n) % 4 == 0).astype(float)
    score = np.clip(0.3 * label + rng.random(n) * 0.6, 0, 1)
    patient = [f"p{i}" for i in range(n)]
    return pd.DataFrame({"patient_id": patient, "outcome": label, "score": score, "flag": score > 0.5})


def table_of(frame, **changes):
    values = {"algorithm": "xgboost", "chosen": True, "dataset": "test", "config": CONFIG, "seed": 3}
    return algorithm_table(frame, **(values | changes))


def test_a_test_set_has_the_nine_metrics_with_intervals():
    frame = scored(120)
    table = table_of(frame).set_index("metric")
    assert list(table.index) == list(METRICS)
    assert table.loc["auroc", "estimate"] == auroc(frame["outcome"], frame["score"])
    assert (table["ci_low"] <= table["estimate"]).all()
    assert (table["ci_high"] >= table["estimate"]).all()
    assert (table["n"] == 120).all()
    assert (table["n_events"] == 30).all()


def test_patients_with_several_images_are_drawn_whole():
    frame = scored(60)
    twice = pd.concat([frame, frame], ignore_index=True)
    once, double = table_of(frame).set_index("metric"), table_of(twice).set_index("metric")
    assert once.loc["auroc", "estimate"] == pytest.approx(double.loc["auroc", "estimate"])
    # As many patients as before: the interval is no narrower than with one image of each.
    width = once["ci_high"] - once["ci_low"], double["ci_high"] - double["ci_low"]
    assert width[1]["auroc"] > 0.8 * width[0]["auroc"]


def test_too_few_rows_and_a_class_that_is_absent_have_reasons():
    small = table_of(scored(8), config=make_config(n_boot=10, min_cell_size=20, subgroups=(), age_band_edges_years=()))
    assert small["estimate"].isna().all()
    assert (small["na_reason"] == "n = 8 is below min_cell_size = 20").all()
    config = make_config(n_boot=10, min_events=50, subgroups=(), age_band_edges_years=())
    rare = table_of(scored(120), config=config)
    assert rare["na_reason"].str.endswith("are below min_events = 50").all()
    one_class = table_of(scored(120).assign(outcome=0.0)).set_index("metric")
    assert one_class.loc["auroc", "na_reason"].startswith("not defined")
    assert one_class.loc["brier", "na_reason"] == ""


def test_intervals_are_of_the_kind_that_the_plan_names():
    """As Table 2's of the chosen algorithm, which are made by the same function."""
    frame = scored(120)
    config = make_config(n_boot=100, interval="bca", subgroups=(), age_band_edges_years=())
    bca = table_of(frame, config=config).set_index("metric")
    expected = bootstrap_metrics(
        frame["outcome"],
        frame["score"],
        frame["flag"],
        n_boot=100,
        confidence_level=config.confidence_level,
        seed=seed_of(3, "test", "xgboost"),
        kind="bca",
    )
    assert (
        bca.loc["auroc", "ci_low"] == expected["auroc"].ci_low != table_of(frame).set_index("metric")["ci_low"]["auroc"]
    )

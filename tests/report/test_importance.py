"""Permutation importance stands beside SHAP feature by feature; curves are those of the table."""

import dataclasses

import numpy as np
import pytest

from sarc_ray.report import importance
from sarc_ray.report.content import Absent


def test_both_measures_of_a_feature_stand_in_one_line(report):
    figure = importance.importance_figure(report)
    drawn = figure.numbers.set_index("feature")
    shap = report.shap
    for k, name in enumerate(shap.features):
        assert drawn.loc[name, "mean_abs_shap"] == pytest.approx(np.abs(shap.values_NF[:, k]).mean())
    assert figure.numbers["feature"].tolist() == report.importance.table["feature"].tolist()
    assert "0.800" in figure.caption
    assert "30 times" in figure.caption
    assert "80 patients (20 with the outcome)" in figure.caption
    view = importance.importance_view(report)
    assert view.rows[0] == ("ALM, kg (predicted)", "0.0800", "0.0100", f"{drawn.loc['alm_kg_mu', 'mean_abs_shap']:.4f}")
    assert view.rows[-1][1] == "\u22120.0100"


def test_importance_does_without_shap(report):
    bare = dataclasses.replace(report, shap=Absent(reason="away"))
    assert importance.importance_figure(bare).numbers["mean_abs_shap"].isna().all()
    assert [row[-1] for row in importance.importance_view(bare).rows] == ["\u2013"] * 4


def test_curves_are_the_table_and_its_ends_are_printed(report):
    figure = importance.dependence_figure(report)
    assert figure.numbers.equals(report.dependence.table)
    assert "5 points" in figure.caption
    view = importance.dependence_view(report)
    assert [row[0] for row in view.rows] == [
        "ALM, kg (predicted)",
        "CRT, s (predicted)",
        "ALM, uncertainty %",
        "CRT, uncertainty %",
    ]
    assert view.rows[1] == ("CRT, s (predicted)", "2.0", "10.0", "0.110", "0.110", "0.110", "0.110")
    assert "percentiles 10 and 90" in view.note


def test_a_target_without_uncertainty_leaves_its_panel_empty(report):
    table = report.dependence.table
    fewer = table[table["feature"] != "crt_s_uncertainty_pct"].reset_index(drop=True)
    some = dataclasses.replace(report, dependence=dataclasses.replace(report.dependence, table=fewer))
    assert importance.dependence_figure(some).numbers["feature"].nunique() == 3
    means = table[table["feature"].str.endswith("_mu")].reset_index(drop=True)
    none = dataclasses.replace(report, dependence=dataclasses.replace(report.dependence, table=means))
    assert len(importance.dependence_view(none).rows) == 2
    assert importance.dependence_figure(none).svg


def test_what_is_not_there_says_why_once(report):
    away = Absent(reason="The bundle is away.")
    bare = dataclasses.replace(report, importance=away, dependence=away)
    assert importance.importance_figure(bare) is away
    assert importance.dependence_figure(bare) is away
    assert importance.importance_view(bare) is None
    assert importance.dependence_view(bare) is None

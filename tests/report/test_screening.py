"""Figures beyond the paper's say what the statistics functions say of the same patients."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from sarc_ray.evaluation.results import LEFT_OUT
from sarc_ray.report import forest, retrained, screening
from sarc_ray.report.content import Absent, Results
from sarc_ray.stats.decision import net_benefit
from sarc_ray.stats.discrimination import auprc, auroc, pr_curve


@pytest.mark.parametrize(("number", "scores"), [(0, ["score", "sarc_f"]), (1, ["score"])])
def test_precision_recall(report, number, scores):
    test_set = report.test_sets[number]
    figure = screening.precision_recall_figure(report, test_set)
    numbers = figure.numbers
    assert numbers["score"].unique().tolist() == ["prevalence", *scores]
    assert numbers["precision"].iloc[0] == test_set.frame["outcome"].mean()
    for name in scores:
        curve = pr_curve(test_set.frame["outcome"], test_set.frame[name])
        rows = numbers[numbers["score"] == name]
        np.testing.assert_array_equal(rows["recall"], curve.recall)
        np.testing.assert_array_equal(rows["precision"], curve.precision)
        area = float(np.sum(np.diff(rows["recall"], prepend=0) * rows["precision"]))
        assert area == pytest.approx(auprc(test_set.frame["outcome"], test_set.frame[name]))
    assert b"<svg" in figure.svg


def test_distribution_counts_every_patient_once(report):
    frame = report.test_sets[0].frame
    numbers = screening.distribution_figure(report, report.test_sets[0]).numbers
    for outcome, rows in numbers.groupby("outcome"):
        assert rows["n"].sum() == (frame["outcome"] == outcome).sum()
        assert rows["percent"].sum() == pytest.approx(100)
        inside = frame.loc[frame["outcome"] == outcome, "score"].between(*rows.iloc[3][["score_from", "score_to"]])
        assert rows["n"].iloc[3] == inside.sum()


def test_decision_curve(report):
    frame = report.test_sets[0].frame
    numbers = screening.decision_curve_figure(report, report.test_sets[0]).numbers
    label_N, threshold_T = frame["outcome"].to_numpy(), numbers["threshold"].to_numpy()
    np.testing.assert_array_equal(numbers["model"], net_benefit(label_N, frame["score"], threshold_T))
    # A flag is a score of 1 or 0: the same at every threshold probability.
    flag_N = (frame["sarc_f"] >= 4).astype(float)
    np.testing.assert_allclose(numbers["sarc_f"], net_benefit(label_N, flag_N, threshold_T))
    assert threshold_T.max() >= 0.5
    np.testing.assert_allclose(numbers["standardised"], numbers["model"] / label_N.mean())
    external = screening.decision_curve_figure(report, report.test_sets[1])
    assert "sarc_f" not in external.numbers
    assert "SARC-F was not recorded" in external.caption


def test_all_curves_of_a_panel_are_of_the_patients_who_have_sarc_f(report):
    test_set = report.test_sets[0]
    frame = test_set.frame.assign(sarc_f=test_set.frame["sarc_f"].where(np.arange(len(test_set.frame)) % 3 > 0))
    changed, known = dataclasses.replace(test_set, frame=frame), frame[frame["sarc_f"].notna()]
    decision = screening.decision_curve_figure(report, changed)
    threshold_T = decision.numbers["threshold"]
    np.testing.assert_array_equal(decision.numbers["model"], net_benefit(known["outcome"], known["score"], threshold_T))
    treat_all_T = net_benefit(known["outcome"], np.ones(len(known)), threshold_T)
    np.testing.assert_allclose(decision.numbers["treat_all"], treat_all_T, atol=1e-12)
    recall = screening.precision_recall_figure(report, changed)
    assert recall.numbers["precision"].iloc[0] == known["outcome"].mean()
    curve = pr_curve(known["outcome"], known["score"])
    own = recall.numbers[recall.numbers["score"] == "score"]
    np.testing.assert_array_equal(own["precision"], curve.precision)
    for figure in (decision, recall):
        assert f"All curves are of the {len(known)} patients of {len(frame)} who have SARC-F." in figure.caption
    # The interval of the results is that of all patients.
    assert "interval" not in recall.caption


def test_sarc_f_of_too_few_patients_does_not_shrink_the_panel(report):
    table = report.results.table.copy()
    few = (table["score"] == "sarc_f") & (table["metric"] == "auroc_delong")
    table.loc[few, "estimate"] = np.nan
    table.loc[few, "na_reason"] = "fewer than 20 rows"
    test_set = report.test_sets[0]
    frame = test_set.frame.assign(sarc_f=test_set.frame["sarc_f"].where(np.arange(len(test_set.frame)) < 5))
    changed = dataclasses.replace(report, results=Results(table=table))
    figure = screening.decision_curve_figure(changed, dataclasses.replace(test_set, frame=frame))
    assert "No SARC-F: fewer than 20 rows." in figure.caption
    whole = net_benefit(frame["outcome"], frame["score"], figure.numbers["threshold"])
    np.testing.assert_array_equal(figure.numbers["model"], whole)


@pytest.mark.parametrize(
    "draw",
    [screening.precision_recall_figure, screening.distribution_figure, screening.decision_curve_figure],
)
def test_nothing_to_draw_is_said(report, draw):
    test_set = dataclasses.replace(report.test_sets[0], name="other")
    test_set = dataclasses.replace(test_set, frame=test_set.frame.assign(outcome=np.nan))
    found = draw(report, test_set)
    assert isinstance(found, Absent)
    assert "internal test set" in found.reason


def test_forest_shows_every_subgroup_with_its_intervals(report):
    test_set = report.test_sets[0]
    figure = forest.forest_figure(report, test_set)
    # No record holds when the plan was made.
    assert "Subgroups are those of the plan;" in figure.caption
    assert "before" not in figure.caption
    numbers = figure.numbers
    assert numbers["subgroup"].unique().tolist() == ["all", "sex=F", "sex=M"]
    women = test_set.frame[test_set.frame["sex"] == "F"]
    row = numbers[(numbers["subgroup"] == "sex=F") & (numbers["metric"] == "auroc")].iloc[0]
    assert row["estimate"] == pytest.approx(auroc(women["outcome"], women["score"]))
    assert row["ci_low"] < row["estimate"] < row["ci_high"]
    assert row["n"] == len(women)
    internal = next(line for line in forest.subgroups_view(report).rows if line[0] == "Sex F")
    assert internal[1:3] == (str(len(women)), str(int(women["outcome"].sum())))


def test_forest_says_what_is_too_small_and_what_is_not_there(report):
    table = report.results.table.copy()
    small = (table["subgroup"] == "sex=M") & (table["dataset"] == "test_internal")
    table.loc[small, ["estimate", "ci_low", "ci_high"]] = np.nan
    table.loc[small, "na_reason"] = "fewer than 20 rows"
    changed = dataclasses.replace(report, results=Results(table=table))
    assert b"<svg" in forest.forest_figure(changed, report.test_sets[0]).svg
    row = next(line for line in forest.subgroups_view(changed).rows if line[0] == "Sex M")
    assert row[-1] == "fewer than 20 rows"
    assert set(row[3:6]) == {"\u2013"}
    absent = table[:1].assign(
        metric="subgroup", subgroup="device", estimate=np.nan, n=pd.NA, na_reason="the data set has no column device"
    )
    said = "Not shown: Device: the data set has no column device."
    changed = dataclasses.replace(report, results=Results(table=pd.concat([table, absent], ignore_index=True)))
    assert said in forest.forest_figure(changed, report.test_sets[0]).caption
    table = pd.concat([table[table["subgroup"] == "all"], absent], ignore_index=True)
    alone = dataclasses.replace(report, results=Results(table=table))
    assert said in forest.forest_figure(alone, report.test_sets[0]).reason
    assert forest.subgroups_view(alone) is None


def test_forest_of_a_plan_without_its_metrics_says_so_and_not_that_groups_are_small(report):
    table = report.results.table.copy()
    mine = table["metric"].isin(["auroc", "sensitivity", "specificity"]) & (table["score"] == "score")
    table.loc[mine, ["estimate", "ci_low", "ci_high"]] = np.nan
    table.loc[mine, "na_reason"] = LEFT_OUT
    changed = dataclasses.replace(report, results=Results(table=table))
    assert "the evaluation plan leaves out AUROC" in forest.forest_figure(changed, report.test_sets[0]).reason
    assert forest.subgroups_view(changed) is None


@pytest.mark.parametrize(
    ("group", "said"),
    [
        ("all", "All patients"),
        ("age_band=65-<75", "Age band 65 \u2013 < 75"),
        ("age_band=<65", "Age band < 65"),
        ("age_band=>=75", "Age band \u2265 75"),
        ("site=north-west", "Site north-west"),
    ],
)
def test_subgroups_in_words(group, said):
    assert forest.subgroup_said(group) == said


def test_retrained_model_beside_the_other(report):
    (figure,) = retrained.retrained_figures(report)
    (table,) = retrained.retrained_views(report)
    analysis = report.retrained[0]
    for dataset, scores in analysis.scores.items():
        for model, column in (("all", "score_all"), ("analysis", "score_analysis")):
            rows = figure.numbers[(figure.numbers["dataset"] == dataset) & (figure.numbers["model"] == model)]
            area = float(np.trapezoid(rows["tpr"], rows["fpr"]))
            assert area == pytest.approx(auroc(scores["outcome"], scores[column]))
    first = analysis.table.iloc[0]
    assert table.rows[0][2:4] == (f"{first['auroc_analysis']:.3f}", f"{first['auroc_all']:.3f}")
    assert "120 of 200 patients" in table.note


def test_retrained_without_scores_or_without_any_analysis(report):
    away = dataclasses.replace(report.retrained[0], scores={})
    (found,) = retrained.retrained_figures(dataclasses.replace(report, retrained=(away,)))
    assert "its scores are away" in found.reason
    scores = {dataset: both[:0] for dataset, both in report.retrained[0].scores.items()}
    empty = dataclasses.replace(report.retrained[0], scores=scores)
    (found,) = retrained.retrained_figures(dataclasses.replace(report, retrained=(empty,)))
    assert "no patient has a label and both scores" in found.reason
    none = dataclasses.replace(report, retrained=Absent(reason="None was made."))
    assert retrained.retrained_figures(none) == [Absent(reason="None was made.")]
    assert retrained.retrained_views(none) == []

"""The numbers beside every figure are those of the statistics functions on the same patients."""

import dataclasses
import io
import re

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from PIL import Image

from sarc_ray.report import agreement, explanations, figures, flow, heat, style
from sarc_ray.report.content import Absent, Results, TestSet
from sarc_ray.stats.agreement import bland_altman, concordance
from sarc_ray.stats.calibration import calibration_curve, reliability_table
from sarc_ray.stats.discrimination import auroc, roc_curve
from sarc_ray.stats.uncertainty import risk_coverage
from tests.evaluation.cohorts import TARGETS
from tests.report.sample import SCALE, evaluate, make_frame

ALM = TARGETS[0]


@pytest.mark.parametrize(("number", "scores"), [(0, ["score", "sarc_f"]), (1, ["score"])])
def test_roc_numbers(report, number, scores):
    test_set = report.test_sets[number]
    drawn = figures.roc_figure(report, test_set).numbers
    assert drawn["score"].unique().tolist() == scores
    for name in scores:
        curve = roc_curve(test_set.frame["outcome"], test_set.frame[name])
        rows = drawn[drawn["score"] == name]
        np.testing.assert_array_equal(rows["fpr"], curve.fpr)
        np.testing.assert_array_equal(rows["tpr"], curve.tpr)
        np.testing.assert_array_equal(rows["threshold"], curve.threshold)
        area = float(np.trapezoid(rows["tpr"], rows["fpr"]))
        assert area == pytest.approx(auroc(test_set.frame["outcome"], test_set.frame[name]))


def test_roc_says_delong_and_the_ideal_or_why_not(report):
    internal, external = (figures.roc_figure(report, test_set).caption for test_set in report.test_sets)
    row = report.results.row("test_internal", "auroc_difference", comparator="sarc_f")
    assert f"{row['estimate']:.3f} ({row['ci_low']:.3f} to {row['ci_high']:.3f})" in internal
    assert f"DeLong p = {row['p_value']:.3f}" in internal or "DeLong p < 0.001" in internal
    assert f"{report.results.row('test_internal', 'auroc', score='ideal')['estimate']:.3f}" in internal
    assert "SARC-F was not recorded" in external
    real = dataclasses.replace(report, simulated=False)
    assert "ideal" not in figures.roc_figure(real, report.test_sets[0]).caption


def test_calibration_numbers(report):
    frame = report.test_sets[0].frame
    drawn = figures.calibration_figure(report, report.test_sets[0]).numbers
    bins = drawn[drawn["part"] == "bin"]
    expected = reliability_table(frame["outcome"], frame["score"], n_bins=10, confidence_level=0.95)
    assert bins["n"].tolist() == [b.n for b in expected]
    assert bins["n_events"].tolist() == [b.n_events for b in expected]
    np.testing.assert_array_equal(bins["probability"], [b.mean_probability for b in expected])
    np.testing.assert_array_equal(bins["ci_high"], [b.observed.ci_high for b in expected])
    smooth = drawn[drawn["part"] == "smooth"]
    curve = calibration_curve(frame["outcome"], frame["score"])
    np.testing.assert_array_equal(smooth["observed"], curve.observed)
    for outcome, part in ((1, "spike_with"), (0, "spike_without")):
        assert drawn.loc[drawn["part"] == part, "n"].sum() == (frame["outcome"] == outcome).sum()


def test_concordance_numbers(report):
    for test_set in report.test_sets:
        drawn = agreement.concordance_figure(report, test_set, ALM).numbers
        found = concordance(drawn["measured"], drawn["predicted"], confidence_level=0.95)
        row = report.results.row(test_set.name, "ccc", score="alm_kg_mu", target="alm_kg")
        assert (found.estimate, found.ci_low, found.ci_high) == pytest.approx(
            (row["estimate"], row["ci_low"], row["ci_high"])
        )


def test_bland_altman_numbers(report):
    frame = report.test_sets[0].frame
    drawn = agreement.bland_altman_figure(report, report.test_sets[0], ALM).numbers.set_index("part")
    expected = bland_altman(frame["alm_kg"], frame["alm_kg_mu"], confidence_level=0.95)
    for name in ("bias", "loa_low", "loa_high"):
        line = drawn.loc[name]
        interval = getattr(expected, name)
        assert (line["difference"], line["ci_low"], line["ci_high"]) == pytest.approx(
            (interval.estimate, interval.ci_low, interval.ci_high)
        )
        assert report.results.row("test_internal", name, score="alm_kg_mu", target="alm_kg")[
            "estimate"
        ] == pytest.approx(line["difference"])
    points = drawn.loc["patient"]
    assert sorted(points["difference"]) == pytest.approx(sorted(frame["alm_kg_mu"] - frame["alm_kg"]))
    assert sorted(points["mean"]) == pytest.approx(sorted((frame["alm_kg_mu"] + frame["alm_kg"]) / 2))


def test_spikes_are_standardised_and_rising(report):
    frame = report.test_sets[0].frame.sort_values("alm_kg_mu")
    drawn = agreement.spikes_figure(report, report.test_sets[0], ALM).numbers
    mean, sd = SCALE["alm_kg"]
    np.testing.assert_allclose(drawn["predicted"], (frame["alm_kg_mu"] - mean) / sd)
    np.testing.assert_allclose(drawn["measured"], (frame["alm_kg"] - mean) / sd)
    np.testing.assert_allclose(drawn["sigma"], frame["alm_kg_sigma"] / sd)
    assert drawn["rank"].tolist() == list(range(1, len(frame) + 1))


def test_many_spikes_are_thinned_and_the_figure_says_so(report):
    frame, truth = make_frame(700, seed=5)
    many = dataclasses.replace(report, results=Results(table=evaluate(frame, truth, "big")))
    figure = agreement.spikes_figure(many, TestSet(name="big", label="Big", frame=frame), ALM)
    assert len(figure.numbers) == 250
    assert figure.numbers["rank"].iloc[[0, -1]].tolist() == [1, 700]
    assert b"250 of 700 patients" in figure.svg  # matplotlib keeps a text's words as a comment


def test_risk_coverage_ends_at_the_mean_error_and_says_what_is_gained(report):
    figure = agreement.risk_coverage_figure(report, ALM)
    assert set(figure.numbers["test_set"]) == {"test_internal", "test_external"}
    for test_set in report.test_sets:
        known = test_set.frame[["alm_kg", "alm_kg_mu"]].dropna()
        drawn = figure.numbers[figure.numbers["test_set"] == test_set.name]
        assert drawn["kept_percent"].is_monotonic_increasing
        assert drawn["kept_percent"].iloc[-1] == 100
        assert drawn["error"].iloc[-1] == pytest.approx((known["alm_kg"] - known["alm_kg_mu"]).abs().mean())
        gain = report.results.row(test_set.name, "aurc_gain", score="alm_kg_mu", target="alm_kg")["estimate"]
        assert f"{test_set.label.lower()} {gain:.2f}".replace("-", "\u2212") in figure.caption


def test_risk_coverage_within_subgroups(report):
    """A curve for each subgroup with enough patients, in a panel for each column; the largest where there are many."""
    test_set = report.test_sets[0]
    frame = test_set.frame.assign(site=[f"s{min(k % 12, 7)}" for k in range(len(test_set.frame))])
    frame.loc[frame["sex"] == "M", "alm_kg"] = np.nan
    frame.loc[frame.index[:40], "sex"] = "X"
    settings = dataclasses.replace(report.evaluation, subgroups=("sex", "site"), min_cell_size=15)
    changed = dataclasses.replace(report, evaluation=settings)
    crt, alm = (
        agreement.subgroup_risk_coverage_figure(changed, dataclasses.replace(test_set, frame=frame), target)
        for target in (TARGETS[1], ALM)
    )
    assert [name for name in crt.numbers["subgroup"].unique() if name.startswith("sex")] == ["sex=F", "sex=M", "sex=X"]
    sites = [name for name in crt.numbers["subgroup"].unique() if name.startswith("site")]
    assert len(sites) == 5
    assert "site=s7" in sites
    assert "sex=M" not in set(alm.numbers["subgroup"])
    women = frame[frame["sex"] == "F"]
    drawn = crt.numbers[crt.numbers["subgroup"] == "sex=F"]
    assert drawn["error"].iloc[-1] == pytest.approx((women["crt_s"] - women["crt_s_mu"]).abs().mean())
    curve = risk_coverage((women["crt_s"] - women["crt_s_mu"]).abs(), women["crt_s_sigma"])
    assert f"sex=F {curve.gain:.2f}".replace("-", "\u2212") in crt.caption
    none = dataclasses.replace(report, evaluation=dataclasses.replace(settings, min_cell_size=1000))
    assert "no subgroup of 1000" in agreement.subgroup_risk_coverage_figure(none, test_set, ALM).reason


def test_flow_numbers(report):
    drawn = flow.flow_figure(report.cohorts[0]).numbers
    assert drawn["label"].tolist() == ["screened", "age 40 or over", "Training"]
    assert drawn["n_patients"].tolist() == [280, 240, 200]
    assert drawn["excluded_images"].tolist()[:2] == [0, 50]


def test_shap_numbers_keep_each_feature_but_no_patient(report):
    drawn = explanations.shap_figure(report).numbers
    shap = report.shap
    importance = pd.Series(np.abs(shap.values_NF).mean(axis=0), index=shap.features.columns)
    assert drawn["feature"].unique().tolist() == importance.sort_values(ascending=False).index.tolist()
    for k, name in enumerate(shap.features):
        rows = drawn[drawn["feature"] == name]
        assert rows["value"].is_monotonic_increasing
        pairs = sorted(zip(shap.features[name], shap.values_NF[:, k], strict=True))
        np.testing.assert_array_equal(rows[["value", "shap"]], pairs)
        assert rows["mean_abs_shap"].iloc[0] == pytest.approx(importance[name])


def test_swarm_spreads_neighbours_and_leaves_loners_on_the_line():
    heights = explanations.swarm_heights(np.array([0.0, 0.0, 0.0, 1.0]))
    assert heights[3] == 0
    assert len(set(heights[:3])) == 3
    assert np.abs(explanations.swarm_heights(np.zeros(1000))).max() == 1


def test_grad_cam_numbers_are_block_means(report):
    drawn = heat.grad_cam_figure(report).numbers
    # three patients have a picture
    assert drawn["patient"].unique().tolist() == [
        "Woman with sarcopenia",
        "Woman without sarcopenia",
        "Man with sarcopenia",
    ]
    rows = drawn[(drawn["patient"] == "Woman with sarcopenia") & (drawn["target"] == "crt_s")]
    assert len(rows) == 32 * 32
    example = report.examples[0]
    np.testing.assert_allclose(rows["heat"], heat.coarse(example.heat_HW["crt_s"]).ravel(), atol=1e-4)
    np.testing.assert_allclose(rows["disagreement"], heat.coarse(example.disagreement_HW["crt_s"]).ravel(), atol=1e-4)


def test_coarse_cells_are_block_means():
    cells = np.random.default_rng(1).random((32, 32)).astype(np.float32)
    np.testing.assert_allclose(heat.coarse(cells.repeat(2, axis=0).repeat(3, axis=1)), cells, rtol=1e-6)
    small = np.arange(4, dtype=np.float32).reshape(2, 2)
    np.testing.assert_array_equal(heat.coarse(small), small)


def test_numbers_stand_beside_the_heat_maps(report):
    view = heat.examples_view(report)
    assert [row[:2] for row in view.rows] == [
        ("Woman with sarcopenia", "0.750"),
        ("Woman without sarcopenia", "0.250"),
        ("Man with sarcopenia", "0.750"),
    ]
    assert view.rows[0][2] == "15.0 \u00b1 2.0"
    spread = report.examples[0].disagreement_HW["alm_kg"].mean()
    assert view.rows[0][3] == f"{spread:.3f}"
    assert len(view.numbers) == 3 * 2


def test_all_maps_of_a_figure_share_one_colour_scale(report, monkeypatch):
    limits = []
    draw = Axes.imshow

    def imshow(axes, picture, **settings):
        if settings["cmap"] == style.HEAT:
            limits.append((settings["vmin"], settings["vmax"]))
        return draw(axes, picture, **settings)

    monkeypatch.setattr(Axes, "imshow", imshow)
    heat.grad_cam_figure(report)
    assert len(limits) == 6
    assert len(set(limits)) == 1
    # the largest cell drawn is the end of the scale
    drawn = [heat.coarse(example.heat_HW[t.name]).max() for example in report.examples[:3] for t in TARGETS]
    assert limits[0] == (0, pytest.approx(max(drawn)))
    limits.clear()
    example = report.examples[0]
    maps = (example.heat_HW["alm_kg"], example.disagreement_HW["alm_kg"])
    heat.overlay_png(example.image_HW, *maps, target=ALM, mu=15.0, sigma=2.0, note="score 0.3")
    assert limits == [(0, pytest.approx(heat.coarse(maps[0]).max()))] * 2


def test_a_picture_of_its_own_carries_no_text_fields(report):
    example = report.examples[0]
    maps = (example.heat_HW["alm_kg"], example.disagreement_HW["alm_kg"])
    png = heat.overlay_png(example.image_HW, *maps, target=ALM, mu=15.0, sigma=2.0, note="score 0.3")
    assert png == heat.overlay_png(example.image_HW, *maps, target=ALM, mu=15.0, sigma=2.0, note="score 0.3")
    with Image.open(io.BytesIO(png)) as picture:
        assert picture.size[0] > 1000
        assert set(picture.info) <= {"dpi"}


def test_examples_are_the_patients_with_the_median_score():
    frame = pd.DataFrame(
        {
            "row_id": [5, 4, 3, 2, 1, 9],
            "sex": ["F", "F", "F", "F", "M", "F"],
            "outcome": [1, 1, 1, 0, 0, 1],
            "score": [0.9, 0.1, 0.5, 0.3, 0.4, np.nan],
        }
    )
    assert explanations.choose_examples(frame) == [("F", 1, 3), ("F", 0, 2), ("M", 1, None), ("M", 0, 1)]
    shuffled = frame.sample(frac=1, random_state=1)
    assert explanations.choose_examples(shuffled) == explanations.choose_examples(frame)


def test_what_cannot_be_drawn_says_why(report):
    frame, _ = make_frame(60, seed=6)
    frame = frame.assign(outcome=0.0).drop(columns="alm_kg")
    bare = dataclasses.replace(report, results=Results(table=evaluate(frame, None, "test_internal")))
    test_set = TestSet(name="test_internal", label="Internal test set", frame=frame)
    roc = figures.roc_figure(bare, test_set)
    assert isinstance(roc, Absent)
    assert "no row has the outcome" in roc.reason
    for draw in (agreement.concordance_figure, agreement.bland_altman_figure, agreement.spikes_figure):
        assert isinstance(draw(bare, test_set, ALM), Absent)
    (missing,) = heat.missing_examples(report)
    assert missing.reason == "Man without sarcopenia: the store was away."
    nobody = dataclasses.replace(report, examples=report.examples[-1:])
    assert heat.grad_cam_figure(nobody) is None
    assert heat.examples_view(nobody) is None


def test_svg_is_the_same_each_time_and_asks_for_nothing(report):
    svg = figures.roc_figure(report, report.test_sets[0]).svg
    assert svg == figures.roc_figure(report, report.test_sets[0]).svg
    assert b"<!DOCTYPE" not in svg
    assert b"<script" not in svg
    links = re.findall(rb'(?:href|src)="([^"]*)"', svg)
    assert all(link.startswith((b"#", b"data:")) for link in links)

"""The ladder prints its table's own figures, learner by learner and rung by rung."""

import dataclasses

from sarc_ray.report import ladder
from sarc_ray.report.content import Absent


def row_of(report, **keys):
    table = report.ladder
    for name, value in keys.items():
        table = table[table[name] == value]
    (row,) = table.to_dict("records")
    return row


def test_the_figure_draws_the_table(report):
    figure = ladder.ladder_figure(report)
    assert figure.numbers.equals(report.ladder)
    # matplotlib keeps a text's words as a comment
    for words in (b"Age, sex, BMI", b"predicted means", b"chosen: extra trees", b"ridge logistic regression"):
        assert words in figure.svg
    assert figure.svg.count(b"not recorded") == 2  # SARC-F in the external test set: its AUROC, and what is against it
    assert "(extra trees)" in figure.caption
    assert figure.svg == ladder.ladder_figure(report).svg


def test_every_p_value_is_printed(report):
    text = ladder.ladder_figure(report).svg.decode("utf-8")
    for row in report.ladder[report.ladder["comparator"] != ""].to_dict("records"):
        p_value = row["p_value"]
        assert ("p &lt; 0.001" if p_value < 0.001 else f"p = {p_value:.3f}") in text.replace("p < ", "p &lt; ")


def test_the_table_prints_every_rung_of_every_learner(report):
    view = ladder.ladder_view(report)
    heads = [row[0] for row in view.rows if len(row) == 1]
    assert heads == ["Chosen: extra trees", "Ridge logistic regression"]
    lines = [row for row in view.rows if len(row) > 1]
    assert [row[0] for row in lines[:8]] == [
        "SARC-F",
        "Age, sex, BMI",
        "+ predicted means",
        "+ their uncertainties",
        "Age, sex, BMI against SARC-F",
        "Predicted means added",
        "Uncertainties added",
        "All that the radiograph adds",
    ]
    assert lines[0][4:] == ("\u2013",) * 3  # SARC-F was not recorded in the external test set
    keys = {"dataset": "test_external", "learner": "ridge", "rung": "means", "comparator": "clinical"}
    row = row_of(report, **keys)
    printed = next(line for line in lines[8:] if line[0] == "Predicted means added")
    assert printed[4] == f"{row['n']} ({row['n_events']})"
    assert printed[5].startswith(f"{row['estimate']:.3f}".replace("-", "\u2212"))
    assert printed[6] in (f"{row['p_value']:.3f}", "< 0.001")


def test_missing_figures_are_said(report):
    table = report.ladder.assign(
        ci_low=float("nan"), ci_high=float("nan"), p_value=float("nan"), na_reason="patients repeat"
    )
    bare = dataclasses.replace(report, ladder=table)
    assert ladder.ladder_figure(bare).caption.endswith("Patients repeat.")
    assert ladder.ladder_view(bare).rows[1][2] == f"{table['estimate'].iloc[0]:.3f}"
    away = dataclasses.replace(report, ladder=Absent(reason="not climbed"))
    assert ladder.ladder_figure(away).reason == "not climbed"
    assert ladder.ladder_view(away) is None

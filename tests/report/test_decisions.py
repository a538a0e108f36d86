"""Which way calibration went, and every threshold with the one in force marked."""

import dataclasses

import pandas as pd

from sarc_ray.report import decisions


def test_the_decision_stands_beside_its_figures(report):
    view = decisions.calibration_view(report)
    assert view.columns == ("Out of fold", "Raw score", "After sigmoid calibration")
    assert view.rows == (
        ("Brier score", "0.1200", "0.1190"),
        ("Integrated calibration index", "0.0300", "0.0310"),
    )
    assert view.note.startswith(report.operating.said)
    assert view.numbers.iloc[0].to_dict() == report.operating.calibration


def test_no_calibration_has_no_second_column_of_figures(report):
    none = report.operating.calibration | {"method": "none", "brier_calibrated": None, "ici_calibrated": None}
    plain = dataclasses.replace(report, operating=dataclasses.replace(report.operating, calibration=none))
    view = decisions.calibration_view(plain)
    assert [row[2] for row in view.rows] == ["\u2013", "\u2013"]
    assert view.note == f"{report.operating.said}."


def test_thresholds_mark_the_one_in_force(report):
    view = decisions.thresholds_view(report)
    assert view.rows == (
        ("Youden's index (in force)", "0.2000", "0.700", "0.800", "0.400", "0.950", "0.500", "2500"),
        ("Specificity of 0.99 or more", "0.9000", "0.700", "0.800", "\u2013", "0.950", "\u2013", "2500"),
    )
    assert view.numbers.equals(report.operating.points)


def test_table_s1_has_a_line_per_algorithm_and_marks_the_chosen(report):
    view = decisions.algorithms_view(report)
    assert [row[0] for row in view.rows] == ["extra trees (chosen)", "logistic regression"]
    assert view.groups == (
        ("", 4),
        ("Cross-validation", 2),
        ("Internal test set", 4),
        ("External test set", 4),
        ("", 1),
    )
    extra, logistic = view.rows
    assert extra[1:6] == ("2", "1", "1.0", "0.820 (0.800 to 0.840)", "0.500")
    # A linear change of the scores changes no AUROC, but moves them over the threshold.
    assert extra[6].split()[0] == logistic[6].split()[0]
    assert extra[8] != logistic[8]
    assert extra[-1] == "{'C': 1.0}"
    assert "Chosen by cross-validation alone" in view.note
    assert set(view.numbers["dataset"]) == {"cross_validation", "test_internal", "test_external"}


def test_the_choice_of_the_paper_is_warned_of(report):
    search = dataclasses.replace(report.search, choice="internal_test_as_paper")
    note = decisions.algorithms_view(dataclasses.replace(report, search=search)).note
    assert "internal_test_as_paper" in note
    assert "too good" in note


def test_a_search_by_the_clock_says_so(report):
    assert "minutes_per_algorithm" not in decisions.algorithms_view(report).note
    search = dataclasses.replace(report.search, by_the_clock=True)
    assert (
        "(stage2.minutes_per_algorithm): another machine"
        in decisions.algorithms_view(dataclasses.replace(report, search=search)).note
    )


def test_nested_cross_validation_is_shown_where_there_is_one(report):
    assert decisions.nested_view(report) is None
    nested = pd.DataFrame(
        {
            "fold": [0, 1],
            "n": [50, 51],
            "n_events": [8, 9],
            "algorithm": ["extra_trees", "xgboost"],
            "cv_auroc": [0.8, 0.9],
            "auroc": [0.7, 0.8],
            "f1": [0.5, 0.5],
            "brier": [0.1, 0.2],
        }
    )
    search = dataclasses.replace(report.search, nested=nested)
    view = decisions.nested_view(dataclasses.replace(report, search=search))
    assert view.rows == (
        ("1", "50", "extra trees", "0.800", "0.700", "0.100"),
        ("2", "51", "xgboost", "0.900", "0.800", "0.200"),
        ("Mean", "101", "", "0.850", "0.750", "0.150"),
    )


def test_re_based_scores_say_what_was_measured_and_what_was_not(report):
    rebased = report.operating.calibration | {"method": "prevalence"}
    moved = dataclasses.replace(report, operating=dataclasses.replace(report.operating, calibration=rebased))
    view = decisions.calibration_view(moved)
    assert view.columns[2] == "After calibration, before re-basing"
    assert "nothing was measured" in view.note
    assert "re-based to" in decisions.thresholds_view(moved).note
    assert "their prevalence" in decisions.thresholds_view(report).note


def test_an_algorithm_without_a_model_has_no_figures_on_the_test_sets(report):
    table = report.search.algorithms
    without = table[(table["algorithm"] == "extra_trees") | (table["dataset"] == "cross_validation")]
    search = dataclasses.replace(report.search, algorithms=without)
    extra, logistic = decisions.algorithms_view(dataclasses.replace(report, search=search)).rows
    assert logistic[4] == "0.800 (0.780 to 0.820)"
    assert set(logistic[6:-1]) == {"\u2013"}
    assert "\u2013" not in extra[6:-1]

"""Which way calibration went, and every threshold with the one in force marked."""

import dataclasses

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


def test_thresholds_mark_the_one_in_force(report):
    view = decisions.thresholds_view(report)
    assert view.rows == (
        ("Youden's index (in force)", "0.2000", "0.700", "0.800", "0.400", "0.950", "0.500", "2500"),
        ("specificity of 0.99 or more", "0.9000", "0.700", "0.800", "\u2013", "0.950", "\u2013", "2500"),
    )
    assert view.numbers.equals(report.operating.points)

"""The picture of a comparison: every judged cell with its number, and no more groups than can be read."""

import numpy as np
import pandas as pd

from sarc_ray.report import style
from sarc_ray.report.drift import drift_svg


def comparison(n_groups, status="stable"):
    groups = [("all", "all")] + [("device", f"d{k:03d}") for k in range(n_groups)]
    rows = [
        {"grouping": grouping, "level": level, "variable": name, "psi": place / 1000, "status": status}
        for place, (grouping, level) in enumerate(groups)
        for name in ("score", "sex")
    ]
    return pd.DataFrame(rows)


def test_cells_have_the_colour_of_their_verdict():
    table = comparison(3)
    table.loc[2, ["psi", "status"]] = [0.31, "drifted"]
    table.loc[5, ["psi", "status"]] = [np.nan, "too_few"]
    picture = drift_svg(table)
    assert picture == drift_svg(table)
    assert b"<svg" in picture
    assert picture != drift_svg(comparison(3))


def drawn_groups(table, monkeypatch):
    """Labels below the picture, read before the letters become curves."""
    found = []

    def read(figure):
        found.extend(label.get_text() for label in figure.axes[0].get_xticklabels())
        return b""

    monkeypatch.setattr(style, "to_svg", read)
    drift_svg(table)
    return found


def test_of_many_groups_those_that_moved_most_are_drawn(monkeypatch):
    found = drawn_groups(comparison(100), monkeypatch)
    assert found == ["all", *(f"device d{k:03d}" for k in range(53, 100))]


def test_where_nothing_was_judged_there_is_no_picture():
    assert drift_svg(comparison(2, status="too_few")) is None

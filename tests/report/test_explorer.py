"""The explorer's counts are those of the patients, and hold no patient."""

import dataclasses
import json

import numpy as np
import pytest

from sarc_ray.report.content import Absent
from sarc_ray.report.explorer import explorer, explorer_counts, explorer_view
from sarc_ray.stats import discrimination


def test_counts_are_those_of_the_patients(report):
    frame = report.test_sets[0].frame
    table = explorer_counts(report, report.test_sets[0])
    assert table["score"].unique().tolist() == ["score", "sarc_f"]
    for row in table.iloc[::17].to_dict("records"):
        cells = discrimination.confusion_at(frame["outcome"], frame[row["score"]], row["threshold"])
        assert (row["tp"], row["fp"], row["fn"], row["tn"]) == (cells.tp, cells.fp, cells.fn, cells.tn)
        assert row["ppv"] == pytest.approx(float(discrimination.ppv(cells)), nan_ok=True)
        assert row["alerts_per_10000"] == pytest.approx(1e4 * (cells.tp + cells.fp) / len(frame))
        assert row["needed_to_test"] == pytest.approx(
            (cells.tp + cells.fp) / cells.tp if cells.tp else np.nan, nan_ok=True
        )


def test_the_threshold_in_force_is_table_twos(report):
    data = explorer(report).data["sets"][0]
    score, place = data["score"], data["in_force"]
    assert score["cuts"][place] == report.threshold
    sensitivity = report.results.row("test_internal", "sensitivity")["estimate"]
    assert score["tp"][place] / score["n_with"] == pytest.approx(sensitivity)
    specificity = report.results.row("test_internal", "specificity")["estimate"]
    assert 1 - score["fp"][place] / score["n_without"] == pytest.approx(specificity)


def test_named_thresholds_stand_in_the_table(report):
    view = explorer_view(report)
    labels = [row[0] for row in view.rows]
    assert labels.count("Youden's index (in force)") == 2
    assert labels.count("Specificity of 0.99 or more") == 2
    assert labels.count("SARC-F, usual cut-off 4") == 1
    assert len(view.numbers) > 200


def test_data_holds_counts_alone(report):
    data = explorer(report).data
    text = json.dumps(data)
    scores = report.test_sets[0].frame["score"]
    assert not any(repr(float(score)) in text for score in scores[:50])
    cuts = data["sets"][0]["score"]["cuts"]
    assert len(cuts) <= 101 + len(report.operating.points)
    assert data["lineage"] == report.lineage.hash


def test_unscored_and_unlabelled_patients_do_not_count(report):
    test_set = report.test_sets[0]
    frame = test_set.frame.copy()
    frame.loc[frame.index[:30], "score"] = np.nan
    frame.loc[frame.index[30:50], "outcome"] = np.nan
    table = explorer_counts(report, dataclasses.replace(test_set, frame=frame))
    assert set(table[["tp", "fp", "fn", "tn"]].sum(axis=1)) == {len(frame) - 50}


def test_one_class_has_no_explorer(report):
    sets = tuple(dataclasses.replace(one, frame=one.frame.assign(outcome=0.0)) for one in report.test_sets)
    changed = dataclasses.replace(report, test_sets=sets)
    assert isinstance(explorer(changed), Absent)
    assert explorer_view(changed) is None

"""The ladder of a small run: written tables, a real bundle, no picture."""

import numpy as np
import pytest

from sarc_ray import ladder
from sarc_ray.stage2.algorithms import fit
from sarc_ray.stage2.rungs import RIDGE
from sarc_ray.stats.discrimination import auroc
from tests.small_run import N_EXTERNAL, N, make_run


@pytest.fixture(scope="module")
def climbed(tmp_path_factory):
    """Run, its patients, score tables, and the ladder's table."""
    run, bundle, people, scores = make_run(tmp_path_factory.mktemp("ladder"))
    table = ladder.climb(run, list(scores), run.config.evaluation)
    return run, bundle, people, scores, table


def line(table, dataset, learner, rung, comparator=""):
    rows = table[(table["dataset"] == dataset) & (table["learner"] == learner)]
    (row,) = rows[(rows["rung"] == rung) & (rows["comparator"] == comparator)].to_dict("records")
    return row


def test_the_last_rung_of_the_chosen_learner_is_the_bundle(climbed):
    _, bundle, people, scores, table = climbed
    scored = scores["test_internal"].dropna(subset="score").merge(people[["row_id", "outcome"]], on="row_id")
    row = line(table, "test_internal", "chosen", "uncertainties")
    assert row["estimate"] == pytest.approx(auroc(scored["outcome_y"], scored["raw_score"]))
    assert row["algorithm"] == bundle.manifest.stage2["algorithm"]
    assert row["n"] == N["test_internal"] - 1


@pytest.mark.parametrize("learner", ["chosen", "ridge"])
def test_lower_rungs_are_learned_on_the_labelled_training_patients_alone(climbed, learner):
    run, bundle, people, _, table = climbed
    training = people[(people["split"] == "train") & people["outcome"].notna()]
    test = people[people["split"] == "test_internal"].iloc[1:]
    stage2 = bundle.manifest.stage2
    name, params = RIDGE if learner == "ridge" else (stage2["algorithm"], stage2["params"])
    for rung, n_columns in (("clinical", 3), ("means", 5)):
        x_NF, x_test = (bundle.features(rows).to_numpy()[:, :n_columns] for rows in (training, test))
        y_N = training["outcome"].to_numpy(dtype=np.int64)
        fitted = fit(name, params, x_NF, y_N, seed=run.config.run.seed, n_jobs=1)
        expected = auroc(test["outcome"], fitted.predict_proba(x_test)[:, 1])
        assert line(table, "test_internal", learner, rung)["estimate"] == pytest.approx(expected, abs=1e-9)


def test_means_bring_something_here(climbed):
    table = climbed[-1]
    row = line(table, "test_internal", "ridge", "means", "clinical")
    assert row["estimate"] > 0
    assert row["p_value"] < 0.05


def test_sarc_f_is_the_first_rung_where_it_was_recorded(climbed):
    _, _, people, _, table = climbed
    test = people[people["split"] == "test_internal"].iloc[1:]
    for learner in ("chosen", "ridge"):
        row = line(table, "test_internal", learner, "sarc_f")
        assert row["estimate"] == pytest.approx(auroc(test["outcome"], test["sarc_f"]))
    assert "sarc_f" not in set(table.loc[table["dataset"] == "test_external", "rung"])


def test_a_feature_from_the_header_counts_as_it_did_in_scoring(climbed):
    table = climbed[-1]
    external = table[(table["dataset"] == "test_external") & (table["metric"] == "auroc")]
    assert external["n"].tolist() == [N_EXTERNAL - 1] * 6
    assert external["estimate"].notna().all()

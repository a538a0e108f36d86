import dataclasses

import numpy as np
import pandas as pd
import pytest

from sarc_ray import storage
from sarc_ray.errors import EvaluationError
from sarc_ray.evaluation.goals import GOALS, Goal, check_goals
from sarc_ray.evaluation.results import evaluate_dataset
from tests.evaluation.cohorts import TARGETS, make_config, scored_cohort


def row(outcome, score, metric, estimate, n=6000, subgroup="all", comparator="", dataset="test_internal"):
    return {
        "dataset": dataset,
        "outcome": outcome,
        "score": score,
        "comparator": comparator,
        "metric": metric,
        "subgroup": subgroup,
        "estimate": estimate,
        "ci_low": estimate - 0.01,
        "ci_high": estimate + 0.01,
        "n": n,
    }


def results(**changes):
    """A results table in which every goal is met, but for ``changes`` by outcome__metric."""
    figures = {
        "alm_kg__explained_variance_ratio": 0.94,
        "hgs_kg__explained_variance_ratio": 0.91,
        "alm_kg__nll_difference": 0.03,
        "hgs_kg__nll_difference": 0.05,
        "alm_kg__coverage_90": 0.90,
        "hgs_kg__coverage_90": 0.87,
        "alm_kg__sigma_spearman": 0.7,
        **changes,
    }
    rows = [
        row(*[name.split("__")[0], f"{name.split('__')[0]}_mu", name.split("__")[1]], value)
        for name, value in figures.items()
        if "__" in name
    ]
    rows += [row("alm_kg", "ideal", "coverage_90", 0.5), row("alm_kg", "alm_kg_mu", "coverage_90", 0.5, subgroup="F")]
    rows += [row("sarcopenia", "score", "auroc", 0.86), row("sarcopenia", "ideal", "auroc", 0.89)]
    return pd.DataFrame(rows)


def test_every_goal_is_met_at_its_bound():
    table = check_goals(results(), dataset="test_internal")
    assert table["met"].all()
    assert len(table) == len(GOALS)
    assert table.set_index("metric").loc["auroc_ratio", "found"] == pytest.approx(0.86 / 0.89)


@pytest.mark.parametrize(
    ("figure", "value"),
    [
        ("alm_kg__explained_variance_ratio", 0.929),
        ("hgs_kg__nll_difference", 0.051),
        ("alm_kg__coverage_90", 0.869),
        ("alm_kg__coverage_90", 0.931),
        ("alm_kg__sigma_spearman", 0.59),
    ],
)
def test_a_figure_beyond_its_bound_misses_that_goal_alone(figure, value):
    table = check_goals(results(**{figure: value}), dataset="test_internal")
    missed = table[~table["met"]]
    assert missed[["outcome", "metric"]].values.tolist() == [figure.split("__")]


def test_a_figure_of_too_few_patients_does_not_count():
    table = check_goals(results().assign(n=4999), dataset="test_internal").set_index("metric")
    assert not table.loc["auroc_ratio", "met"]
    assert table.loc["sigma_spearman", "met"]


@pytest.mark.parametrize("estimate", [None, np.nan])
def test_an_absent_figure_is_an_error_not_a_pass(estimate):
    table = results()
    goal = Goal(outcome="alm_kg", metric="nll_difference", low=None, high=0.05, n_min=1)
    own = (table["outcome"] == "alm_kg") & (table["metric"] == "nll_difference")
    table = table[~own] if estimate is None else table.assign(estimate=table["estimate"].mask(own))
    with pytest.raises(EvaluationError, match=r"[01] usable"):
        check_goals(table, dataset="test_internal", goals=[goal])


@pytest.mark.parametrize("file_type", [None, "parquet", "csv"])
def test_every_goal_is_found_in_a_real_results_table(tmp_path, file_type):
    """Under the names that the evaluation gives its figures, in memory and read back."""
    frame, truth = (table.rename(columns=lambda name: name.replace("crt_s", "hgs_kg")) for table in scored_cohort())
    table = evaluate_dataset(
        frame,
        dataset="test_internal",
        targets=[TARGETS[0], dataclasses.replace(TARGETS[1], name="hgs_kg")],
        config=make_config(n_boot=50),
        seed=3,
        truth=truth,
        run_id="r",
    )
    if file_type:
        uri = str(tmp_path / f"results.{file_type}")
        storage.write_table(uri, table)
        table = storage.read_table(uri) if file_type == "parquet" else pd.read_csv(uri)
    goals = [dataclasses.replace(goal, n_min=300) for goal in GOALS]
    found = check_goals(table, dataset="test_internal", goals=goals)
    assert found["metric"].tolist() == [goal.metric for goal in GOALS]
    assert set(found["outcome"]) == {"alm_kg", "hgs_kg", "sarcopenia"}
    assert (found["n"] == 300).all()
    # Sigmas are honest and in the ideal's order, and mu is the ideal's with a quarter of its variance as noise.
    met = found.set_index(["outcome", "metric"])["met"]
    assert met[[("alm_kg", "coverage_90"), ("alm_kg", "sigma_spearman"), ("sarcopenia", "auroc_ratio")]].all()
    assert not met[[("alm_kg", "nll_difference"), ("hgs_kg", "explained_variance_ratio")]].any()

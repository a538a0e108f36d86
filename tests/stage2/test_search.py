import math

import numpy as np
import pytest

from sarc_ray.stage2.cross_validation import Bar, CvResult, Pruned, evaluate_against, make_folds
from sarc_ray.stage2.search import RoundSearch, TrialRecord
from tests.stage2.cohort import CHEAP, draw


def plan(seed=1, **changes):
    values = {
        "algorithms": ("logistic_regression", "extra_trees"),
        "trials_per_algorithm": 5,
        "trials_per_round": 2,
        "minutes_per_algorithm": None,
        "prune": False,
    }
    return RoundSearch(**(values | changes), seed=seed)


def result(spec, value, *, pruned=False, seconds=1.0):
    per_fold = (value,) * (3 if pruned else 6)
    return TrialRecord(
        spec=spec,
        cv_auroc_mean=value,
        cv_auroc_se=math.nan if pruned else 0.02,
        oof_f1=math.nan if pruned else 0.5,
        auroc_per_fold=per_fold,
        pruned=pruned,
        seconds=seconds,
    )


def drain(search):
    specs = []
    while (spec := search.next()) is not None:
        specs.append(spec)
    return specs


def finish(search, order):
    """All rounds, results given in an order of one's own; a trial's value depends on its key alone."""
    specs = []
    while not search.finished:
        round_ = drain(search)
        specs += round_
        for spec in order(round_):
            search.record(result(spec, sum(map(ord, spec.key)) % 97 / 97))
    return specs


def test_every_algorithm_gets_its_whole_budget():
    specs = finish(plan(), order=list)
    assert [spec.key for spec in specs if spec.algorithm == "extra_trees"] == [f"extra_trees-{n:04d}" for n in range(5)]
    assert len(specs) == plan().total == 10


def test_the_order_in_which_results_arrive_does_not_matter():
    assert finish(plan(), order=list) == finish(plan(), order=reversed)


def test_a_round_waits_for_all_its_results():
    search = plan()
    first = drain(search)
    assert len(first) == 4
    for spec in first[:-1]:
        search.record(result(spec, 0.5))
        assert search.next() is None
    search.record(result(first[-1], 0.5))
    assert search.next() is not None


@pytest.mark.parametrize("other", [{"seed": 2}, {"seed": 1, "trials_per_round": 5}])
def test_seed_and_round_size_decide_the_trials(other):
    assert finish(plan(), order=list) != finish(plan(**other), order=list)


def test_a_study_whose_time_is_used_up_is_asked_no_more_and_the_others_are():
    search = plan(minutes_per_algorithm=1.0)
    keys = []
    while not search.finished:
        for spec in drain(search):
            keys.append(spec.key)
            search.record(result(spec, 0.5, seconds=31.0 if spec.algorithm == "extra_trees" else 0.1))
    # Two trials of 31 s are the first round; after it the minute is over.
    assert [key for key in keys if key.startswith("extra_trees")] == ["extra_trees-0000", "extra_trees-0001"]
    assert sum(key.startswith("logistic_regression") for key in keys) == 5
    assert search.total == 7


def test_the_bar_is_the_best_complete_trial_of_earlier_rounds():
    search = plan(prune=True)
    assert search.bar is None
    first = drain(search)
    for number, spec in enumerate(first[:-1]):
        search.record(result(spec, 0.6 + 0.1 * number))
        assert search.bar is None  # the same for all trials of a round, whoever finishes first
    search.record(result(first[-1], 0.99, pruned=True))
    assert search.bar == Bar((0.8,) * 6, 0.02)
    assert plan(prune=False).bar is None


def test_the_sampler_takes_a_pruned_trial_for_worse_than_complete_ones():
    def later(pruned):
        search = plan(prune=True, trials_per_algorithm=12, trials_per_round=6)
        for spec in drain(search):
            search.record(result(spec, 0.5 + spec.number / 20, pruned=pruned and spec.number >= 3))
        return drain(search)

    assert [spec.params for spec in later(True)] != [spec.params for spec in later(False)]


def test_a_trial_is_given_up_only_after_a_whole_repeat_and_far_behind():
    X, y_N = draw(200, seed=3)
    folds = make_folds(y_N, np.arange(200), n_splits=3, n_repeats=2, seed=1)

    def run(bar):
        return evaluate_against(
            bar, "logistic_regression", CHEAP["logistic_regression"], X, y_N, folds, seed=1, n_jobs=1
        )

    whole = run(None)
    assert isinstance(whole, CvResult)
    given_up = run(Bar((1.0,) * 6, 0.001))
    assert isinstance(given_up, Pruned)
    np.testing.assert_array_equal(given_up.auroc_per_fold, whole.auroc_per_fold[:3])
    # Behind by less than two standard errors of the best: it may still be chosen, so it goes on.
    near = tuple(whole.auroc_per_fold + 0.019)
    assert isinstance(run(Bar(near, 0.01)), CvResult)
    assert isinstance(run(Bar(tuple(whole.auroc_per_fold + 0.021), 0.01)), Pruned)

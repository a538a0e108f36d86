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


def test_two_rounds_are_under_way_and_a_third_waits_for_all_results_of_the_first():
    search = plan(trials_per_algorithm=6)
    both = drain(search)
    first, second = ([spec for spec in both if spec.number // 2 == number] for number in (0, 1))
    assert (len(first), len(second)) == (4, 4)
    for spec in [*second, *first[:-1]]:
        search.record(result(spec, 0.5))
        assert search.next() is None
    search.record(result(first[-1], 0.5))
    assert {spec.number for spec in drain(search)} == {4, 5}
    assert not search.finished


def test_the_longest_trials_of_a_round_come_first():
    search = plan(trials_per_algorithm=6)
    assert [spec.params.get("n_estimators", 0) for spec in drain(search)[:4]] == sorted(
        (spec.params.get("n_estimators", 0) for spec in drain(plan(trials_per_algorithm=6))[:4]), reverse=True
    )
    search = plan(trials_per_algorithm=6)
    for spec in drain(search):
        search.record(result(spec, 0.5, seconds=9.0 if spec.algorithm == "logistic_regression" else 1.0))
    assert [spec.algorithm for spec in drain(search)] == ["logistic_regression"] * 2 + ["extra_trees"] * 2


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
    # Two rounds of two trials are under way; after the first one the minute is over.
    assert sum(key.startswith("extra_trees") for key in keys) == 4
    assert sum(key.startswith("logistic_regression") for key in keys) == 5
    assert search.total == 9


def test_the_bar_is_the_best_complete_trial_of_earlier_rounds():
    search = plan(prune=True)
    both = drain(search)
    first, second = ([spec for spec in both if spec.number // 2 == number] for number in (0, 1))
    for spec, value in zip(first[:-1], (0.6, 0.8, 0.7), strict=True):
        search.record(result(spec, value))
    assert {search.bar(spec.key) for spec in both} == {None}
    search.record(result(first[-1], 0.99, pruned=True))
    assert {search.bar(spec.key) for spec in second} == {None}  # it was asked for before anything was told
    assert {search.bar(spec.key) for spec in drain(search)} == {Bar((0.8,) * 6, 0.02)}
    other = plan(prune=False)
    while not other.finished:
        for spec in drain(other):
            assert other.bar(spec.key) is None
            other.record(result(spec, 0.5))


def test_the_sampler_takes_a_pruned_trial_for_worse_than_complete_ones():
    def later(pruned):
        search = plan(prune=True, trials_per_algorithm=24, trials_per_round=6)
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

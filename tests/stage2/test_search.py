import pytest

from sarc_ray.stage2.search import RoundSearch


def plan(seed=1, **changes):
    values = {"algorithms": ("logistic_regression", "extra_trees"), "trials_per_algorithm": 5, "trials_per_round": 2}
    return RoundSearch(**(values | changes), seed=seed)


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
            search.record(spec.key, sum(map(ord, spec.key)) % 97 / 97)
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
        search.record(spec.key, 0.5)
        assert search.next() is None
    search.record(first[-1].key, 0.5)
    assert search.next() is not None


@pytest.mark.parametrize("other", [{"seed": 2}, {"seed": 1, "trials_per_round": 5}])
def test_seed_and_round_size_decide_the_trials(other):
    assert finish(plan(), order=list) != finish(plan(**other), order=list)

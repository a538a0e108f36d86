"""The search is the same for one worker and two, equals the direct one, and repeats no finished trial."""

import numpy as np
import pandas as pd
import pytest

from sarc_ray import storage
from sarc_ray.distributed.tune import search
from sarc_ray.errors import TrainingError
from sarc_ray.stage2.choice import choose
from sarc_ray.stage2.cross_validation import evaluate_params, make_folds
from sarc_ray.stage2.search import RoundSearch, TrialRecord
from tests.engine import engine_config

ALGORITHMS = ("logistic_regression", "lightgbm")
SEED = 4


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(8)
    features = pd.DataFrame(rng.normal(size=(120, 3)), columns=["age_years", "alm_kg_mu", "bmi_kg_m2"])
    outcome_N = (rng.random(120) < 1 / (1 + np.exp(-features.to_numpy() @ [1.0, -1.5, 0.5]))).astype(np.int64)
    folds = make_folds(outcome_N, np.arange(120), n_splits=3, n_repeats=2, seed=SEED)
    return features, outcome_N, folds


def plan(*, trials=3, prune=False, minutes=None):
    return RoundSearch(
        algorithms=ALGORITHMS,
        trials_per_algorithm=trials,
        trials_per_round=2,
        minutes_per_algorithm=minutes,
        prune=prune,
        seed=SEED,
    )


def run_search(problem, uri, *, asked=None, **engine):
    features, outcome_N, folds = problem
    return search(
        features,
        outcome_N,
        plan=asked or plan(),
        folds=folds,
        seed=SEED,
        uri=str(uri),
        engine=engine_config(**engine),
    )


def facts(records):
    return [(record.spec, record.auroc_per_fold, record.cv_auroc_mean, record.oof_f1) for record in records]


def as_record(spec, cv):
    return TrialRecord(
        spec=spec,
        cv_auroc_mean=cv.cv_auroc_mean,
        cv_auroc_se=cv.cv_auroc_se,
        oof_f1=cv.oof_f1,
        auroc_per_fold=tuple(cv.auroc_per_fold),
        pruned=False,
        seconds=1.0,
    )


def direct_search(problem):
    """The same rounds in this process."""
    features, outcome_N, folds = problem
    asked, results = plan(), {}
    while not asked.finished:
        spec = asked.next()
        results[spec.key] = (
            spec,
            evaluate_params(spec.algorithm, spec.params, features, outcome_N, folds, seed=SEED, n_jobs=1),
        )
        asked.record(as_record(spec, results[spec.key][1]))
    ordered = [results[key] for key in sorted(results)]
    return [(spec, tuple(cv.auroc_per_fold), cv.cv_auroc_mean, cv.oof_f1) for spec, cv in ordered]


def test_one_worker_two_workers_and_none_agree(ray_session, tmp_path, problem):
    one = run_search(problem, tmp_path / "one", trials_at_once=1)
    two = run_search(problem, tmp_path / "two", trials_at_once=2)
    assert facts(one) == facts(two) == direct_search(problem)
    assert len(one) == 6
    assert choose(one) == choose(two)


def test_a_resumed_search_runs_only_what_is_missing(ray_session, tmp_path, problem):
    first = run_search(problem, tmp_path)
    files = storage.list_files(str(tmp_path / "trials"), ".json")
    kept, lost = files[:-1], files[-1]
    before = [storage.read_json(path)["seconds"] for path in kept]
    storage.remove_tree(lost)
    assert facts(run_search(problem, tmp_path)) == facts(first)
    assert [storage.read_json(path)["seconds"] for path in kept] == before
    assert storage.exists(lost)


def test_a_complete_record_needs_no_engine(tmp_path, problem):
    asked, uri = plan(), str(tmp_path)
    while not asked.finished:
        spec = asked.next()
        record = {
            "params": spec.params,
            "cv_auroc_mean": 0.7,
            "cv_auroc_se": 0.1,
            "oof_f1": 0.5,
            "auroc_per_fold": [0.7] * 6,
            "pruned": False,
            "seconds": 1.0,
        }
        storage.write_json(f"{uri}/trials/{spec.key}.json", record)
        asked.record(TrialRecord(spec=spec, **{key: value for key, value in record.items() if key != "params"}))
    assert [record.cv_auroc_mean for record in run_search(problem, tmp_path)] == [0.7] * 6


def test_a_failing_trial_is_named(ray_session, tmp_path, problem):
    features, outcome_N, folds = problem
    broken = (features.assign(bmi_kg_m2=np.nan), outcome_N, folds)
    with pytest.raises(TrainingError, match=r"0 of 6 trials finished.*failed"):
        run_search(broken, tmp_path)


def test_a_larger_budget_goes_on_from_the_trials_on_record(ray_session, tmp_path, problem):
    first = run_search(problem, tmp_path, asked=plan(trials=2))
    more = run_search(problem, tmp_path, asked=plan(trials=4))
    assert len(more) == 8
    seconds = {record.spec.key: record.seconds for record in more}
    assert all(seconds[record.spec.key] == record.seconds for record in first)  # not run again


def test_pruned_trials_are_on_record_and_the_same_for_any_number_of_workers(ray_session, tmp_path, problem):
    folds = problem[2]
    one = run_search(problem, tmp_path / "one", asked=plan(trials=8, prune=True), trials_at_once=1)
    two = run_search(problem, tmp_path / "two", asked=plan(trials=8, prune=True), trials_at_once=2)
    assert [(r.spec, r.auroc_per_fold, r.pruned) for r in one] == [(r.spec, r.auroc_per_fold, r.pruned) for r in two]
    again = run_search(problem, tmp_path / "one", asked=plan(trials=8, prune=True))
    assert [(r.spec, r.seconds, r.pruned) for r in again] == [(r.spec, r.seconds, r.pruned) for r in one]
    for record in one:
        assert len(record.auroc_per_fold) == (3 if record.pruned else len(folds))
        assert record.pruned == bool(np.isnan(record.oof_f1))


def test_a_limit_of_time_ends_the_rounds(ray_session, tmp_path, problem):
    # Two rounds of two trials of each algorithm are under way before any time is known.
    assert len(run_search(problem, tmp_path, asked=plan(trials=8, minutes=1e-6))) == 8

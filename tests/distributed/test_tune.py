"""The search is the same for one worker and two, equals the direct one, and repeats no finished trial."""

import numpy as np
import pandas as pd
import pytest

from sarc_ray import storage
from sarc_ray.distributed.tune import search
from sarc_ray.errors import TrainingError
from sarc_ray.stage2.cross_validation import choose, evaluate_params, make_folds
from sarc_ray.stage2.search import RoundSearch
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


def plan():
    return RoundSearch(algorithms=ALGORITHMS, trials_per_algorithm=3, trials_per_round=2, seed=SEED)


def run_search(problem, uri, **engine):
    features, outcome_N, folds = problem
    return search(
        features, outcome_N, plan=plan(), folds=folds, seed=SEED, uri=str(uri), engine=engine_config(**engine)
    )


def facts(records):
    return [(record.spec, record.auroc_per_fold, record.cv_auroc_mean, record.oof_f1) for record in records]


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
        asked.record(spec.key, results[spec.key][1].cv_auroc_mean)
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
            "seconds": 1.0,
        }
        storage.write_json(f"{uri}/trials/{spec.key}.json", record)
        asked.record(spec.key, 0.7)
    assert [record.cv_auroc_mean for record in run_search(problem, tmp_path)] == [0.7] * 6


def test_a_failing_trial_is_named(ray_session, tmp_path, problem):
    features, outcome_N, folds = problem
    broken = (features.assign(bmi_kg_m2=np.nan), outcome_N, folds)
    with pytest.raises(TrainingError, match=r"0 of 6 trials finished.*failed"):
        run_search(broken, tmp_path)

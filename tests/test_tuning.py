"""Finalists, of which one that learns nothing is left out unless it is the chosen one; records of nested searches."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from sarc_ray.errors import EvaluationError
from sarc_ray.stage2.cross_validation import make_folds
from sarc_ray.stage2.search import TrialRecord, TrialSpec
from sarc_ray.tuning import Problem, Searched, fit_finalists, nested_cross_validation
from tests.stage2.cohort import CHEAP, CONFIG, draw


def record(algorithm):
    return TrialRecord(
        spec=TrialSpec(algorithm=algorithm, number=0, params=CHEAP[algorithm]),
        cv_auroc_mean=0.8,
        cv_auroc_se=0.02,
        oof_f1=0.5,
        auroc_per_fold=(0.8,) * 15,
        pruned=False,
        seconds=1.0,
    )


@pytest.fixture(scope="module")
def problem():
    X, y_N = draw(200, seed=3)
    return Problem(features=pd.DataFrame(X), outcome_N=np.asarray(y_N), patient_N=np.arange(200))


def searched(chosen, problem):
    finalists = {name: record(name) for name in ("logistic_regression", "lightgbm")}
    folds = make_folds(
        problem.outcome_N, problem.patient_N, n_splits=CONFIG.n_splits, n_repeats=CONFIG.n_repeats, seed=1
    )
    return Searched(
        records=tuple(finalists.values()), chosen=finalists[chosen], finalists=finalists, folds=tuple(folds)
    )


def test_an_algorithm_that_learns_nothing_has_no_model_unless_it_is_the_chosen_one(problem, monkeypatch):
    from sarc_ray import tuning

    fit = tuning.fit_final

    def no_better_than_chance(name, *args, **kwargs):
        if name == "lightgbm":
            raise EvaluationError("no better than chance")
        return fit(name, *args, **kwargs)

    monkeypatch.setattr(tuning, "fit_final", no_better_than_chance)
    told = []
    models = fit_finalists(
        problem, searched("logistic_regression", problem), CONFIG, seed=1, tell=lambda *progress: told.append(progress)
    )
    assert set(models) == {"logistic_regression"}
    assert told[-1] == ("finalists", 2, 2)
    with pytest.raises(EvaluationError, match="no better than chance"):
        fit_finalists(problem, searched("lightgbm", problem), CONFIG, seed=1, tell=lambda *_: None)


def test_a_nested_search_never_finds_the_records_of_other_patients(problem, monkeypatch):
    """Trials lie by algorithm and number alone: another number of outer folds needs folders of its own."""
    from sarc_ray import tuning

    patients = {}

    def search(features, outcome_N, *, uri, **_):
        patients.setdefault(uri, []).append(features.to_numpy().tobytes())
        return [record("logistic_regression")]

    monkeypatch.setattr(tuning, "search", search)
    config = replace(CONFIG, algorithms=("logistic_regression",))
    for n_splits in (2, 3, 2):
        found = nested_cross_validation(
            problem, replace(config, nested_splits=n_splits), seed=1, uri="out", engine=None, tell=lambda *_: None
        )
        assert found["n"].sum() == 200
    assert len(patients) == 5
    assert all(len(set(seen)) == 1 for seen in patients.values())

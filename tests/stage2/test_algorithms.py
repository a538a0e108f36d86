import json

import numpy as np
import optuna
import pytest
from sklearn.metrics import roc_auc_score

from sarc_ray.errors import ConfigError, EvaluationError
from sarc_ray.stage2.algorithms import ALGORITHMS, build, fit, suggest
from tests.stage2.cohort import CHEAP, draw


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_draw_of_the_space_builds_and_goes_through_json(name):
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [suggest(name, study.ask()) for _ in range(20)]
    assert len({json.dumps(params, sort_keys=True) for params in drawn}) == 20
    for params in drawn:
        assert json.loads(json.dumps(params)) == params
        build(name, params, seed=0, n_jobs=1)
    assert all(params.get("n_estimators", 0) <= 300 for params in drawn)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_it_learns_and_the_seed_decides(name):
    X, y_N = draw(400, 1)
    X_new, y_new_N = draw(2000, 2)
    scores = [
        fit(name, CHEAP[name], X.to_numpy(), y_N, seed=seed, n_jobs=1).predict_proba(X_new.to_numpy())[:, 1]
        for seed in (7, 7, 8)
    ]
    assert roc_auc_score(y_new_N, scores[0]) > 0.75
    np.testing.assert_array_equal(scores[0], scores[1])
    if name != "logistic_regression":  # converges to the same optimum
        assert not np.array_equal(scores[0], scores[2])


@pytest.mark.parametrize("name", ALGORITHMS)
def test_balanced_weights_raise_the_probability_of_the_rarer_class(name):
    X, y_N = draw(400, 1)
    means = {}
    for weight in ("none", "balanced"):
        params = {**CHEAP[name], "class_weight": weight}
        means[weight] = fit(name, params, X.to_numpy(), y_N, seed=0, n_jobs=1).predict_proba(X.to_numpy())[:, 1].mean()
    assert means["none"] == pytest.approx(y_N.mean(), abs=0.03)
    assert means["balanced"] > means["none"] + 0.1


def test_wrong_names_and_values_are_named():
    with pytest.raises(ConfigError, match="'svm' is not known; allowed: random_forest"):
        build("svm", {}, seed=0, n_jobs=1)
    with pytest.raises(ConfigError, match=r"logistic_regression\.C: found 1000\.0"):
        build("logistic_regression", {**CHEAP["logistic_regression"], "C": 1000.0}, seed=0, n_jobs=1)
    with pytest.raises(ConfigError, match="needed are C, class_weight, l1_ratio"):
        build("logistic_regression", {"C": 1.0}, seed=0, n_jobs=1)


@pytest.mark.parametrize("name", ["random_forest", "extra_trees"])
def test_the_number_of_trees_is_not_searched_but_forests_of_other_numbers_can_be_made_again(name):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    assert {suggest(name, study.ask())["n_estimators"] for _ in range(5)} == {200}
    assert build(name, {**CHEAP[name], "n_estimators": 100}, seed=0, n_jobs=1).n_estimators == 100
    with pytest.raises(ConfigError, match=rf"{name}\.n_estimators: found 0"):
        build(name, {**CHEAP[name], "n_estimators": 0}, seed=0, n_jobs=1)


def test_missing_features_and_one_class_are_refused():
    X, y_N = draw(60, 1)
    x_NF = X.to_numpy(copy=True)
    x_NF[3, 2] = np.nan
    with pytest.raises(EvaluationError, match="missing or infinite"):
        fit("logistic_regression", CHEAP["logistic_regression"], x_NF, y_N, seed=0, n_jobs=1)
    with pytest.raises(EvaluationError, match="both 0 and 1"):
        fit("logistic_regression", CHEAP["logistic_regression"], X.to_numpy(), 0 * y_N, seed=0, n_jobs=1)

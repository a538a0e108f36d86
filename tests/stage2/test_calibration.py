import dataclasses

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.metrics import brier_score_loss, roc_auc_score

from sarc_ray.errors import EvaluationError
from sarc_ray.stage2.algorithms import ALGORITHMS
from sarc_ray.stage2.calibration import Sigmoid, fit_final, fit_sigmoid
from sarc_ray.stage2.cross_validation import evaluate_params, make_folds
from tests.stage2.cohort import CHEAP, draw, fitted_model


def test_sigmoid_finds_the_distortion_that_was_applied():
    rng = np.random.default_rng(0)
    truth_N = expit(rng.normal(-1.5, 1.2, 200_000))
    y_N = (rng.random(200_000) < truth_N).astype(int)
    raw_N = expit((logit(truth_N) - 0.7) / 1.8)
    sigmoid = fit_sigmoid(raw_N, y_N)
    np.testing.assert_allclose(sigmoid.apply(raw_N), truth_N, atol=0.01)


def test_sigmoid_leaves_calibrated_scores_alone():
    rng = np.random.default_rng(1)
    raw_N = rng.uniform(0.05, 0.9, 200_000)
    sigmoid = fit_sigmoid(raw_N, (rng.random(200_000) < raw_N).astype(int))
    np.testing.assert_allclose(sigmoid.apply(raw_N), raw_N, atol=0.01)


def test_sigmoid_stays_finite_on_perfect_and_extreme_scores():
    sigmoid = fit_sigmoid(np.array([0.0, 0.0, 1.0, 1.0]), np.array([0, 0, 1, 1]))
    score_N = sigmoid.apply([0.0, 1.0])
    assert 0.0 < score_N[0] < 0.5 < score_N[1] < 1.0


def test_sigmoid_is_strictly_increasing():
    raw_N = np.linspace(0.0, 1.0, 2001)
    assert np.all(np.diff(Sigmoid(0.8, -0.3).apply(raw_N)) > 0)


def test_scores_worse_than_chance_make_no_model():
    rng = np.random.default_rng(2)
    raw_N = rng.random(500)
    with pytest.raises(EvaluationError, match="no better than chance"):
        fit_sigmoid(raw_N, (rng.random(500) > raw_N).astype(int))


@pytest.mark.parametrize("name", ALGORITHMS)
def test_final_model_is_calibrated_and_its_two_thresholds_agree(name):
    model, _, _ = fitted_model(name, n=400)
    X_new, y_new_N = draw(6000, 99)
    raw_N, score_N = model.predict(X_new)
    assert roc_auc_score(y_new_N, score_N) > 0.74
    assert score_N.mean() == pytest.approx(y_new_N.mean(), abs=0.05)
    assert brier_score_loss(y_new_N, score_N) <= brier_score_loss(y_new_N, raw_N) + 0.004
    np.testing.assert_array_equal(model.flag(score_N), raw_N >= model.raw_threshold)
    assert model.threshold == model.sigmoid.apply(model.raw_threshold)


def test_threshold_and_calibration_come_from_out_of_fold_scores():
    X, y_N = draw(300, 4)
    folds = make_folds(y_N, np.arange(300), n_splits=3, n_repeats=2, seed=1)
    params = {**CHEAP["extra_trees"], "max_depth": 14, "min_samples_leaf": 1}
    cv = evaluate_params("extra_trees", params, X, y_N, folds, seed=5, n_jobs=1)
    model = fit_final("extra_trees", params, X, y_N, folds, seed=5, n_jobs=1)
    assert model.raw_threshold == cv.oof_threshold
    assert model.sigmoid == fit_sigmoid(cv.oof_raw_scores, y_N)
    resubstituted = fit_sigmoid(model.predict(X)[0], y_N)
    assert model.sigmoid.slope < 0.7 * resubstituted.slope  # memorised scores would have looked far too good
    given = fit_final("extra_trees", params, X, y_N, folds, seed=5, n_jobs=1, cv=cv)
    np.testing.assert_array_equal(given.predict(X)[1], model.predict(X)[1])


def test_predict_names_what_is_missing():
    model, X, _ = fitted_model("logistic_regression")
    with pytest.raises(EvaluationError, match="'bmi_kg_m2' is missing or infinite in 2 rows"):
        model.predict(X.assign(bmi_kg_m2=X["bmi_kg_m2"].where(X.index > 1)))
    with pytest.raises(EvaluationError, match="'crt_s_mu' is absent"):
        model.predict(X.drop(columns="crt_s_mu"))


def test_predict_goes_by_name_and_takes_no_rows():
    model, X, _ = fitted_model("logistic_regression")
    shuffled = X[X.columns[::-1]].assign(further=np.nan)
    np.testing.assert_array_equal(model.predict(shuffled)[1], model.predict(X)[1])
    raw_N, score_N = model.predict(X.iloc[:0])
    assert raw_N.shape == score_N.shape == (0,)
    assert dataclasses.replace(model, threshold=0.0).flag(np.array([0.0])).tolist() == [True]

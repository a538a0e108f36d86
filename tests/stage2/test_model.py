import dataclasses

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, roc_auc_score

from sarc_ray.errors import EvaluationError
from sarc_ray.stage2.algorithms import ALGORITHMS
from sarc_ray.stage2.calibration import METHODS, Unchanged, fit_sigmoid
from sarc_ray.stage2.cross_validation import evaluate_params, make_folds
from sarc_ray.stage2.model import fit_final
from sarc_ray.stage2.thresholds import RULES
from tests.stage2.cohort import CHEAP, CONFIG, draw, fitted_model


@pytest.mark.parametrize("name", ALGORITHMS)
def test_final_model_is_calibrated_and_its_two_thresholds_agree(name):
    model, _, _ = fitted_model(name, n=400)
    X_new, y_new_N = draw(6000, 99)
    raw_N, score_N = model.predict(X_new)
    assert roc_auc_score(y_new_N, score_N) > 0.74
    assert score_N.mean() == pytest.approx(y_new_N.mean(), abs=0.05)
    assert brier_score_loss(y_new_N, score_N) <= brier_score_loss(y_new_N, raw_N) + 0.004
    np.testing.assert_array_equal(model.flag(score_N), raw_N >= model.raw_threshold)
    assert model.threshold == model.calibration.apply(model.raw_threshold)
    assert model.decision.method == "sigmoid"
    assert model.decision.kept == (not isinstance(model.calibration, Unchanged))


def test_thresholds_and_calibration_come_from_out_of_fold_scores():
    X, y_N = draw(300, 5)
    folds = make_folds(y_N, np.arange(300), n_splits=3, n_repeats=2, seed=1)
    params = {**CHEAP["extra_trees"], "max_depth": 14, "min_samples_leaf": 1, "max_features": 1.0}
    cv = evaluate_params("extra_trees", params, X, y_N, folds, seed=5, n_jobs=1)
    model = fit_final("extra_trees", params, X, y_N, folds, config=CONFIG, seed=5, n_jobs=1)
    assert model.raw_threshold == cv.oof_threshold
    assert model.point.f1 == pytest.approx(cv.oof_f1)
    assert model.decision.kept
    assert model.calibration == fit_sigmoid(cv.oof_raw_scores, y_N)
    resubstituted = fit_sigmoid(model.predict(X)[0], y_N)
    assert model.calibration.slope < 0.7 * resubstituted.slope  # memorised scores would have looked far too good
    given = fit_final("extra_trees", params, X, y_N, folds, config=CONFIG, seed=5, n_jobs=1, cv=cv)
    np.testing.assert_array_equal(given.predict(X)[1], model.predict(X)[1])


@pytest.mark.parametrize("method", METHODS)
def test_scores_are_raw_scores_unless_calibration_is_in_force(method):
    model, X, _ = fitted_model("logistic_regression", config=dataclasses.replace(CONFIG, calibration=method))
    raw_N, score_N = model.predict(X)
    assert model.decision.method == method
    assert np.array_equal(raw_N, score_N) == (not model.decision.kept)
    assert model.decision.kept <= (method != "none")
    for point in model.thresholds:
        np.testing.assert_array_equal(score_N >= point.threshold, raw_N >= point.raw_threshold)


@pytest.mark.parametrize("rule", RULES)
def test_the_rule_that_configuration_names_is_in_force(rule):
    model, X, _ = fitted_model("logistic_regression", config=dataclasses.replace(CONFIG, threshold=rule))
    assert model.point.rule == rule
    score_N = model.predict(X)[1]
    np.testing.assert_array_equal(model.flag(score_N), score_N >= model.thresholds[RULES.index(rule)].threshold)
    assert [point["rule"] for point in model.stated()["thresholds"] if point["in_force"]] == [rule]


def test_a_rule_that_has_no_threshold_cannot_be_in_force():
    model, _, _ = fitted_model("logistic_regression")
    with pytest.raises(ValueError, match="'f1', which is in force, among them"):
        dataclasses.replace(model, thresholds=(model.point,), in_force="f1")


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
    assert model.flag(np.array([model.threshold, np.nextafter(model.threshold, 0.0)])).tolist() == [True, False]

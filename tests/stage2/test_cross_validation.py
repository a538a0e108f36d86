import dataclasses

import numpy as np
import pytest
from sklearn.metrics import f1_score, roc_auc_score, roc_curve

from sarc_ray.errors import EvaluationError
from sarc_ray.stage2.choice import choose
from sarc_ray.stage2.cross_validation import CvResult, evaluate_params, make_folds
from sarc_ray.stage2.settings import Stage2Config
from tests.stage2.cohort import CHEAP, draw

CONFIG = Stage2Config(
    algorithms=("random_forest", "lightgbm"),
    trials_per_algorithm=3,
    trials_per_round=2,
    minutes_per_algorithm=None,
    prune=False,
    n_splits=3,
    n_repeats=5,
    nested_splits=0,
    choice="cross_validation",
    calibration="sigmoid",
    prevalence=None,
    threshold="youden",
    threshold_sensitivity=0.9,
    threshold_specificity=0.9,
    threshold_alerts_per_10000=1000.0,
    threshold_cost_ratio=5.0,
)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"algorithms": ()}, "algorithms: found"),
        ({"algorithms": ("lightgbm", "lightgbm")}, "each once"),
        ({"algorithms": ("svm",)}, "'svm' is not known"),
        ({"trials_per_algorithm": 0}, "trials_per_algorithm: found 0"),
        ({"n_splits": 1}, "n_splits: found 1, allowed: 2 or more"),
        ({"nested_splits": 1}, "nested_splits: found 1, allowed: 0 \\(none\\), or 2 or more"),
        ({"minutes_per_algorithm": 0.0}, "minutes_per_algorithm: found 0.0, allowed: above 0, or null"),
        ({"choice": "test_set"}, "choice: found 'test_set', allowed: cross_validation, internal_test_as_paper"),
        ({"threshold": "kappa"}, "threshold: found 'kappa', allowed: youden, f1, sensitivity, specificity"),
        ({"calibration": "platt"}, "calibration: found 'platt', allowed: sigmoid, isotonic, beta, none"),
        ({"threshold_sensitivity": 1.1}, "threshold_sensitivity: found 1.1, allowed: above 0, up to 1"),
        ({"threshold_specificity": 0.0}, "threshold_specificity: found 0.0"),
        ({"threshold_alerts_per_10000": float("nan")}, "threshold_alerts_per_10000: found nan"),
        ({"threshold_cost_ratio": -1.0}, "threshold_cost_ratio: found -1.0"),
    ],
)
def test_config_names_field_value_and_what_is_allowed(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **change)


def test_folds_keep_patients_together_and_are_stratified():
    rng = np.random.default_rng(0)
    groups_N = rng.integers(0, 150, 400)
    y_N = (groups_N % 6 == 0).astype(int)
    folds = make_folds(y_N, groups_N, n_splits=3, n_repeats=5, seed=4)
    assert [fold.repeat for fold in folds] == [r for r in range(5) for _ in range(3)]
    for fold in folds:
        assert not set(groups_N[fold.train]) & set(groups_N[fold.test])
        assert sorted([*fold.train, *fold.test]) == list(range(400))
        assert abs(y_N[fold.test].mean() - y_N.mean()) < 0.06
    for repeat in range(5):
        tested = np.concatenate([fold.test for fold in folds if fold.repeat == repeat])
        assert sorted(tested) == list(range(400))
    assert len({tuple(fold.test) for fold in folds}) == 15


def test_folds_depend_on_the_seed_alone():
    _, y_N = draw(200, 0)
    first, second, other = (make_folds(y_N, np.arange(200), n_splits=3, n_repeats=2, seed=seed) for seed in (1, 1, 2))
    assert all(np.array_equal(a.test, b.test) for a, b in zip(first, second, strict=True))
    assert not all(np.array_equal(a.test, b.test) for a, b in zip(first, other, strict=True))


def test_too_few_events_and_wrong_labels_are_refused():
    y_N = np.zeros(60)
    y_N[:5] = 1
    with pytest.raises(EvaluationError, match="found 5 patients with the outcome, needed are 6"):
        make_folds(y_N, np.arange(60), n_splits=3, n_repeats=2, seed=0)
    with pytest.raises(EvaluationError, match="found 1 patients with"):  # many rows of one patient are one patient
        make_folds(np.repeat([1, 0], 30), np.r_[np.zeros(30), np.arange(1, 31)], n_splits=3, n_repeats=2, seed=0)
    y_N[7] = np.nan
    with pytest.raises(EvaluationError, match="1 of 60 are neither 0 nor 1"):
        make_folds(y_N, np.arange(60), n_splits=3, n_repeats=2, seed=0)


def test_result_agrees_with_scikit_learn():
    X, y_N = draw(240, 3)
    folds = make_folds(y_N, np.arange(240), n_splits=3, n_repeats=2, seed=1)
    result = evaluate_params("extra_trees", CHEAP["extra_trees"], X, y_N, folds, seed=5, n_jobs=1)
    oof_RN = result.oof_raw_scores
    assert oof_RN.shape == (2, 240)
    expected = [roc_auc_score(y_N[fold.test], oof_RN[fold.repeat, fold.test]) for fold in folds]
    np.testing.assert_allclose(result.auroc_per_fold, expected)
    assert result.cv_auroc_mean == pytest.approx(np.mean(expected))
    within = np.mean([np.var(expected[:3], ddof=1), np.var(expected[3:], ddof=1)])
    assert result.cv_auroc_se == pytest.approx(np.sqrt(within / 3))
    np.testing.assert_allclose(result.oof_raw_score, oof_RN.mean(axis=0))
    y_pooled = np.tile(y_N, 2)
    fpr, tpr, thresholds = roc_curve(y_pooled, oof_RN.ravel(), drop_intermediate=False)
    best = thresholds[np.argmax(tpr - fpr)]
    np.testing.assert_array_equal(oof_RN >= result.oof_threshold, oof_RN >= best)
    assert not np.any(oof_RN == result.oof_threshold)
    assert result.oof_f1 == pytest.approx(f1_score(y_pooled, oof_RN.ravel() >= best))


def test_out_of_fold_scores_know_nothing_of_their_own_labels():
    X, _ = draw(240, 3)
    y_N = np.random.default_rng(8).permutation(np.repeat([1, 0], [60, 180]))
    folds = make_folds(y_N, np.arange(240), n_splits=3, n_repeats=2, seed=1)
    params = {**CHEAP["extra_trees"], "max_depth": 14, "min_samples_leaf": 1}  # memorises what it sees
    assert abs(evaluate_params("extra_trees", params, X, y_N, folds, seed=5, n_jobs=1).cv_auroc_mean - 0.5) < 0.1


def _result(mean: float, se: float, f1: float) -> CvResult:
    return CvResult("lightgbm", {}, np.array([mean]), np.zeros((1, 1)), mean, se, 0.5, f1)


@pytest.mark.parametrize(
    ("table", "chosen"),
    [
        ([(0.80, 0.02, 0.40), (0.75, 0.09, 0.90)], 0),  # outside one standard error of the best: F1 does not count
        ([(0.80, 0.02, 0.40), (0.79, 0.01, 0.50)], 1),  # inside: the better F1
        ([(0.79, 0.02, 0.50), (0.80, 0.02, 0.50), (0.80, 0.02, 0.50)], 1),  # ties: higher AUROC, then the earlier
        ([(0.70, 0.50, 0.99), (0.80, 0.01, 0.10)], 1),  # the best one's error counts, not the candidate's
    ],
)
def test_choice(table, chosen):
    assert choose([_result(*row) for row in table]) == chosen


def test_choice_refuses_nothing_and_nan():
    with pytest.raises(EvaluationError, match="no cross-validation results"):
        choose([])
    with pytest.raises(EvaluationError, match="no mean AUROC"):
        choose([_result(0.8, 0.1, 0.5), _result(np.nan, 0.1, 0.5)])

import dataclasses
import json
import pickle

import numpy as np
import pytest

from sarc_ray.errors import BundleError
from sarc_ray.stage2.algorithms import ALGORITHMS, fit
from sarc_ray.stage2.portable import Forest, LightgbmTrees, XgboostTrees, portable
from tests.stage2.cohort import CHEAP, draw


@pytest.mark.parametrize("name", ALGORITHMS)
def test_portable_form_predicts_what_the_estimator_predicts(name):
    X, y_N = draw(300, 1)
    x_new_NF = draw(3000, 2)[0].to_numpy()
    estimator = fit(name, CHEAP[name], X.to_numpy(), y_N, seed=0, n_jobs=1)
    form = portable(estimator)
    raw_N = form.raw_score(x_new_NF)
    np.testing.assert_allclose(raw_N, estimator.predict_proba(x_new_NF)[:, 1], atol=1e-12)
    in_sevens = [form.raw_score(x_new_NF[i : i + 7]) for i in range(0, 70, 7)]
    np.testing.assert_array_equal(np.concatenate(in_sevens), raw_N[:70])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(form)).raw_score(x_new_NF), raw_N)  # noqa: S301
    assert form.n_features == x_new_NF.shape[1]


def _forest() -> Forest:
    X, y_N = draw(120, 1)
    form = portable(fit("random_forest", CHEAP["random_forest"], X.to_numpy(), y_N, seed=0, n_jobs=1))
    assert isinstance(form, Forest)
    return form


@pytest.mark.parametrize(
    ("array", "value", "message"),
    [
        ("left", 10**9, "impossible child"),  # would read foreign memory
        ("right", -5, "impossible child"),
        ("left", 0, None),  # node 0's child is itself on one side only: would never end
        ("feature", 9, "feature that does not exist"),
        ("share", 1.5, "share lies outside"),
        ("threshold", np.nan, "threshold is not a number"),
    ],
)
def test_an_altered_forest_is_refused(array, value, message):
    forest = _forest()
    altered = getattr(forest, array).copy()
    altered[0] = value
    with pytest.raises(BundleError, match=message or "damaged or altered"):
        dataclasses.replace(forest, **{array: altered})


def test_a_child_in_another_tree_is_refused():
    forest = _forest()
    altered = forest.left.copy()
    altered[0] = forest.root[1]
    with pytest.raises(BundleError, match="impossible child"):
        dataclasses.replace(forest, left=altered)


def _text(name: str) -> str:
    X, y_N = draw(200, 1)
    return portable(fit(name, CHEAP[name], X.to_numpy(), y_N, seed=0, n_jobs=1)).text


@pytest.mark.parametrize(
    ("key", "value"),
    [("left_children", 10**6), ("right_children", 0), ("split_indices", 77), ("split_type", 1)],
)
def test_an_altered_xgboost_model_is_refused(key, value):
    model = json.loads(_text("xgboost"))
    model["learner"]["gradient_booster"]["model"]["trees"][1][key][0] = value
    with pytest.raises(BundleError, match="damaged or altered"):
        XgboostTrees(json.dumps(model))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("left_child=", "left_child=9 "),
        ("split_feature=", "split_feature=77"),
        ("decision_type=2", "decision_type=1"),
        ("objective=binary sigmoid:1", "objective=regression"),
        ("end of trees", ""),
        ("num_cat=0", "num_cat=1"),
    ],
)
def test_an_altered_lightgbm_model_is_refused(old, new):
    text = _text("lightgbm")
    assert old in text
    with pytest.raises(BundleError, match="damaged or altered"):
        LightgbmTrees(text.replace(old, new, 1))


@pytest.mark.parametrize("form", [XgboostTrees, LightgbmTrees])
@pytest.mark.parametrize("text", ["", "{}", "[1]", "null", "tree\nTree=0\nend of trees\n"])
def test_what_is_no_model_is_refused(form, text):
    with pytest.raises(BundleError, match="stage 2"):
        form(text)


def test_lightgbm_text_holds_no_patient_extremes_and_no_training_parameters():
    text = _text("lightgbm")
    assert "feature_infos=none none" in text
    assert "num_threads" not in text

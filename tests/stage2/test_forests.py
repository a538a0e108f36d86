import numpy as np
import pytest
from sklearn.base import clone
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier

from sarc_ray.stage2.forests import extra_trees, random_forest
from tests.stage2.cohort import draw

KINDS = ((random_forest, RandomForestClassifier), (extra_trees, ExtraTreesClassifier))
PARAMS = {
    "n_estimators": 20,
    "max_depth": 5,
    "min_samples_leaf": 3,
    "max_features": 0.5,
    "class_weight": "balanced",
    "max_leaf_nodes": 9,
    "ccp_alpha": 0.001,
    "random_state": 4,
}


@pytest.mark.parametrize(("ours", "plain"), KINDS)
def test_forests_equal_plain_ones_to_the_last_bit(ours, plain):
    X, y_N = draw(300, 1)
    x_new_NF = draw(500, 2)[0].to_numpy()
    weight_N = np.linspace(0.5, 1.5, len(y_N))
    made, reference = (
        forest.fit(X.to_numpy(), y_N, sample_weight=weight_N) for forest in (ours(**PARAMS), plain(**PARAMS))
    )
    np.testing.assert_array_equal(made.predict_proba(x_new_NF), reference.predict_proba(x_new_NF))
    np.testing.assert_array_equal(made.feature_importances_, reference.feature_importances_)
    assert [tree.get_params() for tree in made.estimators_] == [tree.get_params() for tree in reference.estimators_]


@pytest.mark.parametrize(("ours", "plain"), KINDS)
def test_a_clone_is_a_plain_forest(ours, plain):
    cloned = clone(ours(**PARAMS))
    assert type(cloned) is plain
    assert type(cloned.estimator) is type(plain().estimator)
    assert cloned.get_params() == plain(**PARAMS).get_params()


@pytest.mark.parametrize(("ours", "plain"), KINDS)
def test_what_a_plain_forest_refuses_is_refused(ours, plain):
    X, y_N = draw(50, 1)
    for make in (ours, plain):
        with pytest.raises(ValueError, match="min_samples_leaf"):
            make(**{**PARAMS, "min_samples_leaf": 0}).fit(X, y_N)

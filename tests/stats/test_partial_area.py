from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from sarc_ray.stats.discrimination import auroc
from sarc_ray.stats.partial_area import partial_auroc

rows = st.lists(st.tuples(st.booleans(), st.integers(-5, 5)), min_size=4, max_size=40).filter(
    lambda pairs: 0 < sum(label for label, _ in pairs) < len(pairs)
)


@settings(max_examples=60, deadline=None)
@given(rows, st.floats(0.01, 0.99))
def test_parts_add_up_to_the_whole(pairs, cut):
    label, score = np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs], dtype=float)
    left = partial_auroc(label, score, fpr_low=0, fpr_high=cut, standardise=False)
    right = partial_auroc(label, score, fpr_low=cut, fpr_high=1, standardise=False)
    assert left + right == pytest.approx(auroc(label, score))
    assert 0 <= left <= cut
    assert partial_auroc(label, np.exp(score), fpr_low=0, fpr_high=cut, standardise=False) == pytest.approx(left)
    order = np.random.default_rng(1).permutation(label.size)
    again = partial_auroc(label[order], score[order], fpr_low=0, fpr_high=cut, standardise=False)
    assert again == pytest.approx(left)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("fpr_high", [0.05, 0.3, 1.0])
def test_standardised_area_equals_scikit_learn(seed, fpr_high):
    rng = np.random.default_rng(seed)
    label = np.repeat([0, 1], [70, 30])
    score = np.round(label + rng.normal(size=100), 1)
    expected = sklearn.metrics.roc_auc_score(label, score, max_fpr=fpr_high)
    ours = partial_auroc(label, score, fpr_low=0, fpr_high=fpr_high, standardise=True)
    assert ours == pytest.approx(expected, rel=1e-12)


def test_chance_and_perfection():
    label = [0, 0, 1, 1]
    for low, high in ((0.0, 0.2), (0.3, 0.6)):
        assert partial_auroc(label, [1, 1, 1, 1], fpr_low=low, fpr_high=high, standardise=True) == pytest.approx(0.5)
        assert partial_auroc(label, [1, 2, 3, 4], fpr_low=low, fpr_high=high, standardise=True) == pytest.approx(1)
    assert partial_auroc(label, [4, 3, 2, 1], fpr_low=0, fpr_high=0.5, standardise=True) < 0.5
    assert np.isnan(partial_auroc([1, 1], [1, 2], fpr_low=0, fpr_high=0.5, standardise=False))


@pytest.mark.parametrize(("low", "high"), [(0.2, 0.2), (-0.1, 0.5), (0.5, 1.1)])
def test_wrong_ends_are_refused(low, high):
    with pytest.raises(ValueError, match="allowed: 0 <= fpr_low < fpr_high <= 1"):
        partial_auroc([0, 1], [1, 2], fpr_low=low, fpr_high=high, standardise=False)

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import safetensors.numpy
from sklearn.covariance import LedoitWolf

from sarc_ray.errors import BundleError
from sarc_ray.stage1.ood import (
    MAX_AXES,
    alarm_threshold,
    false_alarm_rate_held,
    fit_reference,
    reference_from_bytes,
    reference_to_bytes,
)
from sarc_ray.stage1.settings import OodConfig
from sarc_ray.stats.discrimination import auroc


def draw_features(n, *, seed, shift=0.0):
    """Correlated features of 40 axes in 100 dimensions, one feature dead; ``shift`` moves along the last axis."""
    mixing = np.random.default_rng(0).normal(size=(40, 100))
    rng = np.random.default_rng(seed)
    t = rng.normal(size=(n, 40)) * np.linspace(3.0, 0.5, 40)
    t[:, -1] += shift
    features = 5 + t @ mixing
    features[:, 7] = 2.0
    return features


@pytest.fixture(scope="module")
def reference():
    return fit_reference(draw_features(600, seed=1), backbone_hash="abc")


def test_distance_is_mahalanobis_on_the_axes(reference):
    """Against scikit-learn's shrunk covariance of the standardised features' coordinates."""
    train, new = draw_features(600, seed=1), draw_features(50, seed=2, shift=4.0)
    assert reference.axes_KF.shape == (40, 100)
    z, z_new = ((x - train.mean(axis=0)) / reference.sd_F for x in (train, new))
    shrunk = LedoitWolf(assume_centered=True).fit(z @ reference.axes_KF.T)
    expected = np.sqrt(shrunk.mahalanobis(z_new @ reference.axes_KF.T) / 40)
    np.testing.assert_allclose(reference.distance(new), expected, rtol=2e-3)  # ddof 1 here, 0 there


def test_ordinary_pictures_lie_at_about_one_and_odd_ones_far_away(reference):
    ordinary = reference.distance(draw_features(400, seed=3))
    odd = reference.distance(draw_features(100, seed=4, shift=8.0))
    assert np.median(ordinary) == pytest.approx(1.0, abs=0.1)
    labels = np.repeat([0, 1], [400, 100])
    assert auroc(labels, np.concatenate([ordinary, odd])) > 0.99


def test_a_feature_that_hardly_varied_in_training_raises_no_alarm():
    """Its own SD is an accident of which pictures were drawn."""
    train, new = draw_features(600, seed=1), draw_features(50, seed=2)
    train[:, 7] += 1e-5 * np.random.default_rng(0).normal(size=600)
    awake = new.copy()
    awake[:, 7] += 1.0
    reference = fit_reference(train, backbone_hash="abc")
    assert reference.sd_F[7] == pytest.approx(np.median(train.std(axis=0)), rel=0.05)
    np.testing.assert_allclose(reference.distance(awake), reference.distance(new), rtol=0.05)


def test_a_row_does_not_depend_on_its_neighbours(reference):
    features = draw_features(9, seed=5)
    alone = np.concatenate([reference.distance(features[i : i + 1]) for i in range(9)])
    np.testing.assert_array_equal(reference.distance(features), alone)


def test_few_training_pictures_and_many_features():
    few = fit_reference(draw_features(12, seed=1), backbone_hash="x")
    assert few.axes_KF.shape == (11, 100)
    assert np.median(few.distance(draw_features(100, seed=2))) < 5
    wide = fit_reference(np.random.default_rng(0).normal(size=(200, 500)), backbone_hash="x")
    assert wide.axes_KF.shape == (MAX_AXES, 500)
    with pytest.raises(ValueError, match="of 2 training pictures"):
        fit_reference(draw_features(2, seed=1), backbone_hash="x")
    with pytest.raises(ValueError, match="all the same"):
        fit_reference(np.ones((5, 4)), backbone_hash="x")


def test_threshold_holds_its_false_alarm_rate():
    """New draws above the threshold: the rate, on average over thresholds (exact for split conformal prediction)."""
    rng = np.random.default_rng(0)
    rates = []
    for _ in range(2000):
        threshold = alarm_threshold(rng.exponential(size=199), 0.05)
        rates.append(np.exp(-threshold))
    assert np.mean(rates) == pytest.approx(0.05, abs=0.002)


def test_threshold_with_few_pictures_and_switched_off():
    distances = np.arange(1.0, 51.0)
    assert alarm_threshold(distances, 0.01) == 50.0
    assert alarm_threshold(np.arange(1.0, 100.0), 0.01) == 99.0
    assert alarm_threshold(np.arange(1.0, 200.0), 0.01) == 198.0
    assert alarm_threshold(distances, 0) is None
    assert alarm_threshold([], None) is None
    assert alarm_threshold([], 0.01) is None


@pytest.mark.parametrize(
    ("n", "asked", "held"),
    [
        (500, 0.01, 0.01),
        (99, 0.01, 0.01),
        (98, 0.01, 1 / 99),
        (19, 0.01, 0.05),
        (18, 0.01, None),
        (0, 0.01, None),
        (9, 0.1, 0.1),
        (8, 0.1, None),
        (500, 0, None),
        (500, None, None),
    ],
)
def test_a_threshold_is_set_where_the_rate_asked_for_or_a_small_one_is_held(n, asked, held):
    found = false_alarm_rate_held(n, asked)
    assert found == (None if held is None else pytest.approx(held))
    assert (alarm_threshold(np.ones(n), asked) is None) == (held is None)


def test_the_rate_that_few_pictures_hold_is_the_one_stated():
    rng = np.random.default_rng(1)
    rates = [np.exp(-alarm_threshold(rng.exponential(size=30), 0.01)) for _ in range(4000)]
    assert np.mean(rates) == pytest.approx(false_alarm_rate_held(30, 0.01), rel=0.06)


def test_a_file_gives_the_reference_back(reference):
    data = reference_to_bytes(reference)
    again = reference_from_bytes(data)
    assert again.backbone_hash == "abc"
    assert again.content_hash == reference.content_hash
    assert reference_to_bytes(again) == data
    features = draw_features(5, seed=9)
    np.testing.assert_array_equal(again.distance(features), reference.distance(features))


def test_content_hash_sees_every_part(reference):
    changed = {
        name: dataclasses.replace(reference, **{name: getattr(reference, name) * np.float32(1.01)})
        for name in ("mean_F", "sd_F", "axes_KF", "variance_K")
    }
    hashes = {one.content_hash for one in changed.values()}
    hashes.add(dataclasses.replace(reference, backbone_hash="abd").content_hash)
    assert len(hashes | {reference.content_hash}) == 6


def test_damaged_files_are_refused(reference):
    with pytest.raises(BundleError, match="damaged"):
        reference_from_bytes(b"not a file")
    tensors = safetensors.numpy.load(reference_to_bytes(reference))
    with pytest.raises(BundleError, match="damaged"):
        reference_from_bytes(safetensors.numpy.save(tensors))
    tensors["sd_F"] = tensors["sd_F"][:-1]
    with pytest.raises(BundleError, match="do not fit together"):
        reference_from_bytes(safetensors.numpy.save(tensors, metadata={"backbone_hash": "abc"}))


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_rates_out_of_range_are_refused(rate):
    with pytest.raises(ValueError, match="false_alarm_rate"):
        OodConfig(false_alarm_rate=rate)

"""The comparison behind docs/explanation/out-of-fold.md, cut down to two targets and a few patients."""

import importlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def script():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLES))
        yield importlib.import_module("out_of_fold")


@pytest.fixture(scope="module")
def settings(script):
    arguments = script.parse(["--members", "3", "--trials", "1", "--repeats", "1"])
    settings = script.read_settings(*script.SETTINGS["No augmentation, no dropout, no early stopping"], arguments)
    return replace(settings, targets=settings.targets[:1], fit=replace(settings.fit, epochs=12, batch_size=8))


@pytest.fixture(scope="module")
def patients():
    """The brighter the upper left quarter, the more muscle; pictures are noise besides, and so are measurements."""
    rng = np.random.default_rng(0)
    images_NSS = rng.integers(0, 120, (150, 32, 32))
    light_N = rng.uniform(0, 100, 150)
    images_NSS[:, :16, :16] += light_N.astype(int)[:, None, None]
    alm_N = 15 + light_N / 20 + rng.normal(0, 1.5, 150)
    frame = pd.DataFrame(
        {
            "patient_id": np.arange(150).astype(str),
            "age_years": rng.uniform(45, 85, 150),
            "sex": rng.choice(["F", "M"], 150),
            "bmi_kg_m2": rng.normal(24, 3, 150),
            "alm_kg": alm_N,
            "outcome": (alm_N + rng.normal(0, 1, 150) < 16.5).astype(float),
            "bayes_score": np.clip((110 - light_N) / 120, 0.01, 0.99),
        }
    )
    return images_NSS.astype(np.uint8), frame


def test_seeds_draw_their_own_training_patients_and_share_the_test_set(script):
    first, again, other = (script.draw_splits(50, n_train=20, n_tune=5, n_test=10, seed=s) for s in (0, 0, 1))
    assert pd.Series(first).value_counts().to_dict() == {"train": 20, "unused": 15, "test": 10, "tune": 5}
    assert (first == again).all()
    assert (first != other).any()
    assert (first[-10:] == "test").all()
    assert (other[-10:] == "test").all()


def test_the_shortcut_costs_as_much_and_looks_better_than_it_is(script, settings, patients):
    images_NSS, frame = patients
    frame = frame.assign(split=script.draw_splits(150, n_train=60, n_tune=30, n_test=60, seed=0))
    ways = ["repeated_folds", "in_sample"]
    costs, features, results = script.compare(images_NSS, frame, settings, ways, seed=0)
    cost = pd.DataFrame(costs).set_index("way")
    assert (cost["trainings"] == 3).all()
    # A third of the training patients for each of three members.
    assert cost.loc["in_sample", "pictures seen"] == pytest.approx(3 * cost.loc["repeated_folds", "pictures seen"])
    quality = pd.DataFrame(features).set_index("way")
    assert quality.loc["in_sample", "error train"] < 0.7 * quality.loc["in_sample", "error test"]
    honest = quality.loc["repeated_folds"]
    assert honest["error train"] == pytest.approx(honest["error test"], rel=0.3)
    found = pd.DataFrame(results).set_index(["way", "classifier"])
    assert set(found.index) == {(way, name) for way in ways for name in script.ALGORITHMS.values()} | {("ideal", "-")}
    auroc = found.xs("random forest", level="classifier")["CV AUROC"]
    assert auroc["in_sample"] > auroc["repeated_folds"]


def test_members_that_two_ways_share_are_trained_once_and_counted_twice(script, settings, patients):
    images_NSS, frame = patients
    frame = frame.assign(split=script.draw_splits(150, n_train=60, n_tune=30, n_test=60, seed=0))
    quick = replace(settings, fit=replace(settings.fit, epochs=1))
    cache = {}
    predicted = {}
    for way, trained in (("ensembles_per_fold", 12), ("in_sample", 12)):
        predicted[way], cost = script.predict_way(way, images_NSS, frame, quick, seed=0, cache=cache)
        assert len(cache) == trained
        assert cost["member-epochs"] == (12 if way == "ensembles_per_fold" else 3)
        assert cost["seconds"] > 0
    column, test = "alm_kg_mu", frame["split"] == "test"
    a, b = predicted["ensembles_per_fold"][column], predicted["in_sample"][column]
    assert (a[test] == b[test]).all()
    assert (a[frame["split"] == "train"] != b[frame["split"] == "train"]).all()


def test_differences_are_paired_by_seed(script):
    rows = [
        {"way": way, "classifier": "random forest", "seed": seed, "AUROC": 0.7 + 0.1 * seed + gain}
        for way, gains in (("repeated_folds", (0, 0, 0)), ("in_sample", (-0.02, -0.03, -0.04)))
        for seed, gain in enumerate(gains)
    ]
    rows.append({"way": "ensembles_per_fold", "classifier": "random forest", "seed": 1, "AUROC": 0.81})
    table = script.differences(pd.DataFrame(rows)).set_index("way")
    assert table.loc["in_sample", "AUROC"] == "-0.030 (0.006)"
    assert table.loc["ensembles_per_fold", "AUROC"] == "+0.010"
    assert table["seeds"].to_dict() == {"in_sample": 3, "ensembles_per_fold": 1}
    spread = script.spread(pd.DataFrame(rows[:3]).drop(columns="classifier"), ["way"])
    assert spread["AUROC"].tolist() == ["0.800 (0.100)"]

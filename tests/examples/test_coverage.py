"""The simulation behind the coverage table of docs/explanation/statistics.md, cut down."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from sarc_ray.stats import bootstrap

SCRIPT = Path(__file__).parents[2] / "examples" / "coverage.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("coverage_example", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_is_taken_for_true_is_what_a_large_sample_shows(script):
    rng, n = np.random.default_rng(3), 400_000
    label = (rng.random(n) < script.PREVALENCE).astype(int)
    score = script.probability_of(rng.normal(size=n) + script.DISTANCE * label)
    found = bootstrap.bootstrap_metrics(label, score, score >= script.THRESHOLD, n_boot=1, confidence_level=0.9, seed=1)
    for name, value in script.true_metrics().items():
        assert found[name].estimate == pytest.approx(value, abs=0.006), name


def test_intervals_of_a_small_simulation_hold_the_truth_about_as_often_as_they_say(script):
    hits, defined = script.count(300, trials=40, n_boot=200, seed=5)
    shares = {name: hits[name] / defined[name] for name in defined}
    assert len(shares) == 30
    # Binomial: below 32 of 40 has a probability of 0.0002 at a coverage of 95%.
    assert min(shares.values()) >= 0.75
    assert np.mean(list(shares.values())) == pytest.approx(0.95, abs=0.04)


def test_an_undefined_interval_is_told(script):
    assert script.cell(19, 20, 20) == "95.0"
    assert script.cell(19, 20, 25) == "95.0 (5 without)"
    assert script.cell(0, 0, 25) == "- (25 without)"

"""The measurements behind docs/explanation, cut down: small ensembles on a few hundred simulated patients."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from sarc_ray.config import from_mapping, load_preset
from sarc_ray.imaging.preprocess import PreprocessConfig

SCRIPT = Path(__file__).parents[2] / "examples" / "uncertainty.py"
# Seen as strange by every network that was tried, whatever its target.
GROSS = ("rotated by 90 degrees", "rotated by 180 degrees", "inverted", "hand", "skull", "white noise", "photographs")


def load_script():
    spec = importlib.util.spec_from_file_location("uncertainty_example", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_a_trained_network_tells_strange_pictures_from_ordinary_ones():
    """The distance finds them where the members' disagreement does not, and refuses few ordinary pictures."""
    script, preset = load_script(), load_preset("proof")
    preprocess = from_mapping(PreprocessConfig, preset["preprocess"] | {"pixel_gate": False})
    images_NSS, frame = script.simulate(420, preprocess)
    split = np.repeat(["train", "tune", "test"], [200, 100, len(frame) - 300])
    changes = {"fit": {"epochs": 4, "learning_rate": 3e-3}}
    ensembles = script.train(images_NSS, frame, split, preset, changes)
    strange = script.strange_pictures(images_NSS[split == "test"][:50], preprocess)
    table = script.ood_table(ensembles["alm_kg"], images_NSS, split, strange).set_index("pictures")
    refused = table["Mahalanobis: refused"].str.rstrip("%").astype(float)
    assert refused["ordinary test pictures"] < 6
    assert refused[list(GROSS)].min() > 95
    assert table.loc[list(GROSS), "Mahalanobis: AUROC"].min() > 0.99
    assert table["epistemic variance: AUROC"].drop("ordinary test pictures").min() < 0.9

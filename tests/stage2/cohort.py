"""Simulated feature tables for the tests of stage 2: age, sex, BMI and three targets drive the outcome."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from sarc_ray.config import from_mapping, load_preset
from sarc_ray.stage2.cross_validation import make_folds
from sarc_ray.stage2.features import build_features
from sarc_ray.stage2.model import Stage2Model, fit_final
from sarc_ray.stage2.settings import Stage2Config

CLINICAL = ("age_years", "sex", "bmi_kg_m2")
TARGETS = ("alm_kg", "hgs_kg", "crt_s")
CONFIG: Stage2Config = from_mapping(Stage2Config, load_preset("paper")["stage2"])
# One cheap set of hyper-parameters per algorithm.
CHEAP: dict[str, dict[str, Any]] = {
    "random_forest": {
        "n_estimators": 100,
        "max_depth": 4,
        "min_samples_leaf": 5,
        "max_features": 0.4,
        "class_weight": "balanced",
    },
    "logistic_regression": {"C": 1.0, "l1_ratio": 0.5, "class_weight": "none"},
    "xgboost": {
        "n_estimators": 50,
        "learning_rate": 0.05,
        "max_depth": 2,
        "min_child_weight": 2.0,
        "subsample": 0.8,
        "colsample_bytree": 0.8,
        "reg_lambda": 1.0,
        "class_weight": "balanced",
    },
    "extra_trees": {
        "n_estimators": 100,
        "max_depth": 5,
        "min_samples_leaf": 3,
        "max_features": 0.5,
        "class_weight": "none",
    },
    "lightgbm": {
        "n_estimators": 50,
        "learning_rate": 0.05,
        "num_leaves": 4,
        "min_child_samples": 10,
        "subsample": 0.8,
        "colsample_bytree": 0.8,
        "reg_lambda": 1.0,
        "class_weight": "none",
    },
}


def draw_frame(n: int, seed: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Clinical columns and stage-1 columns of n patients, and 0/1 outcomes."""
    rng = np.random.default_rng(seed)
    age, bmi = rng.normal(62, 12, n), rng.normal(24, 3.4, n)
    male = rng.random(n) < 0.3
    alm = 12 + 6 * male + 0.3 * (bmi - 24) - 0.05 * (age - 62) + rng.normal(0, 1, n)
    hgs = 20 + 10 * male - 0.2 * (age - 62) + rng.normal(0, 2, n)
    crt = 10 + 0.08 * (age - 62) + rng.normal(0, 1, n)
    log_odds = (
        -2.3 + 0.06 * (age - 62) - 0.25 * (bmi - 24) - 0.25 * (alm - 12 - 6 * male) - 0.12 * (hgs - 20 - 10 * male)
    )
    frame = pd.DataFrame({"age_years": age, "sex": np.where(male, "M", "F"), "bmi_kg_m2": bmi})
    for name, mu, pct in (("alm_kg", alm, 12.0), ("hgs_kg", hgs, 22.0), ("crt_s", crt, 35.0)):
        frame[f"{name}_mu"] = mu
        frame[f"{name}_uncertainty_pct"] = pct * np.exp(rng.normal(0, 0.15, n))
    return frame, (rng.random(n) < 1 / (1 + np.exp(-log_odds))).astype(int)


def draw(n: int, seed: int) -> tuple[pd.DataFrame, np.ndarray]:
    """The feature table of :func:`draw_frame`, and outcomes."""
    frame, y_N = draw_frame(n, seed)
    return build_features(frame, CLINICAL, TARGETS), y_N


def fitted_model(
    name: str, *, n: int = 240, seed: int = 1, config: Stage2Config = CONFIG
) -> tuple[Stage2Model, pd.DataFrame, np.ndarray]:
    """A small final model of one algorithm with its training table."""
    X, y_N = draw(n, seed)
    folds = make_folds(y_N, np.arange(n), n_splits=3, n_repeats=1, seed=2)
    return fit_final(name, CHEAP[name], X, y_N, folds, config=config, seed=3, n_jobs=1), X, y_N

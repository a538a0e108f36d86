"""A scored and labelled test set with known truth, drawn from a seed."""

import numpy as np
import pandas as pd
import scipy.special

from sarc_ray.cohort.schema import TargetConfig
from sarc_ray.evaluation.plan import EvaluationConfig
from sarc_ray.evaluation.results import evaluate_dataset

TARGETS = (
    TargetConfig(name="alm_kg", label="ALM", unit="kg", higher_is_worse=False, transform="identity", positive=True),
    TargetConfig(name="crt_s", label="CRT", unit="s", higher_is_worse=True, transform="log", positive=True),
)


def make_config(**changes):
    values = {
        "plan": None,
        "n_boot": 200,
        "n_boot_curves": 20,
        "confidence_level": 0.95,
        "interval": "percentile",
        "interval_level": 0.9,
        "coverage_levels": (0.5, 0.95),
        "partial_auroc_fpr": 0.2,
        "local_prevalence": None,
        "multiplicity": "holm",
        "min_cell_size": 10,
        "min_events": 0,
        "subgroups": ("sex", "age_band"),
        "age_band_edges_years": (65.0, 75.0),
        "bmi_band_edges_kg_m2": (),
        "rows_on_engine": None,
    }
    return EvaluationConfig(**(values | changes))


def scored_cohort(n=300, seed=1):
    """The frame that evaluation takes, and the truth; every predictive distribution is honest."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(-1.5, 1.2, n)
    seen = logit + rng.normal(0, 0.5, n)
    score = scipy.special.expit(0.8 * seen - 0.2)
    frame = pd.DataFrame(
        {
            "row_id": np.arange(n) + 10**15,
            "patient_id": [f"p{i}" for i in range(n)],
            "age_years": rng.uniform(50, 90, n),
            "sex": rng.choice(["F", "M"], n),
            "bmi_kg_m2": rng.normal(23, 3, n),
            "outcome": (rng.random(n) < scipy.special.expit(logit)).astype(float),
            "score": score,
            "flag": score >= 0.2,
            "sarc_f": np.clip(np.round(2 + logit + rng.normal(0, 2, n)), 0, 10),
        }
    )
    truth = pd.DataFrame({"row_id": frame["row_id"], "bayes_score": scipy.special.expit(logit)})
    for name, mean, sd in (("alm_kg", 17.0, 3.0), ("crt_s", 11.0, 2.0)):
        best = rng.normal(mean, sd, n)
        noise = rng.normal(0, 0.5 * sd, n)
        frame[name] = best + rng.normal(0, sd, n)
        frame[f"{name}_mu"] = best + noise
        sigma_N = np.sqrt(1.25) * sd * rng.uniform(0.999, 1.001, n)
        frame[f"{name}_sigma"] = sigma_N
        frame[f"{name}_var_aleatoric"], frame[f"{name}_var_epistemic"] = 0.8 * sigma_N**2, 0.2 * sigma_N**2
        truth[f"{name}_ideal_mu"] = best
        truth[f"{name}_ideal_sigma"] = sd * (sigma_N / sigma_N.mean()) ** 2
    return frame, truth


def evaluate(frame, *, truth=None, config=None, seed=3):
    return evaluate_dataset(
        frame,
        dataset="test_internal",
        targets=TARGETS,
        config=config or make_config(),
        seed=seed,
        truth=truth,
        run_id="run-1",
    )


def pick(results, metric, *, outcome="sarcopenia", score="score", subgroup="all", comparator=""):
    found = results[
        (results["metric"] == metric)
        & (results["outcome"] == outcome)
        & (results["score"] == score)
        & (results["subgroup"] == subgroup)
        & (results["comparator"] == comparator)
    ]
    assert len(found) == 1, (metric, outcome, score, subgroup, len(found))
    return found.iloc[0]

"""A report's content made up from a seed, with canaries where patients' names would be."""

import dataclasses

import numpy as np
import pandas as pd

from sarc_ray.cohort.selection import FlowStep
from sarc_ray.evaluation.results import evaluate_dataset
from sarc_ray.evaluation.table_one import table_one
from sarc_ray.report.content import (
    Archive,
    Cohort,
    Example,
    Lineage,
    Report,
    Results,
    ShapValues,
    TestSet,
)
from tests.evaluation.cohorts import TARGETS, make_config, scored_cohort

CANARY = "CANARY-PATIENT"
SCALE = {"alm_kg": (17.0, 4.0), "crt_s": (11.0, 3.0)}


def make_frame(n, seed):
    frame, truth = scored_cohort(n=n, seed=seed)
    frame = frame.assign(
        patient_id=[f"{CANARY}-{k}" for k in range(n)],
        image_uri=[f"s3://bucket/{CANARY}-{k}.dcm" for k in range(n)],
        patient_key=[f"key-{CANARY}-{k}" for k in range(n)],
    )
    return frame, truth


EVALUATION = make_config(n_boot=50, subgroups=("sex",), age_band_edges_years=())


def evaluate(frame, truth, name, targets=TARGETS):
    return evaluate_dataset(
        frame,
        dataset=name,
        targets=targets,
        config=EVALUATION,
        seed=1,
        truth=truth,
        run_id="run-1",
    )


def make_flow(n):
    return (
        FlowStep(label="screened", n_images=n + 50, n_patients=n + 40, excluded_images=0, excluded_patients=0),
        FlowStep(label="age 40 or over", n_images=n, n_patients=n, excluded_images=50, excluded_patients=40),
    )


def make_examples():
    rng = np.random.default_rng(3)
    examples = []
    for sex in ("F", "M"):
        for outcome in (1, 0):
            examples.append(
                Example(
                    sex=sex,
                    outcome=outcome,
                    image_HW=rng.integers(0, 255, (48, 40), dtype=np.uint8),
                    heat_HW={t.name: rng.random((48, 40)).astype(np.float32) for t in TARGETS},
                    disagreement_HW={t.name: rng.random((48, 40)).astype(np.float32) / 2 for t in TARGETS},
                    predicted={t.name: (15.0, 2.0) for t in TARGETS},
                    score=0.25 + 0.5 * outcome,
                    absent="",
                )
            )
    missing = dataclasses.replace(examples[-1], image_HW=None, heat_HW={}, absent="the store was away")
    return (*examples[:-1], missing)


def make_shap(n=80):
    rng = np.random.default_rng(4)
    names = ["age_years", "sex_male", "alm_kg_mu", "crt_s_uncertainty_pct"]
    features = pd.DataFrame(rng.normal(size=(n, 4)), columns=names)
    values = features.to_numpy() * [0.2, 0.1, -0.5, 0.3]
    return ShapValues(values_NF=values, features=features, label="SHAP value (log-odds)", patients="80 patients")


def make_report(**changes):
    """Two test sets; SARC-F was not recorded in the external one."""
    internal, truth_internal = make_frame(240, seed=1)
    external, truth_external = make_frame(120, seed=2)
    external = external.drop(columns="sarc_f")
    results = pd.concat(
        [
            evaluate(internal, truth_internal, "test_internal"),
            evaluate(external, truth_external, "test_external"),
        ],
        ignore_index=True,
    )
    counts = [
        ("scored", "", False, 90),
        ("rejected", "storage_failed", True, 4),
        ("abstained", "missing_bmi", False, 6),
    ]
    values = {
        "title": "sample",
        "run_id": "run-1",
        "simulated": True,
        "outcome": "sarcopenia",
        "threshold": 0.2,
        "interval_level": 0.9,
        "confidence_level": 0.95,
        "evaluation": EVALUATION,
        "targets": TARGETS,
        "training_scale": SCALE,
        "cohorts": (
            Cohort(name="derivation", label="Derivation cohort", flow=make_flow(240), parts={"Training": 200}),
            Cohort(name="external", label="External cohort", flow=make_flow(120), parts={}),
        ),
        "test_sets": (
            TestSet(name="test_internal", label="Internal test set", frame=internal),
            TestSet(name="test_external", label="External test set", frame=external),
        ),
        "table_one": {"Internal test set": table_one(internal), "External test set": table_one(external)},
        "results": Results(table=results),
        "shap": make_shap(),
        "examples": make_examples(),
        "archive": Archive(
            counts=pd.DataFrame(counts, columns=["outcome", "reason", "retryable", "n"]), n_rows=100, n_flagged=20
        ),
        "lineage": Lineage(
            facts={"Model": "abc", "SARC-Ray": "0"},
            stages=pd.DataFrame({"stage": ["train"], "fingerprint": ["f"], "seconds": [1.0], "facts": ["x: 1"]}),
            configuration="run: {name: sample}",
        ),
    }
    return Report(**(values | changes))

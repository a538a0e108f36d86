"""A report's content made up from a seed, with canaries where patients' names would be."""

import dataclasses
import importlib.resources

import numpy as np
import pandas as pd
import yaml

from sarc_ray.cohort.selection import FlowStep
from sarc_ray.evaluation.algorithm_table import algorithm_table, cross_validated
from sarc_ray.evaluation.ladder import LadderPlan, ladder_rows
from sarc_ray.evaluation.results import evaluate_dataset
from sarc_ray.evaluation.sensitivity import compare, sensitivity_table
from sarc_ray.evaluation.table_one import table_one
from sarc_ray.report.content import (
    Archive,
    Cohort,
    Dependence,
    Example,
    Importance,
    Lineage,
    Operating,
    Report,
    Results,
    Retrained,
    Search,
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


def make_importance():
    names = ["alm_kg_mu", "age_years", "crt_s_uncertainty_pct", "sex_male"]
    table = pd.DataFrame(
        {"feature": names, "auroc_drop": [0.08, 0.03, 0.002, -0.01], "auroc_drop_sd": [0.01, 0.01, 0.001, 0.004]}
    )
    return Importance(table=table, auroc=0.8, n_repeats=30, patients="80 patients (20 with the outcome)")


def make_dependence():
    names = [f"{t.name}{end}" for end in ("_mu", "_uncertainty_pct") for t in TARGETS]
    percentile = np.array([10.0, 30.0, 50.0, 70.0, 90.0])
    curves = [
        pd.DataFrame({"feature": name, "percentile": percentile, "value": k + percentile / 10, "score": 0.1 + 0.01 * k})
        for k, name in enumerate(names)
    ]
    return Dependence(table=pd.concat(curves, ignore_index=True), mean_score=0.15, patients="the 80 patients")


def make_operating():
    figures = {"sensitivity": 0.7, "specificity": 0.8, "ppv": 0.4, "npv": 0.95, "f1": 0.5, "alerts_per_10000": 2500.0}
    points = [
        {"rule": "youden", "aim": None, "said": "Youden's index", "threshold": 0.2, **figures, "in_force": True},
        {
            "rule": "specificity",
            "aim": 0.99,
            "said": "specificity of 0.99 or more",
            "threshold": 0.9,
            **(figures | {"ppv": None, "f1": None}),
            "in_force": False,
        },
    ]
    calibration = {
        "method": "sigmoid",
        "kept": False,
        "why": "does not improve ICI",
        "brier": 0.12,
        "brier_calibrated": 0.119,
        "ici": 0.03,
        "ici_calibrated": 0.031,
    }
    said = "Sigmoid calibration is not in force, scores are raw scores: out of fold it does not improve ICI"
    return Operating(calibration=calibration, said=said, points=pd.DataFrame(points))


def make_trials():
    """Two algorithms of two trials each, one of them given up; extra trees are the model in use."""
    rows = []
    for algorithm, auroc in (("extra_trees", 0.82), ("logistic_regression", 0.8)):
        for number in range(2):
            rows.append(
                {
                    "algorithm": algorithm,
                    "number": number,
                    "cv_auroc_mean": auroc - 0.1 * number,
                    "cv_auroc_se": 0.01 if number == 0 else np.nan,
                    "oof_f1": 0.5 if number == 0 else np.nan,
                    "pruned": number == 1,
                    "seconds": 30.0,
                    "finalist": number == 0,
                    "chosen": number == 0 and algorithm == "extra_trees",
                    "params": "{'C': 1.0}",
                }
            )
    return pd.DataFrame(rows)


def make_search(frames, **changes):
    """Extra trees score as the frames say, logistic regression a little worse."""
    parts = [cross_validated(make_trials(), confidence_level=0.95)]
    for dataset, frame in frames.items():
        known = frame[frame["score"].notna() & frame["outcome"].notna()]
        for algorithm, weight in (("extra_trees", 1.0), ("logistic_regression", 0.5)):
            score_N = weight * known["score"].to_numpy() + (1 - weight) * 0.3
            parts.append(
                algorithm_table(
                    known.assign(score=score_N, flag=score_N >= 0.2),
                    algorithm=algorithm,
                    chosen=algorithm == "extra_trees",
                    dataset=dataset,
                    config=EVALUATION,
                    seed=1,
                )
            )
    values = {"algorithms": pd.concat(parts, ignore_index=True), "choice": "cross_validation", "nested": None}
    values["by_the_clock"] = False
    return Search(**(values | changes))


def make_ladder(frames):
    """Scores of rungs that come nearer to the real one; SARC-F where the frame has it."""
    parts = []
    for dataset, frame in frames.items():
        rng = np.random.default_rng(8)
        for learner, algorithm in (("chosen", "extra_trees"), ("ridge", "logistic_regression")):
            noise = {"clinical": 0.3, "means": 0.1, "uncertainties": 0.0}
            scored = frame.assign(**{r: frame["score"] + sd * rng.normal(size=len(frame)) for r, sd in noise.items()})
            rungs = [*(["sarc_f"] if "sarc_f" in frame else []), *noise]
            plan = LadderPlan(
                dataset=dataset,
                learner=learner,
                algorithm=algorithm,
                confidence_level=0.95,
                min_cell_size=20,
                min_events=0,
                run_id="run-1",
            )
            parts.append(ladder_rows(scored, rungs, plan=plan))
    return pd.concat(parts, ignore_index=True)


def make_retrained(frames):
    """A model that learned from fewer patients and ranks a little worse."""
    rng = np.random.default_rng(6)
    rows, scores = [], {}
    for dataset, frame in frames.items():
        other = frame.assign(score=np.clip(frame["score"] + rng.normal(0, 0.2, len(frame)), 0, 1))
        rows.append(compare(frame, other, dataset=dataset, config=EVALUATION))
        known = frame["score"].notna() & frame["outcome"].notna()
        scores[dataset] = pd.DataFrame(
            {"outcome": frame["outcome"], "score_all": frame["score"], "score_analysis": other["score"]}
        )[known].reset_index(drop=True)
    table = sensitivity_table("over_60", rows, training_patients=120, training_patients_all=200)
    return (Retrained(name="over_60", label="trained on patients older than 60", table=table, scores=scores),)


def make_lineage():
    preset = importlib.resources.files("sarc_ray").joinpath("presets", "demo.yaml").read_text(encoding="utf-8")
    return Lineage(
        hash="0123456789abcdef",
        facts={"Model": "abc", "SARC-Ray": "0", "Stage 2": "extra trees"},
        stages=pd.DataFrame({"stage": ["train"], "fingerprint": ["f"], "seconds": [1.0], "facts": ["x: 1"]}),
        configuration="run: {name: sample}",
        settings=yaml.safe_load(preset),
    )


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
        "clinical_features": ("age_years", "sex", "bmi_kg_m2"),
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
        "operating": make_operating(),
        "search": make_search({"test_internal": internal, "test_external": external}),
        "ladder": make_ladder({"test_internal": internal, "test_external": external}),
        "retrained": make_retrained({"test_internal": internal, "test_external": external}),
        "shap": make_shap(),
        "importance": make_importance(),
        "dependence": make_dependence(),
        "examples": make_examples(),
        "archive": Archive(
            counts=pd.DataFrame(counts, columns=["outcome", "reason", "retryable", "n"]), n_rows=100, n_flagged=20
        ),
        "lineage": make_lineage(),
    }
    return Report(**(values | changes))

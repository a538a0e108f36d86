"""The proof with a handful of patients: it runs whole, and says that goals were missed."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from sarc_ray.exits import GOAL_MISSED
from sarc_ray.proof import STUDY_PATIENTS, draw_study

ROOT = Path(__file__).parents[1]


def test_the_study_keeps_all_test_patients_and_whole_patients_of_the_others():
    n = 3000
    cohort = pd.DataFrame(
        {
            "row_id": range(2 * n),
            "patient_id": [f"p{i // 2}" for i in range(2 * n)],
            "split": ["train"] * 4000 + ["tune"] * 1000 + ["test_internal"] * 1000,
            "outcome": 0.0,
        }
    )
    drawn = draw_study(cohort, seed=1)
    counts = drawn.groupby("split")["patient_id"].agg(["nunique", "size"])
    assert counts.loc["test_internal"].tolist() == [500, 1000]
    for split, n_patients in STUDY_PATIENTS.items():
        assert counts.loc[split].tolist() == [n_patients, 2 * n_patients]
    assert drawn.equals(draw_study(cohort, seed=1))
    assert not drawn.equals(draw_study(cohort, seed=2))


@pytest.mark.slow
def test_a_small_proof_runs_and_ends_with_the_code_of_a_missed_goal(tmp_path):
    data = {name: f"{tmp_path}/data/{name}/manifest.parquet" for name in ("derivation", "external")}
    settings = {
        **{f"data.{name}": uri for name, uri in data.items()},
        "data.truth": f"{tmp_path}/data/truth",
        "run.directory": f"{tmp_path}/proof",
        "score.key_file": f"{tmp_path}/key",
        "simulate.derivation_n": 160,
        "simulate.external_n": 32,
        "fit.epochs": 1,
        "ensemble.members": 3,
        "stage2.algorithms": "[logistic_regression]",
        "stage2.trials_per_algorithm": 2,
        "stage2.trials_per_round": 2,
        "evaluation.n_boot": 100,
        "engine.num_cpus": 2,
    }
    arguments = [text for key, value in settings.items() for text in ("--set", f"{key}={value}")]
    command = [str(Path(sys.executable).parent / "sarc-ray"), "proof", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == GOAL_MISSED, done.stderr
    goals = pd.read_csv(tmp_path / "proof/results/goals.csv")
    assert not goals["met"].any()
    assert goals["study_size"].notna().all()

"""The proof: the learning goals on simulated patients, and the same with as many patients as the paper had.

A goal that 590 patients cannot reach is no fault of the software, so the study-sized ensemble stands beside the
large one: other training patients are left out, the test patients are the same.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from sarc_ray import intake, storage
from sarc_ray.cohort.splits import TEST_INTERNAL, TRAIN, TUNE
from sarc_ray.evaluation.goals import check_goals
from sarc_ray.privacy import create_key_file, key_file_exists
from sarc_ray.run import DataConfig, Run

# Ryu et al. 2023, Figure 1: 926 patients, of whom 80 : 20 twice leaves these to learn from.
STUDY_PATIENTS = {TRAIN: 590, TUNE: 147}
# With an eighth of the patients, each is visited this many times more per epoch.
_STUDY_COPIES = 4
_STUDY = "study_size"


def prepared_cohorts(run: Run) -> str:
    """Make the run's key file where there is none; gives the URL under which the cohorts are simulated."""
    key_file = run.config.score.key_file
    if key_file is not None and not key_file_exists(key_file):
        create_key_file(key_file)
    return storage.parent(storage.parent(run.config.data.derivation))


def study_sized(run: Run) -> Run:
    """The run of the study-sized ensemble; writes its manifest. Needs the large run's ``prepare``.

    Returns:
        A run in a folder within the large one's, whose manifest keeps the large one's splits.
    """
    manifest = draw_study(intake.read_cohort(run, "derivation"), seed=run.config.run.seed)
    uri = run.path(_STUDY, "manifest.parquet")
    storage.write_table(uri, manifest)
    config = run.config
    return Run(
        config=replace(
            config,
            run=replace(config.run, name=f"{config.run.name}-{_STUDY}", directory=run.path(_STUDY)),
            data=DataConfig(derivation=uri, external=None, archive=None, truth=config.data.truth),
            augment=replace(config.augment, copies=_STUDY_COPIES),
        )
    )


def draw_study(cohort: pd.DataFrame, *, seed: int) -> pd.DataFrame:
    """As many training and tuning patients as the paper had, at random, and all test patients.

    Args:
        cohort: selected patients with ``patient_id`` and ``split``; where there are fewer, all are kept.
        seed: of the draw.
    """
    rng = np.random.default_rng(seed)
    parts = [cohort[cohort["split"] == TEST_INTERNAL]]
    for split, n_patients in STUDY_PATIENTS.items():
        rows = cohort[cohort["split"] == split]
        patients = np.sort(rows["patient_id"].unique())
        chosen = rng.permutation(patients)[:n_patients]
        parts.append(rows[rows["patient_id"].isin(chosen)])
    drawn = pd.concat(parts, ignore_index=True)
    return drawn.drop(columns=["row_id", "outcome"], errors="ignore")


def goals_table(run: Run, study: Run) -> pd.DataFrame:
    """Goals, what the large ensemble reached, and what the study-sized one did (``study_size``); written as CSV."""
    large, small = (_checked(of) for of in (run, study))
    table = large.assign(study_size=small["found"])
    storage.write_table(run.path("results", "goals.csv"), table)
    return table


def _checked(run: Run) -> pd.DataFrame:
    return check_goals(storage.read_table(run.path("results", "results.parquet")), dataset=TEST_INTERNAL)

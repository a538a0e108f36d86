"""What decides a stage: settings, data, and the forms of what it writes; not the engine."""

import dataclasses

import numpy as np
import pytest

from sarc_ray import pipeline, stages
from sarc_ray.run import load_run
from sarc_ray.stage1.member import MemberResult
from sarc_ray.stage1.shortfall import member_name


@pytest.fixture
def settings(tmp_path):
    (tmp_path / "manifest.csv").write_text("patient_id\n1\n", encoding="utf-8")
    own = [f"data.derivation={tmp_path}/manifest.csv", "data.external=null", "data.archive=null", "data.truth=null"]
    return [*own, f"run.directory={tmp_path}/run"]


def fingerprints(settings, *changes):
    run = load_run("demo", [*settings, *changes])
    return {
        "prepare": stages.fingerprint(run, "prepare"),
        "members": stages.fingerprint_of_members(run),
        "search": stages.fingerprint_of_search(run),
        "tune": stages.fingerprint(run, "tune"),
    }


def changed(settings, *changes):
    before, after = fingerprints(settings), fingerprints(settings, *changes)
    return {name for name in before if before[name] != after[name]}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("engine.num_cpus=3", set()),
        ("stage2.threshold=f1", {"tune"}),
        ("stage2.choice=internal_test_as_paper", {"tune"}),
        ("stage2.nested_splits=3", {"tune"}),
        ("stage2.trials_per_algorithm=99", {"tune"}),
        ("stage2.minutes_per_algorithm=5", {"tune"}),
        ("stage2.prune=true", {"search", "tune"}),
        ("stage2.n_repeats=2", {"search", "tune"}),
        ("fit.epochs=3", {"members", "search", "tune"}),
        ("eligibility.age_min_years=60", {"prepare", "members", "search", "tune"}),
    ],
)
def test_a_setting_decides_its_stage_and_those_after_it(settings, change, expected):
    assert changed(settings, change) == expected


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        ("sarc_ray.stage1.checkpoint", {"members", "search", "tune"}),
        ("sarc_ray.stage2.persist", {"tune"}),
        ("sarc_ray.bundle", {"tune"}),
    ],
)
def test_files_of_an_older_form_are_made_anew(settings, monkeypatch, module, expected):
    before = fingerprints(settings)
    monkeypatch.setattr(f"{module}.SCHEMA_VERSION", 99)
    after = fingerprints(settings)
    assert {name for name in before if before[name] != after[name]} == expected


def test_another_manifest_decides_everything(settings, tmp_path):
    before = fingerprints(settings)
    (tmp_path / "manifest.csv").write_text("patient_id\n2\n", encoding="utf-8")
    after = fingerprints(settings)
    assert all(before[name] != after[name] for name in before)


def test_members_that_were_started_twice_are_on_record():
    once = MemberResult(data=b"", mu_N=np.zeros(1), sigma_N=np.ones(1), history=())
    twice = dataclasses.replace(once, discarded_seeds=(3,))
    assert pipeline._started_twice([{"alm_kg": once}, {"alm_kg": twice, "hgs_kg": once}]) == {
        "members_started_twice": [member_name("alm_kg", 1)]
    }
    assert pipeline._started_twice([{"alm_kg": once}]) == {}


@pytest.mark.parametrize("version", ["PLAN_VERSION", "TABLES_VERSION"])
def test_results_of_another_form_or_meaning_are_made_again(settings, version, monkeypatch):
    run = load_run("demo", settings)
    before = stages.fingerprint(run, "evaluate"), stages.fingerprint(run, "score-test_internal")
    monkeypatch.setattr(stages, version, 99)
    assert stages.fingerprint(run, "evaluate") != before[0]
    assert stages.fingerprint(run, "score-test_internal") == before[1]

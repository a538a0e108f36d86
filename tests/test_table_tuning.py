"""``tune`` on any table: what it refuses, what it writes, and that it goes on where it was."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sarc_ray import storage, table_tuning
from sarc_ray.errors import ConfigError, EvaluationError
from sarc_ray.stage2.persist import from_bytes
from sarc_ray.stats.discrimination import auroc
from sarc_ray.table_tuning import TableRequest, load_run_for, read_problem, read_request, tune_table

SETTINGS = [
    "stage2.algorithms=[logistic_regression, lightgbm]",
    "stage2.trials_per_algorithm=2",
    "stage2.trials_per_round=2",
    "stage2.n_repeats=2",
    "evaluation.n_boot=50",
    "engine.num_cpus=2",
]


def draw(n, seed):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(rng.normal(size=(n, 3)).round(4), columns=["lactate", "pulse", "noise"])
    logit = 1.5 * frame["lactate"] - frame["pulse"] - 1.0
    return frame.assign(
        died=(rng.random(n) < 1 / (1 + np.exp(-logit))).astype(int), ward=[f"w{i // 2}" for i in range(n)]
    )


def request(tmp_path, **changes):
    values = {
        "table": str(tmp_path / "train.csv"),
        "outcome": "died",
        "to": str(tmp_path / "out"),
        "group": "ward",
        "features": (),
        "test": None,
    }
    return TableRequest(**(values | changes))


@pytest.fixture
def tables(tmp_path):
    draw(200, 1).to_csv(tmp_path / "train.csv", index=False)
    draw(150, 2).to_parquet(tmp_path / "test.parquet")
    return tmp_path


def test_a_table_becomes_a_model_that_scores_another_table(ray_session, tables):
    asked = request(tables, test=str(tables / "test.parquet"))
    record = tune_table(asked, load_run_for(asked, None, SETTINGS))
    assert not record["skipped"]
    model = from_bytes(storage.read_bytes(storage.join(asked.to, "model.skops")))
    assert set(model.feature_names) == {"lactate", "pulse", "noise"}
    test = draw(150, 2)
    scores = pd.read_parquet(tables / "out" / "test_scores.parquet")
    np.testing.assert_array_equal(scores["score"], model.predict(test)[1])
    assert auroc(test["died"], scores["score"]) > 0.75
    algorithms = pd.read_csv(tables / "out" / "algorithms.csv")
    stated = algorithms.query("chosen and dataset == 'test' and metric == 'auroc'")["estimate"].item()
    assert stated == pytest.approx(auroc(test["died"], scores["score"]))
    assert set(algorithms["algorithm"]) == {"logistic_regression", "lightgbm"}
    said = storage.read_json(storage.join(asked.to, "model.json"))
    assert said["algorithm"] == record["facts"]["algorithm"] == model.algorithm
    assert sum(point["in_force"] for point in said["thresholds"]) == 1


def test_unchanged_it_does_nothing_and_with_a_larger_budget_it_goes_on(ray_session, tables):
    asked = request(tables, test=str(tables / "test.parquet"))
    tune_table(asked, load_run_for(asked, None, SETTINGS))
    assert tune_table(asked, load_run_for(asked, None, SETTINGS))["skipped"]
    assert (tables / "out" / "test_scores.parquet").exists()
    asked = request(tables)
    first = pd.read_parquet(tables / "out" / "trials.parquet").set_index(["algorithm", "number"])["seconds"]
    more = load_run_for(asked, None, [*SETTINGS, "stage2.trials_per_algorithm=3"])
    assert not tune_table(asked, more)["skipped"]
    second = pd.read_parquet(tables / "out" / "trials.parquet").set_index(["algorithm", "number"])["seconds"]
    assert len(second) == 6
    # What is not asked for any more is not left there to be taken for the new model's.
    assert not (tables / "out" / "test_scores.parquet").exists()
    assert (second.loc[first.index] == first).all()


def test_nested_cross_validation_tells_what_the_procedure_is_worth(ray_session, tables):
    asked = request(tables)
    tune_table(asked, load_run_for(asked, None, [*SETTINGS, "stage2.nested_splits=2"]))
    nested = pd.read_csv(tables / "out" / "nested.csv")
    assert nested["n"].sum() == 200
    assert nested["n_events"].sum() == draw(200, 1)["died"].sum()
    assert nested["auroc"].between(0.6, 1.0).all()
    assert set(nested["algorithm"]) <= {"logistic_regression", "lightgbm"}


def test_groups_stay_together(tables):
    problem = read_problem(request(tables), str(tables / "train.csv"))
    assert len(np.unique(problem.patient_N)) == 100
    assert list(problem.features) == ["lactate", "pulse", "noise"]
    alone = read_problem(request(tables, group=None, features=("pulse",)), str(tables / "train.csv"))
    assert len(np.unique(alone.patient_N)) == 200
    assert list(alone.features) == ["pulse"]


@pytest.mark.parametrize(
    ("change", "options", "error", "message"),
    [
        ({"pulse": "fast"}, {}, EvaluationError, r"row 1, column pulse: found 'fast'; allowed: a number.*200 rows"),
        ({"pulse": None}, {}, EvaluationError, r"row 1, column pulse: found nothing; allowed: a number"),
        (
            {"pulse": "1e308"},
            {},
            EvaluationError,
            r"row 1, column pulse: found '1e308'; allowed: a number below 3.4e38",
        ),
        ({"died": 2}, {}, EvaluationError, r"row 1, column died: found '2'; allowed: 0 or 1"),
        ({"died": "yes"}, {}, EvaluationError, r"row 1, column died: found 'yes'; allowed: 0 or 1; code the outcome"),
        ({"died": None}, {}, EvaluationError, r"row 1, column died: found nothing; allowed: 0 or 1"),
        ({"ward": None}, {}, EvaluationError, r"row 1, column ward: found nothing; allowed: whose row.*200 rows"),
        ({"ward": " "}, {}, EvaluationError, r"row 1, column ward: found nothing; allowed: whose row it is"),
        ({}, {"group": "died"}, ConfigError, r"--group: 'died' is the outcome too"),
        (
            {},
            {"outcome": "dead"},
            EvaluationError,
            r"column 'dead' is absent; found: lactate, pulse, noise, died, ward",
        ),
        ({}, {"features": ("died",)}, ConfigError, r"--features: 'died' is the outcome or the group too"),
        ({}, {"features": ("age",)}, EvaluationError, r"column 'age' is absent"),
    ],
)
def test_what_cannot_be_learned_from_is_named(tmp_path, change, options, error, message):
    draw(200, 1).assign(**change).to_csv(tmp_path / "train.csv", index=False)
    with pytest.raises(error, match=message):
        read_problem(request(tmp_path, **options), str(tmp_path / "train.csv"))


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_true_and_false_are_1_and_0_in_text_and_in_typed_columns(tmp_path, ending):
    frame = draw(40, 1).assign(died=lambda table: table["died"] == 1, smoker=lambda table: table["pulse"] > 0)
    uri = str(tmp_path / f"train.{ending}")
    storage.write_table(uri, frame)
    problem = read_problem(request(tmp_path), uri)
    np.testing.assert_array_equal(problem.outcome_N, draw(40, 1)["died"])
    np.testing.assert_array_equal(problem.features["smoker"], (frame["pulse"] > 0).astype(float))


@pytest.mark.parametrize(
    ("column", "values", "found"),
    [
        ("seen", pd.Timestamp("2026-01-31"), "'2026-01-31"),
        ("stay", pd.Timedelta("3h"), "'0 days 03:00:00'"),
        ("list", [[1, 2]] * 40, r"\[1 2\]"),
        ("pulse", np.inf, "inf"),
        ("ward", None, "nothing"),
    ],
)
def test_what_a_typed_column_cannot_be_is_named(tmp_path, column, values, found):
    uri = str(tmp_path / "train.parquet")
    storage.write_table(uri, draw(40, 1).assign(**{column: values}))
    with pytest.raises(EvaluationError, match=f"row 1, column {column}: found {found}.*; allowed: "):
        read_problem(request(tmp_path), uri)


@pytest.mark.parametrize("data", [b"", b"\xff\xfe\x00"])
def test_what_is_no_table_is_told(tmp_path, data):
    (tmp_path / "train.csv").write_bytes(data)
    with pytest.raises(EvaluationError, match=r"train.csv: not a readable table \(.*; write UTF-8 CSV"):
        read_problem(request(tmp_path), str(tmp_path / "train.csv"))


def test_a_table_has_no_test_set_to_choose_on(tables):
    asked = request(tables)
    with pytest.raises(ConfigError, match=r"stage2.choice: found 'internal_test_as_paper', allowed for a table"):
        tune_table(asked, load_run_for(asked, None, ["stage2.choice=internal_test_as_paper"]))


def test_options_that_belong_together():
    assert read_request(None, None, None, group=None, features=None, test=None) is None
    with pytest.raises(ConfigError, match="--outcome and --to not given"):
        read_request("train.csv", None, None, group=None, features=None, test=None)
    with pytest.raises(ConfigError, match="--table and --outcome and --to not given"):
        read_request(None, None, None, group="ward", features=None, test=None)
    found = read_request("train.csv", "died", "out", group=None, features="a, b", test=None)
    assert found.features == ("a", "b")
    assert table_tuning.MODEL_FILE == "model.skops"


@pytest.mark.parametrize("to", ["2026", "on", "searches: old", "null", "s3://b/a b#c", "\u00fc"])
def test_a_folder_may_have_any_name(to):
    asked = request(Path("tables"), to=to, table=f"{to}.csv")
    run = load_run_for(asked, None, SETTINGS)
    assert (run.config.run.directory, run.config.data.derivation) == (to, f"{to}.csv")


@pytest.mark.slow
def test_a_search_that_is_killed_repeats_no_trial_on_record_and_chooses_the_same(tables):
    """Kill -9 in the middle, the same command again; beside it an undisturbed search with another number of workers."""

    def command(to, *settings):
        own = ["--table", str(tables / "train.csv"), "--outcome", "died", "--group", "ward", "--to", str(tables / to)]
        chosen = [*SETTINGS, "stage2.trials_per_algorithm=8", *settings]
        program = str(Path(sys.executable).parent / "sarc-ray")
        return [program, "tune", *own, *(arg for setting in chosen for arg in ("--set", setting))]

    def records():
        return {path.name: path for path in (tables / "killed").glob("*/trials/*.json")}

    process = subprocess.Popen(command("killed"), stdout=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 300
    while len(records()) < 3:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = {name: path.stat().st_mtime_ns for name, path in records().items()}
    assert 3 <= len(before) < 16
    for arguments in (command("killed"), command("whole", "engine.trials_at_once=1")):
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
    after = {name: path.stat().st_mtime_ns for name, path in records().items()}
    assert len(after) == 16
    assert {name: after[name] for name in before} == before
    killed, whole = (
        pd.read_parquet(tables / to / "trials.parquet").drop(columns="seconds") for to in ("killed", "whole")
    )
    pd.testing.assert_frame_equal(killed, whole)
    assert (tables / "killed" / "model.json").read_bytes() == (tables / "whole" / "model.json").read_bytes()

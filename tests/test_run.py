import pytest

from sarc_ray import storage
from sarc_ray.errors import ConfigError, StorageError
from sarc_ray.run import fingerprint_of, load_run

OVERRIDES = ["data.derivation=m.csv"]


@pytest.fixture
def run(tmp_path):
    return load_run("demo", [*OVERRIDES, f"run.directory={tmp_path}/run"])


def test_a_stage_is_done_once_for_the_same_inputs(run):
    calls = []

    def work():
        calls.append(1)
        return {"n": len(calls)}

    first = run.stage("prepare", inputs={"a": 1}, work=work)
    again = run.stage("prepare", inputs={"a": 1}, work=work)
    changed = run.stage("prepare", inputs={"a": 2}, work=work)
    assert (first["skipped"], again["skipped"], changed["skipped"]) == (False, True, False)
    assert (again["facts"], changed["facts"]) == ({"n": 1}, {"n": 2})


def test_a_stage_that_fails_leaves_no_record(run):
    def fail():
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        run.stage("prepare", inputs={}, work=fail)
    with pytest.raises(StorageError, match="the stage 'prepare' has not finished"):
        run.finished("prepare")


def test_the_resolved_configuration_is_saved_and_loads_again(run, tmp_path):
    run.save_config()
    saved = load_run(f"{tmp_path}/run/config.yaml")
    assert saved == run
    assert storage.read_text(run.path("config.yaml")).startswith("run:")


def test_a_missing_file_names_the_presets(tmp_path):
    with pytest.raises(ConfigError, match="the name of a preset"):
        load_run(str(tmp_path / "none.yaml"))


def test_a_typing_error_gets_the_nearest_key():
    with pytest.raises(ConfigError, match=r"fit\.epoch: unknown key; did you mean 'epochs'"):
        load_run("demo", [*OVERRIDES, "fit.epoch=3"])


def test_fingerprints_follow_content():
    assert fingerprint_of({"a": 1, "b": 2}) == fingerprint_of({"b": 2, "a": 1})
    assert fingerprint_of({"a": 1}) != fingerprint_of({"a": 2})

import pytest

from sarc_ray import drifting, external_site, population, scoring_request, storage
from sarc_ray.drifting import DriftRequest
from sarc_ray.errors import ConfigError, StorageError
from sarc_ray.external_site import SiteRequest
from sarc_ray.run import fingerprint_of, load_run
from sarc_ray.scoring_request import ScoringRequest

OVERRIDES = ["data.derivation=m.csv"]


@pytest.fixture
def run(tmp_path):
    return load_run("demo", [*OVERRIDES, f"run.directory={tmp_path}/run"])


def stage(run, fingerprint, n=1, **arguments):
    return run.stage("prepare", fingerprint=fingerprint, work=lambda: {"n": n}, **arguments)


def test_a_stage_is_done_once_for_the_same_inputs(run):
    assert not stage(run, "a", 1)["skipped"]
    again = stage(run, "a", 2)
    assert (again["skipped"], again["facts"]) == (True, {"n": 1})
    assert stage(run, "b", 3)["facts"] == {"n": 3}


def test_a_stage_whose_outputs_are_gone_is_done_again(run):
    storage.write_text(run.path("out.txt"), "x")
    stage(run, "a", outputs=("out.txt",))
    assert stage(run, "a", outputs=("out.txt",))["skipped"]
    storage.remove_tree(run.path("out.txt"))
    assert not stage(run, "a", outputs=("out.txt",))["skipped"]


def test_a_stage_that_fails_half_way_is_finished_for_nobody(run):
    def fail():
        raise RuntimeError("power cut")

    stage(run, "a")
    with pytest.raises(RuntimeError, match="power cut"):
        run.stage("prepare", fingerprint="b", work=fail)
    with pytest.raises(StorageError, match="the stage 'prepare' has not finished"):
        run.finished("prepare")
    assert not stage(run, "a")["skipped"]


def test_a_stage_with_retryable_rows_stays_open(run):
    record = run.stage("prepare", fingerprint="a", work=lambda: {"retryable": 3})
    assert not record["skipped"]
    assert not run.stage("prepare", fingerprint="a", work=lambda: {})["skipped"]
    assert run.stage("prepare", fingerprint="a", work=lambda: {})["skipped"]


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


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["outcome.definition=awgs2014", "clinical_features=[age_years, gait_speed_m_s]"], "made of gait_speed_m_s"),
        (["outcome={definition: column, column: frail}", "clinical_features=[age_years, frail]"], "made of frail"),
        (["outcome.definition=fnih2014", "clinical_features=[sex, bmi_kg_m2, height_m]"], None),
        (["clinical_features=[age_years, gait_speed_m_s]"], None),
    ],
)
def test_what_the_outcome_is_made_of_is_no_feature(overrides, message):
    if message is None:
        assert load_run("demo", [*OVERRIDES, *overrides]).config.clinical_features
    else:
        with pytest.raises(ConfigError, match=message):
            load_run("demo", [*OVERRIDES, *overrides])


@pytest.mark.parametrize("name", ["2026", "on", "null", "a: b", "s3://b/a b#c", "\u00fc"])
def test_a_folder_named_on_the_command_line_may_have_any_name(name):
    drift = DriftRequest(
        table=name, reference="kept.json", save_reference=None, to=None, manifest=None, since=None, until=None
    )
    site = SiteRequest(table=name, scores="scores", to=name, bundle="model", label=None)
    runs = [
        population.load_run_for(name, []),
        drifting.load_run_for(drift, []),
        external_site.load_model_run(site, None, []),
        scoring_request.load_run_for(ScoringRequest(bundle="model", manifest=name, table=name), None, []),
    ]
    assert [run.config.run.directory for run in runs] == [name] * 4
    assert [run.config.data.derivation for run in runs] == [name] * 4


def test_a_target_is_never_a_feature():
    with pytest.raises(ConfigError, match="alm_kg is a target too"):
        load_run("demo", [*OVERRIDES, "clinical_features=[age_years, alm_kg]"])


@pytest.mark.parametrize("preset", ["paper", "proof", "demo"])
def test_presets_name_every_key(preset):
    run = load_run(preset, ["run.name=x", "run.directory=runs/x", "data.derivation=m.csv"])
    assert run.config.ensemble.members >= 3
    if preset == "paper":
        assert (run.config.fit.epochs, run.config.fit.patience, run.config.fit.batch_size) == (100, 15, 32)
        assert (run.config.network.backbone, run.config.preprocess.size_px) == ("vgg16", 224)
        assert (run.config.augment.copies, run.config.ensemble.members) == (5, 5)

"""Nothing of a patient leaves a header: canaries in every text element, and a search of all that was written.

Looked through: tables, reports, what the commands say, records of all loggers, and the engine's own session files.
"""

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from sarc_ray import storage, tables
from sarc_ray.bundle import write_bundle
from sarc_ray.cli import app
from sarc_ray.privacy import create_key_file
from tests import bundle_factory, canary, dicom_factory

N_OBJECTS = 14
# Objects that are special; the others are radiographs with canaries wherever these leave a radiograph.
ALL_PLANTED, VIEW_PLANTED, BROKEN_OFF, NO_DICOM = 10, 11, 12, 13


def make_objects(folder):
    folder.mkdir()
    rng = np.random.default_rng(4)
    for number in range(N_OBJECTS):
        noise = rng.integers(0, 60, dicom_factory.picture().shape)
        data = dicom_factory.make_dicom(np.minimum(dicom_factory.picture() + noise, 4095).astype(np.uint16))
        spared = canary.NEEDED | canary.LISTED
        if number == ALL_PLANTED:
            spared = frozenset({"SpecificCharacterSet", "PhotometricInterpretation"})
        if number == VIEW_PLANTED:
            spared = spared - {"ViewPosition"}
        data = canary.plant(data, number=number, spared=spared)
        if number == BROKEN_OFF:
            data = data[: len(data) // 2]
        if number == NO_DICOM:
            data = f"{canary.TAG} is no DICOM".encode() * 100
        (folder / f"{canary.FILE}-{number:02d}.dcm").write_bytes(data)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Objects with canaries, a bundle, a key, and a manifest of the analyst's own with names and numbers in it."""
    place = tmp_path_factory.mktemp("private")
    make_objects(place / "archive")
    members = bundle_factory.make_members(1)
    parts = {"members": members, "ood": bundle_factory.make_ood(members, 1)}
    parts["stage2"] = bundle_factory.make_stage2(members, 1)
    write_bundle(str(place / "bundle"), **parts, spec=bundle_factory.SPEC, metrics={}, lineage={})
    create_key_file(str(place / "key"))
    rows = pd.DataFrame(
        {
            "image_uri": [f"{canary.FILE}-{number:02d}.dcm" for number in range(N_OBJECTS)],
            "patient_id": [f"{canary.CELL}-{number}" for number in range(N_OBJECTS)],
            "study_id": [f"{canary.CELL}-study-{number}" for number in range(N_OBJECTS)],
            "patient_name": f"{canary.CELL}^JANE",
            "age_years": 60.0,
            "sex": "F",
            "bmi_kg_m2": 24.0,
            "site": "north",
        }
    )
    storage.write_table(str(place / "archive" / "manifest.csv"), rows)
    return place


@pytest.fixture
def said(caplog):
    """Run a command; what it and all loggers said."""
    texts = []

    def run(*arguments):
        with caplog.at_level(logging.DEBUG):
            result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        texts.append(result.output + str(result.exception or "") + caplog.text)
        return result.exit_code, texts[-1]

    return run


def engine_traces(tokens):
    """The session of the engine that is up: logs of driver, workers and daemons, and whatever else lies there."""
    session = Path("/tmp/ray/session_latest").resolve()
    assert list((session / "logs").glob("worker-*")), "the engine keeps no logs"
    return canary.traces(session, tokens)


def test_the_canaries_are_there(place):
    assert len(canary.text_keywords()) > 1500
    data = (place / "archive" / f"{canary.FILE}-00.dcm").read_bytes()
    assert data.count(canary.TAG.encode()) > 1500
    assert canary.UID.encode() in data
    assert canary.BIRTH_DATE.encode() in data
    assert canary.traces(place, [canary.TAG, canary.CELL], but=["bundle", "key"])


def test_nothing_of_a_header_gets_into_scores_logs_and_messages(ray_session, place, said):
    table = place / "scores"
    settings = [f"score.key_file={place / 'key'}", "engine.rows_per_block=4", "engine.scorers=1"]
    places = ["--bundle", place / "bundle", "--manifest", place / "archive" / "manifest.csv", "--to", table]
    code, told = said("score", *places, *(part for value in settings for part in ("--set", value)))
    assert code == 0, told
    tokens = [*canary.OF_HEADERS, canary.FILE, canary.CELL]
    assert [token for token in tokens if token in told] == []
    assert canary.traces(table, tokens) == []
    assert engine_traces(tokens) == []
    rows = tables.read(str(table))
    assert rows["reason"].value_counts().to_dict() == {"": 11, "not_chest": 1, "no_pixels": 1, "not_dicom": 1}
    assert sorted(rows["view"].dropna().unique()) == ["OTHER", "PA"]
    assert rows["patient_key"].nunique() == N_OBJECTS


def test_an_inventory_holds_what_its_page_lists_and_names_of_objects(ray_session, place, said):
    to = place / "inventory" / "found.parquet"
    code, told = said("inventory", place / "archive", "--to", to, "--key-file", place / "key")
    assert code == 0, told
    tokens = [*canary.OF_HEADERS, canary.FILE, canary.CELL]
    assert [token for token in tokens if token in told] == []
    assert engine_traces(tokens) == []
    found = storage.read_table(str(to))
    assert canary.columns_with(found, canary.FILE) == {"image_uri"}
    whole = found[found["image_uri"].str.contains(f"-{ALL_PLANTED}.dcm", regex=False)]
    assert canary.columns_with(whole, canary.TAG) <= {"device", "body_part", "view", "modality"}
    view = found[found["image_uri"].str.contains(f"-{VIEW_PLANTED}.dcm", regex=False)]
    assert canary.columns_with(view, canary.TAG) == {"view"}
    others = found.drop([*whole.index, *view.index])
    assert [token for token in canary.OF_HEADERS for _ in canary.columns_with(others, token)] == []


def test_messages_about_what_fails_name_no_patient(ray_session, place, said):
    """A bundle that is not there, a store that is not, a table of another bundle."""
    manifest = place / "archive" / "manifest.csv"
    key = f"score.key_file={place / 'key'}"
    for bundle, table in ((place / "nowhere", place / "scores-2"), (place / "bundle", "nonsense://b/scores")):
        code, told = said("score", "--bundle", bundle, "--manifest", manifest, "--to", table, "--set", key)
        assert code != 0, told
        assert [token for token in (*canary.OF_HEADERS, canary.FILE, canary.CELL) if token in told] == []


@pytest.mark.slow
def test_the_whole_pipeline_keeps_to_itself_what_headers_say(ray_session, tmp_path, said):
    """Prepare, train, tune, score, evaluate and report on simulated patients whose files were planted."""
    from tests.test_pipeline import SMALL

    url = str(tmp_path / "cohort")
    create_key_file(str(tmp_path / "key"))
    own = [f"data.{name}={url}/{name}/manifest.parquet" for name in ("derivation", "external", "archive")]
    own += [f"data.truth={url}/truth", f"run.directory={tmp_path}/run", f"score.key_file={tmp_path}/key"]
    settings = [part for value in (*SMALL, *own) for part in ("--set", value)]
    code, told = said("simulate", "demo", "--to", url, *settings)
    assert code == 0, told
    for number, path in enumerate(sorted(Path(url).rglob("*.dcm"))):
        path.write_bytes(canary.plant(path.read_bytes(), number=number, few=number % 20 > 0))
    for path in Path(url).glob("*/manifest.parquet"):
        rows = storage.read_table(str(path))
        storage.write_table(str(path), rows.assign(patient_name=f"{canary.CELL}^JANE"))
    code, told = said("run", "demo", *settings)
    assert code == 0, told
    assert [token for token in (*canary.OF_HEADERS, canary.CELL) if token in told] == []
    assert canary.traces(tmp_path / "run", canary.OF_HEADERS) == []
    # The cohort is the analyst's own manifest, less those who were not selected.
    assert canary.traces(tmp_path / "run", [canary.CELL], but=["cohort/"]) == []
    assert engine_traces([*canary.OF_HEADERS, canary.CELL]) == []
    assert (tmp_path / "run" / "report" / "index.html").exists()

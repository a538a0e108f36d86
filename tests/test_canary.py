"""Nothing of a patient leaves a header: canaries in every text element, and a search of all that was written.

Looked through: tables, reports, what the commands say, records of all loggers, and the engine's own session files.
"""

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pydicom
import pytest
from typer.testing import CliRunner

from sarc_ray import storage, tables
from sarc_ray.bundle import load_bundle, write_bundle
from sarc_ray.cli import app
from sarc_ray.cohort.schema import read_manifest
from sarc_ray.exporting.source import FILED
from sarc_ray.imaging.batch import prepare_rows
from sarc_ray.inspection.request import settings_for
from sarc_ray.privacy import create_key_file, load_key, pseudonyms
from sarc_ray.scoring import score_rows
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


def score_without_engine(place, table):
    """A sealed score table of the objects, made in this process."""
    bundle, key = load_bundle(str(place / "bundle")), load_key(str(place / "key"))
    rows = read_manifest(str(place / "archive" / "manifest.csv"))
    limits = settings_for(str(place / "bundle"), None).limits
    batch = prepare_rows(rows["row_id"].tolist(), rows["image_uri"].tolist(), bundle.spec.preprocess, limits)
    for name, purpose in (("patient", "patient_key"), ("study", "study_key")):
        keys = pseudonyms(rows[f"{name}_id"], key=key, purpose=name)
        batch = batch.append_column(purpose, pa.array(keys, pa.string()))
    for name in (*bundle.spec.clinical_features, "site"):
        batch = batch.append_column(name, pa.Array.from_pandas(rows[name]))
    scored = score_rows(batch, bundle, run_id="canary-1")
    storage.write_table(storage.join(tables.parts_uri(str(table), "v1"), "part-0.parquet"), scored)
    lineage = {"model_id": bundle.model_id}
    tables.seal(str(table), version="v1", expected_row_ids=rows["row_id"].to_numpy(), lineage=lineage)


def without_openings(told):
    """What was said, less what fsspec tells of itself at level DEBUG: the names of the files that it opens.

    Known by its words: whether a line names its logger depends on who set up the handlers before.
    """
    return "\n".join(line for line in told.splitlines() if "open file: " not in line)


def test_exports_name_nobody_but_in_the_objects_for_the_archive(place, said):
    """Rows go by keys; reports and captures hold the stated tags alone; nothing is said on the way."""
    table, to = place / "scores-3", place / "exports"
    score_without_engine(place, table)
    persons = pd.DataFrame({"patient_id": [f"{canary.CELL}-{number}" for number in range(N_OBJECTS)]})
    storage.write_table(str(place / "persons.csv"), persons.assign(person_id=range(1, N_OBJECTS + 1)))
    images = [place / "archive" / f"{canary.FILE}-{number:02d}.dcm" for number in (0, 1, VIEW_PLANTED, NO_DICOM)]
    of_model = ["--bundle", place / "bundle"]
    omop = ["--persons", place / "persons.csv", "--key-file", place / "key", "--day-of-month", "1"]
    tokens = [*canary.OF_HEADERS, canary.FILE, canary.CELL]
    for arguments in (
        ["csv", table, "--to", to / "rows" / "scores.csv"],
        ["omop", table, *of_model, *omop, "--to", to / "rows" / "measurement.csv"],
        ["sr", table, *images, *of_model, "--to", to / "objects"],
    ):
        code, told = said("export", *arguments)
        assert code == 0, told
        assert [token for token in tokens if token in without_openings(told)] == []
    code, told = said("explain", *images, *of_model, "--to", to / "objects", "--format", "dicom")
    assert code == 0, told
    assert [token for token in tokens if token in without_openings(told)] == []
    assert len(list((to / "rows").iterdir())) == 2
    assert canary.traces(to / "rows", tokens) == []
    objects = sorted((to / "objects").glob("*.dcm"))
    assert len(objects) == 3 + 3 * len(bundle_factory.TARGETS)
    assert canary.traces(to / "objects", [canary.FILE, canary.CELL]) == []
    assert canary.traces(to / "objects", tokens, but=[".dcm"]) == []
    for path in objects:
        planted = [element.keyword for element in pydicom.dcmread(path).iterall() if canary.TAG in str(element.value)]
        assert set(planted) <= set(FILED), path
        assert "PatientName" in planted
    # A request that fails says no more.
    code, told = said(
        "export", "sr", table, place / "archive" / f"{canary.FILE}-99.dcm", *of_model, "--to", to / "none"
    )
    assert code != 0
    assert [token for token in tokens if token in without_openings(told)] == []


@pytest.mark.slow
def test_the_whole_pipeline_keeps_to_itself_what_headers_say(ray_session, tmp_path, said):
    """Prepare, train, tune, score, evaluate and report on simulated patients whose files were planted."""
    from tests.minute_run import SMALL

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

"""An inventory is a manifest: accepted by check and score, one row per object, no identifier in it."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from sarc_ray import storage, tables
from sarc_ray.checkup.examine import examine
from sarc_ray.cohort.schema import read_manifest
from sarc_ray.errors import ConfigError, Reason, StorageError
from sarc_ray.inventory import take
from sarc_ray.inventory.summary import print_summary, summarise
from sarc_ray.inventory.take import MANIFEST_COLUMNS, InventoryRequest, load_run_for, take_inventory
from sarc_ray.privacy import create_key_file, load_key, pseudonyms
from sarc_ray.scoring_request import ScoringRequest, score_request
from sarc_ray.scoring_request import load_run_for as load_scoring_run
from sarc_ray.simulate.cohort import SimulateConfig
from sarc_ray.simulate.writer import simulate
from tests import dicom_factory, dicom_hostile
from tests.dicom_factory import make_dicom

GOLDEN = Path(__file__).parents[1] / "golden" / "bundle" / "model"
ENGINE = ("engine.num_cpus=2", "engine.rows_per_block=16", "engine.scorers=1")
N_IMAGES = 60


@pytest.fixture(scope="module")
def key_file(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("key") / "key")
    create_key_file(path)
    return path


@pytest.fixture(scope="module")
def archive(s3_server):
    """The simulated archive in S3; URL of its folder."""
    config = SimulateConfig(derivation_n=0, external_n=0, archive_n=N_IMAGES, size_px=64, chunk_size=64)
    simulate(config, uri="s3://tests/inventory", seed=22)  # a seed that draws many kinds of bad rows
    return "s3://tests/inventory/archive"


def run_inventory(request, key_file, **options):
    return take_inventory(request, load_run_for(request, key_file, ENGINE), **options)


@pytest.fixture(scope="module")
def request_of_archive(ray_session, archive, key_file):
    request = InventoryRequest(folder=f"{archive}/images", manifest=f"{archive}/inventory.parquet")
    run_inventory(request, key_file)
    return request


def test_the_manifest_has_one_row_per_object_relative_to_itself(request_of_archive, archive):
    manifest = storage.read_table(request_of_archive.manifest)
    assert tuple(manifest.columns) == MANIFEST_COLUMNS
    objects = dict(storage.walk_objects(f"{archive}/images"))
    assert [f"{archive}/{uri}" for uri in manifest["image_uri"]] == sorted(objects)
    assert manifest["image_uri"].str.startswith("images/").all()
    assert manifest["bytes"].tolist() == [objects[f"{archive}/{uri}"] for uri in manifest["image_uri"]]


def test_what_the_header_says_is_what_the_simulator_wrote(request_of_archive, archive):
    found = read_manifest(request_of_archive.manifest).set_index("row_id")
    own = read_manifest(f"{archive}/manifest.parquet").set_index("row_id").loc[found.index]
    readable = found["rows"].notna()
    assert readable.sum() > 0.9 * len(found)
    known = readable & own["age_years"].notna()  # the simulator keeps some ages in the header alone
    pd.testing.assert_series_equal(found["age_years"][known], np.floor(own["age_years"])[known])
    for name in ("sex", "view"):
        pd.testing.assert_series_equal(found[name][readable], own[name][readable])
    assert (found["acquired_on"] == own["acquired_on"].str[:7])[readable].all()


def test_check_accepts_it(request_of_archive):
    checkup = examine(request_of_archive.manifest, None)
    assert checkup.n_errors == 0
    assert checkup.n_rows == len(storage.read_table(request_of_archive.manifest))


def score(manifest, table, key_file):
    request = ScoringRequest(bundle=str(GOLDEN), manifest=manifest, table=str(table))
    score_request(request, load_scoring_run(request, None, [*ENGINE, f"score.key_file={key_file}"]))
    return tables.read(request.table).set_index("row_id")


def test_it_is_scored_as_the_simulators_own_manifest(request_of_archive, archive, key_file, tmp_path):
    """The header has no body-mass index, and ages in whole years; these two are made equal, the rest is compared."""
    own = read_manifest(f"{archive}/manifest.parquet")
    own["age_years"] = np.floor(own["age_years"])
    found = read_manifest(request_of_archive.manifest).drop(columns="bmi_kg_m2")
    found = found.merge(own[["row_id", "bmi_kg_m2"]], on="row_id", validate="one_to_one")
    scored = {"as it is": score(request_of_archive.manifest, tmp_path / "as-it-is", key_file)}
    for name, manifest in (("own", own), ("found", found)):
        storage.write_table(str(tmp_path / f"{name}.parquet"), manifest)
        scored[name] = score(str(tmp_path / f"{name}.parquet"), tmp_path / name, key_file)
    assert scored["as it is"].index.equals(scored["own"].index)
    assert (scored["as it is"]["reason"] == Reason.MISSING_BMI).sum() > N_IMAGES / 2
    assert set(scored["own"]["reason"]) > {"", "not_dicom", "decode_failed", "not_chest", "missing_bmi"}
    assert (scored["found"]["outcome"] == "scored").sum() > N_IMAGES / 2
    other = ("patient_key", "study_key", "site", "device", "run_id")
    same = [name for name in scored["own"].columns if name not in (*other, "age_years", "sex", "view")]
    pd.testing.assert_frame_equal(scored["found"][same], scored["own"][same], check_exact=True)
    # What is no DICOM object has no age, sex and view but in the simulator's manifest.
    read = scored["found"]["reason"] != "not_dicom"
    facts = ["age_years", "sex", "view"]
    pd.testing.assert_frame_equal(scored["found"].loc[read, facts], scored["own"].loc[read, facts], check_exact=True)
    # Every refusal that the inventory foretold came true.
    refused = found.set_index("row_id")["reason"].dropna()
    assert len(refused) >= 2
    assert (scored["found"].loc[refused.index, "reason"] == refused).all()


def test_the_same_command_again_does_nothing_until_something_changes(ray_session, tmp_path, key_file):
    request = InventoryRequest(folder=str(tmp_path / "in"), manifest=str(tmp_path / "out.csv"))
    storage.write_bytes(str(tmp_path / "in" / "a.dcm"), make_dicom())
    assert run_inventory(request, key_file)["facts"] == {"objects": 1, "eligible": 1}
    assert run_inventory(request, key_file)["skipped"]
    storage.write_bytes(str(tmp_path / "in" / "b.dcm"), make_dicom())
    assert run_inventory(request, key_file)["facts"] == {"objects": 2, "eligible": 2}
    (tmp_path / "out.csv").unlink()
    assert not run_inventory(request, key_file)["skipped"]
    assert len(storage.read_table(request.manifest)) == 2


@pytest.fixture
def odd_folder(tmp_path):
    """Whatever lies about in a folder of an archive; the manifest is to be written into it."""
    folder = tmp_path / "odd"
    files = {
        ".DS_Store": b"\0\0\0\1Bud1",
        "empty.dcm": b"",
        "notes.txt": b"read me",
        "archive.zip": dicom_hostile.zip_file(),
        "named.dcm/inner [1].dcm": make_dicom(omit=("PatientID",)),
        "hand.dcm": make_dicom(BodyPartExamined="HAND"),
        "old.dcm": make_dicom(syntax=dicom_factory.PROGRESSIVE_JPEG_RETIRED, frames=[b"\xff\xd8"]),
        "no extension": make_dicom(),
    }
    for name, data in files.items():
        storage.write_bytes(str(folder / name), data)
    (folder / "empty folder").mkdir()
    (folder / "gone.dcm").symlink_to(folder / "nowhere")
    return folder


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_everything_in_a_folder_becomes_a_row(ray_session, odd_folder, key_file, ending):
    request = InventoryRequest(folder=str(odd_folder), manifest=str(odd_folder / f"manifest.{ending}"))
    for _ in range(2):  # at the second time the manifest and the table lie in the folder; they are no objects of it
        run_inventory(request, key_file)
        frame = read_manifest(request.manifest).set_index("image_uri")
        frame.index = [uri.removeprefix(f"{odd_folder}/") for uri in frame.index]
        assert frame["reason"].fillna("").to_dict() == {
            ".DS_Store": "not_dicom",
            "empty.dcm": "not_dicom",
            "notes.txt": "not_dicom",
            "archive.zip": "not_dicom",
            "gone.dcm": frame["reason"]["gone.dcm"],
            "named.dcm/inner [1].dcm": "",
            "hand.dcm": "not_chest",
            "old.dcm": "unsupported_syntax",
            "no extension": "",
        }
        assert frame["reason"]["gone.dcm"] in (Reason.OBJECT_MISSING, Reason.NOT_DICOM)
    assert frame["eligible"].sum() == 2
    assert frame["patient_known"].sum() == 3
    # Who has no identifier counts as a patient of their own.
    assert frame["patient_id"].nunique() == len(frame) - 2
    assert frame.loc["no extension", "patient_id"] == frame.loc["hand.dcm", "patient_id"]
    assert examine(request.manifest, None).n_errors == 0


def test_patient_keys_can_be_made_again_from_identifiers(ray_session, tmp_path, key_file):
    storage.write_bytes(str(tmp_path / "in" / "a.dcm"), make_dicom())
    request = InventoryRequest(folder=str(tmp_path / "in"), manifest=str(tmp_path / "m.parquet"))
    run_inventory(request, key_file)
    expected = pseudonyms([dicom_factory.SECRET_ID], key=load_key(key_file), purpose="patient")
    assert storage.read_table(request.manifest)["patient_id"].tolist() == expected


def test_no_identifier_in_anything_that_is_written(ray_session, tmp_path, key_file, monkeypatch):
    data = make_dicom(StudyInstanceUID="1.2.3.42424242", AccessionNumber="CANARY", PatientBirthDate="19370219")
    storage.write_bytes(str(tmp_path / "in" / "a.dcm"), data)
    monkeypatch.setattr(take.storage, "remove_tree", lambda uri: None)  # what lies there in between is looked at too
    request = InventoryRequest(folder=str(tmp_path / "in"), manifest=str(tmp_path / "out" / "m.csv"))
    run_inventory(request, key_file)
    written = [storage.read_bytes(uri) for uri in storage.list_files(str(tmp_path / "out"))]
    assert len(written) >= 3
    frames = pd.concat([tables.read(request.table).astype(str), storage.read_table(request.manifest)])
    text = frames.to_csv().encode() + b"".join(written)
    for secret in (dicom_factory.SECRET_ID, "Doe", "Jane", "42424242", "CANARY", "1937", "20200305"):
        assert secret.encode() not in text, secret
    assert load_key(key_file) not in text


def test_an_interrupted_inventory_goes_on_with_its_listing(ray_session, tmp_path, key_file, monkeypatch):
    folder = tmp_path / "in"
    for number in range(3):
        storage.write_bytes(str(folder / f"{number}.dcm"), make_dicom())
    request = InventoryRequest(folder=str(folder), manifest=str(tmp_path / "m.parquet"))

    def killed(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(take, "read_all_heads", killed)
        with pytest.raises(KeyboardInterrupt):
            run_inventory(request, key_file)
    storage.write_bytes(str(folder / "new.dcm"), make_dicom())
    assert run_inventory(request, key_file)["facts"]["objects"] == 3
    assert run_inventory(request, key_file)["facts"]["objects"] == 4


def test_only_what_the_store_failed_on_is_tried_again(ray_session, tmp_path, key_file, monkeypatch):
    folder = tmp_path / "in"
    for number in range(3):
        storage.write_bytes(str(folder / f"{number}.dcm"), make_dicom())
    (folder / "0.dcm").unlink()
    (folder / "0.dcm").symlink_to("0.dcm")  # reading fails, and not because there is nothing
    listed = [(str(folder / f"{number}.dcm"), len(make_dicom())) for number in range(3)]
    monkeypatch.setattr(take.storage, "walk_objects", lambda uri: iter(listed))
    request = InventoryRequest(folder=str(folder), manifest=str(tmp_path / "m.parquet"))
    assert run_inventory(request, key_file)["facts"] == {"objects": 3, "eligible": 2, "to_try_again": 1}
    (folder / "0.dcm").unlink()
    storage.write_bytes(str(folder / "0.dcm"), make_dicom())
    for number in (1, 2):  # asked for again, these would be missing
        (folder / f"{number}.dcm").unlink()
    assert run_inventory(request, key_file)["facts"] == {"objects": 3, "eligible": 3}
    assert tables.read_pointer(request.table).version.endswith("+1")


def test_without_a_key_it_says_how_to_make_one(tmp_path, monkeypatch):
    monkeypatch.delenv("SARC_RAY_KEY", raising=False)
    request = InventoryRequest(folder=str(tmp_path), manifest=str(tmp_path / "m.csv"))
    with pytest.raises(ConfigError, match=r"sarc-ray key .*--key-file"):
        take_inventory(request, load_run_for(request, None, ENGINE))


def test_an_empty_folder_and_a_wrong_ending_are_told(tmp_path, key_file):
    with pytest.raises(StorageError, match="no object below it"):
        run_inventory(InventoryRequest(folder=str(tmp_path), manifest=str(tmp_path / "m.csv")), key_file)
    with pytest.raises(ConfigError, match=r"--to: found 'm\.xlsx'.*\.parquet or \.csv"):
        InventoryRequest(folder=str(tmp_path), manifest="m.xlsx")


def test_the_summary_counts_every_object_once(request_of_archive):
    manifest = storage.read_table(request_of_archive.manifest)
    summary = summarise(request_of_archive.table)
    assert summary.n_objects == sum(summary.by_reason.values()) == len(manifest)
    assert summary.n_eligible == manifest["eligible"].sum()
    assert summary.n_patients == manifest.loc[manifest["eligible"] == 1, "patient_id"].nunique()
    assert summary.with_feature["bmi_kg_m2"] == 0
    console = Console(file=io.StringIO(), width=100)
    print_summary(console, summary)
    shown = console.file.getvalue()
    assert f"{len(manifest)} objects" in shown
    assert "bmi_kg_m2 0%" in shown

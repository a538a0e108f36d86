import json
import pickle

import numpy as np
import pandas as pd
import pydicom
import pytest

from sarc_ray import storage
from sarc_ray.cohort.schema import read_manifest, row_id
from sarc_ray.cohort.selection import EligibilityConfig, select
from sarc_ray.simulate.cohort import DEFECTS, SimulateConfig
from sarc_ray.simulate.writer import plan_chunks, simulate, truth_uri, write_chunk, write_manifests

CONFIG = SimulateConfig(derivation_n=20, external_n=4, archive_n=6, size_px=64, chunk_size=7)


def _contents(folder) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cohort")
    return folder, simulate(CONFIG, uri=str(folder), seed=42)


def test_chunks_of_any_size_and_order_give_the_same_files(written, tmp_path):
    folder, _ = written
    other = SimulateConfig(derivation_n=20, external_n=4, archive_n=6, size_px=64, chunk_size=16)
    chunks = plan_chunks(other, seed=42)
    assert len(chunks) != len(plan_chunks(CONFIG, seed=42))
    # Chunks travel to worker processes.
    travelled = pickle.loads(pickle.dumps(chunks))  # noqa: S301
    rows = [write_chunk(chunk, uri=str(tmp_path)) for chunk in reversed(travelled)]
    write_manifests(rows, uri=str(tmp_path))
    ours, theirs = _contents(folder), _contents(tmp_path)
    assert ours.keys() == theirs.keys()
    # row_id depends on the folder, so truth tables are compared without it.
    tables = {name for name in ours if name.startswith("truth")}
    assert all(ours[name] == theirs[name] for name in ours.keys() - tables)
    for name in tables:
        first, second = (pd.read_parquet(root / name).drop(columns="row_id") for root in (folder, tmp_path))
        pd.testing.assert_frame_equal(first, second, rtol=1e-9)


def test_another_seed_gives_other_pictures(written, tmp_path):
    folder, _ = written
    chunk = plan_chunks(CONFIG, seed=43)[0]
    write_chunk(chunk, uri=str(tmp_path))
    name = "derivation/images/D000001_1.dcm"
    assert (folder / name).read_bytes() != (tmp_path / name).read_bytes()


@pytest.mark.parametrize("cohort", ["derivation", "external", "archive"])
def test_manifests_are_valid_and_images_are_there(written, cohort):
    folder, manifests = written
    frame = read_manifest(manifests[cohort], required=("age_years", "sex", "bmi_kg_m2"))
    truth = storage.read_table(truth_uri(str(folder), cohort))
    assert (frame["row_id"].to_numpy() == truth["row_id"].to_numpy()).all()
    assert truth["row_id"].iloc[0] == row_id(frame["image_uri"].iloc[0])
    for uri, role in zip(frame["image_uri"], truth["role"], strict=True):
        assert storage.exists(uri) == (role != "missing_object")


def test_selection_leaves_the_eligible_patients(written):
    _, manifests = written
    config = EligibilityConfig(
        age_min_years=40,
        gap_max_days=90,
        require_muscle_function=True,
        one_image_per_patient=True,
        views=(),
    )
    assert len(select(read_manifest(manifests["derivation"]), config).frame) == CONFIG.derivation_n
    assert len(select(read_manifest(manifests["external"]), config).frame) == CONFIG.external_n


def test_truth_lies_apart_from_the_manifest(written):
    folder, manifests = written
    columns = set(storage.read_table(manifests["derivation"]).columns)
    assert not [c for c in columns if "ideal" in c or "channel" in c or "true" in c or c in ("role", "bayes_score")]
    truth = storage.read_table(truth_uri(str(folder), "derivation"))
    for name in ("alm_kg", "hgs_kg", "crt_s"):
        assert {f"{name}_ideal_mu", f"{name}_ideal_sigma", f"{name}_true", f"{name}_boxes"} <= set(truth.columns)
    boxes = np.array(json.loads(truth["alm_kg_boxes"].iloc[0]))
    assert boxes.shape == (2, 4)
    assert ((boxes >= 0) & (boxes <= 1)).all()


def test_header_agrees_with_the_manifest(written):
    folder, manifests = written
    row = storage.read_table(manifests["derivation"]).iloc[3]
    dataset = pydicom.dcmread(folder / "derivation" / row["image_uri"])
    assert dataset.PatientID == row["patient_id"]
    assert dataset.PatientSex == row["sex"]
    assert dataset.StudyDate == row["acquired_on"].replace("-", "")
    assert dataset.ManufacturerModelName == row["device"]
    assert dataset.Rows == 64


def test_defective_archive_rows_are_defective(tmp_path, monkeypatch):
    monkeypatch.setattr("sarc_ray.simulate.cohort.DEFECTS", {name: 1 / len(DEFECTS) for name in DEFECTS})
    config = SimulateConfig(derivation_n=0, external_n=0, archive_n=45, size_px=64, chunk_size=45)
    chunk = write_chunk(plan_chunks(config, seed=1)[0], uri=str(tmp_path))
    by_role = dict(zip(chunk.truth["role"], tmp_path / "archive" / chunk.manifest["image_uri"], strict=True))
    assert set(by_role) == set(DEFECTS)
    assert not by_role["missing_object"].exists()
    assert b"DICM" not in by_role["not_dicom"].read_bytes()
    with pytest.raises(Exception, match=r"."):
        _ = pydicom.dcmread(by_role["truncated"]).pixel_array
    assert pydicom.dcmread(by_role["other_body_part"]).BodyPartExamined in ("HAND", "KNEE")
    assert pydicom.dcmread(by_role["lateral"]).ViewPosition == "LATERAL"
    assert pydicom.dcmread(by_role["missing_age"]).PatientAge in ("", None)
    assert pydicom.dcmread(by_role["age_in_header_only"]).PatientAge.endswith("Y")


def test_rows_that_are_no_frontal_chest_show_none(tmp_path, monkeypatch):
    # The same seed with and without defects: the same patients, other pictures where the role says so.
    monkeypatch.setattr("sarc_ray.simulate.cohort.DEFECTS", {"lateral": 0.3, "other_body_part": 0.3})
    config = SimulateConfig(derivation_n=0, external_n=0, archive_n=12, size_px=64, chunk_size=12)
    (chunk,) = plan_chunks(config, seed=1)
    mixed = write_chunk(chunk, uri=str(tmp_path / "mixed"))
    monkeypatch.setattr("sarc_ray.simulate.cohort.DEFECTS", {"lateral": 0.0})
    frontal = write_chunk(chunk, uri=str(tmp_path / "frontal"))
    assert set(mixed.truth["role"]) == {"eligible", "lateral", "other_body_part"}
    for role, uri, boxes in zip(
        mixed.truth["role"], mixed.manifest["image_uri"], mixed.truth["alm_kg_boxes"], strict=True
    ):
        pixels = [pydicom.dcmread(tmp_path / kind / "archive" / uri).pixel_array for kind in ("mixed", "frontal")]
        assert pixels[0].shape == pixels[1].shape
        assert np.array_equal(*pixels) == (role == "eligible")
        assert (json.loads(boxes) == []) == (role != "eligible")
    assert (frontal.truth["role"] == "eligible").all()


def test_writes_to_any_store():
    config = SimulateConfig(derivation_n=2, external_n=0, archive_n=0, size_px=64, chunk_size=4)
    manifests = simulate(config, uri="memory://simulated", seed=1)
    try:
        assert manifests == {"derivation": "memory://simulated/derivation/manifest.parquet"}
        assert len(storage.list_files("memory://simulated", ".dcm")) >= 2
    finally:
        storage.remove_tree("memory://simulated")

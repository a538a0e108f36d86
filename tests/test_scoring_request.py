"""'sarc-ray score' of any manifest: what a second run reads. Ray Data is left out, its maps are called directly."""

import contextlib
import inspect

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from sarc_ray import pipeline, storage, table_lock, tables
from sarc_ray.bundle import write_bundle
from sarc_ray.cli import app
from sarc_ray.distributed import stream
from sarc_ray.errors import ConfigError, StorageError, TableBusyError
from sarc_ray.privacy import create_key_file
from tests import bundle_factory, dicom_factory

N_IMAGES = 5


class Dataset:
    """As much of Ray Data's as a stream of ours needs: one block."""

    def __init__(self, table):
        self.table = table

    def map_batches(self, function, *, fn_kwargs=None, fn_constructor_kwargs=None, **_):
        if inspect.isclass(function):
            function = function(**(fn_constructor_kwargs or {}))
        return Dataset(function(self.table, **(fn_kwargs or {})))


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles")
    for seed in (1, 2):
        members = bundle_factory.make_members(seed)
        parts = {"stage2": bundle_factory.make_stage2(members, 1), "ood": bundle_factory.make_ood(members, 1)}
        write_bundle(
            str(folder / f"{seed}"), members=members, spec=bundle_factory.SPEC, metrics={}, lineage={}, **parts
        )
    return folder


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """A folder of radiographs, an engine without Ray, and what is read of the folder."""

    def run(uri, version, *, build, engine, n_rows, progress):
        table = pq.read_table(storage.filesystem(tables.input_uri(uri, version))[1])
        storage.write_table(f"{tables.parts_uri(uri, version)}/0.parquet", build(Dataset(table)).table)

    monkeypatch.setattr(stream, "_stream", run)
    monkeypatch.setattr(pipeline.cluster, "session", lambda config: contextlib.nullcontext())
    rng = np.random.default_rng(3)
    for number in range(N_IMAGES):
        noise = rng.integers(0, 60, dicom_factory.picture().shape)
        picture = np.minimum(dicom_factory.picture() + noise, 4095).astype(np.uint16)
        (tmp_path / f"{number}.dcm").write_bytes(dicom_factory.make_dicom(picture))
    create_key_file(str(tmp_path / "key"))
    return Archive(tmp_path, monkeypatch)


class Archive:
    def __init__(self, folder, monkeypatch):
        self.folder = folder
        self.table = str(folder / "scores")
        self.failing = set()
        self.read = []
        self._read_bounded = storage.read_bounded
        monkeypatch.setattr(storage, "read_bounded", self.read_bounded)

    def read_bounded(self, uris, limit_bytes, **options):
        names = [uri.rpartition("/")[2] for uri in uris]
        self.read += names
        found = self._read_bounded(uris, limit_bytes, **options)
        return [OSError("503") if name in self.failing else value for name, value in zip(names, found, strict=True)]

    def score(self, bundle, numbers, *options, ages=None, folder=""):
        """Run the command on a manifest of these images; what it read, and what it said."""
        rows = pd.DataFrame(
            {
                "image_uri": [f"{folder}{number}.dcm" for number in numbers],
                "patient_id": [f"P{number}" for number in numbers],
                "age_years": [(ages or {}).get(number, 60.0) for number in numbers],
                "sex": "F",
                "bmi_kg_m2": 24.0,
            }
        )
        manifest = str(self.folder / "manifest.csv")
        storage.write_table(manifest, rows)
        self.read.clear()
        command = ["score", "--bundle", str(bundle), "--manifest", manifest, "--to", self.table, *options]
        settings = [f"score.key_file={self.folder / 'key'}", "engine.scorers=1"]
        result = CliRunner().invoke(app, [*command, *(part for value in settings for part in ("--set", value))])
        if result.exception is not None:
            raise result.exception
        return sorted(self.read), result.output


def test_a_grown_manifest_reads_new_and_changed_rows_alone(archive, bundles):
    assert archive.score(bundles / "1", [0, 1, 2])[0] == ["0.dcm", "1.dcm", "2.dcm"]
    read, said = archive.score(bundles / "1", [3, 2, 1, 0], ages={1: 70.0})
    assert read == ["1.dcm", "3.dcm"]
    assert "taken_over 2" in said
    table = tables.read(archive.table)
    assert (len(table), table["age_years"].tolist().count(70.0)) == (4, 1)
    again, said = archive.score(bundles / "1", [3, 2, 1, 0], ages={1: 70.0})
    assert again == []
    assert "unchanged since the last run" in said


def test_it_equals_the_table_of_one_go(archive, bundles):
    archive.score(bundles / "1", [0, 1])
    archive.score(bundles / "1", [0, 1, 2])
    grown = tables.read(archive.table)
    storage.remove_tree(archive.table)
    archive.score(bundles / "1", [0, 1, 2])
    pd.testing.assert_frame_equal(grown, tables.read(archive.table), check_exact=True)


def test_another_bundle_reads_everything_and_mixes_nothing(archive, bundles):
    archive.score(bundles / "1", [0, 1])
    first = tables.read(archive.table)["model_id"].unique()
    assert archive.score(bundles / "2", [0, 1, 2])[0] == ["0.dcm", "1.dcm", "2.dcm"]
    second = tables.read(archive.table)["model_id"].unique()
    assert len(first) == len(second) == 1
    assert first[0] != second[0]


def test_a_retry_reads_what_the_store_failed_on_and_nothing_else(archive, bundles):
    archive.failing = {"1.dcm", "2.dcm"}
    _, said = archive.score(bundles / "1", [0, 1, 2])
    assert "to_try_again 2" in said
    archive.failing = {"2.dcm"}
    assert archive.score(bundles / "1", [0, 1, 2, 3, 4], "--retry")[0] == ["1.dcm", "2.dcm"]
    assert tables.read(archive.table)["reason"].value_counts().to_dict() == {"": 2, "storage_failed": 1}
    archive.failing = set()
    assert archive.score(bundles / "1", [0, 1, 2, 3, 4], "--retry")[0] == ["2.dcm"]
    read, said = archive.score(bundles / "1", [0, 1, 2, 3, 4], "--retry")
    assert read == []
    assert "unchanged since the last run" in said
    assert archive.score(bundles / "1", [0, 1, 2, 3, 4])[0] == ["3.dcm", "4.dcm"]
    assert tables.read_pointer(archive.table).counts == {"scored": N_IMAGES}


def test_a_retry_refuses_what_it_cannot_do(archive, bundles):
    with pytest.raises(StorageError, match="no finished table whose rows could be tried again"):
        archive.score(bundles / "1", [0], "--retry")
    archive.failing = {"0.dcm"}
    archive.score(bundles / "1", [0])
    with pytest.raises(StorageError, match="one table never holds rows of two"):
        archive.score(bundles / "2", [0], "--retry")
    assert archive.read == []


def test_a_table_is_never_written_into_the_bundle(archive, bundles):
    before = storage.content_id(str(bundles / "1"))
    for table in (bundles / "1", f"file://{bundles / '1'}/", bundles / "1" / "scores"):
        archive.table = str(table)
        with pytest.raises(ConfigError, match="lies within the bundle"):
            archive.score(bundles / "1", [0])
    assert storage.content_id(str(bundles / "1")) == before
    assert archive.read == []


def test_images_that_nothing_can_read_are_told_before_any_work(archive, bundles, monkeypatch):
    monkeypatch.setattr(storage, "read_bounded", None)
    with pytest.raises(StorageError, match=r"objects under nonsense:// cannot be read \(.*; correct the scheme"):
        archive.score(bundles / "1", [0], folder="nonsense://a/")
    assert not (archive.folder / "scores").exists()


def test_a_second_run_reads_nothing_and_says_who_is_at_work(archive, bundles):
    told = r"the run 'weekend' on .*, 0 min ago\) is writing this table"
    with table_lock.hold(archive.table, run="weekend"), pytest.raises(TableBusyError, match=told):
        archive.score(bundles / "1", [0])
    assert archive.read == []

"""The distributed score table equals the direct one, at two block counts, with every kind of row in it."""

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from sarc_ray import storage, tables
from sarc_ray.bundle import load_bundle, write_bundle
from sarc_ray.cohort.schema import row_id
from sarc_ray.distributed.prepare import prepare_images
from sarc_ray.distributed.score import score_manifest
from sarc_ray.errors import TableBusyError
from sarc_ray.imaging.batch import prepare_rows
from sarc_ray.scoring import score_rows
from sarc_ray.stage2.explain import TopReasons, make_explainer
from sarc_ray.table_lock import lock_uri
from sarc_ray.table_reuse import RowInputs, row_hashes
from tests import bundle_factory, dicom_factory
from tests.engine import READ_LIMITS, engine_config

N_ROWS = 40
PREPROCESS = bundle_factory.SPEC.preprocess


def noisy_chest(seed):
    noise = np.random.default_rng(seed).integers(0, 60, dicom_factory.picture().shape)
    return dicom_factory.make_dicom(np.minimum(dicom_factory.picture() + noise, 4095).astype(np.uint16))


@pytest.fixture(scope="module")
def bundle_uri(tmp_path_factory):
    uri = str(tmp_path_factory.mktemp("bundle") / "bundle")
    members = bundle_factory.make_members(1)
    stage2 = bundle_factory.make_stage2(members, 1)
    ood = bundle_factory.make_ood(members, 1)
    write_bundle(uri, members=members, ood=ood, stage2=stage2, spec=bundle_factory.SPEC, metrics={}, lineage={})
    return uri


@pytest.fixture(scope="module")
def rows(s3_server):
    """A manifest in S3: readable radiographs, a text file, a missing object, children, rows without BMI."""
    folder = "s3://tests/test_score"
    rng = np.random.default_rng(5)
    records = []
    for number in range(N_ROWS):
        uri = f"{folder}/{number:03d}.dcm"
        if number % 10 == 3:
            storage.write_bytes(uri, b"not a DICOM object")
        elif number % 10 != 7:
            storage.write_bytes(uri, noisy_chest(number))
        records.append(
            {
                "row_id": row_id(uri),
                "image_uri": uri,
                "patient_key": f"k{number}",
                "age_years": (12.0, 30.0)[number // 10 % 2] if number % 10 == 1 else float(rng.uniform(41, 90)),
                "sex": "FM"[number % 2],
                "bmi_kg_m2": np.nan if number % 10 == 5 else float(rng.uniform(18, 30)),
                "site": "north",
                "view": "LATERAL" if number % 10 == 9 else None,
            }
        )
    return pd.DataFrame(records)


@pytest.fixture(scope="module")
def direct(rows, bundle_uri):
    """The same table without the engine, in one batch."""
    images = prepare_rows(rows["row_id"].tolist(), rows["image_uri"].tolist(), PREPROCESS, READ_LIMITS)
    batch = images
    for name in rows.columns.drop(["row_id", "image_uri"]):
        batch = batch.append_column(name, pa.array(rows[name], from_pandas=True))
    bundle = load_bundle(bundle_uri)
    top = TopReasons(make_explainer(bundle.stage2), 2)
    table = score_rows(batch, bundle, run_id="r", top_reasons=top).to_pandas()
    return table.sort_values("row_id", ignore_index=True)


@pytest.mark.parametrize("rows_per_block", [7, 64])
def test_distributed_equals_direct(ray_session, tmp_path, rows, bundle_uri, direct, rows_per_block):
    uri = str(tmp_path / "scores")
    seen = []
    pointer = score_manifest(
        rows,
        uri,
        bundle_uri=bundle_uri,
        preprocess=PREPROCESS,
        engine=engine_config(rows_per_block=rows_per_block),
        version="v1",
        lineage={"run_id": "r"},
        n_reasons=2,
        progress=lambda done, total: seen.append((done, total)),
    )
    table = tables.read(uri)
    assert table["reason_2"].notna().tolist() == (table["outcome"] == "scored").tolist()
    pd.testing.assert_frame_equal(table, direct[table.columns], check_exact=True)
    assert pointer.counts == {"scored": 20, "rejected": 14, "abstained": 6}
    assert sum(pointer.counts.values()) == len(rows) == pointer.n_rows
    assert table["reason"].value_counts().to_dict() == {
        "": 20,
        "lateral_view": 4,
        "not_dicom": 4,
        "object_missing": 4,
        "missing_bmi": 4,
        "paediatric": 2,
        "age_below_minimum": 2,
    }
    assert seen[-1] == (N_ROWS, N_ROWS)


def inputs_of(rows):
    return RowInputs(recipe="bundle-a", row_id_N=rows["row_id"].to_numpy(), hash_N=row_hashes(rows))


def test_a_grown_table_equals_one_that_was_scored_in_one_go(ray_session, tmp_path, rows, bundle_uri, direct):
    uri = str(tmp_path / "scores")
    arguments = {"bundle_uri": bundle_uri, "preprocess": PREPROCESS, "lineage": {"run_id": "r"}, "n_reasons": 2}
    arguments["engine"] = engine_config(rows_per_block=7)
    before = rows.head(25).copy()
    before.loc[:2, "bmi_kg_m2"] = 31.0
    score_manifest(before, uri, version="v1", inputs=inputs_of(before), **arguments)
    pointer = score_manifest(rows, uri, version="v2", inputs=inputs_of(rows), **arguments)
    table = tables.read(uri)
    pd.testing.assert_frame_equal(table, direct[table.columns], check_exact=True)
    assert (pointer.n_rows, pointer.lineage["n_taken_over"]) == (N_ROWS, 22)


SCORE = """
import sys
import pandas as pd
from sarc_ray.distributed import cluster
from tests.distributed.test_score import score_for_the_kill
from tests.engine import engine_config
with cluster.session(engine_config(num_cpus=2)):
    score_for_the_kill(pd.read_parquet(sys.argv[1]), sys.argv[2], sys.argv[3])
"""


def score_for_the_kill(rows, uri, bundle_uri):
    """What the driver that is killed does, and the next one."""
    return score_manifest(
        rows,
        uri,
        bundle_uri=bundle_uri,
        preprocess=PREPROCESS,
        engine=engine_config(rows_per_block=2),
        version="v1",
        lineage={"run_id": "r"},
        inputs=inputs_of(rows),
        n_reasons=2,
    )


@pytest.mark.slow
def test_a_killed_driver_costs_no_question(ray_session, tmp_path, rows, bundle_uri, direct):
    """While it lives the second run is refused; after kill -9 the same call goes on from its parts, at once."""
    uri, manifest = str(tmp_path / "scores"), tmp_path / "rows.parquet"
    rows.to_parquet(manifest)
    driver = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", SCORE, str(manifest), uri, bundle_uri],
        cwd=Path(__file__).parents[2],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: storage.exists(lock_uri(uri)), driver)
        with pytest.raises(TableBusyError, match="the run 'r' on"):
            score_for_the_kill(rows, uri, bundle_uri)
        wait_for(lambda: storage.list_files(tables.parts_uri(uri, "v1"), ".parquet"), driver)
        driver.kill()
        driver.wait()
        assert storage.exists(lock_uri(uri))
        n_parts = len(storage.list_files(tables.parts_uri(uri, "v1"), ".parquet"))
        assert 0 < n_parts < N_ROWS // 2
        pointer = score_for_the_kill(rows, uri, bundle_uri)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(driver.pid, signal.SIGKILL)
    table = tables.read(uri)
    pd.testing.assert_frame_equal(table, direct[table.columns], check_exact=True)
    assert (pointer.version, pointer.n_rows) == ("v1", N_ROWS)
    assert not storage.exists(lock_uri(uri))


def wait_for(condition, process):
    deadline = time.monotonic() + 240.0
    while not condition():
        assert process.poll() is None, "the driver ended by itself"
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.05)


def test_a_sealed_version_is_not_scored_again(ray_session, tmp_path, rows, bundle_uri):
    uri = str(tmp_path / "scores")
    arguments = {
        "bundle_uri": bundle_uri,
        "preprocess": PREPROCESS,
        "engine": engine_config(),
        "lineage": {"run_id": "r"},
    }
    first = score_manifest(rows.head(4), uri, version="v1", **arguments)
    before = storage.list_files(uri)
    assert score_manifest(rows.head(4), uri, version="v1", **arguments) == first
    assert storage.list_files(uri) == before


def test_the_image_table_equals_the_direct_one_and_goes_to_s3(ray_session, s3_url, rows):
    expected = prepare_rows(rows["row_id"].tolist(), rows["image_uri"].tolist(), PREPROCESS, READ_LIMITS).to_pandas()
    for blocks in (5, 64):
        uri = f"{s3_url}/{blocks}"
        prepare_images(
            rows,
            uri,
            preprocess=PREPROCESS,
            engine=engine_config(rows_per_block=blocks),
            version="v1",
            lineage={"run_id": "r"},
        )
        pd.testing.assert_frame_equal(tables.read(uri), expected.sort_values("row_id", ignore_index=True))


def test_an_interrupted_run_goes_on_from_its_parts(ray_session, tmp_path, rows):
    """Parts and job checkpoint of a run that was killed before the seal are used, not made again."""
    from sarc_ray.distributed import stream

    uri = str(tmp_path / "images")
    arguments = {"engine": engine_config(rows_per_block=10), "version": "v1", "lineage": {"run_id": "r"}}

    def outcome(batch, name):
        retryable = pa.array([False] * len(batch))
        return batch.append_column("outcome", pa.array([name] * len(batch))).append_column("retryable", retryable)

    def fail_at_the_end(batch):
        if "039.dcm" in "".join(batch["image_uri"].to_pylist()):
            # The engine orders blocks as it likes: not before another one is on record.
            deadline_s = time.monotonic() + 60
            while not any(tmp_path.rglob("checkpoint/**/*.parquet")) and time.monotonic() < deadline_s:
                time.sleep(0.1)
            raise RuntimeError("killed")
        return outcome(batch, "first")

    def second(batch):
        return outcome(batch, "second")

    def build(function):
        return lambda dataset: dataset.map_batches(function, batch_format="pyarrow", batch_size=None)

    with pytest.raises(Exception, match="killed"):
        stream.stream_to_table(rows, uri, build=build(fail_at_the_end), **arguments)
    pointer = stream.stream_to_table(rows, uri, build=build(second), **arguments)
    assert pointer.n_rows == N_ROWS
    assert pointer.counts.get("first", 0) >= 10
    assert set(pointer.counts) == {"first", "second"}


def test_only_retryable_rows_are_tried_again(ray_session, tmp_path, rows):
    from sarc_ray.distributed import stream

    uri = str(tmp_path / "table")
    arguments = {"engine": engine_config(rows_per_block=64), "version": "v1", "lineage": {"run_id": "r"}}

    def build(attempt, failing):
        def function(batch):
            failed = pa.array([name.endswith(failing) for name in batch["image_uri"].to_pylist()])
            return batch.append_column("outcome", pa.array([attempt] * len(batch))).append_column("retryable", failed)

        return lambda dataset: dataset.map_batches(function, batch_format="pyarrow", batch_size=None)

    first = stream.stream_to_table(rows, uri, build=build("first", ("003.dcm", "007.dcm")), **arguments)
    second = stream.stream_to_table(rows, uri, build=build("second", ("007.dcm",)), **arguments)
    third = stream.stream_to_table(rows, uri, build=build("third", ()), **arguments)
    fourth = stream.stream_to_table(rows, uri, build=build("fourth", ()), **arguments)
    assert [first.n_retryable, second.n_retryable, third.n_retryable] == [2, 1, 0]
    assert third.counts == {"first": N_ROWS - 2, "second": 1, "third": 1}
    assert fourth == third
    assert len(tables.read(uri)) == N_ROWS


def test_retrying_rows_that_have_left_the_manifest_writes_nothing(ray_session, tmp_path, rows):
    from sarc_ray.distributed import stream

    def build(dataset):
        def function(batch):
            failed = pa.array([name.endswith("003.dcm") for name in batch["image_uri"].to_pylist()])
            named = batch.append_column("outcome", pa.array(["first"] * len(batch)))
            return named.append_column("retryable", failed)

        return dataset.map_batches(function, batch_format="pyarrow", batch_size=None)

    def write(manifest, version, **how):
        inputs = RowInputs(recipe="r", row_id_N=manifest["row_id"].to_numpy(), hash_N=row_hashes(manifest))
        return stream.stream_to_table(
            manifest,
            str(tmp_path / "table"),
            build=build,
            engine=engine_config(rows_per_block=64),
            version=version,
            lineage={"run_id": "r"},
            inputs=inputs,
            **how,
        )

    first = write(rows, "v1")
    fewer = rows[~rows["image_uri"].str.endswith("003.dcm")]
    assert first.n_retryable == len(rows) - len(fewer) == 1
    assert write(fewer, "v2", retry=True) == first
    assert [path.name for path in (tmp_path / "table" / "versions").iterdir()] == ["v1"]


def test_engine_settings_are_checked():
    with pytest.raises(ValueError, match="rows_per_block: found 0"):
        dataclasses.replace(engine_config(), rows_per_block=0)

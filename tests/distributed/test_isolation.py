"""Inside the engine's workers too, an image that hangs costs that image, and no process is left behind."""

import os
import time
from pathlib import Path

import pandas as pd
import pytest

from sarc_ray import tables
from sarc_ray.cohort.schema import row_id
from sarc_ray.distributed.prepare import prepare_images, read_limits
from sarc_ray.imaging import isolation
from sarc_ray.imaging.batch import prepare_rows
from tests import bundle_factory
from tests.dicom_factory import make_dicom
from tests.dicom_hostile import wide_voi
from tests.engine import engine_config

PREPROCESS = bundle_factory.SPEC.preprocess
N_ROWS = 12


@pytest.fixture
def rows(tmp_path):
    """Radiographs, and one object that would take a reader minutes."""
    uris = [str(tmp_path / f"{number:02d}.dcm") for number in range(N_ROWS)]
    for number, uri in enumerate(uris):
        Path(uri).write_bytes(wide_voi(2**20) if number == 5 else make_dicom())
    return pd.DataFrame({"row_id": [row_id(uri) for uri in uris], "image_uri": uris})


def reading_processes():
    """Processes that read images, by the process that started them."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if b"isolation_child" in path.read_bytes():
                parent = int(path.with_name("stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
                found[int(path.parent.name)] = parent
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


@pytest.mark.parametrize("rows_per_block", [5, 64])
def test_a_hanging_image_costs_one_row(ray_session, tmp_path, rows, rows_per_block):
    engine = engine_config(rows_per_block=rows_per_block, seconds_per_image=5.0)
    uri = str(tmp_path / "images")
    pointer = prepare_images(rows, uri, preprocess=PREPROCESS, engine=engine, version="v1", lineage={"run_id": "r"})
    assert pointer.n_rows == N_ROWS
    table = tables.read(uri)
    direct = prepare_rows(rows["row_id"].tolist(), rows["image_uri"].tolist(), PREPROCESS, read_limits(engine))
    pd.testing.assert_frame_equal(table, direct.to_pandas().sort_values("row_id", ignore_index=True))
    assert table["reason"].value_counts()["decoder_timeout"] == 1
    assert table.loc[table["reason"] == "decoder_timeout", "row_id"].tolist() == [rows["row_id"][5]]


def test_the_workers_children_end_with_them(ray_session):
    """The engine ends its workers without asking them, so that nothing of theirs runs at the end."""

    @ray_session.remote(num_cpus=1, max_retries=0)
    def read_and_tell():
        isolation.read_images([make_dicom()], PREPROCESS, read_limits(engine_config()))
        return os.getpid(), isolation.idle_pids()

    @ray_session.remote(num_cpus=1)
    class Reader:
        def read(self):
            isolation.read_images([make_dicom()], PREPROCESS, read_limits(engine_config()))
            return os.getpid(), isolation.idle_pids()

    parent, children = ray_session.get(read_and_tell.remote())
    again, same = ray_session.get(read_and_tell.remote())
    assert parent != again or children == same  # warm from task to task of one worker
    reader = Reader.remote()
    parent, children = ray_session.get(reader.read.remote())
    assert [reading_processes()[pid] for pid in children] == [parent]
    ray_session.kill(reader)
    for _ in range(200):
        if not set(children) & set(reading_processes()):
            break
        time.sleep(0.05)
    assert not set(children) & set(reading_processes())

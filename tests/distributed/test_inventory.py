"""The table of headers equals the direct one, at two block counts; the key stays out of Ray's files."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from sarc_ray import storage, tables
from sarc_ray.cohort.schema import row_id
from sarc_ray.distributed.inventory import read_all_heads
from sarc_ray.imaging.heads import head_rows
from tests.dicom_references import REFERENCES
from tests.engine import engine_config

KEY = b"a-key-to-be-looked-for-0123456789"


@pytest.fixture(scope="module")
def listing(s3_server):
    """Every kind of file in S3, and an object that is gone when its header is read."""
    records = []
    for reference in REFERENCES:
        uri = f"s3://tests/test_inventory/{reference.name}.dcm"
        data = reference.make()
        storage.write_bytes(uri, data)
        records.append({"row_id": row_id(uri), "image_uri": uri, "bytes": len(data)})
    gone = "s3://tests/test_inventory/gone.dcm"
    return pd.DataFrame([*records, {"row_id": row_id(gone), "image_uri": gone, "bytes": 5}])


@pytest.mark.parametrize("rows_per_block", [11, 500])
def test_distributed_equals_direct(ray_session, s3_url, listing, rows_per_block):
    direct = head_rows(*(listing[name].tolist() for name in ("row_id", "image_uri", "bytes")), key=KEY)
    seen = []
    arguments = {"key": KEY, "engine": engine_config(rows_per_block=rows_per_block), "version": "v1", "lineage": {}}
    pointer = read_all_heads(listing, s3_url, **arguments, progress=lambda done, total: seen.append((done, total)))
    expected = direct.to_pandas().sort_values("row_id", ignore_index=True)
    pd.testing.assert_frame_equal(tables.read(s3_url), expected, check_exact=True)
    assert pointer.n_rows == len(listing) == seen[-1][0]
    assert expected["reason"].nunique() > 8
    logs = [path for path in Path("/tmp/ray/session_latest/logs").rglob("*") if path.is_file()]
    assert logs
    assert [path.name for path in logs if KEY in path.read_bytes()] == []


def test_an_interrupted_inventory_can_go_on_where_there_is_one_core():
    """Ray Data's checkpoint takes a logical CPU for itself; with one in all, the work would wait for ever."""
    code = (
        "from sarc_ray.distributed import cluster\n"
        "from tests.engine import engine_config\n"
        "with cluster.session(engine_config(num_cpus=1)):\n"
        "    print(cluster.cpu_count())\n"
    )
    root = Path(__file__).parents[2]
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, timeout=120)
    assert ended.stdout.strip() == "2", ended.stderr

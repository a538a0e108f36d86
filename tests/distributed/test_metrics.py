"""The metrics that docs/how-to/watch-a-run.md names, asked for as Prometheus does while a table is written."""

import re
import threading
import time
import urllib.request
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from sarc_ray.distributed.stream import stream_to_table
from tests.engine import engine_config

PAGE = Path(__file__).parents[2] / "docs/how-to/watch-a-run.md"
ON_A_GPU = {"ray_node_gpus_utilization"}


class Actor:
    def __call__(self, table):
        time.sleep(1.0)
        return table


def outcomes(table):
    return table.append_column("outcome", pa.array(["scored"] * len(table))).append_column(
        "retryable", pa.array([False] * len(table))
    )


def served(port):
    """Largest value of each metric, over all its labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        lines = [line for line in answer.read().decode().splitlines() if line and not line.startswith("#")]
    found = {}
    for line in lines:
        name, value = re.split(r"[{ ]", line)[0], float(line.rsplit(" ", 1)[1])
        found[name] = max(found.get(name, value), value)
    return found


@pytest.mark.slow
def test_what_the_page_names_is_served(ray_session, tmp_path):
    named = set(re.findall(r"`(ray_[a-z_]+)`", PAGE.read_text(encoding="utf-8"))) - ON_A_GPU
    assert len(named) >= 8
    port = ray_session.nodes()[0]["MetricsExportPort"]
    most, over = {}, threading.Event()

    def scrape():
        while not over.wait(1.0):
            for name, value in served(port).items():
                most[name] = max(most.get(name, value), value)

    def build(dataset):
        pool = ray_session.data.ActorPoolStrategy(min_size=1, max_size=1)
        mapped = dataset.map_batches(outcomes, batch_format="pyarrow", batch_size=None)
        return mapped.map_batches(Actor, batch_format="pyarrow", num_cpus=0, compute=pool)

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        stream_to_table(
            pd.DataFrame({"row_id": np.arange(160)}),
            str(tmp_path / "table"),
            build=build,
            engine=engine_config(rows_per_block=4),
            version="v",
            lineage={"run_id": "r"},
        )
        time.sleep(10.0)  # longer than the engine takes between two reports
    finally:
        over.set()
        thread.join()
    assert named <= set(most)
    assert most["ray_data_output_rows"] >= 160
    assert most["ray_data_num_alive_actors"] >= 1
    assert most["ray_data_num_tasks_running"] >= 1

"""From seconds per row to hours, cost and bottleneck: sums that can be done in the head."""

import dataclasses

import numpy as np
import pytest

from sarc_ray.planning.estimate import Cluster, RowCost, error_of_mean, estimate

COST = RowCost(
    seconds={
        "fetch": 0.01,
        "isolate": 0.01,
        "decode": 0.06,
        "gate": 0.01,
        "preprocess": 0.02,
        "ensemble": 0.08,
        "stage2": 0.01,
    },
    request_cpu_seconds=0.01,
    core_seconds=0.0,
    n_bytes=1e6,
    error_share=0.1,
    on_gpu=False,
    threads=1,
)
NODES = Cluster(
    nodes=2,
    cpus=8,
    gpus=0.0,
    scorers=4,
    node_megabytes_per_second=None,
    store_megabytes_per_second=None,
    price_per_node_hour=None,
)


def foresee(cost=COST, cluster=NODES, **changes):
    return estimate(cost, dataclasses.replace(cluster, **changes), n_rows=36_000, start_seconds=100.0)


def test_cores_are_as_busy_as_the_node_was_seen_to_be():
    """0.20 core-seconds a row by the parts; what the node worked beyond these counts, what it worked less does not."""
    found = [foresee(dataclasses.replace(COST, core_seconds=seconds)) for seconds in (0.0, 0.15, 0.4)]
    parts = sum(COST.cpu_seconds().values())
    assert [estimate_.limits["cores"] for estimate_ in found] == pytest.approx([8 / parts, 8 / parts, 8 / 0.4])
    assert found[2].rows_per_second == pytest.approx(20.0)


def test_cores_that_all_share_are_the_limit():
    found = foresee(scorers=8)
    assert found.rows_per_second == pytest.approx(8 / 0.2)  # 0.01 + 0.10 + 0.09 CPU seconds a row
    assert found.seconds == pytest.approx(100 + 900)
    assert (found.seconds_low, found.seconds_high) == pytest.approx((100 + 810, 100 + 990))
    assert (found.bottleneck, found.cost) == ("decode", None)
    assert "50% of their time with decoding" in found.why


def test_a_price_makes_a_cost_and_more_nodes_cost_less_time():
    one = foresee(scorers=8, price_per_node_hour=3.6)
    assert one.cost == pytest.approx(2 * 3.6 * 1000 / 3600)
    ten = foresee(scorers=80, nodes=20, cpus=80, price_per_node_hour=3.6)
    assert ten.seconds == pytest.approx(100 + 90)
    assert ten.hours == pytest.approx(190 / 3600)


def test_few_ensembles_are_a_limit_of_the_networks():
    found = foresee(scorers=2)
    assert found.rows_per_second == pytest.approx(2 / 0.09)
    assert found.bottleneck == "network"


def test_a_slow_store_is_the_limit():
    slow = dataclasses.replace(COST, seconds={**COST.seconds, "fetch": 1.0})
    found = foresee(slow)
    assert (found.bottleneck, found.rows_per_second) == ("storage", pytest.approx(8.0))


@pytest.mark.parametrize(
    ("limits", "rate"),
    [
        ({"node_megabytes_per_second": 5.0}, 10.0),
        ({"store_megabytes_per_second": 4.0}, 4.0),
        ({"node_megabytes_per_second": 5.0, "store_megabytes_per_second": 40.0}, 10.0),
    ],
)
def test_bytes_are_a_limit_of_nodes_and_store(limits, rate):
    found = foresee(**limits)
    assert (found.bottleneck, found.rows_per_second) == ("storage", pytest.approx(rate))


def test_on_a_gpu_the_networks_take_no_core():
    on_gpu = dataclasses.replace(COST, on_gpu=True, seconds={**COST.seconds, "ensemble": 0.001})
    found = foresee(on_gpu, gpus=4.0, scorers=4)
    assert found.limits["cores"] == pytest.approx(8 / 0.12)
    assert (found.bottleneck, found.rows_per_second) == ("decode", pytest.approx(8 / 0.12))


def test_threads_of_an_ensemble_are_cores():
    assert foresee(dataclasses.replace(COST, threads=2)).limits["cores"] == pytest.approx(8 / 0.28)


def test_readers_alone_can_be_the_limit():
    # More cores than the cluster's own share would need: on a GPU, with requests that cost no CPU.
    cost = dataclasses.replace(
        COST, on_gpu=True, request_cpu_seconds=0.0, seconds={"fetch": 0.01, "decode": 0.1, "stage2": 0.0}
    )
    found = foresee(cost)
    assert (found.bottleneck, found.rows_per_second) == ("decode", pytest.approx(80.0))


def test_the_error_of_a_mean():
    assert error_of_mean(np.array([1.0, 3.0])) == pytest.approx(1.959964 * np.sqrt(2) / np.sqrt(2) / 2)
    assert error_of_mean(np.array([2.0])) == error_of_mean(np.zeros(5)) == 0.0

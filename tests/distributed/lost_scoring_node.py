"""Score a manifest on a cluster of three nodes, end one of them in the middle, and let another one join.

A process of its own; the request is JSON, and the last line of the output says what happened.
"""

import json
import os
import secrets
import sys
import tempfile
import threading
import time
from pathlib import Path

_LIMIT_S = 300


def replace_a_node(cluster, nodes, parts_of, told):
    """Wait for the first parts, end a node without warning, and add one."""
    deadline = time.monotonic() + _LIMIT_S
    while time.monotonic() < deadline:
        n_parts = len(parts_of())
        if n_parts:
            told["parts_when_killed"] = n_parts
            cluster.remove_node(nodes[0], allow_graceful=False)
            cluster.add_node(num_cpus=1, object_store_memory=10**8)
            return
        time.sleep(0.05)


def main(request):
    """Score; what the lost node had begun is done elsewhere."""
    token = Path(tempfile.mkdtemp(prefix="sarc-ray-")) / "token"
    token.write_text(secrets.token_hex(32))
    token.chmod(0o600)
    os.environ |= {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_health_check_period_ms": "500",
        # Five seconds: a node that lives must not count as lost because the machine is busy.
        "RAY_health_check_failure_threshold": "10",
    }
    import ray
    from ray.cluster_utils import Cluster

    from sarc_ray import pipeline, storage
    from sarc_ray.scoring_request import ScoringRequest, load_run_for, score_request

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 10**8})
    nodes = [cluster.add_node(num_cpus=1, object_store_memory=10**8) for _ in range(2)]
    told = {}
    asked = ScoringRequest(bundle=request["bundle"], manifest=request["manifest"], table=request["table"])
    settings = {"score.key_file": request["key_file"], "engine.address": cluster.address, "engine.rows_per_block": 2}
    run = load_run_for(asked, None, [*(f"{name}={value}" for name, value in settings.items()), "engine.scorers=2"])

    def parts():
        return [name for name in storage.list_files(f"{request['table']}/work", ".parquet") if "/parts/" in name]

    try:
        with pipeline.engine(run):
            told["nodes_before"] = sum(node["Alive"] for node in ray.nodes())
            killer = threading.Thread(target=replace_a_node, args=(cluster, nodes, parts, told))
            killer.start()
            told["record"] = score_request(asked, run)["facts"]["counts"]
            killer.join()
            told["nodes_after"] = sum(node["Alive"] for node in ray.nodes())
    finally:
        cluster.shutdown()
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))

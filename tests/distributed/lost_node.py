"""Train three members on a cluster of four nodes, and kill the node of the first one; a process of its own.

The folder given gets ``members/`` and ``told.json``: which node was killed, and how many epochs a member has.
"""

import json
import os
import secrets
import sys
import threading
import time
from pathlib import Path

EPOCHS = 10
_LIMIT_S = 120


def attempts_of(members: Path, index: int) -> list[dict]:
    """What the latest complete checkpoint of an index says of who trains its first target."""
    found = sorted(members.glob(f"work/*-m{index:02d}/checkpoint_*/attempts.json"))
    return json.loads(found[-1].read_text())["alm_kg"] if found else []


def kill_node_of(index: int, cluster, nodes, members: Path, told: dict) -> None:
    """Wait until the index has reported three checkpoints, then end its node without warning."""
    seen: set[str] = set()
    deadline = time.monotonic() + _LIMIT_S
    while time.monotonic() < deadline:
        seen |= {path.name for path in members.glob(f"work/*-m{index:02d}/checkpoint_*_*")}
        if len(seen) >= 3 and attempts_of(members, index):
            told["killed"] = attempts_of(members, index)[-1]["node"]
            (node,) = [node for node in nodes if node.node_id == told["killed"]]
            cluster.remove_node(node, allow_graceful=False)
            return
        time.sleep(0.1)


def main(folder: Path) -> None:
    """Train; what the killed node had begun goes on elsewhere."""
    token = folder / "token"
    token.write_text(secrets.token_hex(32))
    token.chmod(0o600)
    os.environ |= {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_health_check_period_ms": "500",
        "RAY_health_check_failure_threshold": "3",
    }
    from ray.cluster_utils import Cluster

    from sarc_ray.distributed import cluster as engine
    from sarc_ray.distributed.train import train_members
    from tests.distributed.members import make_images, make_task
    from tests.engine import engine_config

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 10**8})
    nodes = [cluster.add_node(num_cpus=1, object_store_memory=10**8) for _ in range(3)]
    told = {"epochs": EPOCHS, "killed": None}
    config = engine_config(address=cluster.address, members_at_once=2)
    try:
        with engine.session(config):
            killer = threading.Thread(target=kill_node_of, args=(0, cluster, nodes, folder / "members", told))
            killer.start()
            tasks = [make_task(index, epochs=EPOCHS) for index in range(3)]
            trained = train_members(tasks, make_images(), uri=str(folder / "members"), engine=config, fingerprint="f")
            killer.join()
            told["failed"] = [f"{member.name}: {member.error}" for member in trained.failed]
    finally:
        (folder / "told.json").write_text(json.dumps(told))
        cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))

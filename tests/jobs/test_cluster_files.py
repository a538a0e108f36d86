"""cluster.yaml and the RayJob: valid, of the version that the tests ran with, and closed to strangers."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
# What the AWS provider reads; the launcher's own check does not see unknown keys here.
AWS_PROVIDER_KEYS = {
    *("type", "region", "availability_zone", "cache_stopped_nodes", "use_internal_ips", "security_group"),
    *("cloudwatch", "disable_node_updaters"),
}


def read(name):
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def cluster():
    return read("cluster.yaml")


@pytest.fixture(scope="module")
def ray_version():
    return re.search(r"^ray==(.+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.M).group(1)


def test_the_launcher_accepts_cluster_yaml(cluster):
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(cluster))
    with pytest.raises(Exception, match="nonsense"):
        validate_config(prepare_config({**cluster, "nonsense": 1}))


def test_provider_keys_are_known(cluster):
    assert cluster["provider"]["type"] == "aws"
    assert set(cluster["provider"]) <= AWS_PROVIDER_KEYS


def test_cpu_and_gpu_nodes_autoscale(cluster):
    workers = {
        name: kind for name, kind in cluster["available_node_types"].items() if name != cluster["head_node_type"]
    }
    assert any(kind["resources"].get("GPU", 0) > 0 for kind in workers.values())
    assert any("GPU" not in kind["resources"] for kind in workers.values())
    for kind in workers.values():
        assert 0 == kind["min_workers"] < kind["max_workers"] <= cluster["max_workers"]


def test_nodes_are_set_up_from_the_constraints(cluster, ray_version):
    assert any("--constraint $HOME/sarc-ray/constraints.txt" in line for line in cluster["setup_commands"])
    images = [cluster["docker"]["image"]]
    images += [t["docker"]["worker_image"] for t in cluster["available_node_types"].values() if "docker" in t]
    assert all(re.fullmatch(rf"rayproject/ray:{ray_version}-py311-(cpu|gpu)", image) for image in images)


def test_every_node_asks_for_the_token_and_the_dashboard_is_closed(cluster):
    for commands in (cluster["head_start_ray_commands"], cluster["worker_start_ray_commands"]):
        (start,) = [line for line in commands if "ray start" in line]
        assert "RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$HOME/.sarc-ray/token" in start
        if "--head" in start:
            assert "--dashboard-host=127.0.0.1" in start
    text = (ROOT / "cluster.yaml").read_text(encoding="utf-8")
    assert "0.0.0.0" not in text
    assert not re.search(r"\d{12}|AKIA|arn:", text), "account numbers and keys do not belong here"


def test_the_ray_job_has_what_kuberay_needs(ray_version):
    job = read("docs/kuberay/rayjob.yaml")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec = job["spec"]
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["submissionMode"] == "K8sJobMode"
    assert spec["ttlSecondsAfterFinished"] > 0
    script = re.match(r"python (jobs/\w+\.py) ", spec["entrypoint"]).group(1)
    assert (ROOT / script).exists()
    assert set(yaml.safe_load(spec["runtimeEnvYAML"])) == {"working_dir"}
    cluster = spec["rayClusterSpec"]
    assert cluster["rayVersion"] == ray_version
    assert cluster["authOptions"] == {"mode": "token"}
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for group in groups:
        (container,) = group["template"]["spec"]["containers"]
        assert container["image"] == f"sarc-ray:ray-{ray_version}"
        assert {"cpu", "memory"} <= set(container["resources"]["limits"])
    assert f"FROM rayproject/ray:{ray_version}-py311-gpu" in (ROOT / "docs/kuberay/Dockerfile").read_text()

"""Starting, joining and leaving Ray."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from typing import Any

import ray
from ray._private import ray_constants
from ray.exceptions import AuthenticationError

from sarc_ray.distributed.settings import EngineConfig
from sarc_ray.errors import ConfigError

_ANSWER_LIMIT_S = 10.0
# Ray Data gives an actor of its own to the checkpoint of a job that goes on. It takes a logical CPU; with one in all
# the work itself would wait for ever.
_LOCAL_CPUS_MIN = 2
# Read when Ray starts. A report of a trainer is polled at this interval; the default of 2 s makes short trainings
# wait. The working folder stays the user's own, so that relative paths mean the same in a worker.
_ENVIRONMENT = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
}


@contextlib.contextmanager
def session(config: EngineConfig) -> Iterator[None]:
    """Hold a Ray connection for the length of the block; one that is open already is used and left open.

    Raises:
        ConfigError: ``engine.address`` names a cluster that cannot be joined.
    """
    if ray.is_initialized():
        yield
        return
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    local = config.address == "local"
    _require_answer(config.address)
    try:
        with _without_greeting():
            _init(config.address, config.num_cpus if local else None)
            if local and cpu_count() < _LOCAL_CPUS_MIN:
                ray.shutdown()
                _init(config.address, _LOCAL_CPUS_MIN)
    except ConnectionError as error:
        raise _no_cluster(config.address, error) from error
    except AuthenticationError as error:
        raise ConfigError(
            f"engine.address: the cluster at {config.address!r} refuses this process ({error}); "
            "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH to the cluster's token"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _init(address: str, num_cpus: int | None) -> None:
    with _on_this_machine_alone() if address == "local" else contextlib.nullcontext():
        ray.init(
            address=address,
            num_cpus=num_cpus,
            include_dashboard=False if address == "local" else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )


@contextlib.contextmanager
def _on_this_machine_alone() -> Iterator[None]:
    """Let what Ray starts listen on 127.0.0.1, as it does by itself on macOS and Windows; on Linux it is open to all.

    The address cannot be given: Ray takes 127.0.0.1 for a request to look for one that others reach.
    """
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def _require_answer(address: str) -> None:
    """Knock first: Ray itself tries for many minutes, deaf to Ctrl-C, where nobody listens."""
    named = os.environ.get("RAY_ADDRESS", address) if address == "auto" else address
    host, separator, port = named.rpartition("://")[2].rpartition(":")
    if not separator or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_LIMIT_S).close()
    except OSError as error:
        raise _no_cluster(named, error) from error


def _no_cluster(address: str, error: OSError) -> ConfigError:
    return ConfigError(
        f"engine.address: no Ray cluster answers at {address!r} ({error}); "
        "start one with 'ray start --head', or use --set engine.address=local"
    )


@contextlib.contextmanager
def _without_greeting() -> Iterator[None]:
    """Ray's core announces its own log level on the process's stderr while it starts; nobody needs to read it.

    It writes below Python, so the file descriptor itself is turned away. Failures come as exceptions all the same.
    """
    saved = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)


def node_resources() -> list[dict[str, float]]:
    """What each node that is up has in all, for example ``{"CPU": 8.0, "GPU": 1.0}``."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def largest_node(resource: str = "CPU") -> dict[str, Any]:
    """The node that is up with the most of a resource, as Ray describes it: ``NodeID``, ``Resources`` and more."""
    nodes: list[dict[str, Any]] = [node for node in ray.nodes() if node["Alive"]]
    return max(nodes, key=lambda node: node["Resources"].get(resource, 0.0))


def cpu_count() -> int:
    """Logical CPUs of the whole cluster."""
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def gpu_count() -> float:
    """GPUs of the whole cluster."""
    return float(ray.cluster_resources().get("GPU", 0.0))

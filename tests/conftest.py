"""What all tests share: one Ray for the whole session, a real S3 server, the data beside the checkout."""

import os
from pathlib import Path

import pytest

from sarc_ray.object_server import environment_variables, serve_s3

SHARED = Path(__file__).parents[2] / "shared"
BUCKET = "tests"


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory):
    """Environment of a real S3 server on 127.0.0.1; it is up before Ray, so that Ray's workers know it too."""
    with serve_s3(tmp_path_factory.mktemp("s3"), bucket=BUCKET) as environment, environment_variables(environment):
        yield environment


@pytest.fixture(scope="session")
def ray_session(s3_server):
    """A local Ray with two CPUs."""
    import ray

    from sarc_ray.distributed import cluster
    from tests.engine import engine_config

    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    with cluster.session(engine_config(num_cpus=2)):
        yield ray


@pytest.fixture
def s3_url(s3_server, request):
    """A folder of its own in the bucket."""
    return f"s3://{BUCKET}/{request.node.name.replace('[', '-').replace(']', '')}"


@pytest.fixture(scope="session")
def shared():
    """The folder of real radiographs and weights beside the checkout."""
    if not SHARED.exists():
        pytest.skip(f"real radiographs are not there: {SHARED.name}/ beside the checkout is absent")
    return SHARED

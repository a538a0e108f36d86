import os
import socket
import urllib.error
import urllib.request

import pytest

from sarc_ray.errors import StorageError
from sarc_ray.object_server import environment_variables, serve_s3


def test_it_listens_on_this_machine_only_and_stops(tmp_path):
    with serve_s3(tmp_path, bucket="b") as environment:
        url = environment["AWS_ENDPOINT_URL"]
        assert url.startswith("http://127.0.0.1:")
        with pytest.raises(urllib.error.HTTPError, match="HTTP Error 4"):
            urllib.request.urlopen(f"{url}/b", timeout=5)
    port = int(url.rsplit(":", 1)[1])
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_variables_are_put_back(monkeypatch):
    monkeypatch.setenv("SARC_TEST_A", "before")
    with environment_variables({"SARC_TEST_A": "during", "SARC_TEST_B": "during"}):
        assert (os.environ["SARC_TEST_A"], os.environ["SARC_TEST_B"]) == ("during", "during")
    assert os.environ["SARC_TEST_A"] == "before"
    assert "SARC_TEST_B" not in os.environ


def test_a_missing_program_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StorageError, match="rclone was not found"), serve_s3(tmp_path, bucket="b"):
        pass

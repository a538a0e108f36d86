"""One archive for the tests of the room."""

import pytest

from tests.exporting.archive import make_archive


@pytest.fixture(scope="session")
def archive(tmp_path_factory):
    return make_archive(tmp_path_factory.mktemp("export"))


@pytest.fixture(autouse=True)
def _no_key_of_the_surroundings(monkeypatch):
    monkeypatch.delenv("SARC_RAY_KEY", raising=False)

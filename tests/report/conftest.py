import pytest

from tests.report.sample import make_report


@pytest.fixture(scope="session")
def report():
    return make_report()

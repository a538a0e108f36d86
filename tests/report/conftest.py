import pytest

from sarc_ray.report import html
from tests.report.sample import make_report


@pytest.fixture(scope="session")
def report():
    return make_report()


@pytest.fixture(scope="session")
def parts(report):
    """Drawing takes seconds: once for all tests that change other things."""
    return html.sections(report)


@pytest.fixture(scope="session")
def folder(tmp_path_factory, report, parts):
    """A written report."""
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(html, "sections", lambda _: parts)
        html.write_report(str(folder), report)
    return folder

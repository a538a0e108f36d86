"""A scored cohort, and its results by the plan of :func:`tests.evaluation.cohorts.make_config`."""

import pytest

from tests.evaluation.cohorts import evaluate, scored_cohort


@pytest.fixture(scope="module")
def cohort():
    return scored_cohort()


@pytest.fixture(scope="module")
def results(cohort):
    return evaluate(cohort[0], truth=cohort[1])

import pytest

from sarc_ray.simulate.cohort import Drawn, simulate_features

N_PATIENTS = 20_000


@pytest.fixture(scope="session")
def drawn_derivation() -> Drawn:
    return simulate_features(N_PATIENTS, cohort="derivation", seed=20230214)


@pytest.fixture(scope="session")
def drawn_external() -> Drawn:
    # As many are excluded as stay, and an ideal is computed for all of them: 20,000 stay.
    return simulate_features(N_PATIENTS, cohort="external", seed=20230214)

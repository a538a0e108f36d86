"""Engine settings and limits of reading for tests."""

from sarc_ray.distributed.settings import EngineConfig
from sarc_ray.imaging.isolation import ReadLimits

READ_LIMITS = ReadLimits(seconds_per_image=60.0, mebibytes_per_image=1024)


def engine_config(**changes):
    values = {
        "address": "local",
        "num_cpus": 2,
        "gpus_per_member": 0.0,
        "members_at_once": None,
        "member_retries": 2,
        "checkpoint_interval_s": 0.0,
        "trials_at_once": None,
        "gpus_per_boosted_trial": 0,
        "rows_per_block": 16,
        "seconds_per_fetch": 120.0,
        "seconds_per_image": 60.0,
        "mebibytes_per_image": 1024,
        "scorers": 1,
        "gpus_per_scorer": 0.0,
        "scorer_threads": 1,
    }
    return EngineConfig(**(values | changes))

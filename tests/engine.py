"""Engine settings for tests."""

from sarc_ray.distributed.settings import EngineConfig


def engine_config(**changes):
    values = {
        "address": "local",
        "num_cpus": 2,
        "gpus_per_member": 0.0,
        "members_at_once": None,
        "member_retries": 2,
        "checkpoint_interval_s": 0.0,
        "trials_at_once": None,
        "rows_per_block": 16,
        "scorers": 1,
        "gpus_per_scorer": 0.0,
        "scorer_threads": 1,
    }
    return EngineConfig(**(values | changes))

import functools

import numpy as np
import pandas as pd
import pytest

from sarc_ray.distributed import bootstrap as engine
from sarc_ray.evaluation.plan import make_plan
from sarc_ray.evaluation.results import evaluate_by_plan
from sarc_ray.stats import bootstrap
from sarc_ray.stats.resampling import Block, plan_blocks
from sarc_ray.stats.scored_sample import prepare_sample, replicate_metrics
from tests.evaluation.cohorts import make_config, scored_cohort


def rows(n=3000, seed=1):
    rng = np.random.default_rng(seed)
    score = rng.beta(2, 5, n)
    return (rng.random(n) < score).astype(float), score, score >= 0.3


@pytest.mark.parametrize("patient", [None, np.arange(3000) // 2])
@pytest.mark.parametrize("n_boot", [70, 230])  # two blocks, and five
def test_the_engine_gives_what_one_process_gives(ray_session, patient, n_boot):
    settings = {"n_boot": n_boot, "confidence_level": 0.95, "seed": 4, "patient": patient, "kind": "bca"}
    direct = bootstrap.bootstrap_metrics(*rows(), **settings)
    assert bootstrap.bootstrap_metrics(*rows(), **settings, map_blocks=engine.map_blocks) == direct
    label, score, flag = rows()
    pair = (label, score, flag, score[::-1], flag[::-1])
    direct = bootstrap.bootstrap_differences(*pair, **settings)
    assert bootstrap.bootstrap_differences(*pair, **settings, map_blocks=engine.map_blocks) == direct


def test_the_number_of_workers_changes_nothing(ray_session):
    """One worker is two blocks that wait for each other: each asks for all CPUs of the session."""
    sample, blocks = prepare_sample(*rows()), plan_blocks(200, seed=2)
    replicate = functools.partial(replicate_metrics, sample)
    task = ray_session.remote(num_cpus=2)(replicate_metrics)
    held = ray_session.put(sample)
    one_worker = np.concatenate(ray_session.get([task.remote(held, block) for block in blocks]))
    two_workers = np.concatenate(list(engine.map_blocks(replicate, blocks)))
    assert len(blocks) == 4
    np.testing.assert_array_equal(one_worker, two_workers)
    np.testing.assert_array_equal(two_workers, np.concatenate(list(map(replicate, blocks))))


def test_a_whole_evaluation_is_the_same_on_the_engine(ray_session):
    frame, truth = scored_cohort(n=400)
    plan = make_plan(make_config(n_boot=120, subgroups=("sex",), age_band_edges_years=()), ["alm_kg"])
    settings = {"dataset": "test_internal", "seed": 3, "run_id": "run-1", "truth": truth}
    spread = evaluate_by_plan(frame, plan, map_blocks=engine.map_blocks, **settings)
    pd.testing.assert_frame_equal(spread, evaluate_by_plan(frame, plan, **settings), rtol=1e-12)


def test_an_error_of_a_statistic_is_the_callers(ray_session):
    def fails(block: Block):
        raise ValueError(f"no figure for {block.n_replicates} replicates")

    with pytest.raises(ValueError, match="no figure for 50 replicates"):
        list(engine.map_blocks(fails, plan_blocks(60, seed=1)))

"""Features pooled over the cluster equal those of one process, at two chunk sizes."""

import numpy as np
import pytest

from sarc_ray.distributed import ood
from sarc_ray.stage1.checkpoint import member_from_bytes
from sarc_ray.stage1.ensemble import pooled_features
from sarc_ray.stage1.settings import FitConfig
from tests import bundle_factory
from tests.engine import engine_config
from tests.stage1.toy import FIT


@pytest.mark.parametrize("batches_per_task", [1, 16])
def test_distributed_equals_direct(ray_session, monkeypatch, batches_per_task):
    monkeypatch.setattr(ood, "_BATCHES_PER_TASK", batches_per_task)
    member = bundle_factory.make_members(3)["alm_kg"][0]
    x_NSS, _ = bundle_factory.make_pictures(45, rng=np.random.default_rng(1))
    fit = FitConfig(**(FIT | {"batch_size": 8}))
    expected = pooled_features(member_from_bytes(member), x_NSS, batch_size=8, device="cpu", threads=1)
    found = ood.pooled_features_of(member, x_NSS, fit=fit, engine=engine_config())
    np.testing.assert_array_equal(found, expected)

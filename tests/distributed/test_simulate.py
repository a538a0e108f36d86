from pathlib import Path

from sarc_ray.distributed.simulate import simulate_cohorts
from sarc_ray.simulate.cohort import SimulateConfig
from sarc_ray.simulate.writer import simulate

SMALL = {"derivation_n": 6, "external_n": 3, "archive_n": 5, "size_px": 64}


def content(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(Path(folder).rglob("*.dcm"))}


def test_distributed_equals_direct_at_two_chunk_sizes(ray_session, tmp_path):
    simulate(SimulateConfig(**SMALL, chunk_size=100), uri=str(tmp_path / "direct"), seed=3)
    expected = content(tmp_path / "direct")
    assert len(expected) > 14
    for chunk_size in (2, 5):
        folder = tmp_path / str(chunk_size)
        seen = []
        manifests = simulate_cohorts(
            SimulateConfig(**SMALL, chunk_size=chunk_size),
            str(folder),
            seed=3,
            progress=lambda done, total: seen.append((done, total)),  # noqa: B023
        )
        assert content(folder) == expected
        assert set(manifests) == {"derivation", "external", "archive"}
        assert seen[-1][0] >= seen[-1][1]

import numpy as np
import pandas as pd
import pytest

from sarc_ray.errors import ManifestError, Reason
from sarc_ray.imaging.judge import CLASSES, judge_from_bytes
from sarc_ray.judging import measure, sources, strange, train
from sarc_ray.judging.pictures import POSES, as_taken, cropped, in_pose, label_of, torn
from sarc_ray.simulate.detector import DEVICES, Header, to_dicom

SIZE_PX = sources.SIZE_PX


@pytest.fixture(scope="module")
def chest() -> np.ndarray:
    return sources.phantoms(1, seed=3)[0]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> str:
    """Six simulated radiographs, two of each split."""
    folder = tmp_path_factory.mktemp("radiographs")
    rows = []
    for index, gray_HW in enumerate(sources.phantoms(6, seed=4)):
        header = Header(
            patient_id=f"P{index}",
            study_id="S",
            image_key=str(index),
            sex="F",
            age_years=70.0,
            acquired_on="2020-01-01",
            view="PA",
            body_part="CHEST",
            site="hospital-a",
        )
        (folder / f"{index}.dcm").write_bytes(to_dicom(gray_HW, device=DEVICES[index], header=header))
        split = ("train", "tune", "test_internal")[index // 2]
        rows.append({"image_uri": f"{index}.dcm", "patient_id": f"P{index}", "split": split, "view": "PA"})
    frame = pd.DataFrame(rows).assign(any_finding=[0, 1] * 3)
    frame.to_csv(folder / "manifest.csv", index=False)
    return str(folder / "manifest.csv")


@pytest.mark.parametrize("kind", [*sources.KINDS, *sources.HELD_OUT_PARTS, *sources.HELD_OUT_STRANGE])
def test_every_kind_is_drawn_from_its_seed_alone(chest, kind):
    photographs = sources.photographs()
    first, again, other = (
        sources.not_a_chest(kind, chest, photographs, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.shape == (SIZE_PX, SIZE_PX)
    assert first.dtype == np.float32
    assert first.min() >= -1e-6
    assert first.max() <= 1 + 1e-6


def test_kinds_that_are_held_out_are_not_learned_from():
    assert not set(sources.KINDS) & {*sources.HELD_OUT_PARTS, *sources.HELD_OUT_STRANGE}
    assert set(strange.DRAWERS) == {name for name in strange.DRAWERS if name in sources.KINDS} | {"grating"}


def test_poses_are_turns_counter_clockwise_and_inversions(chest):
    np.testing.assert_array_equal(in_pose(chest, "upright"), chest)
    np.testing.assert_array_equal(in_pose(chest, "turned_90"), np.rot90(chest))
    np.testing.assert_array_equal(in_pose(chest, "turned_270_inverted"), 1 - np.rot90(chest, 3))
    assert len({in_pose(chest, pose).tobytes() for pose in POSES}) == len(POSES) == 8
    assert [label_of(name) for name in (*CLASSES, "page")] == [*range(9), 8]


def test_a_varied_chest_stays_a_chest_and_a_torn_one_does_not(chest):
    def likeness(change):
        return np.mean(
            [
                max(np.corrcoef(chest.ravel(), side.ravel())[0, 1] for side in (varied, varied[:, ::-1]))
                for varied in (change(chest, np.random.default_rng(seed)) for seed in range(40))
            ]
        )

    assert likeness(as_taken) > 0.5 > 0.4 > max(likeness(torn), likeness(cropped))


def test_a_split_is_read_and_another_is_refused(manifest):
    tune = sources.read_split(manifest, "tune")
    assert tune.pictures_NSS.shape == (2, SIZE_PX, SIZE_PX)
    assert tune.frame["patient_id"].tolist() == ["P2", "P3"]
    with pytest.raises(ManifestError, match="column 'split' is 'validation'"):
        sources.read_split(manifest, "validation")


def test_training_is_repeatable_and_learns(manifest):
    recipe = train.Recipe(epochs=2, pictures=128, phantoms=4, seed=7)
    data = train.train(manifest, recipe)
    assert data == train.train(manifest, recipe)
    assert len(data) < 500_000
    assert len(judge_from_bytes(data).probabilities(np.zeros((64, 64), np.float32))) == len(CLASSES)


def test_tables_count_what_was_refused():
    rows = [
        measure.Row(title="one", counts=measure.Counter({Reason.NONE: 3, Reason.ROTATED: 1})),
        measure.Row(title="two", counts=measure.Counter({Reason.NONE: 2})),
    ]
    table = measure.to_markdown({"Section": rows})
    assert table.splitlines() == [
        "### Section",
        "",
        "| picture | n | passes | `rotated` | refused, % (95% interval) |",
        "| --- | --- | --- | --- | --- |",
        "| one | 4 | 3 | 1 | 25.0 (0.6 to 80.6) |",
        "| two | 2 | 2 |  | 0.0 (0.0 to 84.2) |",
    ]


def test_untouched_radiographs_of_test_patients_alone_are_measured(manifest):
    everyone, ap, pa, found, without = measure.untouched(manifest)
    assert (everyone.n, ap.n, pa.n, found.n, without.n) == (2, 0, 2, 1, 1)
    assert everyone.refused == 0

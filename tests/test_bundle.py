import dataclasses
import json
import subprocess
import sys
import uuid
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sarc_ray import storage
from sarc_ray.bundle import (
    load_bundle,
    read_manifest_of,
    require_preprocessing,
    verify_bundle,
)
from sarc_ray.errors import BundleError, EvaluationError, SchemaVersionError
from sarc_ray.stage2.model import Stage2Model
from sarc_ray.stage2.thresholds import RULES
from tests.bundle_factory import (
    SPEC,
    TARGETS,
    make_distilled,
    make_members,
    make_ood,
    make_pictures,
    make_stage2,
    write_tested,
)

GOLDEN = Path(__file__).parent / "golden" / "bundle"
# What may differ between machines: rounding of single-precision networks, far below any meaning of a score.
SCORE_TOLERANCE = 1e-5  # absolute, for probabilities
STAGE1_TOLERANCE = 1e-4  # relative, for kg, s, their variances and per cent
MEMBER = "stage1/crt_s/member-01.safetensors"


@pytest.fixture(scope="module")
def members() -> dict[str, list[bytes]]:
    return make_members(5)


@pytest.fixture(scope="module")
def stage2(members) -> Stage2Model:
    return make_stage2(members, 5)


@pytest.fixture
def uri(tmp_path, members, stage2) -> str:
    return write_tested(str(tmp_path / "bundle"), members, stage2)


def _with_threshold(stage2: Stage2Model, threshold: float) -> Stage2Model:
    return dataclasses.replace(stage2, thresholds=(dataclasses.replace(stage2.point, threshold=threshold),))


def _edit(uri: str, change) -> None:
    path = storage.join(uri, "bundle.json")
    value = storage.read_json(path)
    change(value)
    storage.write_json(path, value)


def test_golden_bundle_gives_its_golden_scores():
    """The same bundle and pictures give the same scores on every machine (see golden/make_bundle.py)."""
    bundle = load_bundle(str(GOLDEN / "model"))
    expected = pd.read_csv(GOLDEN / "scores.csv")
    scores = bundle.score(np.load(GOLDEN / "images.npy"), pd.read_csv(GOLDEN / "clinical.csv"), device="cpu")
    assert list(scores.columns) == list(expected.columns)
    probabilities = ["raw_score", "score"]
    np.testing.assert_allclose(scores[probabilities], expected[probabilities], rtol=0, atol=SCORE_TOLERANCE)
    stage1 = [name for name in expected.columns if name not in [*probabilities, "flag"]]
    assert len(stage1) == 11
    np.testing.assert_allclose(scores[stage1], expected[stage1], rtol=STAGE1_TOLERANCE)
    assert scores["flag"].tolist() == expected["flag"].tolist()
    assert scores["flag"].nunique() == 2
    assert sum(path.stat().st_size for path in GOLDEN.rglob("*") if path.is_file()) < 1_000_000


def test_a_written_bundle_verifies_and_holds_what_was_given(uri, members, stage2):
    manifest = verify_bundle(uri)
    assert manifest == read_manifest_of(uri)
    assert manifest.spec == SPEC
    assert manifest.threshold == stage2.threshold
    assert set(manifest.files) == {
        "model_card.md",
        "stage2/model.skops",
        "stage1/ood.safetensors",
        *(f"stage1/{t}/member-0{k}.safetensors" for t in ("alm_kg", "crt_s") for k in (0, 1)),
    }
    assert storage.read_bytes(storage.join(uri, MEMBER)) == members["crt_s"][1]


def test_score_is_stage_one_then_stage_two(uri, stage2):
    from sarc_ray.stage1.checkpoint import members_from_bytes
    from sarc_ray.stage1.ensemble import predict_members, prediction_columns
    from sarc_ray.stage2.features import build_features

    images_NSS, clinical = make_pictures(11, rng=np.random.default_rng(0))
    clinical.index = range(100, 111)
    scores = load_bundle(uri).score(images_NSS, clinical, device="cpu")
    frame = clinical
    for target, scale in zip(TARGETS, SPEC.sigma_scale, strict=True):
        files = [storage.read_bytes(f"{uri}/stage1/{target.name}/member-0{k}.safetensors") for k in (0, 1)]
        mu_MN, sigma_MN = predict_members(members_from_bytes(files), images_NSS, batch_size=8, device="cpu")
        columns = prediction_columns(target.name, mu_MN, sigma_MN, positive=True, sigma_scale=scale)
        frame = frame.assign(**columns)
    X = build_features(frame, SPEC.clinical_features, ["alm_kg", "crt_s"])
    raw_N, score_N = stage2.predict(X)
    for name in ("alm_kg_sigma", "alm_kg_uncertainty_pct", "crt_s_uncertainty_pct"):
        np.testing.assert_allclose(scores[name], frame[name])
    np.testing.assert_allclose(scores["raw_score"], raw_N)
    np.testing.assert_allclose(scores["score"], score_N)
    np.testing.assert_array_equal(scores["flag"], score_N >= stage2.threshold)
    assert list(scores.index) == list(range(100, 111))


def test_a_row_does_not_depend_on_its_neighbours(uri):
    bundle = load_bundle(uri)
    images_NSS, clinical = make_pictures(11, rng=np.random.default_rng(0))
    whole = bundle.score(images_NSS, clinical, device="cpu")
    alone = [bundle.score(images_NSS[i : i + 1], clinical.iloc[i : i + 1], device="cpu") for i in range(11)]
    pd.testing.assert_frame_equal(pd.concat(alone), whole, check_exact=True)


def test_the_distance_is_of_the_first_member_and_larger_for_what_is_no_picture(uri):
    from sarc_ray.stage1.checkpoint import member_from_bytes
    from sarc_ray.stage1.ensemble import pooled_features
    from sarc_ray.stage1.ood import reference_from_bytes

    images_NSS, clinical = make_pictures(40, rng=np.random.default_rng(0))
    noise_NSS = np.random.default_rng(1).integers(0, 256, (40, 32, 32), dtype=np.uint8)
    bundle = load_bundle(uri)
    ordinary, noise = (bundle.score(x, clinical, device="cpu")["ood_distance"] for x in (images_NSS, noise_NSS))
    member = member_from_bytes(storage.read_bytes(f"{uri}/stage1/alm_kg/member-00.safetensors"))
    reference = reference_from_bytes(storage.read_bytes(f"{uri}/stage1/ood.safetensors"))
    expected_N = reference.distance(pooled_features(member, images_NSS, batch_size=8, device="cpu"))
    np.testing.assert_array_equal(ordinary, expected_N)
    assert noise.min() > ordinary.max()
    assert noise.median() > 5 * ordinary.median()


def test_score_refuses_what_does_not_fit(uri):
    bundle = load_bundle(uri)
    images_NSS, clinical = make_pictures(3, rng=np.random.default_rng(0))
    with pytest.raises(BundleError, match="pictures of 32 x 32"):
        bundle.score(images_NSS[:, :16], clinical)
    with pytest.raises(BundleError, match="2 clinical rows"):
        bundle.score(images_NSS, clinical.iloc[:2])
    with pytest.raises(EvaluationError, match="'bmi_kg_m2' is missing or infinite in 1 rows"):
        bundle.score(images_NSS, clinical.assign(bmi_kg_m2=[20.0, np.nan, 30.0]), device="cpu")


def test_model_id_is_of_the_content(tmp_path, members, stage2):
    first, again = (write_tested(str(tmp_path / name), members, stage2) for name in ("a", "b"))
    model_id = read_manifest_of(first).model_id
    assert read_manifest_of(again).model_id == model_id
    swapped = {name: files[::-1] for name, files in members.items()}
    variants = {
        "threshold": (members, _with_threshold(stage2, 0.5), SPEC),
        "members": (swapped, stage2, SPEC),
        "preprocess": (
            members,
            stage2,
            dataclasses.replace(SPEC, preprocess=dataclasses.replace(SPEC.preprocess, clahe_tiles=2)),
        ),
        "age": (members, stage2, dataclasses.replace(SPEC, age_min_years=65.0)),
        "sigma_scale": (members, stage2, dataclasses.replace(SPEC, sigma_scale=(1.1, 1.2))),
        "ood_threshold": (members, stage2, dataclasses.replace(SPEC, ood_threshold=2.0)),
        "ood": (members, stage2, SPEC, make_ood(members, 6)),
    }
    ids = {read_manifest_of(write_tested(str(tmp_path / name), *parts)).model_id for name, parts in variants.items()}
    assert len(ids | {model_id}) == 8


@pytest.mark.parametrize("path", [MEMBER, "stage1/ood.safetensors", "stage2/model.skops", "model_card.md"])
def test_an_altered_file_is_named_with_both_hashes(uri, path):
    expected = read_manifest_of(uri).files[path]
    data = bytearray(storage.read_bytes(storage.join(uri, path)))
    data[-1] ^= 1
    storage.write_bytes(storage.join(uri, path), bytes(data))
    with pytest.raises(BundleError, match=f"{path}: expected sha256 {expected}, found "):
        verify_bundle(uri)
    if path != "model_card.md":
        with pytest.raises(BundleError, match=f"{path}: expected sha256 {expected}, found "):
            load_bundle(uri)


def test_every_problem_is_named_at_once(uri):
    storage.remove_tree(storage.join(uri, MEMBER))
    storage.write_text(storage.join(uri, "stage1/alm_kg/extra.pkl"), "x")
    storage.write_text(storage.join(uri, "model_card.md"), "x")
    with pytest.raises(BundleError) as caught:
        verify_bundle(uri)
    for problem in (f"{MEMBER}: missing", "stage1/alm_kg/extra.pkl: not part", "model_card.md: expected sha256"):
        assert problem in str(caught.value)
    with pytest.raises(BundleError, match=r"member-01\.safetensors cannot be read"):
        load_bundle(uri)


def test_hashes_that_were_changed_with_the_file_do_not_help(uri, members, stage2, tmp_path):
    other = write_tested(str(tmp_path / "other"), members, _with_threshold(stage2, 0.01))
    storage.write_bytes(f"{uri}/stage2/model.skops", storage.read_bytes(f"{other}/stage2/model.skops"))
    _edit(
        uri,
        lambda value: value["files"].update(
            {"stage2/model.skops": read_manifest_of(other).files["stage2/model.skops"]}
        ),
    )
    with pytest.raises(BundleError, match="expected model_id"):
        verify_bundle(uri)


def test_all_thresholds_are_in_the_bundle_and_one_is_in_force(tmp_path, members, stage2, uri):
    manifest = read_manifest_of(uri)
    assert [point["rule"] for point in manifest.thresholds] == list(RULES)
    assert [point["rule"] for point in manifest.thresholds if point["in_force"]] == ["youden"]
    other = dataclasses.replace(stage2, in_force="specificity")
    found = load_bundle(write_tested(str(tmp_path / "other"), members, other))
    assert found.stage2.in_force == "specificity"
    assert found.manifest.threshold == stage2.thresholds[RULES.index("specificity")].threshold != stage2.threshold
    assert found.model_id != manifest.model_id
    card = storage.read_text(storage.join(str(tmp_path / "other"), "model_card.md"))
    assert f"A score of {other.threshold:.4f} or more is flagged (specificity of 0.9 or more" in card
    assert sum(line.endswith("| in force |") for line in card.splitlines()) == 1
    assert "| at most 1000 flagged of 10,000 |" in card


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value.update(threshold=0.123),
        lambda value: value["thresholds"][2].update(sensitivity=0.999),
        lambda value: value["calibration"].update(ici=0.0),
    ],
)
def test_what_the_manifest_says_of_calibration_and_thresholds_is_what_the_model_says(uri, change):
    _edit(uri, change)
    with pytest.raises(BundleError, match=r"bundle\.json says (threshold|calibration)"):
        verify_bundle(uri)


@pytest.mark.parametrize("path", ["../../secret", "stage2/other.skops", "/etc/passwd"])
def test_a_manifest_cannot_name_other_files(uri, path):
    _edit(uri, lambda value: value["files"].update({path: "0" * 64}))
    with pytest.raises(BundleError, match="lists other files"):
        load_bundle(uri)


@pytest.mark.parametrize(
    ("version", "remedy"),
    [
        (1, r"write it anew \(sarc-ray train and tune\)"),
        (2, r"write it anew \(sarc-ray train and tune\)"),
        (4, "install a newer sarc-ray"),
    ],
)
def test_bundles_of_other_schema_versions_are_refused(uri, version, remedy):
    _edit(uri, lambda value: value.update(schema_version=version, unknown=1))  # before any key is looked at
    with pytest.raises(SchemaVersionError, match=f"schema version {version}, this release reads 3 alone; {remedy}"):
        read_manifest_of(uri)


def test_every_setting_of_the_preprocessing_is_stated(uri):
    _edit(uri, lambda value: value["spec"]["preprocess"].pop("pixel_gate"))
    with pytest.raises(BundleError, match=r"pixel_gate: this key is missing"):
        load_bundle(uri)


def test_damaged_and_absent_manifests(uri, tmp_path):
    with pytest.raises(BundleError, match="no bundle here"):
        verify_bundle(str(tmp_path / "nothing"))
    _edit(uri, lambda value: value.update(unknown=1))
    with pytest.raises(BundleError, match="unknown: unknown key"):
        load_bundle(uri)
    storage.write_text(storage.join(uri, "bundle.json"), "{}")
    with pytest.raises(BundleError, match=r"bundle\.json is damaged"):
        load_bundle(uri)
    storage.write_text(storage.join(uri, "bundle.json"), json.dumps([1]))
    with pytest.raises(BundleError, match=r"bundle\.json is damaged"):
        load_bundle(uri)


def test_an_interrupted_write_leaves_no_bundle(uri, members, stage2, monkeypatch):
    written = []

    def fail_on_stage2(path: str, data: bytes) -> None:
        written.append(path)
        if path.endswith(".skops"):
            raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(storage, "write_bytes", fail_on_stage2)
        with pytest.raises(OSError, match="no space left"):
            write_tested(uri, members, stage2)
    assert len(written) == 6
    with pytest.raises(BundleError, match="not written to its end"):
        load_bundle(uri)
    assert verify_bundle(write_tested(uri, members, stage2)).model_id


def test_a_bundle_replaces_a_bundle_and_nothing_else(uri, members, stage2, tmp_path):
    three = make_members(5, members=3)
    write_tested(uri, three, stage2)
    write_tested(uri, members, stage2)  # the third members are gone
    verify_bundle(uri)
    storage.write_text(str(tmp_path / "home" / "thesis.txt"), "years of work")
    with pytest.raises(BundleError, match=r"holds 'thesis\.txt', which is no bundle's"):
        write_tested(str(tmp_path / "home"), members, stage2)
    assert storage.exists(str(tmp_path / "home" / "thesis.txt"))


def test_parts_that_do_not_fit_are_refused(tmp_path, members, stage2):
    target = str(tmp_path / "bundle")
    with pytest.raises(BundleError, match="found targets"):
        write_tested(target, {"alm_kg": members["alm_kg"]}, stage2)
    with pytest.raises(BundleError, match="crt_s has 1, needed are 2"):
        write_tested(target, {**members, "crt_s": members["crt_s"][:1]}, stage2)
    with pytest.raises(BundleError, match="one of alm_kg predicts crt_s"):
        write_tested(target, {**members, "alm_kg": members["crt_s"]}, stage2)
    with pytest.raises(BundleError, match="stage 2 uses age_years"):
        write_tested(target, members, stage2, dataclasses.replace(SPEC, clinical_features=("age_years",)))
    smaller = dataclasses.replace(SPEC, preprocess=dataclasses.replace(SPEC.preprocess, size_px=16))
    with pytest.raises(BundleError, match="knows pictures of"):
        write_tested(target, members, stage2, smaller)
    with pytest.raises(BundleError, match="other convolutions than those of the first member of alm_kg"):
        write_tested(target, {**members, "alm_kg": members["alm_kg"][::-1]}, stage2, ood=make_ood(members, 5))
    with pytest.raises(BundleError, match="reference of training pictures: damaged"):
        write_tested(target, members, stage2, ood=b"x")
    assert not storage.exists(target)


def test_other_preprocessing_is_refused():
    require_preprocessing(SPEC, SPEC.preprocess)
    with pytest.raises(
        BundleError, match=r"preprocess\.clahe_clip_limit: found 3\.0, the bundle was trained with 2\.0"
    ):
        require_preprocessing(SPEC, dataclasses.replace(SPEC.preprocess, clahe_clip_limit=3.0))


def test_any_store_will_do(members, stage2):
    uri = write_tested(f"memory://{uuid.uuid4().hex}/bundle", members, stage2)
    verify_bundle(uri)
    storage.write_text(storage.join(uri, "stage1/further.txt"), "x")
    with pytest.raises(BundleError, match=r"stage1/further\.txt: not part of the bundle"):
        verify_bundle(uri)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": ()}, "targets: found"),
        ({"batch_size": 0}, "batch_size: found 0"),
        ({"sigma_scale": (1.0,)}, "sigma_scale: found"),
        ({"sigma_scale": (1.0, 0.0)}, "sigma_scale: found"),
        ({"ood_threshold": 0.0}, "ood_threshold: found 0.0"),
    ],
)
def test_spec_names_what_is_wrong(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SPEC, **change)


def test_the_gate_of_pixels_is_part_of_the_model(tmp_path, members, stage2, uri):
    gated = dataclasses.replace(SPEC, preprocess=dataclasses.replace(SPEC.preprocess, pixel_gate=True))
    other = write_tested(str(tmp_path / "gated"), members, stage2, spec=gated)
    assert verify_bundle(other).model_id != verify_bundle(uri).model_id
    with pytest.raises(BundleError, match=r"preprocess\.pixel_gate: found False, the bundle was trained with True"):
        require_preprocessing(gated, SPEC.preprocess)
    _edit(other, lambda value: value["spec"]["preprocess"].update(pixel_gate=False))
    with pytest.raises(BundleError, match="altered"):
        load_bundle(other)


def test_importing_and_reading_a_manifest_needs_no_torch():
    code = f"""
import sys
from sarc_ray.bundle import read_manifest_of
assert read_manifest_of({str(GOLDEN / "model")!r}).schema_version == 3
assert not {{"torch", "ray", "sklearn", "skops"}} & set(sys.modules)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_a_distilled_network_is_a_bundle_of_its_own_kind(tmp_path, members, stage2):
    parts, spec = make_distilled(8), dataclasses.replace(SPEC, stage1="distilled")
    uri = write_tested(str(tmp_path / "bundle"), parts, stage2, spec)
    manifest = verify_bundle(uri)
    assert manifest.spec.stage1 == "distilled"
    assert [path for path in sorted(manifest.files) if "member" in path] == [
        "stage1/alm_kg/member-00.safetensors",
        "stage1/crt_s/member-00.safetensors",
    ]
    bundle = load_bundle(uri)
    assert [len(of_target) for of_target in bundle.members] == [1, 1]
    assert bundle.members[0][0].network.backbone is bundle.members[1][0].network.backbone
    images_NSS, clinical = make_pictures(11, rng=np.random.default_rng(0))
    scores = bundle.score(images_NSS, clinical, device="cpu")
    ensemble = load_bundle(write_tested(str(tmp_path / "ensemble"), members, stage2)).score(images_NSS, clinical)
    assert list(scores.columns) == list(ensemble.columns)
    assert scores.notna().all(axis=None)
    assert "stage1: distilled." in storage.read_text(storage.join(uri, "model_card.md"))


def test_what_is_no_distilled_network_is_refused_as_one(tmp_path, members, stage2):
    target = str(tmp_path / "bundle")
    parts, spec = make_distilled(8), dataclasses.replace(SPEC, stage1="distilled")
    with pytest.raises(BundleError, match="alm_kg has 2, needed is 1 of a distilled network"):
        write_tested(target, members, stage2, spec)
    single = {name: of_target[:1] for name, of_target in members.items()}
    with pytest.raises(BundleError, match="one of alm_kg is an ordinary one; stage1 of the bundle is distilled"):
        write_tested(target, single, stage2, spec)
    twice = {name: of_target * 2 for name, of_target in parts.items()}
    with pytest.raises(BundleError, match="one of alm_kg answers for 2 members; stage1 of the bundle is ensemble"):
        write_tested(target, twice, stage2)


def test_the_identity_of_an_ensemble_is_what_it_was_before_there_were_other_kinds(uri):
    assert storage.read_json(storage.join(uri, "bundle.json"))["spec"]["stage1"] == "ensemble"
    model_id = read_manifest_of(uri).model_id
    _edit(uri, lambda value: value["spec"].pop("stage1"))
    assert load_bundle(uri).model_id == model_id
    assert load_bundle(uri).spec.stage1 == "ensemble"

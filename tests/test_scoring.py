import contextlib
import dataclasses

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from sarc_ray import bundle_scoring, stages, storage
from sarc_ray.bundle import load_bundle, write_bundle
from sarc_ray.errors import ConfigError, Reason
from sarc_ray.imaging.batch import IMAGE_SCHEMA
from sarc_ray.run import load_run
from sarc_ray.scoring import clinical_reasons, resolve_clinical, score_rows, score_schema
from sarc_ray.stage2.explain import TopReasons, make_explainer, shap_values
from tests.bundle_factory import SPEC, make_members, make_ood, make_pictures, make_stage2

FEATURES = ("age_years", "sex", "bmi_kg_m2")


def frame(**columns):
    return pd.DataFrame(columns)


def test_the_manifest_comes_before_the_header():
    rows = frame(
        age_years=[60.0, np.nan, np.nan],
        header_age_years=[50.0, 55.0, np.nan],
        header_sex=["F", "M", None],
        bmi_kg_m2=[22.0, np.nan, 24.0],
        header_bmi_kg_m2=[30.0, 31.0, 32.0],
    )
    clinical = resolve_clinical(rows, FEATURES)
    np.testing.assert_array_equal(clinical["age_years"], [60.0, 55.0, np.nan])
    assert clinical["bmi_kg_m2"].tolist() == [22.0, 31.0, 24.0]
    assert clinical["sex"].tolist()[:2] == ["F", "M"]
    assert clinical["sex"].isna().tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"age_years": 61.0, "sex": "F", "bmi_kg_m2": 22.0}, Reason.NONE),
        ({"age_years": np.nan, "sex": "F", "bmi_kg_m2": 22.0}, Reason.MISSING_AGE),
        ({"age_years": 61.0, "sex": None, "bmi_kg_m2": 22.0}, Reason.MISSING_SEX),
        ({"age_years": 61.0, "sex": "F", "bmi_kg_m2": np.nan}, Reason.MISSING_BMI),
        ({"age_years": np.nan, "sex": None, "bmi_kg_m2": np.nan}, Reason.MISSING_AGE),
        ({"age_years": 39.9, "sex": "F", "bmi_kg_m2": 22.0}, Reason.AGE_BELOW_MINIMUM),
        ({"age_years": 40.0, "sex": "F", "bmi_kg_m2": 22.0}, Reason.NONE),
        ({"age_years": 39.9, "sex": "F", "bmi_kg_m2": np.nan}, Reason.MISSING_BMI),
        ({"age_years": 61.0, "sex": "F", "view": "LLD"}, Reason.IMPLAUSIBLE_FEATURE),
        ({"age_years": 61.0, "sex": "F", "view": None}, Reason.MISSING_VIEW),
        ({"age_years": 61.0, "sex": "F", "view": "PA"}, Reason.NONE),
    ],
)
def test_why_a_row_abstains(row, reason):
    assert clinical_reasons(pd.DataFrame([row]), age_min_years=40.0).tolist() == [reason]


def test_the_score_table_has_plain_columns_only():
    schema = score_schema(("age_years", "sex", "view"), ["alm_kg"], n_reasons=2)
    assert len(schema.names) == len(set(schema.names))
    assert {str(kind) for kind in schema.types} <= {"int64", "string", "bool", "double"}
    assert not {"patient_id", "image_uri", "study_id"} & set(schema.names)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """Two bundles that differ in this alone: one refuses pictures at a distance above 3, the other none."""
    folder = tmp_path_factory.mktemp("bundles")
    members = make_members(2)
    parts = {"members": members, "ood": make_ood(members, 2), "stage2": make_stage2(members, 2)}
    for name, threshold in (("refuses", 3.0), ("measures", None)):
        spec = dataclasses.replace(SPEC, ood_threshold=threshold)
        write_bundle(str(folder / name), **parts, spec=spec, metrics={}, lineage={})
    return {name: load_bundle(str(folder / name)) for name in ("refuses", "measures")}


def image_rows(images_NSS, clinical):
    """Readable rows of the image table with the manifest's columns."""
    n = len(images_NSS)
    columns = {name: pa.nulls(n, kind) for name, kind in zip(IMAGE_SCHEMA.names, IMAGE_SCHEMA.types, strict=True)}
    columns |= {
        "row_id": pa.array(range(n), pa.int64()),
        "outcome": pa.array(["scored"] * n),
        "reason": pa.array([""] * n),
        "retryable": pa.array([False] * n),
        "image": pa.array([image.tobytes() for image in images_NSS], pa.binary()),
    }
    return pa.table(columns | {name: pa.array(clinical[name], from_pandas=True) for name in clinical})


def test_a_manifests_age_and_view_are_held_to_the_gates_rules(bundles):
    images_NSS, clinical = make_pictures(4, rng=np.random.default_rng(4))
    clinical["age_years"] = [70.0, 17.9, 18.0, 12.0]
    batch = image_rows(images_NSS, clinical.assign(view=["PA", "PA", "PA", "LL"]))
    flags = pa.array(["", "ap_view", "view_unknown", "ap_view,portable_ap"])
    batch = batch.set_column(batch.column_names.index("gate_flags"), "gate_flags", flags)
    scored = score_rows(batch, bundles["measures"], run_id="r").to_pandas()
    assert scored["reason"].tolist() == ["", "paediatric", "age_below_minimum", "lateral_view"]
    assert scored["outcome"].tolist() == ["scored", "rejected", "abstained", "rejected"]
    assert scored["gate_flags"].tolist() == flags.to_pylist()


def test_a_picture_unlike_the_training_pictures_gets_its_distance_and_nothing_else(bundles):
    rng = np.random.default_rng(4)
    ordinary_NSS, clinical = make_pictures(6, rng=rng)
    images_NSS = np.concatenate([ordinary_NSS[:3], rng.integers(0, 256, (2, 32, 32), dtype=np.uint8), ordinary_NSS[5:]])
    clinical.loc[5, "bmi_kg_m2"] = np.nan
    tables = {
        name: score_rows(image_rows(images_NSS, clinical), bundle, run_id="r") for name, bundle in bundles.items()
    }
    refuses, measures = (tables[name].to_pandas() for name in ("refuses", "measures"))
    assert refuses["reason"].tolist() == ["", "", "", "out_of_distribution", "out_of_distribution", "missing_bmi"]
    assert refuses["outcome"].tolist() == ["scored"] * 3 + ["abstained"] * 3
    assert not refuses["retryable"].any()
    made = [name for name in refuses if name.startswith(("alm_kg_", "crt_s_"))] + ["raw_score", "score", "flag"]
    assert refuses.loc[:2, made].notna().all().all()
    assert refuses.loc[3:, made].isna().all().all()
    assert refuses.loc[3:4, "ood_distance"].min() > 3.0 > refuses.loc[:2, "ood_distance"].max()
    assert np.isnan(refuses.loc[5, "ood_distance"])
    assert measures["reason"].tolist() == [""] * 5 + ["missing_bmi"]
    pd.testing.assert_series_equal(measures["ood_distance"], refuses["ood_distance"])
    pd.testing.assert_frame_equal(measures.loc[:2, made], refuses.loc[:2, made])


def test_reasons_stand_in_scored_rows_alone_and_change_nothing_else(bundles):
    rng = np.random.default_rng(4)
    bundle = bundles["refuses"]
    ordinary_NSS, clinical = make_pictures(6, rng=rng)
    images_NSS = np.concatenate([ordinary_NSS[:3], rng.integers(0, 256, (2, 32, 32), dtype=np.uint8), ordinary_NSS[5:]])
    clinical.loc[5, "bmi_kg_m2"] = np.nan
    batch = image_rows(images_NSS, clinical)
    top = TopReasons(make_explainer(bundle.stage2), 3)
    plain = score_rows(batch, bundle, run_id="r")
    table = score_rows(batch, bundle, run_id="r", top_reasons=top)
    added = [f"reason_{k}{end}" for k in (1, 2, 3) for end in ("", "_shap")]
    assert set(table.column_names) - set(plain.column_names) == set(added)
    assert table.select(plain.column_names).equals(plain)
    for name in added:
        assert table[name].is_null().to_pylist() == [False] * 3 + [True] * 3
    scored = table.to_pandas().iloc[:3]
    explanation = shap_values(bundle.stage2, bundle.features(scored))
    for row in range(3):
        for k in (1, 2, 3):
            value = explanation.values[row, explanation.feature_names.index(scored[f"reason_{k}"][row])]
            assert value == scored[f"reason_{k}_shap"][row]
        largest = np.sort(np.abs(explanation.values[row]))[::-1][:3]
        np.testing.assert_array_equal(np.abs([scored[f"reason_{k}_shap"][row] for k in (1, 2, 3)]), largest)


def test_a_batch_of_strange_pictures_alone(bundles):
    _, clinical = make_pictures(4, rng=np.random.default_rng(4))
    noise_NSS = np.random.default_rng(5).integers(0, 256, (4, 32, 32), dtype=np.uint8)
    top = TopReasons(make_explainer(bundles["refuses"].stage2), 2)
    table = score_rows(image_rows(noise_NSS, clinical), bundles["refuses"], run_id="r", top_reasons=top)
    assert table["reason"].to_pylist() == ["out_of_distribution"] * 4
    assert table["reason_1"].null_count == table["reason_2_shap"].null_count == 4
    assert table["flag"].null_count == table["score"].null_count == 4


def test_another_number_of_reasons_or_precision_is_another_version(bundles, tmp_path, monkeypatch):
    """Of the table, whatever was scored; and the stages of a run notice it."""
    asked = []
    monkeypatch.setattr(bundle_scoring.cluster, "session", lambda engine: contextlib.nullcontext())
    monkeypatch.setattr(bundle_scoring, "score_manifest", lambda *_, **settings: asked.append(settings))
    storage.write_text(str(tmp_path / "manifest.csv"), "image_uri,patient_id\n")
    manifest = pd.DataFrame({"row_id": [1], "image_uri": ["a.dcm"], "patient_id": ["p"]})
    spec_uri = str(tmp_path / "bundle")
    members = make_members(2)
    parts = {"members": members, "ood": make_ood(members, 2), "stage2": bundles["measures"].stage2}
    write_bundle(spec_uri, **parts, spec=SPEC, metrics={}, lineage={})
    fingerprints = []
    for n_reasons, precision in ((0, "float32"), (3, "float32"), (3, "float32"), (3, "bfloat16")):
        settings = [f"run.directory={tmp_path}", f"score.reasons={n_reasons}", "data.external=null"]
        settings.append(f"score.precision={precision}")
        data = [f"data.{name}={tmp_path / 'manifest.csv'}" for name in ("derivation", "archive")]
        run = load_run("demo", [*settings, *data])
        bundle_scoring.score_rows_with_bundle(manifest, bundle_uri=spec_uri, table_uri="t", key=b"k" * 32, run=run)
        fingerprints.append([stages.fingerprint(run, f"score-{name}") for name in ("test_internal", "archive")])
    assert [settings["n_reasons"] for settings in asked] == [0, 3, 3, 3]
    assert asked[0]["version"] != asked[1]["version"] == asked[2]["version"] != asked[3]["version"]
    assert (asked[2]["precision"], asked[3]["precision"]) == ("float32", "bfloat16")
    assert len({settings["inputs"].recipe for settings in asked}) == 3
    assert set(fingerprints[2]).isdisjoint(fingerprints[3])
    assert fingerprints[1] == fingerprints[2]
    assert not set(fingerprints[0]) & set(fingerprints[1])
    with pytest.raises(ConfigError, match="reasons: found -1, allowed: 0"):
        load_run("demo", ["score.reasons=-1"])

import numpy as np
import pandas as pd
import pytest

from sarc_ray.cohort.definitions import OutcomeConfig, low_crt, low_hgs, outcome_labels
from sarc_ray.simulate.cohort import (
    DEFECTS,
    Drawn,
    SimulateConfig,
    count_patients,
    draw_rows,
    simulate_features,
)

# Ryu et al. 2023, Table 1: (with, without sarcopenia); CRT is a median, the others are means.
TABLE_1 = {
    "derivation": {
        "age_years": (65.6, 60.7),
        "bmi_kg_m2": (20.8, 23.2),
        "almi_kg_m2": (5.4, 6.6),
        "hgs_kg": (17.7, 25.1),
        "crt_s": (12.7, 9.1),
        "women": (116 / 141, 584 / 785),
    },
    "external": {
        "age_years": (74.7, 71.2),
        "bmi_kg_m2": (16.6, 19.3),
        "almi_kg_m2": (5.5, 6.8),
        "hgs_kg": (21.5, 27.1),
        "crt_s": (13.0, 9.3),
        "women": (15 / 18, 80 / 131),
    },
}


def _eligible(drawn: Drawn) -> pd.DataFrame:
    """One row per eligible patient, manifest and truth side by side."""
    frame = pd.concat([drawn.manifest, drawn.truth.drop(columns="image_uri")], axis=1)
    frame = frame[(frame["role"] == "eligible") & frame["image_uri"].str.endswith("_1.dcm")].copy()
    frame["almi_kg_m2"] = frame["alm_kg"] / frame["height_m"] ** 2
    frame["women"] = (frame["sex"] == "F").astype(float)
    frame["outcome"] = outcome_labels(frame, OutcomeConfig(definition="awgs2019", column=None))
    return frame


@pytest.fixture(scope="module")
def derivation(drawn_derivation: Drawn) -> pd.DataFrame:
    return _eligible(drawn_derivation)


@pytest.fixture(scope="module")
def external(drawn_external: Drawn) -> pd.DataFrame:
    return _eligible(drawn_external)


@pytest.mark.parametrize("variable", list(TABLE_1["derivation"]))
@pytest.mark.parametrize(("cohort", "tolerance"), [("derivation", 0.05), ("external", 0.10)])
def test_both_groups_look_like_table_1(request, cohort, tolerance, variable):
    frame = request.getfixturevalue(cohort)
    for outcome, expected in zip((1, 0), TABLE_1[cohort][variable], strict=True):
        values = frame.loc[frame["outcome"] == outcome, variable]
        found = values.median() if variable == "crt_s" else values.mean()
        assert found == pytest.approx(expected, rel=tolerance), (outcome, found)


def test_prevalence_of_sarcopenia(derivation, external):
    assert len(derivation) == len(external) == 20_000
    assert 0.13 <= derivation["outcome"].mean() <= 0.17
    assert 0.10 <= external["outcome"].mean() <= 0.14


def test_components_are_near_the_papers(derivation):
    # Printed shares of the whole derivation cohort: low HGS 233/926, low CRT 223/926.
    assert low_hgs(derivation).mean() == pytest.approx(233 / 926, abs=0.03)
    assert low_crt(derivation).mean() == pytest.approx(223 / 926, abs=0.03)


def test_true_outcome_is_the_manifests(derivation):
    assert (derivation["outcome"] == derivation["outcome_true"]).all()


def test_comorbidity_by_group(derivation, external):
    def share(frame, name, outcome):
        return frame.loc[frame["outcome"] == outcome, name].mean()

    assert share(derivation, "osteoporosis", 1) == pytest.approx(0.77, abs=0.03)
    assert share(derivation, "osteoporosis", 0) == pytest.approx(0.59, abs=0.02)
    assert share(external, "previous_fracture", 1) == pytest.approx(0.33, abs=0.04)
    assert share(external, "diabetes", 0) == pytest.approx(0.18, abs=0.02)


def test_sarc_f_discriminates_as_in_the_paper(derivation, external):
    scores = derivation["sarc_f"]
    assert set(scores.unique()) <= set(range(11))
    ranks = scores.rank()
    n_sick = int(derivation["outcome"].sum())
    n_well = len(derivation) - n_sick
    rank_sum = ranks[derivation["outcome"] == 1].sum()
    auroc = (rank_sum - n_sick * (n_sick + 1) / 2) / (n_sick * n_well)
    assert auroc == pytest.approx(0.691, abs=0.02)
    assert "sarc_f" not in external


def test_flow_has_the_papers_counts():
    drawn = simulate_features(926, cohort="derivation", seed=3)
    patients = drawn.truth.assign(patient=drawn.manifest["patient_id"]).drop_duplicates("patient")
    counts = patients["role"].value_counts()
    assert counts["eligible"] == 926
    assert counts["under_40"] == 58
    assert counts["no_function"] == 92
    frame = drawn.manifest.assign(role=drawn.truth["role"])
    assert (frame.loc[frame["role"] == "under_40", "age_years"] < 40).all()
    assert (frame.loc[frame["role"] != "under_40", "age_years"] >= 40).all()
    assert frame.loc[frame["role"] == "no_function", ["hgs_kg", "crt_s"]].isna().all(axis=None)
    late = frame["role"] == "late"
    assert (frame.loc[late, "gap_days"] > 90).all()
    assert frame.loc[~late, "gap_days"].between(0, 90).all()


def test_some_patients_have_two_images():
    manifest = simulate_features(1000, cohort="derivation", seed=4).manifest
    images = manifest["patient_id"].value_counts()
    assert 0.03 < (images == 2).mean() < 0.07
    assert images.max() == 2
    same_person = manifest.groupby("patient_id")[["alm_kg", "age_years"]].nunique().max().max()
    assert same_person == 1


@pytest.mark.parametrize("cohort", ["derivation", "external", "archive"])
def test_rows_do_not_depend_on_how_work_is_cut(cohort):
    whole = simulate_features(60, cohort=cohort, seed=11)
    n = count_patients(cohort, 60)
    cuts = [range(0, 7), range(7, 50), range(50, n)]
    parts = [draw_rows(cut, cohort=cohort, eligible_n=60, seed=11) for cut in cuts]
    pd.testing.assert_frame_equal(whole.manifest, pd.concat([p.manifest for p in parts], ignore_index=True))
    truth = pd.concat([p.truth for p in parts], ignore_index=True)
    pd.testing.assert_frame_equal(whole.truth, truth, rtol=1e-9)


def test_seeds_differ():
    first, second = (simulate_features(50, cohort="archive", seed=seed).manifest for seed in (1, 2))
    assert not first["age_years"].equals(second["age_years"])


def test_archive_is_unlabelled_and_has_its_stated_defects():
    drawn = simulate_features(6000, cohort="archive", seed=5)
    assert len(drawn.manifest) == 6000
    assert not {"alm_kg", "hgs_kg", "crt_s", "sarc_f", "gap_days"} & set(drawn.manifest.columns)
    shares = drawn.truth["role"].value_counts(normalize=True)
    for defect, share in DEFECTS.items():
        assert shares[defect] == pytest.approx(share, abs=4 * np.sqrt(share / 6000))
    role = drawn.truth["role"]
    assert drawn.manifest.loc[role == "missing_bmi", "bmi_kg_m2"].isna().all()
    assert drawn.manifest.loc[role == "missing_age", "age_years"].isna().all()
    assert (drawn.manifest.loc[role == "lateral", "view"] == "LATERAL").all()


def test_ideal_is_not_given_for_people_outside_the_law():
    truth = simulate_features(300, cohort="derivation", seed=6).truth
    young = truth["role"] == "under_40"
    assert young.any()
    ideal = truth[["alm_kg_ideal_mu", "crt_s_ideal_sigma", "bayes_score"]]
    assert ideal[young].isna().all(axis=None)
    assert ideal[~young].notna().all(axis=None)


def test_an_empty_cohort_is_no_error():
    drawn = simulate_features(0, cohort="external", seed=1)
    assert len(drawn.manifest) == 0


@pytest.mark.parametrize(
    ("change", "field"),
    [({"external_n": -1}, "external_n"), ({"size_px": 20}, "size_px"), ({"chunk_size": 0}, "chunk")],
)
def test_config_names_the_wrong_field(change, field):
    good = {"derivation_n": 10, "external_n": 5, "archive_n": 5, "size_px": 128, "chunk_size": 4}
    with pytest.raises(ValueError, match=field):
        SimulateConfig(**{**good, **change})

"""Drawing patients: manifests that look like the paper's, and the truth behind them.

Every row is drawn from a generator of its own, seeded by (seed, cohort, patient, image), so that the result
depends neither on the size of a chunk nor on the order of work. The three cohorts:

- ``derivation``: eligible patients and, in the paper's proportions, those that its study flow excludes.
- ``external``: community-dwelling people of 65 and over, other parameters, other devices.
- ``archive``: unlabelled, of the derivation kind, with a small share of rows that no score can use (``DEFECTS``).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import bdtr

from sarc_ray.cohort.definitions import OutcomeConfig, outcome_labels
from sarc_ray.simulate.detector import DEVICES
from sarc_ray.simulate.ideal import Visible, bayes_score, draw_visible, ideal_moments
from sarc_ray.simulate.law import CHANNELS, DERIVATION, EXTERNAL, N_FACTORS, CohortLaw, FloatArray

CohortName = Literal["derivation", "external", "archive"]
COHORTS: tuple[CohortName, ...] = ("derivation", "external", "archive")
LAWS: dict[str, CohortLaw] = {"derivation": DERIVATION, "external": EXTERNAL, "archive": DERIVATION}

# Patients beside the eligible ones, per eligible one. Derivation: Figure 1 of the paper (1076 with a radiograph
# within three months, 58 under 40, 92 without muscle function, 926 left) and some with a radiograph too long ago,
# whom the paper does not count. External: 298 with a radiograph, 149 with complete measurements.
EXCLUDED_SHARES: dict[str, dict[str, float]] = {
    "derivation": {"under_40": 58 / 926, "no_function": 92 / 926, "late": 40 / 926},
    "external": {"no_measurement": 149 / 149},
    "archive": {},
}
# Share of archive rows that no score can use, or only with the header's help, by what is wrong with them.
DEFECTS: dict[str, float] = {
    "under_40": 0.03,
    "lateral": 0.01,
    "other_body_part": 0.003,
    "truncated": 0.002,
    "not_dicom": 0.002,
    "missing_object": 0.003,
    "missing_bmi": 0.01,
    "age_in_header_only": 0.01,
    "missing_age": 0.002,
}
# Share of patients of the labelled cohorts with a second radiograph.
SECOND_IMAGE_SHARE = 0.05
_UNDER_40_YEARS = (18.0, 39.9)
_GAP_MAX_DAYS, _LATE_GAP_DAYS = 90, (91, 240)
_ARCHIVE_FOLDER_IMAGES = 10_000
_SITES = {
    "derivation": ("hospital-a",),
    "external": ("community-b",),
    "archive": ("hospital-a", "hospital-c", "clinic-d"),
}
_FIRST_DAY_AND_SPAN = {
    "derivation": (dt.date(2020, 1, 2), 540),
    "external": (dt.date(2012, 3, 5), 1300),
    "archive": (dt.date(2012, 1, 2), 4300),
}
_AP_SHARE = {"derivation": 0.0, "external": 0.0, "archive": 0.08}
# SARC-F: binomial(10, p), the logit of p linear in frailty; chosen by hand. AUROC 0.68 to 0.70 over three seeds of
# 20,000 patients (the paper: 0.691).
_SARC_F_LOGIT, _SARC_F_SLOPE, _SARC_F_NOISE = -1.9, 0.62, 0.95
_PATIENT_UNIFORMS = ("sex", "age", "second", "site", "sarc_f", "role", *DERIVATION.comorbidity)
_IMAGE_UNIFORMS = ("haze", "gap", "day", "device", "view")
_NO_FUNCTION = ("no_function", "no_measurement")


@dataclass(frozen=True, kw_only=True, slots=True)
class SimulateConfig:
    """Size of the built-in cohort.

    Args:
        derivation_n: eligible patients of the derivation cohort (those who are excluded come on top); 0 for none.
        external_n: eligible patients of the external cohort.
        archive_n: images of the unlabelled archive.
        size_px: height of the pictures; the width follows the detector.
        chunk_size: patients written by one task.
    """

    derivation_n: int
    external_n: int
    archive_n: int
    size_px: int
    chunk_size: int

    def __post_init__(self) -> None:
        for name in ("derivation_n", "external_n", "archive_n"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: found {getattr(self, name)}, allowed: 0 or more")
        if not 64 <= self.size_px <= 4096:
            raise ValueError(f"size_px: found {self.size_px}, allowed: 64 to 4096")
        if self.chunk_size < 1:
            raise ValueError(f"chunk_size: found {self.chunk_size}, allowed: 1 or more")

    def eligible_n(self, cohort: CohortName) -> int:
        """Eligible patients (images, in the archive) of a cohort."""
        return {"derivation": self.derivation_n, "external": self.external_n, "archive": self.archive_n}[cohort]


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawn:
    """Rows of a manifest and, in the same order, the truth behind them, which no training step opens."""

    manifest: pd.DataFrame
    truth: pd.DataFrame


def count_patients(cohort: CohortName, eligible_n: int) -> int:
    """All patients of a cohort with so many eligible ones."""
    return eligible_n + sum(round(eligible_n * share) for share in EXCLUDED_SHARES[cohort].values())


def simulate_features(n: int, *, cohort: CohortName, seed: int) -> Drawn:
    """Draw a cohort without pictures: ``n`` eligible patients and those who are excluded, image by image.

    Args:
        n: eligible patients; images, in the archive.
        cohort: which of the three.
        seed: of the simulation.
    """
    return draw_rows(range(count_patients(cohort, n)), cohort=cohort, eligible_n=n, seed=seed)


def draw_rows(patients: Sequence[int], *, cohort: CohortName, eligible_n: int, seed: int) -> Drawn:
    """Draw some of a cohort's patients, one row per image.

    Args:
        patients: indices from 0 to :func:`count_patients` (exclusive).
        cohort: which of the three.
        eligible_n: eligible patients of the whole cohort.
        seed: of the simulation.

    Returns:
        ``manifest``: the columns of the manifest contract that the cohort has. ``truth``: ``image_uri``,
        ``age_years_true``, ``<target>_true``, ``<target>_ideal_mu``, ``<target>_ideal_sigma``, ``bayes_score``,
        ``outcome_true``, ``channel_<target>``, ``haze``, ``breast``, ``aorta`` and ``role`` ("eligible", or what
        is wrong with the row). Ideal values are NaN for people under 40, on whom the law of ages puts no mass.
    """
    law = LAWS[cohort]
    people = _People.draw(patients, cohort=cohort, eligible_n=eligible_n, seed=seed)
    body = _body(law, people)
    images = _Images.draw(people, cohort=cohort, seed=seed)
    owner = images.owner
    visible = draw_visible(
        law,
        targets_N3=np.column_stack([np.log(body["alm_kg"]), body["hgs_kg"], np.log(body["crt_s"])])[owner],
        male_N=people.male[owner],
        age_N=people.age_years[owner],
        noise_N5=images.noise_N5,
        haze_N=images.uniforms["haze"],
    )
    manifest = _manifest(cohort, people, body, images)
    truth = _truth(law, people, body, images, visible)
    truth.insert(0, "image_uri", manifest["image_uri"])
    return Drawn(manifest=manifest, truth=truth)


def row_rng(seed: int, cohort: CohortName, patient: int, image: int, *, purpose: int) -> np.random.Generator:
    """The generator of one row; ``image`` is 0 for what belongs to the patient."""
    key = (COHORTS.index(cohort), patient, image, purpose)
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


@dataclass(frozen=True, kw_only=True, slots=True)
class _People:
    """Variates of the patients; P patients, 5 factors."""

    index: npt.NDArray[np.int64]
    factors_P5: FloatArray
    frailty_noise: FloatArray
    uniforms: dict[str, FloatArray]
    role: npt.NDArray[np.str_]
    male: npt.NDArray[np.bool_]
    age_years: FloatArray

    @classmethod
    def draw(cls, patients: Sequence[int], *, cohort: CohortName, eligible_n: int, seed: int) -> _People:
        law = LAWS[cohort]
        normals = np.empty((len(patients), N_FACTORS + 1))
        uniforms = np.empty((len(patients), len(_PATIENT_UNIFORMS)))
        for row, patient in enumerate(patients):
            rng = row_rng(seed, cohort, patient, 0, purpose=0)
            normals[row] = rng.standard_normal(N_FACTORS + 1)
            uniforms[row] = rng.random(len(_PATIENT_UNIFORMS))
        named = dict(zip(_PATIENT_UNIFORMS, uniforms.T, strict=True))
        index = np.asarray(patients, dtype=np.int64)
        role = _archive_roles(named["role"]) if cohort == "archive" else _study_roles(cohort, eligible_n, seed)[index]
        low, high = _UNDER_40_YEARS
        young: FloatArray = low + (high - low) * named["age"]
        age: FloatArray = np.where(role == "under_40", young, law.ages(named["age"])).round(1)
        return cls(
            index=index,
            factors_P5=normals[:, :N_FACTORS],
            frailty_noise=normals[:, N_FACTORS],
            uniforms=named,
            role=role,
            male=named["sex"] < law.male_share,
            age_years=age,
        )


def _study_roles(cohort: CohortName, eligible_n: int, seed: int) -> npt.NDArray[np.str_]:
    """Why each patient is or is not eligible, in random order but with exact counts."""
    roles = ["eligible"] * eligible_n
    for reason, share in EXCLUDED_SHARES[cohort].items():
        roles += [reason] * round(eligible_n * share)
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(COHORTS.index(cohort),)))
    return rng.permutation(np.array(roles, dtype=np.str_))


def _archive_roles(uniform: FloatArray) -> npt.NDArray[np.str_]:
    edges = np.cumsum(list(DEFECTS.values()))
    names = np.array([*DEFECTS, "eligible"], dtype=np.str_)
    return names[np.searchsorted(edges, uniform, side="right")]


def _body(law: CohortLaw, people: _People) -> dict[str, FloatArray]:
    """Measurements of each patient, rounded as a clinic writes them."""
    deviations = np.stack([people.factors_P5 @ law.loadings(male).T for male in (False, True)])
    rows = np.arange(len(people.index))
    values = law.quantity_means(people.male, people.age_years) + deviations[people.male.astype(int), rows]
    log_alm, hgs, log_crt, log_almi, log_bmi = values.T
    height = np.round(np.exp((log_alm - log_almi) / 2.0), 3)
    weight = np.round(np.exp(log_bmi) * height**2, 1)
    return {
        "height_m": height,
        "weight_kg": weight,
        "bmi_kg_m2": np.round(weight / height**2, 2),
        "alm_kg": np.round(np.exp(log_alm), 2),
        # A dynamometer shows no less than its friction; fewer than one in 100,000 get here.
        "hgs_kg": np.maximum(np.round(hgs, 1), 1.0),
        "crt_s": np.round(np.exp(log_crt), 2),
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class _Images:
    """Variates of the images; ``owner`` points at the patients, ``number`` counts a patient's images from 1."""

    owner: npt.NDArray[np.int64]
    number: npt.NDArray[np.int64]
    noise_N5: FloatArray
    uniforms: dict[str, FloatArray]

    @classmethod
    def draw(cls, people: _People, *, cohort: CohortName, seed: int) -> _Images:
        twice = (people.uniforms["second"] < SECOND_IMAGE_SHARE) & (cohort != "archive")
        owner = np.repeat(np.arange(len(people.index)), 1 + twice)
        first = np.r_[True, owner[1:] != owner[:-1]] if len(owner) else np.zeros(0, dtype=bool)
        number = np.where(first, 1, 2)
        noise, uniforms = np.empty((len(owner), 5)), np.empty((len(owner), len(_IMAGE_UNIFORMS)))
        for row, (patient, image) in enumerate(zip(people.index[owner], number, strict=True)):
            rng = row_rng(seed, cohort, int(patient), int(image), purpose=0)
            noise[row], uniforms[row] = rng.standard_normal(5), rng.random(len(_IMAGE_UNIFORMS))
        named = dict(zip(_IMAGE_UNIFORMS, uniforms.T, strict=True))
        return cls(owner=owner, number=number, noise_N5=noise, uniforms=named)


def _manifest(cohort: CohortName, people: _People, body: dict[str, FloatArray], images: _Images) -> pd.DataFrame:
    owner = images.owner
    role, sex = people.role[owner], np.where(people.male, "M", "F")[owner]
    letter = cohort[0].upper()
    patient_id = [f"{letter}{i + 1:06d}" for i in people.index[owner]]
    names = [f"{p}_{k}.dcm" for p, k in zip(patient_id, images.number, strict=True)]
    folders = ["images/"] * len(names)
    if cohort == "archive":
        folders = [f"images/{i // _ARCHIVE_FOLDER_IMAGES:04d}/" for i in people.index[owner]]
    frame = pd.DataFrame({"image_uri": [f + n for f, n in zip(folders, names, strict=True)], "patient_id": patient_id})
    frame["study_id"] = [f"{p}-S{k}" for p, k in zip(patient_id, images.number, strict=True)]
    frame["age_years"] = np.where(np.isin(role, ("missing_age", "age_in_header_only")), np.nan, people.age_years[owner])
    frame["sex"] = sex
    if cohort == "archive":
        frame["bmi_kg_m2"] = np.where(role == "missing_bmi", np.nan, body["bmi_kg_m2"][owner])
    else:
        _add_measurements(frame, cohort, people, body, images)
    _add_circumstances(frame, cohort, people, images)
    return frame


def _add_measurements(
    frame: pd.DataFrame, cohort: CohortName, people: _People, body: dict[str, FloatArray], images: _Images
) -> None:
    owner = images.owner
    role = people.role[owner]
    for name in ("height_m", "weight_kg", "bmi_kg_m2"):
        frame[name] = body[name][owner]
    frame["alm_kg"] = np.where(role == "no_measurement", np.nan, body["alm_kg"][owner])
    for name in ("hgs_kg", "crt_s"):
        frame[name] = np.where(np.isin(role, _NO_FUNCTION), np.nan, body[name][owner])
    frame["body_comp_method"] = "bia"
    sick = _outcome(people, body)
    if cohort == "derivation":
        frame["sarc_f"] = _sarc_f(LAWS[cohort], people, body)[owner]
    for name, shares in LAWS[cohort].comorbidity.items():
        frame[name] = (people.uniforms[name] < np.where(sick == 1, shares[1], shares[0]))[owner].astype(np.float64)
    low, high = _LATE_GAP_DAYS
    late = low + np.floor((high - low + 1) * images.uniforms["gap"])
    frame["gap_days"] = np.where(role == "late", late, np.floor((_GAP_MAX_DAYS + 1) * images.uniforms["gap"]))


def _add_circumstances(frame: pd.DataFrame, cohort: CohortName, people: _People, images: _Images) -> None:
    site = np.array(_SITES[cohort])[(people.uniforms["site"][images.owner] * len(_SITES[cohort])).astype(int)]
    frame["site"] = site
    devices = {s: [device.name for device in DEVICES if s in device.sites] for s in _SITES[cohort]}
    frame["device"] = [
        devices[s][int(u * len(devices[s]))] for s, u in zip(site, images.uniforms["device"], strict=True)
    ]
    view = np.where(images.uniforms["view"] < _AP_SHARE[cohort], "AP", "PA")
    frame["view"] = np.where(people.role[images.owner] == "lateral", "LATERAL", view)
    first_day, span = _FIRST_DAY_AND_SPAN[cohort]
    days = (images.uniforms["day"] * span).astype(int)
    frame["acquired_on"] = [(first_day + dt.timedelta(days=int(day))).isoformat() for day in days]


def _outcome(people: _People, body: dict[str, FloatArray]) -> FloatArray:
    """Sarcopenia by AWGS 2019 from the complete measurements, whether or not the manifest will show them."""
    frame = pd.DataFrame({name: body[name] for name in ("height_m", "alm_kg", "hgs_kg", "crt_s")})
    frame["sex"], frame["body_comp_method"] = np.where(people.male, "M", "F"), "bia"
    labels = outcome_labels(frame, OutcomeConfig(definition="awgs2019", column=None))
    return labels.to_numpy(dtype=np.float64)


def _sarc_f(law: CohortLaw, people: _People, body: dict[str, FloatArray]) -> FloatArray:
    """Answers to the questionnaire: frailty is weak grip, slow rise and little muscle for one's sex."""
    means = law.quantity_means(people.male, np.full(len(people.index), law.age_mean))
    hgs_sd = np.where(people.male, law.hgs_sd[1], law.hgs_sd[0])
    weak = (means[:, 1] - body["hgs_kg"]) / hgs_sd
    slow = (np.log(body["crt_s"]) - means[:, 2]) / law.crt_log_sd
    thin = (means[:, 0] - np.log(body["alm_kg"])) / law.almi_log_sd[0]
    frailty = (weak + slow + 0.5 * thin) / 2.0
    logit = _SARC_F_LOGIT + _SARC_F_SLOPE * frailty + _SARC_F_NOISE * people.frailty_noise
    # The binomial quantile by counting (scipy.stats would pull in a great deal for it).
    below_P10 = bdtr(np.arange(10), 10, (1.0 / (1.0 + np.exp(-logit)))[:, None])
    return np.asarray((people.uniforms["sarc_f"][:, None] > below_P10).sum(axis=1), dtype=np.float64)


def _truth(
    law: CohortLaw, people: _People, body: dict[str, FloatArray], images: _Images, visible: Visible
) -> pd.DataFrame:
    owner = images.owner
    covered = people.age_years[owner] >= law.age_min
    mean_N3, sd_N3 = ideal_moments(law, visible)
    score = bayes_score(
        law, visible, male_N=people.male[owner], age_N=people.age_years[owner], bmi_N=body["bmi_kg_m2"][owner]
    )
    truth = pd.DataFrame({"role": people.role[owner], "age_years_true": people.age_years[owner]})
    for index, name in enumerate(CHANNELS):
        truth[f"{name}_true"] = body[name][owner]
        truth[f"{name}_ideal_mu"] = np.where(covered, mean_N3[:, index], np.nan)
        truth[f"{name}_ideal_sigma"] = np.where(covered, sd_N3[:, index], np.nan)
        truth[f"channel_{name}"] = visible.channels_N3[:, index]
    truth["bayes_score"] = np.where(covered, score, np.nan)
    truth["outcome_true"] = _outcome(people, body)[owner]
    truth["haze"], truth["breast"], truth["aorta"] = visible.haze_N, visible.breast_N, visible.aorta_N
    return truth

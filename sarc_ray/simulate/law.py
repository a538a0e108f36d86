"""The laws from which the built-in cohorts are drawn: body, function, and the channels of the picture.

Given sex and age, log ALM, HGS and log CRT (with log ALM index and log BMI) are jointly normal, and each channel
is one of them plus normal noise, so that the ideal prediction can be computed exactly (see ``ideal.py``). The
parameters were found by fitting 60,000 draws to Table 1 of Ryu et al. 2023 (doi 10.1002/jcsm.13144) by
Powell's method, the differences of the conditional means weighing most; heights are by plausibility.

Shapes: N rows, 5 quantities (``QUANTITIES``), 3 channels (``CHANNELS``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

FloatArray = npt.NDArray[np.float64]

QUANTITIES = ("log_alm", "hgs", "log_crt", "log_almi", "log_bmi")
CHANNELS = ("alm_kg", "hgs_kg", "crt_s")
# Independent standard normals behind a patient: BMI, muscle, strength, chair rise, height.
N_FACTORS = 5
# Middle and spread of log ALM, HGS and log CRT in the derivation cohort: the units in which channels are drawn.
CHANNEL_MID = (2.803, 23.9, 2.248)
CHANNEL_SCALE = (0.22, 7.4, 0.36)
AGE_MAX_YEARS = 95.0
# Size of the channel noise by the haze of the lungs (0 clear, 1 hazy): the visible thing that sigma depends on.
_NOISE_AT_CLEAR, _NOISE_PER_HAZE = 0.6, 0.8


@dataclass(frozen=True, kw_only=True, slots=True)
class CohortLaw:
    """Parameters of one cohort; pairs are (women, men), slopes are per decade from ``age_mean``.

    ``channel_noise`` holds the noise of each channel at haze 0.5, in units of ``CHANNEL_SCALE``; it is found by
    :func:`sarc_ray.simulate.ideal.calibrate_channel_noise`. ``comorbidity`` gives (without, with sarcopenia).
    """

    name: str
    male_share: float
    age_mean: float
    age_sd: float
    age_min: float
    height_m: tuple[float, float]
    height_log_sd: float
    height_log_slope: float
    bmi: float
    bmi_log_sd: float
    muscle_on_bmi: float
    strength_on_muscle: float
    rise_on_strength: float
    almi: tuple[float, float]
    almi_log_sd: tuple[float, float]
    almi_log_slope: float
    hgs: tuple[float, float]
    hgs_sd: tuple[float, float]
    hgs_slope: float
    crt: float
    crt_log_sd: float
    crt_log_slope: float
    channel_noise: tuple[float, float, float]
    comorbidity: dict[str, tuple[float, float]]

    def quantity_means(self, male: npt.ArrayLike, age_years: npt.ArrayLike) -> FloatArray:
        """Means of the five quantities given sex and age, shape (..., 5)."""
        is_male = np.asarray(male, dtype=bool)
        decades = (np.asarray(age_years, dtype=np.float64) - self.age_mean) / 10.0
        log_almi = np.log(_by_sex(self.almi, is_male)) + self.almi_log_slope * decades
        log_height = np.log(_by_sex(self.height_m, is_male)) + self.height_log_slope * decades
        hgs = _by_sex(self.hgs, is_male) + self.hgs_slope * decades
        log_crt = np.log(self.crt) + self.crt_log_slope * decades
        log_bmi = np.full_like(log_almi, np.log(self.bmi))
        return np.stack([log_almi + 2 * log_height, hgs, log_crt, log_almi, log_bmi], axis=-1)

    def loadings(self, male: bool) -> FloatArray:
        """How the five quantities follow from the five factors, given sex; shape (5 quantities, 5 factors)."""
        sex = int(male)
        bmi, rest, height = np.eye(N_FACTORS)[0], np.eye(N_FACTORS)[1:4], np.eye(N_FACTORS)[4]
        muscle = _follow(bmi, rest[0], self.muscle_on_bmi)
        strength = _follow(muscle, rest[1], self.strength_on_muscle)
        rise = _follow(strength, rest[2], self.rise_on_strength)
        log_almi = self.almi_log_sd[sex] * muscle
        return np.stack(
            [
                log_almi + 2 * self.height_log_sd * height,
                self.hgs_sd[sex] * strength,
                self.crt_log_sd * rise,
                log_almi,
                self.bmi_log_sd * bmi,
            ]
        )

    def ages(self, uniform: npt.ArrayLike) -> FloatArray:
        """Ages from uniform variates: a normal law cut at ``age_min`` and at 95 years."""
        low, high = ndtr((np.array([self.age_min, AGE_MAX_YEARS]) - self.age_mean) / self.age_sd)
        return self.age_mean + self.age_sd * ndtri(low + (high - low) * np.asarray(uniform, dtype=np.float64))


def _by_sex(pair: tuple[float, float], is_male: npt.NDArray[np.bool_]) -> FloatArray:
    return np.where(is_male, pair[1], pair[0])


def _follow(parent: FloatArray, own: FloatArray, correlation: float) -> FloatArray:
    return correlation * parent + np.sqrt(1.0 - correlation**2) * own


def noise_factor(haze: npt.ArrayLike) -> FloatArray:
    """Relative size of the channel noise at a haze between 0 and 1; 1 at haze 0.5."""
    return _NOISE_AT_CLEAR + _NOISE_PER_HAZE * np.asarray(haze, dtype=np.float64)


def channel_gain(law: CohortLaw) -> FloatArray:
    """Factor that brings target plus noise back to about unit variance, shape (3,).

    A cohort whose channels are noisier shows the same anatomical range: the targets then move it less.
    """
    # 1/12 is the variance of a haze that is uniform on (0, 1).
    mean_square = 1.0 + _NOISE_PER_HAZE**2 / 12.0
    return 1.0 / np.sqrt(1.0 + mean_square * np.square(law.channel_noise))


DERIVATION = CohortLaw(
    name="derivation",
    male_share=0.2408,
    age_mean=60.0,
    age_sd=12.15,
    age_min=40.0,
    height_m=(1.565, 1.695),
    height_log_sd=0.0358,
    height_log_slope=-0.005,
    bmi=22.587,
    bmi_log_sd=0.1544,
    muscle_on_bmi=0.461,
    strength_on_muscle=0.584,
    rise_on_strength=-0.426,
    almi=(6.129, 7.824),
    almi_log_sd=(0.1139, 0.1071),
    almi_log_slope=-0.0148,
    hgs=(21.117, 33.734),
    hgs_sd=(3.42, 7.476),
    hgs_slope=-1.71,
    crt=9.429,
    crt_log_sd=0.3567,
    crt_log_slope=0.0354,
    channel_noise=(0.803, 1.940, 2.304),
    comorbidity={
        "osteoporosis": (0.59, 0.77),
        "previous_fracture": (0.05, 0.11),
        "hypertension": (0.51, 0.54),
        "diabetes": (0.24, 0.27),
    },
)

# KURE-like: community-dwelling people of 65 and over.
EXTERNAL = CohortLaw(
    name="external",
    male_share=0.3597,
    age_mean=66.33,
    age_sd=6.77,
    age_min=65.0,
    height_m=(1.55, 1.675),
    height_log_sd=0.0358,
    height_log_slope=-0.005,
    bmi=18.576,
    bmi_log_sd=0.1281,
    muscle_on_bmi=0.799,
    strength_on_muscle=0.215,
    rise_on_strength=-0.151,
    almi=(6.164, 8.084),
    almi_log_sd=(0.1064, 0.0711),
    almi_log_slope=-0.0873,
    hgs=(26.094, 34.459),
    hgs_sd=(4.0, 4.054),
    hgs_slope=-5.104,
    crt=9.495,
    crt_log_sd=0.3911,
    crt_log_slope=0.044,
    channel_noise=(0.939, 3.428, 4.583),
    comorbidity={
        "osteoporosis": (0.30, 0.55),
        "previous_fracture": (0.18, 0.33),
        "hypertension": (0.27, 0.28),
        "diabetes": (0.18, 0.11),
    },
)

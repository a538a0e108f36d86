"""The ideal reader: posterior of each target given everything that was drawn into the picture.

Seen in the picture: the three channels and the haze that sets their noise; the breast shadow, a noisy trait of
sex; and the width of the aorta, a noisy trait of age. Given sex and age all of it is jointly normal, so the
posterior is a mixture of normals over two sexes and a grid of ages, and its mean and SD follow without
simulation. The Bayes score adds what stage 2 is told: sex, age and BMI.

Shapes: N rows, K ages, 3 targets or channels, 5 quantities (see ``law.py``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

from sarc_ray.cohort.definitions import AWGS2019_ALMI_LOW_KG_M2, AWGS2019_CRT_LOW_S, AWGS2019_HGS_LOW_KG
from sarc_ray.simulate.law import (
    AGE_MAX_YEARS,
    CHANNEL_MID,
    CHANNEL_SCALE,
    CHANNELS,
    CohortLaw,
    channel_gain,
    noise_factor,
)

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

# Lin's CCC that the paper reports (internal and external test set) for ALM, HGS, CRT.
PAPER_CCC = {"derivation": (0.80, 0.70, 0.31), "external": (0.76, 0.50, 0.11)}
# Distance of the sexes in the breast trait, in its noise SDs; noise of the aorta trait, in decades of age.
BREAST_DISTANCE = 0.5
AORTA_NOISE_DECADES = 1.2
AORTA_MID_YEARS = 61.4
_AGE_NODES = 32
_ORTHANT_NODES = 16
_BLOCK_ROWS = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class Visible:
    """What a reader can see in each picture.

    Args:
        channels_N3: target plus noise, as drawn (about unit variance).
        haze_N: 0 clear to 1 hazy.
        breast_N: trait of sex.
        aorta_N: trait of age, decades from 61.4 years.
    """

    channels_N3: FloatArray
    haze_N: FloatArray
    breast_N: FloatArray
    aorta_N: FloatArray

    def rows(self, part: slice) -> Visible:
        """The same for some of the rows."""
        return Visible(
            channels_N3=self.channels_N3[part],
            haze_N=self.haze_N[part],
            breast_N=self.breast_N[part],
            aorta_N=self.aorta_N[part],
        )


def draw_visible(
    law: CohortLaw,
    *,
    targets_N3: FloatArray,
    male_N: BoolArray,
    age_N: FloatArray,
    noise_N5: FloatArray,
    haze_N: FloatArray,
) -> Visible:
    """What the picture shows of patients.

    Args:
        law: cohort.
        targets_N3: log ALM, HGS and log CRT.
        male_N: true for men.
        age_N: years.
        noise_N5: standard normal variates for three channels, breast and aorta.
        haze_N: 0 to 1.
    """
    scaled_N3 = (targets_N3 - np.array(CHANNEL_MID)) / np.array(CHANNEL_SCALE)
    sd_N3 = np.array(law.channel_noise) * noise_factor(haze_N)[:, None]
    return Visible(
        channels_N3=channel_gain(law) * (scaled_N3 + sd_N3 * noise_N5[:, :3]),
        haze_N=haze_N,
        breast_N=BREAST_DISTANCE * (0.5 - np.asarray(male_N, dtype=np.float64)) + noise_N5[:, 3],
        aorta_N=(age_N - AORTA_MID_YEARS) / 10.0 + AORTA_NOISE_DECADES * noise_N5[:, 4],
    )


def ideal_moments(law: CohortLaw, visible: Visible) -> tuple[FloatArray, FloatArray]:
    """Posterior mean and SD of ALM (kg), HGS (kg) and CRT (s) given the picture, for eligible patients of a cohort.

    Args:
        law: the cohort, which is the prior.
        visible: what was drawn.

    Returns:
        mean_N3 and sd_N3.
    """
    n = len(visible.haze_N)
    if n == 0:
        return np.empty((0, 3)), np.empty((0, 3))
    parts = [_moments_block(law, visible.rows(slice(i, i + _BLOCK_ROWS))) for i in range(0, n, _BLOCK_ROWS)]
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


def _age_grid(law: CohortLaw) -> tuple[FloatArray, FloatArray]:
    """Gauss-Legendre nodes over the ages and the log prior probability of each."""
    nodes, weights = np.polynomial.legendre.leggauss(_AGE_NODES)
    age_K = law.age_min + (AGE_MAX_YEARS - law.age_min) * (nodes + 1.0) / 2.0
    log_prior_K = np.log(weights) - 0.5 * np.square((age_K - law.age_mean) / law.age_sd)
    return age_K, log_prior_K - np.logaddexp.reduce(log_prior_K)


def _observed(law: CohortLaw, visible: Visible) -> tuple[FloatArray, FloatArray]:
    """Channels in the units of log ALM, HGS and log CRT, and the variance of their noise, both (N, 3)."""
    scale_3 = np.array(CHANNEL_SCALE)
    values_N3 = visible.channels_N3 / channel_gain(law) * scale_3 + np.array(CHANNEL_MID)
    sd_N3 = np.array(law.channel_noise) * scale_3 * noise_factor(visible.haze_N)[:, None]
    return values_N3, np.square(sd_N3)


def _moments_block(law: CohortLaw, visible: Visible) -> tuple[FloatArray, FloatArray]:
    age_K, log_prior_K = _age_grid(law)
    values_N3, noise_var_N3 = _observed(law, visible)
    aorta_error_NK = visible.aorta_N[:, None] - (age_K - AORTA_MID_YEARS) / 10.0
    log_age_NK = log_prior_K - 0.5 * np.square(aorta_error_NK / AORTA_NOISE_DECADES)
    log_weight, first, second = [], [], []
    for male, share in ((False, 1.0 - law.male_share), (True, law.male_share)):
        mean_K3 = law.quantity_means(male, age_K)[:, :3]
        prior_33 = _covariance(law, male)[:3, :3]
        error_NK3 = values_N3[:, None, :] - mean_K3
        seen_N33 = prior_33 + noise_var_N3[:, :, None] * np.eye(3)
        inverse_N33 = np.linalg.inv(seen_N33)
        gain_N33 = prior_33 @ inverse_N33
        posterior_NK3 = mean_K3 + error_NK3 @ gain_N33.transpose(0, 2, 1)
        variance_N3 = np.diagonal(prior_33 - gain_N33 @ prior_33, axis1=1, axis2=2)
        distance_NK = np.einsum("nki,nki->nk", error_NK3 @ inverse_N33, error_NK3)
        log_det_N1 = np.linalg.slogdet(seen_N33)[1][:, None]
        breast_N1 = (visible.breast_N - BREAST_DISTANCE * (0.5 - male))[:, None]
        log_sex = np.log(share) - 0.5 * (np.square(breast_N1) + log_det_N1)
        log_weight.append(log_sex + log_age_NK - 0.5 * distance_NK)
        moments = _original_unit_moments(posterior_NK3, variance_N3[:, None, :])
        first.append(moments[0])
        second.append(moments[1])
    return _mix(np.concatenate(log_weight, 1), np.concatenate(first, 1), np.concatenate(second, 1))


def _original_unit_moments(mean: FloatArray, variance: FloatArray) -> tuple[FloatArray, FloatArray]:
    """First and second moment of ALM, HGS and CRT where log ALM, HGS and log CRT are normal."""
    is_log = np.array([True, False, True])
    log_first = np.exp(np.where(is_log, mean + variance / 2.0, 0.0))
    log_second = np.exp(np.where(is_log, 2.0 * (mean + variance), 0.0))
    return np.where(is_log, log_first, mean), np.where(is_log, log_second, np.square(mean) + variance)


def _mix(log_weight_NK: FloatArray, first_NK3: FloatArray, second_NK3: FloatArray) -> tuple[FloatArray, FloatArray]:
    weight_NK = np.exp(log_weight_NK - log_weight_NK.max(axis=1, keepdims=True))
    weight_NK /= weight_NK.sum(axis=1, keepdims=True)
    mean_N3 = np.einsum("nk,nkt->nt", weight_NK, first_NK3)
    second_N3 = np.einsum("nk,nkt->nt", weight_NK, second_NK3)
    return mean_N3, np.sqrt(second_N3 - np.square(mean_N3))


def _covariance(law: CohortLaw, male: bool) -> FloatArray:
    loadings = law.loadings(male)
    return loadings @ loadings.T


def bayes_score(
    law: CohortLaw, visible: Visible, *, male_N: BoolArray, age_N: FloatArray, bmi_N: FloatArray
) -> FloatArray:
    """Probability of sarcopenia (AWGS 2019, BIA) given the picture, sex, age (years) and BMI (kg/m2); shape (N,)."""
    score_N = np.empty(len(age_N))
    values_N3, noise_var_N3 = _observed(law, visible)
    for male in (False, True):
        rows = np.flatnonzero(male_N == male)
        for start in range(0, len(rows), _BLOCK_ROWS):
            part = rows[start : start + _BLOCK_ROWS]
            seen_B4 = np.column_stack([values_N3[part], np.log(bmi_N[part])])
            mean_B3, cov_B33 = _function_posterior(law, male, age_N[part], seen_B4, noise_var_N3[part])
            score_N[part] = _sarcopenia_probability(mean_B3, cov_B33, male=male)
    return score_N


def _function_posterior(
    law: CohortLaw, male: bool, age_B: FloatArray, seen_B4: FloatArray, noise_var_B3: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Posterior of (log ALM index, HGS, log CRT) given three channels and log BMI."""
    seen, wanted = [0, 1, 2, 4], [3, 1, 2]
    mean_B5 = law.quantity_means(male, age_B)
    cov_55 = _covariance(law, male)
    noise_B4 = np.column_stack([noise_var_B3, np.zeros(len(age_B))])
    seen_B44 = cov_55[np.ix_(seen, seen)] + noise_B4[:, :, None] * np.eye(4)
    gain_B34 = cov_55[np.ix_(wanted, seen)] @ np.linalg.inv(seen_B44)
    mean_B3 = mean_B5[:, wanted] + np.einsum("nij,nj->ni", gain_B34, seen_B4 - mean_B5[:, seen])
    return mean_B3, cov_55[np.ix_(wanted, wanted)] - gain_B34 @ cov_55[np.ix_(seen, wanted)]


def _sarcopenia_probability(mean_B3: FloatArray, cov_B33: FloatArray, *, male: bool) -> FloatArray:
    """P(low index and (low grip or slow rise)) = P(low index) - P(low index, good grip, quick rise).

    The second term is an orthant of a trivariate normal law, by Genz' separation of variables (Genz 1992, J Comput
    Graph Stat 1:141-149) with Gauss-Legendre nodes in place of random ones.
    """
    sex = "M" if male else "F"
    chol = np.linalg.cholesky(cov_B33)
    index = (np.log(AWGS2019_ALMI_LOW_KG_M2["bia"][sex]) - mean_B3[:, 0]) / chol[:, 0, 0]
    grip = mean_B3[:, 1] - AWGS2019_HGS_LOW_KG[sex]
    rise = np.log(AWGS2019_CRT_LOW_S) - mean_B3[:, 2]
    low_index = ndtr(index)
    nodes, weights = np.polynomial.legendre.leggauss(_ORTHANT_NODES)
    nodes, weights = (nodes + 1.0) / 2.0, weights / 2.0
    tiny = np.finfo(np.float64).tiny
    first = ndtri(np.maximum(low_index[:, None] * nodes, tiny))
    good_grip = ndtr((grip[:, None] + chol[:, 1, 0, None] * first) / chol[:, 1, 1, None])
    # Good grip is the upper tail of its own variate; by symmetry the lower tail of minus that variate.
    second = -ndtri(np.maximum(good_grip[:, :, None] * nodes, tiny))
    shift = chol[:, 2, 0, None, None] * first[:, :, None] + chol[:, 2, 1, None, None] * second
    quick = ndtr((rise[:, None, None] - shift) / chol[:, 2, 2, None, None])
    healthy = low_index * ((good_grip * (quick @ weights)) @ weights)
    return np.clip(low_index - healthy, 0.0, 1.0)


def concordance(measured_N: FloatArray, predicted_N: FloatArray) -> float:
    """Lin's concordance correlation coefficient (Lin 1989, Biometrics 45:255-268), ddof 0."""
    covariance = np.mean((measured_N - measured_N.mean()) * (predicted_N - predicted_N.mean()))
    shift = measured_N.mean() - predicted_N.mean()
    return float(2.0 * covariance / (measured_N.var() + predicted_N.var() + shift**2))


def calibrate_channel_noise(
    law: CohortLaw, ccc_goal: tuple[float, float, float], *, n: int, sweeps: int, seed: int
) -> tuple[float, float, float]:
    """Find the channel noises at which the ideal reader reaches given CCCs, by bisection on each in turn.

    Args:
        law: cohort; its ``channel_noise`` is where the search starts.
        ccc_goal: Lin's CCC of ALM, HGS and CRT.
        n: simulated patients, the same for every trial value.
        sweeps: rounds over the three channels; each channel informs the others a little, so more than one is needed.
        seed: of those patients.

    Raises:
        ValueError: a goal cannot be reached, because the other channels, sex and age show more than that.
    """
    patients = _Patients.draw(law, n=n, seed=seed)
    noise = list(law.channel_noise)
    for _ in range(sweeps):
        for index, goal in enumerate(ccc_goal):
            noise[index] = _bisect_noise(law, patients, noise, index, goal)
    return (noise[0], noise[1], noise[2])


@dataclass(frozen=True, kw_only=True, slots=True)
class _Patients:
    """Common random numbers for the bisection."""

    targets_N3: FloatArray
    male_N: BoolArray
    age_N: FloatArray
    noise_N5: FloatArray
    haze_N: FloatArray

    @classmethod
    def draw(cls, law: CohortLaw, *, n: int, seed: int) -> _Patients:
        rng = np.random.default_rng(seed)
        male_N, age_N = rng.random(n) < law.male_share, law.ages(rng.random(n))
        factors_N5 = rng.standard_normal((n, 5))
        by_sex = np.stack([factors_N5 @ law.loadings(male).T for male in (False, True)])
        quantities_N5 = law.quantity_means(male_N, age_N) + by_sex[male_N.astype(int), np.arange(n)]
        return cls(
            targets_N3=quantities_N5[:, :3],
            male_N=male_N,
            age_N=age_N,
            noise_N5=rng.standard_normal((n, 5)),
            haze_N=rng.random(n),
        )

    def ideal_ccc(self, law: CohortLaw, index: int) -> float:
        visible = draw_visible(
            law,
            targets_N3=self.targets_N3,
            male_N=self.male_N,
            age_N=self.age_N,
            noise_N5=self.noise_N5,
            haze_N=self.haze_N,
        )
        mean_N3, _ = ideal_moments(law, visible)
        target_N = self.targets_N3[:, index]
        return concordance(target_N if index == 1 else np.exp(target_N), mean_N3[:, index])


def _bisect_noise(law: CohortLaw, patients: _Patients, noise: list[float], index: int, goal: float) -> float:
    low, high = 0.02, 50.0

    def ccc(value: float) -> float:
        trial = [*noise[:index], value, *noise[index + 1 :]]
        return patients.ideal_ccc(replace(law, channel_noise=(trial[0], trial[1], trial[2])), index)

    if ccc(high) > goal:
        raise ValueError(
            f"ccc_goal: found {goal} for {CHANNELS[index]}, allowed: at least {ccc(high):.3f}, which the rest of the "
            "picture shows already; weaken the breast or aorta trait, or the correlation of the targets"
        )
    while high / low > 1.005:
        middle = float(np.sqrt(low * high))
        low, high = (middle, high) if ccc(middle) > goal else (low, middle)
    return float(np.sqrt(low * high))

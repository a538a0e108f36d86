from dataclasses import replace

import numpy as np
import pytest

from sarc_ray.cohort.definitions import AWGS2019_ALMI_LOW_KG_M2, AWGS2019_CRT_LOW_S, AWGS2019_HGS_LOW_KG
from sarc_ray.simulate import ideal
from sarc_ray.simulate.ideal import PAPER_CCC, Visible, bayes_score, calibrate_channel_noise, concordance, ideal_moments
from sarc_ray.simulate.law import (
    CHANNEL_MID,
    CHANNEL_SCALE,
    CHANNELS,
    DERIVATION,
    EXTERNAL,
    channel_gain,
    noise_factor,
)


def _eligible_truth(drawn):
    first = drawn.truth["image_uri"].str.endswith("_1.dcm")
    return drawn.truth[(drawn.truth["role"] == "eligible") & first]


@pytest.mark.parametrize("cohort", ["derivation", "external"])
def test_ideal_reader_reaches_the_papers_ccc(request, cohort):
    truth = _eligible_truth(request.getfixturevalue(f"drawn_{cohort}"))
    assert len(truth) == 20_000
    for name, goal in zip(CHANNELS, PAPER_CCC[cohort], strict=True):
        found = concordance(truth[f"{name}_true"].to_numpy(), truth[f"{name}_ideal_mu"].to_numpy())
        assert found == pytest.approx(goal, abs=0.02), name


@pytest.mark.parametrize("cohort", ["derivation", "external"])
@pytest.mark.parametrize("haze", [(0.0, 0.25), (0.75, 1.0), (0.0, 1.0)])
def test_ideal_sigma_is_calibrated_at_every_haze(request, cohort, haze):
    truth = _eligible_truth(request.getfixturevalue(f"drawn_{cohort}"))
    truth = truth[truth["haze"].between(*haze)]
    for name in CHANNELS:
        z = (truth[f"{name}_true"] - truth[f"{name}_ideal_mu"]) / truth[f"{name}_ideal_sigma"]
        assert abs(z.mean()) < 0.06
        assert z.std() == pytest.approx(1.0, abs=0.06)
        # CRT is skewed, so that a normal interval covers a little more than its level.
        assert 0.88 <= (z.abs() < 1.6449).mean() <= 0.94


def test_haze_makes_the_ideal_less_certain(drawn_derivation):
    truth = _eligible_truth(drawn_derivation)
    clear, hazy = truth[truth["haze"] < 0.2], truth[truth["haze"] > 0.8]
    assert hazy["alm_kg_ideal_sigma"].mean() > 1.3 * clear["alm_kg_ideal_sigma"].mean()


@pytest.mark.parametrize(("cohort", "auroc"), [("derivation", 0.80), ("external", 0.84)])
def test_bayes_score_is_calibrated_and_discriminates(request, cohort, auroc):
    truth = _eligible_truth(request.getfixturevalue(f"drawn_{cohort}"))
    score, sick = truth["bayes_score"], truth["outcome_true"]
    ranks = score.rank()
    n_sick, n_well = sick.sum(), (1 - sick).sum()
    assert (ranks[sick == 1].sum() - n_sick * (n_sick + 1) / 2) / (n_sick * n_well) > auroc
    for low, high in ((0.0, 0.05), (0.05, 0.2), (0.2, 0.4), (0.4, 1.0)):
        inside = score.between(low, high)
        expected = score[inside].mean()
        error = np.sqrt(expected * (1 - expected) / inside.sum())
        assert sick[inside].mean() == pytest.approx(expected, abs=4 * error)


def _weighted_bank(law, n, seed, observed):
    """Prior draws weighted by the likelihood of one picture: an independent way to the posterior."""
    rng = np.random.default_rng(seed)
    male, age = rng.random(n) < law.male_share, law.ages(rng.random(n))
    factors = rng.standard_normal((n, 5))
    both = np.stack([factors @ law.loadings(is_male).T for is_male in (False, True)])
    x = law.quantity_means(male, age) + both[male.astype(int), np.arange(n)]
    drawn = channel_gain(law) * (x[:, :3] - CHANNEL_MID) / CHANNEL_SCALE
    sd = channel_gain(law) * law.channel_noise * noise_factor(observed.haze_N[0])
    log_weight = -0.5 * np.square((observed.channels_N3[0] - drawn) / sd).sum(axis=1)
    log_weight -= 0.5 * np.square(observed.breast_N[0] - ideal.BREAST_DISTANCE * (0.5 - male))
    aorta = (age - ideal.AORTA_MID_YEARS) / 10
    log_weight -= 0.5 * np.square((observed.aorta_N[0] - aorta) / ideal.AORTA_NOISE_DECADES)
    weight = np.exp(log_weight - log_weight.max())
    return x, weight / weight.sum()


def _one_picture(channels, *, haze, breast, aorta):
    return Visible(
        channels_N3=np.array([channels], dtype=np.float64),
        haze_N=np.array([haze]),
        breast_N=np.array([breast]),
        aorta_N=np.array([aorta]),
    )


@pytest.mark.parametrize("law", [DERIVATION, EXTERNAL], ids=lambda law: law.name)
def test_moments_agree_with_a_weighted_bank_of_draws(law):
    observed = _one_picture((-0.7, 0.9, 1.4), haze=0.2, breast=-1.0, aorta=1.5)
    x, weight = _weighted_bank(law, 400_000, 8, observed)
    targets = np.column_stack([np.exp(x[:, 0]), x[:, 1], np.exp(x[:, 2])])
    mean = weight @ targets
    sd = np.sqrt(weight @ np.square(targets - mean))
    found_mean, found_sd = ideal_moments(law, observed)
    n_effective = 1 / np.square(weight).sum()
    np.testing.assert_allclose(found_mean[0], mean, atol=float((5 * sd / np.sqrt(n_effective)).max()), rtol=0.003)
    np.testing.assert_allclose(found_sd[0], sd, rtol=0.02)


@pytest.mark.parametrize("male", [False, True])
def test_orthant_probability_agrees_with_sampling(male):
    sex = "M" if male else "F"
    mean = np.array([[np.log(AWGS2019_ALMI_LOW_KG_M2["bia"][sex]) - 0.02, AWGS2019_HGS_LOW_KG[sex] + 2.0, 2.4]])
    cov = np.array([[[0.012, 0.22, -0.01], [0.22, 14.0, -0.5], [-0.01, -0.5, 0.1]]])
    x = np.random.default_rng(3).multivariate_normal(mean[0], cov[0], 400_000)
    slow = x[:, 2] >= np.log(AWGS2019_CRT_LOW_S)
    low = (x[:, 0] < np.log(AWGS2019_ALMI_LOW_KG_M2["bia"][sex])) & ((x[:, 1] < AWGS2019_HGS_LOW_KG[sex]) | slow)
    assert ideal._sarcopenia_probability(mean, cov, male=male)[0] == pytest.approx(low.mean(), abs=0.003)


def test_more_nodes_change_nothing(monkeypatch):
    rng = np.random.default_rng(2)
    n = 200
    visible = Visible(
        channels_N3=rng.standard_normal((n, 3)),
        haze_N=rng.random(n),
        breast_N=rng.standard_normal(n),
        aorta_N=1.5 * rng.standard_normal(n),
    )
    given = {"male_N": rng.random(n) < 0.3, "age_N": rng.uniform(45, 85, n), "bmi_N": rng.uniform(17, 30, n)}
    before = (*ideal_moments(DERIVATION, visible), bayes_score(DERIVATION, visible, **given))
    monkeypatch.setattr(ideal, "_AGE_NODES", 120)
    monkeypatch.setattr(ideal, "_ORTHANT_NODES", 60)
    after = (*ideal_moments(DERIVATION, visible), bayes_score(DERIVATION, visible, **given))
    np.testing.assert_allclose(after[0], before[0], rtol=1e-6)
    np.testing.assert_allclose(after[1], before[1], rtol=1e-6)
    np.testing.assert_allclose(after[2], before[2], atol=1e-4)


def test_concordance_by_hand():
    # Means 2 and 3, variances 2/3 and 8/3, covariance 4/3: 2 * 4/3 / (10/3 + 1) = 8/13.
    assert concordance(np.array([1.0, 2.0, 3.0]), np.array([1.0, 3.0, 5.0])) == pytest.approx(8 / 13)


def test_calibration_finds_the_stored_noise():
    start = replace(DERIVATION, channel_noise=(2.0, DERIVATION.channel_noise[1], DERIVATION.channel_noise[2]))
    found = calibrate_channel_noise(start, PAPER_CCC["derivation"], n=3000, sweeps=1, seed=4)
    assert found[0] == pytest.approx(DERIVATION.channel_noise[0], rel=0.15)


def test_calibration_refuses_a_goal_below_what_the_rest_shows():
    with pytest.raises(ValueError, match="hgs_kg"):
        calibrate_channel_noise(DERIVATION, (0.80, 0.20, 0.31), n=500, sweeps=1, seed=4)

"""One network that answers for an ensemble: per target its mean, its aleatoric and its epistemic variance.

The network learns from the ensemble's answers, not from measurements. What an ensemble says of pictures that it learned
from is no example of what it says of new ones: its members agree there, having seen the same measurements. So the
answers for a training patient are those of the members that never saw the patient, as stage 2's features are; for two
members their half squared difference is an unbiased estimate, if a rough one, of the variance among members. The loss
for a variance has its minimum at the mean of such estimates, so that the network learns what they scatter about.
Shapes: N pictures, B of one batch, T targets, I members in all, F pooled features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from sarc_ray.cohort.schema import TargetConfig
from sarc_ray.stage1.ensemble import mixture
from sarc_ray.stage1.fit import TrainedMember
from sarc_ray.stage1.joint import (
    build_heads,
    fingerprint_of_fit,
    heads_of,
    require_learning_backbone,
    require_variety,
    split_heads,
)
from sarc_ray.stage1.loop import OnEpoch, PictureBatches, Training
from sarc_ray.stage1.member import MemberResult
from sarc_ray.stage1.runtime import Pictures, check_pictures, pick_device, reproducible
from sarc_ray.stage1.scale import TargetScale
from sarc_ray.stage1.settings import AugmentConfig, DistillConfig, FitConfig, NetworkConfig

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
# Smallest standardised variance that is taught or started from: members may agree to the last digit.
_MIN_VARIANCE = 1e-8


@dataclass(frozen=True, kw_only=True, slots=True)
class Answers:
    """What an ensemble says of pictures that its members have not learned from, in the targets' units.

    Args:
        mu_TN: means.
        aleatoric_TN: mean of the members' variances.
        epistemic_TN: variance of the members' means, unbiased (ddof 1).
    """

    mu_TN: FloatArray
    aleatoric_TN: FloatArray
    epistemic_TN: FloatArray

    def of(self, rows_N: BoolArray) -> Answers:
        """The answers for some of the pictures."""
        return Answers(
            mu_TN=self.mu_TN[:, rows_N],
            aleatoric_TN=self.aleatoric_TN[:, rows_N],
            epistemic_TN=self.epistemic_TN[:, rows_N],
        )


def ensemble_answers(
    members: Sequence[Mapping[str, MemberResult]],
    targets: Sequence[TargetConfig],
    speaks_IN: BoolArray,
    known_N: BoolArray,
) -> Answers:
    """Answers from what finished members have said of every picture; K of the N pictures are wanted.

    Args:
        members: by index, then by target; a target's member may be missing.
        targets: T of them.
        speaks_IN: which members may speak for which picture.
        known_N: which pictures are wanted: two or more members of every target may speak for each of them
            (:func:`sarc_ray.stage1.shortfall.spoken_for`).

    Returns:
        Of shape (T, K).
    """
    found = []
    for target in targets:
        present = [index for index, member in enumerate(members) if target.name in member]
        mu_MK = np.stack([members[index][target.name].mu_N[known_N] for index in present])
        sigma_MK = np.stack([members[index][target.name].sigma_N[known_N] for index in present])
        found.append(mixture(mu_MK, sigma_MK, ddof=1, use_MN=speaks_IN[present][:, known_N]))
    return Answers(
        mu_TN=np.stack([said.mu_N for said in found]),
        aleatoric_TN=np.stack([said.var_aleatoric_N for said in found]),
        epistemic_TN=np.stack([said.var_epistemic_N for said in found]),
    )


def distil(
    *,
    x_train_NHW: Pictures,
    train: Answers,
    x_tune_NHW: Pictures,
    tune: Answers,
    targets: Sequence[TargetConfig],
    n_members: Sequence[int],
    network: NetworkConfig,
    augment: AugmentConfig,
    fit: FitConfig,
    config: DistillConfig,
    seed: int,
    state: bytes | None = None,
    on_epoch: OnEpoch | None = None,
) -> tuple[TrainedMember, ...]:
    """Teach one network the ensemble's answers; pictures are varied as for members, answers stay what they are.

    Args:
        x_train_NHW: uint8 pictures to learn from.
        train: the answers for them.
        x_tune_NHW: uint8 pictures of the tune split; training stops by the loss there.
        tune: the answers for them.
        targets: T of them, in order.
        n_members: per target, size of the ensemble that scores; it decides the reported epistemic part (ddof 0).
        network: architecture and starting weights; its convolutions must learn.
        augment: variations of the training pictures.
        fit: all of the optimiser but what ``config`` says.
        config: epochs and learning rate.
        seed: of everything random.
        state: bytes from an earlier ``snapshot`` of the same fit.
        on_epoch: called with a record and ``snapshot`` after each epoch.

    Returns:
        A member file's content for each target, with three outputs, all with the same convolutions.

    Raises:
        ConfigError: the convolutions are frozen: then the ensemble runs them once per picture anyway.
        ValueError: pictures and answers do not fit together.
        ConstantMemberError, TrainingError: as ``fit_member``.

    References:
        Hinton G, Vinyals O, Dean J. Distilling the knowledge in a neural network. arXiv 1503.02531, 2015.
        Malinin A, Mlodozeniec B, Gales M. Ensemble distribution distillation. ICLR 2020 (both kinds of uncertainty).
    """
    require_learning_backbone(network, "distill")
    _check_inputs(x_train_NHW, train, x_tune_NHW, tune, len(targets))
    device = pick_device(fit.device)
    fit = replace(fit, epochs=config.epochs, learning_rate=config.learning_rate)
    scales = [_scale_of(mu_N) for mu_N in train.mu_TN]
    with reproducible(threads=fit.threads, device=device):
        networks = build_heads(network, len(targets), seed=seed, distilled=True).to(device)
        taught_KTN, judged_KTN = (_standardise(answers, scales).to(device) for answers in (train, tune))
        _start_at_mean_variances(networks, taught_KTN)
        batches = PictureBatches(x_train_NHW, x_tune_NHW, augment, device, fit.precision)
        settings = [[asdict(target) for target in targets], *(asdict(part) for part in (network, augment))]
        key = fingerprint_of_fit(
            [*settings, asdict(fit) | {"device": ""}, seed],
            [*asdict(train).values(), *asdict(tune).values()],
        )
        run = Training(networks, _Lesson(networks, batches, taught_KTN, judged_KTN), fit, seed=seed, key=key)
        if state is not None:
            run.restore(state)
        best = run.run(on_epoch)
        require_variety(run, x_tune_NHW, targets, fit.learning_rate)
        size_px = (int(x_train_NHW.shape[1]), int(x_train_NHW.shape[2]))
        return split_heads(
            best,
            run,
            targets,
            scales=scales,
            network=network,
            image_size_px=size_px,
            distilled_from=n_members,
        )


def distillation_loss(said: tuple[torch.Tensor, torch.Tensor, torch.Tensor], taught_KB: torch.Tensor) -> torch.Tensor:
    """Mean loss of one target: half the squared error of the mean, and for each variance half of log v + taught / v.

    Means are in units of the spread of the ensemble's means, so that a target that a radiograph says little of is
    taught as eagerly as the others. The term of a variance is, up to a constant, the Gaussian likelihood of a
    deviation whose square was ``taught``; over many estimates it is smallest where v is their mean.

    Args:
        said: mu, log of the aleatoric variance, log of the epistemic variance; each of shape (B,).
        taught_KB: mean, aleatoric and epistemic variance that the ensemble said.

    Returns:
        A scalar.

    Example:
        >>> import torch
        >>> zero, one = torch.zeros(1), torch.ones(1)
        >>> float(distillation_loss((zero, zero, zero), torch.stack([one, one, one])))
        1.5
    """
    mu_B, log_aleatoric_B, log_epistemic_B = said
    loss_B = (mu_B - taught_KB[0]).square()
    for log_B, taught_B in ((log_aleatoric_B, taught_KB[1]), (log_epistemic_B, taught_KB[2])):
        loss_B = loss_B + log_B + taught_B * torch.exp(-log_B)
    return 0.5 * loss_B.mean()


class _Lesson:
    """The sum over targets of :func:`distillation_loss`."""

    def __init__(
        self, networks: nn.ModuleList, batches: PictureBatches, taught_KTN: torch.Tensor, judged_KTN: torch.Tensor
    ) -> None:
        self.networks, self.batches = heads_of(networks), batches
        self.taught_KTN, self.judged_KTN = taught_KTN, judged_KTN
        self.n_train, self.n_visits, self.n_tune = taught_KTN.shape[2], batches.n_visits, judged_KTN.shape[2]

    def learn(
        self, visit_B: torch.Tensor, index_B: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        features_BF = self.batches.train_features(self.networks[0], index_B, generator)
        loss = self._loss(features_BF, self.taught_KTN[:, :, index_B])
        return loss, loss

    def judge(self, rows: slice) -> torch.Tensor:
        features_BF = self.batches.tune_features(self.networks[0], rows)
        return self._loss(features_BF, self.judged_KTN[:, :, rows]).double() * len(features_BF)

    def means(self, rows: slice) -> torch.Tensor:
        features_BF = self.batches.tune_features(self.networks[0], rows)
        return torch.stack([network.predict(features_BF)[0] for network in self.networks])

    def _loss(self, features_BF: torch.Tensor, taught_KTB: torch.Tensor) -> torch.Tensor:
        losses = [
            distillation_loss(network.predict_parts(features_BF), taught_KTB[:, number])
            for number, network in enumerate(self.networks)
        ]
        return torch.stack(losses).sum()


def _scale_of(mu_N: FloatArray) -> TargetScale:
    """In the target's own unit whatever its transform: mixtures have no other."""
    sd = float(mu_N.std())
    if sd <= 0.0:
        raise ValueError(f"train: the ensemble says {mu_N[0]:g} of all {len(mu_N)} pictures; there is nothing to teach")
    return TargetScale(transform="identity", mean=float(mu_N.mean()), sd=sd)


def _standardise(answers: Answers, scales: Sequence[TargetScale]) -> torch.Tensor:
    """Shape (3, T, N): mean, aleatoric and epistemic variance in standardised units."""
    sd_T1 = np.array([scale.sd for scale in scales])[:, None]
    mean_T1 = np.array([scale.mean for scale in scales])[:, None]
    parts = [(answers.mu_TN - mean_T1) / sd_T1]
    parts += [np.maximum(var_TN / sd_T1**2, _MIN_VARIANCE) for var_TN in (answers.aleatoric_TN, answers.epistemic_TN)]
    return torch.from_numpy(np.stack(parts)).float()


def _start_at_mean_variances(networks: nn.ModuleList, taught_KTN: torch.Tensor) -> None:
    """An untrained network says of every picture about what the ensemble says of all of them."""
    for number, network in enumerate(heads_of(networks)):
        output = network.head[-1]
        assert isinstance(output, nn.Linear)
        with torch.no_grad():
            output.bias[1:] = taught_KTN[1:, number].mean(dim=1).log()


def _check_inputs(x_train_NHW: Pictures, train: Answers, x_tune_NHW: Pictures, tune: Answers, n_targets: int) -> None:
    for name, x_NHW, answers in (("train", x_train_NHW, train), ("tune", x_tune_NHW, tune)):
        check_pictures(x_NHW, f"x_{name}_NHW")
        for part, values_TN in asdict(answers).items():
            if values_TN.shape != (n_targets, len(x_NHW)) or not np.isfinite(values_TN).all():
                raise ValueError(
                    f"{name}.{part}: found shape {values_TN.shape} with {np.count_nonzero(~np.isfinite(values_TN))} "
                    f"missing values, expected a number for each of {n_targets} targets and {len(x_NHW)} pictures"
                )
    if x_train_NHW.shape[1:] != x_tune_NHW.shape[1:]:
        raise ValueError(f"x_tune_NHW: pictures of {x_tune_NHW.shape[1:]}, but training has {x_train_NHW.shape[1:]}")

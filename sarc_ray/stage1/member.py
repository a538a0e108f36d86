"""One worker's share of stage 1: the members of one index, one for each target, trained in turn or as one network.

Shapes: N images of the training and tuning patients, S rows and columns, T targets, M members.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from sarc_ray.cohort.schema import TargetConfig
from sarc_ray.errors import ConstantMemberError, TrainingError
from sarc_ray.stage1.checkpoint import member_from_bytes, member_to_bytes, members_from_bytes
from sarc_ray.stage1.ensemble import predict_from_features, predict_members
from sarc_ray.stage1.features import CachedFeatures, FeatureArray
from sarc_ray.stage1.fit import TrainedMember, fit_member
from sarc_ray.stage1.joint import fit_heads
from sarc_ray.stage1.loop import EpochRecord, OnEpoch, seed_of_state
from sarc_ray.stage1.runtime import ByteArray, PictureRows, derive_seed
from sarc_ray.stage1.settings import AugmentConfig, FitConfig, Heads, NetworkConfig
from sarc_ray.stage1.shortfall import member_name

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
_Fitted = TypeVar("_Fitted")
# Sets the second start's seed apart from the first one's.
_SECOND_START = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class MemberTask:
    """What the members of one index learn from.

    Attributes:
        index: number of the member, from 0.
        seed: of the run; each member and target derives its own from it.
        fit_N: shape (N,), True for training images that this index may learn from.
        tune_N: shape (N,), True for images of the tuning split.
        targets: in order.
        y_TN: shape (T, N), measurements in the targets' units, NaN where not measured.
        network: architecture and starting weights.
        augment: variations of the training pictures.
        fit: optimiser, limits and threads.
        heads: whether each target has a network of its own, or all share the convolutions of one.
    """

    index: int
    seed: int
    fit_N: BoolArray
    tune_N: BoolArray
    targets: tuple[TargetConfig, ...]
    y_TN: FloatArray
    network: NetworkConfig
    augment: AugmentConfig
    fit: FitConfig
    heads: Heads = "one_target"

    def units(self) -> list[tuple[int, ...]]:
        """What is trained as one: numbers of targets."""
        numbers = tuple(range(len(self.targets)))
        return [numbers] if self.heads == "all_targets" else [(number,) for number in numbers]


@dataclass(frozen=True, kw_only=True, slots=True)
class MemberResult:
    """A finished member and what it says of every image.

    Attributes:
        data: the member as ``member_to_bytes`` writes it.
        mu_N: shape (N,), predictive means in the target's unit.
        sigma_N: shape (N,), predictive standard deviations in the target's unit.
        history: one record per epoch.
        discarded_seeds: of a first start that ended in a network that says the same of every picture; else empty.
    """

    data: bytes
    mu_N: FloatArray
    sigma_N: FloatArray
    history: tuple[EpochRecord, ...] = field(repr=False)
    discarded_seeds: tuple[int, ...] = ()


def train_member(
    task: MemberTask, images_NSS: ByteArray, *, features_KNF: FeatureArray | None = None
) -> dict[str, MemberResult]:
    """Train the members of one index, one target after another.

    Args:
        task: what to learn.
        images_NSS: uint8 pictures of all N images.
        features_KNF: as in :func:`train_target`.

    Returns:
        By target name, in the order of ``task.targets``.
    """
    results: dict[str, MemberResult] = {}
    for numbers in task.units():
        results |= train_unit(task, numbers, images_NSS, features_KNF=features_KNF)
    return results


def train_unit(
    task: MemberTask,
    numbers: tuple[int, ...],
    images_NSS: ByteArray,
    *,
    features_KNF: FeatureArray | None = None,
    state: bytes | None = None,
    on_epoch: OnEpoch | None = None,
) -> dict[str, MemberResult]:
    """Train what is trained as one.

    Args:
        task: what to learn.
        numbers: of its targets, one of ``task.units()``.
        images_NSS: uint8 pictures of all N images.
        features_KNF: as in :func:`train_target`.
        state: resumable bytes of an interrupted training.
        on_epoch: told of each epoch.

    Returns:
        By target name, in order.
    """
    if len(numbers) > 1:
        return _train_heads(task, images_NSS, state=state, on_epoch=on_epoch)
    (number,) = numbers
    result = train_target(task, number, images_NSS, features_KNF=features_KNF, state=state, on_epoch=on_epoch)
    return {task.targets[number].name: result}


def train_target(
    task: MemberTask,
    number: int,
    images_NSS: ByteArray,
    *,
    features_KNF: FeatureArray | None = None,
    state: bytes | None = None,
    on_epoch: OnEpoch | None = None,
) -> MemberResult:
    """Train the member of one index for one target; it does not depend on the other targets' members.

    A start can end in a network whose units have all fallen silent, which says the same of every picture. It is thrown
    away, and the member starts once more, from a seed derived from its first one: the same task still gives the same
    member.

    Args:
        task: what to learn.
        number: of the target in ``task.targets``.
        images_NSS: uint8 pictures of all N images.
        features_KNF: shared features of the frozen convolutions, where ``task.fit.cache_features`` asks for them.
        state: resumable bytes of an interrupted training.
        on_epoch: told of each epoch.

    Raises:
        ValueError: too few pictures with a measurement, or settings that do not fit.
        TrainingError: the likelihood is lost, both starts ended in silence, or ``state`` is of another training.
    """
    fit = _fit_of(task, number, images_NSS, features_KNF, on_epoch)
    trained, discarded = _start_twice(fit, task, number, (task.targets[number].name,), state)
    return replace(_with_predictions(trained, images_NSS, features_KNF, task.fit), discarded_seeds=discarded)


def _start_twice(
    fit: Callable[..., _Fitted], task: MemberTask, number: int, names: tuple[str, ...], state: bytes | None
) -> tuple[_Fitted, tuple[int, ...]]:
    """What came of the first start, or of the second where the first ended in silence, and the seeds discarded."""
    first, second = (derive_seed(task.seed, task.index, number, *more) for more in ((), (_SECOND_START,)))
    if state is None or seed_of_state(state) != second:
        try:
            return fit(seed=first, state=state), ()
        except ConstantMemberError:
            state = None
    try:
        return fit(seed=second, state=state), (first,)
    except ConstantMemberError as error:
        raise TrainingError(
            f"{', '.join(member_name(name, task.index) for name in names)}: two trainings (seeds {first} and {second}) "
            f"ended in a network that predicts one mean for every tuning picture; lower fit.learning_rate (found "
            f"{task.fit.learning_rate:g}), set run.seed to another number, or go on without this member by "
            "ensemble.missing_allowed"
        ) from error


def _train_heads(
    task: MemberTask, images_NSS: ByteArray, *, state: bytes | None, on_epoch: OnEpoch | None
) -> dict[str, MemberResult]:
    """All targets by one network, from the pictures in which any of them was measured."""
    measured_N = np.isfinite(task.y_TN).any(axis=0)
    train_N, tune_N = task.fit_N & measured_N, task.tune_N & measured_N
    fit = partial(
        fit_heads,
        x_train_NHW=PictureRows(table_NHW=images_NSS, rows_K=np.flatnonzero(train_N)),
        y_train_TN=task.y_TN[:, train_N],
        x_tune_NHW=PictureRows(table_NHW=images_NSS, rows_K=np.flatnonzero(tune_N)),
        y_tune_TN=task.y_TN[:, tune_N],
        targets=task.targets,
        network=task.network,
        augment=task.augment,
        fit=task.fit,
        on_epoch=on_epoch,
    )
    names = tuple(target.name for target in task.targets)
    # A number that no single target has, so that its seeds are its own.
    trained, discarded = _start_twice(fit, task, len(names), names, state)
    files = [member_to_bytes(member) for member in trained]
    mu_MN, sigma_MN = predict_members(
        members_from_bytes(files),
        images_NSS,
        batch_size=task.fit.batch_size,
        threads=task.fit.threads,
        device=task.fit.device,
    )
    return {
        name: MemberResult(
            data=files[number],
            mu_N=mu_MN[number],
            sigma_N=sigma_MN[number],
            history=trained[number].history,
            discarded_seeds=discarded,
        )
        for number, name in enumerate(names)
    }


def _fit_of(
    task: MemberTask,
    number: int,
    images_NSS: ByteArray,
    features_KNF: FeatureArray | None,
    on_epoch: OnEpoch | None,
) -> partial[TrainedMember]:
    """``fit_member`` for one target, all but the seed and the state to go on from."""
    target, y_N = task.targets[number], task.y_TN[number]
    measured_N = np.isfinite(y_N)
    train_N, tune_N = task.fit_N & measured_N, task.tune_N & measured_N
    features = None
    if features_KNF is not None:
        features = CachedFeatures(train_KNF=features_KNF[:, train_N], tune_NF=features_KNF[0, tune_N])
    return partial(
        fit_member,
        x_train_NHW=PictureRows(table_NHW=images_NSS, rows_K=np.flatnonzero(train_N)),
        y_train_N=y_N[train_N],
        x_tune_NHW=PictureRows(table_NHW=images_NSS, rows_K=np.flatnonzero(tune_N)),
        y_tune_N=y_N[tune_N],
        target=target,
        network=task.network,
        augment=task.augment,
        fit=task.fit,
        features=features,
        on_epoch=on_epoch,
    )


def _with_predictions(
    trained: TrainedMember, images_NSS: ByteArray, features_KNF: FeatureArray | None, fit: FitConfig
) -> MemberResult:
    data = member_to_bytes(trained)
    member = member_from_bytes(data)
    if features_KNF is not None:
        mu_N, sigma_N = predict_from_features(member, features_KNF[0], threads=fit.threads)
        return MemberResult(data=data, mu_N=mu_N, sigma_N=sigma_N, history=trained.history)
    mu_MN, sigma_MN = predict_members(
        [member], images_NSS, batch_size=fit.batch_size, threads=fit.threads, device=fit.device
    )
    return MemberResult(data=data, mu_N=mu_MN[0], sigma_N=sigma_MN[0], history=trained.history)

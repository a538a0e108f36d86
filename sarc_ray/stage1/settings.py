"""What can be configured of stage 1: networks, variation, training, ensembles, distillation, strange pictures.

Neither torch nor torchvision is imported, which take seconds: commands that train nothing read their settings too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Literal, get_args

from sarc_ray.stage1.holdout import MIN_MEMBERS_REPEATED_FOLDS, TRAINING_FEATURES, TrainingFeatures

COMPACT = "compact"
VGG16 = "vgg16"
TRAINABLE = ("all", "last_block", "head")
MAX_GRID = 16
DEVICES = ("auto", "cpu", "cuda")
RECALIBRATIONS = ("none", "scale")
Heads = Literal["one_target", "all_targets"]
HEADS: tuple[Heads, ...] = get_args(Heads)
Precision = Literal["float32", "bfloat16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkConfig:
    """Architecture of a member.

    Args:
        backbone: ``compact``, or a torchvision classification model that keeps its convolutions in
            ``features`` (vgg16, densenet121, efficientnet_b0, convnext_tiny, ...).
        weights: ``imagenet`` (torchvision's own download), ``random``, or the path or URL of a state file with the keys
            of ``torchvision.models.<backbone>().features``, with or without the ``features.`` prefix.
        trainable: ``all``; ``last_block`` (the convolutions after the last but one down-sampling, and the head);
            ``head`` (dense layers only).
        feature_blocks: blocks, counted from 1, whose maps are pooled; none means the backbone's end (the paper).
            Only plain chains such as vgg16 and compact have blocks: the convolutions between two pooling layers.
            What lies behind the last one named is left out. A frozen VGG16 says more about a radiograph
            by its third block than by its last, which knows the objects of ImageNet.
        pooling_grid: 1 averages each map over the whole picture (the paper); n over each field of an n x n grid.
        hidden_units: widths of the dense layers between pooling and the two outputs; may be empty.
        dropout: probability, before each dense layer.
    """

    backbone: str
    weights: str
    trainable: Literal["all", "last_block", "head"]
    feature_blocks: tuple[int, ...]
    pooling_grid: int
    hidden_units: tuple[int, ...]
    dropout: float

    def __post_init__(self) -> None:
        if self.trainable not in TRAINABLE:
            raise ValueError(f"trainable: found {self.trainable!r}, allowed: {', '.join(TRAINABLE)}")
        if any(block < 1 for block in self.feature_blocks) or len(set(self.feature_blocks)) < len(self.feature_blocks):
            raise ValueError(f"feature_blocks: found {self.feature_blocks}, allowed: different blocks, from 1")
        if not 1 <= self.pooling_grid <= MAX_GRID:
            raise ValueError(f"pooling_grid: found {self.pooling_grid}, allowed: 1 to {MAX_GRID}")
        if any(units < 1 for units in self.hidden_units):
            raise ValueError(f"hidden_units: found {self.hidden_units}, allowed: widths of 1 or more")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout: found {self.dropout}, allowed: 0 up to, not including, 1")
        if self.backbone not in (COMPACT, VGG16) and not _knows_torchvision(self.backbone):
            raise ValueError(
                f"backbone: found {self.backbone!r}, allowed: {COMPACT} or the name of a torchvision "
                "classification model such as vgg16"
            )
        if self.backbone == COMPACT and self.weights == "imagenet":
            raise ValueError("weights: 'imagenet' has none for backbone compact; use random, or a state file's path")


def _knows_torchvision(backbone: str) -> bool:
    import torchvision

    return backbone in torchvision.models.list_models(torchvision.models)


@dataclass(frozen=True, kw_only=True, slots=True)
class AugmentConfig:
    """How training pictures are varied. Every size is the half-width of a uniform draw.

    Args:
        copies: how often one epoch visits each picture, each time varied anew (1 or more); with cached features,
            the number of varied copies that are kept beside the original (0 or more).
        shift_fraction: shift along each axis, as a fraction of the picture's side.
        rotation_degrees: turn about the centre.
        horizontal_flip: mirror left and right with probability one half.
        zoom_fraction: 0.1 draws scales of 0.9 to 1.1.
        brightness_fraction: added to every pixel, as a fraction of the full grey scale.
        multiply_fraction: 0.1 multiplies every pixel by 0.9 to 1.1.
    """

    copies: int
    shift_fraction: float
    rotation_degrees: float
    horizontal_flip: bool
    zoom_fraction: float
    brightness_fraction: float
    multiply_fraction: float

    def __post_init__(self) -> None:
        if self.copies < 0:
            raise ValueError(f"copies: found {self.copies}, allowed: 0 or more")
        for field in fields(self):
            if field.name.endswith("_fraction") and not 0.0 <= getattr(self, field.name) < 1.0:
                raise ValueError(f"{field.name}: found {getattr(self, field.name)}, allowed: 0 up to, not including, 1")
        if not 0.0 <= self.rotation_degrees <= 180.0:
            raise ValueError(f"rotation_degrees: found {self.rotation_degrees}, allowed: 0 to 180")


@dataclass(frozen=True, kw_only=True, slots=True)
class FitConfig:
    """How a member is trained.

    Args:
        epochs: at most; the learning rate falls along half a cosine over these, whether or not training stops early.
        patience: epochs without a better tune NLL before training stops.
        batch_size: pictures per step, and per batch of evaluation.
        learning_rate: of Adam, at the start.
        weight_decay: decoupled (AdamW); 0 is plain Adam.
        clip_norm: gradients longer than this are shortened to it; one picture with a tiny sigma can
            otherwise undo an epoch.
        beta_nll: each picture's loss is weighted by its own sigma^(2 beta) while training, 0 to 1; 0 is the plain
            likelihood (the paper), 0.5 the choice of Seitzer et al. 2022. Stopping goes by the plain likelihood.
        threads: of torch, per member. Results depend on it, so it is fixed here and not by the machine.
        device: ``auto`` takes CUDA where torch sees it.
        cache_features: with ``trainable: head``, run the convolutions once and train the head on what they gave.
        ridge_start: with ``cache_features``, predict by ridge regression on all features (penalty chosen by the tune
            split), and train the head to correct that and to say how uncertain it is. For a few hundred patients,
            where a head that starts from nothing stays behind ridge regression.
        precision: ``bfloat16`` computes the convolutions of training steps in mixed precision, for GPUs; weights,
            head, loss, early stopping and all predictions stay float32. On CPUs that were tried it is slower.
    """

    epochs: int
    patience: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    clip_norm: float
    beta_nll: float
    threads: int
    device: Literal["auto", "cpu", "cuda"]
    cache_features: bool
    ridge_start: bool
    precision: Precision

    def __post_init__(self) -> None:
        for name in ("epochs", "patience", "batch_size", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: found {getattr(self, name)}, allowed: 1 or more")
        for name in ("learning_rate", "clip_norm"):
            if not 0.0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}: found {getattr(self, name)}, allowed: above 0")
        if not 0.0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay: found {self.weight_decay}, allowed: 0 or more")
        if not 0.0 <= self.beta_nll <= 1.0:
            raise ValueError(f"beta_nll: found {self.beta_nll}, allowed: 0 (plain likelihood) to 1")
        if self.device not in DEVICES:
            raise ValueError(f"device: found {self.device!r}, allowed: {', '.join(DEVICES)}")
        if self.ridge_start and not self.cache_features:
            raise ValueError("ridge_start: found true, allowed: false, or true with cache_features: true")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision: found {self.precision!r}, allowed: {', '.join(PRECISIONS)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class EnsembleConfig:
    """How many members, whom stage 2's features of training patients come from, and whether sigma is recalibrated.

    Args:
        members: networks per target that score; at least 2, and at least 3 with ``repeated_folds``.
        training_features: who speaks for a training patient in stage 2. ``repeated_folds``: the two members that
            never saw the patient; no further trainings. ``ensembles_per_fold``: all members learn from all training
            patients, and each of as many folds as members gets a whole ensemble of its own that never saw it;
            (members + 1) times the trainings. ``in_sample``: all members see all training patients and speak for
            them, so that stage 2 learns from memorised predictions; only to replicate studies that did so.
        recalibration: ``scale`` multiplies each target's sigma by a factor fitted on the tune split, where that
            improves NLL and interval calibration there; ``none`` leaves sigma as the networks say.
        missing_allowed: members per target that may be missing in the end, after all retries. 0 waits: the training
            stays unfinished, and the same command trains what is missing. Above 0 it goes on with fewer, as the
            bundle then says; patients with fewer than two members that may speak for them do not teach stage 2.
            With ``ensembles_per_fold`` each ensemble may lack so many.
        heads: ``one_target``: a network for each member and target. ``all_targets``: a network for each member, whose
            convolutions all targets share, each with dense layers of its own; a third of the work for three targets,
            and what this costs in accuracy stands in the documentation.
    """

    members: int
    training_features: TrainingFeatures
    recalibration: Literal["none", "scale"]
    missing_allowed: int
    heads: Heads

    def __post_init__(self) -> None:
        if self.members < 2:
            raise ValueError(f"members: found {self.members}, allowed: 2 or more (the epistemic part needs two)")
        if not 0 <= self.missing_allowed <= self.members - 2:
            raise ValueError(
                f"missing_allowed: found {self.missing_allowed} with {self.members} members, allowed: 0 to "
                f"{self.members - 2} (the epistemic part needs two)"
            )
        if self.recalibration not in RECALIBRATIONS:
            raise ValueError(f"recalibration: found {self.recalibration!r}, allowed: {', '.join(RECALIBRATIONS)}")
        if self.heads not in HEADS:
            raise ValueError(f"heads: found {self.heads!r}, allowed: {', '.join(HEADS)}")
        if self.training_features not in TRAINING_FEATURES:
            raise ValueError(
                f"training_features: found {self.training_features!r}, allowed: {', '.join(TRAINING_FEATURES)}"
            )
        if self.training_features == "repeated_folds" and self.members < MIN_MEMBERS_REPEATED_FOLDS:
            raise ValueError(
                f"members: found {self.members} with training_features: repeated_folds, allowed: "
                f"{MIN_MEMBERS_REPEATED_FOLDS} or more"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class DistillConfig:
    """How one network is taught to answer for the ensemble; all else is as for a member (``network``, ``fit``, ...).

    Args:
        epochs: at most; training stops earlier as a member's does.
        learning_rate: of Adam, at the start.
    """

    epochs: int
    learning_rate: float

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise ValueError(f"epochs: found {self.epochs}, allowed: 1 or more")
        if not 0.0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate: found {self.learning_rate}, allowed: above 0")


@dataclass(frozen=True, kw_only=True, slots=True)
class OodConfig:
    """When a picture is too unlike the training pictures for a score.

    Args:
        false_alarm_rate: share of ordinary pictures that may be refused, for example 0.01; decides the threshold on
            the tune split, see :func:`false_alarm_rate_held` for small ones. 0 or null: no picture is refused, and
            the score table still has the distance.
    """

    false_alarm_rate: float | None

    def __post_init__(self) -> None:
        if self.false_alarm_rate is not None and not 0.0 <= self.false_alarm_rate < 1.0:
            raise ValueError(f"false_alarm_rate: found {self.false_alarm_rate}, allowed: null, or 0 to below 1")

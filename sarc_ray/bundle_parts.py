"""What a bundle is put together from, and whether the parts fit: targets, members, reference, stage 2.

N images of S rows and columns; M members.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sarc_ray.config import to_mapping
from sarc_ray.errors import BundleError

if TYPE_CHECKING:
    from sarc_ray.bundle import BundleSpec
    from sarc_ray.stage1.checkpoint import LoadedMember
    from sarc_ray.stage1.ood import OodReference
    from sarc_ray.stage2.model import Stage2Model

OOD = "stage1/ood.safetensors"
_MIN_MEMBERS = 2  # the unbiased epistemic part, a stage-2 feature, needs two


def target_names(spec: BundleSpec) -> list[str]:
    """Of what stage 1 predicts, in order."""
    return [target.name for target in spec.targets]


def mu_only_targets(spec: BundleSpec) -> list[str]:
    """Targets that may be zero or less: they have no relative uncertainty to serve as a feature."""
    return [target.name for target in spec.targets if not target.positive]


def member_path(target_name: str, k: int) -> str:
    """Where in the bundle a member lies."""
    return f"stage1/{target_name}/member-{k:02d}.safetensors"


def member_numbers(n_members: int, spec: BundleSpec) -> range:
    """Numbers of the members that a target should have."""
    return range(1 if spec.stage1 == "distilled" else max(n_members, _MIN_MEMBERS))


def content_of(spec: BundleSpec) -> dict[str, Any]:
    """The spec as it enters the identity; an ensemble's is what it was before there were other kinds."""
    content: dict[str, Any] = to_mapping(spec)
    return {key: value for key, value in content.items() if (key, value) != ("stage1", "ensemble")}


def check_parts(members: Mapping[str, Sequence[bytes]], stage2: Stage2Model, spec: BundleSpec) -> None:
    """Refuse members of other targets or numbers than the spec's, and a stage 2 of other features.

    Raises:
        BundleError: names what was found and what is needed.
    """
    if set(members) != set(target_names(spec)):
        raise BundleError(f"members: found targets {sorted(members)}, needed are {sorted(target_names(spec))}")
    for name, of_target in members.items():
        if len(of_target) != len(member_numbers(len(of_target), spec)):
            needed = "is 1 of a distilled network" if spec.stage1 == "distilled" else f"are {_MIN_MEMBERS} or more"
            raise BundleError(f"members: {name} has {len(of_target)}, needed {needed}")
    check_stage2(stage2, spec)


def check_stage2(stage2: Stage2Model, spec: BundleSpec) -> None:
    """Refuse a stage 2 of other features.

    Raises:
        BundleError: names both lists.
    """
    from sarc_ray.stage2.features import feature_names

    expected = feature_names(spec.clinical_features, target_names(spec), mu_only=mu_only_targets(spec))
    if list(stage2.feature_names) != expected:
        raise BundleError(f"stage 2 uses {', '.join(stage2.feature_names)}; the bundle provides {', '.join(expected)}")


def check_members(members: Sequence[Sequence[LoadedMember]], reference: OodReference, spec: BundleSpec) -> None:
    """Refuse members of another target, kind or picture size, and a reference of other convolutions.

    Raises:
        BundleError: names what does not fit.
    """
    size = spec.preprocess.size_px
    for target, of_target in zip(spec.targets, members, strict=True):
        for member in of_target:
            if member.target_name != target.name:
                raise BundleError(f"members: one of {target.name} predicts {member.target_name}")
            if (member.distilled_from > 0) != (spec.stage1 == "distilled"):
                kind = f"answers for {member.distilled_from} members" if member.distilled_from else "is an ordinary one"
                raise BundleError(f"members: one of {target.name} {kind}; stage1 of the bundle is {spec.stage1}")
            if member.image_size_px != (size, size):
                raise BundleError(f"members: one of {target.name} knows pictures of {member.image_size_px}, not {size}")
    if reference.backbone_hash != members[0][0].backbone_hash:
        raise BundleError(
            f"{OOD}: made with other convolutions than those of the first member of {spec.targets[0].name}; fit it anew"
        )

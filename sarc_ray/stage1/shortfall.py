"""When members are missing at the end: whether the ensembles go on without them, and for whom they can speak.

Shapes: I members in all, N images.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sarc_ray.errors import TrainingError
from sarc_ray.stage1.settings import EnsembleConfig

BoolArray = npt.NDArray[np.bool_]
# The unbiased epistemic part, a feature of stage 2, is a variance: it takes two.
MIN_SPEAKERS = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class FailedMember:
    """A member that was not trained after all its retries.

    Attributes:
        target_name: what it would have predicted.
        index: its number, from 0.
        error: the last one, in a line.
    """

    target_name: str
    index: int
    error: str

    @property
    def name(self) -> str:
        """As people read it."""
        return member_name(self.target_name, self.index)


def member_name(target_name: str, index: int) -> str:
    """What a member is called where people read it, for example ``alm_kg 3``."""
    return f"{target_name} {index}"


def require_members(failed: Sequence[FailedMember], config: EnsembleConfig) -> None:
    """Refuse ensembles that lack more members than ``config.missing_allowed``.

    Raises:
        TrainingError: names every failed member, its error and the ways on.
    """
    # Ensembles of folds, where there are any, follow the one that scores, each with as many members.
    per_ensemble = Counter((member.target_name, member.index // config.members) for member in failed)
    if max(per_ensemble.values(), default=0) <= config.missing_allowed:
        return
    told = "; ".join(f"{member.name} ({member.error})" for member in failed)
    go_on = f"or set ensemble.missing_allowed to {max(per_ensemble.values())} to go on without them"
    if max(per_ensemble.values()) > config.members - MIN_SPEAKERS:
        go_on = "too many are missing to go on without them"
    raise TrainingError(
        f"ensemble member(s) failed after all retries: {told}. The finished members are kept: mend the cause and run "
        f"the same command again; it trains the missing ones alone ({go_on})"
    )


def spoken_for(members: Sequence[Container[str]], speaks_IN: BoolArray, target_names: Sequence[str]) -> BoolArray:
    """Images of which every target has at least two members that may speak.

    With all members these are all images. With repeated folds a training patient is unseen by two members only; when
    one of these is missing, no honest uncertainty is left for that patient, and stage 2 has to learn from the others.

    Args:
        members: by index, the names of the targets whose member was trained.
        speaks_IN: which members may speak for which image if they exist.
        target_names: of all targets.

    Returns:
        Shape (N,).
    """
    enough_N = np.ones(speaks_IN.shape[1], dtype=bool)
    for name in target_names:
        present = [index for index, member in enumerate(members) if name in member]
        enough_N &= speaks_IN[present].sum(axis=0) >= MIN_SPEAKERS
    return enough_N

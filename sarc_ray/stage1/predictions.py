"""What the ensembles say of the training and tuning patients, with sigma recalibrated by the latter.

Shapes: M members that were trained, I members as planned, N images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from sarc_ray.cohort.schema import TargetConfig
from sarc_ray.stage1.ensemble import prediction_columns
from sarc_ray.stage1.member import MemberResult
from sarc_ray.stage1.recalibration import Recalibration, not_wanted, recalibrate
from sarc_ray.stage1.shortfall import spoken_for


def predict_patients(
    frame: pd.DataFrame,
    members: Sequence[Mapping[str, MemberResult]],
    *,
    targets: Sequence[TargetConfig],
    speaks_IN: npt.NDArray[np.bool_],
    tune_N: npt.NDArray[np.bool_],
    recalibration: str,
    seed: int,
) -> tuple[pd.DataFrame, dict[str, Recalibration]]:
    """Columns of the prediction table, and the decision about each target's sigma.

    Args:
        frame: N rows with ``patient_id`` and the measurements of the targets.
        members: by index, then by target, with their predictions of all N images; a target's member may be missing.
        targets: in order.
        speaks_IN: which members may speak for which image, as ``plan_members`` says.
        tune_N: images of the tuning patients, by whom sigma is recalibrated.
        recalibration: ``none`` or ``scale``, as in ``EnsembleConfig``.
        seed: of the folds that the recalibration is judged on.

    Returns:
        A row for each image that two or more members of every target may speak for (all, unless members are missing),
        with the columns of ``prediction_columns`` of every target; recalibrations by target.
    """
    known_N = spoken_for(members, speaks_IN, [target.name for target in targets])
    frame, speaks_IN, tune_N = frame[known_N], speaks_IN[:, known_N], tune_N[known_N]
    predictions, decisions = pd.DataFrame(index=frame.index), {}
    for target in targets:
        present = [index for index, member in enumerate(members) if target.name in member]
        mu_MN = np.stack([members[index][target.name].mu_N[known_N] for index in present])
        sigma_MN = np.stack([members[index][target.name].sigma_N[known_N] for index in present])
        decision = not_wanted()
        if recalibration == "scale":
            raw = prediction_columns(
                target.name,
                mu_MN[:, tune_N],
                sigma_MN[:, tune_N],
                positive=False,
                use_MN=speaks_IN[present][:, tune_N],
            )
            decision = recalibrate(
                frame.loc[tune_N, target.name],
                raw[f"{target.name}_mu"],
                raw[f"{target.name}_sigma"],
                patient_N=frame.loc[tune_N, "patient_id"],
                seed=seed,
            )
        columns = prediction_columns(
            target.name,
            mu_MN,
            sigma_MN,
            positive=target.positive,
            use_MN=speaks_IN[present],
            sigma_scale=decision.scale,
        )
        predictions, decisions[target.name] = predictions.assign(**columns), decision
    return predictions, decisions

"""Definitions of sarcopenia; every cut-off stands here once, with its source.

Each component is 1 (low), 0 (normal) or NaN (not known), and components are combined by three-valued logic
(Kleene): a normal muscle mass rules sarcopenia out even where no function was measured, and low mass with one
low function confirms it; what the measurements leave open stays NaN and is never taken for normal.

Source: Chen LK, Woo J, Assantachai P, et al. Asian Working Group for Sarcopenia: 2019 consensus update on
sarcopenia diagnosis and treatment. J Am Med Dir Assoc 2020;21:300-307. AWGS writes ASM for appendicular lean mass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from sarc_ray.errors import ManifestError

FloatArray = npt.NDArray[np.float64]

# Chen et al. 2020 (AWGS 2019): low strength is a grip below these, in kg.
AWGS2019_HGS_LOW_KG = {"M": 28.0, "F": 18.0}
# Chen et al. 2020 (AWGS 2019): low performance is a five-times chair rise of this many seconds or more.
AWGS2019_CRT_LOW_S = 12.0
# Chen et al. 2020 (AWGS 2019): low mass is an ALM / height^2 below these, in kg/m2, by method and sex.
AWGS2019_ALMI_LOW_KG_M2 = {"bia": {"M": 7.0, "F": 5.7}, "dxa": {"M": 7.0, "F": 5.4}}


@dataclass(frozen=True, kw_only=True, slots=True)
class OutcomeConfig:
    """What stage 2 predicts.

    Args:
        definition: ``awgs2019`` from measured values, or ``column`` for a 0/1 column of the manifest.
        column: that column's name; null for ``awgs2019``.
    """

    definition: Literal["awgs2019", "column"]
    column: str | None

    def __post_init__(self) -> None:
        if self.definition not in ("awgs2019", "column"):
            raise ValueError(f"definition: found {self.definition!r}, allowed: awgs2019, column")
        if self.definition == "column" and not self.column:
            raise ValueError("column: found none with definition column; name a 0/1 column of the manifest")
        if self.definition != "column" and self.column is not None:
            raise ValueError(f"column: found {self.column!r} with definition {self.definition}; set it to null")


def outcome_columns(config: OutcomeConfig) -> tuple[str, ...]:
    """Manifest columns that the outcome needs (``body_comp_method`` is used where present)."""
    if config.definition == "column":
        return (str(config.column),)
    return ("sex", "height_m", "alm_kg", "hgs_kg", "crt_s")


def outcome_labels(frame: pd.DataFrame, config: OutcomeConfig) -> pd.Series:
    """The outcome of each row.

    Args:
        frame: a manifest as read by :func:`sarc_ray.cohort.schema.read_manifest`.
        config: which outcome.

    Returns:
        Float series ``outcome``, 1 (has it), 0 (has it not) or NaN (cannot be known), with the frame's index.

    Raises:
        ManifestError: the outcome's column is missing, or holds something other than 0, 1 or nothing.
    """
    if config.definition == "awgs2019":
        return pd.Series(_and(_almi(frame), _function(frame)), index=frame.index, name="outcome")
    values = _column(frame, str(config.column))
    bad = np.flatnonzero(~np.isnan(values) & (values != 0.0) & (values != 1.0))
    if bad.size:
        raise ManifestError(
            f"row {bad[0] + 1}, column {config.column}: found {values[bad[0]]:g}; allowed: 0, 1 or empty; "
            f"code the outcome as 0 and 1 ({bad.size} rows in all)"
        )
    return pd.Series(values, index=frame.index, name="outcome")


def sarcopenia_stages(frame: pd.DataFrame) -> pd.DataFrame:
    """The three stages of AWGS 2019, each 1, 0 or NaN.

    Args:
        frame: a manifest.

    Returns:
        Columns ``possible_sarcopenia`` (low strength or low performance), ``sarcopenia`` (low mass and either)
        and ``severe_sarcopenia`` (low mass and both), with the frame's index.
    """
    low_mass, low_strength, low_performance = _almi(frame), _hgs(frame), _crt(frame)
    possible = _or(low_strength, low_performance)
    return pd.DataFrame(
        {
            "possible_sarcopenia": possible,
            "sarcopenia": _and(low_mass, possible),
            "severe_sarcopenia": _and(low_mass, _and(low_strength, low_performance)),
        },
        index=frame.index,
    )


def low_hgs(frame: pd.DataFrame) -> pd.Series:
    """Low handgrip strength (``hgs_kg``, ``sex``): below 28 kg in men, 18 kg in women; 1, 0 or NaN."""
    return pd.Series(_hgs(frame), index=frame.index, name="low_hgs")


def low_crt(frame: pd.DataFrame) -> pd.Series:
    """Low chair rise test (``crt_s``): 12 s or longer for five rises; 1, 0 or NaN."""
    return pd.Series(_crt(frame), index=frame.index, name="low_crt")


def low_almi(frame: pd.DataFrame) -> pd.Series:
    """Low appendicular lean mass index (``alm_kg``, ``height_m``, ``sex``, ``body_comp_method``); 1, 0 or NaN.

    Below 7.0 kg/m2 in men; below 5.7 (BIA) or 5.4 (DXA) in women. Where the method is not known, the answer is
    given if both cut-offs agree on it, else NaN.
    """
    return pd.Series(_almi(frame), index=frame.index, name="low_almi")


def low_muscle_function(frame: pd.DataFrame) -> pd.Series:
    """Low grip strength or low chair rise test; 1, 0 or NaN."""
    return pd.Series(_function(frame), index=frame.index, name="low_muscle_function")


def almi_kg_m2(frame: pd.DataFrame) -> pd.Series:
    """Appendicular lean mass index, ``alm_kg / height_m**2``."""
    values = _column(frame, "alm_kg") / _column(frame, "height_m") ** 2
    return pd.Series(values, index=frame.index, name="almi_kg_m2")


def _column(frame: pd.DataFrame, name: str) -> FloatArray:
    if name not in frame:
        raise ManifestError(
            f"column {name}: missing; the outcome is computed from it; add it, or set outcome.definition to column"
        )
    return frame[name].to_numpy(dtype=np.float64)


def _by_sex(frame: pd.DataFrame, cutoffs: dict[str, float]) -> FloatArray:
    """The cut-off of each row's sex; NaN where sex is missing."""
    if "sex" not in frame:
        raise ManifestError("column sex: missing; cut-offs differ by sex; add it with values F and M")
    return np.asarray(frame["sex"].map(cutoffs), dtype=np.float64)


def _below(values: FloatArray, cutoffs: FloatArray) -> FloatArray:
    known = ~np.isnan(values) & ~np.isnan(cutoffs)
    return np.where(known, values < cutoffs, np.nan)


def _hgs(frame: pd.DataFrame) -> FloatArray:
    return _below(_column(frame, "hgs_kg"), _by_sex(frame, AWGS2019_HGS_LOW_KG))


def _crt(frame: pd.DataFrame) -> FloatArray:
    seconds = _column(frame, "crt_s")
    return np.where(np.isnan(seconds), np.nan, seconds >= AWGS2019_CRT_LOW_S)


def _almi(frame: pd.DataFrame) -> FloatArray:
    index = almi_kg_m2(frame).to_numpy(dtype=np.float64)
    by_method = {m: _below(index, _by_sex(frame, cutoffs)) for m, cutoffs in AWGS2019_ALMI_LOW_KG_M2.items()}
    agreed = np.where(by_method["bia"] == by_method["dxa"], by_method["bia"], np.nan)
    if "body_comp_method" not in frame:
        return agreed
    method = frame["body_comp_method"]
    for name, low in by_method.items():
        agreed = np.where((method == name).to_numpy(dtype=bool), low, agreed)
    return agreed


def _function(frame: pd.DataFrame) -> FloatArray:
    return _or(_hgs(frame), _crt(frame))


def _and(a: FloatArray, b: FloatArray) -> FloatArray:
    """Kleene's and: false wins over unknown."""
    return np.where((a == 0) | (b == 0), 0.0, np.where((a == 1) & (b == 1), 1.0, np.nan))


def _or(a: FloatArray, b: FloatArray) -> FloatArray:
    """Kleene's or: true wins over unknown."""
    return np.where((a == 1) | (b == 1), 1.0, np.where((a == 0) & (b == 0), 0.0, np.nan))

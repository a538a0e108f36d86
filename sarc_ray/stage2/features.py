"""The feature table of stage 2: clinical features, then what stage 1 says about each target.

The paper's stage 2 takes age, sex, body-mass index and, for each muscle parameter, the predicted value and its
estimated uncertainty (Ryu et al. 2023, "Step 2"). Which clinical features are used is configuration.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd

from sarc_ray.errors import ConfigError, EvaluationError

# Text columns become one 0/1 column each: source column -> (feature name, value that means 1, value that means 0).
_CODED = {"sex": ("sex_male", "M", "F"), "view": ("view_ap", "AP", "PA")}


def feature_names(
    clinical_features: Sequence[str], target_names: Sequence[str], *, mu_only: Collection[str] = ()
) -> list[str]:
    """Names and order of the feature columns.

    Args:
        clinical_features: manifest columns, for example ``("age_years", "sex", "bmi_kg_m2")``.
        target_names: stage-1 targets, for example ``("alm_kg", "hgs_kg", "crt_s")``.
        mu_only: targets that can be zero or less; uncertainty relative to the mean means nothing for them.

    Returns:
        Clinical features (``sex`` as ``sex_male``, ``view`` as ``view_ap``), then ``<t>_mu`` of all targets, then
        ``<t>_uncertainty_pct`` of all targets.

    Raises:
        ConfigError: a name is given twice, a target is also a clinical feature, or there is no feature at all.

    >>> feature_names(["age_years", "sex"], ["alm_kg"])
    ['age_years', 'sex_male', 'alm_kg_mu', 'alm_kg_uncertainty_pct']
    """
    clash = sorted(set(clinical_features) & set(target_names))
    if clash:
        raise ConfigError(
            f"clinical_features: {clash[0]!r} is also a target; stage 2 would be given the measurement that stage 1 "
            "predicts. Remove it from clinical_features or from targets"
        )
    clinical = [_CODED[name][0] if name in _CODED else name for name in clinical_features]
    relative = [t for t in target_names if t not in mu_only]
    names = clinical + [f"{t}_mu" for t in target_names] + [f"{t}_uncertainty_pct" for t in relative]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"clinical_features, targets: {twice[0]!r} appears twice; name every feature once")
    if not names:
        raise ConfigError("clinical_features, targets: both are empty; stage 2 needs at least one feature")
    return names


def build_features(
    frame: pd.DataFrame,
    clinical_features: Sequence[str],
    target_names: Sequence[str],
    *,
    mu_only: Collection[str] = (),
) -> pd.DataFrame:
    """Make the float64 feature table of stage 2 from clinical columns and the stage-1 prediction table.

    Missing values stay NaN; :meth:`Stage2Model.predict` refuses them by name, because a patient without a feature
    gets no score (the row's outcome is ``abstained``), never an imputed one.

    Args:
        frame: one row per image, with the clinical columns and ``<t>_mu``, ``<t>_uncertainty_pct`` of each target.
        clinical_features: as in :func:`feature_names`.
        target_names: as in :func:`feature_names`.
        mu_only: as in :func:`feature_names`.

    Returns:
        Frame of shape (n_rows, n_features), columns in the order of :func:`feature_names`, same index.

    Raises:
        ConfigError: as :func:`feature_names`.
        EvaluationError: a column is absent, or holds a value that is neither a number nor one of its codes.
    """
    names = feature_names(clinical_features, target_names, mu_only=mu_only)
    columns = list(clinical_features) + names[len(clinical_features) :]
    absent = [column for column in columns if column not in frame.columns]
    if absent:
        raise EvaluationError(
            f"features: column {absent[0]!r} is absent; stage 2 needs {', '.join(columns)}. Add the column, or "
            "train without this feature"
        )
    values = {name: _numeric(frame[column], column) for name, column in zip(names, columns, strict=True)}
    return pd.DataFrame(values, index=frame.index, columns=names, dtype=np.float64)


def _numeric(column: pd.Series, name: str) -> pd.Series:
    if name in _CODED:
        _, one, zero = _CODED[name]
        wrong = column.notna() & ~column.isin([one, zero])
        if wrong.any():
            raise EvaluationError(
                f"features: column {name!r} holds {column[wrong].iloc[0]!r}; allowed: {one}, {zero} or missing"
            )
        return (column == one).astype(np.float64).where(column.notna())
    try:
        return column.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise EvaluationError(f"features: column {name!r} of type {column.dtype} holds what is no number") from error

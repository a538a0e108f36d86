"""From image rows to score rows: the pure function behind population scoring.

N images, size S: pictures are uint8 of shape (N, S, S).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from sarc_ray.bundle import Bundle
from sarc_ray.errors import REASONS, Outcome, Reason
from sarc_ray.imaging.batch import stack_images
from sarc_ray.imaging.gate import ADULT_AGE_YEARS, is_lateral
from sarc_ray.instruments import Stopwatch
from sarc_ray.stage1.settings import Precision

if TYPE_CHECKING:  # imports scikit-learn
    from sarc_ray.stage2.explain import TopReasons

# Copied from the manifest; nothing else of it reaches the score table.
CARRIED_COLUMNS = ("patient_key", "study_key", "site", "device")
# Clinical features that a header may supply where the manifest does not.
HEADER_SOURCES = {
    "age_years": "header_age_years",
    "sex": "header_sex",
    "bmi_kg_m2": "header_bmi_kg_m2",
    "view": "header_view",
}
_MISSING_REASONS = {
    "age_years": Reason.MISSING_AGE,
    "sex": Reason.MISSING_SEX,
    "bmi_kg_m2": Reason.MISSING_BMI,
    "view": Reason.MISSING_VIEW,
}
# What stage 2 was taught; another value is no value it can use.
TEXT_FEATURES = {"sex": ("F", "M"), "view": ("AP", "PA")}


def score_rows(
    batch: pa.Table,
    bundle: Bundle,
    *,
    run_id: str,
    threads: int = 1,
    precision: Precision = "float32",
    top_reasons: TopReasons | None = None,
    watch: Stopwatch | None = None,
) -> pa.Table:
    """Score a batch of the image table.

    Args:
        batch: image-table columns (:data:`sarc_ray.imaging.batch.IMAGE_SCHEMA`) beside the manifest's clinical
            features and :data:`CARRIED_COLUMNS`.
        bundle: the model.
        run_id: names the run in every row.
        threads: of the networks on a CPU.
        precision: of their convolutions.
        top_reasons: gives the columns ``reason_1``, ``reason_1_shap``, ...; None leaves them out.
        watch: counts the time of the networks.

    Returns:
        One row per input row, in order, with the columns of :func:`score_schema`. A row that abstains as out of
        distribution has its ``ood_distance`` and no prediction of stage 1 or 2.
    """
    frame = batch.drop_columns(["image"]).to_pandas()
    clinical = resolve_clinical(frame, bundle.spec.clinical_features)
    frame[clinical.columns] = clinical
    frame["view"] = _with_fallback(frame, "view")
    readable = frame["outcome"] == Outcome.SCORED
    reasons = reasons_without_picture(frame, clinical, age_min_years=bundle.spec.age_min_years)
    reasons = reasons.where(readable, frame["reason"])
    usable = (readable & (reasons == Reason.NONE)).to_numpy()
    if usable.any():
        images_NSS = stack_images(batch["image"].filter(pa.array(usable)), bundle.spec.preprocess.size_px)
        known = clinical[usable].reset_index(drop=True)
        scored = bundle.score(images_NSS, known, threads=threads, precision=precision, watch=watch)
        if top_reasons is not None:
            scored = scored.join(top_reasons.of(bundle.features(known.join(scored))))
        strange_N = _out_of_distribution(scored, bundle.spec.ood_threshold)
        reasons[usable] = np.where(strange_N, Reason.OUT_OF_DISTRIBUTION, reasons[usable])
        for name in scored.columns:
            values = pd.Series(scored[name].to_numpy(), index=frame.index[usable])
            # Predictions of a picture unlike any that the networks learned from are not to be averaged by anyone.
            kept = values if name == "ood_distance" else values[~strange_N]
            frame[name] = kept.reindex(frame.index)
    facts = [REASONS[Reason(reason)] for reason in reasons]
    frame["reason"] = [str(reason) for reason in reasons]
    frame["outcome"] = [str(fact.outcome) for fact in facts]
    frame["retryable"] = [fact.retryable for fact in facts]
    frame["model_id"] = bundle.model_id
    frame["run_id"] = run_id
    targets = [target.name for target in bundle.spec.targets]
    schema = score_schema(bundle.spec.clinical_features, targets, n_reasons=top_reasons.n if top_reasons else 0)
    return pa.Table.from_pandas(frame.reindex(columns=schema.names), schema=schema, preserve_index=False)


def score_schema(clinical_features: Sequence[str], target_names: Sequence[str], *, n_reasons: int = 0) -> pa.Schema:
    """Columns of the score table: plain scalars only, so that any reader of Parquet understands them.

    Args:
        clinical_features: of the bundle.
        target_names: of the bundle.
        n_reasons: how many of the largest contributions each row names.
    """
    fields = [
        ("row_id", pa.int64()),
        ("patient_key", pa.string()),
        ("study_key", pa.string()),
        ("image_sha256", pa.string()),
        ("outcome", pa.string()),
        ("reason", pa.string()),
        ("retryable", pa.bool_()),
        ("acquired_month", pa.string()),
        ("site", pa.string()),
        ("device", pa.string()),
        ("view", pa.string()),
        ("gate_flags", pa.string()),
    ]
    fields += [(f, pa.string() if f in TEXT_FEATURES else pa.float64()) for f in clinical_features if f != "view"]
    for target in target_names:
        fields += [(f"{target}_{part}", pa.float64()) for part in ("mu", "sigma", "var_aleatoric", "var_epistemic")]
        fields.append((f"{target}_uncertainty_pct", pa.float64()))
    fields += [
        ("ood_distance", pa.float64()),
        ("raw_score", pa.float64()),
        ("score", pa.float64()),
        ("flag", pa.bool_()),
    ]
    for rank in range(1, n_reasons + 1):
        fields += [(f"reason_{rank}", pa.string()), (f"reason_{rank}_shap", pa.float64())]
    return pa.schema([*fields, ("model_id", pa.string()), ("run_id", pa.string())])


def _out_of_distribution(scored: pd.DataFrame, threshold: float | None) -> npt.NDArray[np.bool_]:
    if threshold is None:
        return np.zeros(len(scored), dtype=bool)
    return scored["ood_distance"].to_numpy() > threshold


def resolve_clinical(frame: pd.DataFrame, clinical_features: Sequence[str]) -> pd.DataFrame:
    """The bundle's clinical features: the manifest's value, or the DICOM header's where that is absent.

    Args:
        frame: manifest columns beside the ``header_*`` columns of the image table.
        clinical_features: names of manifest columns.

    Returns:
        Shape (N, features), same index; missing values stay missing.
    """
    return pd.DataFrame({name: _with_fallback(frame, name) for name in clinical_features}, index=frame.index)


def reasons_without_picture(
    frame: pd.DataFrame, clinical: pd.DataFrame, *, age_min_years: float, to_come: Collection[str] = ()
) -> pd.Series:
    """What manifest and header say against a score, whatever the picture is; ``Reason.NONE`` where nothing.

    Args:
        frame: manifest columns, beside the ``header_*`` columns where the headers were read; shape (N, any).
        clinical: as :func:`resolve_clinical` gives it, shape (N, features).
        age_min_years: of the bundle.
        to_come: features that a header not read yet may supply; that these are missing is no reason.
    """
    reasons = clinical_reasons(clinical, age_min_years=age_min_years, to_come=to_come)
    # The manifest may know an age or a view that the header, which the gate looked at, does not tell.
    reasons = reasons.mask(_with_fallback(frame, "age_years") < ADULT_AGE_YEARS, Reason.PAEDIATRIC)
    view = _with_fallback(frame, "view")
    return reasons.mask(view.map(lambda name: isinstance(name, str) and is_lateral(name)), Reason.LATERAL_VIEW)


def clinical_reasons(clinical: pd.DataFrame, *, age_min_years: float, to_come: Collection[str] = ()) -> pd.Series:
    """Why a row's clinical features keep it from being scored; ``Reason.NONE`` where they do not.

    Args:
        clinical: shape (N, features).
        age_min_years: of the bundle.
        to_come: features that may be missing for now.
    """
    reasons = pd.Series([Reason.NONE] * len(clinical), index=clinical.index, dtype=object)
    if "age_years" in clinical:
        reasons[(clinical["age_years"] < age_min_years).to_numpy()] = Reason.AGE_BELOW_MINIMUM
    for name in clinical.columns.intersection(list(TEXT_FEATURES)):
        strange = clinical[name].notna() & ~clinical[name].isin(TEXT_FEATURES[name])
        reasons[strange.to_numpy()] = Reason.IMPLAUSIBLE_FEATURE
    for name in reversed([name for name in clinical.columns if name not in to_come]):
        reasons[clinical[name].isna().to_numpy()] = _MISSING_REASONS.get(name, Reason.MISSING_FEATURE)
    return reasons


def _with_fallback(frame: pd.DataFrame, name: str) -> pd.Series:
    own = _typed(frame[name], name) if name in frame else pd.Series(None, index=frame.index, dtype=_dtype(name))
    source = HEADER_SOURCES.get(name)
    return own if source is None or source not in frame else own.where(own.notna(), _typed(frame[source], name))


def _typed(values: pd.Series, name: str) -> pd.Series:
    """Text as it is; a number that is none ("unknown") counts as missing."""
    return values.astype(object) if name in TEXT_FEATURES else pd.to_numeric(values, errors="coerce").astype(float)


def _dtype(name: str) -> type:
    return object if name in TEXT_FEATURES else float

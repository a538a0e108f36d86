"""The local sample: labels beside the scores of one bundle."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from sarc_ray import storage, tables
from sarc_ray.bundle import Bundle
from sarc_ray.cohort.definitions import outcome_labels, outcome_name
from sarc_ray.cohort.schema import MISSING_MARKS, read_manifest
from sarc_ray.errors import ManifestError

LABEL = "label"
_PATIENTS = ("patient_key", "patient_id")
_TRUTH = {"true": "1", "false": "0"}
# What writing a score as text, or another machine's rounding, can do to it.
_SCORE_TOLERANCE = 1e-5


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Labelled:
    """Rows with score and label, shape (N,) each.

    Attributes:
        score_N: of the bundle.
        y_N: 0/1.
        patient_N: whose row it is.
        n_left_out: rows without a score or without a label.
        label: what the labels are.
    """

    score_N: npt.NDArray[np.float64]
    y_N: npt.NDArray[np.int64]
    patient_N: npt.NDArray[np.object_]
    n_left_out: int
    label: str


def read_labelled(table: str, *, scores: str | None, label: str | None, bundle: Bundle) -> Labelled:
    """Read a table of scores with labels, or a manifest with labels and the score table that goes with it.

    Args:
        table: CSV or Parquet; alone with the columns ``score``, ``raw_score`` or ``model_id``, ``patient_key`` or
            ``patient_id``, and the label; with ``scores``, a manifest.
        scores: a score table of the same images, sealed or plain; joined by ``row_id``.
        label: 0/1 column of ``table``. None takes ``label``; with ``scores``, the bundle's own outcome, computed from
            the manifest's measured values.
        bundle: whose scores they are.

    Raises:
        ManifestError: a column is missing, a value is not allowed, or the scores are another bundle's.
        StorageError: a table cannot be read.
    """
    if scores is None:
        frame, name = _read(table), label or LABEL
        patients = next((column for column in _PATIENTS if column in frame), None)
        if patients is None:
            raise ManifestError(
                f"{table}: column {' or '.join(_PATIENTS)}: missing; rows of one patient belong together; add one, "
                "with the row's number where each row is a patient of its own"
            )
    else:
        frame, name = _joined(table, scores, label, bundle)
        patients = "patient_id"
    patient_N = _patients(frame, patients, table)
    score_N, y_N = _numbers(frame, "score", table), _numbers(frame, name, table)
    _refuse(table, "score", (score_N < 0.0) | (score_N > 1.0), score_N, "0 to 1, or empty")
    _refuse(table, name, (y_N != 0.0) & (y_N != 1.0) & ~np.isnan(y_N), y_N, "0, 1 or empty")
    _check_origin(frame, score_N, table, bundle)
    known_N = ~np.isnan(score_N) & ~np.isnan(y_N)
    return Labelled(
        score_N=score_N[known_N],
        y_N=y_N[known_N].astype(np.int64),
        patient_N=patient_N[known_N],
        n_left_out=int((~known_N).sum()),
        label=label or (LABEL if scores is None else outcome_name(bundle.spec.outcome)),
    )


def _read(uri: str) -> pd.DataFrame:
    """A table that any tool wrote, or one of our sealed ones."""
    if not uri.endswith((".csv", ".parquet")) and tables.read_pointer(uri) is not None:
        return tables.read(uri)
    try:
        return storage.read_table(uri)
    except ValueError as error:
        raise ManifestError(f"{uri}: not a readable table ({error}); write UTF-8 CSV, or Parquet") from error


def _joined(manifest: str, scores: str, label: str | None, bundle: Bundle) -> tuple[pd.DataFrame, str]:
    """Labels of a manifest beside the scores of the same images; images in one of the two alone are left out."""
    rows = read_manifest(manifest, numeric=() if label is None else (label,))
    labels = rows[label] if label is not None else outcome_labels(rows, bundle.spec.outcome)
    mine = pd.DataFrame({"row_id": rows["row_id"], "patient_id": rows["patient_id"], LABEL: labels})
    found = _read(scores)
    if "row_id" not in found:
        raise ManifestError(f"{scores}: column row_id: missing; scores and manifest are joined by it")
    wanted = [name for name in ("score", "raw_score", "model_id") if name in found]
    try:
        theirs = found[wanted].assign(row_id=pd.to_numeric(found["row_id"]).astype("int64"))
    except (TypeError, ValueError) as error:
        raise ManifestError(f"{scores}: column row_id: {error}; give the table as 'sarc-ray score' wrote it") from error
    if theirs["row_id"].duplicated().any():
        raise ManifestError(f"{scores}: a row_id occurs twice; give one row per image")
    both = mine.merge(theirs, on="row_id", how="inner", validate="one_to_one")
    if both.empty:
        raise ManifestError(
            f"{scores}: none of its {len(found)} rows belongs to an image of {manifest}; give the manifest that was "
            "scored, from where it lay then: row_id is made of the images' addresses"
        )
    return both, LABEL


def _patients(frame: pd.DataFrame, name: str, uri: str) -> npt.NDArray[np.object_]:
    values = frame[name]
    texts = values.astype(object).where(values.notna(), "").astype(str).str.strip()
    n_missing = int(texts.isin(MISSING_MARKS).sum())
    if n_missing:
        raise ManifestError(
            f"{uri}: {n_missing} rows have no {name}, and all of them would count as one patient; fill it in, with the "
            "row's number where a row is a patient of its own, or remove them"
        )
    return texts.to_numpy(dtype=object)


def _numbers(frame: pd.DataFrame, name: str, uri: str) -> npt.NDArray[np.float64]:
    if name not in frame:
        raise ManifestError(
            f"{uri}: column {name}: missing; found: {', '.join(map(str, frame.columns))}; add it, or name the label's "
            "column with --label"
        )
    values = frame[name]
    if not pd.api.types.is_numeric_dtype(values):
        texts = values.map(_plain)
        values = texts.where(~texts.isin(MISSING_MARKS))
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    _refuse(uri, name, np.isnan(numbers) & values.notna().to_numpy(), values.to_numpy(), "a number, or empty")
    return np.asarray(numbers, dtype=np.float64)


def _plain(value: object) -> object:
    """True and false as a manifest takes them, too."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    return _TRUTH.get(text.lower(), text)


def _refuse(
    uri: str, name: str, wrong_N: npt.NDArray[np.bool_], found_N: npt.NDArray[np.generic], allowed: str
) -> None:
    rows = np.flatnonzero(wrong_N)
    if rows.size:
        raise ManifestError(
            f"{uri}: row {rows[0] + 1}, column {name}: found {found_N[rows[0]]!s}; allowed: {allowed}; correct it, or "
            f"name another column ({rows.size} rows in all)"
        )


def _check_origin(frame: pd.DataFrame, score_N: npt.NDArray[np.float64], uri: str, bundle: Bundle) -> None:
    """Scores of another model would be put right by what is wrong with that one."""
    remedy = "score the sample with this bundle first, or name the bundle that scored it"
    if "model_id" not in frame and "raw_score" not in frame:
        raise ManifestError(
            f"{uri}: column raw_score or model_id: missing; without either the scores may be another bundle's; take "
            "them over from the score table"
        )
    if "model_id" in frame:
        others = sorted({str(name) for name in frame.loc[~np.isnan(score_N), "model_id"]} - {bundle.model_id})
        if others:
            raise ManifestError(f"{uri}: scores of model {others[0]}, the bundle is {bundle.model_id}; {remedy}")
    if "raw_score" in frame:
        raw_N = _numbers(frame, "raw_score", uri)
        both_N = ~np.isnan(raw_N) & ~np.isnan(score_N)
        difference_N = np.abs(bundle.stage2.calibration.apply(raw_N[both_N]) - score_N[both_N])
        if difference_N.max(initial=0.0) > _SCORE_TOLERANCE:
            raise ManifestError(
                f"{uri}: scores differ by up to {difference_N.max():.3g} from what the bundle makes of the raw scores "
                f"beside them; {remedy}"
            )

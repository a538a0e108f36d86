"""Who a patient key is in the CDM, and on which day a radiograph was taken: from files that the user supplies."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from sarc_ray.cohort.schema import read_manifest
from sarc_ray.errors import ConfigError, ManifestError
from sarc_ray.exporting.rows import read_supplied
from sarc_ray.privacy import load_key, pseudonyms

_LAST_ID = np.iinfo(np.int64).max
# Beyond it a float64 is no longer one whole number.
_LAST_OF_FLOATS = 2**53


def read_persons(uri: str, key_file: str | None) -> pd.Series:
    """Persons by patient key.

    Args:
        uri: a ``.csv`` or ``.parquet`` with ``person_id`` beside ``patient_key`` (as in the score table) or
            ``patient_id`` (as in the manifest), which then becomes the key.
        key_file: the secret that made the table's keys, where ``SARC_RAY_KEY`` does not hold it.

    Returns:
        int64, indexed by patient key, each once.

    Raises:
        ConfigError: there is no secret.
        ManifestError: a column is missing, or a patient or person is missing, wrong or contradicted; no value is
            quoted.
        StorageError: the file cannot be read.
    """
    frame = read_supplied(uri)
    if "person_id" not in frame or not {"patient_key", "patient_id"} & set(frame):
        raise ManifestError(f"{uri}: it needs the columns person_id, and patient_key or patient_id")
    if "patient_key" in frame:
        keys = frame["patient_key"]
    else:
        identifiers = _texts(uri, frame["patient_id"])
        keys = pd.Series(pseudonyms(identifiers, key=load_key(key_file), purpose="patient"))
    persons = pd.Series(_ids(uri, frame["person_id"]), index=_texts(uri, keys), name="person_id")
    persons = persons.reset_index().drop_duplicates().set_index("index")["person_id"]
    n_twice = int(persons.index.duplicated().sum())
    if n_twice:
        raise ManifestError(f"{uri}: {n_twice} patients have two persons; give each patient one person_id")
    return persons


@dataclass(frozen=True, kw_only=True, slots=True)
class Days:
    """When radiographs were taken.

    Attributes:
        by_row: ISO days of a manifest, indexed by ``row_id``; months and missing days are left out.
        of_month: day of the month that stands for a month where no more is known; None refuses these.
        rows: ``row_id`` of all rows of the manifest; None where there is no manifest.
    """

    by_row: pd.Series
    of_month: int | None
    rows: frozenset[int] | None

    def n_known(self, row_ids: Iterable[int]) -> int:
        """How many of the rows the manifest has, whatever it says of their days."""
        return sum(row in self.rows for row in row_ids) if self.rows is not None else 0

    def of(self, row_id_N: npt.NDArray[np.int64], month_N: pd.Series) -> pd.Series:
        """The days of rows as ISO text, missing where nothing is known.

        Raises:
            ConfigError: of a row the month alone is known, and no day was named to stand for it.
        """
        day_N = pd.Series(self.by_row.reindex(row_id_N).to_numpy(dtype=object), dtype=object)
        month_N = month_N.reset_index(drop=True).astype(object)
        by_month_N = day_N.isna() & month_N.notna()
        if by_month_N.any() and self.of_month is None:
            raise ConfigError(
                f"of {int(by_month_N.sum())} rows the month alone is known, and measurement_date needs a day; name a "
                "manifest whose acquired_on has days (--manifest), or a day to stand for the month (--day-of-month)"
            )
        return day_N.where(~by_month_N, month_N + f"-{self.of_month or 0:02d}")


def read_days(manifest: str | None, of_month: int | None) -> Days:
    """Days of a manifest's ``acquired_on``, where it is a day.

    Raises:
        ManifestError: the manifest is wrong, or has no ``acquired_on``.
        StorageError: it cannot be read.
    """
    if manifest is None:
        return Days(by_row=pd.Series(dtype=object), of_month=of_month, rows=None)
    frame = read_manifest(manifest)
    if "acquired_on" not in frame:
        raise ManifestError(f"{manifest}: no column acquired_on; add it (YYYY-MM-DD), or leave --manifest out")
    taken = frame.set_index("row_id")["acquired_on"].dropna().astype(object)
    by_row = taken[taken.str.len() == len("YYYY-MM-DD")]
    return Days(by_row=by_row, of_month=of_month, rows=frozenset(frame["row_id"].tolist()))


def _texts(uri: str, values: pd.Series) -> list[str]:
    # As the manifest's identifiers are read: a Parquet column with a gap holds 123.0 for 123.
    whole = [int(value) if isinstance(value, float) and value.is_integer() else value for value in values]
    texts = ["" if pd.isna(value) else str(value).strip() for value in whole]
    n_missing = texts.count("")
    if n_missing:
        raise ManifestError(f"{uri}: {n_missing} rows have no {values.name or 'patient'}; fill them in or remove them")
    return texts


def _ids(uri: str, values: pd.Series) -> npt.NDArray[np.int64]:
    # A Parquet file that once had a gap holds whole numbers as floats.
    texts = [str(int(v) if _is_whole_float(v) else v).strip() for v in values]
    wrong = [number for number, text in enumerate(texts, start=1) if not _is_id(text)]
    if wrong:
        raise ManifestError(
            f"{uri}: in {len(wrong)} rows, the first of them row {wrong[0]}, person_id is no whole number above 0"
        )
    return np.array([int(text) for text in texts], dtype=np.int64)


def _is_whole_float(value: object) -> bool:
    return isinstance(value, float) and value.is_integer() and abs(value) <= _LAST_OF_FLOATS


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit() and 0 < int(text) <= _LAST_ID

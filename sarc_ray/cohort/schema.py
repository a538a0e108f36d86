"""The manifest: its columns, reading it, and refusing a wrong one before any work.

A manifest has one row per image. It is a CSV file (UTF-8, one header line) or a Parquet file or folder, under
any fsspec URL. Both give identical frames: numbers are float64 with NaN for missing, text is text with NaN for
missing, dates are ISO text. Identifiers stay text, so that ``00000150`` keeps its zeros.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from sarc_ray import storage
from sarc_ray.cohort.plausibility import Finding, check_plausibility, make_finding
from sarc_ray.errors import ManifestError, SchemaVersionError, StorageError

SCHEMA_VERSION = 1
_FINDINGS_SHOWN = 3
# Spellings of "no value" that spreadsheets and statistics packages write.
MISSING_MARKS = frozenset({"", ".", "NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "None", "<NA>"})
_TRUTH = {"true": "1", "false": "0"}
_ISO_DATE = re.compile(r"^\d{4}-(0[1-9]|1[0-2])(-(0[1-9]|[12]\d|3[01]))?$")
# Numerals that are codes, not numbers: leading zeros, or more digits than a float64 can keep.
_CODE = re.compile(r"^[+-]?(0\d|\d{16})")
_NAME = re.compile(r"^[a-z][a-z0-9_]*$")

Kind = Literal["text", "number", "category", "flag", "date"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ColumnSpec:
    """One column of the manifest.

    Args:
        name: the column's name, with its unit.
        kind: ``text``; ``number``; ``category`` (one of ``allowed``); ``flag`` (0 or 1); ``date`` (ISO).
        meaning: one line for the reference.
        unit: unit of a number.
        low: smallest possible value, inclusive.
        high: largest possible value, inclusive.
        allowed: values of a category.
        remedy: what a value outside usually means.
        identifier: true where a value must not appear in messages.
    """

    name: str
    kind: Kind
    meaning: str
    unit: str = ""
    low: float = -math.inf
    high: float = math.inf
    allowed: tuple[str, ...] = ()
    remedy: str = "correct the value, or leave it empty"
    identifier: bool = False

    def describe_allowed(self) -> str:
        """What a cell of this column may hold, in words."""
        if self.kind == "number":
            return f"{self.low:g} to {self.high:g} {self.unit}".rstrip() if math.isfinite(self.high) else "a number"
        if self.kind == "category":
            return ", ".join(self.allowed)
        return {"flag": "0 or 1", "date": "YYYY-MM-DD or YYYY-MM"}.get(self.kind, "text")


def _number(name: str, unit: str, low: float, high: float, meaning: str, remedy: str = "") -> ColumnSpec:
    fallback = f"check the unit ({unit})" if unit else "correct the value, or leave it empty"
    return ColumnSpec(
        name=name, kind="number", unit=unit, low=low, high=high, meaning=meaning, remedy=remedy or fallback
    )


def _identifier(name: str, meaning: str) -> ColumnSpec:
    return ColumnSpec(name=name, kind="text", meaning=meaning, identifier=True)


def _text(name: str, meaning: str) -> ColumnSpec:
    return ColumnSpec(name=name, kind="text", meaning=meaning)


def _category(name: str, allowed: tuple[str, ...], meaning: str) -> ColumnSpec:
    remedy = f"write one of {', '.join(allowed)}, or leave it empty"
    return ColumnSpec(name=name, kind="category", allowed=allowed, meaning=meaning, remedy=remedy)


def _flag(name: str, meaning: str) -> ColumnSpec:
    return ColumnSpec(name=name, kind="flag", low=0, high=1, meaning=meaning, remedy="write 0 or 1, or leave it empty")


_CM = "looks like another unit: metres are needed, so divide centimetres by 100"
_G = "check the unit: kilograms are needed, so divide grams by 1000"

# Numbers outside these limits are impossible in adults and children alike; they catch units and codes such as 999.
COLUMNS: tuple[ColumnSpec, ...] = (
    _identifier("image_uri", "the DICOM object: relative to the manifest's folder, or any fsspec URL"),
    _identifier("patient_id", "pseudonymous patient; splits and resampling go by it"),
    _identifier("study_id", "pseudonymous study"),
    _number("age_years", "years", 0, 120, "age at the radiograph"),
    _category("sex", ("F", "M"), "sex"),
    _number("height_m", "m", 0.4, 2.6, "standing height", _CM),
    _number("weight_kg", "kg", 2, 450, "body weight", _G),
    _number("bmi_kg_m2", "kg/m2", 6, 120, "body-mass index; filled from height and weight where missing"),
    _number("alm_kg", "kg", 0.5, 80, "appendicular lean mass (AWGS: ASM)", _G),
    _number("hgs_kg", "kg", 0, 120, "handgrip strength, maximum of the trials", "check the unit (kg, not newton)"),
    _number("crt_s", "s", 1, 300, "chair rise test, five rises; empty where the test could not be done"),
    _category("body_comp_method", ("bia", "dxa"), "how alm_kg was measured"),
    _number("gait_speed_m_s", "m/s", 0, 4, "usual gait speed"),
    _number("sarc_f", "points", 0, 10, "SARC-F questionnaire"),
    _number("gap_days", "days", -36525, 36525, "days from the radiograph to the measurement; the sign is ignored"),
    ColumnSpec(name="acquired_on", kind="date", meaning="day or month of the radiograph"),
    _text("site", "where the radiograph was taken"),
    _text("device", "X-ray device"),
    _text("view", "DICOM View Position: PA, AP, LL and so on"),
    _category("split", ("train", "tune", "test_internal", "test_external"), "a split made elsewhere"),
    _flag("osteoporosis", "diagnosis known"),
    _flag("previous_fracture", "diagnosis known"),
    _flag("hypertension", "diagnosis known"),
    _flag("diabetes", "diagnosis known"),
)
REQUIRED_COLUMNS = ("image_uri", "patient_id")
_SPECS = {spec.name: spec for spec in COLUMNS}


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetConfig:
    """A quantity that stage 1 predicts from the picture.

    Args:
        name: the manifest's column, and the prefix of all result columns.
        label: name in tables and figures.
        unit: unit in which results are reported.
        higher_is_worse: direction, for flags and figures.
        transform: the scale on which the networks learn.
        positive: true where the quantity cannot be zero or less, so that relative uncertainty means something.
    """

    name: str
    label: str
    unit: str
    higher_is_worse: bool
    transform: Literal["identity", "log"]
    positive: bool

    def __post_init__(self) -> None:
        if not _NAME.match(self.name):
            raise ValueError(
                f"name: found {self.name!r}, allowed: lower-case letters, digits and _ (a manifest column)"
            )
        if self.transform not in ("identity", "log"):
            raise ValueError(f"transform: found {self.transform!r}, allowed: identity, log")
        if self.transform == "log" and not self.positive:
            raise ValueError("transform: found log with positive false; a logarithm needs positive: true")


def row_id(uri: str) -> int:
    """The row's identity: the upper 63 bits of SHA-256 of the canonical URI (fits a signed 64-bit integer)."""
    digest = hashlib.sha256(storage.canonical_uri(uri).encode("utf-8")).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def read_manifest(uri: str, *, required: Sequence[str] = (), numeric: Sequence[str] = ()) -> pd.DataFrame:
    """Read and validate a manifest.

    Args:
        uri: a ``.csv`` file, a ``.parquet`` file or a folder of Parquet files, under any fsspec URL.
        required: columns that this run needs besides ``image_uri`` and ``patient_id``. ``bmi_kg_m2`` is also
            satisfied by ``height_m`` with ``weight_kg``.
        numeric: columns of the user's own that must hold numbers (targets, features, a 0/1 outcome); they are
            required too.

    Returns:
        One row per image in the manifest's order. ``image_uri`` is absolute, ``row_id`` (int64) is added,
        ``bmi_kg_m2`` is filled from height and weight where missing, and the user's own columns are kept
        (float64 where every value is a number, text otherwise).

    Raises:
        StorageError: the manifest cannot be read.
        SchemaVersionError: written for a newer release.
        ManifestError: a column is missing, or a value is wrong; names row, column, value, what is allowed and
            the remedy of the first few findings, and how many there are.
    """
    raw = _read_raw(uri)
    frame, findings = _type_columns(raw, base=_folder(uri), required=required, numeric=numeric)
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors:
        raise ManifestError(_error_text(uri, errors))
    return frame


def inspect_manifest(
    uri: str, *, required: Sequence[str] = (), numeric: Sequence[str] = ()
) -> tuple[pd.DataFrame, list[Finding]]:
    """As :func:`read_manifest`, but findings are returned, errors and warnings, and wrong values become missing.

    Raises:
        StorageError: the manifest cannot be read.
        SchemaVersionError: written for a newer release.
        ManifestError: it is no table.
    """
    frame, findings = _type_columns(_read_raw(uri), base=_folder(uri), required=required, numeric=numeric)
    findings = [*findings, *check_plausibility(frame)]
    return frame, sorted(findings, key=lambda finding: finding.severity != "error")


def check_manifest(
    frame: pd.DataFrame, *, base: str = ".", required: Sequence[str] = (), numeric: Sequence[str] = ()
) -> list[Finding]:
    """All findings about a manifest, errors first; reads no image.

    Args:
        frame: as :func:`storage.read_table` gives it, or as :func:`read_manifest` does.
        base: folder to which relative image URIs refer.
        required: as in :func:`read_manifest`.
        numeric: as in :func:`read_manifest`.
    """
    typed, findings = _type_columns(frame, base=base, required=required, numeric=numeric)
    findings = [*findings, *check_plausibility(typed)]
    return sorted(findings, key=lambda finding: finding.severity != "error")


def _read_raw(uri: str) -> pd.DataFrame:
    try:
        raw = storage.read_table(uri)
    except ValueError as error:
        raise ManifestError(
            f"{uri}: not a readable table ({error}); write UTF-8 CSV with one header line, or Parquet"
        ) from error
    _check_version(uri, raw)
    return raw


def _folder(uri: str) -> str:
    return storage.parent(uri) if uri.endswith((".csv", ".parquet")) else uri


def _error_text(uri: str, errors: list[Finding]) -> str:
    shown = "\n".join(f"  {error}" for error in errors[:_FINDINGS_SHOWN])
    more = len(errors) - _FINDINGS_SHOWN
    tail = f"\n  and {more} more kinds of error" if more > 0 else ""
    tail += f"\n  'sarc-ray check {uri}' explains them all"
    n_cells = sum(max(error.count, 1) for error in errors)
    return f"{uri}: the manifest has {n_cells} error(s):\n{shown}{tail}"


def _check_version(uri: str, raw: pd.DataFrame) -> None:
    found = _parquet_versions(uri)
    if "schema_version" in raw.columns:
        found += [str(value) for value in raw["schema_version"].dropna().unique() if str(value).strip()]
    for text in found:
        value = _to_float(text)
        if value is None or value > SCHEMA_VERSION:
            raise SchemaVersionError(
                f"{uri}: found schema_version {text!r}; this release reads up to {SCHEMA_VERSION}; "
                "update the software, or write the manifest for this version"
            )


def _parquet_versions(uri: str) -> list[str]:
    if uri.endswith(".csv"):
        return []
    versions = []
    for file in [uri] if uri.endswith(".parquet") else storage.list_files(uri, ".parquet"):
        fs, path = storage.arrow_filesystem(file)
        try:
            metadata = pq.read_schema(path, filesystem=fs).metadata or {}
        except (OSError, pa.ArrowInvalid) as error:
            raise StorageError(f"{file}: the Parquet footer cannot be read ({error})") from error
        if b"schema_version" in metadata:
            versions.append(metadata[b"schema_version"].decode("utf-8", "replace"))
    return versions


def _type_columns(
    raw: pd.DataFrame, *, base: str, required: Sequence[str], numeric: Sequence[str]
) -> tuple[pd.DataFrame, list[Finding]]:
    findings = _check_columns(raw, (*REQUIRED_COLUMNS, *required, *numeric))
    columns: dict[str, pd.Series] = {}
    for name in raw.columns:
        if name == "row_id":
            continue  # Ours: derived from image_uri below, never taken from outside.
        spec = _SPECS.get(name)
        if spec is None and name in numeric:
            spec = ColumnSpec(name=name, kind="number", meaning="", remedy="this column is used as a number")
        columns[name], found = _type_own_column(raw[name]) if spec is None else _type_column(raw[name], spec)
        findings += found
    frame = pd.DataFrame(columns).reset_index(drop=True)
    _fill_bmi(frame)
    for name in REQUIRED_COLUMNS:
        if name in frame:
            findings += _check_filled(frame[name])
    if "image_uri" in frame:
        findings += _add_row_ids(frame, base)
    return frame, findings


def _check_columns(raw: pd.DataFrame, needed: Sequence[str]) -> list[Finding]:
    present = set(raw.columns)
    if present.issuperset(("height_m", "weight_kg")):
        present.add("bmi_kg_m2")
    findings = [
        Finding(
            severity="error",
            column=name,
            count=0,
            rows=(),
            found=f"no such column among {', '.join(map(str, raw.columns))}",
            allowed=_SPECS[name].meaning if name in _SPECS else "a column of this name",
            remedy="add the column, or change the configuration that asks for it",
        )
        for name in dict.fromkeys(needed)
        if name not in present
    ]
    if not len(raw):
        findings.append(
            Finding(
                severity="error",
                column="image_uri",
                count=0,
                rows=(),
                found="no rows",
                allowed="one row per image",
                remedy="check that the manifest was written whole",
            )
        )
    return findings


def _fill_bmi(frame: pd.DataFrame) -> None:
    if {"height_m", "weight_kg"}.issubset(frame.columns):
        derived = frame["weight_kg"] / frame["height_m"] ** 2
        frame["bmi_kg_m2"] = frame["bmi_kg_m2"].fillna(derived) if "bmi_kg_m2" in frame else derived


def _check_filled(values: pd.Series) -> list[Finding]:
    return make_finding(
        "error",
        str(values.name),
        values.isna(),
        found=lambda p: "no value",
        allowed=_SPECS[str(values.name)].meaning,
        remedy="fill it in, or remove the row",
    )


def _add_row_ids(frame: pd.DataFrame, base: str) -> list[Finding]:
    uris = [
        storage.canonical_uri(storage.join(base, uri)) if isinstance(uri, str) else "" for uri in frame["image_uri"]
    ]
    present = frame["image_uri"].notna()
    frame["image_uri"] = pd.Series(uris, dtype="str").where(present)
    frame["row_id"] = np.array([row_id(uri) for uri in uris], dtype=np.int64)
    repeated = frame["row_id"].duplicated(keep="first") & present
    first_row = {key: position + 1 for position, key in reversed(list(enumerate(frame["row_id"])))}
    return make_finding(
        "error",
        "image_uri",
        repeated,
        found=lambda p: f"the same image as in row {first_row[frame['row_id'].iloc[p]]}",
        allowed="each image once",
        remedy="remove the repeated rows",
    )


def _cells(raw: pd.Series) -> list[str | None]:
    """A column's cells as stripped text, None for missing; a number without fraction has no decimal point."""
    return [_cell(value) for value in raw.astype(object)]


def _cell(value: Any) -> str | None:
    if value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool | np.bool_):
        return "1" if value else "0"
    if isinstance(value, float | np.floating):
        return str(int(value)) if float(value).is_integer() else repr(float(value))
    if isinstance(value, dt.date):
        return value.strftime("%Y-%m-%d")
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return text.strip() or None


def _to_float(text: str) -> float | None:
    try:
        value = float(_TRUTH.get(text.lower(), text)) if "_" not in text else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _type_column(raw: pd.Series, spec: ColumnSpec) -> tuple[pd.Series, list[Finding]]:
    cells = _cells(raw)
    if spec.kind != "text":
        cells = [None if cell in MISSING_MARKS else cell for cell in cells]
    if spec.kind in ("number", "flag"):
        return _type_numbers(cells, spec)
    values = pd.Series(cells, dtype="str", name=spec.name)
    if spec.kind == "text":
        return values, []
    if spec.kind == "category":
        bad = values.notna() & ~values.isin(spec.allowed)
    else:
        bad = values.notna() & ~values.str.match(_ISO_DATE.pattern, na=False)
    return values.mask(bad), _bad_cells(cells, bad, spec)


def _type_numbers(cells: list[str | None], spec: ColumnSpec) -> tuple[pd.Series, list[Finding]]:
    numbers = [_to_float(cell) if cell is not None else None for cell in cells]
    values = pd.Series(numbers, dtype="float64", name=spec.name)
    given = np.array([cell is not None for cell in cells], dtype=bool)
    bad = given & ~values.between(spec.low, spec.high).to_numpy()
    if spec.kind == "flag":
        bad |= given & ~values.isin([0.0, 1.0]).to_numpy()
    return values.mask(bad), _bad_cells(cells, bad, spec)


def _bad_cells(cells: list[str | None], bad: pd.Series | np.ndarray, spec: ColumnSpec) -> list[Finding]:
    return make_finding(
        "error",
        spec.name,
        bad,
        found=lambda p: "a wrong value" if spec.identifier else repr(cells[p]),
        allowed=spec.describe_allowed(),
        remedy=spec.remedy,
    )


def _type_own_column(raw: pd.Series) -> tuple[pd.Series, list[Finding]]:
    """A column that we do not know: float64 where all its values are numbers, else text as it is.

    Numerals with leading zeros or more than 15 digits are codes, not numbers, and stay text.
    """
    cells = _cells(raw)
    known = [cell for cell in cells if cell is not None and cell not in MISSING_MARKS]
    if known and all(_to_float(cell) is not None and not _CODE.match(cell) for cell in known):
        numbers = [None if cell is None or cell in MISSING_MARKS else _to_float(cell) for cell in cells]
        return pd.Series(numbers, dtype="float64", name=raw.name), []
    return pd.Series(cells, dtype="str", name=raw.name), []

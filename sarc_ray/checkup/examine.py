"""Everything that can be said about a manifest without opening an image."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from sarc_ray import storage
from sarc_ray.cohort.definitions import outcome_columns, outcome_labels
from sarc_ray.cohort.plausibility import Finding, make_finding
from sarc_ray.cohort.schema import COLUMNS, inspect_manifest
from sarc_ray.cohort.selection import FlowStep, select
from sarc_ray.cohort.splits import assign_splits
from sarc_ray.errors import ManifestError
from sarc_ray.intake import label_columns
from sarc_ray.run import RunConfig

# Objects whose existence is tried; enough to notice a wrong folder, few enough to be quick.
_OBJECTS_TRIED = 10
_KNOWN = tuple(spec.name for spec in COLUMNS)
_OURS = ("row_id", "schema_version")
_LABELS = ("alm_kg", "hgs_kg", "crt_s", "gait_speed_m_s")


@dataclass(frozen=True, kw_only=True, slots=True)
class Coverage:
    """How many rows have a value in a column, and what a run takes the column for."""

    column: str
    role: str
    n_rows: int


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitSize:
    """Expected size of a split."""

    split: str
    n_patients: int
    n_events: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkup:
    """What is wrong with a manifest and what it offers.

    Attributes:
        uri: the manifest.
        role: what it was checked for: ``derivation``, ``external`` or ``archive``.
        findings: errors first.
        n_rows: images.
        n_patients: distinct ``patient_id``.
        coverage: of the columns that matter, as far as they are there.
        own_columns: names of columns that we do not know.
        flow: eligibility step by step; empty where it was not asked for or cannot be told.
        n_events: eligible rows with the outcome; None where it cannot be told.
        n_known: eligible rows whose outcome is known.
        splits: expected sizes; empty for external test sets and archives.
    """

    uri: str
    role: str
    findings: tuple[Finding, ...]
    n_rows: int
    n_patients: int
    coverage: tuple[Coverage, ...]
    own_columns: tuple[str, ...]
    flow: tuple[FlowStep, ...]
    n_events: int | None
    n_known: int
    splits: tuple[SplitSize, ...]

    @property
    def n_errors(self) -> int:
        """Kinds of error; none means that a run can begin."""
        return sum(finding.severity == "error" for finding in self.findings)


def examine(uri: str, config: RunConfig | None = None) -> Checkup:
    """Check a manifest, and a run's use of it.

    Args:
        uri: the manifest.
        config: the run's; None checks the columns alone.

    Raises:
        StorageError: the manifest cannot be read.
        ManifestError: it is no table.
        SchemaVersionError: it was written for a newer release.
    """
    role = _role(uri, config)
    required, numeric = _needed(role, config)
    frame, findings = inspect_manifest(uri, required=required, numeric=numeric)
    # A wrong separator explains every column that is missing.
    findings = _separator(frame) or [*_without_echoes(findings), *_likely_names(frame), *_absent_objects(frame)]
    flow, labels, eligible, more = _eligible(frame, role, config, findings)
    findings += more
    return Checkup(
        uri=uri,
        role=role,
        findings=tuple(sorted(findings, key=lambda finding: finding.severity != "error")),
        n_rows=len(frame),
        n_patients=int(frame["patient_id"].nunique()) if "patient_id" in frame else 0,
        coverage=tuple(_coverage(frame, role, config)),
        own_columns=()
        if len(frame.columns) == 1
        else tuple(str(name) for name in frame.columns if name not in (*_KNOWN, *numeric, *_OURS)),
        flow=flow,
        n_events=int((labels == 1).sum()) if labels is not None else None,
        n_known=int(labels.notna().sum()) if labels is not None else 0,
        splits=_split_sizes(eligible, labels, role, config),
    )


def _role(uri: str, config: RunConfig | None) -> str:
    """The place that the run gives to this manifest; a manifest that it does not name is taken for training data."""
    if config is not None:
        for role, known in (("external", config.data.external), ("archive", config.data.archive)):
            if known is not None and storage.canonical_uri(known) == storage.canonical_uri(uri):
                return role
    return "derivation"


def _needed(role: str, config: RunConfig | None) -> tuple[Sequence[str], list[str]]:
    if config is None or role == "archive":
        return (), []
    return config.clinical_features, label_columns(config)


def _without_echoes(findings: Sequence[Finding]) -> list[Finding]:
    """A wrong value counts as missing from then on; that it is missing need not be told again."""
    wrong = {finding.column: finding.count for finding in findings if finding.severity == "error"}
    return [f for f in findings if f.severity == "error" or f.found != "no value" or f.count > wrong.get(f.column, 0)]


def _likely_names(frame: pd.DataFrame) -> list[Finding]:
    """Columns whose names are nearly ours: a misspelt column is otherwise kept and ignored."""
    absent = [name for name in _KNOWN if name not in frame.columns]
    findings = []
    for name in map(str, frame.columns):
        near = [] if name in (*_KNOWN, *_OURS) else _near(name, absent)
        if near:
            findings.append(
                Finding(
                    severity="warning",
                    column=name,
                    count=0,
                    rows=(),
                    found="a name that is not known, so its values are not used",
                    allowed="the columns of docs/reference/manifest.md, and any of your own",
                    remedy=f"if it holds {near[0]}, rename it to that",
                )
            )
    return findings


def _near(name: str, known: Sequence[str]) -> list[str]:
    plain = name.strip().lower().replace(" ", "_").replace("-", "_")
    if plain in known:
        return [plain]
    stems = {full: full.split("_")[0] for full in known}
    by_stem = [full for full, stem in stems.items() if plain == stem]
    return by_stem or difflib.get_close_matches(plain, known, n=1, cutoff=0.75)


def _separator(frame: pd.DataFrame) -> list[Finding]:
    """A spreadsheet of another country: semicolons or tabs for commas."""
    name = str(frame.columns[0]) if len(frame.columns) == 1 else ""
    for mark, meaning in ((";", "semicolons"), ("\t", "tabs")):
        if mark in name:
            return [
                Finding(
                    severity="error",
                    column=name.split(mark)[0],
                    count=0,
                    rows=(),
                    found=f"one single column: cells are separated by {meaning}",
                    allowed="cells separated by commas, decimals with a point",
                    remedy="save the spreadsheet as 'CSV UTF-8 (comma delimited)'",
                )
            ]
    return []


def _absent_objects(frame: pd.DataFrame) -> list[Finding]:
    if "image_uri" not in frame:
        return []
    step = max(1, len(frame) // _OBJECTS_TRIED)
    tried = frame["image_uri"].iloc[::step].dropna().head(_OBJECTS_TRIED)
    absent = tried.index[[not storage.exists(uri) for uri in tried]]
    bad = pd.Series(frame.index.isin(absent))
    return make_finding(
        "warning",
        "image_uri",
        bad,
        found=lambda p: f"no object there ({len(absent)} of {len(tried)} tried)",
        allowed="a path relative to the manifest's folder, or a whole URL",
        remedy="check the folder and the file names; rows without an object are rejected, not scored",
    )


def _eligible(
    frame: pd.DataFrame, role: str, config: RunConfig | None, findings: Sequence[Finding]
) -> tuple[tuple[FlowStep, ...], pd.Series | None, pd.DataFrame, list[Finding]]:
    """Flow, outcome and rows of the eligible; what stands in the way becomes a finding."""
    if config is None or role == "archive" or not {"patient_id", "row_id"}.issubset(frame.columns):
        return (), None, frame, []
    require_alm = role == "external" and "alm_kg" in label_columns(config)
    try:
        selection = select(frame, config.eligibility, outcome=config.outcome, require_alm=require_alm)
        labels = outcome_labels(selection.frame, config.outcome)
    except ManifestError as error:
        told = any(finding.severity == "error" and f"column {finding.column}" in str(error) for finding in findings)
        return (), None, frame, [] if told else [_as_finding(error)]
    return selection.flow, labels, selection.frame, []


def _as_finding(error: ManifestError) -> Finding:
    found, _, remedy = str(error).partition("; ")
    column, _, trouble = found.removeprefix("column ").partition(": ")
    return Finding(
        severity="error",
        column=column if trouble else "",
        count=0,
        rows=(),
        found=trouble or found,
        allowed="what the run's configuration asks for",
        remedy=remedy,
    )


def _coverage(frame: pd.DataFrame, role: str, config: RunConfig | None) -> list[Coverage]:
    roles: dict[str, str] = {}
    if config is not None:
        roles |= dict.fromkeys(outcome_columns(config.outcome), "outcome") if role != "archive" else {}
        roles |= dict.fromkeys((target.name for target in config.targets), "target") if role != "archive" else {}
        roles |= dict.fromkeys(config.clinical_features, "feature")
    else:
        roles |= dict.fromkeys(("age_years", "sex", "bmi_kg_m2"), "feature")
        roles |= dict.fromkeys(_LABELS, "label")
    return [
        Coverage(column=name, role=what, n_rows=int(frame[name].notna().sum()) if name in frame else 0)
        for name, what in roles.items()
        if config is not None or name in frame
    ]


def _split_sizes(
    eligible: pd.DataFrame, labels: pd.Series | None, role: str, config: RunConfig | None
) -> tuple[SplitSize, ...]:
    if config is None or labels is None or role != "derivation":
        return ()
    try:
        frame = assign_splits(eligible, config.split, labels=labels, seed=config.run.seed)
    except ManifestError:
        return ()
    events = frame["patient_id"].where(labels == 1)
    return tuple(
        SplitSize(
            split=str(name),
            n_patients=int(rows["patient_id"].nunique()),
            n_events=int(events.loc[rows.index].nunique()),
        )
        for name, rows in frame.groupby("split", sort=False)
    )

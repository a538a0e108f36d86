"""What an inventory found, in numbers and on the terminal."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
from rich import box
from rich.console import Console
from rich.table import Table

from sarc_ray import tables
from sarc_ray.errors import REASONS, Reason

# What a score needs of a manifest beside the picture; where the header has none, the manifest must.
FEATURES = ("age_years", "sex", "bmi_kg_m2", "view")
_COLUMNS = ["outcome", "reason", "bytes", "patient_id", "patient_known", *FEATURES]


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """An inventory in numbers.

    Args:
        n_objects: objects found.
        n_bytes: their size together.
        n_patients: patients of the eligible ones.
        n_without_patient: eligible ones whose header names no patient; each counts as a patient of its own.
        by_reason: objects per reason, the empty reason for the eligible ones.
        with_feature: eligible ones whose header has the feature.
    """

    n_objects: int
    n_bytes: int
    n_patients: int
    n_without_patient: int
    by_reason: dict[Reason, int]
    with_feature: dict[str, int]

    @property
    def n_eligible(self) -> int:
        """Objects that nothing in the header speaks against."""
        return self.by_reason.get(Reason.NONE, 0)


def summarise(table_uri: str) -> Summary:
    """Count what lies in a table of headers."""
    by_reason: Counter[Reason] = Counter()
    with_feature: Counter[str] = Counter({name: 0 for name in FEATURES})
    patients: set[str] = set()
    n_bytes = n_without_patient = 0
    for part in tables.iterate(table_uri, columns=_COLUMNS):
        for found in pc.value_counts(part["reason"]).to_pylist():
            by_reason[Reason(found["values"])] += found["counts"]
        n_bytes += pc.sum(part["bytes"]).as_py() or 0
        eligible = part.filter(pc.equal(part["reason"], ""))
        with_feature.update({name: len(eligible) - eligible[name].null_count for name in FEATURES})
        known = eligible["patient_known"]
        n_without_patient += len(eligible) - (pc.sum(known.cast(pa.int64())).as_py() or 0)
        patients.update(pc.unique(eligible["patient_id"]).to_pylist())
    return Summary(
        n_objects=sum(by_reason.values()),
        n_bytes=n_bytes,
        n_patients=len(patients),
        n_without_patient=n_without_patient,
        by_reason=dict(by_reason),
        with_feature=dict(with_feature),
    )


def print_summary(console: Console, summary: Summary) -> None:
    """Objects by reason, most first, then what the eligible ones' headers have and lack."""
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    grid.add_column("objects", justify="right")
    grid.add_column("reason")
    grid.add_column("meaning")
    for reason, count in sorted(summary.by_reason.items(), key=lambda item: (item[0] != Reason.NONE, -item[1])):
        meaning = REASONS[reason].meaning if reason else "nothing in the header speaks against a score"
        grid.add_row(f"{count:,}", str(reason) or "(eligible)", meaning)
    console.print(grid)
    _say(console, f"{summary.n_objects:,} objects, {size_words(summary.n_bytes)}")
    if not summary.n_eligible:
        return
    own = f", {summary.n_without_patient:,} of them without a Patient ID" if summary.n_without_patient else ""
    _say(console, f"{summary.n_eligible:,} eligible, of {summary.n_patients:,} patients{own}")
    has = ", ".join(f"{name} {count / summary.n_eligible:.0%}" for name, count in summary.with_feature.items())
    _say(console, f"their headers have: {has}; add what is missing to the manifest")


def size_words(n_bytes: int) -> str:
    """A number of bytes as people write it, in powers of 1000."""
    size, unit = float(n_bytes), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)

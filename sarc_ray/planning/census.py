"""What a manifest alone says of its rows, in the words of scoring: eligible, ineligible by reason, or not yet told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from sarc_ray.bundle import BundleSpec
from sarc_ray.errors import REASONS, Reason
from sarc_ray.scoring import HEADER_SOURCES, reasons_without_picture, resolve_clinical

# Columns of the manifest that ``inventory`` writes. Where they are, the headers were read.
_OF_AN_INVENTORY = frozenset({"reason", "eligible", "bytes"})
_BYTES = "bytes"

Sufficiency = Literal["yes", "partly", "no"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Feature:
    """A clinical feature of the bundle in the manifest.

    Attributes:
        name: of the feature.
        n_known: rows that have a value.
        n_missing: rows that have none.
        header_may_have_it: the objects' headers were not read yet, and may supply it.
    """

    name: str
    n_known: int
    n_missing: int
    header_may_have_it: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Census:
    """A manifest in numbers. Eligible, undecided and ineligible rows sum to all rows.

    Attributes:
        n_rows: of the manifest.
        headers_read: an inventory wrote the manifest: what headers say is in it.
        eligible: rows that nothing known so far speaks against; their pictures may.
        undecided: rows by the reason that they end in unless their header supplies what the manifest lacks, or the
            store gives what it failed to give the inventory.
        ineligible: rows by the reason that they end in, if they can be read at all.
        known_bytes: size of the objects whose size the manifest states.
        n_sized: how many these are.
        features: of the bundle.
    """

    n_rows: int
    headers_read: bool
    eligible: int
    undecided: dict[Reason, int]
    ineligible: dict[Reason, int]
    known_bytes: int
    n_sized: int
    features: tuple[Feature, ...]

    @property
    def sufficient(self) -> Sufficiency:
        """Whether the clinical columns alone give every row (yes), some (partly) or none (no) all features."""
        if all(feature.n_missing == 0 for feature in self.features):
            return "yes"
        return "no" if any(feature.n_known == 0 for feature in self.features) else "partly"


def take_census(manifest: pd.DataFrame, spec: BundleSpec) -> Census:
    """Count a manifest's rows by what scoring with a bundle would make of them; reads no image.

    Args:
        manifest: as :func:`sarc_ray.cohort.schema.read_manifest` gives it, shape (N, any).
        spec: the bundle's.
    """
    headers_read = set(manifest.columns) >= _OF_AN_INVENTORY
    from_header = _header_reasons(manifest, headers_read)
    retryable = pd.Series([REASONS[reason].retryable for reason in from_header], index=manifest.index, dtype=bool)
    header_to_come = retryable | (not headers_read)
    clinical = resolve_clinical(manifest, spec.clinical_features)
    as_it_is = _reasons(manifest, clinical, spec, ())
    at_best = _reasons(manifest, clinical, spec, tuple(HEADER_SOURCES)).where(header_to_come, as_it_is)
    certain = from_header.mask(retryable, Reason.NONE)
    ineligible = certain.where(certain != Reason.NONE, at_best)
    open_ = from_header.where(retryable, as_it_is).where(ineligible == Reason.NONE, Reason.NONE)
    sizes = pd.to_numeric(manifest[_BYTES], errors="coerce") if _BYTES in manifest else pd.Series(dtype=float)
    return Census(
        n_rows=len(manifest),
        headers_read=headers_read,
        eligible=int(((ineligible == Reason.NONE) & (open_ == Reason.NONE)).sum()),
        undecided=_count(open_),
        ineligible=_count(ineligible),
        known_bytes=int(sizes.sum()),
        n_sized=int(sizes.notna().sum()),
        features=tuple(_feature(clinical[name], headers_read) for name in spec.clinical_features),
    )


def _reasons(manifest: pd.DataFrame, clinical: pd.DataFrame, spec: BundleSpec, to_come: Collection[str]) -> pd.Series:
    return reasons_without_picture(manifest, clinical, age_min_years=spec.age_min_years, to_come=to_come)


def _header_reasons(manifest: pd.DataFrame, headers_read: bool) -> pd.Series:
    """What the inventory found; a word that is no reason of ours is somebody else's column."""
    known = {str(reason): reason for reason in Reason}
    words = manifest["reason"] if headers_read else [None] * len(manifest)
    found = [known.get(word, Reason.NONE) if isinstance(word, str) else Reason.NONE for word in words]
    return pd.Series(found, index=manifest.index, dtype=object)


def _feature(values: pd.Series, headers_read: bool) -> Feature:
    n_known = int(values.notna().sum())
    return Feature(
        name=str(values.name),
        n_known=n_known,
        n_missing=len(values) - n_known,
        header_may_have_it=not headers_read and values.name in HEADER_SOURCES,
    )


def _count(reasons: pd.Series) -> dict[Reason, int]:
    counts = Counter(Reason(reason) for reason in reasons if reason != Reason.NONE)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], str(item[0]))))

"""The verb ``export sr``: reports on single studies, from a score table and the radiographs themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sarc_ray import storage
from sarc_ray.bundle import BundleManifest, read_manifest_of
from sarc_ray.cohort.schema import row_id
from sarc_ray.errors import REASONS, ConfigError, ExportError, Outcome, Reason
from sarc_ray.exporting.objects import require_highdicom
from sarc_ray.exporting.quantities import outcome_title, quantities
from sarc_ray.exporting.rows import Exported, check_model, find_rows
from sarc_ray.exporting.source import fetch_source
from sarc_ray.exporting.structured_report import Model, ScoredImage, structured_report

_NOT_IN_TABLE = "no row in the score table"
_COPY = "a copy of another radiograph of the request, by its SOP Instance UID"
_SEVERAL_PATIENTS = "its study has several Patient IDs; a report would be filed for one of them"


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportRequest:
    """What ``export sr`` is asked for.

    Args:
        table: a sealed score table.
        images: DICOM objects that were scored, by the addresses that they had then.
        bundle: the model that scored them.
        to: folder for the reports.
    """

    table: str
    images: tuple[str, ...]
    bundle: str
    to: str


def export_reports(request: ReportRequest) -> Exported:
    """Write one report per study: ``<row_id>.dcm``, after the radiograph whose SOP Instance UID comes first.

    The order of the request makes no difference, so that the same radiographs are the same report.

    Raises:
        BundleError: there is no bundle.
        ConfigError: highdicom is missing, no image is named, or the bundle did not score the table.
        StorageError: something cannot be read or written.
    """
    require_highdicom()
    manifest = read_manifest_of(request.bundle)
    check_model(request.table, manifest.model_id)
    model = model_of(manifest)
    images = list(dict.fromkeys(storage.canonical_uri(uri) for uri in request.images))
    if not images:
        raise ConfigError("IMAGE: none given; name DICOM objects that were scored")
    columns = ["outcome", "reason", "image_sha256", *(quantity.column for quantity in model.known)]
    rows = find_rows(request.table, [row_id(uri) for uri in images], columns)
    left_out: Counter[str] = Counter()
    studies: dict[str, list[tuple[int, ScoredImage]]] = {}
    for uri in images:
        try:
            image = _scored_image(uri, rows, model)
        except ExportError as error:
            left_out[str(error)] += 1
            continue
        studies.setdefault(str(image.source.study), []).append((row_id(uri), image))
    n_written = 0
    for named in studies.values():
        if found := _of_one_patient(named, left_out):
            report = structured_report([image for _, image in found], model)
            storage.write_bytes(storage.join(request.to, f"{found[0][0]}.dcm"), report)
            n_written += 1
    return Exported(n_written=n_written, left_out=dict(left_out))


def _of_one_patient(found: list[tuple[int, ScoredImage]], left_out: Counter[str]) -> list[tuple[int, ScoredImage]]:
    """Each instance of a study once, by UID; none where the study is of several patients."""
    if len({image.source.patient for _, image in found}) > 1:
        left_out[_SEVERAL_PATIENTS] += len(found)
        return []
    by_instance: dict[str, tuple[int, ScoredImage]] = {}
    for key, image in sorted(found, key=lambda one: one[0]):
        by_instance.setdefault(str(image.source.sop_instance), (key, image))
    if len(by_instance) < len(found):
        left_out[_COPY] += len(found) - len(by_instance)
    return [by_instance[uid] for uid in sorted(by_instance)]


def model_of(manifest: BundleManifest) -> Model:
    """What a report says of a bundle."""
    return Model(
        model_id=manifest.model_id,
        release=manifest.packages.get("sarc-ray", "unknown"),
        predicts=outcome_title(manifest.spec),
        clinical_features=manifest.spec.clinical_features,
        threshold=manifest.threshold,
        known=quantities(manifest.spec),
    )


def _scored_image(uri: str, rows: Mapping[int, Mapping[str, Any]], model: Model) -> ScoredImage:
    key = row_id(uri)
    if key not in rows:
        raise ExportError(_NOT_IN_TABLE)
    row = rows[key]
    if row["outcome"] != Outcome.SCORED:
        raise ExportError(f"no score: {REASONS[Reason(row['reason'])].meaning}")
    return ScoredImage(source=fetch_source(uri, str(row["image_sha256"])), values=_values(row, model))


def _values(row: Mapping[str, Any], model: Model) -> dict[str, float | bool]:
    flags = {quantity.column for quantity in model.known if quantity.statistic == "flag"}
    return {
        quantity.column: bool(row[quantity.column]) if quantity.column in flags else float(row[quantity.column])
        for quantity in model.known
    }

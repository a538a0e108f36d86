"""Rows of a manifest, a bundle and a table: what scoring is, wherever the three come from."""

from __future__ import annotations

from typing import Any

import pandas as pd

from sarc_ray import __version__, stages, storage, tables
from sarc_ray.bundle import verify_files
from sarc_ray.distributed import cluster
from sarc_ray.distributed.score import score_manifest
from sarc_ray.privacy import pseudonyms
from sarc_ray.run import Run, fingerprint_of
from sarc_ray.table_reuse import RowInputs, row_hashes
from sarc_ray.telling import Tell, silent, watched


def score_rows_with_bundle(
    manifest: pd.DataFrame,
    *,
    bundle_uri: str,
    table_uri: str,
    key: bytes,
    run: Run,
    tell: Tell = silent,
    retry: bool = False,
    manifest_uri: str | None = None,
) -> tables.Pointer:
    """Score any manifest with any bundle into any table; what a sealed table has already is taken over.

    Args:
        manifest: as ``read_manifest`` gives it.
        bundle_uri: a bundle. Its files are compared with their hashes here; whoever scores reads it all once more,
            and compares what is in it with its ``model_id``, before any row is scored.
        table_uri: the score table.
        key: secret of the patient and study keys.
        run: gives the engine's settings and the run's name.
        tell: progress.
        retry: touch only the retryable rows of the sealed table.
        manifest_uri: where the rows come from; the hash of its content goes into the table's lineage.

    Raises:
        BundleError: the bundle is damaged.
        StorageError: the bundle, the manifest or the table cannot be reached, or nothing reads the images' scheme.
        TableBusyError: another run writes the table.
    """
    spec = verify_files(bundle_uri)
    storage.require_known_schemes(manifest["image_uri"])
    carried = ["row_id", "image_uri", "site", "device", "view", "age_years", *spec.spec.clinical_features]
    rows = manifest[[name for name in dict.fromkeys(carried) if name in manifest]].copy()
    rows["patient_key"] = pseudonyms(_texts(manifest["patient_id"]), key=key, purpose="patient")
    if "study_id" in manifest:
        rows["study_key"] = pseudonyms(_texts(manifest["study_id"]), key=key, purpose="study")
    asked = (run.config.score.reasons, run.config.score.precision)
    # The bundle's model_id covers its preprocessing.
    inputs = RowInputs(
        recipe=fingerprint_of([__version__, spec.model_id, *asked]),
        row_id_N=rows["row_id"].to_numpy(),
        hash_N=row_hashes(rows),
    )
    version = fingerprint_of([__version__, spec.model_id, inputs.hash_N.tobytes().hex(), *asked])
    with cluster.session(run.config.engine):
        return score_manifest(
            rows,
            table_uri,
            bundle_uri=bundle_uri,
            preprocess=spec.spec.preprocess,
            engine=run.config.engine,
            version=version,
            lineage={**stages.lineage(run, "score", version), "model_id": spec.model_id, **_manifest(manifest_uri)},
            inputs=inputs,
            retry=retry,
            n_reasons=run.config.score.reasons,
            precision=run.config.score.precision,
            watcher=watched(tell, "radiographs"),
        )


def _manifest(uri: str | None) -> dict[str, Any]:
    return {} if uri is None else {"manifest_sha256": storage.content_id(uri)}


def _texts(values: pd.Series) -> list[str | None]:
    return [None if pd.isna(value) else str(value) for value in values]

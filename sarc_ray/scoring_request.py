"""Any manifest scored with any bundle into any table: no run is needed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sarc_ray import storage, tables
from sarc_ray.bundle_scoring import score_rows_with_bundle
from sarc_ray.cohort.schema import read_manifest
from sarc_ray.config import assignment
from sarc_ray.errors import ConfigError
from sarc_ray.privacy import load_key
from sarc_ray.run import Run, load_run
from sarc_ray.telling import Tell, silent


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoringRequest:
    """What to score with what, and where to: three fsspec URLs."""

    bundle: str
    manifest: str
    table: str


def read_request(bundle: str | None, manifest: str | None, to: str | None) -> ScoringRequest | None:
    """The request that three options make; None where none of them is given.

    Raises:
        ConfigError: only some of them are given.
    """
    given = {"--bundle": bundle, "--manifest": manifest, "--to": to}
    missing = [name for name, value in given.items() if not value]
    if len(missing) == len(given):
        return None
    if missing:
        raise ConfigError(f"{', '.join(given)} belong together: {' and '.join(missing)} not given; add what is missing")
    return ScoringRequest(bundle=str(bundle), manifest=str(manifest), table=str(to))


def load_run_for(request: ScoringRequest, config: str | None, overrides: Sequence[str]) -> Run:
    """The run that gives the engine's settings, the key file and the run's name.

    Args:
        request: what to score.
        config: the run's YAML; None takes the engine of the preset ``paper``.
        overrides: ``a.b=c`` assignments.
    """
    if config is not None:
        return load_run(config, overrides)
    own = [assignment("run.directory", request.table), assignment("data.derivation", request.manifest)]
    return load_run("paper", ["run.name=score", *own, *overrides])


def score_request(request: ScoringRequest, run: Run, tell: Tell = silent, *, retry: bool = False) -> dict[str, Any]:
    """Score the request's manifest; a sealed table of the same bundle and rows is left as it is.

    Args:
        request: what to score.
        run: as :func:`load_run_for` gives it.
        tell: progress.
        retry: touch only the retryable rows of the sealed table.

    Returns:
        A record as the verbs of :mod:`sarc_ray.pipeline` give it.

    Raises:
        BundleError: the bundle is damaged; found before any radiograph is read.
        ConfigError: there is no key for patient keys, or the table would lie within the bundle.
        ManifestError: the manifest is wrong.
        StorageError: the manifest or the table cannot be reached.
    """
    started = time.perf_counter()
    if storage.lies_within(request.table, request.bundle):
        raise ConfigError(
            f"--to: {request.table} lies within the bundle, which a table would damage; name a folder of its own"
        )
    key = load_key(run.config.score.key_file)
    manifest = read_manifest(request.manifest)
    before = tables.read_pointer(request.table)
    pointer = score_rows_with_bundle(
        manifest,
        bundle_uri=request.bundle,
        table_uri=request.table,
        key=key,
        run=run,
        tell=tell,
        retry=retry,
        manifest_uri=request.manifest,
    )
    skipped = before is not None and before.version == pointer.version
    facts = {"counts": pointer.counts, "n_rows": pointer.n_rows, "table": request.table}
    if pointer.lineage.get("n_taken_over") and not skipped:
        facts["taken_over"] = pointer.lineage["n_taken_over"]
    if pointer.n_retryable:
        facts["to_try_again"] = pointer.n_retryable
    return {"skipped": skipped, "seconds": time.perf_counter() - started, "facts": facts}

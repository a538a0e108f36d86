"""From a bundle to another one that names it as its parent: the same networks and classifier, other probabilities."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from sarc_ray import __version__, storage
from sarc_ray.bundle import Bundle, load_bundle, write_bundle
from sarc_ray.bundle_parts import OOD
from sarc_ray.errors import ConfigError
from sarc_ray.recalibrating.labels import read_labelled
from sarc_ray.run import fingerprint_of
from sarc_ray.stage2.local import LocalDecision, decide, recalibrated_model
from sarc_ray.stage2.model import Stage2Model
from sarc_ray.stage2.prevalence import present_prevalence, rebased_model

# Entry of the bundle's metrics.
LOCAL = "local_recalibration"


@dataclass(frozen=True, kw_only=True, slots=True)
class RecalibrationRequest:
    """What to make of which bundle.

    Attributes:
        bundle: the parent.
        to: folder of the new bundle.
        table: labelled sample; None with ``prevalence``.
        scores: score table of the sample, where ``table`` is a manifest; or None.
        label: 0/1 column of ``table``; None for the default.
        prevalence: to re-base to; None with ``table``.
        seed: of the bootstrap.
    """

    bundle: str
    to: str
    table: str | None
    scores: str | None
    label: str | None
    prevalence: float | None
    seed: int

    def __post_init__(self) -> None:
        if (self.table is None) == (self.prevalence is None):
            raise ConfigError(
                "recalibrate: give either --table with a labelled sample, or --prevalence; with both, recalibrate "
                "first and re-base the new bundle"
            )
        if self.table is None and (self.scores or self.label):
            raise ConfigError("--scores, --label: belong to --table, which is not given; add it, or leave them out")
        if self.prevalence is not None and not 0.0 < self.prevalence < 1.0:
            raise ConfigError(f"--prevalence: found {self.prevalence}, allowed: between 0 and 1, both excluded")
        if storage.lies_within(self.to, self.bundle):
            raise ConfigError(
                f"--to: {self.to} lies within the bundle, which would be another one by it; name a folder of its own "
                "for the new one"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Recalibrated:
    """What became of a request.

    Attributes:
        parent_model_id: of the bundle that was given.
        model_id: of the one that was written; None where none was, since nothing was to be put right.
        decision: on a local sample; None for a re-basing.
        n_left_out: rows of the sample without score or label.
        label: what the labels are; empty for a re-basing.
        prevalences: present and wanted one of a re-basing; None for a sample.
        thresholds: in force before and after, in units of the score.
    """

    parent_model_id: str
    model_id: str | None
    decision: LocalDecision | None
    n_left_out: int
    label: str
    prevalences: tuple[float, float] | None
    thresholds: tuple[float, float]


def recalibrate(request: RecalibrationRequest) -> Recalibrated:
    """Decide, and write the new bundle where there is one to write.

    Raises:
        BundleError: the bundle is damaged, or the folder of the new one holds something else.
        ManifestError: the sample is wrong.
        EvaluationError: the sample is too small, or the scores hold at no known prevalence.
        StorageError: something cannot be read or written.
    """
    bundle = load_bundle(request.bundle)
    if request.table is None:
        return _rebased(request, bundle)
    sample = read_labelled(request.table, scores=request.scores, label=request.label, bundle=bundle)
    model = bundle.stage2
    decision = decide(model.calibration, sample.score_N, sample.y_N, sample.patient_N, seed=request.seed)
    done = Recalibrated(
        parent_model_id=bundle.model_id,
        model_id=None,
        decision=decision,
        n_left_out=sample.n_left_out,
        label=sample.label,
        prevalences=None,
        thresholds=(model.threshold, model.threshold),
    )
    if decision.kept == "none":
        return done
    new = recalibrated_model(model, decision)
    uris = [uri for uri in (request.table, request.scores) if uri is not None]
    inputs = [[storage.content_id(uri) for uri in uris], request.label, request.seed]
    metrics = {LOCAL: asdict(decision) | {"label": sample.label, "n_left_out": sample.n_left_out}}
    model_id = _write(request, bundle, new, metrics=metrics, inputs=inputs)
    return replace(done, model_id=model_id, thresholds=(model.threshold, new.threshold))


def _rebased(request: RecalibrationRequest, bundle: Bundle) -> Recalibrated:
    wanted: float | None = request.prevalence
    assert wanted is not None, "the request has either"
    local: dict[str, Any] = bundle.manifest.metrics.get(LOCAL, {})
    # A parent that was recalibrated, and not re-based since, holds at its sample's prevalence.
    on_sample = bundle.stage2.decision.method == local.get("kept")
    present = float(local["prevalence"]) if on_sample else present_prevalence(bundle.stage2.thresholds)
    new = rebased_model(bundle.stage2, wanted=wanted, present=present)
    return Recalibrated(
        parent_model_id=bundle.model_id,
        model_id=_write(request, bundle, new, metrics={}, inputs=["prevalence", wanted]),
        decision=None,
        n_left_out=0,
        label="",
        prevalences=(present, wanted),
        thresholds=(bundle.stage2.threshold, new.threshold),
    )


def _write(
    request: RecalibrationRequest, bundle: Bundle, model: Stage2Model, *, metrics: dict[str, Any], inputs: Any
) -> str:
    manifest = bundle.manifest

    def read(path: str) -> bytes:
        return storage.read_bytes(storage.join(request.bundle, path))

    members = {
        target.name: [read(path) for path in sorted(manifest.files) if path.startswith(f"stage1/{target.name}/")]
        for target in bundle.spec.targets
    }
    origin = {
        "parent_model_id": bundle.model_id,
        "stage": "recalibrate",
        "inputs": fingerprint_of([bundle.model_id, inputs]),
        "sarc_ray": __version__,
    }
    written = write_bundle(
        request.to,
        members=members,
        ood=read(OOD),
        stage2=model,
        spec=bundle.spec,
        metrics={**manifest.metrics, **metrics},
        lineage={**manifest.lineage, **origin},
    )
    return str(written["model_id"])

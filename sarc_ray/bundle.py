"""The bundle: one folder with all that a score needs, written whole, verified before use.

    bundle.json                               what the bundle is, and the SHA-256 of every other file; written last
    stage1/<target>/member-<k>.safetensors    weights of the ensembles, or of one network that answers for them
    stage1/ood.safetensors                    where the training pictures lie, for the distance of new ones
    stage2/model.skops                        classifier, calibration, threshold
    model_card.md                             for people

Reading a bundle runs no code from it: weights are safetensors, stage 2 is read against a fixed list of types (see
:mod:`sarc_ray.stage2.persist`), the rest is JSON. There is no pickle. The hashes find damage and careless changes; they
are no signature: whoever can write the folder can write new hashes too, so take bundles from sources that you trust.

N images of S rows and columns; M members.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from sarc_ray import storage
from sarc_ray.bundle_parts import (
    OOD,
    check_members,
    check_parts,
    check_stage2,
    content_of,
    member_numbers,
    member_path,
    mu_only_targets,
    target_names,
)
from sarc_ray.cohort.definitions import OutcomeConfig
from sarc_ray.cohort.schema import TargetConfig
from sarc_ray.config import from_mapping, to_mapping
from sarc_ray.errors import BundleError, ConfigError, SchemaVersionError, StorageError
from sarc_ray.imaging.preprocess import PreprocessConfig
from sarc_ray.instruments import Stopwatch
from sarc_ray.model_card import model_card
from sarc_ray.stage1.settings import Precision
from sarc_ray.versions import versions_of_installed

if TYPE_CHECKING:  # torch, scikit-learn and skops are imported only where a model is read
    from sarc_ray.stage1.checkpoint import LoadedMember
    from sarc_ray.stage1.ood import OodReference
    from sarc_ray.stage2.model import Stage2Model

# 3 = calibration that is judged, and thresholds of several rules. Lower ones were never released.
SCHEMA_VERSION = 3
MANIFEST = "bundle.json"
CARD = "model_card.md"
STAGE2 = "stage2/model.skops"
_PACKAGES = ("lightgbm", "numpy", "opencv-python-headless", "safetensors", "scikit-learn", "skops", "torch", "xgboost")
_ID_LENGTH = 32  # hexadecimal digits of SHA-256: 128 bits


@dataclass(frozen=True, kw_only=True, slots=True)
class BundleSpec:
    """What a score is defined on.

    Attributes:
        targets: what stage 1 predicts, in order.
        clinical_features: manifest columns that stage 2 uses.
        preprocess: how radiographs become pictures.
        age_min_years: younger patients get no score.
        outcome: what stage 2 predicts.
        batch_size: pictures at once; batches are padded to it, so that rounding does not depend on the neighbours.
        sigma_scale: per target, what the ensemble's sigma is multiplied by (recalibration); 1 leaves it.
        ood_threshold: pictures at a larger distance from the training pictures get no score; null refuses none.
        stage1: ``ensemble``, or ``distilled``: one network answers for another bundle's ensembles.
    """

    targets: tuple[TargetConfig, ...]
    clinical_features: tuple[str, ...]
    preprocess: PreprocessConfig
    age_min_years: float
    outcome: OutcomeConfig
    batch_size: int
    sigma_scale: tuple[float, ...]
    ood_threshold: float | None
    stage1: Literal["ensemble", "distilled"] = "ensemble"

    def __post_init__(self) -> None:
        names = [target.name for target in self.targets]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"targets: found {names}; name one or more, each once")
        if self.batch_size < 1:
            raise ValueError(f"batch_size: found {self.batch_size}, allowed: 1 or more")
        if len(self.sigma_scale) != len(names) or not all(0.0 < scale < math.inf for scale in self.sigma_scale):
            raise ValueError(f"sigma_scale: found {self.sigma_scale}, allowed: a number above 0 for each of {names}")
        if self.ood_threshold is not None and not 0.0 < self.ood_threshold < math.inf:
            raise ValueError(f"ood_threshold: found {self.ood_threshold}, allowed: null, or above 0")


@dataclass(frozen=True, kw_only=True, slots=True)
class BundleManifest:
    """``bundle.json``: what a bundle says of itself.

    Attributes:
        schema_version: of this file.
        model_id: hash of what decides the scores, the same for two copies of one model however they were written.
        spec: what the score is defined on.
        stage2: algorithm, hyper-parameters and features.
        threshold: in force; positive is score >= threshold.
        thresholds: of every rule, with what each does to the training patients out of fold; one is ``in_force``.
        calibration: the decision about it, with the figures behind it.
        metrics: at training; null where undefined.
        packages: versions that wrote it.
        lineage: where it comes from.
        files: SHA-256 of every other file, by path.
    """

    schema_version: int
    model_id: str
    spec: BundleSpec
    stage2: dict[str, Any]
    threshold: float
    thresholds: tuple[dict[str, Any], ...]
    calibration: dict[str, Any]
    metrics: dict[str, Any]
    packages: dict[str, str]
    lineage: dict[str, Any]
    files: dict[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Bundle:
    """A verified bundle in memory.

    Attributes:
        manifest: its ``bundle.json``.
        members: of each target, in the order of ``spec.targets``.
        ood: where the training pictures lie, in the features of the first member of the first target.
        stage2: classifier, calibration, threshold.
    """

    manifest: BundleManifest
    members: tuple[tuple[LoadedMember, ...], ...]
    ood: OodReference
    stage2: Stage2Model

    @property
    def spec(self) -> BundleSpec:
        """What the score is defined on."""
        return self.manifest.spec

    @property
    def model_id(self) -> str:
        """Hash of what decides the scores."""
        return self.manifest.model_id

    def score(
        self,
        images_NSS: npt.NDArray[np.uint8],
        clinical: pd.DataFrame,
        *,
        device: str = "auto",
        threads: int = 1,
        precision: Precision = "float32",
        watch: Stopwatch | None = None,
    ) -> pd.DataFrame:
        """Score pictures.

        Args:
            images_NSS: preprocessed pictures, uint8, shape (N, S, S), N of 1 or more.
            clinical: ``spec.clinical_features`` of the same N images, in order, none missing.
            device: auto, cpu or cuda.
            threads: of torch on the CPU.
            precision: of the convolutions.
            watch: counts the time of the networks.

        Returns:
            N rows with the index of ``clinical``: per target ``<t>_mu``, ``_sigma``, ``_var_aleatoric``,
            ``_var_epistemic``, ``_uncertainty_pct``; then ``ood_distance``, ``raw_score``, ``score``, ``flag``. All
            rows are scored, however far away: who asks here looks at ``ood_distance`` himself.

        Raises:
            BundleError: pictures of another size than the bundle's preprocessing makes.
            EvaluationError: unequal numbers of rows, or a clinical feature that is absent or missing.
        """
        size = self.spec.preprocess.size_px
        if images_NSS.shape != (len(clinical), size, size):
            raise BundleError(
                f"pictures of shape {images_NSS.shape} with {len(clinical)} clinical rows; this bundle scores pictures "
                f"of {size} x {size}, one per row"
            )
        with (watch or Stopwatch()).part("ensemble"):
            frame = pd.DataFrame(
                self.predict(images_NSS, device=device, threads=threads, precision=precision), index=clinical.index
            )
        raw_N, score_N = self.stage2.predict(self.features(clinical.join(frame)))
        return frame.assign(raw_score=raw_N, score=score_N, flag=self.stage2.flag(score_N))

    def features(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Stage 2's features of rows that hold clinical features and stage 1's predictions; missing ones stay NaN."""
        from sarc_ray.stage2.features import build_features

        return build_features(
            frame, self.spec.clinical_features, target_names(self.spec), mu_only=mu_only_targets(self.spec)
        )

    def predict(
        self,
        images_NSS: npt.NDArray[np.uint8],
        *,
        device: str = "auto",
        threads: int = 1,
        precision: Precision = "float32",
    ) -> dict[str, npt.NDArray[np.float64]]:
        """Stage 1 alone, which needs no clinical feature: each target's columns and ``ood_distance``, as `score`."""
        from sarc_ray.stage1.answers import predict_columns

        distance_N = np.empty(len(images_NSS))

        def measure(rows: slice, features_BF: npt.NDArray[np.float32]) -> None:
            distance_N[rows] = self.ood.distance(features_BF)

        columns = predict_columns(
            self.members,
            images_NSS,
            targets=self.spec.targets,
            sigma_scale=self.spec.sigma_scale,
            batch_size=self.spec.batch_size,
            device=device,
            threads=threads,
            precision=precision,
            on_features=measure,
        )
        return columns | {"ood_distance": distance_N}


def write_bundle(
    uri: str,
    *,
    members: Mapping[str, Sequence[bytes]],
    ood: bytes,
    stage2: Stage2Model,
    spec: BundleSpec,
    metrics: Mapping[str, Any],
    lineage: Mapping[str, Any],
) -> dict[str, Any]:
    """Write a bundle; ``bundle.json`` comes last, so that a folder without it is no bundle.

    Args:
        uri: folder under any fsspec URL; an older bundle there is replaced.
        members: by target, member files as ``member_to_bytes`` writes them.
        ood: reference of the training pictures as ``reference_to_bytes`` writes it.
        stage2: the final model.
        spec: what the score is defined on.
        metrics: at training, for the card; values that are not finite become null.
        lineage: where the bundle comes from, for the card.

    Returns:
        What ``bundle.json`` holds.

    Raises:
        BundleError: members, stage 2 and spec do not fit together, or the folder holds files of something else.
    """
    from sarc_ray.stage1.checkpoint import member_from_bytes
    from sarc_ray.stage1.ood import reference_from_bytes
    from sarc_ray.stage2.persist import content_hash, to_bytes

    check_parts(members, stage2, spec)
    loaded = [[member_from_bytes(data) for data in members[name]] for name in target_names(spec)]
    reference = reference_from_bytes(ood)
    check_members(loaded, reference, spec)
    files = {member_path(name, k): data for name in target_names(spec) for k, data in enumerate(members[name])}
    files |= {OOD: ood, STAGE2: to_bytes(stage2)}
    manifest: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "model_id": _model_id(spec, loaded, reference, content_hash(stage2)),
        "spec": to_mapping(spec),
        "stage2": {"algorithm": stage2.algorithm, "params": dict(stage2.params), "features": [*stage2.feature_names]},
        **stage2.stated(),
        "metrics": _plain(metrics),
        "packages": versions_of_installed(_PACKAGES),
        "lineage": _plain(lineage),
    }
    files[CARD] = model_card(manifest, spec).encode("utf-8")
    manifest["files"] = {path: hashlib.sha256(data).hexdigest() for path, data in sorted(files.items())}
    _clear(uri)
    for path, data in files.items():
        storage.write_bytes(storage.join(uri, path), data)
    storage.write_json(storage.join(uri, MANIFEST), manifest)
    return manifest


def read_manifest_of(uri: str) -> BundleManifest:
    """Read ``bundle.json`` alone; the other files are neither read nor verified.

    Raises:
        BundleError: there is no bundle, or its ``bundle.json`` is not in order.
        SchemaVersionError: written by a newer release, or before the first one.
    """
    try:
        value = storage.read_json(storage.join(uri, MANIFEST))
        _check_version(value["schema_version"], uri)
        manifest = from_mapping(BundleManifest, value)
    except StorageError as error:
        raise BundleError(f"{uri}: no bundle here, or one that was not written to its end ({error})") from error
    except (ConfigError, KeyError, TypeError) as error:
        raise BundleError(f"{uri}: {MANIFEST} is damaged or altered ({error})") from error
    wanted = {OOD, STAGE2, CARD}
    for name in target_names(manifest.spec):
        n_members = sum(path.startswith(f"stage1/{name}/") for path in manifest.files)
        wanted |= {member_path(name, k) for k in member_numbers(n_members, manifest.spec)}
    if wanted != set(manifest.files):
        raise BundleError(
            f"{uri}: {MANIFEST} lists other files than a bundle has: {', '.join(sorted(wanted ^ set(manifest.files)))}"
        )
    return manifest


def verify_bundle(uri: str) -> BundleManifest:
    """Check a bundle: every file against its hash, nothing missing, nothing added, content as ``model_id`` says.

    Returns:
        The manifest of a bundle that is in order.

    Raises:
        BundleError: as :func:`verify_files` and :func:`load_bundle`.
        SchemaVersionError: written by a newer release.
    """
    verify_files(uri)
    return load_bundle(uri).manifest


def verify_files(uri: str) -> BundleManifest:
    """Check the files of a bundle: each against its hash, nothing missing, nothing added. What is in them is not read.

    Returns:
        The manifest of a bundle whose files are in order.

    Raises:
        BundleError: names every file that is missing, added or altered, with the expected and the found hash.
        SchemaVersionError: written by a newer release.
    """
    manifest = read_manifest_of(uri)
    present = _files_below(uri) - {MANIFEST}
    problems = [f"{path}: missing" for path in sorted(set(manifest.files) - present)]
    problems += [f"{path}: not part of the bundle" for path in sorted(present - set(manifest.files))]
    for path in sorted(present & set(manifest.files)):
        found = hashlib.sha256(storage.read_bytes(storage.join(uri, path))).hexdigest()
        if found != manifest.files[path]:
            problems.append(f"{path}: expected sha256 {manifest.files[path]}, found {found}")
    if problems:
        raise BundleError(
            f"{uri}: bundle is damaged or altered; " + "; ".join(problems) + "; get it again from its source"
        )
    return manifest


def load_bundle(uri: str) -> Bundle:
    """Read a bundle, each file only after its hash was found right.

    Raises:
        BundleError: a file is missing or altered, or the content is not the one that ``model_id`` names.
        SchemaVersionError: written by a newer release.
    """
    from sarc_ray.stage1.ood import reference_from_bytes
    from sarc_ray.stage2.persist import content_hash, from_bytes

    manifest = read_manifest_of(uri)
    members = _load_members(uri, manifest)
    reference = reference_from_bytes(_read_checked(uri, OOD, manifest))
    stage2 = from_bytes(_read_checked(uri, STAGE2, manifest))
    check_members(members, reference, manifest.spec)
    check_stage2(stage2, manifest.spec)
    found = _model_id(manifest.spec, members, reference, content_hash(stage2))
    if found != manifest.model_id:
        raise BundleError(f"{uri}: expected model_id {manifest.model_id}, found {found}; {MANIFEST} was altered")
    for name, value in stage2.stated().items():
        if to_mapping(getattr(manifest, name)) != value:
            raise BundleError(
                f"{uri}: {MANIFEST} says {name} {getattr(manifest, name)}, the model has {value}; "
                "get the bundle again from its source"
            )
    ensembles = tuple(tuple(of_target) for of_target in members)
    return Bundle(manifest=manifest, members=ensembles, ood=reference, stage2=stage2)


def read_stage2(uri: str) -> Stage2Model:
    """Read classifier, calibration and threshold, and none of the networks; raises as :func:`load_bundle`."""
    from sarc_ray.stage2.persist import from_bytes

    return from_bytes(_read_checked(uri, STAGE2, read_manifest_of(uri)))


def require_preprocessing(spec: BundleSpec, given: PreprocessConfig) -> None:
    """Refuse pictures that were made in another way than the bundle's training pictures.

    Raises:
        BundleError: names the first setting that differs.
    """
    own, other = to_mapping(spec.preprocess), to_mapping(given)
    for key in own:
        if own[key] != other[key]:
            raise BundleError(
                f"preprocess.{key}: found {other[key]!r}, the bundle was trained with {own[key]!r}; scoring with "
                "preprocessing other than the bundle's is refused. Prepare the images with the bundle's settings"
            )


def _check_version(found: int, uri: str) -> None:
    if found != SCHEMA_VERSION:
        remedy = "install a newer sarc-ray" if found > SCHEMA_VERSION else "write it anew (sarc-ray train and tune)"
        raise SchemaVersionError(
            f"{uri}: bundle of schema version {found}, this release reads {SCHEMA_VERSION} alone; {remedy}"
        )


def _read_checked(uri: str, path: str, manifest: BundleManifest) -> bytes:
    try:
        data = storage.read_bytes(storage.join(uri, path))
    except StorageError as error:
        raise BundleError(f"{uri}: {path} cannot be read ({error}); get the bundle again from its source") from error
    found = hashlib.sha256(data).hexdigest()
    if found != manifest.files[path]:
        told = f"expected sha256 {manifest.files[path]}, found {found}; get the bundle again from its source"
        raise BundleError(f"{uri}: {path}: {told}")
    return data


def _load_members(uri: str, manifest: BundleManifest) -> list[list[LoadedMember]]:
    from sarc_ray.stage1.checkpoint import member_from_bytes

    first: dict[str, LoadedMember] = {}
    members: list[list[LoadedMember]] = []
    for name in target_names(manifest.spec):
        paths = sorted(path for path in manifest.files if path.startswith(f"stage1/{name}/"))
        members.append([])
        for path in paths:  # one file at a time: fifteen VGG16 are 0.9 GB
            member = member_from_bytes(_read_checked(uri, path, manifest))
            # Equal convolutions are kept once, and run once per picture.
            shared = first.setdefault(member.backbone_hash, member)
            member.network.backbone = shared.network.backbone
            members[-1].append(member)
    return members


def _model_id(
    spec: BundleSpec, members: Sequence[Sequence[LoadedMember]], reference: OodReference, stage2_hash: str
) -> str:
    content = {
        "spec": content_of(spec),
        "members": [[member.content_hash for member in of_target] for of_target in members],
        "ood": reference.content_hash,
        "stage2": stage2_hash,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode("ascii")).hexdigest()[:_ID_LENGTH]


def _files_below(uri: str) -> set[str]:
    fs, path = storage.filesystem(uri)
    root = str(fs.unstrip_protocol(path)).rstrip("/") + "/"
    return {file.removeprefix(root) for file in storage.list_files(uri)}


def _clear(uri: str) -> None:
    """Make room: take away an older bundle, its ``bundle.json`` first, and nothing that is not a bundle's."""
    present = _files_below(uri)
    foreign = sorted(f for f in present if f not in (MANIFEST, CARD, STAGE2) and not f.startswith("stage1/"))
    if foreign:
        raise BundleError(f"{uri}: this folder holds {foreign[0]!r}, which is no bundle's; choose an empty folder")
    for path in sorted(present, key=lambda path: path != MANIFEST):
        storage.remove_tree(storage.join(uri, path))


def _plain(value: Any) -> Any:
    """The same in JSON's types; NumPy scalars become Python's, what is not finite becomes null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value

"""The verb ``explain``: predictions and heat maps of single radiographs, in this process, without an engine.

N images of one request; names of files hold row ids, never the images' own names.
"""

from __future__ import annotations

import functools
import io
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from PIL import Image

from sarc_ray import storage
from sarc_ray.bundle import Bundle, load_bundle
from sarc_ray.cohort.schema import read_manifest, row_id
from sarc_ray.errors import REASONS, ConfigError, ExportError, ManifestError, Outcome, Reason
from sarc_ray.exporting.objects import NOT_FOR_DIAGNOSIS, require_highdicom
from sarc_ray.exporting.secondary_capture import Overlay, secondary_capture
from sarc_ray.exporting.source import Source, fetch_source
from sarc_ray.imaging.batch import prepare_rows, stack_images
from sarc_ray.imaging.isolation import ReadLimits
from sarc_ray.report import words
from sarc_ray.report.heat import overlay_png
from sarc_ray.scoring import score_rows

TABLE = "explanations.csv"
PNG, DICOM = "png", "dicom"
_ENDINGS = {PNG: "png", DICOM: "dcm"}
_MANIFESTS = (".csv", ".parquet")
_LIST = ".txt"
# Pictures in memory at once; with five members each holds some 2 MB of maps at 224 pixels.
_IMAGES_AT_ONCE = 16
_OF_THE_RUN = ["patient_key", "study_key", "site", "device", "run_id"]

Tell = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Explained:
    """What became of a request.

    Attributes:
        table: what ``explanations.csv`` holds, a row for each image.
        n_pictures: overlays that were written.
        unfiled: how many readable images have no DICOM overlay although these were asked for, by cause.
    """

    table: pd.DataFrame
    n_pictures: int
    unfiled: dict[str, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class _How:
    limits: ReadLimits
    threads: int
    formats: Collection[str]


def collect_images(arguments: Sequence[str], clinical_features: Sequence[str]) -> pd.DataFrame:
    """The images that a request names, each once.

    Args:
        arguments: DICOM objects, manifests (``.csv``, ``.parquet``), and lists (``.txt``: an object in each line,
            relative to the list's folder), under any fsspec URL.
        clinical_features: columns to take from manifests.

    Returns:
        ``row_id``, ``image_uri`` (absolute), ``view`` and the clinical features, in the order of the request. An image
        that is named twice keeps its first place, and its manifest's values.

    Raises:
        ConfigError: no image is named.
        ManifestError: a manifest is wrong, or a list holds no name.
        StorageError: a manifest or list cannot be read.
    """
    rows = pd.concat([_images_of(argument) for argument in arguments], ignore_index=True) if arguments else None
    if rows is None:
        raise ConfigError("IMAGE: none given; name DICOM objects, manifests (.csv, .parquet) or lists (.txt)")
    columns = [name for name in dict.fromkeys(("row_id", "image_uri", "view", *clinical_features)) if name in rows]
    # The first value that is there, for each image.
    return rows[columns].groupby("row_id", sort=False).first().reset_index()


def explain(
    bundle_uri: str,
    images: Sequence[str],
    to: str,
    *,
    limits: ReadLimits,
    threads: int,
    formats: Collection[str] = (PNG,),
    tell: Tell | None = None,
) -> Explained:
    """Write an overlay for each target of each readable image, and a table of predictions; the table comes last.

    Args:
        bundle_uri: the model.
        images: as :func:`collect_images` takes them.
        to: folder under any fsspec URL; files of the same names are replaced.
        limits: what reading one image may use.
        threads: of the networks on a CPU.
        formats: of the overlays, ``PNG``, ``DICOM`` (Secondary Capture Images in the radiographs' own studies) or both.
        tell: progress.

    Returns:
        The table: ``number`` (place in the request), the columns of the score table without keys, and per target
        ``<t>_disagreement``, the mean over the picture of its members' standard deviation (empty for a distilled
        bundle). Predictions stand there for every readable image, the score where its clinical features are known.

    Raises:
        BundleError: the bundle is damaged.
        ConfigError, ManifestError: the request names no image, a manifest is wrong, or highdicom is missing.
        StorageError: a manifest cannot be read, or the folder cannot be written.
    """
    if DICOM in formats:
        require_highdicom()
    bundle = load_bundle(bundle_uri)
    rows = collect_images(images, bundle.spec.clinical_features)
    how = _How(limits=limits, threads=threads, formats=formats)
    parts, n_pictures = [], 0
    unfiled: Counter[str] = Counter()
    for start in range(0, len(rows), _IMAGES_AT_ONCE):
        part, pictures = _explain_some(bundle, rows.iloc[start : start + _IMAGES_AT_ONCE], how, unfiled)
        for name, picture in pictures:
            storage.write_bytes(storage.join(to, name), picture)
            n_pictures += 1
        parts.append(part)
        if tell is not None:
            tell("radiographs", min(start + _IMAGES_AT_ONCE, len(rows)), len(rows))
    table = pd.concat(parts, ignore_index=True)
    table.insert(0, "number", np.arange(1, len(table) + 1))
    storage.write_table(storage.join(to, TABLE), table)
    return Explained(table=table, n_pictures=n_pictures, unfiled=dict(unfiled))


def picture_name(row: int, target_name: str, picture_format: str = PNG) -> str:
    """File name of an overlay: the image's row id, as in score tables, and the target."""
    return f"{row}-{target_name}.{_ENDINGS[picture_format]}"


def _images_of(argument: str) -> pd.DataFrame:
    if argument.endswith(_MANIFESTS):
        return read_manifest(argument)
    uris = _read_list(argument) if argument.endswith(_LIST) else [argument]
    absolute = [storage.canonical_uri(uri) for uri in uris]
    return pd.DataFrame({"row_id": [row_id(uri) for uri in absolute], "image_uri": absolute})


def _read_list(uri: str) -> list[str]:
    try:
        lines = storage.read_text(uri).splitlines()
    except UnicodeDecodeError as error:
        raise ManifestError(f"{uri}: not UTF-8 text; a list has the name of a DICOM object in each line") from error
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise ManifestError(f"{uri}: the list is empty; write the name of a DICOM object in each line")
    return [storage.join(storage.parent(uri), name) for name in names]


def _explain_some(
    bundle: Bundle, rows: pd.DataFrame, how: _How, unfiled: Counter[str]
) -> tuple[pd.DataFrame, list[tuple[str, bytes]]]:
    """Rows of the table, and names and bytes of the overlays."""
    spec = bundle.spec
    batch = prepare_rows(rows["row_id"].tolist(), rows["image_uri"].tolist(), spec.preprocess, how.limits)
    readable_N = np.array([outcome == Outcome.SCORED for outcome in batch["outcome"].to_pylist()], dtype=bool)
    for name in rows.columns.difference(batch.column_names).difference(["image_uri"]):
        batch = batch.append_column(name, pa.Array.from_pandas(rows[name]))
    table = score_rows(batch, bundle, run_id="", threads=how.threads).to_pandas().drop(columns=_OF_THE_RUN)
    for target in spec.targets:
        table[f"{target.name}_disagreement"] = np.nan
    if not readable_N.any():
        return table, []
    images_NSS = stack_images(batch["image"].filter(pa.array(readable_N)), spec.preprocess.size_px)
    for name, values_N in bundle.predict(images_NSS, threads=how.threads).items():
        # An image without its clinical features has no score, but the networks need none of them.
        table.loc[readable_N, name] = values_N
    places = np.flatnonzero(readable_N)
    sources = _sources(rows["image_uri"].tolist(), table, places, unfiled) if DICOM in how.formats else {}
    return table, list(_overlays(bundle, table, places, images_NSS, how, sources))


def _sources(
    uris: Sequence[str], table: pd.DataFrame, places: npt.NDArray[np.intp], unfiled: Counter[str]
) -> dict[int, Source]:
    """Headers of the readable images, by place; those beside which nothing can be filed are counted instead."""
    found = {}
    for place in places.tolist():
        try:
            found[place] = fetch_source(uris[place], str(table["image_sha256"].iloc[place]))
        except ExportError as error:
            unfiled[str(error)] += 1
    return found


def _overlays(
    bundle: Bundle,
    table: pd.DataFrame,
    places: npt.NDArray[np.intp],
    images_NSS: npt.NDArray[np.uint8],
    how: _How,
    sources: Mapping[int, Source],
) -> Iterator[tuple[str, bytes]]:
    """Draw the overlays of the readable images; their disagreement is written into the table on the way."""
    from sarc_ray.stage1.saliency import grad_cam  # imports torch

    for number, (target, members) in enumerate(zip(bundle.spec.targets, bundle.members, strict=True), start=1):
        maps = grad_cam(members, images_NSS, threads=how.threads)
        several = len(members) > 1  # a distilled network has nobody to disagree with
        if several:
            table.loc[places, f"{target.name}_disagreement"] = maps.disagreement_NHW.mean(axis=(1, 2))
        for k, place in enumerate(places.tolist()):
            row = table.iloc[place]
            draw = functools.partial(
                overlay_png,
                images_NSS[k],
                maps.mean_NHW[k],
                maps.disagreement_NHW[k] if several else None,
                target=target,
                mu=float(row[f"{target.name}_mu"]),
                sigma=float(row[f"{target.name}_sigma"]),
            )
            if PNG in how.formats:
                yield picture_name(int(row["row_id"]), target.name), draw(note=_note(row))
            if place in sources:
                overlay = Overlay(
                    pixels_HW3=_pixels(draw(note=f"{_note(row)}\n{NOT_FOR_DIAGNOSIS}")),
                    target_label=target.label,
                    number=number,
                    model_id=bundle.model_id,
                    of_ensemble=several,
                )
                name = picture_name(int(row["row_id"]), target.name, DICOM)
                yield name, secondary_capture(overlay, sources[place])


def _pixels(png: bytes) -> npt.NDArray[np.uint8]:
    """RGB of shape (H, W, 3)."""
    with Image.open(io.BytesIO(png)) as picture:
        return np.asarray(picture.convert("RGB"))


def _note(row: pd.Series) -> str:
    """The score, or why there is none: a heat map looks as sure on a picture that no score is given for."""
    if row["outcome"] == Outcome.SCORED:
        return f"score {words.number(float(row['score']))}"
    return f"no score: {REASONS[Reason(row['reason'])].meaning}"

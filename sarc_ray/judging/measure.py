"""Measure the gate: ``python -m sarc_ray.judging.measure MANIFEST --page docs/explanation/gate.md``.

MANIFEST is a manifest with a column ``split``; only rows of ``test_internal`` are looked at, whose patients the judge
has not seen. The table goes between the page's two marker lines, or to the standard output without ``--page``.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from scipy.stats import beta

from sarc_ray import storage
from sarc_ray.cohort.schema import read_manifest
from sarc_ray.config import from_mapping, load_preset
from sarc_ray.errors import ImageError, Reason
from sarc_ray.imaging import pixel_gate
from sarc_ray.imaging.preprocess import PreprocessConfig, process_image
from sarc_ray.judging import sources
from sarc_ray.judging.pictures import POSES, as_taken, in_pose
from sarc_ray.judging.sources import Field
from sarc_ray.simulate.detector import DEVICES, Header, to_dicom

SEED = 20231
# Per kind of picture, where there is no end of them.
_DRAWN = 400
_PHANTOMS_PER_DEVICE = 100
_BLOCK = re.compile(r"(<!-- measured: gate -->\n).*?(<!-- end of measured -->\n)", re.DOTALL)


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """What became of pictures of one kind.

    Args:
        title: what they show.
        counts: how often each reason was given; ``Reason.NONE`` where the gate let them pass.
    """

    title: str
    counts: Counter[Reason]

    @property
    def n(self) -> int:
        """Pictures."""
        return self.counts.total()

    @property
    def refused(self) -> int:
        """Pictures that did not pass."""
        return self.n - self.counts[Reason.NONE]


def exact_interval(events: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Two-sided confidence interval of a share.

    References:
        Clopper CJ, Pearson ES. The use of confidence or fiducial limits illustrated in the case of the binomial.
        Biometrika 1934; 26: 404-413.
    """
    tail = (1 - level) / 2
    low = 0.0 if events == 0 else float(beta.ppf(tail, events, n - events + 1))
    high = 1.0 if events == n else float(beta.ppf(1 - tail, events + 1, n - events))
    return low, high


def verdict(picture_SS: Field) -> Reason:
    """What the gate says of the pixels of a square picture."""
    try:
        pixel_gate.check(np.ascontiguousarray(picture_SS, dtype=np.float32), shape_HW=(1, 1))
    except ImageError as error:
        return error.reason
    return Reason.NONE


def untouched(manifest_uri: str) -> list[Row]:
    """Radiographs as they come, the whole way from their bytes with the preset ``paper``."""
    frame = read_manifest(manifest_uri)
    frame = frame[frame["split"] == "test_internal"].reset_index(drop=True)
    config = from_mapping(PreprocessConfig, load_preset("paper")["preprocess"])
    data = storage.read_many(frame["image_uri"].tolist())
    reasons = np.array([process_image(one, config).reason for one in data], dtype=object)
    found = frame["any_finding"].astype(bool)
    groups = {
        f"radiographs as they come ({frame['patient_id'].nunique()} patients)": found | True,
        "- of these, AP": frame["view"] == "AP",
        "- of these, PA": frame["view"] == "PA",
        "- of these, with a finding": found,
        "- of these, without": ~found,
    }
    return [Row(title=title, counts=Counter(reasons[rows.to_numpy()].tolist())) for title, rows in groups.items()]


def phantoms() -> Row:
    """Phantoms of every simulated device, the whole way from their bytes with the preset ``demo``."""
    config = from_mapping(PreprocessConfig, load_preset("demo")["preprocess"])
    rows = load_preset("demo")["simulate"]["size_px"]
    counts: Counter[Reason] = Counter()
    for index in range(_PHANTOMS_PER_DEVICE * len(DEVICES)):
        device, gray_HW = sources.phantom(index, seed=SEED, rows=rows)
        header = Header(
            patient_id="P",
            study_id="S",
            image_key=str(index),
            sex="F",
            age_years=70.0,
            acquired_on="2020-01-01",
            view="PA",
            body_part="CHEST",
            site=device.sites[0],
        )
        counts[process_image(to_dicom(gray_HW, device=device, header=header), config).reason] += 1
    return Row(title="frontal phantoms of the simulator's devices", counts=counts)


def altered(chests: Sequence[Field]) -> Iterator[Row]:
    """The test patients' radiographs, altered: what should pass first, then what should not."""
    rng = np.random.default_rng(SEED)
    varied = [as_taken(chest, rng) for chest in chests for _ in range(4)]
    yield _row("the same, otherwise exposed, tilted up to 12 degrees, shifted, with borders and markers", varied)
    yield _row("the same, mirrored left to right (not judged)", (chest[:, ::-1] for chest in chests))
    for degrees in (20, 45):
        yield _row(f"tilted by {degrees} degrees", (_tilted(chest, degrees) for chest in chests))
    names = {pose: pose.replace("_", " ").replace("turned", "turned by") for pose in POSES[1:]}
    for pose, name in names.items():
        yield _row(name.replace(" inverted", ", inverted"), (in_pose(chest, pose) for chest in chests))
    yield _row("flipped top to bottom", (chest[::-1] for chest in chests))
    yield _row("transposed", (chest.T for chest in chests))
    yield _row("collimated to 40% of the picture", (_collimated(chest, 0.40) for chest in chests))
    yield _row("windowed to black and white", ((chest > np.median(chest)).astype(np.float32) for chest in chests))


def drawn(chests: Sequence[Field]) -> Iterator[Row]:
    """Pictures that are no chest, drawn anew; the judge has learned from others of these kinds."""
    for kind in sources.KINDS:
        yield _row(_TITLES[kind], _of_kind(kind, chests, sources.photographs()))


def held_out(chests: Sequence[Field]) -> Iterator[Row]:
    """Pictures of kinds that the judge has never seen."""
    for kind in (*sources.HELD_OUT_PARTS, *sources.HELD_OUT_STRANGE):
        yield _row(_TITLES[kind], _of_kind(kind, chests, []))
    others = _matplotlib_pictures()
    rng = np.random.default_rng(SEED)
    yield _row("parts of two photographs and of a terrain", (sources.photo(others, rng) for _ in range(_DRAWN)))
    yield _row("CT, MR, ultrasound and scintigraphy (pydicom's own files)", _pydicom_pictures())


_TITLES = {
    "cropped": "a part of a chest: one side, apices, bases and belly, a stripe, a detail",
    "torn": "a chest in tiles, unrolled, or twice side by side",
    "lateral": "lateral chest, drawn",
    "hand": "hand, drawn",
    "knee": "knee, drawn",
    "page": "page of text",
    "screen": "screen of a viewer, half of them with a chest in it",
    "noise": "noise",
    "clouds": "clouds",
    "gradient": "gradient",
    "shapes": "ellipses and boxes",
    "photo": "parts of two photographs",
    "skull": "skull, drawn",
    "pelvis": "pelvis, drawn",
    "grating": "bars, checks and rings",
}


def _row(title: str, pictures: Iterable[Field]) -> Row:
    return Row(title=title, counts=Counter(verdict(picture) for picture in pictures))


def _of_kind(kind: str, chests: Sequence[Field], photographs: list[Field]) -> Iterator[Field]:
    for index in range(_DRAWN):
        rng = np.random.default_rng([SEED, index])
        yield sources.not_a_chest(kind, chests[index % len(chests)], photographs, rng)


def _tilted(chest_SS: Field, degrees: float) -> Field:
    side = chest_SS.shape[0]
    matrix = cv2.getRotationMatrix2D((side / 2, side / 2), degrees, 0.9)
    return np.asarray(cv2.warpAffine(chest_SS, matrix, (side, side), flags=cv2.INTER_LINEAR), dtype=np.float32)


def _collimated(chest_SS: Field, share: float) -> Field:
    side = chest_SS.shape[0]
    edge = round(side * (1 - share**0.5) / 2)
    picture_SS = np.zeros_like(chest_SS)
    inside = slice(edge, side - edge)
    picture_SS[inside, inside] = chest_SS[inside, inside]
    return picture_SS


def _matplotlib_pictures() -> list[Field]:
    import matplotlib

    folder = Path(matplotlib.get_data_path()) / "sample_data"
    pictures = []
    for name in ("grace_hopper.jpg", "Minduka_Present_Blue_Pack.png"):
        coded = np.frombuffer((folder / name).read_bytes(), np.uint8)
        pictures.append(sources.grey_of(np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR_RGB), dtype=np.uint8)))
    heights = np.load(folder / "jacksboro_fault_dem.npz")["elevation"].astype(np.float32)
    return [*pictures, (heights - heights.min()) / np.ptp(heights)]


def _pydicom_pictures() -> Iterator[Field]:
    import pydicom
    from pydicom.data import get_testdata_file

    names = ("CT_small", "693_J2KI", "J2K_pixelrep_mismatch", "MR_small", "examples_overlay", "JPEG2000", "JPGExtended")
    for name in (*names, "examples_rgb_color", "examples_palette"):
        path = get_testdata_file(f"{name}.dcm", download=False)
        dataset = pydicom.dcmread(str(path))
        pixels = dataset.pixel_array.astype(np.float32)
        pixels = pixels.mean(axis=-1) if pixels.ndim == 3 else pixels
        low, high = np.percentile(pixels, (0.5, 99.5))
        grey = np.clip((pixels - low) / (high - low), 0, 1)
        square = cv2.resize(grey, (sources.SIZE_PX, sources.SIZE_PX), interpolation=cv2.INTER_AREA)
        yield np.asarray(square, dtype=np.float32)


def to_markdown(sections: dict[str, list[Row]]) -> str:
    """One table per section."""
    parts = []
    for title, rows in sections.items():
        given = [reason for reason in Reason if reason and any(row.counts[reason] for row in rows)]
        head = ["picture", "n", "passes", *(f"`{reason}`" for reason in given), "refused, % (95% interval)"]
        lines = [f"| {' | '.join(head)} |", f"| {' | '.join(['---'] * len(head))} |"]
        for row in rows:
            low, high = exact_interval(row.refused, row.n)
            share = f"{100 * row.refused / row.n:.1f} ({100 * low:.1f} to {100 * high:.1f})"
            cells = [row.title, str(row.n), str(row.counts[Reason.NONE])]
            cells += [str(row.counts[reason] or "") for reason in given]
            lines.append(f"| {' | '.join([*cells, share])} |")
        parts.append(f"### {title}\n\n" + "\n".join(lines) + "\n")
    return "\n".join(parts)


def measure(manifest_uri: str) -> dict[str, list[Row]]:
    """All rows, by section."""
    chests = list(sources.read_split(manifest_uri, "test_internal").pictures_NSS)
    makers: dict[str, Callable[[Sequence[Field]], Iterable[Row]]] = {
        "Radiographs of patients that were not seen, altered": altered,
        "No chests, of kinds that were learned from": drawn,
        "No chests, of kinds that were not": held_out,
    }
    sections = {"Frontal chests as they come": [*untouched(manifest_uri), phantoms()]}
    return sections | {title: list(maker(chests)) for title, maker in makers.items()}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest")
    parser.add_argument("--page", type=Path)
    options = parser.parse_args()
    table = to_markdown(measure(options.manifest))
    if options.page is None:
        sys.stdout.write(table)
        return
    text = options.page.read_text(encoding="utf-8")
    options.page.write_text(_BLOCK.sub(lambda match: f"{match[1]}\n{table}\n{match[2]}", text), encoding="utf-8")


if __name__ == "__main__":
    main()

"""Before and after preprocessing, one radiograph of each kind of device, on one sheet to be looked at.

    python docs/make_contact_sheet.py                                    # the simulated devices: docs/images/
    python docs/make_contact_sheet.py --folder URL --to sheet.png        # the first file of each kind in a folder

A kind is a device with its bits, sense of grey, view and transfer syntax. Sheets of real radiographs stay out of the
repository.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from pydicom.uid import UID

from sarc_ray import storage
from sarc_ray.errors import ImageError
from sarc_ray.imaging.header import HeaderFacts
from sarc_ray.imaging.preprocess import PreprocessConfig, process_image
from sarc_ray.inspection.look import show_original
from sarc_ray.inspection.request import settings_for
from sarc_ray.simulate.anatomy import Signals
from sarc_ray.simulate.detector import DEVICES, Header, to_dicom
from sarc_ray.simulate.phantom import render

SHEET = Path(__file__).parent / "images" / "contact-sheet.png"
SEED = 2023
SIMULATED_HEIGHT_PX = 1024
ByteArray = npt.NDArray[np.uint8]

_SIDE_PX = 168
_GAP_PX = 6
_LABEL_PX = 34
_KINDS_A_ROW = 4
_TEXT_SCALE = 0.38
_WHITE, _BLACK, _GREY = 255, 0, 96


def main() -> None:
    """Draw the sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", metavar="URL", help="DICOM objects, any fsspec URL")
    parser.add_argument("--to", metavar="PNG", help="the sheet to write; needed with --folder")
    arguments = parser.parse_args()
    if arguments.folder and not arguments.to:
        parser.error("--folder needs --to; a sheet of real radiographs has no place of its own")
    objects = objects_in(arguments.folder) if arguments.folder else simulated()
    found, png = cv2.imencode(".png", draw_sheet(objects), [cv2.IMWRITE_PNG_COMPRESSION, 9])
    assert found
    storage.write_bytes(arguments.to or str(SHEET), bytes(png))


def simulated() -> Iterator[bytes]:
    """One radiograph of each simulated device; no two are of one patient."""
    for number, device in enumerate(DEVICES):
        rng = np.random.default_rng([SEED, number])
        alm, hgs, crt, breast, aorta = (float(value) for value in rng.normal(size=5))
        signals = Signals(alm=alm, hgs=hgs, crt=crt, haze=float(rng.uniform()), breast=breast, aorta=aorta)
        shape_HW = (SIMULATED_HEIGHT_PX, round(SIMULATED_HEIGHT_PX * device.aspect))
        header = Header(
            patient_id=f"S{number}",
            study_id=f"S{number}",
            image_key=f"contact sheet {number}",
            sex="FM"[number % 2],
            age_years=70.0,
            acquired_on="2020-01-01",
            view=("PA", "AP")[number % 2],
            body_part="CHEST",
            site=device.sites[0],
        )
        yield to_dicom(render(signals, shape_HW=shape_HW, rng=rng).gray_HW, device=device, header=header)


def objects_in(folder: str) -> Iterator[bytes]:
    """Every object of a folder, in order of names."""
    for uri, _ in sorted(storage.walk_objects(folder)):
        yield storage.read_bytes(uri)


def draw_sheet(objects: Iterator[bytes]) -> ByteArray:
    """The first object of each kind, original and small picture beside each other; shape (H, W)."""
    settings = settings_for(None, None)
    cells: dict[str, ByteArray] = {}
    for data in objects:
        result = process_image(data, settings.preprocess)
        if result.header is None or kind_of(result.header) in cells:
            continue
        before = shown_or_none(data, settings.preprocess)
        label = kind_of(result.header)
        cells[label] = draw_cell(label, before, result.image_HW, str(result.reason))
    rows = [list(cells.values())[k : k + _KINDS_A_ROW] for k in range(0, len(cells), _KINDS_A_ROW)]
    blank = np.full_like(next(iter(cells.values())), _WHITE)
    return np.vstack([np.hstack([*row, *[blank] * (len(rows[0]) - len(row))]) for row in rows])


def kind_of(header: HeaderFacts) -> str:
    """Device and view on one line, how its pixels are stored on the next."""
    name = (header.model or header.manufacturer or "unnamed device").title()
    syntax = UID(header.transfer_syntax).name.split(",")[0].split("(")[0]
    syntax = syntax.replace("Little Endian", "LE").replace("Big Endian", "BE").replace("Image Compression", "").strip()
    stored = f"{header.bits_stored} bit {(header.photometric or '').replace('MONOCHROME', 'MONO')}"
    return f"{name}, {header.view or 'no view'}\n{stored}, {syntax}"


def shown_or_none(data: bytes, preprocess: PreprocessConfig) -> ByteArray | None:
    """The original as a viewer shows it; None where it cannot be shown."""
    try:
        return show_original(data, preprocess)
    except ImageError:
        return None


def draw_cell(label: str, before_HW: ByteArray | None, after_HW: ByteArray | None, reason: str) -> ByteArray:
    """One kind: two lines of label, the original at its own ratio, the small square picture."""
    panels = []
    for picture_HW, otherwise in ((before_HW, "not shown"), (after_HW, reason)):
        panel = np.full((_SIDE_PX, _SIDE_PX), _GREY, dtype=np.uint8)
        if picture_HW is None:
            _write(panel, otherwise, _SIDE_PX // 2)
        else:
            scale = _SIDE_PX / max(picture_HW.shape)
            size = (round(picture_HW.shape[1] * scale), round(picture_HW.shape[0] * scale))
            small_HW = cv2.resize(picture_HW, size, interpolation=cv2.INTER_AREA)
            top, left = (_SIDE_PX - size[1]) // 2, (_SIDE_PX - size[0]) // 2
            panel[top : top + size[1], left : left + size[0]] = small_HW
        panels.append(np.pad(panel, ((0, _GAP_PX), (0, _GAP_PX)), constant_values=_WHITE))
    cell = np.hstack(panels)
    head = np.full((_LABEL_PX, cell.shape[1]), _WHITE, dtype=np.uint8)
    for number, line in enumerate(label.split("\n")):
        _write(head, line, 13 + 14 * number, color=_BLACK)
    return np.vstack([head, cell])


def _write(picture_HW: ByteArray, text: str, base_px: int, *, color: int = _WHITE) -> None:
    cv2.putText(
        picture_HW, text, (_GAP_PX, base_px), cv2.FONT_HERSHEY_SIMPLEX, _TEXT_SCALE, color, lineType=cv2.LINE_AA
    )


if __name__ == "__main__":
    main()

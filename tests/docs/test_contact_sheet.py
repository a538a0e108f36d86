"""The sheet that people look at: one cell for each kind of device, refused ones among them."""

import importlib.util
import itertools
from pathlib import Path

import cv2
import numpy as np

from sarc_ray.simulate.detector import DEVICES
from tests.dicom_factory import PROGRESSIVE_JPEG_RETIRED, make_dicom

ROOT = Path(__file__).parents[2]


def load_script():
    spec = importlib.util.spec_from_file_location("make_contact_sheet", ROOT / "docs" / "make_contact_sheet.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_kind_has_one_cell():
    script = load_script()
    objects = [
        make_dicom(),
        make_dicom(),  # of the same kind
        make_dicom(PhotometricInterpretation="MONOCHROME1"),
        make_dicom(syntax=PROGRESSIVE_JPEG_RETIRED, frames=[b"\xff\xd8"]),
        b"no DICOM object",
    ]
    cell = script.draw_cell("a\nb", None, None, "unsupported_syntax")
    sheet = script.draw_sheet(iter(objects))
    assert sheet.shape == (cell.shape[0], 3 * cell.shape[1])
    cells = np.split(sheet, 3, axis=1)
    assert not any(np.array_equal(a, b) for a, b in itertools.pairwise(cells))


def test_the_committed_sheet_shows_every_simulated_device():
    script = load_script()
    assert script.SHEET.stat().st_size < 300_000
    sheet = cv2.imread(str(script.SHEET), cv2.IMREAD_GRAYSCALE)
    cell = script.draw_cell("a\nb", None, None, "")
    n_rows = -(-len(DEVICES) // script._KINDS_A_ROW)
    assert sheet.shape == (n_rows * cell.shape[0], script._KINDS_A_ROW * cell.shape[1])
    first = next(script.simulated())
    drawn = script.draw_sheet(iter([first]))
    # The header line and both pictures of the first device are what is drawn today, up to rounding of codecs.
    shown = sheet[: drawn.shape[0], : drawn.shape[1]]
    assert np.abs(shown.astype(int) - drawn).mean() < 2

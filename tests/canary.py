"""Canaries: texts that are planted where patients' data may stand, and the search for them in whatever was written."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pydicom
from pydicom.datadict import DicomDictionary
from pydicom.dataset import Dataset
from pydicom.filewriter import dcmwrite
from pydicom.sequence import Sequence

# In values of headers, names of files, cells of manifests. Upper case, since headers are read in upper case.
TAG, FILE, CELL = "ZQTAGCANARY", "ZQFILECANARY", "ZQCELLCANARY"
UID = "1.2.826.0.1.88774422"
BIRTH_DATE = "19470213"
OF_HEADERS = (TAG, UID, BIRTH_DATE, f"{BIRTH_DATE[:4]}-{BIRTH_DATE[4:6]}-{BIRTH_DATE[6:]}")

_TEXT_VRS = {"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"}
# Without these as they are, a file is no radiograph that could be scored: it would be refused before much is read.
NEEDED = frozenset(
    {
        *("SpecificCharacterSet", "Modality", "PhotometricInterpretation", "BodyPartExamined", "ViewPosition"),
        *("PatientSpeciesDescription", "PresentationLUTShape", "VOILUTFunction", "PixelIntensityRelationship"),
    }
)
# What an inventory lists, by its documentation.
LISTED = frozenset({"Manufacturer", "ManufacturerModelName"})


def text_keywords() -> list[str]:
    """Keywords of all text elements of the standard's data sets, retired ones among them."""
    return [
        entry[4]
        for tag, entry in DicomDictionary.items()
        if entry[0] in _TEXT_VRS and entry[4] and tag >> 16 not in (0x0000, 0x0002, 0xFFFE) and tag < 0x7FE00000
    ]


def plant(data: bytes, *, number: int = 0, spared: frozenset[str] = NEEDED | LISTED, few: bool = False) -> bytes:
    """A file with canaries in its text elements, in a sequence and in private elements.

    Args:
        data: a DICOM Part 10 file.
        number: makes identifiers differ.
        spared: keywords that stay as they are.
        few: names, identifiers and comments alone, which is quicker.
    """
    dataset = pydicom.dcmread(io.BytesIO(data))
    usual = ("PatientName", "OtherPatientIDs", "PatientAddress", "PatientComments", "ImageComments", "InstitutionName")
    for keyword in usual if few else text_keywords():
        if keyword not in spared:
            setattr(dataset, keyword, f"{TAG}")
    dataset.PatientID = f"{TAG}-{number}"
    dataset.StudyInstanceUID = f"{UID}.{number}"
    dataset.SeriesInstanceUID = f"{UID}.{number}.1"
    dataset.PatientBirthDate = BIRTH_DATE
    item = Dataset()
    item.RequestedProcedureDescription = TAG
    item.ScheduledProcedureStepDescription = TAG
    dataset.RequestAttributesSequence = Sequence([item])
    block = dataset.private_block(0x0011, f"{TAG} CREATOR", create=True)
    for element, vr in enumerate(("LO", "PN", "LT", "UT"), start=1):
        block.add_new(element, vr, TAG)
    sink = io.BytesIO()
    dcmwrite(sink, dataset)
    return sink.getvalue()


def text_of(path: Path) -> str:
    """All that a file holds, as text; tables are read, since their bytes are compressed."""
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        frame = table.drop_columns([name for name in ("image",) if name in table.column_names]).to_pandas()
        return f"{table.schema} {table.schema.metadata} {frame.to_csv()}"
    return path.read_bytes().decode("latin-1")


def traces(folder: Path, tokens: Iterable[str], *, but: Iterable[str] = ()) -> list[str]:
    """Files below a folder, with their paths, that hold one of the tokens.

    Args:
        folder: searched with all below it.
        tokens: looked for.
        but: parts of paths that are left out.
    """
    found = []
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_socket() or not path.is_file() or any(part in name for part in but):
            continue
        text = f"{name} {text_of(path)}"
        found += [f"{name}: {token}" for token in tokens if token in text]
    return found


def columns_with(frame: pd.DataFrame, token: str) -> set[str]:
    """Columns of a table that hold a token."""
    return {name for name in frame if frame[name].astype(str).str.contains(token, regex=False).any()}

"""The radiograph's own header, as far as an archive needs it to file something beside the radiograph.

These are the only tags of persons that this package ever copies, and it copies them into DICOM objects alone. Nothing
of them is logged, quoted in a message or written into a table; so no library is given them that might do so: they are
put into an object when it is otherwise complete (:func:`file_beside`).
"""

from __future__ import annotations

import copy
import hashlib
import io
from dataclasses import dataclass

import pydicom
from pydicom.dataset import Dataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import UID

from sarc_ray import storage
from sarc_ray.errors import ExportError
from sarc_ray.imaging.dicom import is_bare
from sarc_ray.imaging.quiet import quiet_pydicom

# DICOM PS3.3: Patient C.7.1.1, General Study C.7.2.1, SOP Common C.12.1. What the source does not have stays absent, or
# empty where the object must have it.
FILED = (
    "SpecificCharacterSet",
    "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex",
    "PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence",
    "StudyInstanceUID", "StudyID", "StudyDate", "StudyTime", "AccessionNumber", "StudyDescription",
    "ReferringPhysicianName",
)  # fmt: skip
_NEEDED = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
# PS3.3 C.7.6.1.1.5: what was once compressed with loss stays so, whatever is made of it.
LOSSY = ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")
_READ = [*FILED, *_NEEDED, *LOSSY]


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A radiograph that something is derived from.

    Attributes:
        header: the tags of ``FILED`` and those that references are made of; holds the patient's identity.
    """

    header: Dataset

    def __repr__(self) -> str:
        """Says nothing of the patient, wherever it may be printed."""
        return "Source(...)"

    @property
    def sop_class(self) -> UID:
        """Of the radiograph."""
        return UID(str(self.header.SOPClassUID))

    @property
    def sop_instance(self) -> UID:
        """Of the radiograph."""
        return UID(str(self.header.SOPInstanceUID))

    @property
    def series(self) -> UID:
        """Of the radiograph."""
        return UID(str(self.header.SeriesInstanceUID))

    @property
    def study(self) -> UID:
        """To which everything that is made of the radiograph belongs."""
        return UID(str(self.header.StudyInstanceUID))

    @property
    def patient(self) -> str:
        """To be compared only."""
        return str(self.header.get("PatientID", ""))


def fetch_source(uri: str, image_sha256: str) -> Source:
    """The header of an object that the pipeline has read before.

    Args:
        uri: the object.
        image_sha256: SHA-256 of its bytes at that time, hexadecimal.

    Raises:
        CredentialsError: the store does not accept the credentials.
        ExportError: it is gone or another one now, or lacks what an archive files by; its address is not quoted.
    """
    (found,) = storage.read_many([uri])
    if isinstance(found, Exception):
        raise ExportError(f"the object cannot be read ({type(found).__name__})")
    if hashlib.sha256(found).hexdigest() != image_sha256:
        raise ExportError("the object is another one than was read before")
    return read_source(found)


def read_source(data: bytes) -> Source:
    """Read what is needed of a radiograph's header.

    Args:
        data: a DICOM object that the pipeline has read before, in its own process and within its limits.

    Raises:
        ExportError: the header cannot be read, or lacks a UID by which archives file; no value is quoted.
    """
    with quiet_pydicom():
        try:
            header = pydicom.dcmread(
                io.BytesIO(data), force=is_bare(data), specific_tags=list(_READ), stop_before_pixels=True
            )
            lacking = [keyword for keyword in _NEEDED if not _is_uid(header.get(keyword))]
            _check_writable(header)
        except Exception as error:  # Damaged files make pydicom raise nearly every type, with values in the text.
            raise ExportError(f"the header cannot be read ({type(error).__name__})") from None
    if lacking:
        raise ExportError(f"the header has no valid {', '.join(lacking)}")
    return Source(header=header)


def file_beside(target: Dataset, source: Source) -> None:
    """Give an object the source's patient and study, in the source's own character set."""
    with quiet_pydicom():
        _copy(source.header, target)


def _copy(header: Dataset, target: Dataset) -> None:
    for keyword in FILED:
        if keyword in header:
            target[keyword] = copy.deepcopy(header[keyword])


def _check_writable(header: Dataset) -> None:
    """Raise now, before anything is made, what writing the copied tags would raise."""
    copied = Dataset()
    _copy(header, copied)
    dcmwrite(io.BytesIO(), copied, implicit_vr=False, little_endian=True)


def _is_uid(value: object) -> bool:
    return isinstance(value, str) and UID(value).is_valid

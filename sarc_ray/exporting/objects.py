"""What all DICOM objects of ours share: the device that made them, their UIDs, and how they become files.

highdicom writes the objects. It is an extra (``sarc-ray[dicom]``), and imported only where an object is made.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import uuid
from collections.abc import Iterator

from pydicom.dataset import Dataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import UID

from sarc_ray.errors import ConfigError
from sarc_ray.imaging.quiet import quiet_pydicom

MANUFACTURER = "SARC-Ray"
NOT_FOR_DIAGNOSIS = "Research use only, not for diagnosis"
# PS3.16 8.2: designators that begin with 99 are private.
PRIVATE_SCHEME = "99SARCRAY"
# Behind an archive's own series, which are counted from 1.
SALIENCY_SERIES_NUMBER, REPORT_SERIES_NUMBER = 9901, 9902
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "sarc-ray")
_SILENT = logging.NullHandler()


def require_highdicom() -> None:
    """Say at once, before any work, what is missing.

    Raises:
        ConfigError: highdicom is not installed.
    """
    if importlib.util.find_spec("highdicom") is None:
        raise ConfigError("DICOM objects need the package highdicom; install it with: pip install 'sarc-ray[dicom]'")


def make_uid(*parts: str) -> UID:
    """A UID derived from text: a UUID of version 5 under 2.25 (PS3.5 B.2), the same for the same parts.

    So an object that is made twice of the same content is the same instance to an archive, which keeps it once.
    """
    return UID(f"2.25.{uuid.uuid5(_NAMESPACE, chr(0).join(parts)).int}")


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Within this context neither pydicom nor highdicom logs; both tell identifiers now and then."""
    logger = logging.getLogger("highdicom")
    before = logger.propagate
    logger.propagate = False
    logger.addHandler(_SILENT)
    try:
        with quiet_pydicom():
            yield
    finally:
        logger.propagate = before
        logger.removeHandler(_SILENT)


def to_bytes(dataset: Dataset) -> bytes:
    """A Part 10 file."""
    sink = io.BytesIO()
    with quietly():
        dcmwrite(sink, dataset, enforce_file_format=True)
    return sink.getvalue()

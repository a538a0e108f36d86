"""Out of the score table and into the hospital: rows for OMOP and CSV, and DICOM objects for its own archive.

Rows carry keyed hashes alone. DICOM objects carry the patient's and the study's own identifiers, copied from the
radiograph, since an archive files by these; they are neither logged nor written anywhere else.
"""

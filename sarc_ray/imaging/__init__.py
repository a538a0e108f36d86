"""From the bytes of a DICOM object to a small grey picture, or to a reason code."""

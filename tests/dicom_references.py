"""The one table of pixel references: every kind of file that the reader meets.

Each has the outcome that is right and, where the pixels must come out exactly, the stored values.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydicom import uid as uids

from sarc_ray.errors import Reason
from tests.dicom_factory import (
    JPEG_XL,
    PROGRESSIVE_JPEG_RETIRED,
    big_endian_words_of_bytes,
    colour,
    colour_by_jpeg,
    encapsulated_uncompressed,
    few_bits,
    fragments,
    grey_as_rgb,
    grey_as_rgb_by_jpeg2000,
    grey_as_rgb_by_rle,
    grey_as_ybr,
    grey_as_ybr_422,
    grey_as_ybr_by_jpeg,
    htj2k,
    htj2k_lossy,
    jpeg2000,
    jpeg2000_lossy,
    jpeg2000_signed,
    jpeg2000_signed_patterns,
    jpeg2000_with_junk,
    jpeg_baseline,
    jpeg_lossless,
    jpeg_lossless_signed,
    jpeg_lossy_12_bits,
    jpeg_ls,
    jpeg_ls_near,
    jpeg_xl,
    jpeg_xl_of_jpeg,
    junk_above_high_bit,
    left_aligned_bits,
    lut_item,
    make_dicom,
    multi_frame,
    multi_frame_jpeg2000,
    one_bit,
    overlay_in_high_bits,
    padded,
    palette,
    picture,
    rle,
    rle_with_wrong_table,
    signed_picture,
    signed_with_junk,
    thirty_two_bits,
)
from tests.dicom_hostile import (
    claims_gigabytes,
    codestream_claims_gigabytes,
    cut_frame,
    jpeg2000_of_many_components,
    jpeg2000_of_many_tiles,
    jpeg_of_two_sizes,
    long_texts,
    lying_codestream,
    lying_length,
    nested_sequences,
    nested_voi,
    rle_bomb,
    with_element,
    zip_file,
)


@dataclass(frozen=True, kw_only=True)
class PixelReference:
    """One kind of file.

    Args:
        name: for test identifiers.
        make: gives the bytes.
        reason: the outcome that is right for the whole way.
        stored: stored values that must come out; None where there are none.
        tolerance: largest difference allowed, for lossy syntaxes.
        inverted: whether low values are shown bright.
    """

    name: str
    make: Callable[[], bytes]
    reason: Reason = Reason.NONE
    stored: Callable[[], np.ndarray] | None = None
    tolerance: int = 0
    inverted: bool = False


def _good(name: str, make: Callable[[], bytes], **facts: Any) -> PixelReference:
    return PixelReference(name=name, make=make, **{"stored": picture, **facts})


def _bad(name: str, make: Callable[[], bytes], reason: Reason) -> PixelReference:
    return PixelReference(name=name, make=make, reason=reason)


REFERENCES: tuple[PixelReference, ...] = (
    _good("explicit_le", make_dicom),
    _good("implicit_le", lambda: make_dicom(syntax=uids.ImplicitVRLittleEndian)),
    _good("explicit_be", lambda: make_dicom(syntax=uids.ExplicitVRBigEndian)),
    _good("deflated", lambda: make_dicom(syntax=uids.DeflatedExplicitVRLittleEndian)),
    _good("eight_bits", lambda: make_dicom(picture(bits=8)), stored=lambda: picture(bits=8)),
    _good("encapsulated_uncompressed", encapsulated_uncompressed),
    _good("big_endian_words_of_bytes", big_endian_words_of_bytes, stored=lambda: picture(bits=8)),
    _good("rle", rle),
    _good("jpeg2000", jpeg2000),
    _good("jpeg2000_lossy", jpeg2000_lossy, tolerance=60),
    _good("jpeg2000_signed", jpeg2000_signed, stored=signed_picture),
    _good("jpeg2000_signed_patterns", jpeg2000_signed_patterns, stored=signed_picture),
    _good("jpeg2000_with_junk", jpeg2000_with_junk),
    _good("htj2k", htj2k),
    _good("htj2k_rpcl", lambda: htj2k(uids.HTJ2KLosslessRPCL)),
    _good("htj2k_lossy", htj2k_lossy, tolerance=60),
    _good("jpeg_xl_lossless", lambda: jpeg_xl(lossless=True)),
    _good("jpeg_xl_container", lambda: jpeg_xl(lossless=True, usecontainer=True)),
    _good("jpeg_xl_of_jpeg", jpeg_xl_of_jpeg, stored=lambda: picture(bits=8)),
    _good("jpeg_xl_lossy", lambda: jpeg_xl(JPEG_XL, distance=1.0), tolerance=200),
    _good("jpeg_ls", jpeg_ls),
    _good("jpeg_ls_near", jpeg_ls_near, tolerance=3),
    _good("jpeg_lossless", jpeg_lossless),
    _good("jpeg_lossless_process_14", lambda: jpeg_lossless(6, uids.JPEGLossless)),
    _good("jpeg_lossless_signed", jpeg_lossless_signed, stored=signed_picture),
    _good("jpeg_of_another_process", lambda: jpeg_lossless(1, uids.JPEGBaseline8Bit)),
    *(_good(f"jpeg_lossless_predictor_{n}", lambda n=n: jpeg_lossless(n, uids.JPEGLossless)) for n in (2, 4, 7)),
    _good("jpeg_lossy_12_bits", jpeg_lossy_12_bits, tolerance=60),
    _good("jpeg_baseline", jpeg_baseline, stored=lambda: picture(bits=8), tolerance=6),
    _good("signed", lambda: make_dicom(signed_picture()), stored=signed_picture),
    _good("signed_with_junk", signed_with_junk, stored=signed_picture),
    _good("junk_above_high_bit", junk_above_high_bit),
    _good("left_aligned_bits", left_aligned_bits),
    _good("monochrome1", lambda: make_dicom(PhotometricInterpretation="MONOCHROME1"), inverted=True),
    _good("inverse_lut_shape", lambda: make_dicom(PresentationLUTShape="INVERSE"), inverted=True),
    _good(
        "monochrome1_and_inverse",
        lambda: make_dicom(PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="INVERSE"),
        inverted=True,
    ),
    _good(
        "modality_lut",
        lambda: make_dicom(ModalityLUTSequence=lut_item(np.arange(4096)[::-1] * 3, 0, 16)),
        stored=lambda: (4095 - picture()) * 3,
    ),
    _good("thirty_two_bits", thirty_two_bits, stored=lambda: picture().astype(np.uint32) * 100_000),
    *(
        _good(f"{n}_bits_stored", lambda n=n: make_dicom(few_bits(n), bits_stored=n), stored=lambda n=n: few_bits(n))
        for n in (2, 4, 6, 7, 9, 10, 11)
    ),
    _good("sixteen_bits_stored", lambda: make_dicom(picture() << 4, bits_stored=16), stored=lambda: picture() << 4),
    _good("overlays", overlay_in_high_bits),
    _good("grey_as_rgb", grey_as_rgb, stored=lambda: picture(bits=8)),
    _good("grey_as_planar_rgb", lambda: grey_as_rgb(planar=True), stored=lambda: picture(bits=8)),
    _good("grey_as_rgb_by_rle", grey_as_rgb_by_rle, stored=lambda: picture(bits=8)),
    _good("grey_as_ybr", grey_as_ybr, stored=lambda: picture(bits=8)),
    _good("grey_as_ybr_422", grey_as_ybr_422, stored=lambda: picture(bits=8)),
    _good("grey_as_ybr_by_jpeg", grey_as_ybr_by_jpeg, stored=lambda: picture(bits=8), tolerance=6),
    _good("grey_as_rgb_by_jpeg2000", grey_as_rgb_by_jpeg2000, stored=lambda: picture(bits=8)),
    _good("grey_palette", palette, stored=lambda: (255 - picture(bits=8).astype(np.uint16)) * 257),
    _good("grey_palette_of_bytes", lambda: palette(n_bytes=1), stored=lambda: 255 - picture(bits=8)),
    _good("multi_frame", multi_frame),
    _good("multi_frame_jpeg2000", multi_frame_jpeg2000),
    _good("multi_frame_without_table", lambda: multi_frame_jpeg2000(offset_table=False)),
    _good("multi_frame_in_pieces", lambda: multi_frame_jpeg2000(pieces=2)),
    _good("multi_frame_in_pieces_without_table", lambda: multi_frame_jpeg2000(offset_table=False, pieces=2)),
    _good("fragments", lambda: fragments(b"")),
    _good("fragments_under_a_wrong_table", lambda: fragments(struct.pack("<3L", 0, 77, 2**31))),
    _good("padded", padded, stored=None),
    _good("missing_bits", lambda: make_dicom(omit=("HighBit", "SamplesPerPixel"))),
    _good("secondary_capture", lambda: make_dicom(SOPClassUID=uids.SecondaryCaptureImageStorage, Modality="CR")),
    _good("bare_header", lambda: make_dicom(omit=("Modality", "BodyPartExamined", "ViewPosition", "PatientAge"))),
    _bad("zero_bytes", lambda: b"", Reason.NOT_DICOM),
    _bad("text", lambda: b"404 not found " * 100, Reason.NOT_DICOM),
    _bad("zip", zip_file, Reason.NOT_DICOM),
    _bad("no_pixel_data", lambda: make_dicom(omit=("PixelData",)), Reason.NO_PIXELS),
    _bad("empty_pixel_data", lambda: make_dicom(PixelData=b""), Reason.NO_PIXELS),
    _bad("truncated", lambda: make_dicom()[:-5000], Reason.DECODE_FAILED),
    _bad("truncated_jpeg2000", lambda: jpeg2000()[:-1500], Reason.DECODE_FAILED),
    _bad("cut_before_the_pixels", lambda: make_dicom()[:400], Reason.NO_PIXELS),
    _bad(
        "truncated_deflate", lambda: make_dicom(syntax=uids.DeflatedExplicitVRLittleEndian)[:500], Reason.DECODE_FAILED
    ),
    _bad("nested_sequences", nested_sequences, Reason.DECODE_FAILED),
    _bad("claims_gigabytes", claims_gigabytes, Reason.IMAGE_TOO_LARGE),
    _bad("codestream_claims_gigabytes", codestream_claims_gigabytes, Reason.DECODE_FAILED),
    _bad("no_rows", lambda: make_dicom(omit=("Rows",)), Reason.DECODE_FAILED),
    _bad("bits_contradict", lambda: make_dicom(BitsStored=17), Reason.DECODE_FAILED),
    _bad(
        "retired_syntax",
        lambda: make_dicom(syntax=PROGRESSIVE_JPEG_RETIRED, frames=[b"\xff\xd8"]),
        Reason.UNSUPPORTED_SYNTAX,
    ),
    _bad("colour", colour, Reason.UNSUPPORTED_PIXELS),
    _bad("colour_by_jpeg", colour_by_jpeg, Reason.UNSUPPORTED_PIXELS),
    _bad(
        "palette_without_tables",
        lambda: make_dicom(PhotometricInterpretation="PALETTE COLOR"),
        Reason.UNSUPPORTED_PIXELS,
    ),
    _bad("palette_of_colours", lambda: palette(green=0.5), Reason.UNSUPPORTED_PIXELS),
    _bad("no_photometric", lambda: make_dicom(omit=("PhotometricInterpretation",)), Reason.UNSUPPORTED_PIXELS),
    _bad("cine", lambda: multi_frame(FrameTime="33"), Reason.UNSUPPORTED_PIXELS),
    _bad("frames_of_no_modality", lambda: multi_frame(omit=("Modality",)), Reason.UNSUPPORTED_PIXELS),
    _bad("one_bit", one_bit, Reason.BLANK_IMAGE),
    _bad("sixty_four_bits", lambda: make_dicom(BitsAllocated=64), Reason.UNSUPPORTED_PIXELS),
    _bad("rle_with_wrong_table", rle_with_wrong_table, Reason.DECODE_FAILED),
    _bad("truncated_jpeg", lambda: cut_frame(jpeg_baseline), Reason.DECODE_FAILED),
    _bad("truncated_jpeg_12_bits", lambda: cut_frame(jpeg_lossy_12_bits), Reason.DECODE_FAILED),
    _bad("truncated_jpeg_lossless", lambda: cut_frame(jpeg_lossless), Reason.DECODE_FAILED),
    _bad("truncated_jpeg_ls", lambda: cut_frame(jpeg_ls), Reason.DECODE_FAILED),
    _bad("truncated_htj2k", lambda: cut_frame(htj2k), Reason.DECODE_FAILED),
    _bad("truncated_jpeg_xl", lambda: cut_frame(lambda: jpeg_xl(lossless=True)), Reason.DECODE_FAILED),
    _bad("truncated_rle", lambda: cut_frame(rle), Reason.DECODE_FAILED),
    _good("long_texts", long_texts),
    _good("number_of_400_digits", lambda: with_element(struct.pack("<2H2sH", 0x28, 8, b"IS", 400) + b"9" * 400)),
    _good("nested_voi", nested_voi),
    _good("table_of_megabytes", lambda: make_dicom(VOILUTSequence=lut_item(np.arange(2**20) % 65_536, 0, 16))),
    _good("empty_table", lambda: make_dicom(VOILUTSequence=lut_item(np.arange(0), 0, 16))),
    _bad("prefix_and_nothing", lambda: b"\0" * 128 + b"DICM", Reason.DECODE_FAILED),
    _bad("claims_frames", lambda: make_dicom(NumberOfFrames=2**31 - 1), Reason.IMAGE_TOO_LARGE),
    _bad("claims_samples", lambda: make_dicom(SamplesPerPixel=65_535), Reason.IMAGE_TOO_LARGE),
    _bad("rows_of_another_length", lambda: lying_length(b"\x28\0\x10\0US", 60_000), Reason.NO_PIXELS),
    _bad("jpeg_claims_gigabytes", lambda: lying_codestream(jpeg_baseline), Reason.DECODE_FAILED),
    _bad("jpeg_lossless_claims_gigabytes", lambda: lying_codestream(jpeg_lossless), Reason.DECODE_FAILED),
    _bad("jpeg_ls_claims_gigabytes", lambda: lying_codestream(jpeg_ls), Reason.DECODE_FAILED),
    _bad("htj2k_claims_gigabytes", lambda: lying_codestream(htj2k), Reason.DECODE_FAILED),
    _bad("jpeg_of_two_sizes", jpeg_of_two_sizes, Reason.DECODE_FAILED),
    _bad("jpeg2000_of_many_tiles", jpeg2000_of_many_tiles, Reason.DECODE_FAILED),
    _bad("jpeg2000_of_many_components", jpeg2000_of_many_components, Reason.DECODE_FAILED),
    _bad("rle_bomb", rle_bomb, Reason.DECODE_FAILED),
    _bad("blank", lambda: make_dicom(np.full((64, 64), 700, dtype=np.uint16)), Reason.BLANK_IMAGE),
    _bad("lateral", lambda: make_dicom(ViewPosition="LL"), Reason.LATERAL_VIEW),
    _bad("computed_tomography", lambda: make_dicom(Modality="CT"), Reason.NOT_CHEST),
    _bad("hand", lambda: make_dicom(BodyPartExamined="HAND"), Reason.NOT_CHEST),
    _bad("dog", lambda: make_dicom(BodyPartExamined="THORAX", PatientSpeciesDescription="Canine"), Reason.NOT_CHEST),
)

"""The syntax table: every transfer syntax gives a picture or a reason; and reduced pictures equal the full ones."""

import io
import struct
from collections.abc import Callable

import cv2
import imagecodecs
import numpy as np
import pytest
from pydicom import dcmread
from pydicom import uid as uids

from sarc_ray.errors import ImageError, Reason
from sarc_ray.imaging import codecs, codestream, dicom
from sarc_ray.imaging.codecs import DECODERS, Sampling
from sarc_ray.imaging.dicom import decode, open_dataset, read_header
from sarc_ray.imaging.frames import first_frame
from sarc_ray.imaging.preprocess import PreprocessConfig, grey_picture, process_image, resize, resize_reduced
from tests import dicom_factory
from tests.dicom_factory import JPEG_XL, JPEG_XL_LOSSLESS, JPEG_XL_OF_JPEG, make_dicom

ROWS, COLUMNS = 2043, 1622  # no multiples of any power of two
NO_PICTURE = (
    "1.2.840.10008.1.2.4.52", "1.2.840.10008.1.2.4.53", "1.2.840.10008.1.2.4.54", "1.2.840.10008.1.2.4.55",
    "1.2.840.10008.1.2.4.56", "1.2.840.10008.1.2.4.58", "1.2.840.10008.1.2.4.59", "1.2.840.10008.1.2.4.60",
    "1.2.840.10008.1.2.4.61", "1.2.840.10008.1.2.4.62", "1.2.840.10008.1.2.4.63", "1.2.840.10008.1.2.4.64",
    "1.2.840.10008.1.2.4.65", "1.2.840.10008.1.2.4.66", "1.2.840.10008.1.2.4.92", "1.2.840.10008.1.2.4.93",
    "1.2.840.10008.1.2.4.94", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.100", "1.2.840.10008.1.2.4.100.1",
    "1.2.840.10008.1.2.4.101", "1.2.840.10008.1.2.4.101.1", "1.2.840.10008.1.2.4.102", "1.2.840.10008.1.2.4.102.1",
    "1.2.840.10008.1.2.4.103", "1.2.840.10008.1.2.4.103.1", "1.2.840.10008.1.2.4.104", "1.2.840.10008.1.2.4.104.1",
    "1.2.840.10008.1.2.4.105", "1.2.840.10008.1.2.4.105.1", "1.2.840.10008.1.2.4.106", "1.2.840.10008.1.2.4.106.1",
    "1.2.840.10008.1.2.4.107", "1.2.840.10008.1.2.4.108", "1.2.840.10008.1.2.4.204", "1.2.840.10008.1.2.4.205",
    "1.2.840.10008.1.2.6.1", "1.2.840.10008.1.2.6.2", "1.2.840.10008.1.2.7.1", "1.2.840.10008.1.2.7.2",
    "1.2.840.10008.1.2.7.3", "1.2.840.10008.1.2.8.1",
)  # fmt: skip


def radiograph() -> np.ndarray:
    """12 bits: smooth tissue, ribs, a saturated lead marker, a black border, and noise as detectors have it."""
    rng = np.random.default_rng(7)
    tissue = dicom_factory.picture(ROWS, COLUMNS).astype(np.float32)
    tissue *= 1 + 0.1 * (np.sin(np.linspace(0, 90, ROWS))[:, None] > 0.6)
    tissue += rng.normal(size=tissue.shape).astype(np.float32) * 0.6 * np.sqrt(tissue)
    tissue[90:160, 100:220] = 4095
    tissue[:, -31:] = 0
    return np.clip(np.rint(tissue), 0, 4095).astype(np.uint16)


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return radiograph()


@pytest.fixture(scope="module")
def files(pixels: np.ndarray) -> dict[str, bytes]:
    """One file per transfer syntax that has a decoder."""
    byte = (pixels >> 4).astype(np.uint8)
    wavelet = {"codecformat": "j2k", "bitspersample": 12, "resolutions": 6}
    j2k = imagecodecs.jpeg2k_encode(pixels, level=0, reversible=True, **wavelet)
    ht = imagecodecs.htj2k_encode(pixels, reversible=True)
    frames = {
        uids.JPEG2000Lossless: j2k,
        uids.JPEG2000: imagecodecs.jpeg2k_encode(pixels, level=55, reversible=False, **wavelet),
        uids.HTJ2KLossless: ht,
        uids.HTJ2KLosslessRPCL: ht,
        uids.HTJ2K: imagecodecs.htj2k_encode(pixels, level=0.0005, reversible=False),
        uids.JPEGExtended12Bit: imagecodecs.jpeg8_encode(pixels, level=92, bitspersample=12),
        uids.JPEGLossless: imagecodecs.jpeg8_encode(pixels, lossless=True, predictor=4, bitspersample=12),
        uids.JPEGLosslessSV1: imagecodecs.jpeg8_encode(pixels, lossless=True, predictor=1, bitspersample=12),
        uids.JPEGLSLossless: imagecodecs.jpegls_encode(pixels),
        uids.JPEGLSNearLossless: imagecodecs.jpegls_encode(pixels, level=3),
        JPEG_XL_LOSSLESS: imagecodecs.jpegxl_encode(pixels, lossless=True, effort=1, bitspersample=12),
        JPEG_XL: imagecodecs.jpegxl_encode(pixels, distance=0.5, effort=3, bitspersample=12),
        uids.RLELossless: dicom_factory.rle_frame(pixels),
        uids.UID("1.2.840.10008.1.2.1.98"): pixels.tobytes(),
    }
    made = {str(syntax): make_dicom(pixels, syntax=syntax, frames=[frame]) for syntax, frame in frames.items()}
    made |= {str(syntax): make_dicom(pixels, syntax=syntax) for syntax in codecs.NATIVE}
    jpeg = imagecodecs.jpeg8_encode(byte, level=92)
    made[str(uids.JPEGBaseline8Bit)] = make_dicom(byte, syntax=uids.JPEGBaseline8Bit, frames=[jpeg])
    recoded = imagecodecs.jpegxl_encode(byte, lossless=True, effort=1)
    made[str(JPEG_XL_OF_JPEG)] = make_dicom(byte, syntax=JPEG_XL_OF_JPEG, frames=[recoded])
    return made


def decoded(data: bytes, size_px: int | None) -> dicom.Radiograph:
    dataset = open_dataset(data)
    return decode(dataset, read_header(dataset), min_side_px=size_px)


def test_the_files_cover_the_table(files: dict[str, bytes]) -> None:
    assert set(files) == set(DECODERS)
    assert not set(DECODERS) & set(NO_PICTURE)


REDUCED = {str(uid): 8 for uid in (uids.JPEG2000Lossless, uids.JPEG2000, uids.HTJ2KLossless, uids.HTJ2KLosslessRPCL)}
REDUCED |= {str(uids.HTJ2K): 8, str(uids.JPEGBaseline8Bit): 8}


@pytest.mark.parametrize("syntax", list(DECODERS))
def test_the_small_picture_equals_the_full_paths(files: dict[str, bytes], pixels: np.ndarray, syntax: str) -> None:
    """Within 1% of the range on average, of the full path and of the pixels themselves, at every size."""
    full = decoded(files[syntax], None)
    assert full.pixels_HW.shape == (ROWS, COLUMNS)
    scale = 16 if full.header.bits_stored == 8 else 1
    steps = {}
    for size_px in (96, 224, 512):
        config = PreprocessConfig(size_px=size_px, clahe_clip_limit=0.0, clahe_tiles=4, pixel_gate=False)
        reduced = decoded(files[syntax], size_px)
        steps[size_px] = reduced.sampling.step_px
        difference_HW = np.abs(grey_picture(reduced, config) - grey_picture(full, config))
        assert difference_HW.mean() < 0.01
        assert np.percentile(difference_HW, 99) < 0.03
        truth_HW = resize(pixels, size_px)
        shape = (full.header.rows, full.header.columns)
        found_HW = resize_reduced(reduced.pixels_HW, shape, reduced.sampling, size_px) * scale
        assert np.abs(found_HW - truth_HW).mean() < 0.01 * np.ptp(truth_HW)
    # 1622 columns: 8 times smaller leaves 203, which is 1.2 x 96 and not 1.2 x 224.
    largest = REDUCED.get(syntax, 1)
    assert steps == {96: largest, 224: min(largest, 4), 512: min(largest, 2)}


def test_reduced_pictures_are_not_shifted(files: dict[str, bytes], pixels: np.ndarray) -> None:
    """Wavelet samples lie on pixels, not between them: taken for block means, they would be off by far more."""
    reduced = decoded(files[str(uids.JPEG2000Lossless)], 96)
    assert reduced.sampling == Sampling(step_px=8, first_px=-3.5)
    truth_HW = resize(pixels, 96)
    aligned = np.abs(resize_reduced(reduced.pixels_HW, pixels.shape, reduced.sampling, 96) - truth_HW).mean()
    assert aligned < 0.25 * np.abs(resize(reduced.pixels_HW, 96) - truth_HW).mean()


@pytest.mark.parametrize("syntax", [uids.JPEG2000Lossless, uids.JPEG2000, uids.HTJ2KLossless, uids.HTJ2K])
def test_the_largest_reduction_is_close_too(files: dict[str, bytes], pixels: np.ndarray, syntax: uids.UID) -> None:
    reduced = decoded(files[str(syntax)], 32)
    assert reduced.sampling.step_px == 2**codecs.MAX_REDUCTION
    found_HW, truth_HW = resize_reduced(reduced.pixels_HW, pixels.shape, reduced.sampling, 32), resize(pixels, 32)
    assert np.abs(found_HW - truth_HW).mean() < 0.01 * np.ptp(truth_HW)


def test_area_averaging_by_weights_equals_opencvs(pixels: np.ndarray) -> None:
    small_HW = resize_reduced(pixels, pixels.shape, codecs.FULL, 97)
    theirs_HW = cv2.resize(pixels.astype(np.float32), (97, 97), interpolation=cv2.INTER_AREA)
    np.testing.assert_allclose(small_HW, theirs_HW, rtol=1e-4)


def test_codestreams_with_fewer_levels_come_out_larger(pixels: np.ndarray) -> None:
    frame = imagecodecs.jpeg2k_encode(
        pixels, level=0, reversible=True, codecformat="j2k", bitspersample=12, resolutions=2
    )
    data = make_dicom(pixels, syntax=uids.JPEG2000Lossless, frames=[frame])
    assert decoded(data, 96).sampling.step_px == 2
    frame = imagecodecs.htj2k_encode(pixels[:400, :400], reversible=True, resolutions=1)
    few = make_dicom(pixels[:400, :400], syntax=uids.HTJ2KLossless, frames=[frame])
    assert decoded(few, 96).pixels_HW.shape[0] >= 200


def test_levels_that_only_a_tile_part_denies_fall_back_to_full_size(pixels: np.ndarray) -> None:
    """The main header is made to promise more levels than the codestream has."""
    small = np.ascontiguousarray(pixels[:700, :700])
    frame = bytearray(
        imagecodecs.jpeg2k_encode(small, level=0, reversible=True, codecformat="j2k", bitspersample=12, resolutions=2)
    )
    facts = codestream.read_jpeg2000(bytes(frame))
    assert facts.levels == 1

    def lie(frame: bytes) -> codestream.StreamFacts:
        return codestream.StreamFacts(**{name: getattr(facts, name) for name in facts.__slots__} | {"levels": 5})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codestream, "read_jpeg2000", lie)
        found = decoded(make_dicom(small, syntax=uids.JPEG2000Lossless, frames=[bytes(frame)]), 96)
    assert found.sampling == codecs.FULL
    np.testing.assert_array_equal(found.pixels_HW, small)


@pytest.mark.parametrize("make", [imagecodecs.jpeg2k_encode, imagecodecs.htj2k_encode], ids=["j2k", "htj2k"])
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_overshoot_of_wavelets_does_not_wrap_around(make: Callable[..., bytes], bits: int) -> None:
    """Steps from black to white: low-pass samples beyond both ends of the stored range are clipped to it."""
    steps = np.zeros((640, 640), dtype=np.uint8 if bits == 8 else np.uint16)
    steps[:, 100:] = 2**bits - 1
    steps[200:300] = 2**bits - 1 - steps[200:300]
    options = {"codecformat": "j2k", "level": 0} if make is imagecodecs.jpeg2k_encode else {}
    syntax = uids.JPEG2000Lossless if options else uids.HTJ2KLossless
    data = make_dicom(steps, syntax=syntax, frames=[make(steps, reversible=True, **options)], bits_stored=bits)
    reduced = decoded(data, 64)
    assert reduced.sampling.step_px == 8
    small_HW = resize_reduced(reduced.pixels_HW, steps.shape, reduced.sampling, 64)
    assert np.abs(small_HW - resize(steps, 64)).mean() < 0.01 * 2**bits


def test_signed_pixels_are_reduced_too(pixels: np.ndarray) -> None:
    signed = pixels[:1000, :1000].astype(np.int16) - 2048
    for frame, syntax in (
        (imagecodecs.jpeg2k_encode(signed, codecformat="j2k", reversible=True, level=0), uids.JPEG2000Lossless),
        (imagecodecs.htj2k_encode(signed, reversible=True), uids.HTJ2KLossless),
    ):
        reduced = decoded(make_dicom(signed, syntax=syntax, frames=[frame]), 96)
        assert reduced.sampling.step_px == 8
        small_HW = resize_reduced(reduced.pixels_HW, signed.shape, reduced.sampling, 96)
        assert np.abs(small_HW - resize(signed, 96)).mean() < 0.01 * 4096


@pytest.mark.parametrize("bit", [12, 15])
def test_junk_above_high_bit_is_removed_before_pixels_are_averaged(pixels: np.ndarray, bit: int) -> None:
    crop = np.ascontiguousarray(pixels[:800, :800])
    marked = crop.copy()
    marked[100:500, 100:500] |= 1 << bit
    for frame, syntax in (
        (imagecodecs.jpeg2k_encode(marked, codecformat="j2k", reversible=True, level=0), uids.JPEG2000Lossless),
        (imagecodecs.htj2k_encode(marked, reversible=True), uids.HTJ2KLossless),
    ):
        found = decoded(make_dicom(marked, syntax=syntax, frames=[frame]), 96)
        assert found.sampling == codecs.FULL
        np.testing.assert_array_equal(found.pixels_HW, crop)


def test_declared_overlays_in_high_bits_are_removed_before_pixels_are_averaged(pixels: np.ndarray) -> None:
    """A stroke of one pixel's width is too thin to be seen in a reduced picture; the header tells of it."""
    crop = np.ascontiguousarray(pixels[:800, :800])
    marked = crop.copy()
    marked[400, 100:500] |= 1 << 12
    frame = imagecodecs.jpeg2k_encode(marked, codecformat="j2k", reversible=True, level=0)
    data = make_dicom(marked, syntax=uids.JPEG2000Lossless, frames=[frame])
    dataset = dcmread(io.BytesIO(data))
    dataset.add_new((0x6002, 0x0102), "US", 12)
    declared = dicom_factory.to_bytes(dataset, uids.JPEG2000Lossless)
    np.testing.assert_array_equal(decoded(declared, 96).pixels_HW, crop)


@pytest.mark.parametrize(
    "tags",
    [
        {"PixelPaddingValue": 0},
        {"ModalityLUTSequence": dicom_factory.lut_item(np.arange(4096) ** 2 // 300, 0, 16)},
    ],
    ids=["padding", "modality_lut"],
)
def test_what_holds_for_single_pixels_is_done_at_full_size(pixels: np.ndarray, tags: dict[str, object]) -> None:
    crop = np.ascontiguousarray(pixels[:800, :800])
    frame = imagecodecs.jpeg2k_encode(crop, codecformat="j2k", reversible=True, level=0, bitspersample=12)
    data = make_dicom(crop, syntax=uids.JPEG2000Lossless, frames=[frame], **tags)  # type: ignore[arg-type]
    assert decoded(data, 96).pixels_HW.shape == crop.shape


def test_uncompressed_pixels_are_not_copied() -> None:
    data = make_dicom()
    dataset = open_dataset(data)
    found = decode(dataset, read_header(dataset)).pixels_HW
    assert not found.flags.owndata
    address = found.__array_interface__["data"][0]
    start = np.frombuffer(data, np.uint8).__array_interface__["data"][0]
    assert start < address < start + len(data)


@pytest.mark.parametrize("syntax", [*NO_PICTURE, "1.2.3.4", "1.2.840.113619.5.2"])
def test_what_nobody_decodes_is_refused_by_name(syntax: str) -> None:
    with pytest.raises(ImageError) as caught:
        codecs.find_decoder(syntax)
    assert caught.value.reason is Reason.UNSUPPORTED_SYNTAX
    assert syntax in str(caught.value)


@pytest.mark.parametrize("syntax", [uids.MPEG2MPML, uids.HEVCMP51, uids.JPEG2000MC, uids.UID("1.2.840.10008.1.2.4.53")])
def test_a_file_that_nobody_decodes_keeps_its_header(syntax: uids.UID) -> None:
    config = PreprocessConfig(size_px=32, clahe_clip_limit=0.0, clahe_tiles=4, pixel_gate=False)
    result = process_image(make_dicom(syntax=syntax, frames=[b"\xff\xd8\xff\xd9"]), config)
    assert result.reason is Reason.UNSUPPORTED_SYNTAX
    assert result.header is not None


def test_jpeg_xl_headers_tell_their_size() -> None:
    for shape in ((120, 100), (2800, 2400), (8, 16), (64, 64), (513, 17), (240, 320), (200, 400), (90, 160)):
        blank = np.zeros(shape, dtype=np.uint16)
        for options in ({}, {"usecontainer": True}):
            facts = codestream.read_jpeg_xl(imagecodecs.jpegxl_encode(blank, lossless=True, effort=1, **options))
            assert (facts.rows, facts.columns) == shape


@pytest.mark.parametrize("read", [codestream.read_jpeg, codestream.read_jpeg2000, codestream.read_jpeg_xl])
@pytest.mark.parametrize("frame", [b"", b"\xff\xd8", b"\xff\xd8\xff\xd9", b"\xff\x0a", bytes(100), b"\xff" * 100])
def test_frames_without_a_codestream_are_damaged(read: Callable[[bytes], object], frame: bytes) -> None:
    with pytest.raises(ImageError) as caught:
        read(frame)
    assert caught.value.reason is Reason.DECODE_FAILED


def test_claims_of_codestreams_are_compared_with_the_header() -> None:
    larger = dicom_factory.picture(240, 200)
    for syntax, frame in (
        (uids.JPEGLSLossless, imagecodecs.jpegls_encode(larger)),
        (uids.JPEGLosslessSV1, imagecodecs.jpeg8_encode(larger, lossless=True, bitspersample=12)),
        (uids.HTJ2KLossless, imagecodecs.htj2k_encode(larger, reversible=True)),
        (JPEG_XL_LOSSLESS, imagecodecs.jpegxl_encode(larger, lossless=True)),
    ):
        with pytest.raises(ImageError, match="header"):
            decoded(make_dicom(syntax=syntax, frames=[frame]), None)


@pytest.mark.parametrize("seed", range(4))
def test_damaged_rle_ends_in_pixels_or_an_exception(seed: int) -> None:
    """No damage ends the process: not of the segment table, nor of the runs."""
    frame = np.frombuffer(dicom_factory.rle_frame(dicom_factory.picture()), dtype=np.uint8)
    dataset = open_dataset(dicom_factory.rle())
    layout = dicom.check_layout(dataset, read_header(dataset))
    rng = np.random.default_rng(seed)
    failed = 0
    for _ in range(500):
        damaged = frame[: rng.integers(60, 2 * len(frame))].copy()
        if rng.random() < 0.5:
            damaged[rng.integers(0, 20, size=2)] = rng.integers(0, 256, size=2)
        damaged[rng.integers(20, len(damaged), size=5)] = rng.integers(0, 256, size=5)
        try:
            pixels_HW = codecs.decode_frame(uids.RLELossless, damaged.tobytes(), layout).pixels
        except Exception:  # which type is the caller's matter
            failed += 1
        else:
            assert pixels_HW.shape == (120, 100)
    assert 0 < failed < 500


def test_runs_and_padding_of_rle() -> None:
    """A replicated run, a no-op, and a padding byte at the end of a segment (Part 5 G.3.1)."""
    high = struct.pack("bB", -99, 3) + b"\x80" + struct.pack("bB", -19, 1) + b"\x00"
    low = struct.pack("bB", -119, 7)
    frame = struct.pack("<16L", 2, 64, 64 + len(high), *[0] * 13) + high + low
    pixels = np.zeros((12, 10), dtype=np.uint16)
    found = decoded(make_dicom(pixels, syntax=uids.RLELossless, frames=[frame]), None).pixels_HW.reshape(-1)
    assert found[:100].tolist() == [0x307] * 100
    assert found[100:].tolist() == [0x107] * 20


@pytest.mark.parametrize("value", [b"", bytes(6), struct.pack("<2HL", 0xFFFE, 0xE000, 0), b"\xff" * 64])
def test_broken_fragments_are_damaged(value: bytes) -> None:
    with pytest.raises(ImageError) as caught:
        first_frame(memoryview(value), 1)
    assert caught.value.reason is Reason.DECODE_FAILED


def test_an_extended_offset_table_tells_the_first_frame() -> None:
    items = [b"", b"first", b"frame", b"second"]
    value = b"".join(struct.pack("<2HL", 0xFFFE, 0xE000, len(item)) + item for item in items)
    assert first_frame(memoryview(value), 2, [0, 26]) == b"firstframe"
    with pytest.raises(ImageError, match="no offset table"):
        first_frame(memoryview(value), 2, [0, 25])


def test_coded_data_is_not_taken_for_a_segment():
    """The two bytes of CAP, the segment of HTJ2K, among the coded data of plain JPEG 2000."""
    rng = np.random.default_rng(0)
    frames = (
        imagecodecs.jpeg2k_encode(
            rng.integers(0, 256, (24, 24)).astype(np.uint8), codecformat="j2k", reversible=True, level=0
        )
        for _ in range(4000)
    )
    frame = next(frame for frame in frames if b"\xff\x50" in frame[:512])
    data = make_dicom(np.zeros((24, 24), np.uint8), syntax=uids.JPEG2000Lossless, frames=[frame])
    np.testing.assert_array_equal(dicom.read_radiograph(data).pixels_HW, imagecodecs.jpeg2k_decode(frame))

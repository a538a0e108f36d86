import csv
import hashlib
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag

from sarc_ray.errors import ImageError, Reason
from sarc_ray.imaging.codecs import DECODERS
from sarc_ray.imaging.dicom import (
    TAGS,
    HeaderFacts,
    decode,
    open_dataset,
    quiet_pydicom,
    read_header,
    read_radiograph,
)
from tests.dicom_factory import SECRET_ID, SECRET_NAME, lut_item, make_dicom, picture
from tests.dicom_hostile import claims_gigabytes, deflated_bomb
from tests.dicom_references import REFERENCES, PixelReference

SYNTAXES = Path(__file__).parents[2] / ".." / "shared" / "data" / "dicom-syntaxes"
GATED = ("lateral", "computed_tomography", "hand", "dog", "blank", "one_bit")


def by_name(reference: PixelReference) -> str:
    return reference.name


@pytest.mark.parametrize("reference", [r for r in REFERENCES if r.stored is not None], ids=by_name)
def test_stored_values_come_out_exactly(reference: PixelReference) -> None:
    radiograph = read_radiograph(reference.make())
    assert reference.stored is not None
    difference = np.abs(radiograph.pixels_HW.astype(np.int64) - reference.stored())
    assert difference.max() <= reference.tolerance
    assert radiograph.inverted == reference.inverted


@pytest.mark.parametrize(
    "reference", [r for r in REFERENCES if r.reason is not Reason.NONE and r.name not in GATED], ids=by_name
)
def test_every_failure_is_a_reason(reference: PixelReference) -> None:
    with pytest.raises(ImageError) as caught:
        read_radiograph(reference.make())
    assert caught.value.reason is reference.reason


def test_claims_are_refused_before_memory_is_asked_for() -> None:
    data = claims_gigabytes()
    tracemalloc.start()
    with pytest.raises(ImageError):
        read_radiograph(data)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 2_000_000


def test_a_deflated_bomb_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    data = deflated_bomb(32)
    assert len(data) < 100_000
    monkeypatch.setattr("sarc_ray.imaging.dicom.MAX_OBJECT_BYTES", 8_000_000)
    tracemalloc.start()
    with pytest.raises(ImageError) as caught:
        read_radiograph(data)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert caught.value.reason is Reason.IMAGE_TOO_LARGE
    assert peak_bytes < 20_000_000


def test_a_large_object_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sarc_ray.imaging.dicom.MAX_OBJECT_BYTES", 1000)
    with pytest.raises(ImageError) as caught:
        read_radiograph(make_dicom())
    assert caught.value.reason is Reason.IMAGE_TOO_LARGE


def test_identifiers_are_never_read() -> None:
    dataset = open_dataset(make_dicom(PatientBirthDate="19600101"))
    assert "PatientName" not in dataset
    assert "PatientID" not in dataset
    assert not {"PatientName", "PatientID", "AccessionNumber", "InstitutionName"} & set(TAGS)
    facts = repr(read_radiograph(make_dicom(PatientBirthDate="19600101")).header)
    assert SECRET_NAME not in facts
    assert SECRET_ID not in facts
    assert "1960" not in facts
    assert "0305" not in facts


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("062Y", 62.0),
        ("81", 81.0),
        ("9.0", 9.0),
        ("009M", 0.75),
        ("000Y", None),
        ("121Y", None),
        ("999Y", None),
        ("52", 52.0),
        ("old", None),
        ("", None),
    ],
)
def test_ages_as_archives_write_them(text: str, expected: float | None) -> None:
    assert header(PatientAge=text).age_years == expected


def header(**tags: object) -> HeaderFacts:
    dataset = open_dataset(make_dicom())
    for keyword, value in tags.items():
        # Raw bytes, as a reader meets them: pydicom would refuse to write some of these.
        tag = Tag(tag_for_keyword(keyword))
        raw = value if isinstance(value, bytes) else str(value).encode()
        dataset._dict[tag] = RawDataElement(tag, dictionary_VR(tag), len(raw), raw, 0, False, True)
    with quiet_pydicom():
        return read_header(dataset)


@pytest.mark.parametrize(
    ("birth", "taken", "expected"),
    [
        ("19600305", "20200305", 60.0),
        ("19600306", "20200305", 59.0),
        ("1960.03.05", "20200305", 60.0),
        ("19601341", "20200305", None),
        ("20200306", "20200305", None),
        ("20200305", "20200305", None),
        ("20190906", "20200305", 181 / 365.25),
        ("", "20200305", None),
        ("19000101", "20200305", None),
    ],
)
def test_age_from_dates_in_whole_years(birth: str, taken: str, expected: float | None) -> None:
    assert header(PatientAge="", PatientBirthDate=birth, StudyDate=taken).age_years == expected


def test_patients_age_wins_over_dates() -> None:
    assert header(PatientAge="070Y", PatientBirthDate="19600101").age_years == 70.0
    # "000Y" says nothing; what cannot be is not corrected.
    assert header(PatientAge="000Y", PatientBirthDate="19600101").age_years == 60.0
    assert header(PatientAge="000Y", PatientBirthDate="").age_years is None
    assert header(PatientAge="999Y", PatientBirthDate="19600101").age_years is None


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"StudyDate": "20200305"}, "2020-03"),
        ({"StudyDate": "20200305", "AcquisitionDate": "1993.02.24"}, "1993-02"),
        ({"StudyDate": "20201332"}, None),
        ({"StudyDate": ""}, None),
    ],
)
def test_month_of_the_radiograph(tags: dict[str, str], expected: str | None) -> None:
    assert header(**tags).acquired_month == expected


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"ViewPosition": "pa "}, "PA"),
        ({"ViewPosition": "POSTEROANTERIOR"}, "PA"),
        ({"ViewPosition": "AP_HORIZONTAL"}, "AP"),
        ({"ViewPosition": "Chest AP portable"}, "AP"),
        ({"ViewPosition": "AP/PA"}, "AP/PA"),
        ({"ViewPosition": "PORTABLE"}, "PORTABLE"),
        ({"ViewPosition": "AP AXIAL"}, "AP AXIAL"),
        ({"ViewPosition": "", "PatientOrientation": "PA"}, None),
        ({"ViewPosition": "", "PatientPosition": "AP"}, "AP"),
        ({"ViewPosition": "", "PatientPosition": "HFS"}, None),
        ({"ViewPosition": "", "PatientOrientation": "A\\F"}, "LATERAL"),
        ({"ViewPosition": "", "PatientOrientation": "L\\F"}, None),
    ],
)
def test_views_wherever_they_stand(tags: dict[str, str], expected: str | None) -> None:
    assert header(**tags).view == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"Thorax", "THORAX"),
        ("T\u00f3rax".encode("latin-1"), "TORAX"),
        ("T\u00f3rax".encode(), "TORAX"),
        (b"CHEST\0", "CHEST"),
    ],
)
def test_body_parts_in_other_languages(text: bytes, expected: str) -> None:
    assert header(BodyPartExamined=text).body_part == expected


def test_an_anatomic_region_is_read_where_no_body_part_is() -> None:
    item = Dataset()
    item.CodeMeaning = "Hand"
    coded = Sequence([item])
    assert (
        read_radiograph(make_dicom(omit=("BodyPartExamined",), AnatomicRegionSequence=coded)).header.body_part == "HAND"
    )
    assert read_radiograph(make_dicom(AnatomicRegionSequence=coded)).header.body_part == "CHEST"


def test_texts_hold_no_control_characters() -> None:
    facts = header(Manufacturer=b"A\x1b]0;B\x07C", ManufacturerModelName=b"X\r\n\x1b[31mY", SpecificCharacterSet=b"")
    assert facts.device is not None
    assert facts.device.isprintable()
    assert facts.device.startswith("A ")


def test_other_facts() -> None:
    facts = header(
        PatientSex="m", PatientSize="1.60", PatientWeight="64", Manufacturer="Acme", ManufacturerModelName="X1"
    )
    assert facts.sex == "M"
    assert facts.bmi_kg_m2 == pytest.approx(25.0)
    assert facts.device == "ACME X1"
    odd = header(PatientSex="O", PatientSize="160", PatientWeight="64", Manufacturer="", WindowCenter="x", Rows=b"\1")
    assert (odd.sex, odd.bmi_kg_m2, odd.device, odd.rows) == (None, None, None, 0)


@pytest.mark.parametrize(
    ("height", "weight"),
    [
        ("160", "64"),
        ("0", "64"),
        ("999", "64"),
        ("1.6", "0"),
        ("1.6", "64000"),
        ("0.9", "25"),
        ("1.6", ""),
        ("x", "64"),
    ],
)
def test_no_height_or_weight_is_guessed(height: str, weight: str) -> None:
    assert header(PatientSize=height, PatientWeight=weight).bmi_kg_m2 is None


@pytest.mark.parametrize(
    ("meaning", "expected"),
    [("postero-anterior", "PA"), ("Antero-posterior", "AP"), ("left lateral", "LEFT LATERAL"), ("", None)],
)
def test_a_coded_view_is_read_where_the_plain_one_is_empty(meaning: str, expected: str | None) -> None:
    item = Dataset()
    item.CodeMeaning = meaning
    coded = Sequence([item])
    assert read_radiograph(make_dicom(ViewPosition="", ViewCodeSequence=coded)).header.view == expected
    assert read_radiograph(make_dicom(ViewPosition="AP", ViewCodeSequence=coded)).header.view == "AP"
    assert read_radiograph(make_dicom(ViewPosition="", ViewCodeSequence=Sequence([]))).header.view is None


def test_rescale_and_modality_lut_exclude_each_other() -> None:
    rescaled = read_radiograph(make_dicom(RescaleSlope="2", RescaleIntercept="-1000"))
    assert (rescaled.slope, rescaled.intercept) == (2.0, -1000.0)
    lut = lut_item(np.arange(4096), 0, 16)
    both = read_radiograph(make_dicom(ModalityLUTSequence=lut, RescaleSlope="2", RescaleIntercept="-1000"))
    assert (both.slope, both.intercept) == (1.0, 0.0)
    zero = read_radiograph(make_dicom(RescaleSlope="0", RescaleIntercept="5"))
    assert (zero.slope, zero.intercept) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("slope", "intercept"), [("1e300", "0"), ("1e36", "0"), ("1e-46", "0"), ("1e-30", "1"), ("1", "1e30"), ("1", "1e9")]
)
def test_a_rescale_that_leaves_no_greys_counts_as_absent(slope: str, intercept: str) -> None:
    radiograph = read_radiograph(make_dicom(RescaleSlope=slope, RescaleIntercept=intercept))
    assert (radiograph.slope, radiograph.intercept) == (1.0, 0.0)
    small = read_radiograph(make_dicom(RescaleSlope="0.000244140625", RescaleIntercept="-0.5"))
    assert (small.slope, small.intercept) == (0.000244140625, -0.5)


def test_every_decoder_slot_is_exercised() -> None:
    seen = {read_radiograph(r.make()).header.transfer_syntax for r in REFERENCES if r.stored is not None}
    assert set(DECODERS) == seen


@pytest.mark.parametrize("name", ["explicit_le", "rle", "jpeg2000", "jpeg_ls", "jpeg_lossless", "jpeg_lossy_12_bits"])
def test_damaged_bytes_end_in_pixels_or_a_reason(name: str) -> None:
    reference = next(r for r in REFERENCES if r.name == name)
    whole = np.frombuffer(reference.make(), dtype=np.uint8)
    rng = np.random.default_rng(8)
    reasons = set()
    for trial in range(200):
        damaged = whole.copy()
        # Headers and the starts of codestreams in even trials, anything after the preamble in odd ones.
        where = rng.integers(132, len(whole) if trial % 2 else 900, size=6)
        damaged[where] = rng.integers(0, 256, size=6)
        try:
            read_radiograph(damaged.tobytes())
        except ImageError as error:
            reasons.add(error.reason)
    assert Reason.DECODE_FAILED in reasons
    assert Reason.INTERNAL_ERROR not in reasons


def test_missing_transfer_syntax_is_told_from_the_encoding() -> None:
    dataset = open_dataset(make_dicom())
    del dataset.file_meta.TransferSyntaxUID
    facts = read_header(dataset)
    np.testing.assert_array_equal(decode(dataset, facts).pixels_HW, picture())


def syntax_rows() -> list[dict[str, str]]:
    if not (SYNTAXES / "manifest.csv").exists():
        pytest.skip("the shared files of many transfer syntaxes are not here")
    with (SYNTAXES / "manifest.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_files_of_other_encoders_decode_to_their_reference() -> None:
    refused = []
    rows = syntax_rows()
    for row in rows:
        data = (SYNTAXES / row["file"]).read_bytes()
        if not row["sha256_u16le"]:
            with pytest.raises(ImageError) as caught:
                read_radiograph(data)
            refused.append((row["ts"], caught.value.reason))
            continue
        pixels_HW = read_radiograph(data).pixels_HW
        digest = hashlib.sha256(pixels_HW.astype("<u2").tobytes()).hexdigest()
        assert digest == row["sha256_u16le"], row["file"]
    assert len(rows) == 26
    assert sorted(refused) == [
        ("1.2.840.10008.1.2.4.53", Reason.UNSUPPORTED_SYNTAX),
        ("1.2.840.10008.1.2.4.55", Reason.UNSUPPORTED_SYNTAX),
    ]

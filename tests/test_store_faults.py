"""Fetching from a store that fails now and then, for good, or for somebody: what becomes of the rows."""

import errno
import time

import numpy as np
import pytest

from sarc_ray import storage
from sarc_ray.errors import CredentialsError, StorageError
from sarc_ray.imaging.batch import prepare_rows
from sarc_ray.store_errors import refuses_credentials
from tests import bundle_factory, dicom_factory
from tests.engine import READ_LIMITS
from tests.fault_proxy import Faults, faulty_here

N_OBJECTS = 100
PREPROCESS = bundle_factory.SPEC.preprocess


@pytest.fixture(scope="module")
def uris(s3_server):
    """Radiographs in the bucket, each another one."""
    rng = np.random.default_rng(1)
    uris = [f"s3://tests/store-faults/{number:03d}.dcm" for number in range(N_OBJECTS)]
    for uri in uris:
        noise = rng.integers(0, 60, dicom_factory.picture().shape)
        pixels = np.minimum(dicom_factory.picture() + noise, 4095).astype(np.uint16)
        storage.write_bytes(uri, dicom_factory.make_dicom(pixels))
    return uris


@pytest.fixture
def proxy(s3_server):
    with faulty_here(s3_server) as proxy:
        yield proxy


def prepare(uris, seconds_per_fetch=60.0):
    table = prepare_rows(range(len(uris)), uris, PREPROCESS, READ_LIMITS, seconds_per_fetch=seconds_per_fetch)
    return table.to_pandas()


def test_one_get_for_each_object_and_nothing_else(proxy, uris):
    """Counted on the wire: no HEAD, no listing."""
    rows = prepare(uris[:40])
    assert (rows["outcome"] == "scored").all()
    assert set(proxy.count("GET").values()) == {1}
    assert len(proxy.exchanges) == len(proxy.count("GET")) == 40


def test_a_store_that_fails_now_and_then_gives_the_same_rows(proxy, uris, record_property):
    undisturbed = prepare(uris)
    proxy.forget()
    proxy.faults = Faults(unavailable=0.05, stalled=0.05, cut=0.01, stall_s=3.0, seed=9)
    disturbed = prepare(uris)
    assert disturbed.equals(undisturbed)
    assert (disturbed["outcome"] == "scored").all()
    met = proxy.faults_met()
    record_property("faults", dict(met))
    assert set(met) == {"unavailable", "stalled", "cut"}
    requests = proxy.count("GET")
    assert sum(requests.values()) == N_OBJECTS + sum(met.values())  # each fault costs one request more
    assert not proxy.count("HEAD")


def test_an_object_that_fails_for_good_costs_its_row_and_its_time_alone(proxy, uris):
    broken = {"/tests/store-faults/002.dcm": (0, ""), "/tests/store-faults/005.dcm": (503, "SlowDown")}
    proxy.rule = lambda method, key: broken.get(key)
    started = time.monotonic()
    rows = prepare(uris[:20], seconds_per_fetch=3.0)
    assert time.monotonic() - started < 15.0
    failed = rows[rows["outcome"] != "scored"]
    assert failed["row_id"].tolist() == [2, 5]
    assert failed["reason"].tolist() == ["storage_failed"] * 2
    assert failed["retryable"].all()
    assert proxy.count("GET")["/tests/store-faults/005.dcm"] > 1


def test_an_object_that_vanished_is_missing_and_not_tried_again(proxy, uris):
    gone = "s3://tests/store-faults-gone/1.dcm"
    storage.write_bytes(gone, storage.read_bytes(uris[0]))
    listed = [uri for uri, _ in storage.walk_objects("s3://tests/store-faults-gone")]
    storage.remove_tree(gone)
    proxy.forget()
    rows = prepare([uris[0], *listed])
    assert rows["reason"].tolist() == ["", "object_missing"]
    assert rows["retryable"].tolist() == [False, False]
    assert proxy.count("GET")["/tests/store-faults-gone/1.dcm"] == 1


def test_one_object_that_is_forbidden_costs_one_row(proxy, uris):
    proxy.rule = lambda method, key: (403, "AccessDenied") if key.endswith("003.dcm") else None
    rows = prepare(uris[:6])
    assert rows["reason"].tolist() == ["", "", "", "storage_failed", "", ""]


@pytest.mark.parametrize("code", ["ExpiredToken", "InvalidAccessKeyId", "SignatureDoesNotMatch"])
def test_expired_credentials_are_no_fault_of_the_objects(proxy, uris, code):
    """No row is blamed: the work stops, and the message says what to do."""
    proxy.rule = lambda method, key: (403, code) if key.endswith("7.dcm") else None
    with pytest.raises(
        CredentialsError, match=r"credentials are missing, wrong or expired .*renew them .*same command again"
    ):
        prepare(uris[:20])
    with pytest.raises(CredentialsError, match="cannot be read, because"):
        storage.read_ranges(uris[:9], [0] * 9, [64] * 9)
    proxy.rule = lambda method, key: (403, code) if method == "PUT" else None
    with pytest.raises(CredentialsError, match="cannot be written, because"):
        storage.write_bytes(f"{uris[0]}.new", b"x")


def test_a_bucket_that_refuses_writes_is_told(proxy, s3_url):
    proxy.rule = lambda method, key: (403, "AccessDenied") if method == "PUT" else None
    told = r"cannot be written \(AccessDenied.*\); check permissions and free space, and run the same command again"
    for write in (storage.write_bytes, storage.create_bytes):
        with pytest.raises(StorageError, match=told):
            write(f"{s3_url}/a.bin", b"x")
    proxy.rule = lambda method, key: None
    storage.write_bytes(f"{s3_url}/a.bin", b"x")
    assert storage.read_bytes(f"{s3_url}/a.bin") == b"x"


def test_a_write_whose_answer_is_lost_is_made_again(proxy, s3_url):
    proxy.faults = Faults(cut=0.4, seed=1)
    for number in range(10):
        storage.write_bytes(f"{s3_url}/{number}.bin", b"%d" % number)
    assert proxy.faults_met()["cut"] > 0
    proxy.faults = Faults()
    assert storage.read_many([f"{s3_url}/{number}.bin" for number in range(10)]) == [b"%d" % k for k in range(10)]


def test_the_name_of_a_file_is_not_taken_for_the_word_of_a_store():
    denied = PermissionError(errno.EACCES, "Permission denied", "/archive/expired_consent/1.dcm")
    assert not refuses_credentials(denied)
    assert refuses_credentials(PermissionError("The provided token has expired."))

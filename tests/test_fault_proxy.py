"""The store that misbehaves to order: honest without faults, and the same faults every time."""

import socket
import urllib.error
import urllib.request
from collections import Counter

import pytest

from sarc_ray import storage
from tests.fault_proxy import Faults, faulty_here


def test_without_faults_the_store_is_the_same(s3_server, s3_url):
    uri = f"{s3_url}/a b?#+%/c.bin"
    data = bytes(range(256)) * 300
    with faulty_here(s3_server) as proxy:
        storage.write_bytes(uri, data)
        assert storage.read_bytes(uri) == data
        assert storage.read_ranges([uri], [10], [20]) == [data[10:20]]
        assert storage.list_files(s3_url) == [uri]
        storage.remove_tree(s3_url)
        assert storage.list_files(s3_url) == []
        assert not proxy.faults_met()
        assert set(proxy.count("PUT")) == {uri.removeprefix("s3:/")}


def test_it_listens_on_this_machine_only_and_stops(s3_server):
    with faulty_here(s3_server) as proxy:
        assert proxy.url.startswith("http://127.0.0.1:")
        with pytest.raises(urllib.error.HTTPError, match="HTTP Error 4"):
            urllib.request.urlopen(f"{proxy.url}/tests", timeout=5)
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", int(proxy.url.rsplit(":", 1)[1]))) != 0


def test_faults_are_drawn_from_the_seed_at_the_shares_asked_for():
    faults = Faults(unavailable=0.05, stalled=0.05, cut=0.01, seed=3)
    lines = [(f"GET /b/{number}", repeat) for number in range(4000) for repeat in (1, 2)]
    met = [faults.of(*line) for line in lines]
    assert met == [faults.of(*line) for line in lines]
    counts = Counter(met)
    for name, share in (("unavailable", 0.05), ("stalled", 0.05), ("cut", 0.01)):
        assert counts[name] / len(lines) == pytest.approx(share, abs=0.007)
    assert [Faults(unavailable=0.05, seed=4).of(*line) for line in lines] != met


def test_each_kind_of_fault_is_one(s3_server, s3_url):
    uri = f"{s3_url}/object.bin"
    storage.write_bytes(uri, b"x" * 1000)
    with faulty_here(s3_server) as proxy:
        for name in ("unavailable", "stalled", "cut"):
            proxy.faults = Faults(**{name: 1.0, "stall_s": 1.5})
            (found,) = storage.read_bounded([uri], 1001, seconds_per_fetch=2.0)
            assert isinstance(found, Exception), name
            assert set(proxy.faults_met()) == {name}
            proxy.forget()
        proxy.faults = Faults()
        assert storage.read_bounded([uri], 1001) == [b"x" * 1000]

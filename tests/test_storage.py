import errno

import fsspec
import pandas as pd
import pytest
import s3fs

from sarc_ray import storage
from sarc_ray.errors import StorageError


@pytest.mark.parametrize(
    ("uri", "canonical"),
    [
        ("/a/b/../c.dcm", "/a/c.dcm"),
        ("file:///a//b.dcm", "/a/b.dcm"),
        ("s3://bucket/x/./y.dcm", "s3://bucket/x/y.dcm"),
        ("S3://bucket/y.dcm", "s3://bucket/y.dcm"),
    ],
)
def test_one_spelling_per_object(uri, canonical):
    assert storage.canonical_uri(uri) == canonical


def test_join_keeps_absolute_parts():
    assert storage.join("s3://b/m", "images/1.dcm") == "s3://b/m/images/1.dcm"
    assert storage.join("s3://b/m", "s3://c/1.dcm") == "s3://c/1.dcm"
    assert storage.join("/data", "/other/1.dcm") == "/other/1.dcm"


@pytest.fixture(params=["local", "s3"])
def folder(request, tmp_path):
    return str(tmp_path) if request.param == "local" else request.getfixturevalue("s3_url")


def test_objects_come_back_as_written(folder):
    uri = storage.join(folder, "a/b.bin")
    assert not storage.exists(uri)
    storage.write_bytes(uri, b"one")
    storage.write_bytes(uri, b"two")
    assert storage.read_bytes(uri) == b"two"
    assert storage.list_files(folder, ".bin") == [uri if "://" in uri else f"file://{uri}"]
    first = storage.content_id(uri)
    storage.write_bytes(uri, b"three")
    assert storage.content_id(uri) != first
    storage.remove_tree(folder)
    assert storage.list_files(folder) == []


def test_many_reads_put_failures_in_their_place(folder):
    uris = [storage.join(folder, name) for name in ("a", "missing", "b", "a")]
    storage.write_bytes(uris[0], b"A")
    storage.write_bytes(uris[2], b"B")
    first, missing, second, again = storage.read_many([*uris])
    assert (first, second, again) == (b"A", b"B", b"A")
    assert isinstance(missing, FileNotFoundError)


def test_names_that_look_like_patterns_are_names(folder):
    uris = [storage.join(folder, name) for name in ("a[1].dcm", "what?.dcm", "b*.dcm", "c::d.dcm")]
    for number, uri in enumerate(uris):
        storage.write_bytes(uri, b"%d" % number)
    assert storage.read_many([*uris, storage.join(folder, "c[2].dcm")])[:3] == [b"0", b"1", b"2"]


def test_a_folder_is_known_by_its_content(folder):
    storage.write_bytes(storage.join(folder, "t/part.parquet"), b"labels 0")
    before = storage.content_id(storage.join(folder, "t"))
    storage.write_bytes(storage.join(folder, "t/part.parquet"), b"labels 1")
    assert storage.content_id(storage.join(folder, "t")) != before


def test_a_missing_object_is_named(folder):
    with pytest.raises(StorageError, match=r"nothing\.csv: no such object"):
        storage.read_bytes(storage.join(folder, "nothing.csv"))


def test_tables_by_ending(folder):
    frame = pd.DataFrame({"patient_id": ["007", "008"], "x": [1.5, None]})
    for name in ("t.csv", "t.parquet"):
        storage.write_table(storage.join(folder, name), frame)
    assert storage.read_table(storage.join(folder, "t.csv"))["patient_id"].tolist() == ["007", "008"]
    pd.testing.assert_frame_equal(storage.read_table(storage.join(folder, "t.parquet")), frame)
    with pytest.raises(StorageError, match=r"no \.csv or \.parquet"):
        storage.read_table(storage.join(folder, "empty"))


def test_an_unknown_scheme_is_refused():
    with pytest.raises(StorageError, match="scheme"):
        storage.read_bytes("nonsense://a/b")


def test_schemes_are_looked_at_before_anything_is_opened():
    storage.require_known_schemes(["/a/0.dcm", "file:///a/1.dcm", "S3://nobody/a.dcm", "memory://a"])
    with pytest.raises(
        StorageError, match=r"under nonsense:// cannot be read \(Protocol not known: nonsense\); .*install"
    ):
        storage.require_known_schemes(["/a/0.dcm", "nonsense://a/b"])


@pytest.mark.parametrize(
    ("uri", "folder", "within"),
    [
        ("s3://b/model", "s3://b/model/", True),
        ("s3://b/model/scores", "s3://b/model", True),
        ("s3://b/model-2", "s3://b/model", False),
        ("s3://b", "s3://b/model", False),
        ("/a/b/../c/d", "file:///a/c", True),
        ("/a", "/", True),
    ],
)
def test_what_lies_within_a_folder(uri, folder, within):
    assert storage.lies_within(uri, folder) is within


def test_a_store_without_credentials_is_a_clear_error(monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3fs.S3FileSystem.clear_instance_cache()  # an open store keeps the credentials it was opened with
    with pytest.raises(StorageError, match="credentials"):
        storage.read_bytes("s3://elsewhere/b")
    s3fs.S3FileSystem.clear_instance_cache()


class _BrokenStore:
    """A store whose every request fails with an error of a family of its own, as botocore's do."""

    protocol = "broken"

    def invalidate_cache(self):
        pass

    def _fail(self, *arguments, **options):
        raise RuntimeError("Unable to locate credentials")

    exists = isdir = cat_file = find = rm = _fail


@pytest.mark.parametrize("name", ["exists", "list_files", "content_id", "remove_tree", "read_bytes"])
def test_a_store_that_fails_is_told_in_our_words(name, monkeypatch):
    monkeypatch.setattr(storage, "filesystem", lambda uri: (_BrokenStore(), "b/k"))
    with pytest.raises(StorageError, match=r"broken://b/k: cannot be .*Unable to locate credentials.*permissions"):
        getattr(storage, name)("broken://b/k")


def test_ranges_of_many_objects_come_back_in_their_place(folder):
    uris = [storage.join(folder, name) for name in ("a[1]", "missing", "short")]
    storage.write_bytes(uris[0], b"0123456789")
    storage.write_bytes(uris[2], b"01234")
    first, missing, short = storage.read_ranges(uris, [0, 3, 3], [4, 8, 8])
    assert (first, short) == (b"0123", b"34")
    assert storage.is_missing(missing)
    assert not storage.is_missing(OSError("the store is down"))


@pytest.mark.parametrize("apart", [1000, 0], ids=["folder by folder", "in one listing"])
def test_a_walk_meets_every_object_once_with_its_size(folder, monkeypatch, apart):
    monkeypatch.setattr(storage, "_FOLDERS_LISTED_APART", apart)
    sizes = {"one.dcm": 3, ".hidden": 1, "empty": 0, "2020/01/a.dcm": 5, "2020/x.dcm/b": 2, "2021/c d#?.dcm": 4}
    for name, size in sizes.items():
        storage.write_bytes(storage.join(folder, name), b"x" * size)
    found = list(storage.walk_objects(folder))
    assert dict(found) == {storage.canonical_uri(storage.join(folder, name)): size for name, size in sizes.items()}
    assert len(found) == len(sizes)
    assert list(storage.walk_objects(storage.join(folder, "one.dcm"))) == [(storage.join(folder, "one.dcm"), 3)]


def test_a_walk_of_nothing_is_told(folder):
    with pytest.raises(StorageError, match=r"nowhere: no such object"):
        list(storage.walk_objects(storage.join(folder, "nowhere")))


def test_an_object_is_created_once(folder):
    uri = storage.join(folder, "new.bin")
    assert storage.create_bytes(uri, b"one")
    assert not storage.create_bytes(uri, b"two")
    assert storage.read_bytes(uri) == b"one"


def test_whether_a_store_creates_once_is_found_out(tmp_path):
    uri = str(tmp_path / "new.bin")
    assert storage.create_bytes(uri, b"one")
    assert storage.creates_once(uri, b"one")


@pytest.mark.parametrize("error", [TypeError("mode"), OSError(errno.ENOSYS, "A header is not implemented")])
def test_a_store_that_knows_no_condition_is_written_all_the_same(monkeypatch, error):
    written = {}

    class Store(fsspec.AbstractFileSystem):
        protocol = ("simple",)

        def pipe_file(self, path, data, mode="overwrite"):
            if mode == "create":
                raise error
            written[path] = data

        def exists(self, path):
            return path in written

    monkeypatch.setattr(storage, "filesystem", lambda uri: (Store(), uri))
    assert storage.create_bytes("simple", b"one")
    assert not storage.create_bytes("simple", b"two")
    assert not storage.creates_once("simple", b"one")
    assert written == {"simple": b"one"}


@pytest.mark.parametrize(
    "error", [FileExistsError("there"), OSError("ConditionalRequestConflict"), OSError("412 Precondition Failed")]
)
def test_another_writer_that_was_first_is_no_failure(monkeypatch, error):
    class Store(fsspec.AbstractFileSystem):
        protocol = ("simple",)

        def pipe_file(self, path, data, mode="overwrite"):
            raise error

        def exists(self, path):
            return False

    monkeypatch.setattr(storage, "filesystem", lambda uri: (Store(), uri))
    assert not storage.create_bytes("simple", b"one")


def test_an_object_is_written_piece_by_piece_and_appears_as_a_whole(folder):
    uri = storage.join(folder, "new/big.bin")
    with storage.writing(uri) as sink:
        sink.write(b"one")
        assert not storage.exists(uri)
        sink.write(b"two")
    assert storage.read_bytes(uri) == b"onetwo"
    with pytest.raises(TypeError), storage.writing(uri) as sink:
        sink.writelines([b"three", 4])
    assert storage.read_bytes(uri) == b"onetwo"
    assert [file.rsplit("/", 1)[1] for file in storage.list_files(storage.parent(uri))] == ["big.bin"]


def test_a_folder_that_cannot_be_written_is_told_in_our_words(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with (
        pytest.raises(StorageError, match=r"cannot be written .*; check permissions"),
        storage.writing(str(tmp_path / "file" / "big.bin")),
    ):
        pytest.fail("there is nothing to write into")

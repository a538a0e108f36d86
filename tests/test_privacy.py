import stat

import pytest

from sarc_ray.errors import ConfigError
from sarc_ray.privacy import KEY_VARIABLE, create_key_file, load_key, pseudonyms

KEY = b"0123456789abcdef"


def test_keys_are_stable_and_hide_the_identifier():
    first = pseudonyms(["P1", "P2", None, "P1"], key=KEY, purpose="patient")
    assert first[0] == first[3] != first[1]
    assert first[2] is None
    assert all("P1" not in key for key in first if key)
    assert pseudonyms(["P1"], key=KEY, purpose="study") != first[:1]
    assert pseudonyms(["P1"], key=b"another key, also long", purpose="patient") != first[:1]


def test_key_file_is_private_and_never_replaced(tmp_path, monkeypatch):
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    path = tmp_path / "keys" / "secret"
    create_key_file(str(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    key = load_key(str(path))
    assert len(key) >= 32
    with pytest.raises(ConfigError, match="already"):
        create_key_file(str(path))
    assert load_key(str(path)) == key


def test_what_is_no_key_file_is_told(tmp_path, monkeypatch):
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    (tmp_path / "binary").write_bytes(b"\xff\xfe" * 20)
    for name in (".", "binary"):
        with pytest.raises(ConfigError, match="holds no key that can be read"):
            load_key(str(tmp_path / name))
    with pytest.raises(ConfigError, match=r"cannot be written .*; name a file"):
        create_key_file("/dev/null/key")


def test_the_variable_comes_first_and_short_keys_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, "a key from the environment")
    assert load_key(None) == b"a key from the environment"
    monkeypatch.setenv("HOME", str(tmp_path))
    create_key_file("~/secret")
    of_file = (tmp_path / "secret").read_text(encoding="utf-8")
    assert of_file.endswith("\n")
    monkeypatch.setenv(KEY_VARIABLE, of_file)
    of_variable = load_key(None)
    monkeypatch.setenv(KEY_VARIABLE, "")
    assert load_key(str(tmp_path / "secret")) == load_key("~/secret") == of_variable
    monkeypatch.setenv(KEY_VARIABLE, "short")
    with pytest.raises(ConfigError, match="5 bytes"):
        load_key(None)
    monkeypatch.delenv(KEY_VARIABLE)
    with pytest.raises(ConfigError, match=KEY_VARIABLE):
        load_key(str(tmp_path / "none"))

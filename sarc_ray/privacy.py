"""Keys instead of identifiers: HMAC-SHA256 with a secret that the user holds."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Iterable

from sarc_ray.errors import ConfigError

KEY_VARIABLE = "SARC_RAY_KEY"
_MIN_KEY_BYTES = 16
_KEY_HEX_DIGITS = 32


def load_key(path: str | None) -> bytes:
    """Read the secret from the environment variable ``SARC_RAY_KEY``, or else from a file; without space around it.

    Raises:
        ConfigError: neither is there, the file cannot be read, or the secret is shorter than 16 bytes.
    """
    # A variable that was filled from the file, by a secret of Kubernetes, say, ends as the file does, in a new line.
    text = os.environ.get(KEY_VARIABLE, "").strip()
    if not text and path is not None and key_file_exists(path):
        try:
            with open(os.path.expanduser(path), encoding="utf-8") as file:
                text = file.read().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"score.key_file: {path} holds no key that can be read ({error}); name the file"
            ) from error
    if not text:
        raise ConfigError(
            f"no key for patient and study keys: set the environment variable {KEY_VARIABLE}, or make a key file with "
            f"'sarc-ray key {path or 'FILE'}' and name it in score.key_file (inventory: --key-file)"
        )
    if len(text.encode()) < _MIN_KEY_BYTES:
        raise ConfigError(f"the key has {len(text.encode())} bytes, at least {_MIN_KEY_BYTES} are needed")
    return text.encode()


def key_file_exists(path: str) -> bool:
    """Whether there is a key file; ``~`` is the user's folder, which no shell puts in behind ``--set key=``."""
    return os.path.exists(os.path.expanduser(path))


def create_key_file(path: str) -> None:
    """Write a new random key that only its owner can read; an existing file is kept.

    Raises:
        ConfigError: the file is there already, or cannot be written.
    """
    path = os.path.expanduser(path)
    try:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        if os.path.lexists(path):
            raise ConfigError(
                f"{path}: a key is there already; a new one would break the link to older tables"
            ) from error
        raise ConfigError(f"{path}: cannot be written ({error}); name a file in a folder of your own") from error
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(secrets.token_hex(_KEY_HEX_DIGITS) + "\n")


def pseudonyms(identifiers: Iterable[str | None], *, key: bytes, purpose: str) -> list[str | None]:
    """Keyed hashes of identifiers, 128 bits as hex; missing stays missing.

    Args:
        identifiers: raw identifiers.
        key: the user's secret.
        purpose: ``patient`` or ``study``, so that equal texts of two kinds get different keys.
    """
    cache: dict[str, str] = {}
    result: list[str | None] = []
    for identifier in identifiers:
        if identifier is None:
            result.append(None)
            continue
        if identifier not in cache:
            message = f"{purpose}\x00{identifier}".encode()
            cache[identifier] = hmac.new(key, message, hashlib.sha256).hexdigest()[:32]
        result.append(cache[identifier])
    return result

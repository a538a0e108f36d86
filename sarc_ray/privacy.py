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
    """Read the secret from the environment variable ``SARC_RAY_KEY`` or else from a file.

    Raises:
        ConfigError: neither is there, or the secret is shorter than 16 bytes.
    """
    text = os.environ.get(KEY_VARIABLE)
    if text is None and path is not None and os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            text = file.read().strip()
    if not text:
        raise ConfigError(
            f"no key for patient and study keys: set the environment variable {KEY_VARIABLE}, or make a key file with "
            f"'sarc-ray key {path or 'FILE'}' and name it in score.key_file (inventory: --key-file)"
        )
    if len(text.encode()) < _MIN_KEY_BYTES:
        raise ConfigError(f"the key has {len(text.encode())} bytes, at least {_MIN_KEY_BYTES} are needed")
    return text.encode()


def create_key_file(path: str) -> None:
    """Write a new random key that only its owner can read; an existing file is kept.

    Raises:
        ConfigError: the file is there already.
    """
    try:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise ConfigError(f"{path}: a key is there already; a new one would break the link to older tables") from error
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

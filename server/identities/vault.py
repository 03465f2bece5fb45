"""Identities as bytes that only this server reads: AES-GCM, bound to their tenant and expiry."""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from runtime import Identity
from server.config import ConfigError

KEY_VARIABLE = "FACE_DIFFUSER_IDENTITY_KEY"
_KEY_NBYTES, _NONCE_NBYTES = 32, 12
_MAKE_ONE = "openssl rand -base64 32 > identity.key && chmod 600 identity.key"


class SealError(Exception):
    """Bytes that this key did not seal, or not for this row."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """What is known of an identity without its key. Times are seconds since 1970."""

    tenant: str
    id: str
    created: float
    expires: float
    consent: str

    @property
    def associated_data(self) -> bytes:
        """What a sealed identity is bound to: in another row, or changed, it does not open."""
        fields = [self.tenant, self.id, self.created, self.expires, self.consent]
        return json.dumps(["face-diffuser identity row 1", *fields]).encode()


class Vault:
    """Seals and opens identities with one key, and tells requests from one another."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)
        self._digests = hmac.digest(key, b"face-diffuser digests of requests 1", "sha256")

    def digest(self, *content: bytes) -> bytes:
        """32 bytes by which the same content is known again, and nobody without the key finds out
        what it was by trying."""
        parts = b"".join(len(each).to_bytes(8) + each for each in content)
        return hmac.digest(self._digests, parts, "sha256")

    def sealed(self, row: Row, identity: Identity) -> bytes:
        words = {
            "encoder": identity.encoder,
            "reference_resolution": identity.reference_resolution,
            "embeds": base64.b64encode(identity.embeds.astype("<f4").tobytes()).decode(),
        }
        nonce = secrets.token_bytes(_NONCE_NBYTES)
        content = json.dumps(words).encode()
        return nonce + self._cipher.encrypt(nonce, content, row.associated_data)

    def opened(self, row: Row, sealed: bytes) -> Identity:
        """Raises SealError."""
        nonce, content = sealed[:_NONCE_NBYTES], sealed[_NONCE_NBYTES:]
        try:
            words = json.loads(self._cipher.decrypt(nonce, content, row.associated_data))
        except (InvalidTag, ValueError) as error:
            raise SealError(f"identity {row.id} was sealed by another key or altered") from error
        embeds = np.frombuffer(base64.b64decode(words["embeds"]), "<f4").astype(np.float32)
        return Identity(
            embeds=embeds,
            encoder=words["encoder"],
            reference_resolution=words["reference_resolution"],
        )


def key_of(path: Path | None, environment: Mapping[str, str] = os.environ) -> bytes | None:
    """The key from its file, else from the environment; None where neither has one.

    Raises ConfigError for a key that is none, or that others on this machine can read.
    """
    if path is None:
        words = environment.get(KEY_VARIABLE)
        return None if words is None else _decoded(words, KEY_VARIABLE)
    try:
        if path.stat().st_mode & 0o077:
            raise ConfigError(f"other users can read {path}", fix=f"chmod 600 {path}")
        return _decoded(path.read_text(encoding="ascii"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"the key of identities cannot be read from {path} ({error}); make one", fix=_MAKE_ONE
        ) from error


def passing_key() -> bytes:
    """A key that ends with the process, for identities that do too."""
    return secrets.token_bytes(_KEY_NBYTES)


def key_needed() -> ConfigError:
    return ConfigError(
        f"identities in a store need a key: --identity-key FILE, or {KEY_VARIABLE}; make one",
        fix=_MAKE_ONE,
    )


def _decoded(words: str, where: str) -> bytes:
    try:
        key = base64.b64decode(words.strip(), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != _KEY_NBYTES:
        raise ConfigError(f"{where} must be the base64 of {_KEY_NBYTES} bytes", fix=_MAKE_ONE)
    return key

"""A seal on what llmbuild keeps in a project's directory and trusts without verifying it again.

A project may come from a stranger, with whatever files he put there.  Only what was written with the secret of this store
counts; the secret never leaves the store.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from pathlib import Path

from llmbuild.canonical import Json, canonical_json
from llmbuild.engine import files

SECRET = "secret"
"""The file in a store with the secret of its seal."""

_SECRET_BYTES = 32
_START = b',"seal":"'
_END = b'"}'
_SIZE = len(_START) + 2 * _SECRET_BYTES + len(_END)


class Seal:
    """The seal of one store, whose secret is in a file of it."""

    def __init__(self, secret: Path) -> None:
        self._path = secret

    def put(self, value: dict[str, Json]) -> bytes:
        """A JSON object with its seal, as canonical JSON.  Raises StoreError when the store cannot keep its secret."""
        body = canonical_json(value)
        secret = self._secret()
        if secret is None:
            secret = os.urandom(_SECRET_BYTES)
            files.write_atomic(self._path, secret, mode=0o600)
        return body[:-1] + _START + _of(body, secret) + _END

    def holds(self, data: bytes) -> bool:
        """Whether these are bytes that `put` returned for this store."""
        body = data[:-_SIZE] + b"}"
        secret = self._secret()
        return secret is not None and hmac.compare_digest(data[-_SIZE:], _START + _of(body, secret) + _END)

    def _secret(self) -> bytes | None:
        try:
            secret = files.read_bytes(str(self._path))
        except OSError:
            return None
        return secret if len(secret) == _SECRET_BYTES else None


def _of(body: bytes, secret: bytes) -> bytes:
    return hashlib.blake2b(body, key=secret, digest_size=_SECRET_BYTES).hexdigest().encode()

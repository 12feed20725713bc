"""Canonical JSON and digests: the one way in which llmbuild turns values into names.

The canonical form is UTF-8 JSON with sorted keys, no white space and no NaN, so that equal values have equal bytes on
every machine and under every hash seed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NewType, TypeAlias

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"
Digest = NewType("Digest", str)
"""A SHA-256 in lower-case hexadecimal, 64 characters.

Only the functions here make it, from bytes that they hash themselves, and `parse_digest` from values from outside.
A digest is therefore safe as a part of a path.
"""

CHUNK = 1 << 20

_is_digest = re.compile("[0-9a-f]{64}").fullmatch

_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


def canonical_json(value: Json) -> bytes:
    """The canonical bytes of a JSON value; raises ValueError for NaN and infinities."""
    return _encode(value).encode()


def parse_digest(value: object) -> Digest:
    """A value from outside as a digest; raises ValueError for whatever is not 64 hexadecimal digits in lower case."""
    if not isinstance(value, str) or _is_digest(value) is None:
        raise ValueError("a digest is 64 hexadecimal digits in lower case")
    return Digest(value)


def known_digest(value: object) -> Digest | None:
    """As `parse_digest`, but None for whatever is no digest: for borders where that counts as unknown."""
    try:
        return parse_digest(value)
    except ValueError:
        return None


def finish_digest(hashed: hashlib._Hash) -> Digest:
    """The digest of all bytes that a SHA-256 was updated with."""
    return Digest(hashed.hexdigest())


def digest_bytes(data: bytes) -> Digest:
    return finish_digest(hashlib.sha256(data))


def digest_json(value: Json) -> Digest:
    return digest_bytes(canonical_json(value))


def digest_file(path: Path) -> Digest:
    """The SHA-256 of a file's content, read in chunks of 1 MiB."""
    with path.open("rb") as file:
        return finish_digest(hashlib.file_digest(file, "sha256"))

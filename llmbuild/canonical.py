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
from typing import TypeAlias

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"
Digest: TypeAlias = str
"""A SHA-256 in lower-case hexadecimal, 64 characters.  What comes from outside becomes one by `parse_digest` alone."""

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
    return value


def digest_bytes(data: bytes) -> Digest:
    return hashlib.sha256(data).hexdigest()


def digest_json(value: Json) -> Digest:
    return digest_bytes(canonical_json(value))


def digest_file(path: Path) -> Digest:
    """The SHA-256 of a file's content, read in chunks of 1 MiB."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

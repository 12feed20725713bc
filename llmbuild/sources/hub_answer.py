"""What a hub reports of a revision, checked before anything is used: the commit, and each file's size and digests.

{"sha": "<40 hex>", "siblings": [{"rfilename": "config.json", "size": 651, "blobId": "<40 hex>"},
                                 {"rfilename": "model.safetensors", "lfs": {"sha256": "<64 hex>", "size": 269060552}}]}
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmbuild.canonical import parse_digest
from llmbuild.jsontext import parse_json
from llmbuild.sources.http import Promise
from llmbuild.sources.select import MOST_SIZE

_SHA1 = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class Revision:
    """`commit` is None where the hub names none; a file's promise is None where it announces no digest."""

    commit: object
    files: Mapping[str, Promise | None]


def parse_revision(data: bytes) -> Revision:
    """The revision in a hub's answer.  Raises ValueError with a sentence that names the field which is wrong."""
    answer = _table(parse_json(data), "the answer")
    siblings = answer.get("siblings")
    if siblings is None:
        siblings = []
    if not isinstance(siblings, list):
        raise ValueError("siblings is not a list")
    files: dict[str, Promise | None] = {}
    for index, value in enumerate(siblings):
        place = f"siblings[{index}]"
        sibling = _table(value, place)
        name = sibling.get("rfilename")
        if not isinstance(name, str) or not name:
            raise ValueError(f"{place}.rfilename is not a name")
        if name in files:
            raise ValueError(f"{place}.rfilename is there twice: {name!r:.100}")
        files[name] = _promise(sibling, place)
    return Revision(answer.get("sha"), files)


def is_commit(value: object) -> bool:
    """Whether a value is a full commit: 40 hexadecimal digits."""
    return isinstance(value, str) and _SHA1.fullmatch(value) is not None


def _promise(sibling: Mapping[str, Any], place: str) -> Promise | None:
    lfs = sibling.get("lfs")
    size = _size(sibling.get("size"), f"{place}.size")
    blob = sibling.get("blobId")
    if blob is not None and not is_commit(blob):
        raise ValueError(f"{place}.blobId is not 40 hexadecimal digits")
    if lfs is not None:
        lfs = _table(lfs, f"{place}.lfs")
        large = _size(lfs.get("size"), f"{place}.lfs.size")
        if lfs.get("sha256") is not None:
            try:
                return Promise(large, sha256=parse_digest(lfs["sha256"]))
            except ValueError as error:
                raise ValueError(f"{place}.lfs.sha256: {error}") from None
    return None if blob is None else Promise(size, git_sha1=blob)


def _size(value: object, place: str) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MOST_SIZE:
        raise ValueError(f"{place} is not a number of bytes")
    return value


def _table(value: object, place: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{place} is not an object")
    return value

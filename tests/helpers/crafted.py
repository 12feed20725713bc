"""Archives and records that somebody made by hand: complete and with right checksums, whatever is in them."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

from llmbuild.canonical import digest_bytes


def sealed(body: object) -> bytes:
    """A trace file with its checksum line: of any JSON value, or of bytes that need be no JSON."""
    data = body if isinstance(body, bytes) else canonical(body)
    return data + b"\n" + hashlib.sha256(data).hexdigest().encode() + b"\n"


def canonical(value: object) -> bytes:
    """As llmbuild's canonical JSON, but of any value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def write_archive(
    path: Path,
    blobs: list[bytes],
    actions: Mapping[str, bytes] | None = None,
    traces: Mapping[str, bytes] | None = None,
) -> Path:
    """An archive whose header and checksum are right; actions and traces by the digest in their member's name."""
    actions, traces = actions or {}, traces or {}
    head = {"format": 1, "blobs": len(blobs), "actions": len(actions), "traces": len(traces)}
    members = [("llmbuild-cache", json.dumps(head).encode())]
    members += sorted((f"blobs/{digest_bytes(data)}", data) for data in blobs)
    members += sorted((f"actions/{name}", data) for name, data in actions.items())
    members += sorted((f"traces/{name}", data) for name, data in traces.items())
    checksum = hashlib.sha256()
    with tarfile.open(path, mode="w") as tar:
        for name, data in members:
            checksum.update(f"{name} {len(data)} {hashlib.sha256(data).hexdigest()}\n".encode())
            _add(tar, name, data)
        _add(tar, "checksum", checksum.hexdigest().encode())
    return path


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def picture(root: Path) -> dict[str, str]:
    """Everything below a directory without following a link: what a guard tree must still be after a test."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        elif path.is_dir():
            found[name] = "directory"
        else:
            found[name] = digest_bytes(path.read_bytes())
    return found

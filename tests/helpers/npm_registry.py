"""An npm registry on loopback that answers as the public one does, with one package."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from tests.helpers.loopback import Handler, serving


def tarball(files: Mapping[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def sri(data: bytes) -> str:
    return "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode()


@dataclass
class Registry:
    """A running registry with one package; what it announces can be made wrong."""

    archive: bytes
    package: str = "@tiny/page"
    version: str = "1.2.3"
    url: str = ""
    dist: dict[str, Any] = field(default_factory=dict)
    body: bytes | None = None
    token: str | None = None
    seen: list[tuple[str, str | None]] = field(default_factory=list)
    """The path and the Authorization header of each request."""

    def answer(self, path: str) -> tuple[int, bytes]:
        if path == f"/npm/{self.package}":
            dist = {"integrity": sri(self.archive), "tarball": f"{self.url}/-/page.tgz", **self.dist}
            listed = {"name": self.package, "versions": {"0.0.1": {"dist": dist}, self.version: {"dist": dist}}}
            return 200, json.dumps(listed).encode() if self.body is None else self.body
        return (200, self.archive) if path == "/npm/-/page.tgz" else (404, b"{}")


class _Handler(Handler):
    def __init__(self, registry: Registry, *rest: Any) -> None:
        self.registry = registry
        super().__init__(*rest)

    def do_GET(self) -> None:
        token = self.headers.get("Authorization")
        self.registry.seen.append((self.path, token))
        status, body = self.registry.answer(unquote(self.path))
        if self.registry.token is not None and token != self.registry.token:
            status, body = 401, b""
        self.reply(status, body)


@contextmanager
def running_registry(archive: bytes, **more: Any) -> Iterator[Registry]:
    """A registry that has one version of one package."""
    registry = Registry(archive, **more)
    with serving(partial(_Handler, registry)) as address:
        registry.url = f"{address}/npm"
        yield registry


def packed(directory: Path) -> bytes:
    """The archive of a package that npm installed, without source maps and types."""
    files = [path for path in sorted(directory.rglob("*")) if path.is_file() and path.suffix in ("", ".js", ".json")]
    return tarball({f"package/{path.relative_to(directory).as_posix()}": path.read_bytes() for path in files})

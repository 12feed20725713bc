"""`npm:@scope/name==version`: the module of a package of an npm registry, for a page; no model comes from it.

spec: {"package", "version"}.
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from llmbuild.canonical import Digest, Json
from llmbuild.errors import FetchError
from llmbuild.sources.kind import Context, Source, SourceError, pinned_files
from llmbuild.sources.remote import AnnouncedKind, Download, RemoteKind
from llmbuild.sources.shape import INTEGRITY, ShapeError

_PACKAGE = re.compile(r"(@[A-Za-z0-9_~-][\w.~-]*/)?[A-Za-z0-9_~-][\w.~-]*", re.ASCII)
_VERSION = re.compile(r"\d{1,9}\.\d{1,9}\.\d{1,9}([-+][0-9A-Za-z.+-]{1,100})?", re.ASCII)
_FIX = "write npm:@scope/name==version"


class Npm(AnnouncedKind):
    """The lock records the SHA-512 of the archive that a registry announces; from then on that counts, wherever it is from."""

    name: ClassVar[str] = "npm"
    schemes: ClassVar[tuple[str, ...]] = ("npm",)
    form: ClassVar[str] = "npm:@scope/name==version"
    models: ClassVar[bool] = False
    fixed: ClassVar[bool] = True
    identity_keys: ClassVar[tuple[str, ...]] = ("package", "version", "integrity")
    pin_keys: ClassVar[tuple[str, ...]] = ("integrity",)

    def parse(self, text: str, revision: str | None, sha256: str | None) -> Source:
        package, _, version = text.removeprefix("npm:").partition("==")
        if not (_PACKAGE.fullmatch(package) and _VERSION.fullmatch(version)):
            raise SourceError(f"'{text}' does not name a package and an exact version", fix=_FIX)
        return Source(self.name, {"package": package, "version": version})

    def key(self, spec: Mapping[str, str]) -> str:
        return self.named(spec)

    def pinned(
        self, spec: Mapping[str, str], pin: Mapping[str, Any] | None, context: Context
    ) -> Mapping[str, Any] | None:
        if pin is not None:
            return pin
        if context.offline:
            raise FetchError(
                "the package is not pinned",
                where=self.named(spec),
                why="the lock file does not have it, and --offline forbids to ask the registry",
                fix="run `llmbuild lock` once with a network",
            )
        from llmbuild.sources import npm

        found = {"integrity": npm.resolve(spec["package"], spec["version"]).integrity}
        context.lock.put(self.lock_key(spec, context.source_format), found)
        return found

    def identity(self, spec: Mapping[str, str], pin: Mapping[str, Any] | None) -> Mapping[str, Json]:
        assert pin is not None, "pinned() gives one"
        return {"package": spec["package"], "version": spec["version"], "integrity": pin["integrity"]}

    def check(self, params: Mapping[str, Any], hints: Mapping[str, Any]) -> None:
        patterns = {"package": _PACKAGE, "version": _VERSION, "integrity": INTEGRITY}
        for name, pattern in patterns.items():
            if not pattern.fullmatch(params["source"][name]):
                raise ShapeError("is of another form", ("source", name))

    def archived(self, identity: Mapping[str, Any]) -> bool:
        return True

    def fetched_pin(
        self,
        spec: Mapping[str, str],
        params: Mapping[str, Any],
        pin: Mapping[str, Any] | None,
        fetched: Mapping[str, tuple[Digest, int]],
    ) -> Mapping[str, Json]:
        integrity: Json = params["source"]["integrity"]
        return {"integrity": integrity, "files": pinned_files(fetched)}

    def download(self, what: Download) -> None:
        from llmbuild.sources import npm

        source = what.identity
        npm.fetch(
            source["package"],
            source["version"],
            source["integrity"],
            what.out,
            what.scratch,
            what.partial,
            what.progress,
            what.sizes,
        )

    def check_arrived(self, out: Path, pin: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
        """The archive is the promised one; a lock file may promise other files of it, where it was edited."""
        RemoteKind.check_arrived(self, out, pin, identity)

    def complete_pin(self, what: Download, keep: Callable[[Path], tuple[Digest, int]]) -> Mapping[str, Json]:
        """The registry announces the archive alone, so that its files are known when it is here."""
        self.download(what)
        names = sorted(path.name for path in what.out.iterdir() if path.is_file())
        fetched = {name: keep(what.out / name) for name in names}
        return {"integrity": what.identity["integrity"], "files": pinned_files(fetched)}

    def named(self, identity: Mapping[str, Any]) -> str:
        return f"npm:{identity['package']}=={identity['version']}"

    def uri(self, identity: Mapping[str, Any], hints: Mapping[str, Any]) -> str | None:
        name = urllib.parse.quote(identity["package"], safe="/")
        return f"pkg:npm/{name}@{urllib.parse.quote(identity['version'], safe='')}"


KIND = Npm()

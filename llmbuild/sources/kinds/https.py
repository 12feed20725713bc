"""`https://…` with a SHA-256: a GGUF file, or an archive with a checkpoint.

spec: {"url", "sha256"}, the URL as `urls.kept` gives it.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from llmbuild.canonical import Digest, Json, known_digest, parse_digest
from llmbuild.sources.form import FORMS, form_of
from llmbuild.sources.kind import Context, Source, SourceError, pinned_files
from llmbuild.sources.remote import Download, RemoteKind
from llmbuild.sources.select import GGUF_NAME
from llmbuild.sources.shape import ShapeError
from llmbuild.urls import in_clear_text, kept, lacks_query, shown


class Https(RemoteKind):
    """The SHA-256 is the identity; the URL only locates the bytes."""

    name: ClassVar[str] = "https"
    schemes: ClassVar[tuple[str, ...]] = ("https", "http")
    form: ClassVar[str] = "https://… with sha256"
    options: ClassVar[frozenset[str]] = frozenset({"sha256"})
    fixed: ClassVar[bool] = True
    identity_keys: ClassVar[tuple[str, ...]] = ("sha256", "form")
    hint_keys: ClassVar[tuple[str, ...]] = ("url",)

    def parse(self, text: str, revision: str | None, sha256: str | None) -> Source:
        """The source without the query of its URL, which may contain a signature: the manifest is the only place that has
        it."""
        try:
            parts = urllib.parse.urlsplit(text)
            port = parts.port or 1
        except ValueError as error:
            # Brackets of an IPv6 address that is none.
            raise SourceError(
                f"'{shown(text)}' is not a URL: {error}", fix="write https://host/path/file.gguf"
            ) from error
        if not parts.hostname or parts.path in ("", "/") or port < 1:
            raise SourceError(
                f"'{shown(text)}' does not name a file on a host", fix="write https://host/path/file.gguf"
            )
        if parts.username or parts.password:
            raise SourceError("a URL in a manifest must not hold a password", fix="use a netrc file")
        if in_clear_text(text):
            raise SourceError("plain http is not accepted", fix="write https://")
        if sha256 is None:
            raise SourceError(
                "a source that is a URL needs its sha256",
                fix='add sha256 = "…" (64 hexadecimal digits, from sha256sum FILE)',
            )
        return Source(self.name, {"url": kept(text), "sha256": sha256})

    def key(self, spec: Mapping[str, str]) -> str:
        return spec["url"]

    def applies(self, spec: Mapping[str, str], pin: Mapping[str, Any]) -> bool:
        return pin.get("sha256") == spec["sha256"]

    def required_pin(
        self, spec: Mapping[str, str], params: Mapping[str, Any], pin: Mapping[str, Any] | None
    ) -> Mapping[str, Any]:
        return {**(pin or {}), "sha256": spec["sha256"]}

    def fetched_pin(
        self,
        spec: Mapping[str, str],
        params: Mapping[str, Any],
        pin: Mapping[str, Any] | None,
        fetched: Mapping[str, tuple[Digest, int]],
    ) -> Mapping[str, Json]:
        return {"sha256": spec["sha256"], "files": pinned_files(fetched)}

    def identity(self, spec: Mapping[str, str], pin: Mapping[str, Any] | None) -> Mapping[str, Json]:
        return {"sha256": spec["sha256"], "form": form_of(spec["url"])}

    def hints(self, spec: Mapping[str, str], context: Context) -> Mapping[str, Json]:
        manifest = context.manifest is not None and lacks_query(spec["url"])
        return {"url": spec["url"], **({"manifest": str(context.manifest)} if manifest else {})}

    def check(self, params: Mapping[str, Any], hints: Mapping[str, Any]) -> None:
        if params["source"]["form"] not in FORMS:
            raise ShapeError("is not the form of a file", ("source", "form"))
        try:
            urllib.parse.urlsplit(hints["url"])
        except ValueError as error:
            raise ShapeError("is not a URL", ("hints", "url"), str(error)) from error

    def single_file(self, identity: Mapping[str, Any]) -> Mapping[str, Digest] | None:
        sha256 = known_digest(identity["sha256"])
        return {GGUF_NAME: sha256} if sha256 is not None and identity["form"] == "gguf" else None

    def size(self, params: Mapping[str, Any], hints: Mapping[str, Any]) -> int | None:
        from llmbuild.sources import url

        return None if hints.get("offline") else url.announced(_whole(hints))

    def description(self, params: Mapping[str, Any], hints: Mapping[str, Any]) -> Mapping[str, bytes] | None:
        from llmbuild.sources import url

        if hints.get("offline") or params["source"]["form"] != "gguf":
            return None
        found = url.head(_whole(hints))
        return None if found is None else {GGUF_NAME: found}

    def written(self, spec: Mapping[str, str], file: str = "") -> str:
        return f"{spec['url']}: {file}" if file else spec["url"]

    def archived(self, identity: Mapping[str, Any]) -> bool:
        return bool(identity["form"] != "gguf")

    def download(self, what: Download) -> None:
        from llmbuild.sources import url

        url.fetch(
            _whole(what.hints),
            parse_digest(what.identity["sha256"]),
            what.identity["form"],
            what.source_format,
            what.out,
            what.scratch,
            what.partial,
            what.progress,
            what.sizes,
        )

    def named(self, identity: Mapping[str, Any]) -> str:
        return f"the URL with the SHA-256 {identity['sha256']}"

    def uri(self, identity: Mapping[str, Any], hints: Mapping[str, Any]) -> str | None:
        return str(hints["url"]) if "url" in hints else None


def _whole(hints: Mapping[str, Any]) -> str:
    """The URL with its query."""
    from llmbuild.sources import url

    return url.whole(hints["url"], Path(hints["manifest"]) if "manifest" in hints else None)


KIND = Https()

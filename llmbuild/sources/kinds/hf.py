"""`hf:org/name[/file.gguf][@revision]`: a model of a hub, or one GGUF file of it, pinned to a commit.

spec: {"repo", "revision"}, and "path" when one .gguf file of the repository is named.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from llmbuild.canonical import Digest, Json
from llmbuild.errors import FetchError
from llmbuild.sources.kind import Context, Source, SourceError, pinned_files
from llmbuild.sources.remote import AnnouncedKind, Download
from llmbuild.sources.select import output_name

_REPO = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


class Hub(AnnouncedKind):
    """The lock records what a hub announces of a revision; from then on the commit counts."""

    name: ClassVar[str] = "hf"
    schemes: ClassVar[tuple[str, ...]] = ("hf",)
    form: ClassVar[str] = "hf:org/name[/file.gguf][@revision]"
    adapter: ClassVar[str] = "hf:org/name[@revision]"
    options: ClassVar[frozenset[str]] = frozenset({"revision"})
    fixed: ClassVar[bool] = True
    identity_keys: ClassVar[tuple[str, ...]] = ("repo", "commit")
    pin_keys: ClassVar[tuple[str, ...]] = ("commit",)

    def parse(self, text: str, revision: str | None, sha256: str | None) -> Source:
        repo, at, pinned = text.removeprefix("hf:").partition("@")
        spec: dict[str, str] = {}
        parts = repo.split("/")
        if len(parts) > 2 and parts[-1].lower().endswith(".gguf") and ".." not in parts:
            # A repository with many GGUF files: the rest of the name is the path of one of them.
            repo, spec["path"] = "/".join(parts[:2]), "/".join(parts[2:])
        if not _REPO.fullmatch(repo) or ".." in repo:
            raise SourceError(f"'{repo}' is not a repository name", fix="write hf:org/name or hf:org/name@revision")
        if at and not pinned:
            raise SourceError("the revision after @ is empty", fix="write hf:org/name@revision, or leave @ out")
        if at and revision is not None and revision != pinned:
            raise SourceError(
                f"the source says @{pinned} and revision says '{revision}'", key="revision", fix="keep one of the two"
            )
        if revision == "":
            raise SourceError("is empty", key="revision", fix="give a branch, a tag or a commit, or remove it")
        return Source(self.name, {"repo": repo, "revision": pinned or revision or "main", **spec})

    def key(self, spec: Mapping[str, str]) -> str:
        return f"hf:{spec['repo']}@{spec['revision']}" + (f"/{spec['path']}" if "path" in spec else "")

    def written(self, spec: Mapping[str, str], file: str = "") -> str:
        revision = "" if spec["revision"] == "main" else f"@{spec['revision']}"
        source = f"hf:{spec['repo']}{revision}" + (f"/{spec['path']}" if "path" in spec else "")
        return f"{source}: {file}" if file and "path" not in spec else source

    def description(self, params: Mapping[str, Any], hints: Mapping[str, Any]) -> Mapping[str, bytes] | None:
        from llmbuild.sources import hub

        source = params["source"]
        if hints.get("offline"):
            return None
        pin = {"commit": source["commit"], "files": hints.get("files") or {}}
        return hub.description(source["repo"], hub.Pin.from_json(pin))

    def pinned(
        self, spec: Mapping[str, str], pin: Mapping[str, Any] | None, context: Context
    ) -> Mapping[str, Any] | None:
        if pin is not None:
            return pin
        from llmbuild.sources import hub
        from llmbuild.sources.hub_answer import is_commit

        if context.offline and is_commit(spec["revision"]):
            return {"commit": spec["revision"]}
        if context.offline:
            raise FetchError(
                f"the revision '{spec['revision']}' is not pinned",
                where=f"hf:{spec['repo']}",
                why="the lock file does not have it, and --offline forbids to ask the hub",
                fix="run `llmbuild lock` once with a network",
            )
        found = hub.resolve(
            spec["repo"], spec["revision"], spec.get("path"), context.source_format, refused=context.refused
        )
        resolved = found.to_json() if found.files else {"commit": found.commit}
        context.lock.put(self.lock_key(spec, context.source_format), resolved)
        return resolved if found.unread is None else {**resolved, "unread": found.unread}

    def identity(self, spec: Mapping[str, str], pin: Mapping[str, Any] | None) -> Mapping[str, Json]:
        assert pin is not None, "pinned() gives one"
        path = {"path": spec["path"]} if "path" in spec else {}
        return {"repo": spec["repo"], "commit": pin["commit"], **path}

    def fetched_pin(
        self,
        spec: Mapping[str, str],
        params: Mapping[str, Any],
        pin: Mapping[str, Any] | None,
        fetched: Mapping[str, tuple[Digest, int]],
    ) -> Mapping[str, Json]:
        """A pin has the names of the repository's files, and the digests that the hub announced."""
        known = pinned_files(fetched)
        commit: Json = params["source"]["commit"]
        before = pin.get("files", {}) if pin is not None and pin.get("commit") == commit else {}
        if not before:
            return {"commit": commit, "files": known}
        files: dict[str, Json] = {}
        for name, entry in before.items():
            found = known.get(output_name(name))
            files[name] = {**entry, **found} if isinstance(found, dict) else entry
        return {"commit": commit, "files": files}

    def download(self, what: Download) -> None:
        from llmbuild.sources import hub

        source = what.identity
        pin = (
            hub.Pin.from_json(what.pin)
            if what.pin["files"]
            else hub.resolve(source["repo"], source["commit"], source.get("path"), what.source_format)
        )
        hub.fetch(source["repo"], pin, what.out, what.partial, what.progress, have=what.have)

    def complete_pin(self, what: Download, keep: Callable[[Path], tuple[Digest, int]]) -> Mapping[str, Json]:
        """Large files are announced with their SHA-256, small ones by git's digest alone."""
        from llmbuild.sources import hub

        source = what.identity
        announced = hub.Pin.from_json(what.pin)
        if not announced.files:
            announced = hub.resolve(source["repo"], announced.commit, source.get("path"), what.source_format)
        small = {
            name: promise for name, promise in announced.files.items() if promise.sha256 is None or promise.size is None
        }
        hub.fetch(
            source["repo"], hub.Pin(announced.commit, small), what.out, what.partial, what.progress, have=what.have
        )
        files: dict[str, Any] = dict(announced.to_json()["files"])  # type: ignore[arg-type]
        for name in small:
            digest, size = keep(what.out / output_name(name))
            files[name] = {**files[name], "sha256": digest, "size": size}
        return {"commit": announced.commit, "files": files}

    def named(self, identity: Mapping[str, Any]) -> str:
        return f"hf:{identity['repo']}@{identity['commit']}"

    def uri(self, identity: Mapping[str, Any], hints: Mapping[str, Any]) -> str | None:
        return f"pkg:huggingface/{identity['repo']}@{identity['commit']}"


KIND = Hub()

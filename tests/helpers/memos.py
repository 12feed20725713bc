"""What llmbuild finds out about its own source and about TVM's libraries in a new store, found out once for all stores of tests.

A store caches these answers under the content that they follow from, so that they hold in any store of the same installation.
"""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path

from llmbuild.canonical import Digest, digest_file
from llmbuild.engine.registry import KIND_NAMES, load_kind
from llmbuild.workspace.programs import PROGRAMS_MEMO
from llmbuild.workspace.tool_identities import TVM_MEMO, Toolchain
from tests.helpers.checkpoints import cache_root


def know_the_tools(store: Path) -> None:
    """Put the answers into a store that is not there yet."""
    store.mkdir(parents=True)
    for path in _memos():
        shutil.copyfile(path, store / path.name)


class _Digests:
    def digest(self, path: Path) -> Digest:
        return digest_file(path)


@cache
def _memos() -> tuple[Path, Path]:
    root = cache_root() / "memos"
    root.mkdir(parents=True, exist_ok=True)
    chain = Toolchain(_Digests(), memo=root / TVM_MEMO)
    for name in KIND_NAMES:
        chain.tools_of(load_kind(name))
    # The answers are looked up when they are asked for.
    assert chain.families and chain.package_kinds and chain.code_generators()
    chain.programs.save()
    return root / TVM_MEMO, root / PROGRAMS_MEMO

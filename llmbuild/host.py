"""The systems that llmbuild runs on; docs/platforms.md reports what was tested on them."""

from __future__ import annotations

import sys

_WITHOUT = {"win32": "Windows", "emscripten": "a browser", "wasi": "WebAssembly"}
"""Systems of Python that have neither the locks nor the processes that a store rests on."""


def require_host() -> None:
    """Raise ToolchainError on a system that llmbuild does not run on."""
    system = _WITHOUT.get(sys.platform)
    if system is None:
        return
    # `import llmbuild` and `llmbuild --help` are cheap without it.
    from llmbuild.errors import ToolchainError

    raise ToolchainError(
        f"llmbuild does not run on {system}",
        why="its cache rests on locks and processes that Linux and macOS have",
        fix="run it on Linux, which on Windows can be WSL; it builds libraries for Windows and for browsers there",
    )

"""Where checkpoints come from: local files, a hub, a URL, a package index.

`observe` resolves what planning needs of a source, `fetch` gets its bytes, `size` counts them, `lock_key` is its name in the
lock file.
"""

from llmbuild.sources.source import fetch, lock_key, observe, size

__all__ = ["fetch", "lock_key", "observe", "size"]

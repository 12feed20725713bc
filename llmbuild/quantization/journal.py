"""Which shards of an interrupted conversion are complete.

A conversion that may be killed writes its shards to a directory that outlives it, and a line to the journal there when
one is complete.  Neither is flushed: a shard counts only when its bytes match the size and the MD5 of its line.  A truncated,
changed or lost one is written again.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from concurrent.futures import Executor
from hashlib import md5
from pathlib import Path

from llmbuild.jsontext import MOST_BYTES, parse_json
from llmbuild.quantization.tensor_index import Shard

JOURNAL = "journal"
_CHUNK = 1 << 20
_SHARD = re.compile(r"params_shard_[0-9]{1,9}\.bin")


class Journal:
    """The journal of one directory.  `complete` maps the names of verified shards to (bytes, MD5)."""

    def __init__(self, directory: Path, executor: Executor) -> None:
        self.directory = directory
        self._path = directory / JOURNAL
        lines = self._lines()
        found = executor.map(lambda name: _matches(directory / name, *lines[name]), lines)
        self.complete = {name: line for (name, line), right in zip(lines.items(), found, strict=True) if right}

    def add(self, shard: Shard) -> None:
        """Record that a shard is complete.  A line that cannot be written only means that the shard is made again."""
        line = json.dumps({"path": shard.path, "nbytes": shard.nbytes, "md5": shard.md5})
        with contextlib.suppress(OSError):
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            try:
                # The line before may have been cut off; an empty line more does no harm.
                os.write(fd, f"\n{line}\n".encode())
            finally:
                os.close(fd)

    def _lines(self) -> dict[str, tuple[int, str]]:
        try:
            with self._path.open("rb") as file:
                text = file.read(MOST_BYTES).decode("utf-8", "replace")
        except OSError:
            return {}
        lines: dict[str, tuple[int, str]] = {}
        for line in text.splitlines():
            with contextlib.suppress(ValueError):
                row = parse_json(line.encode())
                match row:
                    case {"path": str(name), "nbytes": int(nbytes), "md5": str(digest)} if _SHARD.fullmatch(name):
                        lines[name] = nbytes, digest
        return lines


def _matches(path: Path, nbytes: int, expected: str) -> bool:
    digest = md5(usedforsecurity=False)
    try:
        with path.open("rb", buffering=0) as file:
            if os.fstat(file.fileno()).st_size != nbytes:
                return False
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except OSError:
        return False
    return digest.hexdigest() == expected

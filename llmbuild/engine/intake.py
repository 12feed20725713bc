"""Taking a blob's bytes from outside: an archive, or another cache."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable

from llmbuild.canonical import Digest
from llmbuild.engine import files, fs
from llmbuild.engine.store import Store


def take_blob(
    store: Store, digest: Digest, pieces: Iterable[bytes | memoryview], *, size: int | None = None, most: int = 0
) -> int:
    """Store bytes that are hashed while they are written; returns their number.  Without a `size` there may be `most`.

    Raises ValueError when they are more or fewer or have another digest, StoreError when the disk fails, and what `pieces`
    raises: then nothing of them is in the store.
    """
    limit = most if size is None else size
    temporary = store.scratch() / files.temporary_name()
    actual = hashlib.sha256()
    count = 0
    with fs.translate_errors("store a blob", temporary):
        try:
            fd = fs.current.create(temporary)
            try:
                for piece in pieces:
                    count += len(piece)
                    if count > limit:
                        raise ValueError(f"blob {digest[:12]} is larger than {limit} bytes")
                    actual.update(piece)
                    files.write_all(fd, piece)
            finally:
                os.close(fd)
            if size is not None and count != size:
                raise ValueError("it ends early")
            if actual.hexdigest() != digest:
                raise ValueError(f"blob {digest[:12]} has the digest {actual.hexdigest()[:12]}")
            store.cas.put_file(temporary, move=True)
        except BaseException:
            files.discard(temporary)
            raise
    return count

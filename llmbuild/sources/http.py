"""Downloading one file: streamed, resumed, retried, and never put out before its digest is the promised one.

What has arrived is kept in a partial file named by the promised digest, so that a later run goes on where this one stopped.
The whole file is requested from a server that cannot go on there.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import stat
import urllib.error
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from llmbuild.canonical import CHUNK, Digest
from llmbuild.errors import FetchError
from llmbuild.sources import request
from llmbuild.sources.copying import free_space, unwritable
from llmbuild.sources.request import TransientError, content_length, header_number, open_url
from llmbuild.urls import shown

_BUSY = tuple(code for code in request.TRANSIENT if code != 500)
"""The statuses of a server that cannot serve just now, whatever the request."""

_ALGORITHMS = {"sha256": "SHA-256", "sha512": "SHA-512", "git": "git object id"}
"""How messages name what a promise is checked by."""


@dataclass(frozen=True, slots=True)
class Promise:
    """What is known of a file beforehand; at least one of the digests is.  `git_sha1` is git's object id of its content;
    `sha512` has hexadecimal digits."""

    size: int | None = None
    sha256: Digest | None = None
    git_sha1: str | None = None
    sha512: str | None = None

    @property
    def name(self) -> str:
        """A file name for the bytes that are promised."""
        return next(f"{algorithm}-{digest}" for algorithm, digest in self._digests())

    def _digests(self) -> Iterator[tuple[str, str]]:
        """The digests that are known, by their algorithms."""
        for algorithm, digest in (("sha256", self.sha256), ("sha512", self.sha512), ("git", self.git_sha1)):
            if digest is not None:
                yield algorithm, digest

    def difference(self, size: int, digest: Callable[[str], str]) -> str | None:
        """How a file of this size, whose digests the function finds, differs from the promise, or None when it is right."""
        if self.size is not None and size != self.size:
            return f"{self.size} bytes were promised, there are {size if size < self.size else 'more'}"
        for algorithm, promised in self._digests():
            if (found := digest(algorithm)) != promised:
                return f"the promised {_ALGORITHMS[algorithm]} is {promised}, the found one {found}"
        return None

    def holds(self, data: bytes) -> bool:
        """Whether a file with this content is the promised one."""
        return self.difference(len(data), lambda algorithm: _digest(algorithm, len(data), [data])) is None


def download(
    url: str,
    dest: Path,
    promise: Promise,
    *,
    partial: Path,
    add: Callable[[int], None],
    credentials: Mapping[str, str] | None = None,
) -> None:
    """Fetch `url` into the new file `dest`.

    `partial` is the directory for unfinished files, `add` is called with the number of bytes as they arrive,
    `credentials` are headers for the URL's own origin only.  Raises FetchError when the server refuses, when the
    network fails for good, or when the bytes are not the promised ones; StoreError when the disk does.
    """
    with _partial_file(partial / f"{promise.name}.part") as file:
        if promise.size is not None and os.fstat(file.fileno()).st_size > promise.size:
            file.truncate(0)  # What cannot be right need not be hashed.
        arrived = _Arrived(file, add)
        resumed = arrived.size > 0
        problem = _attempt_all(url, arrived, promise, credentials or {})
        if problem is not None and (resumed or arrived.continued):
            # What an earlier run left may be damaged, or the pieces do not fit; the whole file has the last word.
            arrived.restart()
            problem = _attempt_all(url, arrived, promise, credentials or {})
        if problem is not None:
            arrived.restart()
            raise FetchError(
                "what was downloaded is not what was promised",
                where=shown(url),
                why=problem,
                fix="check the digest in the manifest or in the lock file; if they are right, the server's copy is damaged",
            )
        try:
            shutil.move(file.name, dest)
        except OSError as error:
            raise unwritable(dest, error) from error


@contextlib.contextmanager
def _partial_file(path: Path) -> Iterator[IO[bytes]]:
    """The partial file, open and locked: another process that wants the same bytes waits for its turn."""
    import fcntl

    # What lies here is truncated at times, so it must be a file of this directory and no way to another.
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            # Without a buffer no error is left for the moment of closing.
            file = open(path, "a+b", buffering=0, opener=lambda name, _: os.open(name, flags, 0o666))  # noqa: SIM115
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                file.close()
                raise FileExistsError(errno.EEXIST, "something is there that is no file")
            fcntl.flock(file, fcntl.LOCK_EX)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    break
            file.close()  # Its former owner finished and moved it away while this process waited.
    except OSError as error:
        raise unwritable(path, error) from error
    with file:
        yield file


class _Arrived:
    """The bytes that have arrived, in the partial file, with their SHA-256 so far."""

    def __init__(self, file: IO[bytes], add: Callable[[int], None]) -> None:
        """Take over what an earlier run left in the file, which must be hashed again."""
        self.file = file
        self.size = 0
        self.sha256 = hashlib.sha256()
        self.continued = False
        """Whether a request started after a part."""
        self._add = add
        file.seek(0)
        while chunk := file.read(CHUNK):
            self._count(chunk)

    def write(self, chunk: bytes) -> None:
        """Append to the file."""
        rest = memoryview(chunk)
        try:
            while rest:
                rest = rest[self.file.write(rest) :]
        except OSError as error:
            raise unwritable(Path(self.file.name), error) from error
        self._count(chunk)

    def _count(self, chunk: bytes) -> None:
        self.sha256.update(chunk)
        self.size += len(chunk)
        self._add(len(chunk))

    def restart(self) -> None:
        """Throw away what has arrived."""
        self.file.truncate(0)
        self._add(-self.size)
        self.size = 0
        self.sha256 = hashlib.sha256()

    def difference(self, promise: Promise) -> str | None:
        """How the whole file differs from its promise, or None when it is right."""
        return promise.difference(self.size, self._digest)

    def _digest(self, algorithm: str) -> str:
        return self.sha256.hexdigest() if algorithm == "sha256" else _digest(algorithm, self.size, self._chunks())

    def _chunks(self) -> Iterator[bytes]:
        self.file.seek(0)
        while chunk := self.file.read(CHUNK):
            yield chunk


def _digest(algorithm: str, size: int, chunks: Iterable[bytes]) -> str:
    """The digest of a content.  Git's object id starts with the size; only small files are named by it."""
    found = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False) if algorithm == "git" else hashlib.new(algorithm)
    for chunk in chunks:
        found.update(chunk)
    return found.hexdigest()


def _attempt_all(url: str, arrived: _Arrived, promise: Promise, credentials: Mapping[str, str]) -> str | None:
    """Attempt until the file is whole; returns how it differs from the promise, or None when it is right."""
    attempt, most = 0, arrived.size
    while promise.size is None or arrived.size < promise.size:
        try:
            _attempt(url, arrived, promise, credentials)
            break
        except TransientError as error:
            # Bytes that came before, and were thrown away since, are no progress.
            attempt = 0 if arrived.size >= most + request.POLICY.progress else attempt + 1
            most = max(most, arrived.size)
            if attempt >= request.POLICY.attempts:
                raise FetchError(
                    "cannot be downloaded",
                    where=shown(url),
                    why=f"{error} ({request.POLICY.attempts} attempts)",
                    fix="run the build again when the network is better; it goes on where it stopped",
                ) from error
            request.POLICY.pause(attempt, error.after)
    return arrived.difference(promise)


def _attempt(url: str, arrived: _Arrived, promise: Promise, credentials: Mapping[str, str]) -> None:
    """One request for what is missing, appended to what has arrived."""
    with _open(url, arrived, credentials) as response:
        if response.status == 416:
            return  # Nothing is left to send: what has arrived is whole, or longer than it should be.
        if arrived.size and not _continues(response, arrived.size):
            arrived.restart()
            if response.status == 206:
                raise TransientError("the server sent another range than the one asked for")
        length = content_length(response)
        end = promise.size if length is None else arrived.size + length
        too_large = (
            promise.size is None and length is not None and length > free_space(arrived.file.fileno(), reserve=False)
        )
        while not too_large and (most := _room(arrived, promise, length)) > 0:
            chunk = response.take(most)
            if not chunk:
                if end is not None and arrived.size < end:
                    raise TransientError(f"the connection was closed after {arrived.size} of {end} bytes")
                return
            arrived.write(chunk)
    if promise.size is None:
        arrived.restart()
        raise FetchError(
            "the disk has no place for what the server sends",
            where=shown(url),
            why=f"it announces {length} bytes" if too_large else "it announces no end, and nobody knows the size",
            fix="check the URL; if the file is that large, free some space or choose another place for the cache",
        )


class _RangeRefusedError(Exception):
    """A server does not send the rest of a file; perhaps it sends the whole."""


def _open(url: str, arrived: _Arrived, credentials: Mapping[str, str]) -> Any:
    """The response to a request for what is missing, or for the whole file where the server does not serve parts."""

    def refused(url: str, error: urllib.error.HTTPError) -> Exception:
        return request.refusal(url, error) if error.code in _BUSY else _RangeRefusedError()

    if arrived.size:
        arrived.continued = True
        with contextlib.suppress(_RangeRefusedError):
            return open_url(url, {"Range": f"bytes={arrived.size}-"}, credentials, refused)
    return open_url(url, {}, credentials)


def _room(arrived: _Arrived, promise: Promise, length: int | None) -> int:
    """How many bytes may still come: one more than was promised, else what the disk has place for."""
    if promise.size is None:
        return free_space(arrived.file.fileno(), reserve=length is None)
    return promise.size + 1 - arrived.size


def _continues(response: Any, have: int) -> bool:
    """Whether a response goes on where the partial file ends."""
    if response.status != 206:
        return False
    found = re.match(r"bytes ([^-]*)-", response.headers.get("Content-Range", ""))
    return found is not None and header_number(found[1]) == have

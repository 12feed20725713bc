"""Downloading one file: streamed, resumed, retried, and never put out before its digest is the promised one.

What has arrived is kept in a partial file named by the promised digest, so that a later run goes on where this one
stopped.  Redirects are followed by hand, because credentials must not reach another host than the one they are for.
"""

from __future__ import annotations

import contextlib
import email.utils
import hashlib
import http.client
import os
import re
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from llmbuild import __version__
from llmbuild.canonical import CHUNK
from llmbuild.errors import FetchError
from llmbuild.sources.copying import unwritable

_TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
_REDIRECTS = (301, 302, 303, 307, 308)
_MAX_REDIRECTS = 10
_NETWORK_ERRORS = (OSError, http.client.HTTPException)


@dataclass(frozen=True, slots=True)
class Policy:
    """How patient a download is.  An attempt that brought new bytes starts the count anew.  Times are in seconds."""

    attempts: int = 5
    delay: float = 1.0
    max_delay: float = 60.0
    timeout: float = 30.0

    def pause(self, attempt: int, asked: float | None = None) -> None:
        """Wait before the next attempt: as long as the server asked, or twice as long each time."""
        time.sleep(min(self.max_delay, self.delay * 2**attempt if asked is None else asked))


POLICY = Policy()
"""The one that every download follows."""


@dataclass(frozen=True, slots=True)
class Promise:
    """What is known of a file beforehand; at least one of the digests is.  `git_sha1` is git's object id of its content."""

    size: int | None = None
    sha256: str | None = None
    git_sha1: str | None = None

    @property
    def name(self) -> str:
        """A file name for the bytes that are promised."""
        return f"sha256-{self.sha256}" if self.sha256 else f"git-{self.git_sha1}"


class _TransientError(Exception):
    """An attempt failed in a way that may pass; `after` is how many seconds the server asks to wait."""

    def __init__(self, why: str, after: float | None = None) -> None:
        super().__init__(why)
        self.after = after


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_args: Any, **_more: Any) -> None:
        return None


def shown(url: str) -> str:
    """A URL as messages show it: without credentials and without the query, which may hold a signature."""
    parts = urllib.parse.urlsplit(url)
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


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
        arrived = _Arrived(file, add)
        resumed = arrived.size > 0
        problem = _attempt_all(url, arrived, promise, credentials or {})
        if problem is not None and resumed:
            # What an earlier run left may be damaged; the server has the last word.
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

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            file = path.open("a+b", buffering=0)  # Without a buffer no error is left for the moment of closing.
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
        """Take over what an earlier run left in the file, which has to be hashed again."""
        self.file = file
        self.size = 0
        self.sha256 = hashlib.sha256()
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
        if promise.size is not None and self.size != promise.size:
            return f"{promise.size} bytes were promised, there are {self.size if self.size < promise.size else 'more'}"
        if promise.sha256 is not None and self.sha256.hexdigest() != promise.sha256:
            return f"the promised SHA-256 is {promise.sha256}, the found one {self.sha256.hexdigest()}"
        if promise.git_sha1 is not None and (found := self._git_sha1()) != promise.git_sha1:
            return f"the promised git object id is {promise.git_sha1}, the found one {found}"
        return None

    def _git_sha1(self) -> str:
        """Git's object id of the content, which starts with the size; only small files are named by it."""
        sha1 = hashlib.sha1(b"blob %d\0" % self.size, usedforsecurity=False)
        self.file.seek(0)
        while chunk := self.file.read(CHUNK):
            sha1.update(chunk)
        return sha1.hexdigest()


def _attempt_all(url: str, arrived: _Arrived, promise: Promise, credentials: Mapping[str, str]) -> str | None:
    """Attempt until the file is whole; returns how it differs from the promise, or None when it is right."""
    attempt = 0
    while promise.size is None or arrived.size < promise.size:
        before = arrived.size
        try:
            _attempt(url, arrived, promise, credentials)
            break
        except _TransientError as error:
            attempt = 0 if arrived.size > before else attempt + 1
            if attempt >= POLICY.attempts:
                raise FetchError(
                    "cannot be downloaded",
                    where=shown(url),
                    why=f"{error} ({POLICY.attempts} attempts)",
                    fix="run the build again when the network is better; it goes on where it stopped",
                ) from error
            POLICY.pause(attempt, error.after)
    return arrived.difference(promise)


def _attempt(url: str, arrived: _Arrived, promise: Promise, credentials: Mapping[str, str]) -> None:
    """One request for what is missing, appended to what has arrived."""
    headers = {"User-Agent": f"llmbuild/{__version__}", "Accept-Encoding": "identity"}
    if arrived.size:
        headers["Range"] = f"bytes={arrived.size}-"
    with _open(url, headers, credentials) as response:
        if response.status == 416:
            return  # Nothing is left to send: what has arrived is whole, or longer than it should be.
        if arrived.size and not _continues(response, arrived.size):
            arrived.restart()
        length = response.headers.get("Content-Length")
        end = arrived.size + int(length) if length is not None and length.isdigit() else promise.size
        while promise.size is None or arrived.size <= promise.size:  # More than was promised need not be read.
            try:
                chunk = response.read(CHUNK)
            except _NETWORK_ERRORS as error:
                raise _TransientError(_reason(error)) from error
            if not chunk:
                break
            arrived.write(chunk)
        if end is not None and arrived.size < end:
            raise _TransientError(f"the connection was closed after {arrived.size} of {end} bytes")


def _continues(response: Any, have: int) -> bool:
    """Whether a response goes on where the partial file ends; otherwise it starts from the beginning."""
    if response.status != 206:
        return False
    found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    if found is None or int(found[1]) != have:
        raise _TransientError("the server sent another range than the one asked for")
    return True


def _open(url: str, headers: Mapping[str, str], credentials: Mapping[str, str]) -> Any:
    """The response to a GET after redirects.  Credentials go to the origin of `url` and to nobody else."""
    opener = urllib.request.build_opener(_NoRedirect)
    origin, here = _origin(url), url
    for _ in range(_MAX_REDIRECTS):
        # Once another origin has been visited, a redirect back to the first would be that other's choice.
        if _origin(here) != origin:
            credentials = {}
        try:
            return opener.open(urllib.request.Request(here, headers={**headers, **credentials}), timeout=POLICY.timeout)
        except urllib.error.HTTPError as error:
            if error.code == 416 and "Range" in headers:
                return error
            with error:
                if error.code not in _REDIRECTS:
                    raise _refusal(url, error) from error
                here = _redirected(here, error.headers.get("Location"))
        except _NETWORK_ERRORS as error:
            raise _TransientError(_reason(error)) from error
        except ValueError as error:
            raise FetchError("is not a URL that can be fetched", where=shown(url), why=str(error)) from error
    raise FetchError("cannot be downloaded", where=shown(url), why=f"more than {_MAX_REDIRECTS} redirects")


def _origin(url: str) -> tuple[str, str | None, int | None]:
    try:
        parts = urllib.parse.urlsplit(url)
        return parts.scheme, parts.hostname, parts.port
    except ValueError as error:
        raise FetchError("is not a URL that can be fetched", where=_bare(url), why=str(error)) from error


def _bare(url: str) -> str:
    """What `shown` does, of what cannot be taken apart."""
    return url.partition("?")[0].rpartition("@")[2]


def _redirected(here: str, location: str | None) -> str:
    if location is None:
        raise FetchError("cannot be downloaded", where=shown(here), why="the server redirects to nowhere")
    try:
        there = urllib.parse.urljoin(here, location)
        schemes = (urllib.parse.urlsplit(here).scheme, urllib.parse.urlsplit(there).scheme)
    except ValueError as error:
        raise FetchError("cannot be downloaded", where=shown(here), why=f"it redirects to no URL: {error}") from error
    if schemes[1] not in ("http", "https") or schemes == ("https", "http"):
        raise FetchError(
            "cannot be downloaded", where=shown(here), why=f"it redirects from {schemes[0]} to {schemes[1]}"
        )
    return there


def _refusal(url: str, error: urllib.error.HTTPError) -> Exception:
    """What an HTTP status means: something that may pass, or an error with advice."""
    if error.code in _TRANSIENT:
        return _TransientError(f"the server answered {error.code} {error.reason}", _retry_after(error))
    fix = {
        401: "give credentials that may read it (HF_TOKEN for a hub)",
        403: "ask for access (accept the model's terms on its page), and give a token that has it",
        404: "check the name and the revision",
    }
    return FetchError(
        "cannot be downloaded",
        where=shown(url),
        why=f"the server answered {error.code} {error.reason}",
        fix=fix.get(error.code),
    )


def _retry_after(error: urllib.error.HTTPError) -> float | None:
    """Seconds in a Retry-After header, which holds a number or a date."""
    text = error.headers.get("Retry-After")
    if text is None:
        return None
    if text.isdigit():
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError):
        return None


def _reason(error: Exception) -> str:
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, TimeoutError):
        return "the server did not answer in time"
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return str(cause) or type(cause).__name__

"""One GET request: redirects, credentials, and untrusted responses.

Redirects are followed by hand, because credentials must not reach another host than the one they are for.  Numbers in headers
are digits of bounded length.  A connection that is too slow, or that sends headers without end, is aborted.
"""

from __future__ import annotations

import base64
import email.utils
import http.client
import io
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from llmbuild.canonical import CHUNK
from llmbuild.errors import FetchError
from llmbuild.urls import in_clear_text, is_loopback, shown

TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
TOKEN = re.compile(r"[!-~]+")
"""What a header can contain as a token."""
WRONG_TOKEN = "it is not one word of printable ASCII characters"
"""Why a text is no token, for messages: the text itself is a secret."""
SOON_S = 5.0
"""How long a plan waits for what it can do without."""
MOST_HEAD = 32 << 10
"""Bytes of the beginning of a file that a plan reads."""
_REDIRECTS = (301, 302, 303, 307, 308)
_MAX_REDIRECTS = 10
_NETWORK_ERRORS = (OSError, http.client.HTTPException)
_MOST_DIGITS = 18
_SHOWN = 200
"""The most characters of a server's own text that a message quotes."""
_MOST_FRAMING = 2 * CHUNK
"""Bytes that a server may send before or between pieces of content: headers, and the sizes of chunks."""
_DATE = re.compile(r"[A-Z][a-z]{2}, \d{2} [A-Z][a-z]{2} \d{4} \d{2}:\d{2}:\d{2} GMT", re.ASCII)


@dataclass(frozen=True, slots=True)
class Patience:
    """How patient a download is.  Times are in seconds, `least_rate` is in bytes a second over `span`.

    An attempt that received what the least rate requires in one span resets the count of attempts.
    """

    attempts: int = 5
    delay: float = 1.0
    max_delay: float = 60.0
    timeout: float = 30.0
    least_rate: int = 1000
    span: float = 60.0

    @property
    def progress(self) -> float:
        """The bytes that one span requires."""
        return self.least_rate * self.span

    def pause(self, attempt: int, asked: float | None = None) -> None:
        """Wait before the next attempt: as long as the server requested, or twice as long each time."""
        time.sleep(min(self.max_delay, self.delay * 2**attempt if asked is None else asked))


POLICY = Patience()
"""The one that every request follows."""


class TransientError(Exception):
    """An attempt failed in a way that may pass; `after` is the wait that the server requests, in seconds."""

    def __init__(self, why: str, after: float | None = None) -> None:
        super().__init__(why)
        self.after = after


def attempts(attempt: Callable[[], Any], where: str, what: str, fix: str) -> Any:
    """Call `attempt` again while it raises TransientError, then raise FetchError; returns its result."""
    for number in range(1, POLICY.attempts + 1):
        try:
            return attempt()
        except TransientError as error:
            if number == POLICY.attempts:
                why = f"{error} ({number} attempts)"
                raise FetchError(what, where=where, why=why, fix=fix) from error
            POLICY.pause(number - 1, error.after)
    raise AssertionError("a policy allows at least one attempt")


def header_number(text: str | None) -> int | None:
    """A number in a header; None when it is none, or one that no file has."""
    text = (text or "").strip(" \t")
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS else None


def content_length(response: Any) -> int | None:
    """The announced length of a body, None when there is none.  Raises TransientError when it is no number."""
    text = response.headers.get("Content-Length")
    if text is None:
        return None
    length = header_number(text)
    if length is None:
        raise TransientError(f"the server announces a length that is no number: {text!r:.40}")
    return length


class _TooSlowError(OSError):
    """Bytes come, but so slowly that the end would never be seen."""


class _Watched(io.RawIOBase):
    """A connection's bytes on their way in."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw
        self._waited = 0.0
        self._arrived = 0
        self.framing = 0
        """Bytes since the last piece of content was taken."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        # Only waiting for the server counts: a slow disk of ours is not its fault.
        started = time.monotonic()
        count = int(self._raw.readinto(buffer) or 0)
        self._waited += time.monotonic() - started
        self._arrived += count
        self.framing += count
        if self.framing > _MOST_FRAMING:
            raise _TooSlowError("the server sends headers without end")
        if count and self._waited >= POLICY.span:
            if self._arrived < POLICY.least_rate * self._waited:
                raise _TooSlowError(f"the server sends less than {POLICY.least_rate} bytes a second")
            self._waited, self._arrived = 0.0, 0
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class Response(http.client.HTTPResponse):
    """A response whose bytes are watched from the status line on."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        watched = _Watched(self.fp.detach())
        self._watched = watched
        self.fp = io.BufferedReader(watched)

    def take(self, most: int) -> bytes:
        """The next piece of the body as soon as there is one; b"" at its end.  Raises TransientError."""
        try:
            piece = self.read1(min(most, CHUNK))
        except _NETWORK_ERRORS as error:
            raise TransientError(reason(error)) from error
        self._watched.framing = 0
        return piece


class _Plain(http.client.HTTPConnection):
    response_class = Response


class _Secure(http.client.HTTPSConnection):
    response_class = Response


class _PlainHandler(urllib.request.HTTPHandler):
    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_Plain, request)


class _SecureHandler(urllib.request.HTTPSHandler):
    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_Secure, request)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_arguments: Any, **_more: Any) -> None:
        return None


def refusal(url: str, error: urllib.error.HTTPError) -> Exception:
    """Classify an HTTP status: a failure that may pass, or an error with advice."""
    if error.code in TRANSIENT:
        return TransientError(f"the server answered {error.code} {error.reason:.{_SHOWN}}", retry_after(error))
    fix = {
        401: "give credentials that may read it (HF_TOKEN for a hub)",
        403: "ask for access (accept the model's terms on its page), and give a token that has it",
        404: "check the name and the revision",
    }
    return FetchError(
        "cannot be downloaded",
        where=shown(url),
        why=f"the server answered {error.code} {error.reason:.{_SHOWN}}",
        fix=fix.get(error.code),
    )


def open_url(
    url: str,
    headers: Mapping[str, str],
    credentials: Mapping[str, str],
    refused: Callable[[str, urllib.error.HTTPError], Exception] = refusal,
    timeout: float | None = None,
) -> Any:
    """The response to a GET after redirects, which has 416 as its status when the requested range does not exist.

    Credentials go to the origin of `url` and to nobody else, and never in clear text to another machine.  Raises FetchError or
    TransientError; `refused` chooses which for a status that is an error.
    """
    # Without the version: it would be in the key of every fetch.
    headers = {"User-Agent": "llmbuild", "Accept-Encoding": "identity", **headers}
    origin, here = _origin(url), url
    if credentials and in_clear_text(url):
        raise FetchError(
            "a token or a password would go out in clear text",
            where=shown(url),
            why="the address is plain http, and the host another machine",
            fix="use https (HF_ENDPOINT for a hub), or remove the token (HF_TOKEN, `hf auth logout`, netrc)",
        )
    for _ in range(_MAX_REDIRECTS):
        # Once another origin has been visited, a redirect back to the first would be that other's choice.
        if _origin(here) != origin:
            credentials = {}
        try:
            request = urllib.request.Request(here, headers={**headers, **credentials})
            return _opener(here).open(request, timeout=POLICY.timeout if timeout is None else timeout)
        except urllib.error.HTTPError as error:
            if error.code == 416 and "Range" in headers:
                return error
            with error:
                if error.code not in _REDIRECTS:
                    raise refused(url, error) from error
                here = redirected(here, error.headers.get("Location"))
        except _NETWORK_ERRORS as error:
            raise TransientError(reason(error)) from error
        except ValueError as error:
            raise FetchError("is not a URL that can be fetched", where=shown(url), why=str(error)) from error
    raise FetchError("cannot be downloaded", where=shown(url), why=f"more than {_MAX_REDIRECTS} redirects")


def head(url: str, credentials: Mapping[str, str]) -> bytes:
    """The beginning of a file, which a plan can do without.  Raises FetchError or TransientError."""
    found = bytearray()
    with open_url(url, {"Range": f"bytes=0-{MOST_HEAD - 1}"}, credentials, timeout=SOON_S) as response:
        if response.status == 416:
            return b""
        while piece := response.take(MOST_HEAD - len(found)):
            found += piece
            if len(found) >= MOST_HEAD:
                break
    return bytes(found)


def whole_body(response: Any, most: int) -> bytes:
    """The whole body of a response.  Raises ValueError when it has more than `most` bytes, and TransientError."""
    length = content_length(response)
    body = bytearray()
    while piece := response.take(most + 1 - len(body)):
        body += piece
    if len(body) > most:
        raise ValueError(f"it has more than {most} bytes")
    if length is not None and len(body) < length:
        raise TransientError(f"the connection was closed after {len(body)} of {length} bytes")
    return bytes(body)


def fetchable(url: str) -> urllib.parse.SplitResult:
    """The parts of a URL.  Raises FetchError where others could change what it brings."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or in_clear_text(url):
        raise FetchError("only https is fetched", where=shown(url), why="what plain http brings anybody can change")
    return parts


def netrc_credentials(host: str) -> Mapping[str, str]:
    """The header for a host that the user's netrc file lists by name."""
    import netrc

    try:
        found = netrc.netrc().hosts.get(host)
    except (OSError, UnicodeError, netrc.NetrcParseError):
        return {}
    if found is None:
        return {}
    login, _, password = found
    return {"Authorization": "Basic " + base64.b64encode(f"{login}:{password or ''}".encode()).decode()}


def _opener(url: str) -> urllib.request.OpenerDirector:
    handlers: list[urllib.request.BaseHandler] = [_NoRedirect(), _PlainHandler(), _SecureHandler()]
    if is_loopback(_origin(url)[1]):
        # A proxy would take this machine for its own, and see what is trusted only here.
        handlers.append(urllib.request.ProxyHandler({}))
    return urllib.request.build_opener(*handlers)


def _origin(url: str) -> tuple[str, str | None, int | None]:
    try:
        parts = urllib.parse.urlsplit(url)
        if "@" in parts.netloc:
            raise ValueError("it holds a password or a name of a user")
        return parts.scheme, parts.hostname, parts.port
    except ValueError as error:
        raise FetchError("is not a URL that can be fetched", where=shown(url), why=str(error)) from error


def redirected(here: str, location: str | None) -> str:
    """Where a redirect leads.  Raises FetchError when that is nowhere, or away from https."""
    if location is None:
        raise FetchError("cannot be downloaded", where=shown(here), why="the server redirects to nowhere")
    try:
        there = urllib.parse.urljoin(here, location)
        schemes = (urllib.parse.urlsplit(here).scheme, urllib.parse.urlsplit(there).scheme)
    except ValueError as error:
        raise FetchError("cannot be downloaded", where=shown(here), why=f"it redirects to no URL: {error}") from error
    if schemes[1] not in ("http", "https") or schemes == ("https", "http"):
        raise FetchError(
            "cannot be downloaded", where=shown(here), why=f"it redirects from {schemes[0]} to {schemes[1]:.{_SHOWN}}"
        )
    return there


def retry_after(error: urllib.error.HTTPError) -> float | None:
    """Seconds in a Retry-After header, which is a number or a date; None when it is neither."""
    text = error.headers.get("Retry-After", "").strip()
    seconds = header_number(text)
    if seconds is not None or not _DATE.fullmatch(text):
        return seconds
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError):
        return None


def reason(error: Exception) -> str:
    """Why the network failed, in words."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, TimeoutError):
        return "the server did not answer in time"
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return str(cause)[:_SHOWN] or type(cause).__name__

"""Downloads from servers that lie, break off, never end or hardly move."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from llmbuild.errors import FetchError, StoreError
from llmbuild.sources import http, request
from llmbuild.sources.copying import free_space
from llmbuild.sources.http import Promise, download
from tests.helpers.raw_server import endless, raw_server, response

BODY = bytes(range(256)) * 16
PROMISE = Promise(sha256=hashlib.sha256(BODY).hexdigest())
SIZED = Promise(len(BODY), PROMISE.sha256)


def fetched(url: str, root: Path, promise: Promise = PROMISE) -> bytes:
    (root / "dest").unlink(missing_ok=True)
    download(url, root / "dest", promise, partial=root / "partial", add=lambda _: None)
    return (root / "dest").read_bytes()


def partial(root: Path, content: bytes | None = None) -> Path:
    path = root / "partial" / f"{PROMISE.name}.part"
    if content is not None:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    return path


NUMBERS = ["²", "²".encode().decode("latin-1"), "9" * 5000, "-1", "+5", "0x10", "1_0", "1e3", "", " ", "5, 5"]


@pytest.mark.parametrize("length", NUMBERS)
def test_a_length_that_is_no_number(tmp_path: Path, length: str) -> None:
    with raw_server(response(BODY, length=length)) as server:
        with pytest.raises(FetchError, match=r"a length that is no number: .* \(3 attempts\)"):
            fetched(server.url, tmp_path)
        server.answers[:] = [response(BODY, length=length), response(BODY)]
        assert fetched(server.url, tmp_path) == BODY


@pytest.mark.parametrize("wait", [*NUMBERS, "9" * 18, "0"])
def test_a_wait_that_is_no_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wait: str) -> None:
    monkeypatch.setattr(request, "POLICY", request.Patience(attempts=3, delay=0.0, max_delay=0.01))
    busy = response(b"", f"Retry-After: {wait}", status="503 Busy")
    with raw_server(busy, busy, response(BODY)) as server:
        assert fetched(server.url, tmp_path) == BODY


@pytest.mark.parametrize(
    "date",
    ["Wed, 21 Oct 2015 07:28:00 +99999999999999", "Wed, 00 Oct 0000 99:99:99 GMT", "Mon, 01 Xxx 2015 00:00:00 GMT"],
)
def test_a_wait_until_a_date_that_is_none(tmp_path: Path, date: str) -> None:
    with raw_server(response(b"", f"Retry-After: {date}", status="503 Busy"), response(BODY)) as server:
        assert fetched(server.url, tmp_path) == BODY


RANGES = [
    "bytes 0-9/10",
    f"bytes {'9' * 5000}-",
    "bytes ²-9/10",
    "bytes 1001-4095/4096",
    "bytes */4096",
    "bytes",
    "",
]


@pytest.mark.parametrize("wrong", RANGES)
def test_a_wrong_range_ends_in_a_whole_download(tmp_path: Path, wrong: str) -> None:
    """Whatever an earlier run left, and however often the server answers a range so."""
    ranged = response(b"0123456789", f"Content-Range: {wrong}", status="206 Partial Content")
    with raw_server(ranged, response(BODY)) as server:
        partial(tmp_path, BODY[:1000])
        assert fetched(server.url, tmp_path) == BODY
        assert server.headers("Range") == ["bytes=1000-", None]


@pytest.mark.parametrize("status", ["400 Bad", "403 No", "404 None", "405 No", "500 Broken", "501 No"])
def test_a_refused_range_ends_in_a_whole_download(tmp_path: Path, status: str) -> None:
    with raw_server(response(status=status), response(BODY)) as server:
        partial(tmp_path, BODY[:1000])
        assert fetched(server.url, tmp_path) == BODY
        assert server.headers("Range") == ["bytes=1000-", None]


@pytest.mark.parametrize("status", ["403 No", "500 Broken", "503 Busy"])
def test_what_has_arrived_is_kept_while_the_server_refuses(tmp_path: Path, status: str) -> None:
    with raw_server(response(status=status)) as server:
        part = partial(tmp_path, BODY[:1000])
        with pytest.raises(FetchError, match=f"answered {status}"):
            fetched(server.url, tmp_path)
        assert part.read_bytes() == BODY[:1000]


def test_right_ranges_of_wrong_bytes_end_in_a_whole_download(tmp_path: Path) -> None:
    ranged = response(b"\0" * 96, "Content-Range: bytes 4000-4095/4096", status="206 Partial Content")
    with raw_server(response(BODY[:4000], length="4096"), ranged, response(BODY)) as server:
        assert fetched(server.url, tmp_path, SIZED) == BODY
        assert server.headers("Range") == [None, "bytes=4000-", None]


def test_a_server_that_says_that_nothing_is_left(tmp_path: Path) -> None:
    with raw_server(response(BODY[:9], length="4096"), response(status="416 No"), response(BODY)) as server:
        assert fetched(server.url, tmp_path) == BODY


def test_breaking_off_and_wrong_ranges_in_turn_come_to_an_end(tmp_path: Path) -> None:
    ranged = response(b"0", "Content-Range: bytes 0-0/1", status="206 Partial Content")
    broken = response(BODY[:1000], length="4096")
    with raw_server(*[broken, ranged] * 20) as server, pytest.raises(FetchError, match="3 attempts"):
        fetched(server.url, tmp_path)
    assert len(server.requests) < 10


def test_a_byte_at_a_time_is_no_progress(tmp_path: Path) -> None:
    """Attempts start anew after what the least rate asks for, not after any byte."""
    with raw_server(response(b"x", length="4096")) as server, pytest.raises(FetchError, match="closed after 1 of 4096"):
        fetched(server.url, tmp_path)
    assert len(server.requests) <= 4


def test_more_than_was_promised_is_not_read(tmp_path: Path) -> None:
    head = response(length=None)
    with raw_server(endless(head, b"x" * (1 << 16))) as server, pytest.raises(FetchError, match="there are more"):
        fetched(server.url, tmp_path, SIZED)
    assert partial(tmp_path).stat().st_size == 0


@pytest.mark.parametrize("chunked", [True, False])
def test_a_body_without_end_leaves_place_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunked: bool
) -> None:
    before = free_space(tmp_path, reserve=False)

    def free(place: int, *, reserve: bool) -> int:
        assert free_space(place, reserve=reserve) <= free_space(tmp_path, reserve=False)
        return (3 << 20) - os.fstat(place).st_size if reserve else before

    monkeypatch.setattr(http, "free_space", free)
    piece = b"x" * 4096
    head = response(b"", "Transfer-Encoding: chunked", length=None) if chunked else response(length=None)
    again = b"1000\r\n" + piece + b"\r\n" if chunked else piece
    with raw_server(endless(head, again)) as server, pytest.raises(FetchError, match="no place") as caught:
        fetched(server.url, tmp_path)
    assert "announces no end" in str(caught.value)
    assert len(server.requests) == 1
    assert partial(tmp_path).stat().st_size == 0


def test_a_length_beyond_the_disk_is_not_begun(tmp_path: Path) -> None:
    with raw_server(response(BODY, length="9" * 18)) as server, pytest.raises(FetchError, match="announces 9999"):
        fetched(server.url, tmp_path)
    assert partial(tmp_path).stat().st_size == 0


@pytest.mark.parametrize(
    ("start", "again"),
    [
        (response(length="4096"), b"x"),
        (response(b"", "Transfer-Encoding: chunked", length=None), b"1\r\nx\r\n"),
        (b"", b"H"),
        (b"HTTP/1.1 200 OK\r\n", b"a"),
    ],
)
def test_a_server_that_hardly_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: bytes, again: bytes
) -> None:
    monkeypatch.setattr(request, "POLICY", request.Patience(attempts=2, delay=0.0, least_rate=10_000, span=0.1))
    slow = "less than 10000 bytes a second"
    with raw_server(endless(start, again, pause=0.01)) as server, pytest.raises(FetchError, match=slow):
        fetched(server.url, tmp_path)


@pytest.mark.parametrize(
    ("start", "again"),
    [
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (response(b"0\r\n", "Transfer-Encoding: chunked", length=None), b"X-More: 1\r\n"),
    ],
)
def test_headers_without_end(tmp_path: Path, start: bytes, again: bytes) -> None:
    with raw_server(endless(start, again * 1000)) as server, pytest.raises(FetchError, match="headers without end"):
        fetched(server.url, tmp_path)


def test_a_partial_file_that_leads_elsewhere_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "mine").write_bytes(b"mine")
    partial(tmp_path, b"").unlink()
    partial(tmp_path).symlink_to(tmp_path / "mine")
    with raw_server(response(BODY)) as server, pytest.raises(StoreError, match="cannot write"):
        fetched(server.url, tmp_path)
    assert (tmp_path / "mine").read_bytes() == b"mine"
    partial(tmp_path).unlink()
    partial(tmp_path).mkdir()
    with raw_server(response(BODY)) as server, pytest.raises(StoreError, match="cannot write"):
        fetched(server.url, tmp_path)


@pytest.mark.parametrize(
    "answer",
    [
        response(status="404 " + "x" * 60_000),
        response(status="503 " + "x" * 60_000),
        b"x" * 60_000 + b"\r\n",
        response(b"", "Location: " + "x" * 60_000 + ":", status="302 Found"),
        response(b"", "Location: http://me:hunter2@127.0.0.1:9/", status="302 Found"),
    ],
)
def test_a_message_holds_little_of_what_a_server_says(tmp_path: Path, answer: bytes) -> None:
    with raw_server(answer) as server, pytest.raises(FetchError) as caught:
        fetched(server.url, tmp_path)
    assert len(str(caught.value)) < 600
    assert "hunter2" not in str(caught.value)


def test_a_partial_file_larger_than_the_promise_is_not_even_read(tmp_path: Path) -> None:
    with partial(tmp_path, b"").open("wb") as file:
        file.truncate(1 << 40)
    with raw_server(response(BODY)) as server:
        assert fetched(server.url, tmp_path, SIZED) == BODY
        assert server.headers("Range") == [None]

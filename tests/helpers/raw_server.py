"""A server on loopback whose answers are bytes: for what no library of servers would send."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

Answer = bytes | Callable[[socket.socket], None]
"""What is sent, or a function that sends; then the connection is closed."""


@dataclass
class RawServer:
    """A running server: each connection gets the next answer, and the last one again and again."""

    url: str
    answers: list[Answer]
    requests: list[str] = field(default_factory=list)
    """The requests' heads as they arrived."""

    def headers(self, name: str) -> list[str | None]:
        """What each request had in a header."""
        found = []
        for request in self.requests:
            lines = [line.partition(": ") for line in request.split("\r\n")]
            found.append(next((value for key, _, value in lines if key.lower() == name.lower()), None))
        return found

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                piece = connection.recv(4096)
                if not piece:
                    return
                head += piece
            self.requests.append(head.decode("latin-1"))
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            if isinstance(answer, bytes):
                connection.sendall(answer)
            else:
                answer(connection)


@contextmanager
def raw_server(*answers: Answer) -> Iterator[RawServer]:
    """Run a server until the block ends."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = RawServer(f"http://127.0.0.1:{listener.getsockname()[1]}", list(answers))

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    threading.Thread(target=server._serve, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield server
        finally:
            listener.shutdown(socket.SHUT_RDWR)


def response(body: bytes = b"", *headers: str, status: str = "200 OK", length: str | None = "right") -> bytes:
    """A whole answer; `length` replaces the right one, None leaves it out."""
    lines = [f"HTTP/1.1 {status}", "Connection: close", *headers]
    if length is not None:
        lines.append(f"Content-Length: {len(body) if length == 'right' else length}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def endless(start: bytes, again: bytes, most: int = 64 << 20, pause: float = 0.0) -> Callable[[socket.socket], None]:
    """Sends `start`, then `again` over and over until the client has gone (or `most` bytes, so that no test runs for ever)."""

    def send(connection: socket.socket) -> None:
        connection.sendall(start)
        sent, stop = 0, threading.Event()
        while sent < most:
            connection.sendall(again)
            sent += len(again)
            if pause:
                stop.wait(pause)

    return send

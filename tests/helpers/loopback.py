"""Files of some directories over HTTP on loopback, as a server of models lays them out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote, urlsplit

TYPES = {".html": "text/html", ".js": "text/javascript", ".wasm": "application/wasm", ".json": "application/json"}


class Handler(BaseHTTPRequestHandler):
    """Answers with whole bodies, and says nothing: who wants to know what was asked for records it."""

    protocol_version = "HTTP/1.1"

    def reply(self, status: int, body: bytes = b"{}", headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for key, text in (headers or {}).items():
            self.send_header(key, text)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *_: Any) -> None:
        """Nothing."""


class FileHandler(Handler):
    """Answers GET from `roots`, directories by the first part of their URL: {"dist": …} serves /dist/….

    /dist/<model>/resolve/main/<file>, which is what WebLLM asks for, is the file <model>/<file>.
    """

    def __init__(self, roots: Mapping[str, Path], *rest: Any) -> None:
        self.roots = roots
        super().__init__(*rest)

    def do_GET(self) -> None:
        _, root, *parts = unquote(urlsplit(self.path).path).replace("/resolve/main/", "/").split("/")
        file = self.roots.get(root, Path("/nonexistent")).joinpath(*parts)
        if ".." in parts or not file.is_file():
            self.answer(404, b"", "text/plain")
        else:
            self.answer(200, file.read_bytes(), TYPES.get(file.suffix, "application/octet-stream"))

    def answer(self, status: int, body: bytes, kind: str) -> None:
        self.reply(status, body, {"Content-Type": kind})


@contextmanager
def serving(handler: Callable[..., BaseHTTPRequestHandler]) -> Iterator[str]:
    """A server that answers with `handler` while the block runs; gives its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), cast("Any", handler))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()

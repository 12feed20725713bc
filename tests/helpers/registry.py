"""A real registry (Debian's docker-registry) on loopback, behind a proxy that records every request."""

from __future__ import annotations

import http.client
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.helpers.loopback import Handler, serving

PROGRAM = shutil.which("docker-registry")
CONFIG = """\
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage: {{inmemory: {{}}, delete: {{enabled: true}}}}
http: {{addr: "127.0.0.1:{port}", relativeurls: true}}
{auth}
"""
# The hash of the password, by `htpasswd -nbB`.
LOGIN, HASH = ("somebody", "5entinel-pa55word"), "$2b$04$lmUf.8FRW9ZRCyk/0eWZKepNR5mSrRNtVZz4hxkwb4kvEUwhQVZn6"


@dataclass
class Request:
    """A request, how many bytes its body has, and how it was answered."""

    method: str
    path: str
    query: str
    size: int
    authorization: str | None
    status: int = 0


@dataclass
class RegistryServer:
    """The proxy in front of a running registry, whose own port is `port`."""

    host: str
    port: int
    requests: list[Request] = field(default_factory=list)
    before: Callable[[int], bool] = lambda _number: True
    """Called with the number of each request before its body is read; False drops the connection."""

    def sent(self) -> Counter[str]:
        """The bytes that each blob's uploads had, by digest; of uploads that never ended by their place."""
        places: dict[str, str] = {}
        sizes: Counter[str] = Counter()
        for one in self.requests:
            place = re.search(r"/blobs/uploads/([0-9a-f-]{36})", one.path)
            if place is None or not 200 <= one.status < 300:
                continue
            sizes[place[1]] += one.size
            if one.method == "PUT":
                places[place[1]] = urllib.parse.parse_qs(one.query)["digest"][0].removeprefix("sha256:")
        total: Counter[str] = Counter()
        for place_name, size in sizes.items():
            total[places.get(place_name, place_name)] += size
        return total

    def get(self, path: str) -> bytes:
        """What the registry has at a path below /v2/, asked past the proxy."""
        accept = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json"
        wish = urllib.request.Request(f"http://127.0.0.1:{self.port}/v2/{path}", headers={"Accept": accept})
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(wish) as answer:
            data: bytes = answer.read()
            return data

    def manifests(self) -> Counter[str]:
        """How often a manifest was put under each name."""
        return Counter(
            one.path.rpartition("/")[2]
            for one in self.requests
            if one.method == "PUT" and "/manifests/" in one.path and one.status == 201
        )


class _Handler(Handler):
    disable_nagle_algorithm, wbufsize = True, -1
    proxy: RegistryServer
    port: int

    def handle_one(self) -> None:
        parts = urllib.parse.urlsplit(self.path)
        size = int(self.headers.get("Content-Length") or 0)
        seen = Request(self.command, parts.path, parts.query, size, self.headers.get("Authorization"))
        self.proxy.requests.append(seen)
        if not self.proxy.before(len(self.proxy.requests)):
            self.close_connection = True
            return
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        headers = {key: value for key, value in self.headers.items() if key.lower() != "connection"}
        connection.request(self.command, self.path, self.rfile.read(size), headers)
        answer = connection.getresponse()
        body = answer.read()
        seen.status = answer.status
        self.send_response(answer.status)
        for key, value in answer.getheaders():
            if key.lower() not in ("content-length", "connection", "date", "transfer-encoding"):
                self.send_header(key, value)
        self.send_header("Content-Length", answer.getheader("Content-Length") or str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        connection.close()

    do_GET = do_POST = do_PUT = do_HEAD = do_PATCH = handle_one


@contextmanager
def running_registry(place: Path, *, login: bool = False) -> Iterator[RegistryServer]:
    """Run a registry, whose configuration is in a directory, until the block ends; skip where the program is missing."""
    if PROGRAM is None:
        pytest.skip("docker-registry is not installed")
    place.mkdir(parents=True, exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    auth = ""
    if login:
        (place / "htpasswd").write_text(f"{LOGIN[0]}:{HASH}\n")
        auth = f"auth: {{htpasswd: {{realm: test, path: {place / 'htpasswd'}}}}}"
    config = place / "config.yml"
    config.write_text(CONFIG.format(port=port, auth=auth))
    process = subprocess.Popen([PROGRAM, "serve", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    proxy = RegistryServer("", port)
    handler = type("Handler", (_Handler,), {"proxy": proxy, "port": port})
    try:
        with serving(handler) as address:
            proxy.host = address.removeprefix("http://")
            _wait(port, process)
            yield proxy
    finally:
        process.kill()
        process.wait()


def _wait(port: int, process: subprocess.Popen[bytes]) -> None:
    """Until the registry listens."""
    until = time.monotonic() + 30
    while True:
        assert process.poll() is None, "the registry ended"
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            assert time.monotonic() < until
            threading.Event().wait(0.02)

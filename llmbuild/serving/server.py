"""The server's process: its socket, its signals, and its end.

Importing this module must not import the packages that `require_server` looks for.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import signal
import socket
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from llmbuild.errors import UsageError
from llmbuild.runtime.extras import require_extra

if TYPE_CHECKING:
    import uvicorn

    from llmbuild.serving.app import Service
    from llmbuild.serving.worker import Worker

GRACE = 10
"""Seconds that a stopping server gives to the answers that it has begun."""

_BACKLOG = 128
"""Connections that wait to be accepted."""

IDLE = 5
"""Seconds after which a connection without a request is closed."""


def require_server() -> None:
    """Raise ToolchainError where what a server needs is not installed."""
    require_extra("serve", ("starlette", "uvicorn"), why="`llmbuild serve` answers with it")


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens at an address of this machine; port 0 takes a free one.  Raises UsageError where that fails.

    Two sockets that do not listen yet can have one port.  Who connects before the models are loaded waits for them.
    """
    if not 0 <= port < 1 << 16:
        raise UsageError(
            f"--port must be 0 to 65535, not {port}", fix="write --port 8000, or --port 0 for one that is free"
        )
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(_BACKLOG)
    except OSError as error:
        fix = "choose another --port" if error.errno in (errno.EADDRINUSE, errno.EACCES) else "choose another --host"
        raise UsageError(f"the server cannot have {host}, port {port}", why=error.strerror, fix=fix) from error
    except UnicodeError as error:
        # Python encodes a name before it asks for the address.
        raise UsageError(f"'{host}' is no name of a host", fix="choose another --host") from error
    return bound


def address_of(bound: socket.socket) -> str:
    """The URL of a server at a socket."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_local(bound: socket.socket) -> bool:
    """Whether only programs of this machine reach a socket."""
    return ipaddress.ip_address(bound.getsockname()[0]).is_loopback


def serve(service: Service, worker: Worker, bound: socket.socket, ready: Callable[[], None]) -> None:
    """Answer until SIGINT or SIGTERM, and then until the answers that have begun are ended, `GRACE` seconds at most.

    `ready` is called when the first request can be answered.
    """
    import asyncio

    import uvicorn

    config = uvicorn.Config(
        service,
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        timeout_keep_alive=IDLE,
        timeout_graceful_shutdown=GRACE,
        proxy_headers=False,
    )
    server = uvicorn.Server(config)

    async def run() -> None:
        serving = asyncio.create_task(server.serve(sockets=[bound]))
        while not server.started and not serving.done():
            await asyncio.sleep(0.01)
        if server.started:
            ready()
        await serving

    with _own_ends(server):
        try:
            asyncio.run(run())
        finally:
            worker.close()


@contextlib.contextmanager
def _own_ends(server: uvicorn.Server) -> Iterator[None]:
    """Take both signals as the wish to stop, before uvicorn handles them too, and after: it raises them once more at its end."""

    def stop(*_: object) -> None:
        server.should_exit = True

    ends = (signal.SIGINT, signal.SIGTERM)
    before = {each: signal.signal(each, stop) for each in ends}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)

"""Who may come in: requests with the key, and without a key those that no web page elsewhere can send.

A page may give a name of its own the address 127.0.0.1, and then send a browser there as to its own server (DNS rebinding).
The name stays in the header Host, so a server that listens on this machine alone and has no key takes only names of this
machine.
"""

from __future__ import annotations

import hmac
import re

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from llmbuild.serving.errors import RequestError

OPEN = "/health"
"""The path that needs no key: a supervisor asks it."""

_LOCAL = re.compile(rb"(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d+)?", re.IGNORECASE)


class Door:
    """Middleware that answers 401 to requests without the key, and 403 to those for another host than this one."""

    def __init__(self, app: ASGIApp, *, key: str | None, local: bool) -> None:
        self._app = app
        self._key = key
        self._local = local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = self._refused(scope)
        if error is None:
            await self._app(scope, receive, send)
            return
        headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else {}
        await JSONResponse(error.to_json(), error.status, headers)(scope, receive, send)

    def _refused(self, scope: Scope) -> RequestError | None:
        headers = dict(scope["headers"])
        if self._key is None:
            if self._local and not _LOCAL.fullmatch(headers.get(b"host", b"")):
                return RequestError("this server answers to names of this machine alone, such as localhost", status=403)
            return None
        if scope["path"] == OPEN or hmac.compare_digest(
            headers.get(b"authorization", b""), f"Bearer {self._key}".encode()
        ):
            return None
        return RequestError(
            "the API key is missing or wrong: send it as Authorization: Bearer KEY", code="invalid_api_key", status=401
        )

"""The body of a request: JSON of a bounded size, sent in a bounded time."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import ClientDisconnect, Request

from llmbuild.jsontext import parse_json
from llmbuild.serving.errors import RequestError

MOST_BYTES = 4 << 20
"""A conversation that fills a context of 128 thousand tokens has half a megabyte."""

MOST_SECONDS = 30.0


async def read_json(request: Request) -> Any:
    """The JSON value that a request sends.  Raises RequestError for everything else.

    The media type is required since a browser lets any page send a form, but asks the server before it lets one send JSON.
    """
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != "application/json":
        raise RequestError("send JSON: the header must be Content-Type: application/json", status=415)
    try:
        async with asyncio.timeout(MOST_SECONDS):
            data = await _read(request)
    except ClientDisconnect:
        # For the log alone: nobody reads the reply.
        raise RequestError("the client left before its body was there") from None
    except TimeoutError:
        raise RequestError(f"the body did not come within {MOST_SECONDS:.0f} seconds", status=408) from None
    try:
        return parse_json(data, unique=True)
    except ValueError as error:
        raise RequestError(f"the body is not JSON: {error}") from None


async def _read(request: Request) -> bytes:
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > MOST_BYTES:
            raise RequestError(f"the body has more than {MOST_BYTES} bytes", status=413)
        parts.append(part)
    return b"".join(parts)

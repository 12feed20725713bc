"""The application: routes, what each does, and the log line of each request."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llmbuild.printable import printable
from llmbuild.serving.body import read_json
from llmbuild.serving.door import OPEN, Door
from llmbuild.serving.errors import RequestError
from llmbuild.serving.parameters import ChatParameters, Parameters, Read, TextParameters, read_parameters
from llmbuild.serving.replies import ChatReply, Reply, event
from llmbuild.serving.served import Served, find_model
from llmbuild.serving.worker import Answer, Worker

RETRY_AFTER = "5"
"""Seconds after which a client that was sent away tries again."""


@dataclass(frozen=True, slots=True)
class Access:
    """Who may ask: the key, web pages of which origins, and whether only this machine."""

    key: str | None = None
    origins: Sequence[str] = ()
    local: bool = True


class Service:
    """The endpoints on some models.  `log` takes a line for each request, `crash` an error that is a bug."""

    def __init__(
        self,
        models: Mapping[str, Served],
        worker: Worker,
        access: Access,
        *,
        log: Callable[[str], None],
        crash: Callable[[BaseException], None],
    ) -> None:
        self._models = models
        self._worker = worker
        self._log = log
        self._crash = crash
        # Tokenizers take hundreds of bytes for each token of a text, so that there is one text at a time.
        self._tokenizing = asyncio.Semaphore()
        self._app: ASGIApp = Starlette(
            routes=[
                Route(OPEN, self._health, methods=["GET"]),
                Route("/v1/models", self._list, methods=["GET"]),
                Route("/v1/models/{name:path}", self._one, methods=["GET"]),
                Route("/v1/chat/completions", self._chat, methods=["POST"]),
                Route("/v1/completions", self._text, methods=["POST"]),
            ],
            middleware=[Middleware(Door, key=access.key, local=access.local)],
            exception_handlers={
                RequestError: _refuse,
                HTTPException: _refuse_http,
                Exception: _fail,
            },
        )
        if access.origins:
            # Outermost: a browser shows a page no reply without its headers, an error's neither.
            self._app = CORSMiddleware(
                self._app,
                allow_origins=list(access.origins),
                allow_methods=["GET", "POST"],
                allow_headers=["*"],
                # Chrome asks this too where a page of the web sends a request to this machine.
                allow_private_network=True,
            )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request and log a line of it, with nothing of what was asked or answered."""
        if scope["type"] != "http":
            return
        status = 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        began = time.monotonic()
        try:
            await self._app(scope, receive, sending)
        except Exception as error:
            # The reply has been sent where none had begun: whoever asks is told nothing of what a bug says.
            self._crash(error)
        seconds = time.monotonic() - began
        note = scope.get("llmbuild.note", "")
        path = printable(scope["path"][:100])
        self._log(f"{scope['method']} {path} {status} {seconds:.2f} s{note}")

    async def _health(self, _request: Request) -> Response:
        return JSONResponse({"status": "ok", "waiting": self._worker.waiting})

    async def _list(self, _request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [served.to_json() for served in self._models.values()]})

    async def _one(self, request: Request) -> Response:
        return JSONResponse(find_model(self._models, request.path_params["name"]).to_json())

    async def _chat(self, request: Request) -> Response | _Stream:
        return await self._reply(request, ChatParameters, Served.chat_prompt, ChatReply)

    async def _text(self, request: Request) -> Response | _Stream:
        return await self._reply(request, TextParameters, Served.text_prompt, Reply)

    async def _reply(
        self,
        request: Request,
        parameters: type[Read],
        prompt_of: Callable[[Served, Read], list[int]],
        reply_of: Callable[[str], Reply],
    ) -> Response | _Stream:
        # The place is taken before the body is read, so that the queue bounds what is in memory.
        with self._worker.place():
            asked = read_parameters(parameters, await read_json(request))
            served = find_model(self._models, asked.model)
            async with self._tokenizing:
                prompt = await run_in_threadpool(prompt_of, served, asked)
            answer = self._worker.begin(
                lambda cancelled: served.answer(prompt, asked, cancelled), lambda: served.model.statistics
            )
        reply = reply_of(served.name)
        if asked.stream:
            return _Stream(answer, self._events(request, served, answer, asked, reply))
        async with _watched(request.receive, answer):
            text = "".join([piece async for piece in answer.pieces()])
        _note(request.scope, served, answer)
        assert answer.statistics is not None
        return JSONResponse(reply.whole(text, answer.statistics))

    async def _events(
        self, request: Request, served: Served, answer: Answer, asked: Parameters, reply: Reply
    ) -> AsyncIterator[bytes]:
        """The events of a stream.  An error of the computation is one of them, as the status has been sent."""
        yield reply.opening()
        try:
            async for piece in answer.pieces():
                yield reply.piece(piece)
        except Exception as error:
            self._crash(error)
            yield event(_FAILED.to_json())
            return
        _note(request.scope, served, answer)
        assert answer.statistics is not None
        yield reply.closing(answer.statistics, with_usage=asked.usage_in_stream)


class _Stream:
    """Server-sent events of an answer, which ends when the client leaves."""

    def __init__(self, answer: Answer, events: AsyncIterator[bytes]) -> None:
        self._answer = answer
        self._response = StreamingResponse(
            events, headers={"Cache-Control": "no-cache"}, media_type="text/event-stream"
        )

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        async with _watched(receive, self._answer):
            await self._response.stream_response(send)


@contextlib.asynccontextmanager
async def _watched(receive: Receive, answer: Answer) -> AsyncIterator[None]:
    """Cancel the answer when the client leaves, and when the block ends early."""

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        answer.cancel()

    watcher = asyncio.create_task(watch())
    try:
        yield
    finally:
        watcher.cancel()
        answer.cancel()


def _note(scope: Scope, served: Served, answer: Answer) -> None:
    """What the log line says besides: the model, the tokens, and how the answer ended."""
    statistics = answer.statistics
    assert statistics is not None
    tokens = f"{statistics.prompt_tokens}+{statistics.answer_tokens} tokens"
    scope["llmbuild.note"] = f", {served.name}, {tokens}, {statistics.finish}"


_FAILED = RequestError("the server failed to answer; its log says more", code="internal_error", status=500)


async def _refuse(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    headers = {"Retry-After": RETRY_AFTER} if error.status == 503 else {}
    return JSONResponse(error.to_json(), error.status, headers)


async def _refuse_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    words = {
        404: "there is nothing at this path",
        405: f"this path does not take {request.method}",
    }
    refused = RequestError(words.get(error.status_code, error.detail), status=error.status_code)
    return JSONResponse(refused.to_json(), error.status_code, dict(error.headers or {}))


async def _fail(_request: Request, _error: Exception) -> Response:
    return JSONResponse(_FAILED.to_json(), _FAILED.status)

"""Errors of requests, in the form of OpenAI's interface: `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

from typing import Any


class RequestError(Exception):
    """A request that is not answered, and why.

    `param` is the parameter that is wrong (`messages[0].content`), `code` a word that a program may compare.
    """

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code
        self.status = status

    def to_json(self) -> dict[str, Any]:
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

"""Errors of llmbuild that a pass raises: TVM, through which they go, replaces them by a RuntimeError with their text."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from llmbuild.errors import LlmbuildError

_raised: list[LlmbuildError] = []


def kept(transform: Callable[[Any, Any, Any], Any]) -> Callable[[Any, Any, Any], Any]:
    """A pass's `transform_module` whose errors `own_errors` knows."""

    @wraps(transform)
    def run(self: Any, module: Any, context: Any) -> Any:
        try:
            return transform(self, module, context)
        except LlmbuildError as error:
            _raised.append(error)
            raise

    return run


@contextmanager
def own_errors() -> Iterator[None]:
    """Within this context an error of llmbuild that a pass raises comes out as it was raised."""
    _raised.clear()
    try:
        yield
    except RuntimeError:
        if _raised:
            raise _raised.pop() from None
        raise

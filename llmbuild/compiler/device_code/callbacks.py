"""Functions that TVM's code generators call, replaced for a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any


@contextmanager
def replaced(functions: Mapping[str, Callable[..., Any]]) -> Iterator[None]:
    """Register the functions in TVM under their names, and restore the former ones at the end.

    An error that one of them raises passes through TVM, which replaces it by another one; here the original is raised.
    """
    import tvm_ffi

    raised: list[Exception] = []

    def guarded(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            try:
                return function(*arguments)
            except Exception as error:
                raised.append(error)
                raise

        return call

    before = {name: tvm_ffi.get_global_func(name, allow_missing=True) for name in functions}
    for name, function in functions.items():
        tvm_ffi.register_global_func(name, guarded(function), override=True)
    try:
        yield
    except Exception as error:
        if raised and error is not raised[0]:
            raise raised[0] from None
        raise
    finally:
        for name, function in before.items():
            if function is not None:
                tvm_ffi.register_global_func(name, function, override=True)

"""Quick stacks for TVMScript, which inspects the caller's frames at every function that it parses.

`inspect.stack` looks up the source file of every frame, and for that searches every loaded module.  Importing TVM's intrinsics
for tensor cores, which are a hundred small functions, takes 30 seconds that way and 3 without.
"""

from __future__ import annotations

import inspect
import linecache
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def quick_stacks() -> Iterator[None]:
    """Within this context, `inspect.stack` and `inspect.getouterframes` (asked for at every macro) return the same frames
    with one line of source each, and search no modules."""
    slow = inspect.stack, inspect.getouterframes
    inspect.stack, inspect.getouterframes = _stack, _outer_frames
    try:
        yield
    finally:
        inspect.stack, inspect.getouterframes = slow


def _stack(context: int = 1) -> list[inspect.FrameInfo]:
    return _outer_frames(sys._getframe(1), context)


def _outer_frames(frame: Any, context: int = 1) -> list[inspect.FrameInfo]:
    """The frame and all that called it."""
    found = []
    while frame is not None:
        code = frame.f_code
        line = linecache.getline(code.co_filename, frame.f_lineno) if context else ""
        # A frame without source has neither lines nor a place among them, as in `inspect`.
        lines, index = ([line], 0) if line else (None, None)
        found.append(inspect.FrameInfo(frame, code.co_filename, frame.f_lineno, code.co_name, lines, index))
        frame = frame.f_back
    return found

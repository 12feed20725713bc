"""Python's garbage collector stays out of the way of TVM: it would look again and again at objects that nearly all stay to the
end, which took a twentieth of a lowering's time, and finds nothing worth having there."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Within this context no cycles of objects are collected."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()

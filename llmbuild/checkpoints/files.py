"""Reading weight files by position.

Weights are read with `preadv` into fresh arrays and not through a memory map: mapped pages count as resident memory of
the process until the kernel takes them back, so that converting a large checkpoint would appear to need all of it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmbuild.checkpoints.tensor import numpy_dtype
from llmbuild.errors import InputError

if TYPE_CHECKING:
    import numpy as np

MAX_JSON_BYTES = 256 << 20
_MAX_READ = 1 << 30


class WeightFile:
    """An open file of known size.  Raises InputError when it cannot be opened or a read comes back short."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = -1
        try:
            self._descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
            self.size = os.fstat(self._descriptor).st_size
        except OSError as error:
            raise InputError("the weight file cannot be opened", where=str(path), why=error.strerror) from error

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __del__(self) -> None:
        self.close()

    def read_bytes(self, offset: int, count: int) -> bytes:
        """Exactly `count` bytes at `offset`."""
        if offset < 0 or count < 0 or offset + count > self.size:
            raise self.truncated(offset + count)
        buffer = bytearray(count)
        self._fill(memoryview(buffer), offset)
        return bytes(buffer)

    def read_array(self, offset: int, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        """A fresh C-contiguous array of little-endian elements that start at `offset`."""
        import numpy as np

        try:
            array = np.empty(shape, numpy_dtype(dtype))
        except MemoryError as error:
            raise InputError(
                f"there is not enough memory for a tensor of shape {list(shape)}", where=str(self.path)
            ) from error
        self._fill(array.reshape(-1).view(np.uint8).data, offset)
        return array

    def truncated(self, wanted: int) -> InputError:
        return InputError(
            "the file is truncated",
            where=str(self.path),
            why=f"it has {self.size} bytes and at least {wanted} are needed",
            fix="fetch the file again",
        )

    def _fill(self, view: memoryview, offset: int) -> None:
        done = 0
        while done < len(view):
            try:
                count = os.preadv(self._descriptor, [view[done : done + _MAX_READ]], offset + done)
            except OSError as error:
                raise InputError("the weight file cannot be read", where=str(self.path), why=error.strerror) from error
            if count == 0:
                raise self.truncated(offset + len(view))
            done += count


def read_json(path: Path, what: str) -> dict[str, Any]:
    """A JSON object from a file; `what` names the file's role in messages.  Raises InputError."""
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise InputError(
                f"{what} is too large to be one", where=str(path), why=f"it has over {MAX_JSON_BYTES} bytes"
            )
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{what} cannot be read", where=str(path), why=error.strerror) from error
    return parse_json(data, what, path)


def parse_json(
    data: bytes, what: str, path: Path, pairs: Callable[[Iterable[tuple[str, Any]]], dict[str, Any]] = dict
) -> dict[str, Any]:
    """A JSON object from bytes; `pairs` makes each object.  Raises InputError."""
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=pairs)
    except UnicodeDecodeError as error:
        raise InputError(f"{what} is not UTF-8", where=str(path), why=str(error)) from error
    except RecursionError as error:
        raise InputError(f"{what} is nested too deeply", where=str(path)) from error
    except ValueError as error:
        raise InputError(f"{what} is not valid JSON", where=str(path), why=str(error)[:200]) from error
    if not isinstance(value, dict):
        raise InputError(f"{what} is not a JSON object", where=str(path), why=f"it is a {type(value).__name__}")
    return value
